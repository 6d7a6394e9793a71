"""The table of sanity checks: numbers that follow from the pictures, a sentence that follows from the numbers."""

import dataclasses
import functools
import json

import foreign_nets
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_nets
from PIL import Image
from tiny_run import CENTRES, NET, make_data, make_net

import zfjax
from experiments import sanity_checks
from experiments.pages import sanity as sanity_page
from zfjax import nets
from zfjax.analyses import sanity

IMAGES = CENTRES.astype(np.float32) - np.float32(120)
LAYERS = ["fc7", "fc6", "conv2", "conv1"]


@functools.cache
def net():
    """The tiny net, all of whose classes read the layer below alike."""
    params = {name: dict(layer) for name, layer in make_net().params.items()}
    params["fc7"]["kernel"] = np.abs(params["fc7"]["kernel"][:, :1]) * np.array([[1, 2, 3]], np.float32)
    params["fc7"]["bias"] = np.arange(3, dtype=np.float32)
    return dataclasses.replace(make_net(), params=params)


@pytest.fixture
def trained(tmp_path):
    """That net and the tiny set in the place of a run."""
    return dataclasses.replace(net(), run=tmp_path)


def _run(net, **changes):
    return sanity_checks.run(sanity_checks.Config(**changes), net=net, data=make_data())


@functools.cache
def drawn():
    """Every picture of the first four images."""
    return sanity.project_all(net(), IMAGES[:4], layer="conv2", key=jax.random.key(3))


@functools.cache
def trace():
    return tiny_nets.forward(net().params, IMAGES[:4], architecture=NET)[1]


def check(mean):
    return {"mean": mean, "std": 0.0, "num": 4}


def checks(same, kept):
    """What `summarize` gives, as far as the sentence reads it."""
    cells = {"deconvnet": check(same), "gradient": check(-0.001)}
    rows = (
        "best class and worst class",
        "best class and worst class, untrained net",
        "strongest unit and weakest unit",
    )
    units = dict.fromkeys(rows, cells)
    return {"units": units, "switches": {"strongest unit, switches of another image": {"deconvnet": check(kept)}}}


@pytest.mark.usefixtures("undrawn")
def test_a_picture_is_that_of_the_method_for_the_unit_that_was_asked():
    top = np.eye(3, dtype=np.float32)[np.asarray(trace()["fc7"].features).argmax(axis=1)]
    for name, method in sanity.METHODS.items():
        expected = method(net().params, trace(), top, layer="fc7", architecture=NET)
        np.testing.assert_allclose(drawn()["units"]["best class"][name], expected, rtol=1e-4, atol=1e-6)
    features = trace()["conv2"].features
    strongest = zfjax.isolate(features, channel=features.max(axis=(1, 2)).argmax(axis=1))
    expected = zfjax.project(net().params, trace(), strongest, layer="conv2", architecture=NET)
    np.testing.assert_allclose(drawn()["units"]["strongest unit"]["deconvnet"], expected, rtol=1e-4, atol=1e-6)
    of = drawn()["units"]["best class"]
    np.testing.assert_array_equal(of["gradient x input"], of["gradient"] * IMAGES[:4])
    np.testing.assert_array_equal(of["edges alone"][..., 1], sanity.edges(IMAGES[:4]).astype(of["edges alone"].dtype))


def test_weights_drawn_anew_change_the_forward_pass_and_the_way_down():
    """The class is the one that the trained net finds most probable; switches and masks are the new net's."""
    stages = dict(sanity.cascade(net().params, jax.random.key(3), architecture=NET))
    assert list(stages) == list(drawn()["anew"]) == LAYERS
    new, untrained = (tiny_nets.forward(stages[name], IMAGES[:4], architecture=NET)[1] for name in ("conv2", "conv1"))
    top = sanity.class_tops(trace()["fc7"].features)[0]
    expected = zfjax.gradient(stages["conv2"], new, top, layer="fc7", architecture=NET)
    np.testing.assert_allclose(drawn()["anew"]["conv2"]["gradient"], expected, rtol=1e-3, atol=1e-5)
    top = sanity.class_tops(untrained["fc7"].features)[0]
    expected = zfjax.gradient(stages["conv1"], untrained, top, layer="fc7", architecture=NET)
    np.testing.assert_allclose(drawn()["untrained"]["best class"]["gradient"], expected, rtol=1e-3, atol=1e-5)
    assert (
        tiny_nets.relative_error(drawn()["anew"]["fc7"]["gradient"], drawn()["units"]["best class"]["gradient"]) > 0.1
    )


def test_wrong_switches_are_read_on_the_way_down_alone():
    strongest = sanity.neuron_tops(trace()["conv2"].features)[0]
    wrong = {"of another image": sanity.exchanged(trace()), "in the middle": sanity.centered(trace(), architecture=NET)}
    for how, changed in wrong.items():
        expected = zfjax.project(net().params, changed, strongest, layer="conv2", architecture=NET)
        found = drawn()["switches"][f"strongest unit, switches {how}"]["deconvnet"]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_scores_are_the_measures_of_the_pictures():
    """Made-up pictures: equal, opposite, reordered."""
    rng = np.random.default_rng(1)
    images, picture = (rng.normal(size=(2, 6, 6, 3)) for _ in range(2))
    factors = {"best class": 1, "worst class": 5, "strongest unit": 1, "weakest unit": -2}
    units = {unit: {"deconvnet": factor * picture} for unit, factor in factors.items()}
    made = {
        "units": units,
        "untrained": {unit: {"deconvnet": np.zeros_like(picture)} for unit in units},
        "anew": {"fc7": {"deconvnet": picture**3}, "conv1": {"deconvnet": -picture}},
        "switches": {"strongest unit, switches in the middle": {"deconvnet": 3 * picture}},
    }
    scores = sanity.compare(made, images)
    found = {f"{group}: {row}": cells["deconvnet"] for group, rows in scores.items() for row, cells in rows.items()}
    expected = {
        "units: best class and worst class": 1,
        "units: best class and worst class, untrained net": np.nan,
        "units: strongest unit and weakest unit": -1,
        "units: strongest unit and weakest unit, untrained net": np.nan,
        "switches: strongest unit, switches in the middle": 1,
        "signed: fc7": 1,
        "signed: conv1": -1,
        "absolute: fc7": 1,
        "absolute: conv1": 1,
        "image: edges of the image": sanity.spearman(np.abs(picture).sum(axis=-1), sanity.edges(images)),
        "image: the image itself": sanity.spearman(picture, images),
    }
    assert list(found) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], np.broadcast_to(value, 2), atol=1e-9, err_msg=name)


def test_a_mean_is_over_the_images_whose_pictures_can_be_compared():
    cells = {"a": np.array([1.0, np.nan, 0.5]), "b": np.full(3, np.nan)}
    found = sanity.summarize({"units": {"row": cells}})["units"]["row"]
    assert found == {"a": {"mean": 0.75, "std": 0.25, "num": 2}, "b": {"mean": None, "std": None, "num": 0}}


@pytest.mark.usefixtures("undrawn")
def test_batches_of_any_size_give_the_same_scores():
    """Three images, two at once: the last batch is filled up, and what fills it is left out."""
    kernel, images = np.random.default_rng(0).normal(size=(3, 4)), np.random.default_rng(1).random((3, 6, 8, 3))
    net = nets.FunctionNet(lambda of, images: {"maps": jax.nn.relu(images @ of)}, kernel, image_size=(6, 8))
    whole, shown = sanity.check_all(net, images.astype(np.float32), layer="maps", seed=0)
    some, shown_of_some = sanity.check_all(net, images.astype(np.float32), layer="maps", seed=0, at_once=2)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), some, whole)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6), shown_of_some, shown)
    assert whole["image"]["the image itself"]["deconvnet"].shape == (3,)


def test_the_command_writes_table_pictures_and_result_and_overwrites_only_when_told(trained):
    result = _run(trained, num_images=4, seed=3)
    out = trained.run / "figures" / "sanity" / "seed3-num-images4"
    pages = {"pictures.png", "table.png"}
    assert {path.name for path in out.iterdir()} - {".lock"} == {"result.json", "scores.npz", *pages}
    written = json.loads((out / "result.json").read_text())
    assert written["layer"] == "conv2" and written["paper"] is None and len(written["images"]) == 4
    units = written["checks"]["units"]["best class and worst class"]
    for method in sanity.METHODS:  # the classes of this net read the layer below alike
        np.testing.assert_allclose(units[method]["mean"], 1, rtol=1e-5)
    assert list(written["checks"]["signed"]) == LAYERS and list(written["checks"]["absolute"]) == LAYERS
    assert written["checks"]["signed"]["conv1"]["edges alone"]["mean"] == pytest.approx(1)
    assert written["sentence"] == sanity_page.sentence(result["checks"]) and "1.00" in written["sentence"]
    arrays = np.load(out / "scores.npz")
    assert arrays["names"].tolist() == written["images"] and arrays["indices"].tolist() == written["indices"]
    values = arrays["switches / best class, switches of another image / deconvnet"]
    row = written["checks"]["switches"]["best class, switches of another image"]["deconvnet"]
    assert len(values) == 4 and row["mean"] == pytest.approx(np.nanmean(values))
    for name in pages:
        with Image.open(out / name) as page:
            assert page.size[0] <= 1500 and (out / name).stat().st_size < 1_000_000
    with pytest.raises(ValueError, match="already holds a result; give another folder, or --overwrite"):
        _run(trained, num_images=4, seed=3)


@pytest.mark.usefixtures("undrawn")
def test_one_image_has_no_other_to_take_switches_from(trained):
    result = _run(trained, num_images=1, layer="fc6")
    assert list(result["checks"]["switches"]) == [
        "best class, switches in the middle",
        "strongest unit, switches in the middle",
    ]
    assert "another image's switches undefined." in result["sentence"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"num_images": 0}, "num_images=0: at least 1"), ({"layer": "conv9"}, "layer='conv9': one of")],
)
def test_bad_configurations_are_refused_before_anything_is_written(trained, changes, message):
    with pytest.raises(ValueError, match=message):
        _run(trained, **changes)
    assert not [path for path in (trained.run / "figures").rglob("*.*") if path.name != ".lock"]


@pytest.mark.parametrize(
    ("same", "kept", "verdict"),
    [
        (0.9, 0.1, "what passed the switches and ReLU masks more than which unit was asked"),
        (0.9, 0.8, "shows the image more than which unit was asked"),
        (0.2, 0.1, "tells units apart, though most of it is carried by the switches"),
        (0.2, 0.8, "tells units apart, and not by its switches alone"),
    ],
)
def test_the_sentence_follows_from_the_numbers(same, kept, verdict):
    told = sanity_page.sentence(checks(same, kept))
    assert told.endswith(f"{verdict}.")
    assert f"worst class {same:.2f} (untrained net {same:.2f}; gradient 0.00)" in told
    assert f"another image's switches {kept:.2f}" in told
    assert sanity_page.sentence(checks(None, kept)).endswith(f"switches {kept:.2f}.")


def test_the_table_prints_and_draws_each_number_in_its_column():
    table = {
        "units": {"one row": {"deconvnet": check(1.0), "gradient": check(-0.004)}},
        "signed": {"fc8": {"deconvnet": check(0.25)}},
        "absolute": {"fc8": {"deconvnet": check(None)}},
    }
    lines = sanity_page.table_lines(table)
    assert lines[0].split() == [
        "deconvnet",
        "guided",
        "backprop",
        "gradient",
        "gradient",
        "x",
        "input",
        "edges",
        "alone",
    ]
    assert lines[2].split() == ["one", "row", "1.00", "-", "0.00", "-", "-"]
    assert lines[4].split() == ["fc8", "0.25", "(undefined)", "-", "-", "-", "-"]
    panel = sanity_page.table_panel(table)
    assert panel.shape == (5 * sanity_page.ROW, sanity_page.LABEL + 5 * sanity_page.CELL, 3)
    y = 2 * sanity_page.ROW + 4
    shades = [panel[y, sanity_page.LABEL + column * sanity_page.CELL + 5].tolist() for column in range(3)]
    assert shades[0][0] < 100 and shades[1] == [255, 255, 255] and shades[2][0] > 240


def test_every_page_says_what_such_pictures_do_not_show():
    result = {
        "layer": "conv2",
        "asked": "best class",
        "sentence": "A sentence.",
        "images": ["a.png", "b.png", "c.png", "d.png"],
        "checks": checks(0.5, 0.5),
        "not_applicable": {"best class": "it has none"},
    }
    page = sanity_page.pictures_page(drawn(), CENTRES[:4], result)
    words = " ".join(text.get_text() for text in page.texts)
    assert "A sentence." in words and "Left out: best class, as it has none." in words


def test_pictures_of_units_that_no_image_excites_are_called_blank():
    params = {**net().params, "conv2": {name: -np.abs(w) for name, w in net().params["conv2"].items()}}
    dead = dataclasses.replace(net(), params=params)
    units = sanity.project_all(dead, IMAGES[:4], layer="conv2", key=jax.random.key(3))["units"]
    expected = "None of these images excites conv2: the pictures of its units are blank"
    assert sanity_page.units_heading(units, "conv2") == expected
    units = drawn()["units"]
    assert sanity_page.units_heading(units, "conv2") == "Two active units of one place of conv2"
    alone = {method: of * np.array([1, 1, 0, 1]).reshape(4, 1, 1, 1) for method, of in units["weakest unit"].items()}
    heading = sanity_page.units_heading({**units, "weakest unit": alone}, "conv2")
    assert heading == "Two active units of one place of conv2; blank where there are not two"


def foreign(name, tmp_path, **changes):
    pictures = foreign_nets.folder(tmp_path / "pictures")
    config = sanity_checks.Config(
        net=f"foreign_nets:{name}", data=str(pictures), out=tmp_path / "out", num_images=3, **changes
    )
    return sanity_checks.run(config), dict(np.load(tmp_path / "out" / "scores.npz"))


def test_a_net_whose_images_are_not_square_has_the_groups_that_a_function_can_have(tmp_path):
    result, scores = foreign("SMALL", tmp_path)
    assert list(result["checks"]) == list(result["meanings"]) == ["units", "signed", "absolute", "image"]
    assert list(result["not_applicable"]) == ["wrong switches", "layer by layer drawn anew"]
    assert list(result["checks"]["signed"]) == [sanity.ALL_LAYERS]
    headings = [words for words, cells, _ in sanity_page.table_rows(result["checks"]) if not cells]
    assert headings[1].endswith(", all weights drawn anew")
    assert result["layer"] == "conv2" and result["asked"] == "best class"
    assert all(name.split("/")[-1].startswith("picture ") for name in result["images"])
    assert "switches" not in result["sentence"] and "untrained net" in result["sentence"]
    lines = sanity_page.table_lines(result["checks"])
    assert not any(sanity_page.GROUPS["switches"] in line for line in lines)
    table = sanity_page.table_page(result)
    words = " ".join(text.get_text() for text in table.texts).replace("\n", " ")
    assert "Left out: wrong switches, as small is a function" in words and "in another order" in words
    for name in ("table.png", "pictures.png"):
        with Image.open(tmp_path / "out" / name) as page:
            edge = np.array(page.convert("RGB"))
        edge[12:-12, 12:-12] = 255
        assert edge.min() >= 250


def test_a_layer_that_is_not_there_is_named():
    with pytest.raises(zfjax.UserError, match="layer='conv9': one of conv1"):
        sanity.check_all(net(), IMAGES, layer="conv9", seed=0)


@pytest.mark.usefixtures("undrawn")
def test_the_gradient_of_a_class_is_that_of_its_logit_and_a_unit_is_projected_by_the_net():
    net = foreign_nets.SMALL
    images = np.random.default_rng(0).random((2, 20, 28, 3), np.float32)
    drawn = sanity.project_all(net, images, layer="conv2", key=jax.random.key(0))
    logits = np.asarray(foreign_nets.answers(net.params, images)["logits"])

    def lowest(images):
        return jnp.take_along_axis(
            foreign_nets.answers(net.params, images)["logits"], logits.argmin(axis=1)[:, None], axis=1
        ).sum()

    expected = jax.grad(lowest)(jnp.asarray(images))
    np.testing.assert_allclose(drawn["units"]["worst class"]["gradient"], expected, rtol=1e-4, atol=1e-6)
    maps = np.asarray(foreign_nets.answers(net.params, images)["conv2"])
    for n, of_image in enumerate(maps):
        row, column, channel = np.unravel_index(of_image.argmax(), of_image.shape)
        unit = zfjax.Unit(int(channel), (int(row), int(column)))
        projected = net.project(images[n : n + 1], unit, layer="conv2")[0]
        found = drawn["units"]["strongest unit"]["deconvnet"][n]
        np.testing.assert_allclose(found, projected, rtol=1e-4, atol=1e-5 * np.abs(projected).max())


def test_weights_of_a_function_are_drawn_anew_by_putting_each_arrays_values_in_another_order():
    params = {"kernel": np.arange(12.0).reshape(3, 4), "steps": np.arange(3)}
    drawn = sanity.shuffled(params, jax.random.key(0))
    assert not np.array_equal(drawn["kernel"], params["kernel"])
    np.testing.assert_array_equal(np.sort(np.ravel(drawn["kernel"])), np.arange(12.0))
    np.testing.assert_array_equal(drawn["steps"], params["steps"])
    again, other = (np.asarray(sanity.shuffled(params, jax.random.key(seed))["kernel"]) for seed in (0, 1))
    np.testing.assert_array_equal(again, drawn["kernel"])
    assert not np.array_equal(other, drawn["kernel"])


def test_a_function_that_holds_its_weights_has_none_that_could_be_drawn_anew(tmp_path):
    result, _ = foreign("nnx_convnet", tmp_path)
    assert list(result["checks"]) == ["units", "image"]
    assert "weights drawn anew" in result["not_applicable"]
    assert not any("untrained" in row for row in result["checks"]["units"])


@pytest.mark.parametrize("net", [pytest.param("MAPS_ONLY", marks=pytest.mark.slow), "EMBEDDING"])
def test_a_net_without_classes_has_its_units_compared_and_its_strongest_unit_drawn_anew(net, tmp_path):
    result, scores = foreign(net, tmp_path)
    assert list(result["checks"]["units"]) == [
        "strongest unit and weakest unit",
        "strongest unit and weakest unit, untrained net",
    ]
    assert result["asked"] == "strongest unit" and "best and worst class" in result["not_applicable"]
    assert "best" not in result["sentence"]
    assert np.isfinite(scores["signed / all layers / deconvnet"]).all()
