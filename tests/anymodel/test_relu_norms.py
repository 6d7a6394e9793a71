"""Norms keep their derivative where they are norms for certain; activations written with their arithmetic do not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from ways_down import OWN, down

from zfjax.anymodel.rules import explain_rules, with_relu_rule

RNG = np.random.default_rng(0)
X, INCOMING = RNG.normal(size=(2, 3, 8)).astype(np.float32)
KERNEL, OTHER = RNG.normal(size=(2, 8, 8)).astype(np.float32)
MAPS = RNG.normal(size=(2, 4, 4, 8)).astype(np.float32)
GROUPS = np.repeat(np.eye(2, dtype=np.float32), 4, axis=1)


def rules_of(fn, x=X):
    return {line.rule for line in explain_rules(fn, x)}


def l2(x):
    return x / jnp.sqrt((x * x).sum(1, keepdims=True) + 1e-5)


def saturated(x):
    return (h := jnp.maximum(x, 0)) / (1 + h)


BESIDE_ROOTS = {  # rectifiers, for all that stands around them
    "saturated after a norm": lambda x: saturated(l2(x) @ KERNEL),
    "saturated by where": lambda x: (h := jnp.where((y := l2(x) @ KERNEL) > 0, y, 0)) / (1 + h),
    "saturated, kernel normalised": lambda x: saturated(x @ (KERNEL / jnp.sqrt((KERNEL * KERNEL).sum(0)[None]))),
    "root after a norm": lambda x: jnp.sqrt(jnp.maximum(l2(x) @ KERNEL, 0) + 1e-3),
    "energies above a threshold": lambda x: jnp.sqrt(jnp.maximum((x @ KERNEL) ** 2 @ OTHER - 1, 0) + 1e-3),
    "a sum of squares above a threshold": lambda x: jnp.sqrt(jnp.maximum((x * x).sum(1) - 1, 0) + 1e-3),
    "below a threshold": lambda x: jnp.sqrt(jnp.maximum(1 - (x * x).sum(1), 0) + 1e-3),
}


@pytest.mark.parametrize("form", BESIDE_ROOTS)
def test_a_rectifier_near_roots_and_squares_is_never_taken_for_a_norms_guard(form):
    report = explain_rules(BESIDE_ROOTS[form], X)
    assert [line.rule for line in report if line.operation.split()[0] in ("max", "select_n")] == ["unclassified"]
    with pytest.raises(ValueError, match="ambiguous: a rectifier, or a guard"):
        with_relu_rule(BESIDE_ROOTS[form], "deconvnet")(X)


SPREADS = {
    "repeat": lambda v: jnp.repeat(v, 4, axis=1),
    "index": lambda v: v[:, np.repeat([0, 1], 4)],
    "one-hot": lambda v: v @ GROUPS,
    "stack": lambda v: jnp.stack([v] * 4, -1).reshape(3, 8),
    "concatenation": lambda v: jnp.concatenate([v[:, :1]] * 4 + [v[:, 1:]] * 4, 1),
    "pad": lambda v: (
        jnp.pad(jnp.tile(v[:, :1], 4), ((0, 0), (0, 4))) + jnp.pad(jnp.tile(v[:, 1:], 4), ((0, 0), (4, 0)))
    ),
    "resize": lambda v: jax.image.resize(v, (3, 8), "nearest"),
    "scan": lambda v: lax.scan(lambda c, row: (c, row), 0, jnp.repeat(v.T, 4, axis=0))[1].T,
    "mean": lambda v: jnp.broadcast_to(v.mean(1, keepdims=True), (3, 8)),
    "mixture": lambda v: jnp.repeat(0.5 * v + 0.5 * v[:, ::-1], 4, axis=1),
}


@pytest.mark.parametrize("spread", SPREADS)
def test_a_variance_is_guarded_however_it_comes_back_to_the_features(spread):
    """Between its lower bound and the root stands a way to spread it over the groups; in all the norm stays whole."""

    def fn(x):
        groups = x.reshape(3, 2, 4)
        variance = jnp.maximum((groups * groups).mean(2) - (mean := groups.mean(2)) * mean, 0)
        return (x - jnp.repeat(mean, 4, axis=1)) / jnp.sqrt(SPREADS[spread](variance) + 1e-2)

    assert "lower bound of a norm's variance" in [line.reason for line in explain_rules(fn, X)]
    found = down(fn, "deconvnet", x=X, incoming=INCOMING)
    np.testing.assert_array_equal(found["deconvnet"][1], found[OWN][1])


def by_slices(x):
    squares = jnp.pad(x * x, ((0, 0), (2, 2)))
    return x / (2 + 1e-4 * sum(squares[:, k : k + 8] for k in range(5))) ** 0.75


def by_equations(x):
    """A variance as the product of two equal differences, as Equinox writes it."""
    variance = ((x - x.mean(1, keepdims=True)) * (x - x.mean(1, keepdims=True))).mean(1, keepdims=True)
    return (x - x.mean(1, keepdims=True)) / jnp.sqrt(jnp.maximum(0.0, variance) + 1e-5)


def responses(x):
    """The global response norm of ConvNeXt V2."""
    lengths = jnp.linalg.norm(x, axis=0, keepdims=True)
    return KERNEL[:1] * (x * (lengths / (lengths.mean(-1, keepdims=True) + 1e-6))) + OTHER[:1] + x


NORMS = {
    "neighbouring maps, by slices": by_slices,
    "neighbouring maps, by a window": lambda x: (
        x * (1 + lax.reduce_window(x**2, 0.0, lax.add, (1, 5), (1, 1), "SAME")) ** -0.75
    ),
    "neighbouring maps, by a matrix": lambda x: x * (1 + (x * x) @ np.tri(8, dtype=np.float32)) ** -0.5,
    "two equal differences": by_equations,
    "standardize": jax.nn.standardize,
    "standard deviation": lambda x: (x - x.mean(1, keepdims=True)) / (x.std(1, keepdims=True) + 1e-3),
    "einsum": lambda x: x / jnp.sqrt(jnp.maximum(jnp.einsum("bi,bi->b", x, x), 0) + 1e-5)[:, None],
    "a length with a lower bound": lambda x: x / jnp.maximum(jnp.linalg.norm(x, axis=1, keepdims=True), 1e-12),
    "fixed": lambda x: x * lax.stop_gradient(lax.rsqrt((x * x).mean(1, keepdims=True) + 1e-6)),
    "of means": lambda x: (m := MAPS[0, 0, :3] * x.mean(1, keepdims=True)) / jnp.linalg.norm(m, axis=1, keepdims=True),
    "over a sum": lambda x: x / x.sum(1, keepdims=True),
    "in scan": lambda x: lax.scan(lambda c, row: (c, row / jnp.sqrt((row**2).sum() + 1)), 0, x)[1],
    "sum of sizes": lambda x: x / jnp.abs(x).sum(1, keepdims=True),
    "sum of sizes, with a lower bound": lambda x: x / jnp.maximum(jnp.linalg.norm(x, 1, axis=1, keepdims=True), 1e-12),
    "mean deviation": lambda x: (d := x - x.mean(1, keepdims=True)) / (jnp.abs(d).mean(1, keepdims=True) + 1e-5),
    "largest size": lambda x: x / (jnp.abs(x).max(1, keepdims=True) + 1e-5),
    "of cubes": lambda x: x / jnp.linalg.norm(x, 3, axis=1, keepdims=True),
    "global responses": responses,
    "over devices": jax.vmap(lambda x: x * lax.rsqrt(lax.pmean(x * x, "batch") + 1e-5), axis_name="batch"),
    "statistics at the end": lambda x: (x / jnp.sqrt(s := (x * x).sum(1, keepdims=True)), 0.1 * s),
}


@pytest.mark.parametrize("norm", NORMS)
def test_a_norm_keeps_its_derivative(norm):
    assert rules_of(NORMS[norm]) == {"own gradient"}


def test_pools_of_squares_and_deviations_may_be_followed_by_rectifiers():
    def pooled(x):
        return jnp.sqrt(lax.reduce_window(x * x, 0.0, lax.add, (1, 2), (1, 1), "SAME") + 1e-6)

    for fn in (
        lambda x: jnp.maximum(pooled(x) @ KERNEL, 0),
        lambda x: jnp.maximum(jnp.concatenate([x.mean(1), x.std(1)]), 0),
        lambda x: jnp.maximum(jnp.linalg.norm(jnp.stack([x @ KERNEL, x @ OTHER]), axis=0) @ KERNEL, 0),
    ):
        assert rules_of(fn) == {"own gradient", "rectifier"}


@pytest.mark.parametrize("power", [3, 3.0, 2.5])
def test_a_pool_by_powers_keeps_its_derivative(power):
    """GeM, with and without the small bound below the powers: the ReLU beneath follows the rule."""

    def gem(x):
        return (jnp.maximum(x, 1e-6) ** power).mean(0, keepdims=True) ** (1 / power)

    report = explain_rules(lambda x: gem(jnp.maximum(x @ KERNEL, 0)) @ OTHER, X)
    assert [line.rule for line in report] == ["rectifier"] + ["own gradient"] * 3
    assert "a pool by powers" in report[1].reason
    assert rules_of(lambda x: (x**2).mean(1) ** 0.5) == {"own gradient"}
    assert "unclassified" in rules_of(lambda x: jnp.maximum(x @ KERNEL, 1e-6) ** power)  # of each number alone
    assert "unclassified" in rules_of(lambda x: (m := jnp.maximum(x, 1e-6)) + (m**power).mean() ** (1 / power))


BY_HAND = {
    "sizes": lambda x: jnp.abs(x @ KERNEL),
    "sizes beside a norm": lambda x: (a := jnp.abs(x)) @ KERNEL + x / a.sum(1, keepdims=True),
    "relu by its size": lambda x: (x + jnp.abs(x @ np.eye(8, dtype=np.float32))) / 3,
    "softsign": lambda x: x / (1 + jnp.abs(x)),
    "mean size as a feature": lambda x: jnp.abs(x).mean(1),
    "gate by its share": lambda x: x * (jnp.abs(x) / jnp.abs(x).sum(1, keepdims=True)),
    "square": lambda x: (x @ KERNEL) ** 2 @ OTHER,
    "reciprocal": lambda x: 1 / (x @ KERNEL),
    "squareplus": lambda x: (x + jnp.sqrt(x * x + 4)) / 2,
    "inverse root unit": lambda x: x / jnp.sqrt(1 + x * x),
    "inverse root unit of means": lambda x: (g := x.mean(1)) / jnp.sqrt(1 + g * g),
    "soft sign of means": lambda x: (g := x.mean(1)) / (1 + g),
    "hard swish": lambda x: x * jax.nn.relu6(x + 3) / 6,
    "gate": lambda x: (x @ KERNEL) * (x @ OTHER),
    "root of means": lambda x: jnp.sqrt(jax.nn.relu(x.mean(1)) + 1e-3),
    "relu by a reciprocal root": lambda x: 0.5 * x * (1 + x * lax.rsqrt(x * x)),
    "leaky by a norm over one place": lambda x: 0.6 * x + 0.4 * jnp.linalg.norm(x[..., None], axis=-1),
    "relu by a norm of itself and one": lambda x: (x + jnp.linalg.norm(jnp.stack([x, 0 * x + 1]), axis=0)) / 2,
    "kernel of a distance": lambda x: 1 / (1 + (x * x).sum(1)),
    "kernel by a root": lambda x: lax.rsqrt(1 + (x * x).sum(1, keepdims=True)) @ KERNEL[:1],
    "variance as a feature": lambda x: x.var(1),
    "squares beside a norm": lambda x: (s := x * x) @ KERNEL + x / jnp.sqrt(s.sum(1, keepdims=True)),
    "normalised by an exponent above one": lambda x: x / ((x * x).sum(1, keepdims=True) + 1) ** 1.5,
}


@pytest.mark.parametrize("form", BY_HAND)
def test_an_activation_written_with_a_norms_arithmetic_is_unclassified(form):
    assert "unclassified" in rules_of(BY_HAND[form])


def test_a_product_of_different_arguments_is_linear_in_each():
    """Parameters among the arguments: the last dense layer, and a norm whose scale is one."""

    def fn(params, x):
        return jnp.maximum(l2(x) * params["scale"] @ params["kernel"], 0) @ params["last"]

    params = {"scale": X[:1], "kernel": KERNEL, "last": OTHER}
    rules = [line.rule for line in explain_rules(fn, params, X)]
    assert rules.count("rectifier") == 1 and "unclassified" not in rules
    assert "unclassified" in {line.rule for line in explain_rules(lambda w, x: (w * x) @ w.T, KERNEL[:3], X)}


def test_flax_norms_of_parameters_and_batches():
    model = nnx.Sequential(nnx.Linear(8, 8, rngs=nnx.Rngs(0)), nnx.BatchNorm(8, rngs=nnx.Rngs(0)), nnx.relu)
    model.eval()
    assert [line.rule for line in explain_rules(model, X)] == ["rectifier"]
    standardised = (KERNEL - KERNEL.mean()) / KERNEL.std()
    assert [line.rule for line in explain_rules(lambda x: jnp.maximum(x @ standardised, 0), X)] == ["rectifier"]
