"""The first filters of any model: the weights as the images meet them, in rows, columns and channels of the image."""

import foreign_nets
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from zfjax import UserError
from zfjax.anymodel.first_filters import first_filters_of

RNG = np.random.default_rng(0)
KERNEL = RNG.normal(size=(3, 2, 3, 5)).astype(np.float32)  # HWIO
SHAPE = (12, 20, 3)
STRIDE = (2, 3)


def conv(images, kernel=KERNEL, stride=STRIDE, **options):
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(images, kernel, stride, "SAME", dimension_numbers=layout, **options)


def read(fn, shape=SHAPE):
    return first_filters_of(fn, shape, np.float32)


def in_patches(images):
    """Patches of 4 x 5 as a vision transformer takes them: rows of one matrix."""
    size, height, width, channels = images.shape
    cut = images.reshape(size, height // 4, 4, width // 5, 5, channels).transpose(0, 1, 3, 2, 4, 5)
    return cut.reshape(size, -1, 4 * 5 * channels)


PATCHES = RNG.normal(size=(4 * 5 * 3, 7)).astype(np.float32)
MEAN, STD = (np.array([[[of]]], np.float32) for of in ([0.4, 0.5, 0.6], [0.2, 0.3, 0.25]))


def to_depth(images):
    """Two pixels beside each other become one of twice as many channels."""
    size, height, width, channels = images.shape
    return images.reshape(size, height, width // 2, 2 * channels)


DEEP = RNG.normal(size=(3, 3, 6, 4)).astype(np.float32)
DEEP_FROM_PIXELS = DEEP.reshape(3, 6, 3, 4)

BEFORE = {  # what a model does to its images first: (the model, its filters as the images meet them)
    "nothing": (conv, KERNEL),
    "normalises colours": (lambda images: conv((images - MEAN) / STD), KERNEL),
    "turns colours round": (lambda images: conv(images[..., ::-1] / 127.5 - 1), KERNEL[:, :, ::-1]),
    "takes colours by number": (lambda images: conv(images[..., jnp.array([2, 0, 1])]), KERNEL[:, :, [1, 2, 0]]),
    "clips": (lambda images: conv(jnp.clip(images, 0, 1) ** 2), KERNEL),
    "pads": (
        lambda images: conv(jnp.pad(images, ((0, 0), (1, 2), (2, 1), (0, 0)), mode="reflect")),
        KERNEL,
    ),
    "goes to channels first": (
        lambda images: lax.conv_general_dilated(
            images.transpose(0, 3, 1, 2), KERNEL.transpose(3, 2, 0, 1), STRIDE, "SAME"
        ).transpose(0, 2, 3, 1),
        KERNEL,
    ),
    "looks at one at a time": (jax.vmap(lambda image: jax.nn.relu(conv(image[None])[0])), KERNEL),
    "is compiled and thrown away": (jax.jit(jax.checkpoint(lambda images: jax.nn.relu(conv(images)))), KERNEL),
    "standardises weights": (lambda images: conv(images, KERNEL - jnp.mean(KERNEL, 3, keepdims=True)), None),
    "puts pixels into channels": (lambda images: conv(to_depth(images), DEEP, (1, 1)), DEEP_FROM_PIXELS),
    "cuts patches": (lambda images: in_patches(images) @ PATCHES, PATCHES.reshape(4, 5, 3, 7)),
    "multiplies patches from the left": (
        lambda images: jnp.einsum("dc,bpc->bpd", PATCHES.T, in_patches(images)),
        PATCHES.reshape(4, 5, 3, 7),
    ),
}


@pytest.mark.parametrize("name", BEFORE)
def test_the_filters_are_the_weights_as_the_images_meet_them(name):
    model, kernel = BEFORE[name]
    kernel = KERNEL - KERNEL.mean(3, keepdims=True) if kernel is None else kernel
    first = read(model)
    np.testing.assert_allclose(first.kernel, kernel, rtol=1e-5, atol=1e-6)
    patches, deep = "patches" in name, "channels" in name and "pixels" in name
    assert first.stride == ((4, 5) if patches else (1, 2) if deep else STRIDE)
    assert first.is_own


def test_filters_that_each_look_at_one_channel_have_zeros_in_the_others():
    kernel = RNG.normal(size=(3, 3, 1, 6)).astype(np.float32)
    first = read(lambda images: conv(images, kernel, (1, 1), feature_group_count=3))
    expected = np.zeros((3, 3, 3, 6), np.float32)
    for number in range(6):
        expected[:, :, number // 2, number] = kernel[:, :, 0, number]
    np.testing.assert_array_equal(first.kernel, expected)


def test_units_of_a_dense_layer_are_filters_as_large_as_the_image_and_have_no_stride():
    weights = RNG.normal(size=(4 * 6 * 2, 3)).astype(np.float32)
    first = read(lambda images: jax.nn.relu(images.reshape(len(images), -1) @ weights), (4, 6, 2))
    np.testing.assert_array_equal(first.kernel, weights.reshape(4, 6, 2, 3))
    assert first.stride is None and first.is_own


def test_a_grey_image_in_three_channels_meets_the_sum_of_their_weights():
    first = read(lambda images: conv(jnp.repeat(images, 3, axis=-1)), (12, 20, 1))
    np.testing.assert_allclose(first.kernel, KERNEL.sum(axis=2, keepdims=True), rtol=1e-5, atol=1e-6)


def test_of_mixed_colours_the_filters_are_those_of_the_mixture():
    mixture = RNG.normal(size=3).astype(np.float32)
    first = read(lambda images: conv(sum(images[..., k : k + 1] * mixture[k] for k in range(3)), KERNEL[:, :, :1]))
    np.testing.assert_allclose(first.kernel, KERNEL[:, :, :1] * mixture[:, None], rtol=1e-5, atol=1e-6)


def test_a_layer_is_the_filters_own_up_to_the_next_weights():
    second = RNG.normal(size=(1, 1, 5, 5)).astype(np.float32)
    pooled = lambda images: lax.reduce_window(  # noqa: E731
        jax.nn.relu(conv(images)), -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"
    )
    assert read(pooled).is_own
    assert not read(lambda images: conv(pooled(images), second)).is_own
    both = read(lambda images: jnp.concatenate([conv(images), conv(images, -KERNEL)], axis=-1))
    assert not both.is_own
    np.testing.assert_array_equal(both.kernel, KERNEL)


def test_filters_bear_the_name_of_their_module():
    net = foreign_nets.linen_resnet()
    layer = net.features(["stem"])
    first = first_filters_of(lambda images: layer(images)["stem"], (32, 32, 3), np.float32)
    np.testing.assert_array_equal(first.kernel, np.asarray(net.params["params"]["Conv_0"]["kernel"]))
    assert first.module == "ResNet/Conv_0" and first.is_own


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (lambda images: images[:, ::2] * 2, "meet no convolution and no matrix"),
        (lambda images: conv(jax.image.resize(images, (1, 24, 40, 3), "linear")), "made of several pixels"),
        (lambda images: conv(images - images.mean((1, 2), keepdims=True)), "made of several pixels"),
        (lambda images: lax.map(lambda image: conv(image[None])[0], images), "outside loops"),
    ],
)
def test_what_stands_between_images_and_weights_is_said(model, words):
    with pytest.raises(UserError, match=words):
        read(model)
