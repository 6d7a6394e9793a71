"""The ascent of waves: pictures that are sums of waves, in the set's colours, moved; higher than where it began."""

import dataclasses
import re

import foreign_nets
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_run import make_net

import zfjax
from zfjax import nets
from zfjax.analyses import maximization, robust_ascent
from zfjax.analyses.robust_ascent import Options, colours_of, picture_of
from zfjax.data import ArraySource

FEW = Options(steps=6, rate=0.1, jitter=1.0)
KEY = jax.random.key(0)


def climb(net, units, layer, **changes):
    return robust_ascent.climb(net, units, layer=layer, key=KEY, **{"options": FEW, **changes})


@pytest.mark.parametrize("size", [(6, 8), (5, 7)])
def test_a_picture_is_the_sum_of_its_waves_each_weighed_by_one_over_its_frequency(size):
    height, width = size
    waves = np.random.default_rng(0).normal(size=(1, height, width // 2 + 1, 1, 2)).astype(np.float32)
    found = np.asarray(picture_of(jnp.asarray(waves), size, np.ones((1, 1), np.float32)))[0, ..., 0]
    lowest = 1 / max(size)
    weighed = np.zeros((height, width // 2 + 1), complex)
    for y in range(height):
        for x in range(width // 2 + 1):
            frequency = np.hypot(min(y, height - y) / height, x / width)
            weighed[y, x] = (waves[0, y, x, 0, 0] + 1j * waves[0, y, x, 0, 1]) / max(frequency, lowest)
    np.testing.assert_allclose(found, np.fft.irfft2(weighed, s=size) * np.sqrt(height * width), rtol=1e-4, atol=1e-4)


def test_colours_vary_along_the_axes_of_the_set():
    """Pictures along one colour leave one axis; waves on it stay on that colour."""
    colour = np.array([1.0, -0.5, 0.25])
    grey = np.random.default_rng(0).normal(0, 40, (8, 6, 6, 1))
    source = ArraySource((128 + grey * colour).round().clip(0, 255).astype(np.uint8), np.zeros(8, int))
    axes = colours_of(source)
    lengths = np.linalg.norm(axes, axis=0)
    assert sorted(lengths)[-1] == pytest.approx(1, rel=1e-5) and sorted(lengths)[-2] < 0.02
    along = axes[:, lengths.argmax()]
    np.testing.assert_allclose(along / along[0], colour, atol=0.02)
    still = ArraySource(np.full((3, 4, 4, 3), 9, np.uint8), np.zeros(3, int))
    np.testing.assert_array_equal(colours_of(still), np.eye(3))


def test_a_move_scales_turns_and_shifts_and_goes_on_like_a_tile():
    image = np.random.default_rng(0).normal(size=(5, 7, 2)).astype(np.float32)

    def draw_moved(draw, **moves):
        own = robust_ascent.Moves(**{"jitter": 0.0, "turn": 0.0, "scaling": 0.0, **moves})
        return np.asarray(robust_ascent.moved(own, jnp.asarray(image), jax.random.key(draw)))

    np.testing.assert_allclose(draw_moved(1), image, atol=1e-6)
    draws = np.asarray(jax.random.uniform(jax.random.key(1), (4,), minval=-1, maxval=1))
    shifted = draw_moved(1, jitter=2 / draws[2])  # by two rows, and by some columns
    columns = 2 / draws[2] * draws[3]
    whole, part = int(np.floor(columns)), columns - np.floor(columns)
    by = lambda step: np.roll(image, (-2, -step), (0, 1))  # noqa: E731
    np.testing.assert_allclose(shifted, (1 - part) * by(whole) + part * by(whole + 1), atol=1e-4)
    half_turn = draw_moved(1, turn=np.pi / draws[0])
    np.testing.assert_allclose(half_turn, image[::-1, ::-1], atol=1e-4)
    twice = draw_moved(1, scaling=1 / draws[1])  # twice as large: the middle stays, its neighbour lies half as far away
    np.testing.assert_allclose(twice[2, 3], image[2, 3], atol=1e-4)
    np.testing.assert_allclose(twice[2, 5], image[2, 4], atol=1e-4)


@pytest.mark.slow
def test_each_unit_climbs_from_several_starts_whatever_climbs_beside_it():
    net = make_net()
    climbed = climb(net, [4, 0, 5], "conv1", starts=2, at_once=2)
    assert climbed.maps.tolist() == [4, 4, 0, 0, 5, 5] and climbed.paths.shape == (6, 7)
    assert (climbed.reached > climbed.started).all()
    assert np.abs(climbed.images[0] - climbed.images[1]).max() > 5
    alone = climb(net, zfjax.Unit(np.array([0]), layer="conv1"), None, starts=2, at_once=2)
    np.testing.assert_allclose(alone.images, climbed.images[2:4], atol=0.02)
    pictures = climbed.images + np.float32(120)
    assert pictures.min() >= -0.01 and pictures.max() <= 255.01


@pytest.mark.slow
def test_it_ends_higher_than_it_began_and_knows_the_end():
    net, options = make_net(), Options(steps=30, rate=0.1, jitter=0, turn=0, scaling=0)
    climbed = climb(net, [0, 1], "fc7", options=options, starts=1)
    assert (climbed.paths[:, -1] > climbed.paths[:, 0]).all() and (np.diff(climbed.paths) > 0).mean() > 0.9
    logits = np.asarray(net.features(["fc7"])(climbed.images)["fc7"])
    np.testing.assert_allclose(climbed.paths[:, -1], logits[[0, 1], [0, 1]], rtol=1e-3)


def test_a_silent_unit_of_any_function_is_woken():
    """It is 0 on the almost grey pictures of the start, where its own gradient is 0."""

    def fn(images):
        hidden = jax.nn.relu(images[..., :1] - images[..., 1:2] - 0.2)
        return {"red": hidden, "logits": hidden.mean(axis=(1, 2))}

    net = nets.FunctionNet(fn, image_size=(12, 10), name="red")
    climbed = climb(net, [0], "red", starts=1, options=Options(steps=40, rate=0.05))
    assert climbed.started[0] <= 0 and climbed.paths[0, 0] == 0 and climbed.paths[0, -1] > 0.05
    plain = maximization.climb(net, [0], layer="red", key=KEY, noise=1.0, steps=10)
    assert (plain.paths == 0).all()


def test_pictures_of_any_shape_and_number_of_channels():
    climbed = climb(foreign_nets.GREY, [1, 2], "conv2", starts=1)
    assert climbed.patches.shape == (2, 10, 10, 3) and climbed.images.shape == (2, 20, 28, 1)
    assert (climbed.paths[:, -1] > climbed.paths[:, 0]).all()


@pytest.mark.slow
def test_a_second_network_is_asked_for_its_class_of_each_picture():
    """It is shown the pictures at its own size, and says what it says of them."""
    net = dataclasses.replace(make_net(), class_names=("a", "b", "c"))
    climbed = climb(net, [0, 1, 2], "fc7", starts=2)
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(3, 3)).astype(np.float32)
    fn = lambda images: {"logits": images.mean(axis=(1, 2)) @ weights}  # noqa: E731
    judge = nets.FunctionNet(fn, image_size=20, picture_size=26, class_names=("c", "x", "a"), name="judge")
    asked = climbed.maps != 1  # it does not know b
    said = ((climbed.patches[asked] / 255).mean(axis=(1, 2)) @ weights).argmax(axis=1)
    expected = np.mean([("c", "x", "a")[best] == "abc"[m] for best, m in zip(said, climbed.maps[asked], strict=True)])
    assert robust_ascent.agreement(net, climbed, layer="fc7", judge=judge) == pytest.approx(expected)
    assert robust_ascent.agreement(net, climbed, layer="fc7", judge=net) == pytest.approx(climbed.won.mean(), abs=0.34)
    stranger = dataclasses.replace(judge, class_names=("p", "q", "r"))
    assert robust_ascent.agreement(net, climbed, layer="fc7", judge=stranger) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"options": Options(steps=0)}, "steps=0: a whole number of at least 1"),
        ({"options": Options(rate=float("nan"))}, "rate=nan: a finite number above 0"),
        ({"options": Options(turn=200)}, "turn=200: degrees from 0 to 180"),
        ({"options": Options(scaling=1)}, "scaling=1: a share from 0 to below 1"),
        ({"options": Options(jitter=-1)}, "jitter=-1: a finite number of pixels"),
        ({"starts": 0}, "starts=0: a whole number of at least 1"),
        ({"colours": np.eye(2)}, "colours of shape (2, 2): finite numbers [3, 3]"),
        ({"layer": "conv9"}, "layer='conv9': one of"),
    ],
)
def test_what_cannot_climb_is_refused(changes, words):
    with pytest.raises(zfjax.UserError, match=re.escape(words)):
        climb(make_net(), [0], **{"layer": "conv1", **changes})
