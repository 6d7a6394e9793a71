"""The atlas: right numbers and pictures of every unit, a site that is whole, text that stays text, clear refusals."""

import base64
import dataclasses
import io
import json
import re
from pathlib import Path

import foreign_nets
import jax
import numpy as np
import pytest
from judges import check_keys
from PIL import Image
from tiny_run import CENTRES, NET, NUM, PICTURES, make_data, make_net, make_params

import zfjax
from experiments import atlas as command
from zfjax import atlas, files, nets, pixels
from zfjax.analyses import robust_ascent
from zfjax.architecture import Conv, Dense
from zfjax.atlas import drawing, measures, site, sprites
from zfjax.data import ArraySource, ImageSet, demo
from zfjax.deconvnet import WAYS

OPTIONS = {
    "layers": ("conv1", "conv2"),
    "ways": ("deconvnet", "guided"),
    "num_images": 4,
    "batch_size": 8,
    "progress": False,
}


def make(out, net=None, images=None, **changes):
    return atlas.build(net or make_net(), make_data() if images is None else images, out, **{**OPTIONS, **changes})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make(tmp_path_factory.mktemp("atlas"), grey=True)


ORDER = [2, 0, 5, 1, 4, 3]


def changed(fingerprint, change):
    """The tiny net with other filters in conv1."""
    params = make_params()
    params["conv1"] = {name: change(array) for name, array in params["conv1"].items()}
    return nets.TrainedNet(**{**vars(make_net()), "params": params, "fingerprint": fingerprint})


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """With a second network whose maps stand in another order, an earlier epoch, and occlusion maps."""
    other, early = changed("other", lambda of: of[..., ORDER]), changed("early", lambda of: of / 2)
    more = {"compare": other, "epochs": {1: early, 7: make_net()}, "num_occluded": 2}
    return make(tmp_path_factory.mktemp("full"), layers=("conv1", "fc7"), ways=("deconvnet",), **more)


def read(made, name):
    """What a script of the site hands over."""
    text = (made.folder / "data" / f"{name}.js").read_text()
    own, value = json.loads(re.fullmatch(r"atlas\(\.\.\.(.*)\);\n", text)[1])
    assert own == name
    return value


def opened(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def tile(made, name, n, side):
    """Tile n of a sheet of four."""
    sheet = opened(made.folder / name)
    return sheet[n // 2 * side :, n % 2 * side :][:side, :side]


def maps(layer):
    features = make_net().features([layer])(CENTRES.astype(np.float32) - 120)[layer]
    return np.asarray(features).reshape(NUM, -1, features.shape[-1])


def test_each_unit_shows_the_images_that_excite_it_most(made):
    for number, layer in enumerate(["conv1", "conv2"]):
        strongest = maps(layer).max(axis=1)
        for unit, record in enumerate(read(made, f"layer-{number}")):
            best = np.argsort(-strongest[:, unit], kind="stable")[:4]
            best = best[strongest[best, unit] != 0]
            assert record["images"] == best.tolist()
            np.testing.assert_allclose(record["values"], strongest[best, unit], rtol=1e-3)


def test_a_tile_is_the_patch_and_the_projection_of_one_activation(made):
    record = read(made, "layer-0")[2]
    field, scale = zfjax.receptive_field(NET, "conv1"), record["scales"][0]
    whole = make_net().project(
        (CENTRES[record["images"]] - np.float32(120)), zfjax.Unit(np.full(4, 2)), layer="conv1", of=np.arange(4)
    )
    for n, (index, box) in enumerate(zip(record["images"], record["boxes"], strict=True)):
        fill = np.uint8(224)
        np.testing.assert_array_equal(
            tile(made, "img/0/2-patch.webp", n, field.size), pixels.cut(CENTRES[index], tuple(box), fill)
        )
        expected = pixels.signed_pictures(pixels.cut(whole[n], tuple(box), 0.0), scale)
        seen = tile(made, "img/0/2-deconvnet.webp", n, field.size).astype(int)
        assert np.abs(seen - expected).max() <= 1  # the scale on the page has four digits


def test_a_dead_unit_is_called_dead_and_not_drawn(made):
    record = read(made, "layer-0")[1]
    assert record["images"] == [] and record["strength"] == 0 and record["sparsity"] is None
    assert read(made, "net")["layers"][0]["dead"] == 1
    assert not list(made.folder.glob("img/0/1-*"))
    assert "no image excites it" in made.unit("conv1", 1)._repr_html_()


def test_a_notebook_shows_the_tiles_apart_and_keeps_names_to_themselves(made):
    html = made.unit("conv1", 2)._repr_html_()
    assert made.unit(zfjax.Unit(2, layer="conv1"))._repr_html_() == html
    assert "<bdi>conv1</bdi> / <bdi>map 2</bdi></strong> of <bdi>" in html
    first = re.search(r"base64,([^\"]+)", html)[1]
    shown, side, times = opened(io.BytesIO(base64.b64decode(first))), 7, 60 // 7
    assert shown.shape == (2 * side * times + 2, 2 * side * times + 2, 3) and (shown[:, side * times] == 255).all()
    second = shown[: side * times, side * times + 2 :]
    np.testing.assert_array_equal(second[::times, ::times], tile(made, "img/0/2-patch.webp", 1, side))
    assert "<bdi>" in made._repr_html_()


def test_a_logit_that_is_always_below_zero_is_not_dead(tmp_path):
    net = nets.FunctionNet(lambda images: {"logits": -1 - images.mean((1, 2))}, image_size=20, name="below")
    made = atlas.build(net, CENTRES[:3], tmp_path, ways=("gradient",), progress=False)
    assert made.facts["layers"][0]["dead"] == 0 and made.layers["logits"][0]["strength"] < 0
    assert len(made.facts["layers"][0]["strongest"]) == 3


def test_what_has_no_colours_loses_none(tmp_path):
    net = nets.FunctionNet(lambda images: {"maps": images[:, ::2, ::2]}, image_size=20, channels=1, name="grey")
    made = atlas.build(net, CENTRES[:3, ..., :1], tmp_path, ways=("gradient",), grey=True, progress=False)
    assert made.layers["maps"][0]["grey"] is None


def test_fewer_pictures_than_asked_for_fill_their_sheet_and_keep_a_share_in_grey(tmp_path):
    made = make(tmp_path, **two_labels([0, 1, 0, 1]), layers=("map",), ways=("gradient",), num_images=10**9, grey=True)
    assert opened(made.folder / "img/0/0-patch.webp").shape == (2 * 3, 2 * 3, 3)
    assert all(0 < unit["grey"] < 2 for unit in made.layers["map"])


def test_what_is_not_there_of_the_strongest_has_no_value():
    values = np.array([[3], [2]], np.float32)
    of = measures.measure(values, np.ones((2, 1), np.int32), np.zeros(2, int), k=4, num_classes=1, size=(1, 2))
    assert of.images.tolist() == [[0, 1, -1, -1]] and of.values.tolist() == [[3, 2, 0, 0]]


def test_a_picture_that_leaves_a_unit_at_zero_takes_no_tile_of_another(tmp_path):
    levels = np.array([40, 20, 30], np.uint8)  # the mean less 30 is 10, -10, 0
    net = nets.FunctionNet(lambda images: {"mean": images.mean((1, 2)) - 30}, image_size=8, preprocess=lambda of: of)
    made = make(tmp_path, net=net, images=np.full((3, 8, 8, 3), levels[:, None, None, None]), layers=(), num_images=3)
    assert made.layers["mean"][0]["images"] == [0, 1] and made.layers["mean"][0]["values"] == [10, -10]
    tiles = opened(made.folder / "img/0/0-patch.webp").reshape(2, 8, 2, 8, 3)[0, 0, :, 0, 0]
    np.testing.assert_array_equal(tiles, [40, 20])


def test_a_net_without_maps_shows_all_of_its_layers(tmp_path):
    def fn(images):
        hidden = jax.nn.relu(images.mean((1, 2)))
        return {"hidden": hidden, "logits": hidden[:, ::2]}

    made = make(tmp_path, net=nets.FunctionNet(fn, image_size=20), images=CENTRES[:3], layers=())
    assert list(made.layers) == ["hidden", "logits"]


def test_a_notebook_says_which_way_is_only_rounding(made):
    layers = {**made.layers, "conv1": [{**unit, "scales": [None, 2.0]} for unit in made.layers["conv1"]]}
    shown = dataclasses.replace(made, layers=layers).unit("conv1", 2)
    assert "deconvnet is nothing but rounding, guided ±2" in shown._repr_html_()


def test_projections_of_four_channels_are_said_to_be_drawn_grey(made, tmp_path):
    words = "Projections and filters have 4 channels: their mean is drawn, in grey."
    pictures = np.random.default_rng(0).integers(0, 256, (3, 20, 28, 4), np.uint8)
    rgba = atlas.build(foreign_nets.RGBA, pictures, tmp_path, layers=("conv1",), ways=("gradient",), progress=False)
    assert read(rgba, "net")["in_grey"] == words and words in rgba.unit("conv1", 0)._repr_html_()
    assert read(made, "net")["in_grey"] == "" and "channels" not in made.unit("conv1", 2)._repr_html_()


def test_grey_images_keep_the_share_of_the_activation_that_colours_do_not_make(made):
    units = read(made, "layer-0")
    luma = np.floor(CENTRES @ np.array([0.299, 0.587, 0.114]) + 0.5)
    grey = np.repeat(luma[..., None], 3, axis=3).astype(np.float32)
    after = np.asarray(make_net().features(["conv1"])(grey - 120)["conv1"]).max(axis=(1, 2))
    for unit in (0, 3):
        share = after[units[unit]["images"], unit].sum() / sum(units[unit]["values"])
        assert units[unit]["grey"] == pytest.approx(share, rel=2e-3)


def test_the_site_is_what_its_manifest_names_and_asks_no_other_host(made):
    manifest = site.read(made.folder)["files"]
    lying = {str(path.relative_to(made.folder)) for path in made.folder.rglob("*") if path.is_file()}
    assert {name for name in lying if not name.startswith("scan/")} == {*manifest, "manifest.json"}
    for name in manifest:
        if name.endswith((".html", ".js", ".css")):
            text = (made.folder / name).read_text().replace("http://www.w3.org/2000/svg", "")
            assert not re.search(r"https?:|//[a-z]|@import|\bfetch\(|type=.module", text.replace("  //", "")), name


def test_what_is_there_is_not_drawn_again(made, tmp_path, monkeypatch):
    first = make(tmp_path)
    monkeypatch.setattr(sprites, "draw", None)
    again = make(tmp_path)
    assert again.layers == first.layers
    assert site.read(tmp_path)["files"].keys() == site.read(made.folder)["files"].keys()


def test_another_net_in_the_same_folder_is_drawn_anew(tmp_path):
    make(tmp_path)
    other = changed("other", lambda of: -of)
    second, fresh = (make(out, net=other, layers=("conv1",)) for out in (tmp_path, tmp_path / "fresh"))
    for path in (tmp_path / "fresh" / "img").rglob("*.webp"):
        name = path.relative_to(tmp_path / "fresh")
        assert (tmp_path / name).read_bytes() == path.read_bytes()
    assert second.layers == fresh.layers
    assert not (tmp_path / "img" / "1").exists() or not list((tmp_path / "img" / "1").iterdir())


def test_a_scan_that_was_stopped_goes_on(made, tmp_path):
    class Stops(ArraySource):
        def __getitem__(self, index):
            if index >= 16 and stops:
                raise KeyboardInterrupt
            seen.append(index)
            return super().__getitem__(index)

    stops, seen, data = True, [], make_data()
    source = Stops(PICTURES, np.zeros(NUM, int))
    data = ImageSet(**{**vars(data), "validation": source})
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, images=data, save_every=0.0)
    state = json.loads(next(tmp_path.glob("scan/atlas-*/state.json")).read_text())
    assert state["done"] in (8, 16)  # batches are read ahead
    stops = False
    seen.clear()
    whole = make(tmp_path, images=data)
    assert min(seen) == 0 and sorted(set(seen))  # the strongest images are read again, to be drawn
    stripped = [{**record, "grey": None} for record in made.layers["conv2"]]
    assert [dict(record) for record in whole.layers["conv2"]] == stripped


def test_units_of_a_second_network_are_matched(full):
    for unit, record in enumerate(read(full, "layer-0")):
        if unit == 1:
            assert record["match"] is None  # it is dead
        else:
            assert record["match"] == [ORDER.index(unit), pytest.approx(1, abs=1e-3)]
    compare = read(full, "net")["compare"]
    tile = read(full, "net")["layers"][0]["tile"]
    assert compare["layers"]["conv1"] == {"number": 0, "mean": pytest.approx(1, abs=1e-3), "tile": tile}
    assert (full.folder / compare["folder"] / "index.html").exists()
    own, match = (full.folder / "img/0/2-patch.webp", full.folder / "compare/img/0/0-patch.webp")
    assert own.read_bytes() == match.read_bytes()


def test_a_second_network_is_shown_by_a_way_that_it_has_and_goes_when_it_is_not_asked_for(tmp_path):
    def of_rectifier(rectifier):
        return nets.FunctionNet(lambda images: {"maps": rectifier(images[:, ::2, ::2] - 0.5)}, image_size=20)

    relu, silu = of_rectifier(jax.nn.relu), of_rectifier(jax.nn.silu)
    compared = make(tmp_path, net=relu, images=CENTRES[:3], layers=(), compare=silu).facts["compare"]
    assert compared["way"] == "gradient"
    assert all((tmp_path / "compare" / site.sheet_of(0, unit, "gradient")).exists() for unit in range(3))
    assert make(tmp_path, net=relu, images=CENTRES[:3], layers=()).facts["compare"] is None
    assert not list((tmp_path / "compare").rglob("*.webp"))


def test_an_epoch_shows_the_unit_as_it_was(full):
    assert read(full, "net")["epochs"] == [1, 7]
    record = read(full, "layer-0")[2]
    early, late, scale = record["epochs"]
    assert late == pytest.approx(record["values"][0], rel=1e-3) and early == pytest.approx(late / 2, rel=1e-3)
    image = CENTRES[record["images"][:1]] - np.float32(120)
    whole = make_net().project(image, zfjax.Unit(2), layer="conv1")[0]
    seen = opened(full.folder / "img/0/2-epochs.webp")[:, 20:].astype(int)  # the second of two
    assert np.abs(seen - pixels.signed_pictures(whole, scale)).max() <= 1


def test_an_occlusion_map_is_the_probability_of_what_the_net_says(full):
    images = {index: of for index, of in read(full, "images-0").items() if "occlusion" in of}
    assert list(map(int, images)) == sorted(map(int, read(full, "images-0")))[:2]
    index, found = next(iter(images.items()))
    of, image = found["occlusion"], CENTRES[int(index)] - np.float32(120)
    net, (rows, columns) = make_net(), of["shape"]
    hidden = image.copy()
    hidden[: of["square"], : of["square"]] = image.mean(axis=(0, 1))

    def says(image):
        logits = np.asarray(net.features(["fc7"])(image[None])["fc7"])[0]
        return np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()

    best = says(image).argmax()
    assert of["class"] == nets.logit_names(net)[best] and len(of["chance"]) == rows * columns
    assert of["whole"] == pytest.approx(says(image)[best], rel=1e-3) and of["corners"][0] == [0, 0]
    assert of["chance"][0] == pytest.approx(says(hidden)[best], rel=2e-3)


def test_any_function_has_an_atlas(tmp_path):
    kernel = np.random.default_rng(0).normal(size=(3, 3, 3, 4)).astype(np.float32)

    def fn(images):
        maps = jax.nn.relu(
            jax.lax.conv_general_dilated(images, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        )
        return {"a/b": maps, "logits": maps.mean(axis=(1, 2))}

    net = nets.FunctionNet(fn, image_size=(12, 16), name="mine")
    pictures = np.random.default_rng(1).integers(0, 256, (6, 12, 16, 3), np.uint8)
    made = make(tmp_path, net=net, images=pictures, layers=())
    net_facts = read(made, "net")
    assert [layer["name"] for layer in net_facts["layers"]] == ["a/b", "logits"]
    assert net_facts["layers"][0]["field"] == 3 and not net_facts["layers"][0]["sees_all"]  # by its program
    assert net_facts["layers"][1]["field"] is None and net_facts["layers"][1]["sees_all"]
    top, left, bottom, right = read(made, "layer-0")[0]["boxes"][0]
    assert (bottom - top, right - left) == (3, 3) and "inputs" not in read(made, "layer-0")[0]
    assert read(made, "layer-1")[0]["boxes"][0] == [0, 0, 12, 16]
    assert opened(tmp_path / "img/1/0-patch.webp").shape == (24, 32, 3)
    assert made.unit("a/b", 2)._repr_html_().count("data:image/webp;base64,") == 3


def two_labels(labels, **changes):
    """A small function, and pictures with these labels."""
    kernel = np.random.default_rng(0).normal(size=(3, 3, 3, 2)).astype(np.float32)

    def fn(images):
        maps = jax.nn.relu(
            jax.lax.conv_general_dilated(images, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        )
        return {"map": maps, "logits": maps.mean(axis=(1, 2))}

    pictures = np.random.default_rng(1).integers(0, 256, (len(labels), 8, 8, 3), np.uint8)
    return {"net": nets.FunctionNet(fn, image_size=8, **changes), "images": ArraySource(pictures, np.array(labels))}


def test_labels_without_names_are_classes_by_number(tmp_path):
    made = make(tmp_path, **two_labels([0, 2, 2, 0]), layers=(), ways=("gradient",))
    assert made.facts["data"]["classes"] == ["0", "1", "2"]
    assert all(sorted(record["classes"]) == [[0, 2], [2, 2]] for record in made.layers["map"])


def test_a_label_beyond_the_classes_is_refused(tmp_path):
    with pytest.raises(zfjax.UserError, match="label 7, where there are 2 classes, 0 to 1"):
        make(tmp_path, **two_labels([0, 7], class_names=("a", "b")), layers=())


NASTY = ("</script><script>alert(1)</script>", "a\"b'c&amp;", "שלום <b>", "🦊\u2028\u2029")


def test_names_of_strangers_stay_text():
    text = site.script("x", {"names": NASTY}).decode()
    assert text.isascii() and not set("<>&\u2028") & set(text)
    assert json.loads(text[len("atlas(...") : -3])[1]["names"] == list(NASTY)
    page = site.page("index.html.j2", title=NASTY[0])
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page
    view = site.page("unit.html.j2", net=NASTY[0], layer=NASTY[0], name=NASTY[0], facts="", pictures=[], scales="")
    assert "<script" not in view


def reference_measures(values, labels, num_classes):
    rows = []
    for column in values.T:
        active = np.maximum(column, 0).astype(float)
        means = [active[labels == label].mean() if (labels == label).any() else -np.inf for label in range(num_classes)]
        best = int(np.argmax(means))
        rest = active[labels != best].mean()
        n = len(column)
        sparsity = (1 - active.mean() ** 2 / (active**2).mean()) / (1 - 1 / n)
        rows.append((column.max(), sparsity, (means[best] - rest) / (means[best] + rest), best))
    return np.array(rows).T


def test_measures_are_those_of_a_slow_reference():
    rng = np.random.default_rng(0)
    values, labels = rng.normal(1, 2, (40, 5)).astype(np.float32), rng.integers(0, 3, 40).astype(np.int32)
    places = rng.integers(0, 20 * 10, (40, 5)).astype(np.int32)
    of = measures.measure(values, places, labels, k=3, num_classes=4, size=(20, 10))
    strength, sparsity, selectivity, best = reference_measures(values, labels, 4)
    np.testing.assert_allclose(of.strength, strength)
    np.testing.assert_allclose(of.sparsity, sparsity, rtol=1e-5)
    np.testing.assert_allclose(of.selectivity, selectivity, rtol=1e-5)
    np.testing.assert_array_equal(of.best_class, best)
    assert (of.histogram.sum(axis=1) == 40).all() and (of.where.sum(axis=(1, 2)) == (values > 0).sum(axis=0)).all()
    row, column = divmod(int(places[np.flatnonzero(values[:, 0] > 0)[0], 0]), 10)
    assert of.where[0, row * 7 // 20, column * 7 // 10] > 0
    order = np.argsort(-values[:, 2])
    expected = np.bincount(labels[order[values[order, 2] > 0][:50]], minlength=4)
    np.testing.assert_array_equal(of.top_classes[2], expected)


def test_one_image_that_excites_a_unit_is_sparse_and_images_without_classes_select_nothing():
    values = np.zeros((10, 2), np.float32)
    values[3, 0], values[:, 1] = 5, 2
    of = measures.measure(values, values.astype(np.int32) * 0, np.full(10, -1), k=9, num_classes=0, size=(1, 1))
    np.testing.assert_allclose(of.sparsity, [1, 0], atol=1e-6)
    assert of.images[0].tolist() == [3] + [-1] * 8 and np.isnan(of.selectivity).all() and (of.best_class == -1).all()


def test_wiring_is_the_norm_of_what_a_unit_reads():
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 3, 2, 4)).astype(np.float32)
    seen = measures.wiring(Conv("c", 4, kernel=3, groups=2), kernel, 4)
    for unit, below in [(0, 1), (3, 2)]:
        weights = kernel[:, :, below % 2, unit]
        assert abs(seen[unit, below]) == pytest.approx(np.linalg.norm(weights), rel=1e-5)
        assert np.sign(seen[unit, below]) == np.sign(weights.sum())
    assert not seen[:2, 2:].any() and not seen[2:, :2].any()
    dense = rng.normal(size=(5 * 5 * 4, 3)).astype(np.float32)
    of_map = dense.reshape(5, 5, 4, 3)[:, :, 1, 2]
    assert abs(measures.wiring(Dense("d", 3), dense, 4)[2, 1]) == pytest.approx(np.linalg.norm(of_map), rel=1e-5)


def test_matched_units_go_together():
    rng = np.random.default_rng(0)
    first = rng.normal(size=(50, 4)).astype(np.float32)
    second = first[:, [2, 0, 1]] * 3 + 1
    first[:, 3] = 7
    unit, correlation = measures.matches(first, second)
    assert unit.tolist() == [1, 2, 0, -1]
    np.testing.assert_allclose(correlation[:3], 1, rtol=1e-5)


def test_no_unit_is_matched_with_one_that_never_changes():
    first = np.array([[0], [1], [2]], np.float32)
    unit, correlation = measures.matches(first, np.array([[5, 2], [5, 1], [5, 0]], np.float32))
    assert unit.tolist() == [1] and correlation == pytest.approx(-1)
    unit, correlation = measures.matches(first, np.zeros((3, 2), np.float32))
    assert unit.tolist() == [-1] and np.isnan(correlation).all()


def test_the_numbers_lie_beside_the_site(made):
    arrays = made.arrays("conv2")
    np.testing.assert_allclose(arrays["strength"], maps("conv2").max(axis=(0, 1)), rtol=1e-5)
    assert arrays.keys() == set(measures.Measured._fields)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"layers": ("conv9",)}, "layer='conv9': one of conv1, conv2"),
        ({"ways": ("down",)}, "ways="),
        ({"ways": ()}, "ways="),
        ({"num_images": 0}, "num_images=0"),
        ({"num_images": 2.5}, "num_images=2.5: a whole number"),
        ({"quality": 101}, "quality=101: 1 to 100"),
        ({"tile": "36"}, "tile='36': a whole number"),
        ({"layers": "conv1"}, "layers='conv1': a tuple"),
        ({"images": [1, 2]}, "entry 0 is a int"),
        ({"images": 7}, "images of type int"),
        ({"colour": 1}, "colour=1: one of layers"),
        ({"num_occluded": -1}, "num_occluded=-1"),
        ({"images": CENTRES[:2]}, "images of type uint8"),
        ({"images": PICTURES[:2] / 255}, "images of type float64"),
        ({"num_images": True}, "num_images=True"),
        ({"out": __file__}, "it is a file; give a folder"),
        ({"compare": make_net(), "compare_images": CENTRES[:2]}, "compare_images of type uint8"),
        ({"images": [{"image": PICTURES[0]}]}, "entry 0 is image: {'image', 'label', 'index'} are needed"),
        ({"images": [{"image": PICTURES[0], "label": "cat", "index": 0}]}, "the label 'cat': a whole number is needed"),
        ({"images": [{"image": PICTURES[0] / 255, "label": 0, "index": 0}]}, "images of type float64"),
    ],
)
def test_what_does_not_fit_is_refused(changes, words, tmp_path):
    with pytest.raises(zfjax.UserError, match=re.escape(words)):
        atlas.build(make_net(), **{"images": make_data(), "out": tmp_path, "progress": False, **changes})
    assert not list(tmp_path.iterdir())


def test_a_page_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(zfjax.UserError, match="holds an index.html that is no atlas"):
        make(tmp_path)
    assert (tmp_path / "index.html").read_text() == "mine"


def test_a_folder_of_somebody_else_s_photos_is_left_alone(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(zfjax.UserError, match="it holds holiday.jpg, and no atlas; give another folder"):
        make(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


def test_the_command_writes_a_site_and_says_what_it_took(tmp_path):
    net = make_net(tmp_path)
    config = command.Config(batch_size=8, num_images=4, layers=("conv1",), ways=("deconvnet",))
    result = command.run(config, net=net, data=make_data())
    check_keys(tmp_path)
    out = tmp_path / "atlas" / "conv1-ways-deconvnet-num-images4"
    assert (out / "index.html").exists() and json.loads((out / "result.json").read_text())["num_units"] == {"conv1": 6}
    assert result["num_images"] == NUM and result["bytes"] > 0 and list((tmp_path / "scans").glob("atlas-*/values.f32"))
    with pytest.raises(zfjax.UserError, match="it already holds a result"):
        command.run(config, net=net, data=make_data())


def test_webp_of_small_tiles_is_exact():
    tiles = np.random.default_rng(0).integers(0, 256, (9, 11, 11, 3), np.uint8)
    seen = opened(io.BytesIO(sprites.sheet(tiles)))
    np.testing.assert_array_equal(seen[11:22, 22:], tiles[5])


def test_the_energy_of_projections_is_compared_with_where_objects_and_parts_are(tmp_path):
    """Objects are the upper half, one part stands in the middle of the picture."""

    class Known(ArraySource):
        part_names = ("nose",)

        def __getitem__(self, index):
            upper = np.zeros((24, 24), bool)
            upper[:12] = True
            return {**super().__getitem__(index), "object": upper, "parts": np.full((1, 2), 12, np.float32)}

    data = ImageSet(**{**vars(make_data()), "validation": Known(PICTURES, np.zeros(NUM, int))})
    made = make(tmp_path, images=data, layers=("conv2",), ways=("deconvnet",))
    assert made.facts["parts"] == ["nose"]
    for unit, record in enumerate(made.layers["conv2"]):
        if not record["images"]:
            continue
        units = zfjax.Unit(np.full(len(record["images"]), unit))
        images = CENTRES[record["images"]] - np.float32(120)
        whole = make_net().project(images, units, layer="conv2", of=np.arange(len(images)))
        energy = np.square(whole).sum(axis=-1)
        energy = energy[energy.sum(axis=(1, 2)) > 0]
        rows, columns = np.mgrid[:20, :20] + 0.5 - 10
        near = rows**2 + columns**2 <= (20 / 12) ** 2
        shares = [(energy * there).sum(axis=(1, 2)) / energy.sum(axis=(1, 2)) for there in (rows < 0, near)]
        on, parts = record["object"], record["parts"]
        assert len(parts) == 1 and zfjax.receptive_field(NET, "conv2").size >= 20
        np.testing.assert_allclose([on[0], parts[0][0]], [share.mean() for share in shares], rtol=2e-3, atol=1e-5)
        np.testing.assert_allclose([on[1], parts[0][1]], [0.5, near.mean()], rtol=2e-3)


def test_an_ascent_from_each_start_stands_beside_the_projections(tmp_path, monkeypatch):
    few = robust_ascent.Options(steps=2)
    monkeypatch.setattr(robust_ascent, "Options", lambda: few)
    made = make(tmp_path, layers=("conv1",), ways=("deconvnet",), ascent=2)
    units, source = made.layers["conv1"], ArraySource(PICTURES, np.zeros(NUM, int))
    assert made.facts["ascent"] == 2 and units[1]["ascent"] is None  # it is dead
    colours = robust_ascent.colours_of(source)
    climbed = robust_ascent.climb(make_net(), [2, 4], layer="conv1", key=jax.random.key(0), starts=2, colours=colours)
    np.testing.assert_allclose(np.ravel([units[2]["ascent"], units[4]["ascent"]]), climbed.reached, rtol=2e-3)
    sheet = opened(tmp_path / "img/0/4-ascent.webp").astype(int)
    side = climbed.patches.shape[1]
    assert np.abs(sheet[:, side:] - climbed.patches[3]).max() <= 1
    monkeypatch.setattr(robust_ascent, "climb", None)
    assert make(tmp_path, layers=("conv1",), ways=("deconvnet",), ascent=2).layers == made.layers


def test_tiles_are_as_small_as_told(tmp_path):
    made = make(tmp_path, layers=("conv2",), ways=("deconvnet",), tile=10)
    assert made.facts["layers"][0]["tile"] == (10, 10)
    assert opened(next(tmp_path.glob("img/0/*-patch.webp"))).shape == (20, 20, 3)


def test_the_documentation_s_atlas_is_whole_and_small():
    folder = Path(__file__).parents[2] / "docs" / "atlas"
    manifest = site.read(folder)["files"]
    for name, facts in manifest.items():
        assert files.hash_of((folder / name).read_bytes()) == facts["blake2b"]
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 3_000_000
    assert manifest.keys() >= {"index.html", "atlas.js", "atlas.css", "data/net.js", "data/layer-5.js"}
    assert set(json.loads((folder / "data/net.js").read_text()[len("atlas(...") : -3])[1]["ways"]) == set(WAYS)
    static = Path(site.__file__).parent / "static"
    for name in ("atlas.js", "atlas.css"):
        same = (folder / name).read_bytes() == (static / name).read_bytes()
        assert same, f"{name} has changed since: CONTRIBUTING.md says how docs/atlas is made again"


def test_pictures_of_other_content_are_looked_through_anew(tmp_path):
    labels, out = np.zeros(NUM, int), tmp_path / "out"
    make(out, images=ArraySource(PICTURES, labels))
    others = PICTURES.copy()
    others[3] = 255 - others[3]  # neither the first, the middle nor the last
    again, anew = (make(folder, images=ArraySource(others, labels)) for folder in (out, tmp_path / "new"))
    assert again.facts["data"] == anew.facts["data"]
    np.testing.assert_array_equal(again.arrays("conv1")["values"], anew.arrays("conv1")["values"])
    assert (out / site.image_of(3)).read_bytes() == (tmp_path / "new" / site.image_of(3)).read_bytes()


def test_units_that_no_image_excites_have_as_many_parts_as_those_beside_them():
    """A block of them alone stands beside one whose units have images."""
    scenes, pictures = demo.DemoSource(1, 1, 16), ArraySource(PICTURES[:1], np.zeros(1, int))
    assert drawing.on_no_parts(scenes, 4).shape == (4, 3, 2) and np.isnan(drawing.on_no_parts(scenes, 4)).all()
    assert drawing.on_no_parts(pictures, 4).shape == (4, 0, 2)
