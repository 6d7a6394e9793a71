"""Where a way down starts: from the activation's own value, which warns below 0, or from 1."""

import foreign_nets
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_nets

import zfjax
from zfjax import deconvnet, nets

WEIGHTS = jnp.array([[1.0, -1.0], [2.0, -3.0]])
IMAGES = jnp.array([[1.0, 1.0], [-4.0, 1.0]])  # the second unit is -4 and 1
BELOW = r"seed='value': 1 of 2 activations are below 0 \(number 0; the lowest -4\)"


def linear(images):
    return images @ WEIGHTS


def test_isolate_keeps_values_or_ones():
    features = jnp.array([[[[1.0, -2.0]], [[3.0, 4.0]]]])
    for seed, value in (("value", 4.0), ("one", 1.0)):
        kept = zfjax.isolate(features, zfjax.Unit(1), seed=seed)
        np.testing.assert_array_equal(kept, jnp.zeros((1, 2, 1, 2)).at[0, 1, 0, 1].set(value))


def test_a_way_down_from_below_zero_warns_and_one_starts_from_one():
    with pytest.warns(UserWarning, match=BELOW):
        found = zfjax.project_fn(linear, IMAGES, unit=1)
    np.testing.assert_array_equal(found, [[4, 12], [-1 * 1, -3 * 1]])
    found = zfjax.project_fn(linear, IMAGES, unit=1, seed="one")  # no warning
    np.testing.assert_array_equal(found, [[-1, -3], [-1, -3]])


def test_under_jit_there_is_nothing_to_warn_of():
    found = jax.jit(lambda images: zfjax.project_fn(linear, images, unit=1))(IMAGES)
    np.testing.assert_array_equal(found, [[4, 12], [-1, -3]])


@pytest.mark.parametrize("way", deconvnet.WAYS)
def test_a_tables_ways_down_start_from_one(way):
    """Both ways down are positively homogeneous: the value's picture is the value times the one's."""
    table = tiny_nets.DENSE
    params, images = tiny_nets.params(table), tiny_nets.images(4)
    logits, trace = zfjax.forward(params, images, architecture=table)
    channel = np.array([int(np.argmax(logits[0])), int(np.argmin(logits[1]))])
    values = logits[np.arange(2), channel]
    assert values[0] > 0 > values[1]
    down, unit = deconvnet.WAYS[way], zfjax.Unit(channel, layer="fc8")
    ones = down(params, trace, unit, architecture=table, seed="one")
    with pytest.warns(UserWarning, match="1 of 2 activations are below 0 .number 1;"):
        own = down(params, trace, unit, architecture=table)
    np.testing.assert_allclose(own[0], values[0] * ones[0], rtol=1e-4, atol=1e-3)
    places = {"image": np.arange(2), "channel": channel, "row": np.zeros(2, int), "column": np.zeros(2, int)}
    options = {"layer": "fc8", "architecture": table, "way": way, "batch_size": 2}
    found = deconvnet.project_places(params, images, places, seed="one", **options)
    np.testing.assert_allclose(found, ones, rtol=1e-4, atol=1e-4)
    with pytest.warns(UserWarning, match="1 of 2 activations are below 0 .number 1;"):
        deconvnet.project_places(params, images, places, **options)


def test_a_function_net_says_which_units_start_below_zero():
    net = nets.FunctionNet(lambda images: {"logits": images.reshape(-1, 2) @ WEIGHTS}, image_size=(1, 2), channels=1)
    images = np.asarray(IMAGES).reshape(2, 1, 2, 1)
    with pytest.warns(UserWarning, match=BELOW):
        net.project(images, zfjax.Unit(1), layer="logits")
    found = net.project(images, zfjax.Unit(1), layer="logits", seed="one")
    np.testing.assert_array_equal(found.reshape(2, 2), [[-1, -3], [-1, -3]])


def test_another_seed_or_one_of_an_array_is_refused():
    trace, params = tiny_nets.run(tiny_nets.MINI)[1], tiny_nets.params(tiny_nets.MINI)
    with pytest.raises(ValueError, match="seed='two': one of 'value', 'one' is needed"):
        zfjax.isolate(jnp.ones((1, 2)), channel=0, seed="two")
    with pytest.raises(ValueError, match="seed='one': top is an array and holds what it starts from"):
        zfjax.project(params, trace, trace["fc8"].features, layer="fc8", architecture=tiny_nets.MINI, seed="one")
    with pytest.raises(ValueError, match="seed='two'"):
        foreign_nets.SMALL.project(np.zeros((1, 20, 28, 3), np.float32), zfjax.Unit(0), layer="conv1", seed="two")


@pytest.mark.parametrize(
    "down",
    [
        lambda: zfjax.isolate(np.full((1, 2, 2, 3), -1, np.float32), 1),
        lambda: zfjax.project_fn(lambda images: images - 3, np.zeros((1, 4, 4, 3), np.float32), unit=zfjax.Unit(0)),
    ],
)
def test_the_warning_points_at_the_line_that_asked(down):
    with pytest.warns(UserWarning, match="1 of 1 activations are below 0") as caught:
        down()
    assert caught[0].filename == __file__ and caught[0].lineno == down.__code__.co_firstlineno
