"""The numbers that a program itself states: given as such, or made of such by arithmetic, as `jnp.zeros(8) * 1.`.

What depends on no argument of the program is worked out where somebody asks for it, one node after the other, and kept
at its value; loops and branches as a whole, if they are short. Big arrays are left alone, for no bound is one: weights
that are standardised cost nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from zfjax.anymodel.graph import Graph, Node, Value, all_programs_of, is_inexact

_LARGEST = 1 << 16  # elements of an array that is worked out
_SPREAD = frozenset(("broadcast_in_dim", "convert_element_type"))
_SMALL = 1 << 12  # likewise, where JAX has to do it
_LONGEST = 1 << 10  # rounds of a while loop
_COPIES = frozenset(
    "reshape squeeze expand_dims copy copy_p name stop_gradient optimization_barrier transpose pvary pcast".split()
)

ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "add_any": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "neg": np.negative,
    "max": np.maximum,
    "min": np.minimum,
    "abs": np.abs,
    "sign": np.sign,
    "sqrt": np.sqrt,
    "square": np.square,
    "exp": np.exp,
    "log": np.log,
    "floor": np.floor,
    "ceil": np.ceil,
    "is_finite": np.isfinite,
    "gt": np.greater,
    "ge": np.greater_equal,
    "lt": np.less,
    "le": np.less_equal,
    "eq": np.equal,
    "ne": np.not_equal,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "not": np.invert,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "logistic": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "expm1": np.expm1,
    "log1p": np.log1p,
    "clamp": lambda low, x, high: np.minimum(np.maximum(x, low), high),
    "select_n": lambda which, *cases: np.choose(np.asarray(which, np.int32), cases),
}


def uniform(value: Value) -> float | None:
    """The number that the program itself puts into every place of an array; None where it does not."""
    if value.constant is not None:
        return _uniform(value.constant)
    numbers = constant_of(value)
    return None if numbers is None else _uniform(numbers)


def lower_bound(value: Value) -> float | None:
    """The smallest of the numbers that the program itself puts into an array; None where it does not."""
    number = uniform(value)
    if number is not None:
        return number
    numbers = constant_of(value)
    return None if numbers is None or not numbers.size or not _is_real(numbers) else float(numbers.min())


def simplify(graph: Graph) -> None:
    """Name in the graph what is a constant, a copy or a product of single numbers, though it is written otherwise.

    Zero times anything is a constant: zero wherever the other factor is a number. The program still runs as it stands,
    so that 0 times infinity is NaN in its results. x ** 1 is a copy, and a product of matrices that adds nothing, as
    einsum("bc,bc->bc") is, a product.
    """
    for node in graph.nodes:
        if _is_first_power(node):
            node.name = "copy"
            del node.inputs[1:]
        elif node.name == "dot_general" and _is_product(node):
            node.name = "mul"
        is_zero = (
            node.name == "mul" and is_inexact(node.outputs[0]) and any(uniform(value) == 0 for value in node.inputs)
        )
        if is_zero and not node.outputs[0].known:
            aval = node.outputs[0].aval
            node.outputs[0].constant = np.broadcast_to(np.zeros((), aval.dtype), aval.shape)
        if is_zero or (node.name in ELEMENTWISE or node.name in _BY_NUMPY) and all(v.known for v in node.inputs):
            node.outputs[0].known = True


def _is_first_power(node: Node) -> bool:
    if node.name == "integer_pow":
        return bool(node.params["y"] == 1)
    return node.name == "pow" and uniform(node.inputs[1]) == 1


def _is_product(node: Node) -> bool:
    """All axes stand side by side in the same order, so that nothing is added."""
    contracted, batched = node.params["dimension_numbers"]
    axes, shapes = tuple(range(node.outputs[0].aval.ndim)), {v.aval.shape for v in (*node.inputs, *node.outputs)}
    return not any(contracted) and len(shapes) == 1 and all(tuple(own) == axes for own in batched)


def constant_of(value: Value) -> np.ndarray | None:
    """The numbers of a value that depends on no argument; None for another, and where they are too many."""
    if value.constant is None and value.known and not value.in_vain and not _work_out(value):
        value.in_vain = True
    if value.constant is None or isinstance(value.constant, jax.core.Tracer):
        return None
    size = math.prod(getattr(value.aval, "shape", ()))
    large = size > _LARGEST and not _is_filled(value.constant)
    if large or jnp.issubdtype(getattr(value.aval, "dtype", np.float32), jax.dtypes.extended):
        return None
    return np.asarray(value.constant)


def numbers_of(eqn: core.JaxprEqn, inputs: Sequence[Any]) -> list[Any] | None:
    """What an equation makes of numbers; None where it takes too long."""
    node = Node(eqn.primitive.name, eqn.params, (), (), (), [eqn])
    node.inputs.extend(Value(v.aval, numbers) for v, numbers in zip(eqn.invars, inputs, strict=True))
    node.outputs.extend(Value(v.aval) for v in eqn.outvars)
    return [value.constant for value in node.outputs] if _evaluate(node) else None


def _is_filled(constant: object) -> bool:
    """One number, spread over an array without copies of it."""
    return np.ndim(constant) == 0 or (isinstance(constant, np.ndarray) and not any(constant.strides))  # type: ignore


def _work_out(value: Value) -> bool:
    """Find the numbers of a value, and of all that it is made of."""
    waiting = [value]
    while waiting:
        value = waiting[-1]
        if value.constant is not None:
            waiting.pop()
            continue
        node = value.maker
        if node is None or not value.known or value.in_vain or len(waiting) > 256:
            return False
        missing = [v for v in node.inputs if v.constant is None]
        if missing:
            waiting.extend(missing)
        elif not _evaluate(node):
            return False
    return True


def _evaluate(node: Node) -> bool:
    if len(node.eqns) != 1 or any(isinstance(v.constant, jax.core.Tracer) for v in node.inputs):
        return False
    inputs = [v.constant for v in node.inputs]
    plain = not any(jnp.issubdtype(v.aval.dtype, jax.dtypes.extended) for v in (*node.inputs, *node.outputs))
    if plain and (node.name in ELEMENTWISE or node.name in _BY_NUMPY):
        node.outputs[0].constant = _by_numpy(node, inputs)
        return node.outputs[0].constant is not None
    (eqn,) = node.eqns
    if sum(math.prod(v.aval.shape) for v in (*node.inputs, *node.outputs)) > _SMALL or not _is_short(eqn):
        return False
    try:
        with jax.ensure_compile_time_eval():
            made: Any = (
                _looped(eqn, inputs) if eqn.primitive.name == "while" else eqn.primitive.bind(*inputs, **eqn.params)
            )
    except (NameError, NotImplementedError, RuntimeError, TypeError, ValueError):  # an axis of a map, a device
        return False
    if made is None:
        return False
    results = made if eqn.primitive.multiple_results else [made]
    for value, numbers in zip(node.outputs, results, strict=True):
        value.constant = numbers
    return True


def _is_short(eqn: core.JaxprEqn) -> bool:
    return _work(eqn, _LONGEST) <= _LARGEST


def _work(eqn: core.JaxprEqn, most_rounds: float) -> float:
    """Numbers that an equation makes, in all rounds of its loops; without a bound for loops within others."""
    own = sum(math.prod(getattr(v.aval, "shape", ())) for v in eqn.outvars)
    rounds = {"scan": eqn.params.get("length", 1), "while": most_rounds}.get(eqn.primitive.name, 1)
    inside = sum(_work(inner, math.inf) for program in all_programs_of(eqn) for inner in program.eqns)
    return own + (rounds * inside if inside else 0)


def _looped(eqn: core.JaxprEqn, inputs: Sequence[Any]) -> list[Any] | None:
    """The results of a while loop; None where it does not end soon."""
    tested, changed = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    goes_on, body = (core.jaxpr_as_fun(eqn.params[name]) for name in ("cond_jaxpr", "body_jaxpr"))
    of_test, of_body, start = inputs[:tested], inputs[tested : tested + changed], inputs[tested + changed :]

    def test(state: tuple[Any, list[Any]]) -> Any:
        return (state[0] <= _LONGEST) & goes_on(*of_test, *state[1])[0]

    def run(state: tuple[Any, list[Any]]) -> tuple[Any, list[Any]]:
        return state[0] + 1, body(*of_body, *state[1])

    rounds, ends = jax.lax.while_loop(test, run, (0, list(map(jnp.asarray, start))))
    return list(ends) if int(rounds) <= _LONGEST else None


def _by_numpy(node: Node, inputs: list[Any]) -> np.ndarray | None:
    (output,) = node.outputs
    shape, dtype, apply = output.aval.shape, output.aval.dtype, ELEMENTWISE.get(node.name)
    filled = all(map(_is_filled, inputs)) and (apply is not None or node.name in _COPIES | _SPREAD)
    arrays = [np.asarray(x, v.aval.dtype) for x, v in zip(inputs, node.inputs, strict=True)]
    if not filled and max([math.prod(shape), *(array.size for array in arrays)]) > _LARGEST:
        return None
    with np.errstate(all="ignore"):
        if filled:
            arrays = [array[(0,) * array.ndim] for array in arrays]
            return np.broadcast_to(np.asarray(apply(*arrays) if apply else arrays[0], dtype).reshape(()), shape)
        return np.asarray(apply(*arrays) if apply else _BY_NUMPY[node.name](node, *arrays), dtype)


def _broadcast(node: Node, numbers: np.ndarray) -> np.ndarray:
    shape, axes = node.outputs[0].aval.shape, node.params["broadcast_dimensions"]
    aligned = [1] * len(shape)
    for axis, size in zip(axes, numbers.shape, strict=True):
        aligned[axis] = size
    return np.broadcast_to(numbers.reshape(aligned), shape)


def _iota(node: Node) -> np.ndarray:
    shape, axis = node.outputs[0].aval.shape, node.params["dimension"]
    return np.broadcast_to(np.arange(shape[axis]).reshape([-1 if k == axis else 1 for k in range(len(shape))]), shape)


def _divided(node: Node, above: np.ndarray, below: np.ndarray) -> np.ndarray:
    quotient: np.ndarray = above / below if jnp.issubdtype(above.dtype, np.inexact) else np.trunc(above / below)
    return quotient


_BY_NUMPY: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(_COPIES - {"transpose"}, lambda node, x: x.reshape(node.outputs[0].aval.shape)),
    "transpose": lambda node, x: x.transpose(node.params["permutation"]),
    "broadcast_in_dim": _broadcast,
    "iota": _iota,
    "convert_element_type": lambda node, x: x.astype(node.params["new_dtype"]),
    "integer_pow": lambda node, x: x ** node.params["y"] if node.params["y"] >= 0 else 1 / x ** -node.params["y"],
    "pow": lambda node, x, y: x**y,
    "div": _divided,
    "concatenate": lambda node, *xs: np.concatenate(xs, node.params["dimension"]),
    "reduce_sum": lambda node, x: x.sum(tuple(node.params["axes"])),
    "reduce_max": lambda node, x: x.max(tuple(node.params["axes"])),
    "reduce_min": lambda node, x: x.min(tuple(node.params["axes"])),
}


def _is_real(numbers: Any) -> bool:
    kind = jnp.result_type(numbers)
    return bool(jnp.issubdtype(kind, np.floating) or jnp.issubdtype(kind, np.integer))


def _uniform(constant: object) -> float | None:
    if isinstance(constant, jax.core.Tracer) or not _is_real(constant):
        return None
    numbers = np.asarray(constant)
    if numbers.size and _is_filled(numbers):
        return float(numbers[(0,) * numbers.ndim])
    return float(numbers.flat[0]) if numbers.size and bool((numbers == numbers.flat[0]).all()) else None
