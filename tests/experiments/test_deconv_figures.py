"""Figure 2: the right patches and projections, a scan that goes on, honest files, clear refusals."""

import json

import foreign_nets
import jax.numpy as jnp
import numpy as np
import pytest
from judges import findings
from PIL import Image
from tiny_run import CENTRES, MEAN, NET, NUM, PICTURES, SIDE, make_data, make_net, make_params

import zfjax
from experiments import deconv_figures
from experiments.pages import canvas
from experiments.pages import deconv as deconv_page
from zfjax import pixels
from zfjax.analyses import strongest, top_activations
from zfjax.analyses.top_activations import TopActivations
from zfjax.data import ArraySource, ImageSet


@pytest.fixture
def trained(tmp_path):
    """The tiny net, with a folder of its own."""
    return make_net(tmp_path)


def _config(**changes):
    return deconv_figures.Config(**{"batch_size": 4, "num_maps": 2, "layers": ("conv1", "conv2"), **changes})


def _run(net, data=None, **changes):
    return deconv_figures.run(_config(**changes), net=net, data=make_data() if data is None else data)


def _top(values, images, rows, columns):
    fields = (np.array(field, kind) for field, kind in [(values, "f4"), (images, "i4"), (rows, "i4"), (columns, "i4")])
    return TopActivations(*fields)


def _draw(layer, top, maps, source=None):
    source = source or make_data().validation
    return strongest.project_and_cut(make_net(), source, top, maps=np.array(maps), layer=layer)


def _alone(layer, image, channel, position):
    _, trace = zfjax.forward(make_params(), jnp.asarray(CENTRES[image] - np.float32(120))[None], architecture=NET)
    top = zfjax.isolate(trace[layer].features, channel=channel, position=position)
    return np.asarray(zfjax.project(make_params(), trace, top, layer=layer, architecture=NET)[0])


@pytest.mark.usefixtures("undrawn")
def test_patches_and_projections_are_the_hand_cut_field_at_every_border():
    """conv1's field is 7 pixels every 4, from row -1: place (0, 4) begins above and ends beyond the right edge."""
    assert zfjax.receptive_field(NET, "conv1") == (7, 4, -1)
    top = _top([[2.0, 1.5, 1.0]], [[4, 9, 4]], [[0, 2, 4]], [[4, 1, 0]])
    seen = _draw("conv1", top, [0])
    wide = np.pad(CENTRES.astype(int), ((0, 0), (4, 4), (4, 4), (0, 0)), constant_values=strongest.OUTSIDE)
    for n, (image, row, column) in enumerate([(4, 0, 4), (9, 2, 1), (4, 4, 0)]):
        y, x = row * 4 - 1 + 4, column * 4 - 1 + 4
        np.testing.assert_array_equal(seen.patches[0, n], wide[image, y : y + 7, x : x + 7])
        projection = np.pad(_alone("conv1", image, 0, (row, column)), ((4, 4), (4, 4), (0, 0)))
        assert np.abs(projection).max() > 0
        np.testing.assert_allclose(seen.projections[0, n], projection[y : y + 7, x : x + 7], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(np.abs(seen.projections[0, n]).sum(), np.abs(projection).sum(), rtol=1e-4)
    np.testing.assert_array_equal(seen.boxes[0, 0], [-1, 15, 6, 22])
    np.testing.assert_array_equal(seen.inside[0, 0], np.outer(np.arange(7) >= 1, np.arange(7) < 5))


def test_a_unit_that_sees_more_than_the_picture_shows_the_picture():
    assert zfjax.receptive_field(NET, "conv2").size == 23
    seen = _draw("conv2", _top([[3.0]], [[6]], [[0]], [[1]]), [0])
    np.testing.assert_array_equal(seen.patches[0, 0], CENTRES[6])
    np.testing.assert_allclose(seen.projections[0, 0], _alone("conv2", 6, 0, (0, 1)), rtol=1e-4, atol=1e-5)


def test_dense_units_are_drawn_too():
    seen = _draw("fc6", _top([[3.0, 2.0]] * 4, [[6, 1]] * 4, [[0, 0]] * 4, [[0, 0]] * 4), [2])
    np.testing.assert_allclose(seen.projections[0, 1], _alone("fc6", 1, 2, None), rtol=1e-4, atol=1e-4)


def test_nothing_is_drawn_where_no_image_excites_the_map():
    top = _top([[0.0, 0.0], [5.0, -np.inf]], [[0, 1], [3, -1]], [[0, 0], [1, 0]], [[0, 0], [1, 0]])
    seen = _draw("conv1", top, [0, 1])
    np.testing.assert_array_equal(seen.images, [[-1, -1], [3, -1]])
    assert (seen.patches[0] == strongest.OUTSIDE).all() and (seen.patches[1, 1] == strongest.OUTSIDE).all()
    assert not seen.projections[0].any() and seen.scales[0] == 0
    assert not _draw("conv1", top, [0]).projections.any()  # no image at all is needed


def test_one_scale_serves_the_nine_projections_of_a_map():
    """The same value looks the same in each of them, and is not the same in another map."""
    projections = np.zeros((2, 9, 4, 4, 3), np.float32)
    projections[0, :, 0, 0], projections[0, 3, 1] = 1.0, 4.0
    projections[1] = 1.0
    scales = np.array([pixels.symmetric_scale(of_map) for of_map in projections])
    blank = np.zeros((2, 9, 4, 4, 3), np.uint8)
    seen = strongest.Strongest(np.arange(2), None, None, None, projections, blank, None, None, scales, None)
    first, second = (panel.pixels for panel in deconv_page.map_panels(seen, 3, ["map 0", "map 1"]))
    step = (deconv_page.PAGE - 2 * canvas.GAP) // 3 // 2 // 3 // 4 * 4
    corners = {int(first[y, x, 0]) for y in range(0, 3 * step, step + 2) for x in range(0, 3 * step, step + 2)}
    assert corners == {round(255 * (0.5 + 1 / 8) + 0.01)} and second[0, 0, 0] == 255


def test_scores_tell_resemblance_from_chance():
    rng = np.random.default_rng(5)
    patches = rng.integers(0, 256, (2, 3, 8, 8, 3), np.uint8)
    projections = patches.astype(np.float32) - 300
    whole, half = np.ones((2, 3, 8, 8), bool), np.zeros((2, 3, 8, 8), bool)
    half[:, :, :4] = True
    projections[:, :, 4:] = 0
    images = np.arange(6).reshape(2, 3)
    seen = strongest.Strongest(np.arange(2), None, images, None, projections, patches, whole, half, np.ones(2), None)
    found = strongest.scores(seen)
    assert found["resemblance"]["value"] == 1.0 and abs(found["resemblance"]["by_chance"]) < 0.3
    assert found["energy_on_object"] == {"value": 1.0, "by_chance": 0.5}
    assert strongest.scores(seen._replace(objects=None))["energy_on_object"] is None
    same = strongest.scores(seen._replace(images=0 * images))["resemblance"]
    assert same == {"value": 1.0, "by_chance": None}  # the patch of the same picture would be no chance


def test_objects_are_cut_like_the_patches():
    class Scenes(ArraySource):
        def __getitem__(self, index):
            mask = np.zeros((SIDE, SIDE), bool)
            mask[:4] = True  # two rows of it in the centre crop
            return {**super().__getitem__(index), "object": mask}

    scenes = Scenes(PICTURES, np.zeros(NUM, int))
    seen = _draw("conv1", _top([[2.0]], [[4]], [[0]], [[1]]), [0], scenes)
    np.testing.assert_array_equal(seen.objects[0, 0].sum(axis=1), [0, 7, 7, 0, 0, 0, 0])


def test_maps_are_chosen_by_seed_among_those_that_fire():
    values = np.ones((30, 9), np.float32)
    values[::2, -1] = 0.0  # fire, but not on nine images
    values[:6] = 0.0  # dead
    top = TopActivations(values, values, values, values)
    chosen = strongest.choose_maps(top, 8, (0, 1))
    assert len(set(chosen)) == 8 and (chosen % 2 == 1).all() and chosen.min() > 5
    np.testing.assert_array_equal(chosen, strongest.choose_maps(top, 8, (0, 1)))
    assert list(chosen) != list(strongest.choose_maps(top, 8, (1, 1)))
    assert strongest.choose_maps(top, 100, 0).tolist() == list(range(6, 30))
    with pytest.raises(ValueError, match="num_maps=0: at least 1"):
        strongest.choose_maps(top, 0, 0)


def test_named_maps_are_read_or_refused():
    layers = ("conv1", "conv2")
    assert strongest.parse_maps(["conv2:4,0"], make_net(), layers)["conv2"].tolist() == [4, 0]
    with pytest.raises(ValueError, match="maps='conv9:1': 'conv9' is not among the layers drawn, conv1, conv2"):
        strongest.parse_maps(["conv9:1"], make_net(), layers)
    with pytest.raises(ValueError, match="maps='conv1:3': conv1 is named twice"):
        strongest.parse_maps(["conv1:2", "conv1:3"], make_net(), layers)
    for wrong in ("conv1:6", "conv1:", "conv1:-1", "conv1:a"):
        with pytest.raises(ValueError, match=f"maps='{wrong}': LAYER:NUMBER,NUMBER with numbers from 0 to 5"):
            strongest.parse_maps([wrong], make_net(), layers)


def test_the_command_writes_what_it_drew_and_overwrites_only_when_told(trained):
    out = trained.run / "out"
    result = _run(trained, seed=3, out=out)
    names = {"conv1.npz", "conv1.png", "conv2.npz", "conv2.png", "overview.png", "result.json"}
    assert {path.name for path in out.iterdir()} == names
    written = json.loads((out / "result.json").read_text())
    assert written["layers"]["conv1"]["num_dead"] == 1 and 1 not in written["layers"]["conv1"]["maps"]
    assert written["layers"]["conv2"]["receptive_field"] == 23 and written["layers"]["conv2"]["num_maps"] == 5
    assert written["folder"] == str(out) and written["seed"] == 3
    assert written["config"]["batch_size"] == 4 and "jax" in written["versions"]
    assert written["checkpoint"]["fingerprint"] == "net" and written["data"]["fingerprint"] == "data"
    resembles = [written["layers"][layer]["resemblance"] for layer in ("conv1", "conv2")]
    words = [f"{own:.2f} ({other:.2f}, {untrained:.2f})" for own, other, untrained in (of.values() for of in resembles)]
    assert findings(out)["resemblance"].ours == f"conv1 {words[0]}, conv2 {words[1]}"
    (scan,) = (trained.run / "scans").iterdir()
    arrays, best = np.load(out / "conv1.npz"), np.load(scan)
    assert arrays["maps"].tolist() == result["layers"]["conv1"]["maps"].tolist()
    np.testing.assert_array_equal(arrays["images"], best["conv1/images"][arrays["maps"]])
    for name in ("conv1.png", "overview.png"):
        with Image.open(out / name) as image:
            assert image.size[0] <= 2000 and (out / name).stat().st_size <= 1_000_000
    with pytest.raises(ValueError, match="already holds a result; give another folder, or --overwrite"):
        _run(trained, out=out)
    again = _run(trained, maps=("conv2:4",), overwrite=True, out=out)
    assert again["layers"]["conv2"]["maps"].tolist() == [4]
    (out / "fc6.png").write_text("not drawn by it")
    _run(trained, layers=("conv1",), overwrite=True, out=out)
    (out / "fc6.png").unlink()  # still there
    assert {path.name for path in out.iterdir()} == names - {"conv2.npz", "conv2.png"}
    scan.write_bytes(b"PK torn")
    with pytest.raises(ValueError, match=rf"{scan.name} is damaged \(.*\); remove it"):
        _run(trained, overwrite=True, out=out)


@pytest.mark.usefixtures("undrawn")
def test_default_folders_are_named_by_what_was_asked(trained):
    """So that one call never trips over another's result."""
    first = _run(trained, layers=("conv1",))["folder"]
    second = _run(trained, layers=("conv1",), maps=("conv1:0,3",), num_maps=None)["folder"]
    figures = trained.run / "figures" / "deconv"
    assert (first, second) == (figures / "conv1-num-maps2", figures / "conv1-conv1-0,3")


def test_a_net_that_is_none_of_ours_is_drawn_too(tmp_path, monkeypatch):
    """Not square, its fields proved by its program, its pictures in a folder and called by their files' names."""
    data = foreign_nets.folder(tmp_path / "pictures")
    monkeypatch.chdir(tmp_path)
    config = {"net": "foreign_nets:SMALL", "data": str(data), "out": tmp_path / "out", "batch_size": 4}
    result = deconv_figures.run(deconv_figures.Config(**config, layers=("conv1", "logits"), maps=("logits:0,1,2",)))
    assert result["layers"]["logits"]["units"] == ["cat", "dog", "owl"] and result["layers"]["logits"]["kind"] == "unit"
    assert result["layers"]["conv1"]["receptive_field"] == 4  # 3x3 filters and a pool of 2x2
    assert result["layers"]["logits"]["receptive_field"] is None
    assert "cat/picture 0.png" in {name for row in result["layers"]["conv1"]["images"] for name in row}
    arrays = np.load(tmp_path / "out" / "conv1.npz")
    assert arrays["projections"].shape[2:] == (4, 4, 3) and arrays["patches"].shape[2:] == (4, 4, 3)
    whole = np.load(tmp_path / "out" / "logits.npz")
    assert whole["projections"].shape[2:] == (20, 28, 3) and whole["patches"].shape[2:] == (20, 28, 3)


def test_of_a_net_without_maps_the_hidden_units_are_drawn_with_their_filters(tmp_path):
    weights = np.random.default_rng(0).normal(size=(6 * 8 * 3, 5)).astype(np.float32)

    def dense(images):
        hidden = jnp.maximum(images.reshape(len(images), -1) @ weights, 0)
        return {"hidden": hidden, "logits": hidden[:, :2]}

    config = {"data": str(foreign_nets.folder(tmp_path / "pictures")), "out": tmp_path / "out", "batch_size": 4}
    net = zfjax.FunctionNet(dense, image_size=(6, 8), name="dense")
    result = deconv_figures.run(deconv_figures.Config(**config, num_maps=2), net=net)
    assert list(result["layers"]) == ["hidden"] and result["layers"]["hidden"]["kind"] == "unit"
    with np.load(tmp_path / "out" / "hidden.npz") as saved:
        assert saved["projections"].shape[2:] == (6, 8, 3) and np.abs(saved["projections"]).max() > 0


def test_a_set_that_cannot_be_searched_is_refused(trained):
    empty = ImageSet("folder", SIDE, ("a",), None, None, MEAN, None, "data")
    with pytest.raises(ValueError, match="data='folder' has no validation split"):
        _run(trained, empty)


def test_every_gallery_says_what_such_pictures_do_not_show():
    assert canvas.SWITCHES_NOTE in deconv_page.caption(10)
    assert "rounding" not in " ".join(deconv_page.caption(10))
    assert "nothing but rounding" in " ".join(deconv_page.caption(10, rounding=True))
    assert "switches and ReLU masks" in canvas.SWITCHES_NOTE and "Nie et al. 2018" in canvas.SWITCHES_NOTE
    assert top_activations.TopActivations._fields == ("values", "images", "rows", "columns")
