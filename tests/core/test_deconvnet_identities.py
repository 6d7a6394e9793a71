"""What must hold of the deconvnet whatever its numbers: a VJP with another ReLU, homogeneous, local, shifting along."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_nets
from jax import lax

import zfjax
from zfjax.parallel import data_parallel, replicate, split

TABLES = {
    "mini": tiny_nets.without_norm(tiny_nets.MINI),
    "zfnet-113": tiny_nets.without_norm(tiny_nets.TABLES["zfnet-113"]),
}


@jax.custom_vjp
def deconv_relu(x):
    """Forward ReLU; backward ReLU of what comes in, whatever was active."""
    return jnp.maximum(x, 0)


deconv_relu.defvjp(lambda x: (jnp.maximum(x, 0), None), lambda _, signal: (jnp.maximum(signal, 0),))


def xla_pool(maps, pool):
    """XLA's own max-pool, the overhang filled with -inf; its gradient is select-and-scatter."""
    hang = [(0, -(side - pool.size) % pool.stride) for side in maps.shape[1:3]]
    window, strides = (1, pool.size, pool.size, 1), (1, pool.stride, pool.stride, 1)
    return lax.reduce_window(maps, -jnp.inf, lax.max, window, strides, [(0, 0), *hang, (0, 0)])


def switch_pool(maps, pool):
    return zfjax.max_pool(maps, size=pool.size, stride=pool.stride).values


def engine(params, images, layer, table, pooling):
    """Features of `layer` by a forward pass of this file's own, whose ReLUs have the deconvnet's backward rule."""
    maps = images * table.input_scale
    for row in table.layers:
        kernel, bias = params[row.name]["kernel"], params[row.name]["bias"]
        if isinstance(row, zfjax.Conv):
            maps = lax.conv_general_dilated(
                maps,
                kernel,
                (row.stride, row.stride),
                [row.padding] * 2,
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                feature_group_count=row.groups,
            )
            maps = deconv_relu(maps + bias[None, None, None])
            maps = pooling(maps, row.pool) if row.pool else maps
        else:
            maps = maps.reshape(len(maps), -1) @ kernel + bias[None]
            maps = deconv_relu(maps) if row.hidden else maps
        if row.name == layer:
            return maps
    raise ValueError(f"no layer {layer!r}")


def project(table, layer, top):
    return zfjax.project(tiny_nets.params(table), tiny_nets.run(table)[1], top, layer=layer, architecture=table)


def signal_for(table, layer):
    shape = tiny_nets.run(table)[1][layer].features.shape
    return np.random.default_rng(3).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ("table", "layer", "pooling"),
    [("mini", "fc8", switch_pool), ("zfnet-113", "conv5", switch_pool), ("mini", "fc8", xla_pool)],
)
def test_without_norm_the_projection_is_the_vjp_with_rectified_relu_gradient(table, layer, pooling):
    """Difference exactly 0 with the switches' pool; with XLA's the order of the sums may differ."""
    table = TABLES[table]
    top, images = signal_for(table, layer), tiny_nets.images(table.image_size)

    @jax.jit
    def vjp(top):
        forward = functools.partial(engine, tiny_nets.params(table), layer=layer, table=table, pooling=pooling)
        return jax.vjp(forward, images)[1](top)[0]

    pixels = project(table, layer, top)
    assert np.any(pixels)
    if pooling is switch_pool:
        np.testing.assert_array_equal(pixels, vjp(top))
    else:
        assert tiny_nets.relative_error(vjp(top), pixels) < 1e-6


@pytest.mark.parametrize("scale", [4.0, 0.3])
def test_projection_is_positively_homogeneous(scale):
    """project(c * top) = c * project(top) for c > 0: to the bit where c is a power of two."""
    top = signal_for(tiny_nets.MINI, "conv3")
    found, expected = (
        project(tiny_nets.MINI, "conv3", np.float32(scale) * top),
        scale * project(tiny_nets.MINI, "conv3", top),
    )
    assert tiny_nets.relative_error(found, expected) <= (0 if scale == 4 else 1e-6)


def test_projection_is_not_odd():
    """The ReLUs going down are there: project(-top) is not -project(top)."""
    top = signal_for(tiny_nets.MINI, "conv3")
    assert (
        tiny_nets.relative_error(project(tiny_nets.MINI, "conv3", -top), -project(tiny_nets.MINI, "conv3", top)) > 0.1
    )


def test_derivatives_of_the_projection_obey_eulers_rule():
    """Homogeneous of degree one: its derivative along `top` is itself, forward and backward."""
    top, weights = signal_for(tiny_nets.MINI, "conv2"), tiny_nets.images(34, seed=9)

    @jax.jit
    def both(top):
        def down(top):
            return project(tiny_nets.MINI, "conv2", top)

        return jax.jvp(down, (top,), (top,)), jax.grad(lambda top: (down(top) * weights).sum())(top)

    (pixels, slope), gradient = both(top)
    assert tiny_nets.relative_error(slope, pixels) < 1e-6
    np.testing.assert_allclose(np.vdot(gradient, top), np.vdot(pixels, weights), rtol=1e-4)


@pytest.mark.parametrize("layer", ["conv1", "conv2", "conv3"])
@pytest.mark.parametrize("switch", ["first", "last"])
def test_support_is_inside_the_receptive_field_and_reaches_its_edges(layer, switch):
    """Positive weights, every switch at the window's first (last) place: from the box's first (last) row on, no other.

    "mini" at 98 pixels, so that the middle unit sees no padding.
    """
    table = tiny_nets.MINI.with_sizes(image=98)
    sizes = table.sizes()
    trace = {
        row.name: zfjax.LayerTrace(None, np.full((1, *sizes[row.name].output), switch == "last" and 8, np.uint8))
        for row in table.layers[:3]
        if row.pool
    }
    trace["conv3"] = zfjax.LayerTrace(None)
    middle = sizes[layer].output[0] // 2
    top = np.zeros((1, *sizes[layer].output), np.float32)
    top[0, middle, middle - 1] = 1
    pixels = zfjax.project(tiny_nets.params(table, 0, True), trace, top, layer=layer, architecture=table)
    rows, columns = np.nonzero(np.asarray(pixels).any(axis=(0, 3)))
    first, left, last, right = zfjax.receptive_field(table, layer).box((middle, middle - 1))
    assert 0 <= min(first, left) and max(last, right) <= 98
    if switch == "first":
        assert (rows.min(), columns.min()) == (first, left) and rows.max() < last and columns.max() < right
    else:
        assert (rows.max(), columns.max()) == (last - 1, right - 1) and rows.min() >= first and columns.min() >= left


def test_without_pools_the_support_is_the_receptive_field():
    """Two positive convolutions: nothing but the box, and all of it."""
    conv = functools.partial(zfjax.Conv, features=2)
    layers = (conv("conv1", kernel=5, stride=3, padding=(2, 1)), conv("conv2", kernel=3, padding=(1, 1)))
    table = zfjax.Architecture("pair", (*layers, zfjax.Dense("fc8", 2, hidden=False)), image_size=20)
    for position in [(0, 0), (2, 3), (6, 6)]:
        top = np.zeros((1, *table.sizes()["conv2"].output), np.float32)
        top[0, *position, 0] = 1
        trace = {"conv1": zfjax.LayerTrace(None), "conv2": zfjax.LayerTrace(None)}
        pixels = zfjax.project(tiny_nets.params(table, 0, True), trace, top, layer="conv2", architecture=table)
        first, left, last, right = zfjax.receptive_field(table, "conv2").box(position)
        expected = np.zeros((20, 20), bool)
        expected[max(first, 0) : last, max(left, 0) : right] = True
        np.testing.assert_array_equal(np.asarray(pixels[0] > 0).all(axis=2), expected)


@pytest.mark.parametrize("layer", ["conv1", "conv2", "conv4"])
def test_projection_shifts_along_with_the_image(layer):
    """The image moved by the layer's stride: the unit's neighbour has the same value and the same picture, moved."""
    table = tiny_nets.TABLES["zfnet-224"]
    field = zfjax.receptive_field(table, layer)
    large = tiny_nets.images(224 + field.stride, batch=1, seed=4)
    here, there = large[:, :224, :224], large[:, field.stride :, field.stride :]
    place = -(field.offset // field.stride) + 1
    first, left, last, right = field.box((place, place))
    assert field.stride <= first and last <= 224
    pair = np.concatenate([here, there])
    _, trace = tiny_nets.forward(tiny_nets.params(table), pair, architecture=table)
    features = np.asarray(trace[layer].features)
    top = np.zeros_like(features)
    channel = features[0, place, place].argmax()
    for b in (0, 1):
        top[b, place - b, place - b, channel] = features[b, place - b, place - b, channel]
    pixels = np.asarray(zfjax.project(tiny_nets.params(table), trace, top, layer=layer, architecture=table))
    assert top[0].max() > 0
    np.testing.assert_allclose(top[0].max(), top[1].max(), rtol=1e-5)
    moved = np.zeros_like(pixels[0])
    moved[field.stride :, field.stride :] = pixels[1][: -field.stride, : -field.stride]
    assert tiny_nets.relative_error(moved, pixels[0]) < 1e-5


def test_projection_under_vmap_and_pmap_is_the_batch():
    table = tiny_nets.MINI
    params, images = tiny_nets.params(table), tiny_nets.images(34, batch=4)
    _, trace = tiny_nets.forward(params, images, architecture=table)
    seen = trace["conv1"]

    def see(params, seen):
        return zfjax.project(params, {"conv1": seen}, seen.features, layer="conv1", architecture=table)

    whole = see(params, seen)
    single = jax.jit(jax.vmap(lambda one: see(params, jax.tree.map(lambda x: x[None], one))[0]))(seen)

    def step(params, seen):
        return lax.all_gather(see(params, seen), "devices", tiled=True)

    parts = data_parallel(step)(replicate(params), split(seen))
    assert tiny_nets.relative_error(single, whole) < 1e-6
    assert tiny_nets.relative_error(parts, whole) < 1e-6
