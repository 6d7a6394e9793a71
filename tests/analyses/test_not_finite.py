"""A network that is not finite is told by its name and its layer, whatever is asked of it; nothing false is said."""

import dataclasses
import pathlib

import foreign_nets
import jax
import numpy as np
import pytest
import tiny_nets

import zfjax
from experiments import deconv_figures, evaluate_imagenet
from zfjax import evolution, invariance, maximization, nets, occlusion, sanity, strongest, top_activations
from zfjax.analyses import correspondence, filters, walkthrough
from zfjax.data import folder
from zfjax.data.loader import eval_batches
from zfjax.nets import TrainedNet


def infinite(layer, value=np.inf):
    """The small net with one weight that is not finite."""
    params = {name: np.array(array) for name, array in foreign_nets.SMALL.params.items()}
    params[layer].flat[0] = value
    return dataclasses.replace(foreign_nets.SMALL, params=params, name="broken", layers=())


BROKEN, HEADLESS = infinite("conv2"), infinite("head")
IMAGES = np.random.default_rng(0).uniform(size=(3, 20, 28, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return folder.open_folder(foreign_nets.folder(tmp_path_factory.mktemp("pictures")), (20, 28), BROKEN.class_names)


def scan(net, data):
    fn = nets.features_of_pictures(net, ["conv1", "conv2"])
    return top_activations.scan(
        fn, eval_batches(data.validation, batch_size=4), top_activations.init({"conv1": 4, "conv2": 6}), name="broken"
    )


def views(data):
    return nets.read_views(data.validation, range(3), BROKEN)._replace(parts=np.full((3, 1, 2), 10.0, np.float32))


ANALYSES = {
    "the scan": lambda data: scan(BROKEN, data),
    "sanity": lambda data: sanity.check_all(BROKEN, IMAGES, layer="conv2", seed=0),
    "maximization": lambda data: maximization.climb(BROKEN, [0, 1], layer="conv2", key=jax.random.key(0), steps=1),
    "occlusion": lambda data: occlusion.choose_scenes(BROKEN, data, layer="conv2", num=2, seed=0, batch_size=3),
    "correspondence": lambda data: correspondence.compare_parts(BROKEN, views(data), ["eye"], side=5, num_images=2),
    "evolution": lambda data: evolution.measure({1: foreign_nets.SMALL, 2: BROKEN}, IMAGES, ["conv2"]),
    "invariance": lambda data: invariance.curves(
        BROKEN.features(["conv2"]),
        IMAGES,
        transform=invariance.TRANSFORMS["scale"],
        amounts=[1.0],
        size=(20, 28),
        name="broken",
    ),
}


@pytest.mark.parametrize("name", ANALYSES)
def test_the_network_and_its_layer_are_named(name, data):
    with pytest.raises(zfjax.UserError, match="broken.*: layer 'conv2' is not finite"):
        ANALYSES[name](data)


@pytest.mark.parametrize("ask", [occlusion.choose_scenes, invariance.choose_images])
def test_logits_that_are_not_finite_are_named(ask, data):
    options = {"layer": "conv2", "batch_size": 3} if ask is occlusion.choose_scenes else {}
    with pytest.raises(zfjax.UserError, match="net='broken': layer 'logits' is not finite .* for . of 6 images"):
        ask(HEADLESS, data, num=2, seed=0, **options)


def test_nan_is_the_strongest_activation_and_no_image_is_overlooked():
    maps = np.array([[[1.0, np.nan]], [[3.0, 2.0]], [[2.0, -np.inf]]], np.float32)[:, None]
    state = top_activations.update(top_activations.init(2, k=3), maps, np.arange(3))
    np.testing.assert_array_equal(state.values, [[3, 2, 1], [np.nan, 2, -np.inf]])
    np.testing.assert_array_equal(state.images, [[1, 2, 0], [0, 1, 2]])
    with pytest.raises(zfjax.UserError, match="x: its answer is not finite in 1 of 2 maps, .* map 1: nan for image 0"):
        top_activations.check_finite(state, "x")


def test_places_without_an_image_are_no_fault():
    state = top_activations.update(top_activations.init(1, k=3), np.ones((1, 1, 1, 1), np.float32), np.arange(1))
    assert top_activations.check_finite(state) is state


def test_projections_that_are_not_finite_are_no_pictures(data):
    class Lost(foreign_nets.Minimal):
        def project(self, images, units, **options):
            return np.full_like(super().project(images, units, **options), np.nan)

    top = top_activations.TopActivations(np.ones((6, 1)), *np.zeros((3, 6, 1), np.int32))
    with pytest.raises(zfjax.UserError, match="net='minimal': layer 'conv2' is not finite"):
        strongest.project_and_cut(Lost(), data.validation, top, maps=np.array([0]), layer="conv2")


def table_net(value):
    params = jax.tree.map(np.array, tiny_nets.params(tiny_nets.MINI))
    params["conv2"]["kernel"].flat[0] = value
    side = tiny_nets.MINI.image_size
    names = tuple(map(str, range(tiny_nets.MINI.num_classes)))
    mean, run = np.zeros((side, side, 3), np.float32), pathlib.Path("run")
    return TrainedNet(tiny_nets.MINI, params, mean, run / "checkpoints" / "1", run, "demo", names, "f")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_named(value):
    net = table_net(value)
    with pytest.raises(zfjax.UserError, match=r"1 of [\d,]+ weights of conv2/kernel are not finite"):
        nets.check_weights(net)
    with pytest.raises(zfjax.UserError, match="conv2/kernel"):
        filters.check_bottom(net)
    images = tiny_nets.images(tiny_nets.MINI.image_size)[:1]
    views = nets.Views(images, np.zeros(images.shape, np.uint8), np.zeros(1, int), None, None)
    with pytest.raises(zfjax.UserError, match="layer 'conv2' is not finite"):
        walkthrough.walk_down(net, views, layer="conv3", channel=0)


def test_infinite_constants_of_a_function_may_be_meant():
    nets.check_weights(BROKEN)
    with pytest.raises(zfjax.UserError, match="net='broken': 1 of 216 weights of conv2 are not finite"):
        nets.check_weights(infinite("conv2", np.nan))
    nets.check_weights(foreign_nets.SMALL)


def test_a_figure_refuses_such_weights_before_any_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(zfjax.UserError, match="weights of conv2 are not finite; .* take an earlier checkpoint"):
        deconv_figures.run(deconv_figures.Config(data="nowhere"), net=infinite("conv2", np.nan))
    assert not list(tmp_path.iterdir())


def test_an_evaluation_counts_the_answers_that_are_not_finite(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(nets, "load_net", lambda name: HEADLESS)
    config = evaluate_imagenet.Config(net=("x",), data=str(foreign_nets.folder(tmp_path / "pictures")), batch_size=4)
    result = evaluate_imagenet.run(config)
    evaluate_imagenet.report(result)
    count = result["members"][0]["not_finite"]["center"]
    assert count > 0 and f"{count} of 6 answers of broken are not finite (NaN or infinite)" in capsys.readouterr().out
    assert result["error"]["center"]["top1"] >= count / 6
