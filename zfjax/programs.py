"""Compiled steps that take functions among their arguments, and keep a program only as long as its functions live.

`jax.jit` takes a function as an argument in a `jax.tree_util.Partial`, and then keeps it for ever, with all that it
holds and the program made of it. Here a step is compiled anew for each function object, found again where the same
object comes again, and gone with it, as what `jax.jit` makes of a function is.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import wraps
from types import MethodType
from typing import Any, NamedTuple

import jax
from jax.tree_util import Partial


def as_partial(fn: Callable[..., Any]) -> Partial:
    """`fn` as a `Partial`, as which it can be an argument of a compiled step."""
    return fn if isinstance(fn, Partial) else Partial(fn)


def compiled(step: Callable[..., Any], using: Callable[..., Any] = jax.jit) -> Any:
    """`step` compiled, once for each function object among its arguments.

    Like `jax.jit` it remembers what a function read at its first call: parameters that change belong into a `Partial`,
    whose arrays are arguments of the program.

    Args:
      step: function of trees of arrays and of `Partial`s, which may hold others.
      using: what compiles it: `jax.jit` with its options, or `parallel.data_parallel`.

    Returns:
      A function of the same arguments, with `lower` where the compiled one has it.
    """
    kept: dict[Any, tuple[Any, ...]] = {}  # functions -> (compiled, *references to them)

    def of(functions: tuple[Callable[..., Any], ...]) -> Callable[..., Any]:
        key = tuple(map(_identity, functions))
        if key not in kept:
            forget = lambda _: kept.pop(key, None)  # noqa: E731
            references = [_reference(function, forget) for function in functions]
            program: Callable[..., Any] = using(_with_functions(step, references))
            if not all(isinstance(reference, weakref.ref) for reference in references):
                return program  # nothing would tell when to forget it
            kept[key] = (program, *references)
        known: Callable[..., Any] = kept[key][0]
        return known

    def split(args: Any, kwargs: Any) -> tuple[Any, Any, Any]:
        functions: list[Callable[..., Any]] = []
        args, kwargs = _without_functions((args, kwargs), functions)
        return of(tuple(functions)), args, kwargs

    @wraps(step)
    def called(*args: Any, **kwargs: Any) -> Any:
        program, args, kwargs = split(args, kwargs)
        return program(*args, **kwargs)

    def lower(*args: Any, **kwargs: Any) -> Any:
        program, args, kwargs = split(args, kwargs)
        return program.lower(*args, **kwargs)

    result: Any = called
    result.lower = lower
    return result


class _Hole(NamedTuple):
    """A `Partial` without its function."""

    number: int
    args: tuple[Any, ...]
    keywords: dict[str, Any]


jax.tree_util.register_pytree_node(
    _Hole, lambda hole: ((hole.args, hole.keywords), hole.number), lambda number, of: _Hole(number, *of)
)


def _without_functions(tree: Any, functions: list[Callable[..., Any]]) -> Any:
    """The tree with a `_Hole` for each `Partial`, whose function is appended."""

    def emptied(node: Any) -> Any:
        if not isinstance(node, Partial):
            return node
        functions.append(_own(node.func))
        number = len(functions) - 1
        return _Hole(number, *_without_functions((node.args, node.keywords), functions))

    return jax.tree.map(emptied, tree, is_leaf=lambda node: isinstance(node, Partial))


def _with_functions(step: Callable[..., Any], references: list[Callable[[], Any]]) -> Callable[..., Any]:
    """`step` of trees with holes; it holds the functions weakly, for its program must not keep them alive."""

    def filled(node: Any) -> Any:
        if not isinstance(node, _Hole):
            return node
        args, keywords = fill((node.args, node.keywords))
        return Partial(references[node.number](), *args, **keywords)

    def fill(tree: Any) -> Any:
        return jax.tree.map(filled, tree, is_leaf=lambda node: isinstance(node, _Hole))

    @wraps(step)
    def run(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = fill((args, kwargs))
        return step(*args, **kwargs)

    return run


def _own(function: Any) -> Callable[..., Any]:
    """The function itself: JAX boxes a `functools.partial` anew in every `Partial`."""
    own: Callable[..., Any] = function.fun if type(function).__name__ == "_HashableCallableShim" else function
    return own


def _identity(function: Callable[..., Any]) -> Any:
    """Methods are made anew at every access: they are the same where their object and function are."""
    if isinstance(function, MethodType):
        return id(function.__self__), id(function.__func__)
    return id(function)


def _reference(function: Callable[..., Any], forget: Callable[[Any], Any]) -> Callable[[], Any]:
    """A weak reference; where there can be none, what gives the function."""
    try:
        kind = weakref.WeakMethod if isinstance(function, MethodType) else weakref.ref
        return kind(function, forget)
    except TypeError:
        return lambda: function
