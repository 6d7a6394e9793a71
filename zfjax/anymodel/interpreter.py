"""Running a program with another way back at some of its operations: an interpreter of jaxprs.

What the plan does not touch is run as it stands, custom derivatives included. A call that holds a touched operation
is rebuilt around the interpreted body: jit stays jit, scan stays scan, cond stays cond, remat stays remat; a function
with a custom derivative is replaced by what it computes.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core

from zfjax import jax_versions
from zfjax.anymodel.graph import Place, programs_of, scan_operands
from zfjax.errors import UserError

Backward = Callable[[jax.Array, jax.Array], jax.Array]  # (incoming, forward input) -> outgoing, of one shape
Bodies = Sequence[Callable[[Sequence[Any]], Sequence[Any]]]  # operands -> results, of each program of a call


class Rectify(NamedTuple):
    """The way back through an operation is the rule."""

    operand: int  # number of the input that is rectified
    ceiling: float = math.inf  # what lies above is clipped and passes nothing
    backward: Backward | None = None  # a rule of its own


class Region(NamedTuple):
    """The way back leads through several operations at once, by a rule: they make one value of another of its shape."""

    before: core.Var
    after: core.Var
    scale: float = 1.0  # they are scale * min(max(sign * before, 0), ceiling), as far as the rule goes
    sign: float = 1.0
    ceiling: float = math.inf  # what lies above is clipped and passes nothing
    backward: Backward | None = None  # a rule of its own


class Skip(NamedTuple):
    """The way back leads from one value straight to another of the same shape."""

    before: core.Var
    after: core.Var


class Finite(NamedTuple):
    """The way back is the operation's own; it passes nothing where nothing comes in, or where it would be no number."""


class Guard(NamedTuple):
    """As `Finite`, of what is not computed element by element: where it would be no number, it passes nothing."""


class Inner(NamedTuple):
    """Something is to be done inside the programs of a call."""

    plans: tuple[Plan, ...]


Change = Rectify | Region | Skip | Finite | Guard
Plan = tuple[tuple[int, Any], ...]  # (number of an equation, a change or Inner), hashable as all of it


def plan_of(changes: Mapping[Place, Change]) -> Plan:
    """The changes sorted into the programs that they belong to."""
    here: dict[int, Any] = {place[0]: change for place, change in changes.items() if len(place) == 1}
    for index in {place[0] for place in changes if len(place) > 1}:
        below = {place[1:]: change for place, change in changes.items() if place[0] == index}
        plans = [
            plan_of({place[1:]: change for place, change in below.items() if place[0] == k})
            for k in range(1 + max(place[0] for place in below))
        ]
        here[index] = Inner(tuple(plans))
    return tuple(sorted(here.items(), key=lambda item: item[0]))


def evaluate(
    program: core.Jaxpr, consts: Sequence[Any], operands: Sequence[Any], *, plan: Plan, backward: Backward | None
) -> list[Any]:
    """The program's results, with the plan's changes on the way back.

    Args:
      program: without its constants.
      consts: arrays for its constvars.
      operands: arrays for its invars.
      plan: what to change.
      backward: the rule of `Rectify`.
    """
    values = dict(zip([*program.constvars, *program.invars], [*consts, *operands], strict=True))
    changes = dict(plan)

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    for index, eqn in _needed(program):
        change = changes.get(index)
        outputs: Sequence[Any]
        if isinstance(change, Rectify):
            outputs = _rectified(_alone(eqn, program), change, change.backward or backward)(*map(read, _variables(eqn)))
        elif isinstance(change, Finite):
            outputs = _finite(_alone(eqn, program))(*map(read, _variables(eqn)))
        elif isinstance(change, Guard):
            outputs = _guarded(_alone(eqn, program))(*map(read, _variables(eqn)))
        elif isinstance(change, Inner):
            outputs = _run_inner(eqn, [read(atom) for atom in eqn.invars], change=change, backward=backward)
        else:
            outputs = run_alone(eqn, program, values)
        values.update(zip(eqn.outvars, outputs, strict=True))
        if isinstance(change, Skip):
            values[change.after] = _skipped(values[change.before], values[change.after])
        if isinstance(change, Region):
            values[change.after] = _ruled(change, change.backward or backward)(
                values[change.before], values[change.after]
            )
    return [read(atom) for atom in program.outvars]


def _needed(program: core.Jaxpr) -> list[tuple[int, core.JaxprEqn]]:
    """The equations that the results, or an effect, depend on: outside jit nobody else leaves the others out."""
    needed = {atom for atom in program.outvars if not isinstance(atom, core.Literal)}
    equations = []
    for index, eqn in reversed(list(enumerate(program.eqns))):
        if eqn.effects or needed.intersection(eqn.outvars):
            needed.update(_variables(eqn))
            equations.append((index, eqn))
    return equations[::-1]


def _variables(eqn: core.JaxprEqn) -> list[Any]:
    """Its inputs without literals, each once."""
    return list(dict.fromkeys(atom for atom in eqn.invars if not isinstance(atom, core.Literal)))


def _alone(eqn: core.JaxprEqn, program: core.Jaxpr) -> core.ClosedJaxpr:
    """An equation of the program as a program of its own, of `_variables(eqn)`."""
    variables = _variables(eqn)
    note = program.debug_info._replace(
        traced_for="relu rule",
        func_src_info=eqn.primitive.name,
        arg_names=("",) * len(variables),
        result_paths=("",) * len(eqn.outvars),
    )
    return core.ClosedJaxpr(core.Jaxpr((), variables, eqn.outvars, [eqn], eqn.effects, note), ())


def run_alone(eqn: core.JaxprEqn, program: core.Jaxpr, values: Mapping[Any, Any]) -> Sequence[Any]:
    """The results of one equation of a program as it stands, of the values of its variables."""
    results: Sequence[Any] = core.jaxpr_as_fun(_alone(eqn, program))(
        *(values[variable] for variable in _variables(eqn))
    )
    return results


def _rectified(alone: core.ClosedJaxpr, change: Rectify, backward: Backward | None) -> Callable[..., list[Any]]:
    """The one equation of `alone`, with the rule on its way back."""
    variables, (eqn,) = alone.jaxpr.invars, alone.jaxpr.eqns
    place = variables.index(eqn.invars[change.operand])

    @jax.custom_vjp
    def rectifier(*operands: jax.Array) -> list[Any]:
        results: list[Any] = core.jaxpr_as_fun(alone)(*operands)
        return results

    def up(*operands: jax.Array) -> tuple[list[Any], jax.Array]:
        return rectifier(*operands), operands[place]

    def down(x: jax.Array, incoming: Sequence[jax.Array]) -> tuple[jax.Array | None, ...]:
        (signal,) = incoming
        outgoing = _by_rule(backward, _below(change.ceiling, x, signal), x)
        return tuple(outgoing if k == place else None for k in range(len(variables)))

    rectifier.defvjp(up, down)
    return rectifier


def _finite(alone: core.ClosedJaxpr) -> Callable[..., Sequence[Any]]:
    """The one equation of `alone`, element by element, without NaN on its way back."""
    variables: Sequence[Any] = alone.jaxpr.invars
    (eqn,) = alone.jaxpr.eqns
    shape = eqn.outvars[0].aval.shape
    even = all(v.aval.shape == shape for v in variables)  # lax takes axes of size one and single numbers beside others

    def apply(*operands: jax.Array) -> Any:
        values = dict(zip(variables, operands, strict=True))
        atoms = [atom.val if isinstance(atom, core.Literal) else values[atom] for atom in eqn.invars]
        return eqn.primitive.bind(*atoms, **eqn.params)

    @jax.custom_vjp
    def operation(*operands: jax.Array) -> list[jax.Array]:
        return [apply(*operands)]

    def up(*operands: jax.Array) -> tuple[list[jax.Array], Any]:
        if not even:
            return operation(*operands), operands
        result, back = jax.vjp(apply, *operands)
        return [result], (back, jnp.isfinite(result))

    def down(kept: Any, signals: Sequence[jax.Array]) -> tuple[Any, ...]:
        (incoming,) = signals
        if even:
            back, is_number = kept
        else:
            result, back = jax.vjp(apply, *(jnp.broadcast_to(operand, shape) for operand in kept))
            is_number = jnp.isfinite(result)
        is_number &= jnp.isfinite(incoming)

        def passed(outgoing: jax.Array, variable: Any) -> Any:
            if outgoing.dtype == jax.dtypes.float0:
                return np.zeros(variable.aval.shape, jax.dtypes.float0)
            nothing = (incoming == 0) | (is_number & ~jnp.isfinite(outgoing))
            outgoing = jnp.where(nothing, jnp.zeros_like(outgoing), outgoing)
            added = [k for k, size in enumerate(shape) if variable.aval.shape[k:][:1] != (size,)]
            return outgoing.sum(added).reshape(variable.aval.shape) if added else outgoing

        return tuple(map(passed, back(incoming), variables))

    operation.defvjp(up, down)
    return operation


def _guarded(alone: core.ClosedJaxpr) -> Callable[..., Sequence[Any]]:
    """The one equation of `alone`, as a whole, without NaN on its way back where all that is read of it are numbers."""
    run = core.jaxpr_as_fun(alone)

    @jax.custom_vjp
    def operation(*operands: jax.Array) -> list[jax.Array]:
        results: list[jax.Array] = run(*operands)
        return results

    def up(*operands: jax.Array) -> tuple[list[jax.Array], Any]:
        results, back = jax.vjp(run, *operands)
        return results, (back, [jnp.isfinite(result) for result in results if _is_inexact(result)])

    def down(kept: Any, signals: Sequence[jax.Array]) -> tuple[Any, ...]:
        back, are_numbers = kept
        incoming = [signal for signal in signals if _is_inexact(signal)]
        usual = [
            (jnp.isfinite(signal) & (is_number | (signal == 0))).all()
            for signal, is_number in zip(incoming, are_numbers, strict=True)
        ]
        is_usual = jnp.all(jnp.array(usual))
        return tuple(
            jnp.where(is_usual & ~jnp.isfinite(outgoing), jnp.zeros_like(outgoing), outgoing)
            if _is_inexact(outgoing)
            else outgoing
            for outgoing in back(signals)
        )

    operation.defvjp(up, down)
    return operation


def _is_inexact(array: jax.Array) -> bool:
    return jnp.issubdtype(array.dtype, jnp.inexact)


@jax.custom_vjp
def _skipped(before: jax.Array, after: jax.Array) -> jax.Array:
    return after


_skipped.defvjp(lambda before, after: (after, None), lambda _, incoming: (incoming, None))


def _ruled(change: Region, backward: Backward | None) -> Callable[[jax.Array, jax.Array], jax.Array]:
    @jax.custom_vjp
    def region(before: jax.Array, after: jax.Array) -> jax.Array:
        return after

    def down(before: jax.Array, incoming: jax.Array) -> tuple[jax.Array, None]:
        x = change.sign * before
        signal = _below(change.ceiling, x, change.scale * incoming)
        outgoing = _by_rule(backward, signal, x)
        return change.sign * outgoing, None

    region.defvjp(lambda before, after: (after, before), down)
    return region


def _below(ceiling: float, x: jax.Array, signal: jax.Array) -> jax.Array:
    """What comes down where x is not clipped."""
    return signal if ceiling == math.inf else jnp.where(x < ceiling, signal, jnp.zeros((), signal.dtype))


def _by_rule(backward: Backward | None, incoming: jax.Array, x: jax.Array) -> jax.Array:
    assert backward is not None  # a plan without a rule rectifies nothing
    outgoing = jnp.asarray(backward(incoming, x))
    if (outgoing.shape, outgoing.dtype) != (x.shape, x.dtype):
        given, needed = (f"{array.dtype}{list(array.shape)}" for array in (outgoing, x))
        raise UserError(f"rule returned {given} for a rectifier of {needed}: the same shape and type are needed")
    return outgoing


def _run_inner(eqn: core.JaxprEqn, operands: list[Any], *, change: Inner, backward: Backward | None) -> Sequence[Any]:
    """A call with the plan carried out inside it."""
    kind, programs = _KINDS[eqn.primitive.name], programs_of(eqn)
    plans = (*change.plans, *((),) * (len(programs) - len(change.plans)))
    options = tuple(kind.options(eqn).items())
    rebuild = compiled if kind.compiled else _rebuilt
    run = rebuild(kind.frame, tuple(p.jaxpr for p in programs), plans=plans, backward=backward, options=options)
    return run([list(p.consts) for p in programs], operands)


def _rebuilt(
    frame: Callable[..., Sequence[Any]],
    programs: Sequence[core.Jaxpr],
    *,
    plans: Sequence[Plan],
    backward: Backward | None,
    options: Sequence[tuple[str, Any]],
) -> Callable[..., Sequence[Any]]:
    """(consts of each program, operands) -> results of the call; it holds the programs weakly."""
    references = [weakref.ref(program) for program in programs]

    def run(consts: Sequence[Sequence[Any]], operands: Sequence[Any]) -> Sequence[Any]:
        bodies = []
        for reference, values, plan in zip(references, consts, plans, strict=True):
            program = reference()
            assert program is not None  # whoever runs the call has its equation
            bodies.append(partial(evaluate, program, values, plan=plan, backward=backward))
        return frame(bodies, operands, **dict(options))

    return run


class _Compiled:
    """The compiled calls of programs, found again when one is called outside jit, for as long as the program lives.

    A model that makes new programs at every call so leaves nothing behind.
    """

    def __init__(self) -> None:
        self.calls: weakref.WeakKeyDictionary[core.Jaxpr, dict[Any, Callable[..., Any]]] = weakref.WeakKeyDictionary()

    def __call__(
        self,
        frame: Callable[..., Sequence[Any]],
        programs: Sequence[core.Jaxpr],
        *,
        plans: Sequence[Plan],
        backward: Backward | None,
        options: Sequence[tuple[str, Any]],
    ) -> Callable[..., Sequence[Any]]:
        calls = self.calls.setdefault(programs[0], {})
        key = (frame, tuple(weakref.ref(program) for program in programs), plans, backward, options)
        if key not in calls:
            while len(calls) >= _RULES_OF_ONE:
                calls.pop(next(iter(calls)))
            calls[key] = jax.jit(_rebuilt(frame, programs, plans=plans, backward=backward, options=options))
        return calls[key]


_RULES_OF_ONE = 8  # a rule that is a new function at every call leaves no more behind
compiled = _Compiled()


def _call(bodies: Bodies, operands: Sequence[Any]) -> Sequence[Any]:
    return bodies[0](operands)


def _checkpoint(bodies: Bodies, operands: Sequence[Any], *, prevent_cse: bool, policy: Any) -> Sequence[Any]:
    results: Sequence[Any] = jax.checkpoint(bodies[0], prevent_cse=prevent_cse, policy=policy)(operands)
    return results


def _switch(bodies: Bodies, operands: Sequence[Any]) -> Sequence[Any]:
    results: Sequence[Any] = lax.switch(
        operands[0], [lambda *rest, body=body: body(rest) for body in bodies], *operands[1:]
    )
    return results


def _scan(
    bodies: Bodies,
    operands: Sequence[Any],
    *,
    num_consts: int,
    num_carry: int,
    length: int,
    reverse: bool,
    unroll: int,
) -> Sequence[Any]:
    fixed, start = operands[:num_consts], operands[num_consts : num_consts + num_carry]

    def step(carry: Sequence[Any], slices: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
        ends = bodies[0]([*fixed, *carry, *slices])
        return ends[:num_carry], ends[num_carry:]

    slices = operands[num_consts + num_carry :]
    carry, stacked = lax.scan(step, start, slices, length=length, reverse=reverse, unroll=unroll)
    return [*carry, *stacked]


def _scan_options(eqn: core.JaxprEqn) -> dict[str, Any]:
    named = {name: eqn.params[name] for name in ("length", "reverse", "unroll")}
    return {**scan_operands(eqn)._asdict(), **named}


def _remat_options(eqn: core.JaxprEqn) -> dict[str, Any]:
    return {name: eqn.params[name] for name in ("prevent_cse", "policy")}


def _shards(bodies: Bodies, operands: Sequence[Any], **options: Any) -> Sequence[Any]:
    def body(*parts: Any) -> tuple[Any, ...]:
        return tuple(bodies[0](parts))

    results: Sequence[Any] = jax.shard_map(body, **options)(*operands)
    return results


def _shard_options(eqn: core.JaxprEqn) -> dict[str, Any]:
    options = {name: eqn.params[name] for name in ("mesh", "in_specs", "out_specs", "check_vma")}
    return {**options, "axis_names": jax_versions.manual_axes(eqn.params)}


class _Kind(NamedTuple):
    frame: Callable[..., Sequence[Any]]  # (bodies, operands, **options) -> results
    compiled: bool = False  # as the operation is where it stands outside jit
    options: Callable[[core.JaxprEqn], dict[str, Any]] = lambda eqn: {}  # what the frame needs of the equation


_INLINED = _Kind(_call)
_JIT = _Kind(_call, compiled=True)
_REMAT = _Kind(_checkpoint, options=_remat_options)

_KINDS = {
    "jit": _JIT,
    "pjit": _JIT,
    "closed_call": _INLINED,
    "core_call": _INLINED,
    "custom_jvp_call": _INLINED,
    "custom_vjp_call": _INLINED,
    "remat2": _REMAT,
    "checkpoint": _REMAT,
    "cond": _Kind(_switch, compiled=True),
    "scan": _Kind(_scan, compiled=True, options=_scan_options),
    "shard_map": _Kind(_shards, compiled=True, options=_shard_options),
}
