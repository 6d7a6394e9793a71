"""Sanity checks: hand-made ranks and angles, nets whose pictures cannot or must tell units apart, wrong switches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_nets
import tiny_run
from scipy import ndimage, stats

import zfjax
from zfjax import nets
from zfjax.analyses import sanity

RNG = np.random.default_rng(0)
TABLE = tiny_nets.MINI

# Two filters, a pool whose last window hangs over, two classes
TOY = zfjax.Architecture(
    "toy",
    (zfjax.Conv("conv1", 2, 1, after=(zfjax.Pool(),)), zfjax.Dense("fc2", 2, hidden=False)),
    image_size=6,
    channels=1,
)


def toy(classes):
    """Both filters pass the image on; `classes` [2] are the signs with which the two logits read every unit."""
    kernel = np.array(classes, np.float32)[None] * np.ones((TOY.sizes()["fc2"].kernel[0], 1), np.float32)
    return {
        "conv1": {"kernel": np.ones((1, 1, 1, 2), np.float32), "bias": np.zeros(2, np.float32)},
        "fc2": {"kernel": kernel, "bias": np.array([1e-3, 0], np.float32)},
    }


def swapped(method, classes):
    """Cosine of the two classes' pictures of a toy net, and the pictures."""
    params = toy(classes)
    image = np.abs(RNG.normal(size=(1, 6, 6, 1))).astype(np.float32)
    trace = tiny_nets.forward(params, image, architecture=TOY)[1]
    tops = sanity.class_tops(trace["fc2"].features)
    pictures = [method(params, trace, top, layer="fc2", architecture=TOY) for top in tops]
    return sanity.cosine(*pictures)[0]


def test_cosine_of_equal_opposite_orthogonal_and_blank_pictures():
    first = np.array([[3.0, 4.0], [3.0, 4.0], [3.0, 4.0], [3.0, 4.0], [0.0, 0.0]])
    second = np.array([[30.0, 40.0], [-3.0, -4.0], [-4.0, 3.0], [0.0, 1.0], [1.0, 1.0]])
    np.testing.assert_allclose(sanity.cosine(first, second), [1, -1, 0, 0.8, np.nan], atol=1e-12)


def test_cosine_does_not_see_the_scale_however_small():
    """The squares of 1e-30 are no float32."""
    pictures = RNG.normal(size=(3, 4, 4, 3)).astype(np.float32)
    np.testing.assert_allclose(sanity.cosine(pictures * np.float32(1e-30), pictures), 1, rtol=1e-6)


def test_spearman_of_hand_cases():
    """1 - 6 sum d^2 / (n (n^2 - 1)) without ties; ties share the mean of their ranks."""
    first = np.array([[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4], [5, 5, 9, 1]], float)
    second = np.array([[2, 1, 4, 3], [1, 8, 27, 64], [4, 3, 2, 1], [1, 1, 1, 1]], float)
    np.testing.assert_allclose(sanity.spearman(first, second), [0.6, 1, -1, np.nan], atol=1e-12)
    np.testing.assert_allclose(sanity.ranks(np.array([[5.0, 5, 9, 1]])), [[0, 0, 1.5, -1.5]])
    np.testing.assert_allclose(sanity.spearman(np.array([[1.0, 1, 2]]), np.array([[1.0, 2, 3]])), np.sqrt(3) / 2)


def test_spearman_of_many_ties_is_scipys():
    first, second = RNG.integers(0, 5, (2, 3, 7, 7, 2))
    expected = [stats.spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(sanity.spearman(first, second), expected, atol=1e-12)


def test_class_tops_ask_the_best_and_the_worst_with_the_same_signal():
    best, worst = sanity.class_tops(jnp.array([[0.5, -9.0, 7.0], [3.0, 3.0, 4.0]]))
    np.testing.assert_array_equal(best, [[0, 0, 1], [0, 0, 1]])
    np.testing.assert_array_equal(worst, [[0, 1, 0], [1, 0, 0]])


def test_neuron_tops_are_two_active_units_of_the_strongest_place():
    features = np.zeros((3, 2, 2, 4), np.float32)
    features[0, 1, 0] = [2, 0, 9, 1]  # strongest 2, weakest active 3
    features[0, 0, 0] = [0.1, 8, 8, 8]
    features[1, 0, 1] = [0, 5, 0, 0]  # alone
    first, second = (np.asarray(top) for top in sanity.neuron_tops(jnp.asarray(features)))
    assert first[0, 1, 0].tolist() == [0, 0, 9, 0] and first[0].sum() == 9
    assert second[0, 1, 0].tolist() == [0, 0, 0, 1] and second[0].sum() == 1
    assert first[1].sum() == 5 and not second[1].any() and not first[2].any() and not second[2].any()
    dense = [np.asarray(top) for top in sanity.neuron_tops(jnp.array([[2.0, 0.0, 9.0, 1.0]]))]
    np.testing.assert_array_equal(dense, [[[0, 0, 9, 0]], [[0, 0, 0, 1]]])


@pytest.mark.parametrize("method", sanity.METHODS.values(), ids=sanity.METHODS)
def test_a_net_whose_picture_ignores_the_unit_has_a_similarity_of_1(method):
    """Both classes read all units alike, one of them a little more strongly."""
    np.testing.assert_allclose(swapped(method, [2, 1]), 1, rtol=1e-6)


def test_opposite_classes_are_opposite_to_the_gradient_and_not_to_the_rectifying_ones():
    """The worst class reads every unit with -1: below a ReLU the deconvnet has nothing left of it."""
    np.testing.assert_allclose(swapped(zfjax.gradient, [1, -1]), -1, rtol=1e-6)
    assert np.isnan(swapped(zfjax.project, [1, -1])) and np.isnan(swapped(zfjax.guided_backprop, [1, -1]))


def test_an_untrained_deconvnet_hardly_tells_classes_apart_and_the_gradient_does():
    """Fig. 3's net at an eighth of its width, 40 classes: about 0.9 against about 0 (Mahendran & Vedaldi 2016)."""
    table = zfjax.ZFNET.with_sizes(image=72).scaled(1 / 8).with_sizes(fc8=40)
    params = tiny_nets.params(table)
    params = {name: {**of, "bias": 0 * of["bias"]} for name, of in params.items()}
    trace = tiny_nets.forward(params, tiny_nets.images(72, batch=4), architecture=table)[1]
    tops = sanity.class_tops(trace["fc8"].features)
    found = {}
    for name, method in sanity.METHODS.items():
        pictures = [method(params, trace, top, layer="fc8", architecture=table) for top in tops]
        found[name] = sanity.cosine(*pictures).mean()
    assert found["deconvnet"] > 0.6 and found["guided backprop"] > 0.9 and abs(found["gradient"]) < 0.4


def test_a_cascade_draws_layers_anew_from_the_top_down():
    params = tiny_nets.params(TABLE)
    stages = dict(sanity.cascade(params, jax.random.key(0), architecture=TABLE))
    names = list(reversed(TABLE.layer_names))
    assert list(stages) == names
    for depth, layer in enumerate(names):
        for name in names[: depth + 1]:
            kernel = np.asarray(stages[layer][name]["kernel"])
            assert not np.asarray(stages[layer][name]["bias"]).any()
            assert not np.array_equal(kernel, params[name]["kernel"])
            np.testing.assert_array_equal(kernel, stages[names[-1]][name]["kernel"])  # once for all stages
        assert all(stages[layer][name] is params[name] for name in names[depth + 1 :])


def test_layers_of_one_shape_are_drawn_anew_each_for_itself():
    layers = (zfjax.Dense("fc6", 8), zfjax.Dense("fc7", 8), zfjax.Dense("fc8", 8, hidden=False))
    table = zfjax.Architecture("alike", layers, image_size=4)
    untrained = dict(sanity.cascade(tiny_nets.params(table), jax.random.key(0), architecture=table))["fc6"]
    fc7, fc8 = (np.asarray(untrained[name]["kernel"]) for name in ("fc7", "fc8"))
    assert abs(np.corrcoef(fc7.ravel(), fc8.ravel())[0, 1]) < 0.5


def test_what_is_drawn_anew_has_the_spread_of_what_was_there():
    params = {"fc6": {"kernel": np.full((300, 200), -3, np.float32), "bias": np.ones(200, np.float32)}}
    drawn = np.asarray(sanity.redraw(params, "fc6", jax.random.key(1))["fc6"]["kernel"])
    assert abs(drawn.mean()) < 0.05 and abs(drawn.std() - 3) < 0.05
    assert np.abs(np.corrcoef(drawn[:2])[0, 1]) < 0.2
    other = np.asarray(sanity.redraw(params, "fc6", jax.random.key(2))["fc6"]["kernel"])
    assert abs(np.corrcoef(drawn.ravel(), other.ravel())[0, 1]) < 0.02


def test_centered_switches_put_every_value_in_the_middle_of_its_window():
    """A pool of 3 every 2 over 6 rows: windows begin at 0, 2 and 4, and the last has rows 4 and 5 alone."""
    image = RNG.normal(size=(2, 6, 6, 1)).astype(np.float32)
    trace = tiny_nets.forward(toy([1, 1]), image, architecture=TOY)[1]
    assert (np.asarray(trace["conv1"].switches) != 4).any()
    switches = sanity.centered(trace, architecture=TOY)["conv1"].switches
    assert switches.dtype == np.uint8
    values = np.arange(1, 19, dtype=np.float32).reshape(1, 3, 3, 2).repeat(2, axis=0)
    maps = np.asarray(zfjax.unpool(values, switches, shape=(6, 6)))
    np.testing.assert_array_equal(maps[:, 1::2, 1::2], values)
    assert maps.sum() == values.sum()


def test_a_middle_outside_the_map_moves_to_its_last_row():
    table = zfjax.Architecture(
        "over", (zfjax.Conv("conv1", 1, 1, after=(zfjax.Pool(3, 2),)), zfjax.Dense("fc2", 2, hidden=False)), 5, 1
    )
    wide = zfjax.Architecture(
        "wide", (zfjax.Conv("conv1", 1, 1, after=(zfjax.Pool(6, 4),)), zfjax.Dense("fc2", 2, hidden=False)), 7, 1
    )
    for architecture, rows in ((table, [1, 3]), (wide, [3, 6])):
        side = architecture.sizes()["conv1"].output[0]
        trace = {"conv1": zfjax.LayerTrace(np.zeros((1, side, side, 1)), np.zeros((1, side, side, 1), np.uint8))}
        switches = sanity.centered(trace, architecture=architecture)["conv1"].switches
        pool, full = architecture.layer("conv1").pool, architecture.image_size
        ones = np.ones((1, side, side, 1), np.float32)
        maps = np.asarray(zfjax.unpool(ones, switches, shape=(full, full), size=pool.size, stride=pool.stride))
        expected = np.zeros((full, full))
        expected[np.ix_(rows, rows)] = 1
        np.testing.assert_array_equal(maps[0, ..., 0], expected)


def test_a_middle_is_looked_for_along_both_sides_of_a_map_that_is_no_square():
    table = zfjax.Architecture("long", (zfjax.Conv("conv1", 1, 1, after=(zfjax.Pool(6, 4),)),), (7, 12), 1)
    trace = {"conv1": zfjax.LayerTrace(np.zeros((1, 2, 3, 1)), np.zeros((1, 2, 3, 1), np.uint8))}
    switches = sanity.centered(trace, architecture=table)["conv1"].switches
    maps = zfjax.unpool(np.ones((1, 2, 3, 1), np.float32), switches, shape=(7, 12), size=6, stride=4)
    expected = np.zeros((7, 12))
    expected[np.ix_([3, 6], [3, 7, 11])] = 1
    np.testing.assert_array_equal(maps[0, ..., 0], expected)


def test_exchanged_switches_are_those_of_the_image_before():
    trace = tiny_nets.forward(tiny_nets.params(TABLE), tiny_nets.images(34, batch=3), architecture=TABLE)[1]
    changed = sanity.exchanged(trace)
    for name in ("conv1", "conv2"):
        for n in range(3):
            np.testing.assert_array_equal(changed[name].switches[n], trace[name].switches[n - 1])
        np.testing.assert_array_equal(changed[name].features, trace[name].features)
    assert changed["conv3"].switches is None
    with pytest.raises(ValueError, match="trace of 1 image: at least two are needed to exchange their switches"):
        sanity.exchanged(jax.tree.map(lambda x: x[:1], trace))


def test_edges_are_sobels():
    images = RNG.normal(size=(2, 9, 7, 3))
    for image, found in zip(images, sanity.edges(images), strict=True):
        grey = image.mean(axis=-1)
        expected = np.hypot(*(ndimage.sobel(grey, axis=axis, mode="nearest") for axis in (0, 1)))
        np.testing.assert_allclose(found, expected, atol=1e-12)
    assert not sanity.edges(np.full((1, 5, 5, 3), 7.0)).any()
    for dtype in (np.float16, jnp.bfloat16, np.uint8):
        held = np.asarray(10 * np.abs(images)).astype(dtype)
        np.testing.assert_allclose(sanity.edges(held), sanity.edges(held.astype(np.float32)), rtol=1e-6)


def test_an_untrained_twin_has_other_weights_of_the_same_size_and_one_of_weights_not_at_hand_is_none():
    net = tiny_run.make_net()
    twin = sanity.untrained(net, seed=0)
    for layer, of in net.params.items():
        drawn = np.asarray(twin.params[layer]["kernel"])
        assert abs(np.corrcoef(drawn.ravel(), of["kernel"].ravel())[0, 1]) < 0.4
        assert np.sqrt(np.mean(drawn**2)) == pytest.approx(np.sqrt(np.mean(of["kernel"] ** 2)), rel=0.4)
    assert twin.architecture == net.architecture and twin.layers == net.layers
    assert twin.fingerprint not in (
        net.fingerprint,
        sanity.untrained(net, seed=1).fingerprint,
    )  # caches are named by it
    assert twin.training is None
    again, other = (sanity.untrained(net, seed).params["conv2"]["kernel"] for seed in (0, 1))
    np.testing.assert_array_equal(again, twin.params["conv2"]["kernel"])
    assert not np.array_equal(other, again)
    assert sanity.untrained(nets.FunctionNet(lambda images: {"all": images}, image_size=4), seed=0) is None
