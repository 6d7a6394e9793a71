"""Names for the modules of Flax NNX, which write none into the program: the attribute paths of the model."""

from __future__ import annotations

import contextlib
import inspect
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial, wraps
from typing import Any

import jax

_LOCK = threading.RLock()
_DEEP = 4  # functions in functions in which a model is looked for


@contextlib.contextmanager
def named_modules(fn: Any) -> Iterator[None]:
    """While this lasts, the NNX modules that `fn` is, or holds, write their paths as `jax.named_scope` does.

    A module is held by a function as a variable from around it, by `functools.partial` or as the object of a method.
    Where there are several models each path begins with the variable's name.
    """
    paths = _paths(fn)
    if not paths:
        yield
        return
    with _LOCK:  # classes are changed for all threads
        kinds = {type(module) for module, _ in paths.values()} - _OWN.keys()
        for kind in filter(_is_called, kinds):
            _OWN[kind] = vars(kind).get("__call__")
            kind.__call__ = _in_scope(kind.__call__)
        _NAMED.append((paths, []))
        try:
            yield
        finally:
            _NAMED.pop()
            for kind in kinds & _OWN.keys():
                if (own := _OWN.pop(kind)) is None:
                    del kind.__call__
                else:
                    kind.__call__ = own


_Path = tuple[str, ...]
_Paths = Mapping[int, tuple[Any, _Path]]  # {identity: (module, its path)}
_NAMED: list[tuple[_Paths, list[_Path]]] = []  # the modules of each function that is being traced, and those running
_OWN: dict[type, Any] = {}  # what the classes that write their names had before


def _in_scope(call: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(call)
    def named(module: Any, *args: Any, **kwargs: Any) -> Any:
        paths, running = _NAMED[-1] if _NAMED else ({}, [])
        _, path = paths.get(id(module), (None, ()))
        above = running[-1] if running else ()
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


def _is_called(kind: type) -> bool:
    return any("__call__" in vars(base) for base in kind.__mro__)


def _paths(fn: Any) -> _Paths:
    nnx = sys.modules.get("flax.nnx")
    if nnx is None:
        return {}
    roots = dict(_held(fn, name="", kind=nnx.Module, visited=set(), depth=_DEEP))
    parts = {id(module) for root in roots.values() for path, module in nnx.iter_graph(root) if path}
    roots = {name: root for name, root in roots.items() if id(root) not in parts}
    modules: dict[int, tuple[Any, _Path]] = {}
    for name, root in roots.items():
        for path, module in nnx.iter_graph(root):
            if isinstance(module, nnx.Module):
                prefix = (name,) if len(roots) > 1 else ()
                modules.setdefault(id(module), (module, (*prefix, *map(str, path))))
    return modules


def _held(value: Any, *, name: str, kind: type, visited: set[int], depth: int) -> Iterator[tuple[str, Any]]:
    """(name of the variable, module) of what a function holds."""
    if id(value) in visited or depth < 0:
        return
    visited.add(id(value))
    if isinstance(value, kind):
        yield name or type(value).__name__, value
        return
    for inner, held in _variables(value):
        if callable(held) or isinstance(held, list | tuple | dict):
            yield from _held(held, name=inner or name, kind=kind, visited=visited, depth=depth - 1)


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
