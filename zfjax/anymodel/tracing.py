"""Tracing a model, and the lines of it that asked for an operation."""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
from jax.extend import core

from zfjax.anymodel.graph import programs_of
from zfjax.anymodel.modules import named_modules
from zfjax.errors import UserError


def in_order(fn: Callable[[Any], Mapping[str, Any]], layers: Sequence[str]) -> Callable[[Any], list[Any]]:
    """images -> the features of these layers, in their order: JAX sorts the keys of a mapping."""

    def listed(images: Any) -> list[Any]:
        features = fn(images)
        return [features[layer] for layer in layers]

    return listed


def traced(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[core.ClosedJaxpr, Any]:
    """(program, shapes of its results), traced now, with the names of its modules as far as they are known.

    JAX would find an earlier trace, in which a model that changes in place still has its old parameters.
    """

    def _model(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    try:
        with named_modules(fn), state_kept():
            program, shapes = jax.make_jaxpr(_model, return_shape=True)(*args, **kwargs)
    except UserError:
        raise
    except Exception as error:  # of JAX or of the framework, where fn does what cannot be traced
        error.add_note(_NOTE)
        raise
    writes = list(_writes(program.jaxpr.eqns)) if program.effects else []
    if writes:
        raise UserError(
            f"fn writes into an array in place, at {source_line(writes[0])}, and what is read there later cannot be "
            "followed: let it make new arrays, as array.at[place].set(values) does"
        )
    return program, shapes


def _writes(eqns: Sequence[core.JaxprEqn], around: tuple[core.JaxprEqn, ...] = ()) -> Iterator[Sequence[core.JaxprEqn]]:
    """What writes into a `jax.new_ref`, each with the calls around it from the inside out."""
    for eqn in eqns:
        sources, programs = (eqn, *around), programs_of(eqn)
        for program in programs:
            yield from _writes(program.jaxpr.eqns, sources)
        if not programs and {"WriteEffect", "AccumEffect"} & {type(effect).__name__ for effect in eqn.effects}:
            yield sources


@contextlib.contextmanager
def state_kept() -> Iterator[None]:
    """Lets Flax's error for a model that changes its own state be the user's, with a way on."""
    try:
        yield
    except Exception as error:
        if not changes_state(error):
            raise
        raise UserError(f"{str(error).splitlines()[0]}: {KEEP_STATE}") from error


def changes_state(error: Exception) -> bool:
    """Whether it is Flax's error for a model that changes its own state."""
    return type(error).__name__ in ("TraceContextError", "ModifyScopeVariableError")


KEEP_STATE = (
    "fn changes the model's state while it runs, as batch norm does in training mode: evaluate it with model.eval() of "
    "NNX (or nnx.view), use_running_average=True of Linen, before it is handed to zfjax. A __call__ under nnx.jit "
    "writes the whole state: make the model again, as Flax may have emptied it; let fn call nnx.clone(model)(images)"
)


_NOTE = (
    "zfjax traces fn as jax.jit does: it has to work under jit, and arguments that are no arrays have to be bound "
    "beforehand, as in functools.partial(fn, train=False)"
)


# Their files are passed over on the way from an operation to the line of the model that asked for it.
_FRAMEWORKS = ("jax", "flax", "haiku", "equinox", "jaxtyping", "keras")
_DECORATORS = (contextlib.__file__, functools.__file__)  # likewise: what wraps a call in others
_ENGINE = os.path.dirname(__file__) + os.sep
_MODEL = "_model"  # the function in it that calls the model


def source_line(sources: Sequence[core.JaxprEqn]) -> str:
    """The model's line that asked for an equation, "file:line": the innermost outside JAX and the frameworks on top.

    Where the model is made of a framework's parts alone it is the framework's line; "unknown" where there is none.

    Args:
      sources: the equation, and the calls that it stands in from the inside out, which have lines of their own.
    """
    frames = [frame for eqn in sources for frame in _frames_in_model(eqn)]
    for frameworks in (_FRAMEWORKS, _FRAMEWORKS[:1]):
        paths = [path for name in frameworks for path in getattr(sys.modules.get(name), "__path__", ())]
        folders = (*(path + os.sep for path in paths), *_DECORATORS, _ENGINE)
        for frame in frames:
            if not frame.file_name.startswith(folders):
                return f"{_short(frame.file_name)}:{frame.line_num}"
    return "unknown"


def _frames_in_model(eqn: core.JaxprEqn) -> Iterator[Any]:
    """The frames of an equation from the inside out, up to where the model is traced."""
    for frame in getattr(eqn.source_info.traceback, "frames", ()):
        if frame.file_name == __file__ and _MODEL in frame.function_name:
            return
        yield frame


def _short(file: str) -> str:
    path, here = pathlib.Path(file), pathlib.Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
