"""What the readers of weights share: their result, an entry by its name, lists in messages, what may be unpacked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from zfjax.errors import UserError

Found = tuple[dict[str, np.ndarray], list[str]]  # {name: array}, and what was chosen, left out or cannot be checked
_TIMES = 200  # of what is stored, the most that is unpacked: weights, even of which most are 0, shrink to a tenth
_SMALL = 1 << 30  # bytes that are unpacked whatever they are packed in
_LISTED = 6  # names in a message; the rest is counted


def listed(names: Iterable[str]) -> str:
    """The first names, and how many more."""
    names = list(names)
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def entry(tree: Any, key: str) -> Any:
    """What `key` names in nested mappings: one of the names, or a path of them, "ema/shadow"; UserError: none."""
    place = tree
    name = ""
    for part in key.split("/"):
        name = f"{name}/{part}" if name else part  # a name may hold a slash itself
        if isinstance(place, Mapping) and name in place:
            place, name = place[name], ""
    if name or not key:
        kind = type(place).__name__.strip("_").lower()
        raise UserError(
            f"key={key!r}: it holds {listed(map(str, place)) if isinstance(place, Mapping) else f'a {kind}'}"
        )
    return place


def check_unpacked(claimed: int, *, stored: int, what: str) -> None:
    """UserError for a few bytes that say of themselves that they hold so many numbers that memory would not hold them.

    Args:
      claimed: bytes that would be made.
      stored: bytes that they are made of.
      what: holds them, in words.
    """
    if claimed > max(_TIMES * stored, _SMALL):
        raise UserError(
            f"{what} unpacks to {claimed} bytes, more than {_TIMES} times its {stored}: no weights compress so far"
        )
