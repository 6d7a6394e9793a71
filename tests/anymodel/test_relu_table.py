"""What only looks like a rectifier is not taken for one; what no rule covers is named; what is known keeps its own."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from ways_down import OWN, down

from zfjax.anymodel.rules import explain_rules, with_relu_rule

X = np.array([[-2.5, -0.5, -0.0, 0.0, 0.5], [1.5, 2.5, 6.5, 6.0, -7.0]], np.float32)
BITS = "bitcast_convert_type"


def stepped(x):
    return (x > 0).astype(x.dtype)


UNKNOWN = {
    "gelu": (jax.nn.gelu, "tanh"),
    "exact gelu": (functools.partial(jax.nn.gelu, approximate=False), "erfc"),
    "leaky_relu": (jax.nn.leaky_relu, "leaky_relu"),
    "leaky by max": (lambda x: jnp.maximum(x, 0.01 * x), "max"),
    "leaky by where": (lambda x: jnp.where(x > 0, x, 0.01 * x), "select_n in _where"),
    "leaky by mask": (lambda x: x * jnp.where(x > 0, 1.0, 0.01), "mul"),
    "leaky by two bounds": (lambda x: jnp.maximum(x, 0) + 0.01 * jnp.minimum(x, 0), "min"),
    "silu": (jax.nn.silu, "silu"),
    "hard_swish": (jax.nn.hard_swish, "hard_silu"),
    "elu": (jax.nn.elu, "elu"),
    "softplus": (jax.nn.softplus, "softplus"),
    "softmax": (jax.nn.softmax, "exp"),
    "logsumexp": (jax.nn.logsumexp, "log"),
    "sigmoid": (jax.nn.sigmoid, "logistic"),
    "tanh": (jnp.tanh, "tanh"),
    "abs": (jnp.abs, "abs"),
    "sign": (jnp.sign, "sign"),
    "round": (lambda x: x + jnp.round(x), "round"),
    "threshold": (lambda x: jnp.where(x > 1, x, 0), "select_n in _where"),
    "threshold by max": (lambda x: jnp.maximum(x, 1), "max"),
    "hard tanh by clip": (lambda x: jnp.clip(x, -1, 1), "max in clip"),
    "clamp from 1": (lambda x: lax.clamp(1.0, x, 6.0), "clamp"),
    "upper bound alone": (lambda x: jnp.minimum(x, 6), "min"),
    "another's condition": (lambda x: jnp.where(x[::-1] > 0, x, 0), "select_n in _where"),
    "the negative part by where": (lambda x: jnp.where(x > 0, 0, x), "select_n in _where"),
    "another's mask": (lambda x: x * (x[::-1] > 0).astype(x.dtype), "mul"),
    "the negative part": (lambda x: x * (x < 0).astype(x.dtype), "mul"),
    "mask added": (lambda x: x + (x > 0).astype(x.dtype), "add"),
    "divided by a count": (lambda x: x / (x > 0).astype(x.dtype).sum(), "div"),
    "a mask divided": (lambda x: (x > 0).astype(x.dtype) / (2 + x * x), "div"),
    "a mask written into it": (lambda x: x.at[0].set((x[0] > 0).astype(x.dtype)), "scatter"),
    "while": (lambda x: lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, 2 * s[1]), (0, x))[1], "while"),
    "the input chooses the branch": (lambda x: lax.cond(x.sum() > 0, lambda y: y, lambda y: 2 * y, x), "cond"),
    "ambiguous": (lambda x: jnp.sqrt(jnp.maximum(x, 0)), "max"),
    "inside scan": (lambda x: lax.map(jnp.tanh, x), "tanh in scan"),
    "a power of the input": (lambda x: jnp.power(2 + x * x, x), "pow"),
    "squares bounded, which nobody divides by": (lambda x: jnp.maximum((x * x).sum(1) - 1, 0), "max"),
    "product": (lambda x: x * x[::-1], "mul"),
    "square": (lambda x: x**2, "integer_pow"),
    "attention without softmax": (lambda x: (x @ x.T) @ x, "dot_general"),
    "fixed by the program": (lambda x: x * lax.stop_gradient(jnp.tanh(x)), "mul"),
    "gate under stop_gradient": (lambda x: x * jnp.sign(jax.nn.relu(lax.stop_gradient(x))), "mul"),
    "perceptron": (lambda x: (jax.nn.relu(x) > 0.5).astype(x.dtype) @ np.ones((5, 2), np.float32), "gt"),
    "whole numbers": (lambda x: (16 * x).astype(jnp.int32).astype(jnp.float32) / 16, "convert_element_type"),
    "table": (lambda x: jnp.arange(5.0)[jnp.clip(x.astype(jnp.int32), 0, 4)], "convert_element_type"),
    "class": (lambda x: x.argmax(1).astype(jnp.float32), "argmax"),
    "bits": (lambda x: lax.bitcast_convert_type(lax.bitcast_convert_type(x, jnp.int32) & 3, jnp.float32), BITS),
    "a branch with a step": (lambda x: lax.cond(jnp.array(True), lambda y: 2 * y, stepped, x), "cond"),
    "zeros written by a step": (
        lambda x: x[0].at[jnp.nonzero(x[0] < 0, size=5, fill_value=9)].set(0.0, mode="drop"),
        "scatter",
    ),
    "zeros written at the smallest": (lambda x: x[0].at[jnp.argsort(x[0])[:2]].set(0.0), "scatter"),
}


@pytest.mark.parametrize("form", UNKNOWN)
def test_what_no_rule_covers_is_named_with_its_line_or_keeps_its_gradient(form):
    fn, operation = UNKNOWN[form]

    def model(x):
        return fn(x)

    line = f"test_relu_table.py:{model.__code__.co_firstlineno + 1}"
    missed = [found for found in explain_rules(model, X) if found.rule == "unclassified"]
    assert operation in [found.operation for found in missed]
    with pytest.raises(ValueError, match=r"on_unknown='error': no rule covers") as error:
        with_relu_rule(model, "deconvnet")(X)
    for found in missed:
        assert f"{found.operation} {found.shape} at {found.source}: {found.reason}" in str(error.value)
    if fn.__module__ != __name__:
        assert {found.source.split("/")[-1] for found in missed} == {line}
    if form in ("while", "leaky by two bounds"):  # no reverse derivative; a rectifier besides
        np.testing.assert_array_equal(with_relu_rule(fn, "deconvnet", on_unknown="keep")(X), jax.jit(fn)(X))
    else:
        incoming = np.ones(jax.eval_shape(fn, X).shape, np.float32)
        found = down(fn, "deconvnet", x=X, incoming=incoming, on_unknown="keep")
        if form == "ambiguous":  # where the root's derivative is infinite JAX makes NaN of it
            assert np.isnan(found[OWN][1]).any()
            found[OWN] = (found[OWN][0], np.where(X > 0, found[OWN][1], 0))
        jax.tree.map(np.testing.assert_array_equal, found["deconvnet"], found[OWN])


def of_linen(module):
    variables = jax.jit(module.init)(jax.random.key(0), MAPS)
    return lambda maps: module.apply(variables, maps, mutable=["batch_stats"])


MAPS = jnp.asarray(np.random.default_rng(1).normal(size=(2, 3, 3, 4)), jnp.float32)

NORMS = {
    "linen.LayerNorm": of_linen(nn.LayerNorm()),
    "linen.GroupNorm": of_linen(nn.GroupNorm(2)),
    "linen.BatchNorm, statistics returned": of_linen(nn.BatchNorm(use_running_average=False)),
    "nnx.LayerNorm": nnx.LayerNorm(4, rngs=nnx.Rngs(0)),
    "clamp in a call, root outside": lambda x: x / jnp.sqrt(jnp.clip((x * x).mean(3, keepdims=True), 0) + 1e-5),
    "where": lambda x: x * lax.rsqrt(jnp.where((v := jnp.var(x, 3, keepdims=True)) > 0, v, 0) + 1e-5),
    "from a small constant": lambda x: x / jnp.maximum(jnp.linalg.norm(x, axis=3, keepdims=True), 1e-6),
    "power": lambda x: x * (1 + jnp.maximum((x**2).sum(3, keepdims=True), 0)) ** -0.75,
}


@pytest.mark.parametrize("norm", NORMS)
def test_the_clamp_of_a_variance_is_a_guard_and_the_norm_keeps_its_derivative(norm):
    fn = NORMS[norm]
    found = [(line.rule, line.reason) for line in explain_rules(fn, MAPS)]
    assert {rule for rule, _ in found} == {"own gradient"}
    assert [reason for _, reason in found].count("lower bound of a norm's variance") == 1
    weights = np.random.default_rng(2).normal(size=MAPS.shape).astype(np.float32)

    def score(fn, maps):
        return (jax.tree.leaves(fn(maps))[0] * weights).sum()

    @jax.jit
    def gradients(maps):
        return [jax.grad(functools.partial(score, f))(maps) for f in (fn, with_relu_rule(fn, "deconvnet"))]

    expected, found = gradients(MAPS)
    np.testing.assert_array_equal(found, expected)


def test_a_rectifier_beside_roots_and_squares_stays_a_rectifier():
    """JAX's relu under a root; a norm's input."""
    for fn in (
        lambda x: jnp.sqrt(jax.nn.relu(x) + 1.0),
        lambda x: (r := jnp.maximum(x, 0)) / jnp.sqrt((r * r).mean() + 1.0),
    ):
        assert [found.rule for found in explain_rules(fn, X)].count("rectifier") == 1
        assert not [found for found in explain_rules(fn, X) if "variance" in found.reason]


LINEAR = {
    "affine": lambda x: (2 * x - 1) / 3 + x[::-1],
    "convolution": lambda x: jnp.convolve(x[0], np.ones(3, np.float32)),
    "matmul, mean, concatenation": lambda x: jnp.concatenate([x @ np.ones((5, 2), np.float32), x], 1).mean(0),
    "bound without effect": lambda x: jnp.minimum(jnp.maximum(x, -jnp.inf), jnp.inf),
    "non-linear in a constant": lambda x: x * jnp.exp(jax.nn.relu(jnp.ones(5)))[None],
    "dropout": lambda x: jnp.where(jax.random.bernoulli(jax.random.key(0), 0.5, x.shape), x, 0),
    "cond on a constant": lambda x: lax.cond(jnp.array(False), lambda y: y, lambda y: 2 * y, x),
    "only in what is not returned": lambda x: (jnp.tanh(x), x)[1],
    "only in whole numbers": lambda x: (x, jnp.tanh(x).argmax()),
}


@pytest.mark.parametrize("form", LINEAR)
def test_linear_operations_and_those_of_constants_are_not_listed(form):
    assert explain_rules(LINEAR[form], X) == ()
    found, expected = (jax.jit(fn)(X) for fn in (with_relu_rule(LINEAR[form], "deconvnet"), LINEAR[form]))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


KEPT = {
    "max-pool": lambda x: nn.max_pool(x[None, :, :, None], (2, 2), (1, 1)),
    "maximum over an axis": lambda x: x.max(1),
    "sort": lambda x: jnp.sort(x, axis=1),
    "read at the maximum": lambda x: jnp.take_along_axis(x, x.argmax(1)[:, None], 1),
    "written where the maximum stands": lambda x: jnp.zeros((2, 5)).at[jnp.arange(2), x.argmax(1)].set(x.max(1)),
    "a straight line through a step": lambda x: x + lax.stop_gradient(jnp.round(x) - x),
}


@pytest.mark.parametrize("form", KEPT)
def test_selections_and_smooth_arithmetic_are_listed_and_keep_their_gradient(form):
    fn = KEPT[form]
    assert {found.rule for found in explain_rules(fn, X)} == {"own gradient"}
    incoming = np.random.default_rng(3).normal(size=jax.eval_shape(fn, X).shape).astype(np.float32)
    found = down(fn, "deconvnet", x=X, incoming=incoming)
    np.testing.assert_array_equal(found["deconvnet"][1], found[OWN][1])
