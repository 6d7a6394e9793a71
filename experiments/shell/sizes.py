"""How commands name a size of pictures: 96, or HEIGHTxWIDTH as 96x128."""

from __future__ import annotations

from typing import Annotated, Any

import tyro

from zfjax.architecture import Size
from zfjax.pixels import size_of_words, size_words


def _read(words: str) -> Size:
    """A whole number that is none of pixels is refused where it is used, by its name."""
    try:
        return int(words)
    except ValueError:
        return size_of_words(words)


def _words(size: Size) -> str:
    return size_words(size) if isinstance(size, tuple) else str(size)


def _is_size(value: Any) -> bool:
    return isinstance(value, int | tuple)


SizeFlag = Annotated[
    Size,
    tyro.constructors.PrimitiveConstructorSpec[Any](
        nargs=1,
        metavar="PIXELS|HEIGHTxWIDTH",
        instance_from_str=lambda words: _read(words[0]),
        is_instance=_is_size,
        str_from_instance=lambda size: [_words(size)],
    ),
]
