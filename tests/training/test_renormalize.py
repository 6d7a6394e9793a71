"""Renormalisation: filters above the radius are scaled back to it, and nothing else in the tree changes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_nets

import zfjax
from zfjax.training import filter_rms


def kernel(scale):
    """[3, 3, 2, len(scale)] whose filters have these RMS values."""
    drawn = np.random.default_rng(0).normal(size=(3, 3, 2, len(scale)))
    rms = np.sqrt((drawn**2).mean((0, 1, 2)))
    return (drawn / np.where(rms > 0, rms, 1) * np.asarray(scale)).astype(np.float32)


@pytest.mark.parametrize("radius", [0.1, 0.03])
def test_filters_above_the_radius_land_on_it_and_keep_their_direction(radius):
    before = kernel([0.01, 0.5, 0.02, 3.0])
    after = np.asarray(zfjax.renormalize({"conv1": {"kernel": before}}, radius=radius)["conv1"]["kernel"])
    np.testing.assert_array_equal(after[..., [0, 2]], before[..., [0, 2]])
    rms = np.sqrt((after.astype(np.float64) ** 2).mean((0, 1, 2)))
    np.testing.assert_allclose(rms[[1, 3]], radius, rtol=1e-6)
    np.testing.assert_allclose(after[..., 3], before[..., 3] * radius / 3.0, rtol=1e-5)


def test_the_default_radius_is_the_papers():
    after = zfjax.renormalize({"conv1": {"kernel": kernel([1.0])}})["conv1"]["kernel"]
    np.testing.assert_allclose(filter_rms(after), np.array([0.1]), rtol=1e-6)


def test_the_rms_is_that_of_one_output_map_over_height_width_and_inputs():
    found = np.arange(16, dtype=np.float32).reshape(1, 2, 2, 4)
    expected = [np.sqrt(np.mean([found[0, y, i, o] ** 2 for y in (0, 1) for i in (0, 1)])) for o in range(4)]
    np.testing.assert_allclose(filter_rms(found), expected, rtol=1e-6)


def test_a_filter_of_zeros_stays_zero():
    after = zfjax.renormalize({"conv1": {"kernel": kernel([0.0, 9.0])}})["conv1"]["kernel"]
    assert not np.any(after[..., 0]) and np.all(np.isfinite(after))


def test_biases_and_dense_layers_are_not_touched():
    params = jax.tree.map(lambda x: 100 * x, tiny_nets.params(tiny_nets.MINI))
    after = zfjax.renormalize(params)
    for name in params:
        np.testing.assert_array_equal(after[name]["bias"], params[name]["bias"])
        assert np.array_equal(after[name]["kernel"], params[name]["kernel"]) == name.startswith("fc")


def test_twice_is_once():
    once = zfjax.renormalize({"conv1": {"kernel": kernel([0.05, 0.2, 7.0])}})
    twice = zfjax.renormalize(once)
    np.testing.assert_allclose(twice["conv1"]["kernel"], once["conv1"]["kernel"], rtol=3e-7)


def test_under_jit_and_in_any_tree():
    tree = {"a": [kernel([0.5, 0.01]), jnp.full((4, 4), 9.0)], "b": (kernel([2.0]),)}
    close = functools.partial(np.testing.assert_allclose, rtol=3e-7)
    jax.tree.map(close, jax.jit(zfjax.renormalize)(tree), zfjax.renormalize(tree))
    assert jax.jit(zfjax.renormalize)({"k": kernel([1.0]).astype(jnp.bfloat16)})["k"].dtype == jnp.bfloat16
