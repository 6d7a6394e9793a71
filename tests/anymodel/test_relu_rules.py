"""with_relu_rule: the same results, another way back, under every transformation; flat memory."""

import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from ways_down import OWN, compiled_operations, down

from zfjax.anymodel.interpreter import compiled
from zfjax.anymodel.rules import with_relu_rule

RNG = np.random.default_rng(0)
X, INCOMING = RNG.normal(size=(2, 3, 5)).astype(np.float32)
KERNELS = RNG.normal(size=(2, 5, 5)).astype(np.float32)


def net(kernels, x):
    """Two layers, the second one in jit, with a dictionary of results."""
    hidden = jnp.maximum(x @ kernels[0], 0)
    return {"hidden": hidden, "out": (jax.jit(jax.nn.relu)(hidden @ kernels[1]), None)}


def net_down(incoming):
    """What the deconvnet hands down at x for what comes in at `out`, in numpy."""
    return np.maximum(np.maximum(incoming, 0) @ KERNELS[1].T, 0) @ KERNELS[0].T


def of_out(kernels=KERNELS, rule="deconvnet"):
    return lambda x: with_relu_rule(lambda x: net(kernels, x), rule)(x)["out"][0]


def test_results_keep_their_tree_types_and_bits():
    def fn(x, scale, *, table):
        return {
            "sum": x * scale + table["a"],
            "count": jnp.arange(3),
            "rest": [jax.nn.relu(x).astype(jnp.bfloat16), None],
        }

    arguments, table = (jnp.asarray(X), 2.0), {"a": jnp.ones(5)[None], "b": np.int32(3)}
    found = with_relu_rule(fn, "deconvnet")(*arguments, table=table)
    expected = fn(*arguments, table=table)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for value, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert value.dtype == other.dtype
        np.testing.assert_array_equal(value, other)


@pytest.mark.parametrize("wrap", [lambda fn: fn, jax.jit, lambda fn: jax.jit(jax.jit(fn))])
def test_the_way_back_is_the_deconvnet_with_and_without_jit(wrap):
    results, back = jax.vjp(wrap(of_out()), X)
    np.testing.assert_array_equal(results, net(KERNELS, jnp.asarray(X))["out"][0])
    np.testing.assert_allclose(back(INCOMING)[0], net_down(INCOMING), rtol=1e-5)


def test_it_works_under_vmap_and_grad():
    def score(x, incoming):
        return (of_out()(x) * incoming).sum()

    found = jax.jit(jax.vmap(jax.grad(score)))(X, INCOMING)
    np.testing.assert_allclose(found, net_down(INCOMING), rtol=1e-5)


def test_it_works_around_vmap_scan_and_grad():
    """A function that itself maps, loops and differentiates (the derivative of relu(x)^2 / 2 is relu(x))."""

    def fn(x):
        slopes = jax.vmap(jax.grad(lambda row: (jax.nn.relu(row) ** 2).sum() / 2))(x)
        return lax.scan(lambda carry, row: (carry + row, None), jnp.zeros(5), slopes)[0]

    found = down(fn, "deconvnet", x=X, incoming=INCOMING[0], on_unknown="keep")
    np.testing.assert_array_equal(found["deconvnet"][0], found[OWN][0])


def test_parameters_that_are_closed_over_may_be_differentiated():
    """Their gradient is what the rule lets through, here by hand for the last layer."""

    def score(kernels):
        return (of_out(kernels)(X) * INCOMING).sum()

    found = jax.jit(jax.grad(score))(KERNELS)
    hidden = np.maximum(X @ KERNELS[0], 0)
    np.testing.assert_allclose(found[1], hidden.T @ np.maximum(INCOMING, 0), rtol=1e-5)


def test_the_rule_may_be_differentiated():
    """d/dg of relu(g) w, the derivative of the way back by what comes in."""

    def pixels(incoming):
        return jax.vjp(with_relu_rule(jax.nn.relu, "deconvnet"), X)[1](incoming)[0]

    weights = np.arange(15, dtype=np.float32).reshape(3, 5)
    slope = jax.jit(jax.grad(lambda incoming: (pixels(incoming) * weights).sum()))(INCOMING)
    np.testing.assert_array_equal(slope, weights * (INCOMING > 0))


def test_a_rule_of_your_own_sees_the_incoming_signal_and_the_input():
    found = down(jax.jit(jax.nn.relu), lambda incoming, x: incoming * 2 + x, x=X, incoming=INCOMING)
    (rule,) = [rule for rule in found if rule != OWN]
    np.testing.assert_array_equal(found[rule][1], INCOMING * 2 + X)


def test_it_is_traced_once_for_each_shape():
    traced = []

    def fn(x):
        traced.append(x.shape)
        return jax.nn.relu(x)

    ruled = jax.jit(with_relu_rule(fn, "deconvnet"))
    for rows in (2, 2, 3, 3, 2):
        ruled(np.ones((rows, 4), np.float32))
    assert traced == [(2, 4), (3, 4)]


@pytest.mark.parametrize("rule", ["deconvnet", "guided", "gradient"])
def test_the_compiled_program_going_up_is_the_same_with_a_rule(rule):
    """The same operations, and results that are the same to the bit."""

    def fn(x):
        x = jax.checkpoint(jax.nn.relu)(x @ KERNELS[0])
        return lax.scan(lambda carry, row: (jax.nn.relu6(carry + row), carry), jnp.ones(5), x)

    ruled = with_relu_rule(fn, rule)
    counts = compiled_operations(fn, X)
    assert compiled_operations(ruled, X) == counts and counts["f32[3,5]{1,0}", "maximum"] == 1
    jax.tree.map(np.testing.assert_array_equal, jax.jit(ruled)(X), jax.jit(fn)(X))


def test_gradient_needs_no_rule_for_any_operation():
    found = down(lambda x: jax.nn.gelu(jax.nn.relu(x)), "gradient", x=X, incoming=INCOMING)
    np.testing.assert_array_equal(found["gradient"][1], found[OWN][1])


def test_outside_jit_a_second_call_compiles_nothing():
    events = []

    def listen(event, duration, **_):
        events.extend([event] if event.endswith("backend_compile_duration") else [])

    @jax.jit
    def step(carry, row):
        return jax.nn.relu(carry + row), carry

    def fn(x):
        return lax.scan(step, x[0], x)[0]

    ruled = with_relu_rule(fn, "deconvnet")
    ruled(X)
    jax.monitoring.register_event_duration_secs_listener(listen)  # for good: below JAX 0.8.1 none is forgotten alone
    ruled(X)
    assert not events
    ruled(X[:2])
    assert events


def test_outside_jit_no_compiled_call_outlives_its_program():
    """A function that makes a new jit at every call leaves nothing behind; a rule that is new each time, a few."""
    gc.collect()
    before = len(compiled.calls)
    for _ in range(3):
        with_relu_rule(lambda x: jax.jit(lambda y: jnp.maximum(y, 0))(x), "deconvnet")(X)
    gc.collect()
    assert len(compiled.calls) == before
    kept = jax.jit(lambda y: jnp.maximum(y, 0) * 2)
    for _ in range(12):
        with_relu_rule(kept, lambda incoming, x: incoming)(X)
    assert len(compiled.calls) == before + 1 and max(map(len, compiled.calls.values())) <= 8


def test_side_effects_happen_once():
    seen = []

    def fn(x):
        jax.debug.callback(lambda total: seen.append(float(total)), x.sum())
        return jax.nn.relu(x)

    jax.block_until_ready(with_relu_rule(fn, "deconvnet")(X))
    jax.effects_barrier()
    assert len(seen) == 1


def test_a_model_that_has_changed_in_place_is_seen_as_it_is():
    weights = [np.float32(2)]
    ruled = with_relu_rule(lambda x: jax.nn.relu(weights[0] * x), "deconvnet")
    before = ruled(X)
    weights[0] = np.float32(3)
    np.testing.assert_array_equal(ruled(X), np.maximum(3 * X, 0))
    assert not np.array_equal(before, ruled(X))
    np.testing.assert_array_equal(jax.vjp(ruled, X)[1](INCOMING)[0], 3 * np.maximum(INCOMING, 0))


@pytest.mark.parametrize("compiled", [True, False])
def test_memory_stays_flat_over_many_images(compiled):
    """2,000 tiny images through one projection: no array stays behind, and nothing is traced again."""
    traced = []

    def fn(x):
        traced.append(1)
        return net(KERNELS, x)["out"][0]

    def pixels(x):
        features, back = jax.vjp(with_relu_rule(fn, "deconvnet"), x)
        return back(features)[0]

    step, rows = (jax.jit(pixels), 1) if compiled else (pixels, 100)
    images = np.random.default_rng(1).normal(size=(2000 // rows, rows, 5)).astype(np.float32)
    counts = []
    for number, image in enumerate(images):
        step(image).block_until_ready()
        if number in (5, len(images) - 1):
            gc.collect()
            counts.append((len(jax.live_arrays()), sum(array.nbytes for array in jax.live_arrays())))
    assert counts[0] == counts[1]
    assert len(traced) == (1 if compiled else len(images))
