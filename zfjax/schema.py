"""Whether JSON holds what is read of it: the fields that a TypedDict names, each of its type.

A reader of ours names such a TypedDict; what is found missing afterwards is a mistake of ours.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    NotRequired,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from zfjax.errors import UserError

Value = TypeVar("Value")


class Range(NamedTuple):
    """From `least` to `most`, both included."""

    least: float
    most: float


Share = Annotated[float, Range(0, 1)]
Count = Annotated[int, Range(1, math.inf)]

WORDS: dict[type, str] = {
    float: "a number",
    int: "a whole number",
    str: "a string",
    bool: "true or false",
    dict: "an object",
    list: "a list",
}


def check(result: object, fields: Any) -> None:
    """UserError that names the first field of `fields`, as for `faults`, that `result` lacks or has of another type."""
    if (fault := next(faults(result, fields), None)) is not None:
        raise UserError(fault)


def entry(values: Mapping[str, Value], name: str, of: str) -> Value:
    """`values[name]`, which what `result` says elsewhere promises; UserError where it is missing of the field `of`."""
    if name not in values:
        raise UserError(f"{of}.{name} is missing")
    return values[name]


def faults(value: object, kind: Any, place: str = "") -> Iterator[str]:
    """What `value` lacks to be of type `kind`, one sentence each; nothing where it is.

    Args:
      value: what JSON holds. There a whole number is a number too, and a tuple is a list.
      kind: a TypedDict, a dataclass by its fields, dict[str, ...], list[...], tuple[...], ... | None, A | B, of which
        the first names what is wrong, Literal[...], Annotated[..., Range], a type of `WORDS`, or object for anything.
      place: names of the fields that lead to it, with dots between.
    """
    origin, args = get_origin(kind), get_args(kind)
    if is_typeddict(kind) or dataclasses.is_dataclass(kind):
        yield from _faults_of_fields(value, kind, place)
    elif origin in (Union, UnionType):
        of_each = [list(faults(value, arg, place)) for arg in args if arg is not NoneType]
        yield from of_each[0] if all(of_each) and not (value is None and NoneType in args) else ()
    elif origin is Annotated:
        wrong = list(faults(value, args[0], place))
        yield from wrong or _faults_of_range(value, args[1], place)
    elif origin is Literal:
        if value not in args:
            yield f"{place} is {value!r:.60}, not one of {', '.join(map(repr, args))}"
    elif origin is tuple and isinstance(value, list) and len(value) != len(args):
        yield f"{place} has {len(value)} entries, not {len(args)}"
    elif origin in (dict, list, tuple):
        yield from _faults_of_entries(value, origin=origin, args=args, place=place)
    elif not _is_a(value, kind):
        yield _wrong(value, kind, place)


def _faults_of_fields(value: object, kind: Any, place: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield _wrong(value, dict, place)
        return
    for name, of in get_type_hints(kind, include_extras=True).items():
        needed = get_origin(of) is not NotRequired
        if name in value:
            yield from faults(value[name], of if needed else get_args(of)[0], _join(place, name))
        elif needed:
            yield f"{_join(place, name)} is missing"


def _faults_of_entries(value: object, *, origin: type, args: tuple[Any, ...], place: str) -> Iterator[str]:
    if origin is dict and isinstance(value, dict):
        for name, one in value.items():
            yield from faults(one, args[1], _join(place, name))
    elif origin is not dict and isinstance(value, list):
        kinds = args if origin is tuple else args * len(value)
        for number, (one, kind) in enumerate(zip(value, kinds, strict=True), start=1):
            yield from faults(one, kind, _join(place, str(number)))
    else:
        yield _wrong(value, dict if origin is dict else list, place)


def _faults_of_range(value: Any, within: Range, place: str) -> Iterator[str]:
    if not within.least <= value <= within.most:
        most = "" if within.most == math.inf else f" and at most {within.most:g}"
        yield f"{place} is {value!r}, not at least {within.least:g}{most}"


def _is_a(value: object, kind: type) -> bool:
    if isinstance(value, bool):
        return kind in (bool, object)
    return isinstance(value, int | float) if kind is float else isinstance(value, kind)


def _wrong(value: object, kind: type, place: str) -> str:
    return f"{place or 'the result'} is {value!r:.60}, not {WORDS[kind]}"


def _join(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name
