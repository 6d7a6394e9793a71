"""Filters, pools and contrast norm: equal to the slow references, and their ways back are transposes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from jax import lax

import zfjax
from zfjax import ops
from zfjax.architecture import Pool
from zfjax.ops import contrast_norm, conv, conv_transpose

CONVS = {
    "fig3-conv1": (zfjax.Conv("c", 4, kernel=7, stride=2, padding=(1, 0)), (15, 15, 3)),
    "fig3-conv2": (zfjax.Conv("c", 4, kernel=5, stride=2), (11, 11, 2)),
    "rows-unread": (zfjax.Conv("c", 4, kernel=5, stride=4, padding=(2, 2)), (14, 14, 3)),
    "grouped": (zfjax.Conv("c", 6, kernel=3, padding=(1, 1), groups=2), (5, 7, 4)),
    "padded-beyond": (zfjax.Conv("c", 4, kernel=2, padding=(2, 0)), (9, 6, 2)),
    "grouped-strided": (zfjax.Conv("c", 6, kernel=3, stride=2, padding=(0, 2), groups=3), (8, 8, 3)),
}

# size, stride, map: Fig. 3's pool with and without overhang, rectangular, stride 1, gaps, window larger than stride
POOLS = [
    (3, 2, (7, 7)),
    (3, 2, (8, 6)),
    (2, 2, (5, 5)),
    (3, 1, (5, 4)),
    (2, 3, (7, 9)),
    (4, 3, (8, 10)),
    (1, 1, (2, 3)),
]


def draw(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def pool_jit(maps, size=3, stride=2):
    return jax.jit(lambda x: zfjax.max_pool(x, size=size, stride=stride))(maps)


def unpool_jit(values, switches, shape, size=3, stride=2):
    return jax.jit(lambda v, s: zfjax.unpool(v, s, shape=shape, size=size, stride=stride))(values, switches)


@pytest.mark.parametrize("case", CONVS)
def test_conv_is_the_plain_loop(case):
    layer, shape = CONVS[case]
    kernel, maps = draw((layer.kernel, layer.kernel, shape[2] // layer.groups, layer.features), 1), draw((2, *shape))
    np.testing.assert_allclose(conv(maps, kernel, layer), reference.conv(maps, kernel, layer), atol=2e-5)


@pytest.mark.parametrize("case", CONVS)
def test_conv_transpose_paints_filters(case):
    layer, shape = CONVS[case]
    kernel, maps = draw((layer.kernel, layer.kernel, shape[2] // layer.groups, layer.features), 1), draw((2, *shape))
    signal = draw(reference.conv(maps, kernel, layer).shape, 2)
    expected = reference.conv_transpose(signal, kernel, layer, shape)
    np.testing.assert_allclose(conv_transpose(signal, kernel, layer=layer, input_shape=shape), expected, atol=2e-5)


@pytest.mark.parametrize("case", CONVS)
def test_conv_transpose_is_the_adjoint(case):
    """<Wx, y> = <x, W'y>."""
    layer, shape = CONVS[case]
    kernel, maps = draw((layer.kernel, layer.kernel, shape[2] // layer.groups, layer.features), 1), draw((2, *shape))
    above = np.asarray(conv(maps, kernel, layer), np.float64)
    signal = draw(above.shape, 2)
    back = np.asarray(conv_transpose(signal, kernel, layer=layer, input_shape=shape), np.float64)
    np.testing.assert_allclose((above * signal).sum(), (maps * back).sum(), rtol=1e-5)


@pytest.mark.parametrize(("size", "stride", "shape"), POOLS)
def test_max_pool_is_the_plain_loop_with_ties(size, stride, shape):
    """Whole numbers, so that most windows hold several maxima: the first in row-major order is the switch."""
    maps = np.round(draw((2, *shape, 3)) * 1.5)
    values, switches = reference.max_pool(maps, size, stride)
    found = pool_jit(maps, size, stride)
    np.testing.assert_array_equal(found.values, values)
    np.testing.assert_array_equal(found.switches, switches)
    assert found.switches.dtype == np.uint8


@pytest.mark.parametrize(("size", "stride", "shape"), POOLS)
def test_unpool_puts_each_value_at_its_switch_and_adds_where_windows_share_a_maximum(size, stride, shape):
    maps = draw((2, *shape, 3))
    values, switches = reference.max_pool(maps, size, stride)
    signal = draw(values.shape, 1)
    expected = reference.unpool(signal, switches, shape, size, stride)
    found = unpool_jit(signal, switches.astype(np.uint8), shape, size, stride)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_a_maximum_shared_by_four_windows_receives_their_sum():
    maps = np.zeros((1, 5, 5, 1), np.float32)
    maps[0, 2, 2, 0] = 9
    _, switches = pool_jit(maps)
    np.testing.assert_array_equal(switches[0, :, :, 0], [[8, 6], [2, 0]])
    below = unpool_jit(np.array([[1, 20], [300, 4000]], np.float32).reshape(1, 2, 2, 1), switches, (5, 5))
    expected = np.zeros((5, 5))
    expected[2, 2] = 4321
    np.testing.assert_array_equal(below[0, :, :, 0], expected)


def test_unpool_is_the_adjoint_of_the_read_at_the_switches():
    """<read(x), y> = <x, unpool(y)>, and jvp is that read, overhang included."""
    maps, tangent, signal = draw((2, 8, 6, 3)), draw((2, 8, 6, 3), 1), draw((2, 4, 3, 3), 2)
    pooled = pool_jit(maps)
    _, read = jax.jvp(lambda x: pool_jit(x).values, (maps,), (tangent,))
    below = unpool_jit(signal, pooled.switches, (8, 6))
    np.testing.assert_allclose(np.vdot(read, signal), np.vdot(tangent, below), rtol=1e-5)
    dy, dx = np.divmod(np.asarray(pooled.switches), 3)
    b, i, j, c = np.indices(dy.shape)
    np.testing.assert_array_equal(read, tangent[b, 2 * i + dy, 2 * j + dx, c])


@pytest.mark.parametrize("shape", [(7, 7), (8, 6)])
def test_gradient_of_the_pool_is_xlas_where_nothing_ties(shape):
    maps, signal = draw((2, *shape, 3)), draw((2, shape[0] // 2, shape[1] // 2, 3), 1)
    hang = [(0, 0), *((0, (side - 3) % 2) for side in shape), (0, 0)]

    def xla_pool(x):
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), hang)

    ours = jax.jit(jax.grad(lambda x: (zfjax.max_pool(x).values * signal).sum()))(maps)
    theirs = jax.jit(jax.grad(lambda x: (xla_pool(x) * signal).sum()))(maps)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(("size", "stride", "shape"), [(3, 2, (7, 9)), (2, 2, (8, 6)), (2, 3, (8, 5)), (3, 2, (6, 8))])
def test_the_pool_of_a_tpu_is_the_same(size, stride, shape, dtype):
    """Values to the bit and the way back to the same places, with ties, NaN and infinities in plenty."""
    rng, pool = np.random.default_rng(0), Pool(size, stride)
    maps = rng.choice([-2, -1, 0, 1, 2, np.nan, np.inf, -np.inf], (2, *shape, 3), p=[0.17] * 5 + [0.05] * 3)
    maps = jnp.asarray(maps, dtype)
    values, switches = ops.pool_by_comparison(maps, pool)
    np.testing.assert_array_equal(ops.pool_by_reduction(maps, pool).astype("float32"), values.astype("float32"))
    powers = jnp.asarray(2.0 ** rng.integers(0, 4, values.shape), dtype)  # whose sums are exact
    (back,) = jax.linear_transpose(lambda tangent: ops.read_by_reduction(maps, tangent, pool), maps)(powers)
    (expected,) = jax.linear_transpose(lambda tangent: ops.read_by_comparison(tangent, switches, pool), maps)(powers)
    np.testing.assert_array_equal(back.astype("float32"), expected.astype("float32"))


def test_second_derivative_of_the_pool_follows_the_switches():
    """sum(pool(x)^3) has the Hessian-vector product unpool(6 * pool * read(v))."""
    maps, direction = draw((1, 6, 6, 2)), draw((1, 6, 6, 2), 1)
    cubed = jax.grad(lambda x: (zfjax.max_pool(x).values ** 3).sum())
    _, product = jax.jit(lambda x, v: jax.jvp(cubed, (x,), (v,)))(maps, direction)
    values, switches = reference.max_pool(maps, 3, 2)
    read = np.zeros_like(values)
    for b, i, j, c in np.ndindex(read.shape):
        dy, dx = divmod(switches[b, i, j, c], 3)
        read[b, i, j, c] = direction[b, 2 * i + dy, 2 * j + dx, c]
    np.testing.assert_allclose(product, reference.unpool(6 * values * read, switches, (6, 6), 3, 2), atol=1e-4)


def test_vmap_of_pool_and_unpool_is_the_loop():
    stack = draw((3, 2, 6, 6, 2))
    there = jax.jit(jax.vmap(zfjax.max_pool))(stack)
    back = jax.jit(jax.vmap(lambda v, s: zfjax.unpool(v, s, shape=(6, 6))))(*there)
    for k, maps in enumerate(stack):
        one = pool_jit(maps)
        np.testing.assert_array_equal(there.values[k], one.values)
        np.testing.assert_array_equal(there.switches[k], one.switches)
        np.testing.assert_array_equal(back[k], unpool_jit(*one, (6, 6)))


@pytest.mark.parametrize("place", list(np.ndindex(4, 4)))
def test_a_nan_anywhere_in_a_window_comes_out_as_nan(place):
    """4x4 map, four windows, three of them hanging over: every window that holds the place, and no other."""
    maps = np.round(draw((1, 4, 4, 1)) * 3)
    maps[0, *place, 0] = np.nan
    expected, switches = reference.max_pool(maps, 3, 2)
    assert np.isnan(expected).any()
    found = pool_jit(maps)
    np.testing.assert_array_equal(found.values, expected)
    np.testing.assert_array_equal(found.switches, switches)


def test_what_hangs_over_the_edge_never_wins():
    """Not even over -inf, whose windows keep their first place."""
    found = pool_jit(np.full((1, 4, 4, 1), -np.inf, np.float32))
    assert np.all(np.isneginf(found.values)) and not np.any(found.switches)
    values, switches = pool_jit(-1 - np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1))
    np.testing.assert_array_equal(values[0, :, :, 0], [[-1, -3], [-9, -11]])
    assert not np.any(switches)


@pytest.mark.parametrize(("size", "stride", "least"), [(3, 2, 2), (3, 1, 3), (4, 2, 3), (2, 3, 1)])
def test_the_smallest_map_of_a_pool_is_size_minus_stride_plus_1(size, stride, least):
    """One window, hanging over; a map smaller by one has none."""
    assert zfjax.Pool(size, stride).smallest == least
    maps = draw((1, least, least, 2))
    np.testing.assert_array_equal(pool_jit(maps, size, stride).values, maps.max((1, 2), keepdims=True))
    with pytest.raises(ValueError, match="maps of shape"):
        zfjax.max_pool(maps[:, 1:], size=size, stride=stride)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_pool_keeps_the_type_of_its_input(dtype):
    found = pool_jit(draw((1, 5, 5, 2)).astype(dtype))
    assert found.values.dtype == dtype
    assert unpool_jit(*found, (5, 5)).dtype == dtype


@pytest.mark.parametrize("channels", [1, 3, 9])
@pytest.mark.parametrize("norm", [zfjax.ContrastNorm(), zfjax.ContrastNorm(num_maps=3, k=1.0, alpha=0.5, beta=0.6)])
def test_contrast_norm_is_the_printed_formula(norm, channels):
    maps = draw((2, 3, 4, channels)) * 100
    found = jax.jit(contrast_norm, static_argnums=1)(maps, norm)
    np.testing.assert_allclose(found, reference.contrast_norm(maps, norm), rtol=1e-5)


def test_contrast_norm_does_not_divide_its_sum():
    """One map of value 100: 100 / (2 + 1e-4 * 100^2)^0.75 = 100 / 3^0.75; dividing by n = 5 would give 2.2^0.75."""
    found = contrast_norm(np.full((1, 1, 1, 1), 100, np.float32), zfjax.ContrastNorm())
    np.testing.assert_allclose(found, np.full((1, 1, 1, 1), 100 / 3**0.75), rtol=1e-6)
