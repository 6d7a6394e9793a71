"""Figure 1: every stage is the reference's, what is conserved has its closed form, and the page shows it."""

import json
from pathlib import Path

import foreign_nets
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import tiny_nets
from PIL import Image
from tiny_run import CENTRES, MEAN, NET, make_data, make_net, make_params

import zfjax
from experiments import deconvnet_walkthrough
from experiments.pages import canvas
from experiments.pages import walkthrough as walkthrough_page
from experiments.shell import figure
from zfjax import nets
from zfjax.analyses import walkthrough
from zfjax.analyses.walkthrough import excited_map, walk_down
from zfjax.data import sets
from zfjax.deconvnet import Step

VIEWS = nets.read_views(make_data().validation, [4], make_net())
TRACE = reference.forward(make_params(), VIEWS.images, NET)

MINI = nets.TrainedNet(
    tiny_nets.MINI,
    tiny_nets.params(tiny_nets.MINI),
    np.full((36, 36, 3), 120, np.float32),
    Path("x"),
    Path("y"),
    "tiny",
    tuple("abcde"),
    "mini",
)

PLAIN = zfjax.Architecture("plain", (zfjax.Dense("fc1", 7), zfjax.Dense("fc2", 3, hidden=False)), image_size=20)


def mini_views():
    images = tiny_nets.images(34, batch=1)
    return nets.Views(images, np.zeros((1, 34, 34, 3), np.uint8), np.array([0]), None, None)


def plain_net():
    params = {name: {k: v * np.float32(0.02) for k, v in p.items()} for name, p in tiny_nets.params(PLAIN).items()}
    return nets.TrainedNet(PLAIN, params, MEAN, Path("x"), Path("y"), "tiny", tuple("abc"), "plain")


@pytest.fixture
def trained(tmp_path):
    """The tiny net and set in the place of a run."""
    return make_net(tmp_path)


def _run(net, **changes):
    return deconvnet_walkthrough.run(deconvnet_walkthrough.Config(**changes), net=net, data=make_data())


def test_every_stage_is_the_references():
    """From fc6: unit alone, transposed weights, rectified, filters; conv1's pool is undone at its switches."""
    walk = walk_down(make_net(), VIEWS, layer="fc6", channel=None)
    assert [stage.layer for stage in walk.stages] == ["fc6", "conv2", "conv1"]
    units = TRACE["fc6"]["features"]
    top = np.where(units == units.max(), units, 0)
    params, conv1, conv2 = make_params(), NET.layer("conv1"), NET.layer("conv2")
    to_conv2 = (top @ params["fc6"]["kernel"].T).reshape(1, 5, 5, 5)
    to_conv1 = reference.conv_transpose(np.maximum(to_conv2, 0), params["conv2"]["kernel"], conv2, (5, 5, 6))
    unpooled = reference.unpool(to_conv1, TRACE["conv1"]["switches"], (10, 10), 3, 2)
    pixels = reference.conv_transpose(np.maximum(unpooled, 0), params["conv1"]["kernel"], conv1, (20, 20, 3))
    maps = [walk.numbers["layers"][name]["map"] for name in ("conv2", "conv1")]
    for found, expected in (
        (walk.stages[0].above, walkthrough.in_rows(top[0])),
        (walk.stages[1].above, to_conv2[0, ..., maps[0]]),
        (walk.stages[1].rectified, np.maximum(to_conv2, 0)[0, ..., maps[0]]),
        (walk.stages[2].above, to_conv1[0, ..., maps[1]]),
        (walk.stages[2].unpooled, unpooled[0, ..., maps[1]]),
        (walk.stages[2].rectified, np.maximum(unpooled, 0)[0, ..., maps[1]]),
        (walk.stages[2].handed_on, TRACE["conv1"]["features"][0, ..., maps[1]]),
        (walk.projection, pixels[0]),
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    excited = TRACE["conv1"]["features"].max(axis=(0, 1, 2)) > 0
    signal = np.maximum(unpooled, 0).sum(axis=(0, 1, 2))
    assert maps[1] == np.where(excited, signal, 0).argmax()
    numbers = walk.numbers["layers"]["conv1"]
    assert numbers["removed"] == pytest.approx(np.maximum(-unpooled, 0).sum() / np.abs(unpooled).sum(), rel=1e-4)
    assert numbers["silent"] == pytest.approx(signal[~excited].sum() / signal.sum(), abs=1e-5)


@pytest.mark.parametrize(("net", "views"), [(make_net(), VIEWS), (MINI, mini_views())])
def test_unpooling_keeps_the_sum_and_switches_stand_at_the_maxima(net, views):
    """What a pool read at its switches is what it handed on, before its norm or after; no value is lost or doubled."""
    layer = walkthrough.last_conv(net.architecture)
    walk = walk_down(net, views, layer=layer, channel=None)
    for stage in walk.stages:
        numbers = walk.numbers["layers"][stage.layer]
        assert numbers["sum_unpooled"] == pytest.approx(numbers["sum_from_above"], rel=1e-5)
        assert stage.unpooled.sum() == pytest.approx(stage.above.sum(), rel=1e-4, abs=1e-4)
        if stage.pool:
            maxima = stage.pool_input[walkthrough.switch_places(stage.switches, stage.pool)]
            windows = reference.max_pool(stage.pool_input[None, ..., None], stage.pool.size, stage.pool.stride)[0]
            np.testing.assert_array_equal(maxima, windows[0, ..., 0])
            row = net.architecture.layer(stage.layer)
            if isinstance(row.after[-1], zfjax.Pool):
                np.testing.assert_allclose(maxima, stage.handed_on, rtol=1e-3, atol=1e-3)


def test_the_pixels_are_those_of_project_whatever_the_scale_of_the_input():
    views = mini_views()
    walk = walk_down(MINI, views, layer="fc7", channel=None)
    trace = tiny_nets.forward(MINI.params, views.images, architecture=tiny_nets.MINI)[1]
    top = zfjax.isolate(trace["fc7"].features, channel=walk.numbers["map"])
    expected = zfjax.project(MINI.params, trace, top, layer="fc7", architecture=tiny_nets.MINI)[0]
    np.testing.assert_allclose(walk.projection, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_conservation_of_a_hand_made_step():
    """+3 -1 in a map that is silent on the way up, +2 in one that is not; two values have met."""
    above = np.array([[2.0, -1.0, 2.0, 1.0]]).reshape(1, 2, 1, 2)
    unpooled = np.array([[[[3.0, 0.0]], [[-1.0, 2.0]]]])
    unpooled[0, 0, 0], unpooled[0, 1, 0] = (3.0, 2.0), (-1.0, 0.0)
    step = Step(unpooled, np.maximum(unpooled, 0), None)
    handed_on = np.zeros((1, 2, 1, 2))
    handed_on[0, 0, 0, 1] = 5.0
    assert walkthrough.conserved(handed_on, above, step) == {
        "sum_from_above": 4.0,
        "sum_unpooled": 4.0,
        "removed": 1 / 6,
        "reached": 0.5,
        "silent": 3 / 5,
        "map": 1,
        "map_share": 2 / 5,
    }


@pytest.mark.parametrize("image", range(6))
def test_all_of_the_energy_lies_in_the_field_at_every_border(image):
    views = nets.read_views(make_data().validation, [image], make_net())
    for channel in (0, 2, 3, 4, 5):
        walk = walk_down(make_net(), views, layer="conv1", channel=channel)
        assert walk.box == zfjax.receptive_field(NET, "conv1").box(walk.place) and walk.projection.any()
        assert walk.numbers["energy_in_field"] == 1.0
    assert walk_down(make_net(), views, layer="conv2", channel=None).box is None  # it sees 23 of 20 pixels


def test_energy_is_counted_in_the_field_and_on_the_object():
    projection = np.zeros((4, 4, 3))
    projection[0, 0], projection[3, 3] = 1.0, 2.0  # energies 3 and 12
    on_object = np.zeros((4, 4), bool)
    on_object[0] = True
    found = walkthrough.energy(projection, (-2, -2, 2, 2), on_object)
    assert found == {"energy_in_field": pytest.approx(0.2), "energy_on_object": {"value": 0.2, "by_chance": 0.5}}
    assert walkthrough.energy(projection, None, None) == {"energy_in_field": 1.0, "energy_on_object": None}


def test_by_default_the_strongest_map_of_the_last_convolution_is_taken():
    assert walkthrough.last_conv(zfjax.ZFNET) == "conv5" and walkthrough.last_conv(PLAIN) == "fc2"
    walk = walk_down(make_net(), VIEWS, layer="conv2", channel=None)
    features = TRACE["conv2"]["features"][0]
    row, column, channel = np.unravel_index(features.argmax(), features.shape)
    assert walk.numbers["map"] == channel and walk.place == (row, column)
    assert walk.numbers["activation"] == pytest.approx(features.max(), rel=1e-4)


def test_units_stand_in_rows_as_square_as_they_go():
    assert walkthrough.in_rows(np.arange(12)).tolist() == np.arange(12).reshape(3, 4).tolist()
    assert walkthrough.in_rows(np.arange(7)).shape == (1, 7)
    assert walkthrough.in_rows(np.arange(4096)).shape == (64, 64)


@pytest.mark.parametrize("size", [2, 3])
def test_every_switch_has_a_colour_of_its_own_and_the_middle_is_white(size):
    colours = walkthrough_page.switch_colours(size).reshape(-1, 3)
    assert len({tuple(colour) for colour in colours.tolist()}) == size**2
    assert size == 2 or colours[4].tolist() == [255, 255, 255]


def test_switches_are_as_bright_as_what_is_handed_on():
    stage = walk_down(make_net(), VIEWS, layer="conv1", channel=0).stages[0]
    stage = stage._replace(handed_on=np.array([[4.0, 1.0, 0.0]]), switches=np.array([[4, 4, 4]], np.uint8))
    assert walkthrough_page.switch_picture(stage)[0, :, 0].tolist() == [255, 128, 0]
    assert walkthrough_page.switch_picture(stage._replace(handed_on=np.zeros((1, 3)))).max() == 0


def test_the_lens_stays_inside_the_map():
    assert [walkthrough_page.around(place, 12) for place in (0, 2, 6, 11)] == [(0, 5), (0, 5), (4, 9), (7, 12)]
    assert walkthrough_page.around(1, 3) == (0, 3)


def test_the_signals_of_a_column_share_one_scale():
    """+1 beside -4 is the same grey, 159, from above, unpooled and rectified, where -4 has become mid-grey."""
    walk = walk_down(make_net(), VIEWS, layer="conv1", channel=0)
    values = np.array([[1.0, -4.0]])
    switches = np.zeros((1, 2), np.uint8)
    stage = walk.stages[0]._replace(above=values, unpooled=values, rectified=np.maximum(values, 0), switches=switches)
    stage = stage._replace(handed_on=np.array([[2.0, 1.0]]))
    sheet = walkthrough_page.ladder(walk._replace(stages=[stage], place=()))
    quarter = walkthrough_page.LARGEST_TILE // 4
    left, right = (sheet[:, walkthrough_page.NAMES + n * quarter, 0] for n in (1, 3))

    def runs(line, value):
        return int((np.diff(np.concatenate([[0], (line == value).astype(int)])) == 1).sum())

    assert runs(left, 159) == 3 and runs(right, 0) >= 2


def test_the_command_writes_what_it_drew_and_overwrites_only_when_told(trained):
    result = _run(trained, seed=3)
    out = trained.run / "figures" / "walkthrough" / "seed3"
    assert {path.name for path in out.iterdir()} == {"walkthrough.png", "walkthrough.npz", "result.json"}
    written = json.loads((out / "result.json").read_text())
    image = int(sets.choose(make_data().validation, 1, 3)[0])
    assert (written["image"], written["layer"], written["energy_in_field"]) == (image, "conv2", 1.0)
    assert written["paper"] is None and written["data"]["fingerprint"] == "data" and "jax" in written["versions"]
    arrays = np.load(out / "walkthrough.npz")
    np.testing.assert_array_equal(arrays["picture"], CENTRES[image])
    assert (arrays["name"], arrays["index"]) == (written["picture"], image)
    _, trace = zfjax.forward(make_params(), jnp.asarray(CENTRES[image] - np.float32(120))[None], architecture=NET)
    top = zfjax.isolate(trace["conv2"].features, channel=written["map"])
    projection = zfjax.project(make_params(), trace, top, layer="conv2", architecture=NET)[0]
    np.testing.assert_allclose(arrays["projection"], projection, rtol=1e-4, atol=1e-6)
    assert arrays["conv1/switches"].dtype == np.uint8 and arrays["conv1/unpooled"].shape == (10, 10)
    with Image.open(out / "walkthrough.png") as page:
        assert page.size[0] <= 1500 and (out / "walkthrough.png").stat().st_size <= 1_000_000
    with pytest.raises(ValueError, match="already holds a result"):
        _run(trained, seed=3)
    again = _run(trained, layer="fc7", map=result["map"] % 2, image=7, out=out, overwrite=True)
    assert again["image"] == 7 and again["layers"]["fc7"]["removed"] == 0 and list(again["layers"])[-1] == "conv1"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "conv9"}, "layer='conv9': one of conv1, conv2, fc6, fc7 of"),
        ({"layer": "conv1", "map": 6}, "map=6: a whole number from 0 to 5 is needed in conv1"),
        ({"layer": "conv1", "map": -1}, "map=-1: a whole number from 0 to 5"),
        ({"layer": "conv1", "map": 1}, "map=1: nothing in this image excites it in conv1; take another"),
        ({"image": 21}, "image=21: the validation split of 'tiny' has 21, counted from 0"),
        ({"image": -1}, "image=-1: at least 0 is needed"),
    ],
)
def test_what_cannot_be_drawn_is_named_before_anything_is_written(trained, options, message):
    with pytest.raises(ValueError, match=message):
        _run(trained, **options)
    assert not [path for path in trained.run.rglob("*") if path.is_file() and path.name != ".lock"]


def test_a_layer_that_no_image_excites_is_named():
    with pytest.raises(ValueError, match="layer='conv3': nothing in this image excites any of its maps; take another"):
        excited_map(np.zeros((1, 2, 2, 3)), None, layer="conv3")


def test_a_net_without_pools_and_classes_have_their_page_too():
    images = VIEWS.images
    views = nets.Views(images, CENTRES[4:5], np.array([0]), np.ones((1, 20, 20), bool), None)
    walk = walk_down(plain_net(), views, layer="fc2", channel=1)
    assert "class 'b'" in walk.title and walk.place == () and walk.box is None
    assert walk.numbers["energy_on_object"] == {"value": pytest.approx(1.0), "by_chance": 1.0}
    page = canvas.pixels_of(walkthrough_page.draw(walk))
    with_lens = canvas.pixels_of(walkthrough_page.draw(walk_down(make_net(), VIEWS, layer="conv1", channel=0)))
    assert len(with_lens) > len(page) + 200
    assert canvas.SWITCHES_NOTE in walkthrough_page.caption(walk)
    assert "100% on the object, which covers 100%" in walkthrough_page.where(walk.numbers)


def test_the_folder_is_called_as_what_was_asked_for_and_the_page_names_unit_and_picture(trained, capsys):
    result = _run(trained, layer="conv1", map=2)
    assert result["folder"] == trained.run / "figures" / "walkthrough" / "conv1-map2"
    assert (result["unit"], result["picture"]) == ("map 2 of conv1", str(result["image"]))
    deconvnet_walkthrough.report(result)
    assert f"map 2 of conv1, activation {result['activation']:.3g}, in picture" in capsys.readouterr().out
    walk = walk_down(trained, VIEWS._replace(names=("cat 4.png",)), layer="conv1", channel=2)
    assert walk.title.endswith(f"(map 2 of conv1, activation {walk.numbers['activation']:.3g} in picture cat 4.png)")
    walk = walk_down(trained, VIEWS, layer="fc6", channel=None)
    assert f"(unit {walk.numbers['map']} of fc6, " in walk.title


@pytest.fixture
def foreign(tmp_path):
    """The flags for a folder of pictures and a net that is no table."""
    data = str(foreign_nets.folder(tmp_path / "pictures"))
    return {"net": "foreign_nets:SMALL", "data": data, "out": tmp_path / "out"}


def test_a_net_that_is_no_table_is_walked_down_layer_by_layer(foreign, capsys):
    result = deconvnet_walkthrough.run(deconvnet_walkthrough.Config(**foreign, map=4, image=1))
    assert (result["layer"], result["unit"], list(result["layers"])) == ("conv2", "map 4 of conv2", ["conv2", "conv1"])
    net, unit = foreign_nets.SMALL, zfjax.Unit(4, result["place"])
    source = sets.open_images(foreign["data"], net).validation
    images = nets.read_views(source, [1], net).images
    ways = nets.project_ways(net, images, unit, ways=("deconvnet", "guided"), layer="conv2")
    first, facts = np.asarray(net.features(["conv1"])(images)["conv1"]), result["layers"]["conv1"]
    assert facts["strength"] == pytest.approx(first.max()) and 0 < facts["reached"] < 1 and 0 <= facts["silent"] < 1
    with np.load(foreign["out"] / "walkthrough.npz") as saved:
        np.testing.assert_allclose(saved["projection"], ways["deconvnet"][0], rtol=1e-5)
        np.testing.assert_allclose(saved["guided"], ways["guided"][0], rtol=1e-5)
        np.testing.assert_allclose(saved["conv1/handed_on"], first[0, ..., facts["map"]], rtol=1e-6)
        assert saved["conv2/above"][result["place"]] == pytest.approx(result["activation"])
        assert np.count_nonzero(saved["conv2/above"]) == 1 and np.abs(saved["conv1/above"]).max() > 0
    assert set(result["not_applicable"]) == {"switches and rectification"}
    deconvnet_walkthrough.report(result)
    assert "Left out: switches and rectification, as small is a program" in capsys.readouterr().out
    dense = deconvnet_walkthrough.Config(**foreign | {"out": foreign["out"] / "dense"}, layer="logits")
    assert deconvnet_walkthrough.run(dense)["unit"] in [f"class {name!r}" for name in foreign_nets.CLASS_NAMES]


def test_where_the_engine_cannot_follow_the_maps_and_projections_are_drawn_and_it_is_said(foreign, monkeypatch):
    own = foreign_nets.Minimal()
    picture = np.random.default_rng(0).normal(size=(1, 20, 28, 3)).astype(np.float32)
    monkeypatch.setattr(own, "project", lambda *_, **__: picture, raising=False)
    source = sets.open_images(foreign["data"], own).validation
    walk = walkthrough.walk_layers(own, nets.read_views(source, [1], own), layer="conv2")
    assert walk.not_applicable["what comes down at each layer"].startswith("the projection of minimal is not what")
    assert all(of.above is None for of in walk.layers) and "reached" not in walk.numbers["layers"]["conv1"]
    np.testing.assert_array_equal(walk.projections["guided"], picture[0])
    words = " ".join(walkthrough_page.layers_caption(walk))
    assert "In every layer the strongest map is drawn." in words and "Left out: what the unit sees" in words
    page = canvas.pixels_of(walkthrough_page.draw_layers(walk)).copy()
    page[12:-12, 12:-12] = 255
    assert page.min() == 255


def test_of_many_layers_some_are_drawn_the_highest_and_the_lowest_among_them():
    layers = [walkthrough.Layer(f"layer{n}", "", np.zeros((2, 2)), None) for n in range(50)]
    drawn = walkthrough_page.some_of(layers)
    assert (len(drawn), drawn[0].layer, drawn[-1].layer) == (7, "layer0", "layer49")
    assert walkthrough_page.some_of(layers[:3]) == layers[:3]


def test_nothing_with_ink_stands_in_the_outer_12_pixels():
    for walk in (
        walk_down(make_net(), VIEWS, layer="conv2", channel=None),
        walk_down(make_net(), VIEWS, layer="fc7", channel=None),
    ):
        page = canvas.pixels_of(walkthrough_page.draw(walk)).copy()
        page[12:-12, 12:-12] = 255
        assert page.min() == 255


def test_what_a_unit_sees_of_an_image_that_is_no_square_is_framed_unless_it_is_all():
    def net_of(*size):
        return nets.TrainedNet(**{**vars(make_net()), "architecture": zfjax.ZFNET.with_sizes(image=size)})

    net = net_of(224, 160)
    assert walkthrough.box_of(net, "conv5", (1, 2)) == net.receptive_field("conv5").box((1, 2))
    assert walkthrough.box_of(net_of(150, 171), "conv5", (0, 0)) is None
    assert walkthrough.box_of(net, "fc6", ()) is None


@pytest.mark.parametrize(("layer", "name"), [("..", "_.."), (".a", "_.a"), ("-x", "_-x"), ("a/b c", "a-b-c")])
def test_a_layer_of_any_name_gives_a_folder_below_that_is_not_hidden(layer, name):
    config = deconvnet_walkthrough.Config(layer=layer)
    assert figure.folder_of(config, Path("figures")) == Path("figures") / name
