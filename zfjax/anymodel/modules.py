"""Names for modules that write none into the program: those of NNX, a user's of Equinox, and scopes of Haiku."""

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
    """While this lasts, modules write their names as `jax.named_scope` does, where their framework does not itself.

    NNX: the attribute paths of the modules that `fn` is, or holds. Equinox: a user's own modules their class, as those
    of `eqx.nn` do; the model itself, where `fn` holds but one, has none. Haiku: what stands in `hk.name_scope`.
    """
    with _named_in_nnx(fn), _named_in_equinox(fn), _named_in_haiku():
        yield


@contextlib.contextmanager
def _named_in_nnx(fn: Any) -> Iterator[None]:
    """The paths of the NNX modules that `fn` is, or holds.

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


@contextlib.contextmanager
def _named_in_equinox(fn: Any) -> Iterator[None]:
    """The classes of Equinox modules that are not Equinox's own."""
    eqx: Any = sys.modules.get("equinox")
    if eqx is None:
        yield
        return
    with _LOCK:
        every = set(_classes(eqx.Module))
        kinds = {kind for kind in every if "__call__" in vars(kind) and not _is_of("equinox", kind)} - _OWN.keys()
        models = (
            *kinds,
            *(kind for kind in every if _is_of("equinox.nn", kind)),
        )  # others wrap one, as filter_jit does
        held = list(_held(fn, name="", kinds=models, visited=set(), depth=_DEEP)) if kinds else []
        model = type(held[0][1]) if len(held) == 1 else None
        running: list[Any] = []
        for kind in kinds:
            _OWN[kind] = vars(kind)["__call__"]
            kind.__call__ = _in_scope_of_class(_OWN[kind], model, running)
        try:
            yield
        finally:
            for kind in kinds:
                kind.__call__ = _OWN.pop(kind)


def _is_of(package: str, kind: Any) -> bool:
    return f"{kind.__module__}.".startswith(f"{package}.")


def _in_scope_of_class(own: Any, model: Any, running: list[Any]) -> Callable[..., Any]:
    """A class's call in a scope of its name.

    Args:
      own: the call, as it stands in the class.
      model: the class of the whole, which has no name.
      running: the modules that are being called, the innermost last.
    """

    @wraps(getattr(own, "method", own))
    def named(module: Any, *args: Any, **kwargs: Any) -> Any:
        call = own.__get__(module, type(module))
        if (running and running[-1] is module) or (
            not running and type(module) is model
        ):  # a class and its base; the model itself
            scope: Any = contextlib.nullcontext()
        else:
            scope = jax.named_scope(type(module).__name__)
        running.append(module)
        try:
            with scope:
                return call(*args, **kwargs)
        finally:
            running.pop()

    return named


@contextlib.contextmanager
def _named_in_haiku() -> Iterator[None]:
    """What stands in `hk.name_scope`, of which Haiku writes nothing but into the names of parameters."""
    haiku: Any = sys.modules.get("haiku")
    if haiku is None:
        yield
        return

    @contextlib.contextmanager
    def name_scope(name: str, **options: Any) -> Iterator[None]:
        with own(name, **options), jax.named_scope(name):
            yield

    with _LOCK:
        own = haiku.name_scope
        haiku.name_scope = name_scope
        try:
            yield
        finally:
            haiku.name_scope = own


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
    if inspect.isclass(value) or inspect.ismodule(value):
        return []
    return [("", getattr(value, "__wrapped__", None)), *_attributes(value)]


def _attributes(value: Any) -> list[tuple[str, Any]]:
    return list(getattr(value, "__dict__", {}).items())
