"""What a projection is not: rounding drawn as a picture, one of several equal places."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_nets

import zfjax
from experiments.pages import deconv
from zfjax import nets, pixels
from zfjax.analyses import strongest, top_activations

RNG = np.random.default_rng(0)
KERNEL = RNG.normal(size=(3, 3, 3, 4)).astype(np.float32)
HEAD = RNG.normal(size=(4, 2)).astype(np.float32)


class Pictures:
    """Noise, with a flat one in which every place is tied."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        pixels = np.random.default_rng(index).integers(0, 256, (6, 9, 3), np.uint8)
        return {"image": np.full_like(pixels, 200) if index == 2 else pixels, "label": np.int32(-1)}


def _net(normalised):
    def fn(images):
        dimensions = ("NHWC", "HWIO", "NHWC")
        maps = jax.lax.conv_general_dilated(images, KERNEL, (1, 1), "VALID", dimension_numbers=dimensions)
        if normalised:
            mean = maps.mean((1, 2), keepdims=True)
            spread = jnp.square(maps - mean).mean((1, 2), keepdims=True) + 1e-5
            maps = (maps - mean) * jax.lax.rsqrt(spread) + 0.5
        return {"maps": jnp.abs(images), "logits": maps.mean((1, 2)) @ jnp.abs(HEAD)}

    return nets.FunctionNet(fn, image_size=(6, 9), on_unknown="keep")


def _drawn(net, layer, maps):
    source = Pictures()
    images = np.asarray(net.prepare(np.stack([source[n]["image"] for n in range(3)])))
    fed = net.features([layer])(images)[layer]
    top = top_activations.update(top_activations.init(fed.shape[-1], 3), fed, jnp.arange(3, dtype=jnp.int32))
    return strongest.project_and_cut(net, source, top, maps=np.array(maps), layer=layer)


@pytest.mark.filterwarnings("ignore:seed='value'")
def test_pictures_of_a_mean_over_a_norm_are_nothing_but_rounding():
    """The mean of what instance norm gives is its offset, whatever the image: the exact picture is 0."""
    drawn = _drawn(_net(normalised=True), "logits", [0, 1])
    assert np.abs(drawn.projections).max() > 0
    np.testing.assert_array_equal(drawn.rounding, [True, True])
    panel = deconv.map_panels(drawn, 1, ["a", "b"])[0]
    assert panel.label == "a   nothing but rounding"
    half = panel.pixels[:, : panel.pixels.shape[1] // 2 - 20]
    assert set(np.unique(half)) <= {128, 255}  # mid-grey, and the gaps
    assert strongest.warnings_of(strongest.notes(drawn)) == ["2 maps are nothing but rounding, and drawn as grey"]


@pytest.mark.filterwarnings("ignore:seed='value'")
def test_pictures_of_a_mean_without_the_norm_are_real():
    drawn = _drawn(_net(normalised=False), "logits", [0, 1])
    assert (drawn.values[:, 0] > 0).any()
    np.testing.assert_array_equal(drawn.rounding, [False, False])
    assert np.isfinite(drawn.scales).all()


def test_places_tied_at_the_maximum_are_counted():
    drawn = _drawn(_net(normalised=False), "maps", [0])
    expected = [
        54 if image == 2 else (Pictures()[image]["image"][..., 0] == Pictures()[image]["image"][..., 0].max()).sum()
        for image in drawn.images[0]
    ]
    np.testing.assert_array_equal(drawn.tied[0], expected)
    assert strongest.notes(drawn)["tied"].tolist() == [np.sum(np.array(expected) > 1)]


@pytest.mark.parametrize(
    ("num", "lines"),
    [
        (
            1,
            [
                "1 projection starts from an activation below 0: what speaks against the unit",
                "1 map is nothing but rounding, and drawn as grey",
                "1 projection stands for one of several places that share the maximum",
            ],
        ),
        (
            2,
            [
                "2 projections start from an activation below 0: what speaks against the unit",
                "2 maps are nothing but rounding, and drawn as grey",
                "2 projections stand for one of several places that share the maximum",
            ],
        ),
        (0, []),
    ],
)
def test_a_warning_agrees_with_its_number(num, lines):
    facts = {"num_below_zero": num, "rounding": np.arange(3) < num, "tied": np.array([num, 0])}
    assert strongest.warnings_of(facts) == lines


@pytest.mark.parametrize("seed", range(4))
def test_maps_that_are_asked_for_take_the_place_of_no_others(seed):
    values = jnp.array([[3.0], [1.0], [2.0], [2.5]])
    top = top_activations.TopActivations(values, *(jnp.zeros((4, 1), jnp.int32),) * 3)
    chosen = strongest.choose_maps(top, 3, seed, first=(3,)).tolist()
    assert chosen[0] == 3 and len(set(chosen)) == 3


class _OfTable(nets.OfTable):
    """A table with noise for weights, that is never asked for a whole picture."""

    name, class_names, fingerprint = "mini", (), ""

    def __init__(self):
        self.architecture, self.mean = tiny_nets.MINI, np.full(3, 127, np.float32)
        self.params = tiny_nets.params(tiny_nets.MINI)

    def project_ways(self, *_, **__):
        raise AssertionError("whole pictures were made")


@pytest.mark.parametrize(
    "layer", ["conv3", *(pytest.param(layer, marks=pytest.mark.slow) for layer in ("conv1", "fc6"))]
)
def test_what_units_of_a_table_show_is_cut_out_of_their_windows(layer):
    """Pictures and borders as if the whole ones had been cut, of which none is made."""
    net, pictures = _OfTable(), np.random.default_rng(0).integers(0, 256, (5, 34, 34, 3), np.uint8)
    images = np.asarray(net.prepare(pictures))
    fed = net.features([layer])(images)[layer]
    top = top_activations.update(top_activations.init(fed.shape[-1], 3), fed, jnp.arange(5, dtype=jnp.int32))
    source = [{"image": picture, "label": 0} for picture in pictures]
    drawn = strongest.project_and_cut(net, source, top, maps=np.arange(fed.shape[-1]), layer=layer)
    num_drawn = 0
    for m, k in np.argwhere(drawn.images >= 0):
        place = None if layer == "fc6" else (int(top.rows[m, k]), int(top.columns[m, k]))
        unit = zfjax.Unit(np.array([m]), None if place is None else tuple(np.array([at]) for at in place))
        of = np.array([drawn.images[m, k]])
        (whole,) = nets.OfTable.project_ways(net, images, unit, ways=("deconvnet",), layer=layer, of=of)["deconvnet"]
        box = tuple(drawn.boxes[m, k].tolist())
        np.testing.assert_array_equal(drawn.projections[m, k], pixels.cut(whole, box, 0.0))
        np.testing.assert_array_equal(drawn.patches[m, k], pixels.cut(pictures[of[0]], box, strongest.OUTSIDE))
        num_drawn += whole.any()
    assert num_drawn > 3


def test_what_a_unit_sees_of_images_that_are_no_squares():
    """A field that is larger than the image along one side alone is none of the whole image."""
    size, places = (40, 27), np.array([[0, 2]])
    field = zfjax.architecture.ReceptiveField((9, 5), 4, -1)
    boxes = strongest.boxes_of(field, size, rows=places, columns=places)
    assert boxes.tolist() == [[[-1, -1, 8, 4], [7, 7, 16, 12]]]
    for sides, is_whole in (((40, 27), True), ((41, 30), True), ((39, 30), False), ((50, 26), False)):
        boxes = strongest.boxes_of(field._replace(size=sides), size, rows=places, columns=places)
        assert (boxes.tolist() == [[[0, 0, 40, 27]] * 2]) == is_whole


@pytest.mark.parametrize(
    ("field", "words"),
    [
        (11, "sees 11x11 pixels"),
        ((30, 11), "sees 30x11 pixels"),
        (30, "sees 30x30 pixels"),
        ((41, 27), "sees the whole picture of 40x27 pixels"),
    ],
)
def test_what_a_unit_sees_is_said_by_both_sides(field, words):
    facts = {"kind": "map", "num_maps": 4, "num_dead": 0, "receptive_field": field, "image_size": (40, 27)}
    assert deconv.summary_line("conv1", facts).endswith(words)
