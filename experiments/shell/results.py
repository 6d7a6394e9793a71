"""Where a command writes its result, and how: files that are whole or not there, result.json last."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from experiments.pages.canvas import png
from zfjax.data import ImageSet
from zfjax.data.photo_sets import PhotoSet
from zfjax.errors import UserError
from zfjax.files import write_atomically
from zfjax.nets import Pictured


def result_folder(out: Path | None, default: Path, *, overwrite: bool) -> Path:
    """Where a result goes: `out` or `default`; UserError where one is already there and may not be replaced."""
    folder = default if out is None else out
    if (folder / "result.json").exists() and not overwrite:
        raise UserError(f"out={str(folder)!r}: it already holds a result; give another folder, or --overwrite")
    if any(folder.glob("*.png")) and not (folder / "result.json").exists() and not overwrite:
        raise UserError(
            f"out={str(folder)!r}: it holds pictures of something else; give another folder, or --overwrite"
        )
    return folder


def provenance(net: Pictured, data: ImageSet | PhotoSet, config: Any) -> dict[str, Any]:
    """What every result.json says about where its numbers come from."""
    return {
        "checkpoint": {"path": net.path, "fingerprint": net.fingerprint},
        "data": {"name": data.name, "fingerprint": data.fingerprint, "num_classes": len(data.class_names)},
        "config": config,
        "versions": versions(),
    }


def save_figure(path: Path, figure: Figure) -> None:
    """Write `figure` as a PNG, whole or not at all."""
    write_atomically(path, png(figure))


def versions() -> dict[str, str]:
    """Versions of what computed and drew a result."""
    return {"python": platform.python_version()} | {name: version(name) for name in ("jax", "numpy", "matplotlib")}
