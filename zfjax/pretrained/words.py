"""What the readers of weights share: their result, an entry by its name, and lists in messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from zfjax.errors import UserError

Found = tuple[dict[str, np.ndarray], list[str]]  # {name: array}, and what was chosen, left out or cannot be checked
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
