"""No NaN leaves as a picture that the forward pass does not have; what is finite stays as it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from ways_down import OWN, down

from zfjax.anymodel.rules import kept_on_the_way_down, project_fn, skipped_on_the_way_down, with_relu_rule

RNG = np.random.default_rng(0)
KERNEL = RNG.normal(size=(5, 5)).astype(np.float32)
X, INCOMING = RNG.normal(size=(2, 3, 5)).astype(np.float32)
DEAD = np.array([0, 1, 1], np.float32)[:, None]  # the first row's rectifiers are all off
RULES = ("deconvnet", "gradient", "guided", lambda incoming, x: 2 * incoming)


def squares(h):
    return (h * h).sum(1, keepdims=True)


def length(h):
    return jnp.linalg.norm(h, axis=1, keepdims=True)


NORMS = {
    "largest of norm and a number": lambda h: h / jnp.maximum(length(h), 1e-6),
    "norm and a number": lambda h: h / (length(h) + 1e-6),
    "root of squares, clipped": lambda h: h / jnp.clip(jnp.sqrt(squares(h)), 1e-6, None),
    "root, then a bound by where": lambda h: h / jnp.where((n := length(h)) > 1e-6, n, 1e-6),
    "one where nothing is": lambda h: h / jnp.where((n := length(h)) > 0, n, 1.0),
    "one where nothing is, by equality": lambda h: h / jnp.where((n := length(h)) == 0, 1.0, n),
    "quotient where there is one": lambda h: jnp.where((n := length(h)) > 0, h / n, 0.0),
    "itself where there is none": lambda h: jnp.where((n := length(h)) < 1e-9, h, h / n),
    "reciprocal root of the largest": lambda h: h * lax.rsqrt(jnp.maximum(squares(h), 1e-12)),
    "power of a half": lambda h: h / jnp.maximum(squares(h) ** 0.5, 1e-6),
    "power of minus a half": lambda h: h * jnp.maximum(squares(h), 1e-9) ** -0.5,
    "shares of a sum": lambda h: h / (h.sum(1, keepdims=True) + 1e-6),
    "standard deviation": lambda h: (h - h.mean(1, keepdims=True)) / (h.std(1, keepdims=True) + 1e-5),
    "largest of deviation": lambda h: (h - h.mean(1, keepdims=True)) / jnp.maximum(h.std(1, keepdims=True), 1e-5),
    "times a scale that begins as 0": lambda h: h + jnp.zeros((1, 5)) * (h / jnp.maximum(length(h), 1e-6)),
    "a root, times 0": lambda h: h + 0 * jnp.sqrt(squares(h)),
}

ON_REQUEST = {
    "xlogy": lambda h: jax.scipy.special.xlogy(h, h),
    "xlog1py": lambda h: jax.scipy.special.xlog1py(h, h - 1),
    "entropy of scipy": jax.scipy.special.entr,
    "relative entropy": lambda h: jax.scipy.special.rel_entr(h, h),
    "product": lambda h: h * jnp.prod(h + 1, axis=1, keepdims=True),
    "eigenvalues": lambda h: h + jnp.linalg.eigh(h[:, :, None] * h[:, None])[1][:, 0],
    "gamma": lambda h: jnp.where(h > 0, jax.scipy.special.gammaln(h), 0.0),
    "sum": lambda h: h / jnp.maximum(h.sum(1, keepdims=True), 1e-6),
    "response over its mean": lambda h: h * ((n := jnp.linalg.norm(h, axis=0, keepdims=True)) / (n.mean() + 1e-6)),
    "logarithm": lambda h: h * jnp.log(jnp.maximum(h, 1e-3)),
    "logarithm by where": lambda h: jnp.where(h > 0, jnp.log(h), 0.0),
    "root": jnp.sqrt,
    "cube root": jnp.cbrt,
    "root by a power": lambda h: h**0.3,
    "over its absolute value": lambda h: h / jnp.maximum(jnp.abs(h), 1e-6),
    "over itself": lambda h: jnp.where(h > 0, h / h, 0.0),
    "times a reciprocal root": lambda h: jnp.where(h > 0, h * lax.rsqrt(h), 0.0),
    "by a power of minus one": lambda h: jnp.where(h > 0, h**-1, 0.0),
    "arc sine": lambda h: jnp.arcsin(jnp.minimum(h, 1.0)),
    "exponential": lambda h: jnp.where(h > 0.05, 0.0, jnp.exp(1000 * h)),
    "angle": lambda h: jnp.arctan2(h, h * h),
    "entropy": lambda h: -h * jnp.log(h + 1e-9),
}


@jax.custom_vjp
def norm_of_its_own(h):
    return h / jnp.maximum(length(h), 1e-6)


def _norm_down(h, incoming):
    size = length(h)
    unit = h / size
    return ((incoming - unit * (incoming * unit).sum(1, keepdims=True)) / size,)


norm_of_its_own.defvjp(lambda h: (norm_of_its_own(h), h), _norm_down)


@jax.custom_jvp
def tangent_norm(h):
    return h / jnp.maximum(length(h), 1e-6)


@tangent_norm.defjvp
def _norm_along(primals, tangents):
    return jax.jvp(lambda h: jnp.where((n := length(h)) > 0, h / n, 0.0), primals, tangents)


NORMS |= {"a derivative of its own": norm_of_its_own, "a tangent of its own": tangent_norm}


def dead(x):
    """Rectified features, all of them 0 in the first row."""
    return jax.nn.relu(DEAD * (x @ KERNEL))


@pytest.mark.parametrize("form", NORMS | ON_REQUEST)
def test_dead_features_below_a_norm_give_a_picture_of_numbers(form):
    norm = (NORMS | ON_REQUEST)[form]
    on_unknown = "error" if form in NORMS else "keep"

    found = down(lambda x: norm(dead(x)) @ KERNEL, *RULES[:2], x=X, incoming=INCOMING, on_unknown=on_unknown)
    for rule in RULES[:2]:
        np.testing.assert_allclose(found[rule][0], found[OWN][0], rtol=1e-6)  # XLA rounds each program in its way
        assert np.isfinite(found[rule][1]).all() and np.isfinite(found[OWN][0]).all()
    assert np.any(found["deconvnet"][1])
    if form not in ON_REQUEST:
        np.testing.assert_allclose(found["gradient"][1][1:], found[OWN][1][1:], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("form", ["largest of norm and a number", "quotient where there is one", "logarithm by where"])
def test_a_marked_function_and_every_rule_give_numbers_too(form):
    norm = kept_on_the_way_down((NORMS | ON_REQUEST)[form])
    found = down(lambda x: norm(dead(x)) @ KERNEL, *RULES, x=X, incoming=INCOMING)
    assert all(np.isfinite(found[rule][1]).all() for rule in RULES) and np.any(found["deconvnet"][1])


def test_a_skipped_function_gives_numbers_where_it_is_not_skipped():
    norm = skipped_on_the_way_down(NORMS["largest of norm and a number"])
    found = down(lambda x: norm(dead(x)) @ KERNEL, "guided", "gradient", x=X, incoming=INCOMING)
    assert all(np.isfinite(found[rule][1]).all() and np.any(found[rule][1]) for rule in ("guided", "gradient"))


def test_where_jax_has_nan_of_its_own_the_pole_passes_nothing():
    """The norm of a row of zeros: JAX's gradient is NaN, ours the subgradient 0."""

    def fn(x):
        return length(x) + x.sum(1, keepdims=True)

    x = DEAD * X
    found = down(fn, *RULES, x=x, incoming=INCOMING[:, :1], on_unknown="keep")
    assert np.isnan(found[OWN][1][0]).all()
    for rule in RULES:
        np.testing.assert_array_equal(found[rule][1][0], np.full(5, INCOMING[0, 0]))
        np.testing.assert_allclose(found[rule][1][1:], found[OWN][1][1:], rtol=1e-6)


def test_a_nan_of_the_forward_pass_is_not_hidden():
    """0 / 0 going up is NaN going down too."""
    found = down(lambda x: (h := dead(x)) / length(h) @ KERNEL, *RULES, x=X, incoming=INCOMING, on_unknown="keep")
    assert np.isnan(found["deconvnet"][0][0]).all()


def test_a_function_with_a_derivative_of_its_own_keeps_it():
    """A root that states its own derivative at 0."""

    @jax.custom_jvp
    def root(x):
        return jnp.sqrt(x)

    root.defjvp(lambda primals, tangents: (root(*primals), 7 * tangents[0]))
    incoming = np.ones((3, 5), np.float32)
    found = down(lambda x: root(x * x), "deconvnet", "gradient", x=0 * X + 1, incoming=incoming, on_unknown="keep")
    for _, outgoing in found.values():
        np.testing.assert_array_equal(outgoing, 14 * incoming)


def test_pictures_without_jit_and_in_inner_calls():
    @jax.jit
    def norm(h):
        return h / jnp.maximum(length(h), 1e-6)

    fn = lambda x: lax.map(norm, dead(x)[:, None])[:, 0]  # noqa: E731
    unit = int(dead(X)[1].argmax())
    picture = project_fn(fn, X, unit=unit)
    assert np.isfinite(picture).all() and np.any(picture[1:]) and not np.any(picture[0])
    np.testing.assert_allclose(jax.jit(lambda x: project_fn(fn, x, unit=unit))(X), picture, rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_other_floating_types(dtype):
    fn = with_relu_rule(lambda x: NORMS["norm and a number"](dead(x).astype(dtype)), "deconvnet")
    outgoing = jax.vjp(fn, X)[1](INCOMING.astype(dtype))[0]
    assert np.isfinite(outgoing).all()


@pytest.mark.parametrize(
    "form", ["largest of norm and a number", "norm and a number", "power of a half", "shares of a sum"]
)
def test_a_picture_that_a_norm_of_dead_features_makes_huge_is_warned_of(form):
    norm = jax.jit(NORMS[form])

    def fn(x, off=0.0):
        return norm(jax.nn.relu(x @ KERNEL - off * (1 - DEAD))) @ KERNEL

    words = r"norm of fn divides by next to nothing\n  .*test_relu_finite.py:\d+: by 1e-0\d at 1 of 3 places"
    with pytest.warns(UserWarning, match=words):
        pixels = project_fn(lambda x: fn(x, off=100.0), X, unit=0, seed="one")
    assert np.abs(pixels[0]).max() > 1e4 > np.abs(pixels[1:]).max()
    project_fn(fn, X, unit=0, seed="one")  # of features that are not dead, without a warning
    jax.jit(lambda x: project_fn(lambda x: fn(x, off=100.0), x, unit=0, seed="one"))(X)


def test_a_picture_that_is_no_number_is_an_error_outside_jit():
    def model(x):
        return jax.nn.relu(x @ KERNEL)

    def rule(incoming, x):
        return incoming / 0

    with pytest.raises(ValueError, match="NaN or infinity, though it starts from numbers"):
        project_fn(model, X, unit=0, rule=rule, seed="one")
    assert not np.isfinite(jax.jit(lambda x: project_fn(model, x, unit=0, rule=rule, seed="one"))(X)).all()
