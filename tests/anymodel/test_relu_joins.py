"""Selections: pools keep their reading, activations written as a selection are named."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from zfjax.anymodel.rules import explain_rules, with_relu_rule

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 4, 4, 3)).astype(np.float32)
KERNEL, OTHER = RNG.normal(size=(2, 3, 3)).astype(np.float32)
BORDER = ((0, 0), (1, 1), (1, 1), (0, 0))
relu = jax.nn.relu


def pool(x):
    return nn.max_pool(x, (2, 2), (2, 2))


def rules_of(fn):
    return {line.rule for line in explain_rules(fn, X)} - {"rectifier"}


POOLS = {
    "concatenated maps": lambda x: pool(jnp.concatenate([relu(x @ KERNEL), relu(x @ OTHER)], -1)),
    "positive and negative part": lambda x: pool(relu(jnp.concatenate([x, -x], -1))),
    "zeros beside a rectifier's maps": lambda x: pool(jnp.pad(relu(x), BORDER)),
    "zeros beside relu6 and a sum": lambda x: pool(jnp.pad(jax.nn.relu6(x) + jnp.maximum(x @ KERNEL, 0), BORDER)),
    "zeros beside what may be negative": lambda x: nn.max_pool(jnp.pad(x @ KERNEL, BORDER), (3, 3), (2, 2)),
    "zeros beside a norm": lambda x: pool(jnp.pad(x @ KERNEL, BORDER) * KERNEL[None, None, :1] + OTHER[None, None, :1]),
    "zeros at one end": lambda x: nn.max_pool(jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0))), (3, 3), (2, 2)),
    "zeros at a side": lambda x: pool(jnp.concatenate([x, jnp.zeros((2, 4, 2, 3))], 2)),
    "zeros around a frame": lambda x: pool(
        jnp.moveaxis(jnp.pad(jnp.moveaxis(x, 3, 1), ((0, 0),) * 2 + ((1, 1),) * 2), 1, 3)
    ),
    "zeros cut away": lambda x: pool(jnp.pad(x, BORDER)[:, 1:5, 1:5]),
    "ones around": lambda x: pool(jnp.pad(x, BORDER, constant_values=1.0)),
    "zeros written around": lambda x: pool(jnp.zeros((2, 6, 6, 3)).at[:, 1:5, 1:5].set(x)),
    "minus infinity": lambda x: pool(jnp.pad(x, BORDER, constant_values=-jnp.inf)),
    "same": lambda x: nn.max_pool(x, (3, 3), (2, 2), "SAME"),
    "empty maps for a residual": lambda x: pool(
        jnp.concatenate([x, x @ KERNEL], -1) + jnp.pad(x, ((0, 0),) * 3 + ((0, 3),))
    ),
    "maxout": lambda x: jnp.stack([x @ KERNEL, x @ OTHER]).max(0),
    "maxout of neighbours": lambda x: x.reshape(2, 4, 4, 3, 1).max(-1),
    "columns swapped": lambda x: jnp.swapaxes(jnp.concatenate([x, -x], -1), 1, 3).max(2),
    "strongest values": lambda x: lax.top_k(x.reshape(2, -1), 5)[0],
    "read at the strongest": lambda x: jnp.take_along_axis(x, x.argmax(1, keepdims=True), 1),
    "in a scan": lambda x: lax.map(lambda image: image.max(0), jnp.concatenate([x, -x], 0)),
}


@pytest.mark.parametrize("form", POOLS)
def test_a_selection_among_places_or_maps_keeps_its_reading(form):
    assert rules_of(POOLS[form]) == {"own gradient"}


ZERO = np.zeros_like(X)

ACTIVATIONS = {
    "max after a turn": lambda x: jnp.moveaxis(jnp.stack([x, ZERO], -1), 4, 0).max(0),
    "max after a reshape": lambda x: jnp.stack([x, ZERO], -1).reshape(-1, 2).max(1),
    "max after padding": lambda x: jnp.pad(x[None], ((0, 1), *BORDER)).max(0),
    "max after writing": lambda x: jnp.zeros((2, *X.shape)).at[1].set(x).max(0),
    "max in a window": lambda x: lax.reduce_window(
        jnp.stack([x, ZERO], -1), -jnp.inf, lax.max, (1, 1, 1, 1, 2), (1,) * 5, "VALID"
    ),
    "sort": lambda x: jnp.sort(jnp.stack([x, 0.1 * x]), 0)[1],
    "top_k": lambda x: lax.top_k(jnp.stack([x, ZERO], -1), 1)[0],
    "cummax": lambda x: lax.cummax(jnp.stack([0.1 * x, x]), 0)[1],
    "read at the strongest": lambda x: jnp.take_along_axis(s := jnp.stack([ZERO, x]), s.argmax(0, keepdims=True), 0),
    "read by a mask": lambda x: jnp.take_along_axis(jnp.stack([ZERO, x]), (x > 0).astype(jnp.int32)[None], 0),
    "leaky": lambda x: jnp.stack([x, 0.1 * x]).max(0),
    "leaky halves of a concatenation": lambda x: jnp.stack(jnp.split(jnp.concatenate([x, 0.1 * x], -1), 2, -1)).max(0),
    "absolute value": lambda x: jnp.stack([x, -x]).max(0),
    "leaky, computed twice": lambda x: jnp.stack([x @ KERNEL, 0.2 * (x @ KERNEL)], -1).max(-1),
    "windows that all meet zeros": lambda x: pool(jnp.pad(x[:, :2, :2], BORDER)),
    "windows that all meet zeros between": lambda x: pool(
        lax.pad(x, 0.0, ((0, 0, 0), (0, 1, 1), (0, 1, 1), (0, 0, 0)))
    ),
    "windows as wide as the padded map": lambda x: nn.max_pool(jnp.pad(x, BORDER), (6, 6)),
    "windows that all meet zeros along one axis": lambda x: nn.max_pool(jnp.pad(x, BORDER), (6, 2)),
    "zeros written around": lambda x: pool(jnp.zeros((2, 4, 4, 3)).at[:, 1:3, 1:3].set(x[:, :2, :2])),
    "a pool of leaky maps": lambda x: nn.max_pool(jnp.pad(jnp.concatenate([x, 0.1 * x], 1), BORDER), (5, 1)),
}


@pytest.mark.parametrize("form", ACTIVATIONS)
def test_a_selection_from_one_value_and_what_is_made_of_it_is_unclassified(form):
    assert "unclassified" in rules_of(ACTIVATIONS[form])


LARGER = {  # of two
    "maximum": jnp.maximum,
    "fmax": jnp.fmax,
    "minimum of negatives": lambda a, b: -jnp.minimum(-a, -b),
    "clip": lambda a, b: jnp.clip(a, b, None),
    "where": lambda a, b: jnp.where(a > b, a, b),
    "where not": lambda a, b: jnp.where(~(b <= a), b, a),
    "select": lambda a, b: jnp.select([a > b], [a], b),
    "cond in vmap": lambda a, b: jax.vmap(lambda p, q: lax.cond(p > q, lambda: p, lambda: q))(a.ravel(), b.ravel()),
    "stack": lambda a, b: jnp.stack([a, b]).max(0),
    "concatenation": lambda a, b: jnp.concatenate([a[..., None], b[..., None]], -1).max(-1),
    "groups of maps": lambda a, b: jnp.stack([a, b], -1).reshape(2, 4, 4, 6).reshape(2, 4, 4, 3, 2).max(-1),
    "pool across maps": lambda a, b: nn.max_pool(jnp.stack([a, b], -1).reshape(2, 16, 6, 1), (1, 2), (1, 2)),
    "window": lambda a, b: lax.reduce_window(jnp.stack([a, b]), -jnp.inf, lax.max, (2, 1, 1, 1, 1), (1,) * 5, "VALID"),
    "reduce": lambda a, b: lax.reduce(jnp.stack([a, b]), -jnp.inf, lax.max, (0,)),
    "sort": lambda a, b: jnp.sort(jnp.stack([a, b]), 0)[1],
    "top_k": lambda a, b: lax.top_k(jnp.stack([a, b], -1), 1)[0],
    "read at the larger": lambda a, b: jnp.take_along_axis(s := jnp.stack([a, b]), s.argmax(0, keepdims=True), 0),
}


@pytest.mark.parametrize("form", LARGER)
def test_the_larger_of_two_has_one_verdict_however_it_is_written(form):
    """Maxout is a pool across maps of different weights; leaky, and a bound by its own mean, no rule covers."""
    larger = LARGER[form]
    slope = 0.1 * np.eye(3, dtype=np.float32)
    assert rules_of(lambda x: larger(x @ KERNEL, x @ OTHER)) == {"own gradient"}
    assert "unclassified" in rules_of(lambda x: larger(x @ KERNEL, 0.1 * (x @ KERNEL)))
    assert "unclassified" in rules_of(lambda x: larger(x, jnp.repeat(x.mean(-1, keepdims=True), 3, -1)))
    assert "unclassified" in rules_of(lambda x: larger(x, x @ slope))  # leaky by weights
    assert rules_of(lambda x: larger(x, x @ KERNEL)) == {"own gradient"}


def test_a_picture_through_maxout_goes_back_through_the_larger_map_alone():
    """By hand: what comes down at the larger of two maps goes on through its weights, the ReLU above by the rule."""
    x, top = jnp.asarray(X[:1]), jnp.ones((1, 4, 4, 3)).at[..., 1].set(-1.0)
    a, b = x @ KERNEL, x @ OTHER
    down = jax.nn.relu(top)
    expected = jnp.where(a > b, down, 0) @ KERNEL.T + jnp.where(a > b, 0, down) @ OTHER.T
    found = jax.vjp(with_relu_rule(lambda x: relu(jnp.maximum(x @ KERNEL, x @ OTHER)), "deconvnet"), x)[1](top)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
