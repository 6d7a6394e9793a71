"""The forward pass: equal to the slow reference, the same under every transformation, and what stands around it."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import tiny_nets

import zfjax
from zfjax.parallel import data_parallel, replicate, split

SMALL = tiny_nets.MINI.without("conv2", "conv3", "fc7")  # where compiling counts: one layer of each kind


def mini_logits(params, images):
    return zfjax.forward(params, images, architecture=tiny_nets.MINI)[0]


@pytest.mark.parametrize("table", tiny_nets.TABLES)
def test_forward_is_the_reference(table):
    """Features of every layer to float32 rounding, switches exactly."""
    table = tiny_nets.TABLES[table]
    logits, trace = tiny_nets.forward(tiny_nets.params(table), tiny_nets.images(table.image_size), architecture=table)
    for name, seen in tiny_nets.reference_run(table).items():
        assert tiny_nets.relative_error(trace[name].features, seen["features"]) < 1e-5, name
        if seen["switches"] is None:
            assert trace[name].switches is None
        else:
            np.testing.assert_array_equal(trace[name].switches, seen["switches"], name)
    np.testing.assert_array_equal(logits, trace["fc8"].features)


def test_the_copied_summary_with_pool_and_norm_after_conv3_runs():
    layers = list(tiny_nets.TABLES["zfnet-112"].layers)
    layers[2] = dataclasses.replace(layers[2], after=(zfjax.Pool(), zfjax.ContrastNorm()))
    summary = dataclasses.replace(tiny_nets.TABLES["zfnet-112"], layers=tuple(layers))
    params, images = tiny_nets.params(summary), tiny_nets.images(112)
    _, trace = tiny_nets.forward(params, images, architecture=summary)
    seen = reference.forward(params, images, summary)
    assert trace["conv3"].switches.shape == trace["conv3"].features.shape == (2, 3, 3, 6)
    for name in summary.layer_names:
        assert tiny_nets.relative_error(trace[name].features, seen[name]["features"]) < 1e-5, name


def test_eager_is_jit():
    eager = zfjax.forward(tiny_nets.params(SMALL), tiny_nets.images(34), architecture=SMALL)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-4), eager, tiny_nets.run(SMALL))


def test_input_scale_multiplies_the_images_inside():
    images, unscaled = tiny_nets.images(34), dataclasses.replace(tiny_nets.MINI, input_scale=1.0)
    logits, _ = tiny_nets.forward(tiny_nets.params(tiny_nets.MINI), images * 0.5, architecture=unscaled)
    np.testing.assert_array_equal(tiny_nets.run(tiny_nets.MINI)[0], logits)


def test_vmap_over_images_and_over_parameters_is_the_loop():
    images = tiny_nets.images(34)
    stack = jax.tree.map(
        lambda *x: np.stack(x), tiny_nets.params(tiny_nets.MINI, 0), tiny_nets.params(tiny_nets.MINI, 1)
    )
    both = jax.jit(jax.vmap(mini_logits, (0, None)))(stack, images)
    single = jax.jit(jax.vmap(lambda image: mini_logits(tiny_nets.params(tiny_nets.MINI), image[None])[0]))(images)
    one = tiny_nets.run(tiny_nets.MINI)[0]
    other, _ = tiny_nets.forward(tiny_nets.params(tiny_nets.MINI, 1), images, architecture=tiny_nets.MINI)
    assert tiny_nets.relative_error(both, np.stack([one, other])) < 1e-5
    assert tiny_nets.relative_error(single, one) < 1e-5


def test_derivatives_forward_and_backward_are_the_slope_of_the_reference():
    """jvp = <grad, direction> = a finite difference of the float64 reference."""
    params, images = tiny_nets.params(tiny_nets.MINI), tiny_nets.images(34)
    rng = np.random.default_rng(5)
    direction = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32) * 0.1, params)

    def total(params):
        return mini_logits(params, images).sum()

    gradient, (_, slope) = jax.jit(lambda p, d: (jax.grad(total)(p), jax.jvp(total, (p,), (d,))))(params, direction)
    products = jax.tree.map(lambda g, d: np.vdot(g, d), gradient, direction)
    np.testing.assert_allclose(sum(jax.tree.leaves(products)), slope, rtol=1e-4)
    ends = [jax.tree.map(lambda p, d, s=s: p + s * d.astype(np.float64), params, direction) for s in (-1e-6, 1e-6)]
    low, high = (reference.forward(end, images, tiny_nets.MINI)["fc8"]["features"].sum() for end in ends)
    np.testing.assert_allclose(slope, (high - low) / 2e-6, rtol=1e-4)


def test_pmap_through_the_pools_gives_the_gradient_of_the_whole_batch():
    params, images = tiny_nets.params(SMALL), tiny_nets.images(34, batch=8)

    def gradient(params, images):
        return jax.grad(lambda p: (zfjax.forward(p, images, architecture=SMALL)[0] ** 2).sum())(params)

    def step(params, images):
        return jax.lax.psum(gradient(params, images), "devices")

    parts = data_parallel(step)(replicate(params), split(images))
    whole = jax.jit(gradient)(params, images)
    jax.tree.map(lambda x, y: np.testing.assert_array_less(tiny_nets.relative_error(x, y), 1e-5), parts, whole)


def test_compute_dtype_casts_parameters_and_images_at_the_top():
    params, images = tiny_nets.params(SMALL), tiny_nets.images(34)
    logits, trace = tiny_nets.forward(params, images, architecture=SMALL, compute_dtype=jnp.bfloat16)
    cast = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), (params, images))
    expected, _ = tiny_nets.forward(*cast, architecture=SMALL)
    assert {seen.features.dtype for seen in trace.values()} == {jnp.dtype(jnp.bfloat16)}
    np.testing.assert_array_equal(logits, expected)
    assert 0 < tiny_nets.relative_error(logits, tiny_nets.run(SMALL)[0]) < 0.1
    assert tiny_nets.run(SMALL)[0].dtype == jnp.float32


def test_init_is_normal_with_std_001_and_zero_biases():
    net = zfjax.ConvNet(SMALL.without("fc6").with_sizes(conv1=64, fc8=20))
    params = jax.jit(net.init)(jax.random.key(0), tiny_nets.images(34))["params"]
    assert params.keys() == net.architecture.sizes().keys()
    for name, size in net.architecture.sizes().items():
        kernel = np.asarray(params[name]["kernel"])
        assert kernel.shape == size.kernel
        assert abs(kernel.std() / 0.01 - 1) < 0.05 and abs(kernel.mean()) < 0.0005
        assert 2.5 < np.abs(kernel).max() / 0.01 < 6
        np.testing.assert_array_equal(params[name]["bias"], np.zeros(size.kernel[-1], np.float32))


def test_module_is_the_pure_function():
    params, images = tiny_nets.params(tiny_nets.MINI), tiny_nets.images(34)
    net = zfjax.ConvNet(tiny_nets.MINI)
    found = jax.jit(net.apply)({"params": params}, images)
    jax.tree.map(np.testing.assert_array_equal, found, tiny_nets.run(tiny_nets.MINI))


def test_module_in_training_is_the_pure_function_with_the_modules_dropout_key():
    params, images = tiny_nets.params(tiny_nets.DENSE), tiny_nets.images(4)
    net, rngs = zfjax.ConvNet(tiny_nets.DENSE), {"dropout": jax.random.key(3)}
    key = net.apply({}, method=lambda module: module.make_rng("dropout"), rngs=rngs)
    train, _ = jax.jit(partial(net.apply, train=True))({"params": params}, images, rngs=rngs)
    expected, _ = tiny_nets.forward(params, images, architecture=tiny_nets.DENSE, dropout_key=key)
    np.testing.assert_array_equal(train, expected)
    assert np.any(train != tiny_nets.run(tiny_nets.DENSE)[0])
