"""Norms, pools and constants as people write them: ruled where they leave no doubt, with the picture of a twin."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from ways_down import OWN, down

from zfjax.anymodel.mixing import check_alone
from zfjax.anymodel.rules import explain_rules
from zfjax.anymodel.tracing import traced

OLD = tuple(map(int, jax.__version__.split(".")[:2])) < (0, 8)  # writes these so that there is doubt: refused
REFUSED_BY_OLD = ("four strided", "scan", "scan, stacked", "map") if OLD else ()
RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 4, 4, 3)).astype(np.float32)
KERNEL = RNG.normal(size=(3, 6)).astype(np.float32)
OTHER = RNG.normal(size=(6, 6)).astype(np.float32)


@pytest.fixture(autouse=True)
def rows_broadcast():
    """As in most models."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def squares(h):
    return (h * h).sum(-1, keepdims=True)


def length(h):
    return jnp.linalg.norm(h, axis=-1, keepdims=True)


def beside(h, other):
    return jnp.stack([h, other], -1).reshape(*h.shape[:-1], -1)


def contrast(h):
    """The local contrast norm: the larger of each place's deviation and the image's mean."""
    centred = h - nn.avg_pool(h, (3, 3), padding="SAME")
    deviation = jnp.sqrt(nn.avg_pool(squares(centred), (3, 3), padding="SAME"))
    return centred / jnp.maximum(deviation, deviation.mean((1, 2), keepdims=True))


NORMS = {
    "clip of a length": lambda h: h / jnp.clip(length(h), 1e-6, 1e6),
    "clamp of a length": lambda h: h / lax.clamp(1e-6, length(h), 1e6),
    "smallest of a length": lambda h: h / jnp.minimum(length(h), 1e6),
    "both bounds": lambda h: h / jnp.minimum(jnp.maximum(length(h), 1e-6), 10.0),
    "clip of a variance": lambda h: h * lax.rsqrt(jnp.clip(squares(h), 1e-6, 1e6)),
    "clipped by its norm": lambda h: h * jnp.minimum(1.0, 2 / (length(h) + 1e-6)),
    "where in where": lambda h: jnp.where((s := squares(h)) > 0, h / jnp.sqrt(jnp.where(s > 0, s, 1.0)), 0),
    "where it is zero": lambda h: h / jnp.where((s := squares(h)) == 0, 1.0, jnp.sqrt(jnp.where(s == 0, 1.0, s))),
    "a safe root": lambda h: h / (1e-6 + jnp.where((s := squares(h)) == 0, 0.0, jnp.sqrt(jnp.where(s == 0, 1.0, s)))),
    "optax.safe_norm": lambda h: h / optax.safe_norm(h, 1e-6, axis=-1, keepdims=True),
    "linalg.norm of where": lambda h: h / length(jnp.where(jnp.all(h == 0, -1, keepdims=True), 1.0, h)),
    "where of a bounded length": lambda h: jnp.where((n := length(h)) > 1e-6, h / jnp.maximum(n, 1e-6), 0.0),
    "quotient without NaN": lambda h: jnp.where((n := length(h)) == 0, 0.0, h / jnp.where(n == 0, 1.0, n)),
    "reciprocal root of the largest": lambda h: h * lax.rsqrt(jnp.maximum(squares(h), 1e-12)),
    "contrast": contrast,
}

POOLS = {
    "two rows": lambda h: jnp.maximum(h[:, :-1], h[:, 1:]),
    "three rows": lambda h: jnp.maximum(jnp.maximum(h[:, :-2], h[:, 1:-1]), h[:, 2:]),
    "strided": lambda h: jnp.maximum(h[:, ::2], h[:, 1::2]),
    "four strided": lambda h: functools.reduce(jnp.maximum, [h[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]),
    "nine": lambda h: functools.reduce(jnp.maximum, [h[:, i : i + 2, j : j + 2] for i in range(3) for j in range(3)]),
    "smallest": lambda h: jnp.minimum(h[:, :, :-1], h[:, :, 1:]),
    "by where": lambda h: jnp.where((a := h[:, :-1]) > (b := h[:, 1:]), a, b),
    "halves of the maps": lambda h: jnp.maximum(*jnp.split(h, 2, -1)),
    "after a reshape": lambda h: jnp.maximum((g := h.reshape(2, 2, 2, 4, 6))[:, :, 0], g[:, :, 1]),
    "with the next": lambda h: jnp.maximum(h, jnp.roll(h, 1, 1)),
    "zeros around": lambda h: jnp.maximum((p := jnp.pad(h, ((0, 0), (1, 1), (0, 0), (0, 0))))[:, :-1], p[:, 1:]),
    "read at places": lambda h: jnp.maximum(lax.dynamic_slice_in_dim(h, 0, 3, 1), lax.dynamic_slice_in_dim(h, 1, 3, 1)),
    "read at a list of places": lambda h: jnp.maximum(h[:, np.array([0, 2])], h[:, np.array([1, 3])]),
    "median": lambda h: jnp.median(h, 1),
    "largest at the border": lambda h: jnp.pad(h, ((0, 0), (1, 1), (2, 0), (0, 0)), mode="maximum"),
}


@pytest.mark.parametrize("form", NORMS | POOLS)
def test_a_norm_or_pool_keeps_its_derivative(form):
    def fn(x):
        return (NORMS | POOLS)[form](x @ KERNEL)

    rules = {line.rule for line in explain_rules(fn, X)}
    if form in REFUSED_BY_OLD:
        assert rules == {"unclassified"}
        return
    assert rules == {"own gradient"}
    incoming = np.ones(jax.eval_shape(fn, X).shape, np.float32)
    found = down(fn, "deconvnet", x=X, incoming=incoming)
    np.testing.assert_allclose(found["deconvnet"][1], found[OWN][1], rtol=1e-4, atol=1e-6)


SIX = np.arange(6)

NEITHER = {  # the maximum of two that may be an activation, and choices that are no norm's
    "leaky": lambda h: jnp.maximum(h[:, :2], 0.1 * h[:, :2]),
    "leaky, cut twice": lambda h: jnp.maximum(h[:, 1:3], (0.1 * h)[:, :3][:, 1:]),
    "leaky halves": lambda h: jnp.maximum(*jnp.split(jnp.concatenate([h, 0.1 * h], -1), 2, -1)),
    "leaky, every second": lambda h: jnp.maximum(
        (s := jnp.stack([h, 0.1 * h], -1).reshape(2, 4, 48))[..., ::2], s[..., 1::2]
    ),
    "absolute value": lambda h: jnp.maximum(h, -h),
    "with zeros": lambda h: jnp.maximum(*jnp.split(jnp.pad(h, ((0, 0), (0, 4), (0, 0), (0, 0))), 2, 1)),
    "with its mean": lambda h: jnp.maximum(h, h.mean(-1, keepdims=True)),
    "with its pool": lambda h: jnp.maximum(h, nn.max_pool(h, (3, 3), (1, 1), "SAME")),
    "leaky halves, read": lambda h: jnp.maximum((c := jnp.concatenate([h, 0.1 * h], -1))[..., SIX], c[..., SIX + 6]),
    "a rectifier by NaN": lambda h: jnp.nan_to_num(jnp.where(h > 0.5, h, jnp.nan)),
    "of a group above a threshold": lambda h: jnp.where(length(h) > 2, h, 0),
    "of a group, shrunk": lambda h: h * jnp.maximum(1 - 0.5 / length(h), 0),
    "a length between bounds": lambda h: jnp.clip(length(h), 0.1, 1.0) @ OTHER[:1],
    "leaky in a loop": lambda h: lax.scan(
        lambda c, s: (c + s * jax.nn.relu(s * h), None), jnp.zeros_like(h), np.float32([1, -0.1])
    )[0],
}


@pytest.mark.parametrize("form", NEITHER)
def test_what_may_be_an_activation_is_refused(form):
    assert "unclassified" in {line.rule for line in explain_rules(lambda x: NEITHER[form](x @ KERNEL), X)}


ZEROS = {
    "fori_loop": lambda: lax.fori_loop(0, 3, lambda i, c: 2 * c, jnp.zeros(6)),
    "while_loop": lambda: lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, 2 * s[1]), (0, jnp.zeros(6)))[1],
    "cond": lambda: lax.cond(True, lambda: 0.0, lambda: 1.0),
    "switch": lambda: lax.switch(1, [lambda: 1.0, lambda: 0.0, lambda: 2.0]),
    "scan": lambda: lax.scan(lambda c, x: (c + x, c), jnp.zeros(6), jnp.zeros((3, 6)))[0],
    "scan, stacked": lambda: lax.scan(lambda c, x: (c + x, c), 0.0, jnp.zeros(6))[1],
    "map": lambda: lax.map(lambda x: 0 * x, jnp.arange(6.0)),
    "a cond in a loop": lambda: lax.fori_loop(
        0, 3, lambda i, c: lax.cond(i > 1, lambda c: c, lambda c: 3 * c, c), jnp.zeros(6)
    ),
}


@pytest.mark.parametrize("form", ZEROS)
def test_a_zero_made_by_loops_and_branches_is_a_zero(form):
    rule = "unclassified" if form in REFUSED_BY_OLD else "rectifier"
    assert [line.rule for line in explain_rules(lambda x: jnp.maximum(x @ KERNEL, ZEROS[form]()), X)] == [rule]
    assert "unclassified" in {
        line.rule for line in explain_rules(lambda x: jnp.maximum(x @ KERNEL, 1 + ZEROS[form]()), X)
    }


def test_a_loop_of_constants_without_a_near_end_is_not_run():
    def fn(x):
        return jnp.maximum(x, lax.while_loop(lambda s: s > -1, lambda s: s + 0.0, 0.0))

    assert [line.rule for line in explain_rules(fn, X)] == ["unclassified"]


def test_zero_times_what_is_no_number_stays_none():
    found = down(
        lambda x: jnp.maximum(x, 0 * x), "deconvnet", x=np.float32([1, np.inf]), incoming=np.ones(2, np.float32)
    )
    np.testing.assert_array_equal(found["deconvnet"][0], [1, np.nan])
    np.testing.assert_array_equal(found["deconvnet"][1], [1, 1])


@pytest.mark.parametrize("mode", ["maximum", "mean", "minimum", "median", "edge", "reflect", "wrap", "linear_ramp"])
def test_padding_rows_and_columns_mixes_no_images(mode):
    widths = ((0, 0), (1, 1), (2, 0), (0, 0))

    def check(fn):
        check_alone(traced(fn, (X,), {})[0], retraced=lambda images: traced(fn, (images,), {})[0])

    check(lambda x: jnp.pad(x, widths, mode=mode))
    check(lambda x: jnp.pad(x, ((1, 0), *widths[1:]), mode=mode)[1:])
    if mode in ("maximum", "mean", "minimum", "median"):
        with pytest.raises(ValueError, match="images look at each other"):
            check(lambda x: jnp.pad(x, ((1, 0), *widths[1:]), mode=mode)[:-1])
