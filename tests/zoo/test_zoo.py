"""Nets as people have them: what the engine says of each, and its pictures against those of another road."""

import functools
import importlib.util

import jax
import keras_nets
import numpy as np
import page
import pytest
import weights
import zoo

import zfjax

REFUSED = [name for name, net in zoo.NETS.items() if net.refused]


def check_installed(framework):
    if importlib.util.find_spec(framework) is None:
        pytest.skip(f"{framework} is not installed: pip install -e '.[zoo]'")


@functools.cache
def measured(name):
    check_installed(zoo.NETS[name].framework)
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):  # as others write their nets
        return zoo.measure(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.NETS)
def test_every_rectifier_is_found_and_only_what_is_none_is_refused(name):
    found, net = measured(name), zoo.NETS[name]
    assert found.rules["rectifier"] == net.rectifiers
    assert found.refused == net.refused


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_what_no_rule_covers_is_refused_by_name(name):
    assert [operation for operation in zoo.NETS[name].refused if operation not in measured(name).refusal] == []
    assert measured(name).refusal.startswith("on_unknown='error': no rule covers")


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.NETS)
def test_the_picture_is_that_of_another_road(name):
    """Which is no small thing: the gradient is far from it."""
    found = measured(name)
    assert found.error < 1e-5
    assert found.from_gradient > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, net in zoo.NETS.items() if net.torch])
def test_the_picture_is_captums(name):
    check_installed("captum")
    assert measured(name).from_captum < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.NETS)
def test_the_page_says_what_is_found(name):
    """What follows from the program alone: rectifiers, own gradients, what no rule covers, the choices."""
    line, found = page.parts()[1][name], page.row(name, measured(name))
    assert line.split(" | ")[:5] == found.split(" | ")[:5]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("Keras VGG16", "vgg16/block3_pool"),
        ("Keras ResNet50V2", "resnet50v2/conv3_block2_out"),
        ("Keras MobileNetV2", "mobilenetv2_1.00_64/block_6_expand_relu"),
    ],
)
def test_a_layer_found_by_name_is_the_sub_models_to_the_bit(name, layer):
    check_installed("keras")
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        fn, images = zoo.NETS[name].build(), weights.images_for(zoo.NETS[name].size)
        below = keras_nets.below(fn, layer.rsplit("/", 1)[-1])
        found = zfjax.layers(fn, images)[layer]
        assert found.shape == jax.eval_shape(below, images).shape
        cut = jax.jit(lambda images: zfjax.project_fn(fn, images, unit=5, layer=layer))(images)
        assert cut.any()
        np.testing.assert_array_equal(cut, jax.jit(lambda images: zfjax.project_fn(below, images, unit=5))(images))


@pytest.mark.slow
def test_from_below_a_softmax_head_comes_the_picture_of_the_net_without_it():
    check_installed("keras")
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        headed, fn = (keras_nets.build("MobileNetV2", classifier_activation=head) for head in ("softmax", None))
        images = weights.images_for(64)
        with pytest.raises(zfjax.UserError, match="a softmax. At a model's end start below it, from the logits"):
            zfjax.project_fn(headed, images, unit=3)
        logits = next(path for path in zfjax.layers(headed, images) if path.endswith("/predictions/add"))
        found = jax.jit(lambda images: zfjax.project_fn(headed, images, unit=3, layer=logits))(images)
        assert found.any()
        np.testing.assert_array_equal(found, jax.jit(lambda images: zfjax.project_fn(fn, images, unit=3))(images))


def test_the_page_lists_every_net():
    assert list(page.parts()[1]) == list(zoo.NETS)
