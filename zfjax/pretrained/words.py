"""What the readers of weights share: their result, and lists in messages."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

Found = tuple[dict[str, np.ndarray], list[str]]  # {name: array}, and what was chosen, left out or cannot be checked
_LISTED = 6  # names in a message; the rest is counted


def listed(names: Iterable[str]) -> str:
    """The first names, and how many more."""
    names = list(names)
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
