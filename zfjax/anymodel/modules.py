"""Names for the modules of Flax NNX, which write none into the program: the attribute paths of the model."""

from __future__ import annotations

import contextlib
import inspect
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial, wraps
from typing import Any

import jax

_LOCK = threading.RLock()
_DEEP = 4  # functions in functions in which a model is looked for


@contextlib.contextmanager
def named_modules(fn: Any) -> Iterator[None]:
    """While this lasts, the NNX modules that `fn` is, or holds, write their paths as `jax.named_scope` does.

    A module is held by a function as a variable from around it, by `functools.partial` or as the object of a method.
    Where there are several models each path begins with the variable's name. A model that `fn` makes while it runs, of
    the `nnx.GraphDef` that it holds, or that a transform of NNX copies, has the paths of its own parts.
    """
    nnx: Any = sys.modules.get("flax.nnx")
    held = [] if nnx is None else list(_held(fn, name="", kinds=(nnx.Module, nnx.GraphDef), visited=set(), depth=_DEEP))
    if not held:
        yield
        return
    with _LOCK:  # classes are changed for all threads
        kinds = {kind for kind in _classes(nnx.Module) if "__call__" in vars(kind)} - _OWN.keys()
        for kind in kinds:
            _OWN[kind] = vars(kind)["__call__"]
            kind.__call__ = _in_scope(kind.__call__)
        _NAMED.append((_paths({name: module for name, module in held if isinstance(module, nnx.Module)}), []))
        try:
            yield
        finally:
            _NAMED.pop()
            for kind in kinds:
                kind.__call__ = _OWN.pop(kind)


_Path = tuple[str, ...]
_Paths = dict[int, tuple[Any, _Path]]  # {identity: (module, its path)}
_NAMED: list[tuple[_Paths, list[_Path]]] = []  # the modules of each function that is being traced, and those running
_OWN: dict[Any, Any] = {}  # what the classes that write their names had before


def _in_scope(call: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(call)
    def named(module: Any, *args: Any, **kwargs: Any) -> Any:
        paths, running = _NAMED[-1] if _NAMED else ({}, [])
        _, path = paths.get(id(module), (None, ()))
        above = running[-1] if running else ()
        if _NAMED and not running and id(module) not in paths:
            paths |= _paths({"": module})
        if not path or path == above:  # the model itself, or a class and its base
            return call(module, *args, **kwargs)
        running.append(path)
        try:
            inside = path[len(above) :] if path[: len(above)] == above else path
            with jax.named_scope("/".join(inside)):
                return call(module, *args, **kwargs)
        finally:
            running.pop()

    return named


def _classes(kind: Any) -> Iterator[Any]:
    """A class and all that are made of it."""
    yield kind
    for below in kind.__subclasses__():
        yield from _classes(below)


def _paths(roots: dict[str, Any]) -> _Paths:
    """The modules in these, by name."""
    from flax import nnx

    parts = {id(module) for root in roots.values() for path, module in nnx.iter_graph(root) if path}
    roots = {name: root for name, root in roots.items() if id(root) not in parts}
    modules: _Paths = {}
    for name, root in roots.items():
        for path, module in nnx.iter_graph(root):
            if isinstance(module, nnx.Module):
                prefix = (name,) if len(roots) > 1 else ()
                modules.setdefault(id(module), (module, (*prefix, *map(str, path))))
    return modules


def _held(
    value: Any, *, name: str, kinds: tuple[type, ...], visited: set[int], depth: int
) -> Iterator[tuple[str, Any]]:
    """(name of the variable, object of one of the classes) of what a function holds."""
    if id(value) in visited or depth < 0:
        return
    visited.add(id(value))
    if isinstance(value, kinds):
        yield name or type(value).__name__, value
        return
    for inner, held in _variables(value):
        if callable(held) or isinstance(held, (list, tuple, dict, *kinds)):
            yield from _held(held, name=inner or name, kinds=kinds, visited=visited, depth=depth - 1)


def _variables(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, list | tuple):
        return [("", item) for item in value]
    if isinstance(value, dict):
        return [(str(name), item) for name, item in value.items()]
    if isinstance(value, partial):
        return [("", value.func), *(("", item) for item in value.args), *value.keywords.items()]
    if inspect.ismethod(value):
        return [("", value.__self__), ("", value.__func__), *_attributes(value.__self__)]
    if inspect.isfunction(value):
        try:
            around = inspect.getclosurevars(value)
        except ValueError:  # a variable that is not there yet
            return []
        return [*around.nonlocals.items(), *around.globals.items(), ("", getattr(value, "__wrapped__", None))]
    return [] if inspect.isclass(value) or inspect.ismodule(value) else _attributes(value)


def _attributes(value: Any) -> list[tuple[str, Any]]:
    return list(getattr(value, "__dict__", {}).items())
