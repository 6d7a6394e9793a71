"""Rectifiers written out by arithmetic follow the rule; straight lines written with bends keep their derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from ways_down import OWN, down

from zfjax.anymodel.rules import explain_rules, with_relu_rule

RNG = np.random.default_rng(0)
KERNEL, OTHER = RNG.normal(size=(2, 5, 5)).astype(np.float32)
X, INCOMING = RNG.normal(size=(2, 3, 5)).astype(np.float32)


def each(fn):
    return jax.vmap(jax.vmap(fn))


RECTIFIERS = {  # what is made of z, and c in c * max(z, 0)
    "x - min(x, 0)": (lambda z: z - jnp.minimum(z, 0), 1),
    "-min(-x, 0)": (lambda z: -jnp.minimum(-z, 0), 1),
    "mean with the absolute value": (lambda z: (z + jnp.abs(z)) / 2, 1),
    "half of each": (lambda z: 0.5 * jnp.abs(z) + 0.5 * z, 1),
    "sum with the absolute value": (lambda z: z + jnp.abs(z), 2),
    "times heaviside": (lambda z: z * jnp.heaviside(z, 0.0), 1),
    "times the sign": (lambda z: z * (jnp.sign(z) + 1) / 2, 1),
    "relu where positive": (lambda z: jnp.where(z > 0, jax.nn.relu(z), 0), 1),
    "relu times its mask": (lambda z: jax.nn.relu(z) * (z > 0).astype(z.dtype), 1),
    "largest of itself and half": (lambda z: jnp.maximum(z, 0.0) - jnp.minimum(jnp.maximum(z, 0.0), 0.0), 1),
    "fmax": (lambda z: jnp.fmax(z, 0.0), 1),
    "with what it lacks": (lambda z: z + jax.nn.relu(-z), 1),
    "largest of itself and a leaky one": (lambda z: jnp.maximum(jax.nn.relu(z), 0.1 * z), 1),
    "not a number aside": (lambda z: jax.nn.relu(jnp.nan_to_num(z)), 1),
    "in vmap": (jax.vmap(lambda z: z - jnp.minimum(z, 0)), 1),
    "in scan": (lambda z: lax.map(lambda row: row - jnp.minimum(row, 0), z), 1),
    "in jit": (jax.jit(lambda z: (z + jnp.abs(z)) / 2), 1),
    "with a root": (lambda z: (z + jnp.sqrt(z * z)) / 2, 1),
    "with a root of a power": (lambda z: z + (z**2) ** 0.5, 2),
    "largest of a stack": (lambda z: jnp.stack([z, jnp.zeros_like(z)]).max(0), 1),
    "largest of a concatenation": (lambda z: jnp.concatenate([0 * z[..., None], z[..., None]], -1).max(-1), 1),
    "largest of a stack, after arithmetic": (lambda z: (jnp.stack([z, 0 * z], -1) + 1).max(-1) - 1, 1),
    "leaky with slope 0": (lambda z: jax.nn.leaky_relu(z, 0.0), 1),
    "zero times itself, fixed": (lambda z: lax.max(z, 0.0 * lax.stop_gradient(z)), 1),
    "a cond in vmap": (each(lambda v: lax.cond(v > 0, lambda u: u, lambda u: 0.0, v)), 1),
    "a switch in vmap": (each(lambda v: lax.switch((v > 0).astype(int), [lambda u: 0.0 * u, lambda u: u], v)), 1),
    "piecewise": (lambda z: jnp.piecewise(z, [z < 0], [0.0, lambda v: v]), 1),
    "piecewise, the other way round": (lambda z: jnp.piecewise(z, [z > 0], [lambda v: v, 0.0]), 1),
    "piecewise, three": (lambda z: jnp.piecewise(z, [z < -1, (z >= -1) & (z < 0), z >= 0], [0.0, 0.0, lambda v: v]), 1),
    "select of two": (lambda z: jnp.select([z < 0, z >= 0], [jnp.zeros_like(z), z]), 1),
    "select of three": (lambda z: jnp.select([z > 1, z > 0], [z, z], 0.0), 1),
    "to the power of one": (lambda z: jnp.power(jax.nn.relu(jnp.power(z, 1)), 1.0) ** np.ones((1, 5), np.float32), 1),
    "einsum with a mask": (lambda z: jnp.einsum("bc,bc->bc", z, (z > 0).astype(z.dtype)), 1),
    "one less the sign bit": (lambda z: z * (1 - jnp.signbit(z).astype(z.dtype)), 1),
    "last of a sort": (lambda z: jnp.sort(jnp.stack([z, jnp.zeros_like(z)]), 0)[1], 1),
    "last of a sort of channels": (lambda z: jnp.sort(jnp.stack([0 * z, z], -1), -1)[..., 1], 1),
    "first of the largest": (lambda z: lax.top_k(jnp.stack([z, 0 * z], -1), 1)[0][..., 0], 1),
    "running maximum": (lambda z: lax.cummax(jnp.stack([jnp.zeros_like(z), z]), 0)[1], 1),
    "what a running minimum leaves": (lambda z: z - lax.cummin(jnp.stack([0 * z, z]), 0, reverse=True)[0], 1),
    "largest that is a number": (lambda z: jnp.nanmax(jnp.stack([z, 0 * z]), 0), 1),
    "mean with a norm over one place": (lambda z: (z + jnp.linalg.norm(z[..., None], axis=-1)) / 2, 1),
    "mean with a norm of itself and zero": (lambda z: (z + jnp.linalg.norm(jnp.stack([z, 0 * z]), axis=0)) / 2, 1),
    "over calls": (lambda z: jax.jit(jnp.add)(z, jax.jit(jnp.abs)(z)), 2),
}


@jax.custom_vjp
def rectifier(x):
    return jnp.maximum(x, 0)


rectifier.defvjp(lambda x: (rectifier(x), None), lambda _, incoming: (jnp.maximum(incoming, 0),))


@pytest.mark.parametrize("form", RECTIFIERS)
def test_a_rectifier_written_out_follows_the_rules(form):
    written, scale = RECTIFIERS[form]

    def fn(x, rectifier=written):
        return rectifier(x @ KERNEL) @ OTHER

    found = down(fn, "deconvnet", "guided", "gradient", x=X, incoming=INCOMING)
    (expected,) = jax.jit(lambda x, g: jax.vjp(lambda x: fn(x, lambda z: scale * rectifier(z)), x)[1](g))(X, INCOMING)
    np.testing.assert_allclose(found["deconvnet"][1], expected, rtol=1e-5, atol=1e-6)
    guided = scale * (np.maximum(INCOMING @ OTHER.T, 0) * (X @ KERNEL > 0)) @ KERNEL.T
    np.testing.assert_allclose(found["guided"][1], guided, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found["gradient"][1], found[OWN][1])
    assert [line.rule for line in explain_rules(fn, X)].count("rectifier") == 1


BOUNDED = {  # what is made of z, and its upper bound
    "two rectifiers": (lambda z: jax.nn.relu(z) - jax.nn.relu(z - 0.5), 0.5),
    "absolute values": (lambda z: (jnp.abs(z) - jnp.abs(z - 0.5) + 0.5) / 2, 0.5),
    "the least of one written out": (lambda z: jnp.minimum(z - jnp.minimum(z, 0), 0.5), 0.5),
    "select": (lambda z: jnp.select([z < 0, z < 1], [jnp.zeros_like(z), z], 1.0), 1.0),
    "where": (lambda z: jnp.where(z > 1, 1.0, z - jnp.minimum(z, 0)), 1.0),
}


@pytest.mark.parametrize("form", BOUNDED)
def test_a_rectifier_with_an_upper_bound_follows_the_rule_below_it(form):
    written, ceiling = BOUNDED[form]

    def fn(x, bounded=written):
        return bounded(x @ KERNEL) @ OTHER

    found = down(fn, "deconvnet", "gradient", x=X, incoming=INCOMING)
    (expected,) = jax.vjp(lambda x: fn(x, lambda z: jnp.minimum(rectifier(z), ceiling)), X)[1](INCOMING)
    np.testing.assert_allclose(found["deconvnet"][1], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found["gradient"][1], found[OWN][1])


CEILING = np.linspace(0.2, 1, 5, dtype=np.float32)[None]
LEARNED = {  # a bound above for each map
    "clip": lambda z, a: jnp.clip(z, 0, a),
    "minimum": lambda z, a: jnp.minimum(jax.nn.relu(z), a),
    "minimum below": lambda z, a: jnp.maximum(jnp.minimum(z, a), 0),
    "of a layer with offsets": lambda z, a: jnp.clip(z + KERNEL[:1], 0, a),
}


@pytest.mark.parametrize("form", LEARNED)
def test_above_a_bound_of_each_map_nothing_passes(form):
    def fn(x, bounded=lambda z: LEARNED[form](z, CEILING)):
        return bounded(x @ KERNEL) @ OTHER

    offset = KERNEL[:1] if "offsets" in form else 0
    found = down(fn, "deconvnet", x=X, incoming=INCOMING)["deconvnet"][1]
    twin = lambda z: jnp.minimum(rectifier(z + offset), CEILING)  # noqa: E731
    (expected,) = jax.vjp(lambda x: fn(x, twin), X)[1](INCOMING)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_bound_that_is_a_parameter_in_jit_is_one_of_the_clip():
    def pixels(ceiling):
        return with_relu_rule(lambda x: jnp.clip(x @ KERNEL, 0, ceiling) @ OTHER, "deconvnet")

    def below(x, ceiling):
        return jax.vjp(pixels(ceiling), x)[1](INCOMING)[0]

    np.testing.assert_allclose(jax.jit(below)(X, CEILING), below(X, CEILING), rtol=1e-6)


def test_a_hard_sigmoid_with_a_bound_of_each_map_is_refused():
    for form in (
        lambda z: jnp.clip(0.2 * z + 0.5, 0, CEILING),
        lambda z: jnp.maximum(jnp.minimum(0.2 * z + 0.5, CEILING), 0),
        lambda z: jnp.minimum(jax.nn.relu(z + CEILING), 2 * CEILING) - CEILING,
        lambda z: jnp.clip(z, -CEILING, CEILING),
    ):
        rules = [line.rule for line in explain_rules(lambda x, form=form: form(x @ KERNEL) @ OTHER, X)]
        assert "unclassified" in rules and "rectifier" not in rules


def test_a_rectifier_of_the_opposite_follows_the_rule_there():
    """-min(z, 0) is max(-z, 0)."""
    found = down(lambda x: -jnp.minimum(x @ KERNEL, 0), "deconvnet", x=X, incoming=INCOMING)["deconvnet"][1]
    np.testing.assert_allclose(found, -np.maximum(INCOMING, 0) @ KERNEL.T, rtol=1e-5, atol=1e-6)


STRAIGHT = {
    "nan_to_num": jnp.nan_to_num,
    "both parts": lambda z: jax.nn.relu(z) - jax.nn.relu(-z),
    "bounds and the rest": lambda z: jnp.clip(z, -1, 1) + (z - jnp.clip(z, -1, 1)),
    "a case that the next takes back": lambda z: jnp.piecewise(z, [z < 0, z < 1], [0.0, lambda v: v, lambda v: v]),
    "where it is a number": lambda z: jnp.where(jnp.isfinite(z), z, 0.0),
}


@pytest.mark.parametrize("form", STRAIGHT)
def test_a_straight_line_keeps_its_derivative(form):
    def fn(x):
        return STRAIGHT[form](x @ KERNEL) @ OTHER

    assert {line.rule for line in explain_rules(fn, X)} == {"own gradient"}
    found = down(fn, "deconvnet", x=X, incoming=INCOMING)
    np.testing.assert_array_equal(found["deconvnet"][1], found[OWN][1])


STRAIGHT_ABOVE_ZERO = {
    "size": jnp.abs,
    "scaled size": lambda h: jnp.abs(3 * h),
    "mean with its size, in jit": jax.jit(lambda h: (h + jnp.abs(h)) / 2),
}


@pytest.mark.parametrize("form", STRAIGHT_ABOVE_ZERO)
@pytest.mark.parametrize("relu", [jax.nn.relu, RECTIFIERS["-min(-x, 0)"][0]])
def test_what_is_straight_above_zero_is_no_rectifier_more_of_what_one_gives(form, relu):
    """All that comes down at the one rectifier is added up before its rule."""

    def fn(x, relu=relu):
        return (h := relu(x @ KERNEL)) @ OTHER - STRAIGHT_ABOVE_ZERO[form](h) @ KERNEL

    found = down(fn, "deconvnet", x=X, incoming=INCOMING)["deconvnet"][1]
    (expected,) = jax.vjp(lambda x: fn(x, rectifier), X)[1](INCOMING)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_the_size_of_a_rectifiers_result_that_is_shifted_is_refused():
    for shifted in (lambda h: jnp.abs(h - 0.5), lambda h: jnp.abs(0.5 - h), lambda h: jnp.abs(-h + 0.1)):
        rules = {line.rule for line in explain_rules(lambda x, f=shifted: f(jax.nn.relu(x @ KERNEL)) @ OTHER, X)}
        assert "unclassified" in rules


NEITHER = {
    "absolute value": jnp.abs,
    "absolute value by two": lambda z: z + jnp.abs(z) - z,
    "leaky by the absolute value": lambda z: 0.6 * z + 0.4 * jnp.abs(z),
    "leaky beside a rectifier written out": lambda z: (z - jnp.minimum(z, 0)) + 0.1 * jnp.minimum(z, 0),
    "opposite": lambda z: jnp.minimum(z, 0),
    "shifted": lambda z: (z + 1 + jnp.abs(z + 1)) / 2 - 1,
    "a straight line for the gradient alone": lambda z: z + lax.stop_gradient(jax.nn.relu(z) - z) + jnp.sin(z),
    "by a root, softly": lambda z: (z + jnp.sqrt(z * z + 1e-6)) / 2,
    "leaky by piecewise": lambda z: jnp.piecewise(z, [z < 0], [lambda v: 0.1 * v, lambda v: v]),
    "leaky by a cond in vmap": each(lambda v: lax.cond(v > 0, lambda u: u, lambda u: 0.1 * u, v)),
    "hard sigmoid by absolute values": lambda z: (jnp.abs(u := z + 3) - jnp.abs(u - 6) + 6) / 12,
    "hard sigmoid by two": lambda z: (jax.nn.relu(u := z + 3) - jax.nn.relu(u - 6)) / 6,
    "hard tanh by two": lambda z: jax.nn.relu(u := z + 1) - jax.nn.relu(u - 2) - 1,
    "bounded from above by two": lambda z: z - jax.nn.relu(z - 2),
    "leaky, bounded": lambda z: jax.nn.relu(z) - jax.nn.relu(z - 2) - 0.1 * jax.nn.relu(-z),
    "steeper above": lambda z: jax.nn.relu(z) + jax.nn.relu(z - 2),
    "leaky by sorting": lambda z: jnp.sort(jnp.stack([z, 0.1 * z]), 0)[1],
    "opposite by sorting": lambda z: jnp.sort(jnp.stack([z, 0 * z]), 0)[0],
    "the second of three": lambda z: lax.top_k(jnp.stack([z, 0 * z, z + 1], -1), 2)[0][..., 1],
    "leaky by the sign bit": lambda z: z * (1 - 0.9 * jnp.signbit(z).astype(z.dtype)),
    "leaky by einsum": lambda z: jnp.einsum("bc,bc->bc", z, jnp.where(z > 0, 1.0, 0.1)),
    "hard sigmoid to the power of one": lambda z: jnp.power(jax.nn.relu6(z + 3), 1) / 6,
    "leaky by jax.nn": jax.nn.leaky_relu,
    "for each map": lambda z: z - KERNEL[:1] * jnp.minimum(z, 0),
    "of two": lambda z: jnp.abs(z @ KERNEL - z @ OTHER) + z @ KERNEL + z @ OTHER,
    "hard sigmoid": lambda z: (jnp.abs(z + 1) - jnp.abs(z - 1)) / 4 + 0.5,
}


@pytest.mark.parametrize("form", NEITHER)
def test_what_is_neither_is_refused(form):
    rules = [line.rule for line in explain_rules(lambda x: NEITHER[form](x @ KERNEL) @ OTHER, X)]
    assert "unclassified" in rules and "rectifier" not in rules


def test_a_bounded_relu_that_is_scaled_is_ruled_by_its_own_name():
    for scaled in (lambda z: jax.nn.relu6(z) / 6, lambda z: 2 * jax.nn.relu6(z)):
        report = explain_rules(lambda x, scaled=scaled: scaled(x @ KERNEL), X)
        assert [line.operation for line in report] == ["max in relu6", "min in relu6"]
