"""The sets that the paper carries its features to (sec. 4.2), opened from whatever form of them is there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from zfjax.data import tfds_sets
from zfjax.data.caltech import open_caltech
from zfjax.data.photo_sets import PhotoSet
from zfjax.data.voc import open_voc

NATIVE: dict[str, Callable[[Path], PhotoSet]] = {
    "caltech101": lambda path: open_caltech(path, "caltech101"),
    "caltech256": lambda path: open_caltech(path, "caltech256"),
    "voc2012": open_voc,
}


def open_set(name: str, path: Path) -> PhotoSet:
    """A set by name from what lies at `path`: its native folder or tar, or what TFDS prepared.

    Args:
      name: "caltech101", "caltech256" or "voc2012".
      path: see `caltech.open_caltech`, `voc.open_voc`; or TFDS's data folder, or the set's version in it.
    Raises:
      FileNotFoundError: nothing at `path`.
      ValueError: an unknown name, or what lies there is not that set, or not all of it.
    """
    if name not in NATIVE:
        raise ValueError(f"dataset={name!r}: one of {', '.join(NATIVE)} is needed")
    prepared = tfds_sets.find_prepared(Path(path), name)
    return NATIVE[name](Path(path)) if prepared is None else tfds_sets.open_prepared(prepared, name)
