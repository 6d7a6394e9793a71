"""What stands around a lower bound: clips of the input, hard sigmoids and activations composed of rectifiers."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from ways_down import OWN, down

from zfjax.anymodel.ready import as_relu
from zfjax.anymodel.rules import explain_rules, with_relu_rule

RNG = np.random.default_rng(0)
X, INCOMING = 2 * RNG.normal(size=(2, 3, 8)).astype(np.float32)
KERNEL, OTHER = RNG.normal(size=(2, 8, 8)).astype(np.float32)
IMAGES = 2 * RNG.normal(size=(2, 4, 4, 3)).astype(np.float32)
FILTERS = RNG.normal(size=(3, 3, 3, 5)).astype(np.float32)
MEAN, STD = np.float32([0.1, 0.2, 0.3]), np.float32([0.5, 0.6, 0.7])
relu, relu6 = jax.nn.relu, jax.nn.relu6


@pytest.fixture(autouse=True)
def rows_broadcast():
    """As in most models."""
    with jax.numpy_rank_promotion("allow"):
        yield


def conv(images):
    return lax.conv_general_dilated(images, FILTERS, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def rules_of(fn, x=X):
    return [line.rule for line in explain_rules(fn, x)]


def rows(function, z):
    return lax.fori_loop(0, 3, lambda k, rows: rows.at[k].set(function(z[k])), jnp.zeros_like(z))


BOTH = np.concatenate([KERNEL, OTHER])
SLOPES = np.float32([1, -0.1])
MATRIX = np.concatenate([np.eye(8), -0.1 * np.eye(8)]).astype(np.float32)

OF_THE_INPUT = {
    "clip": lambda x: jnp.clip(x, 0, 1),
    "relu": relu,
    "maximum": lambda x: jnp.maximum(x, 0),
    "where": lambda x: jnp.where(x > 0, x, 0),
    "by a mask": lambda x: x * (x > 0).astype(x.dtype),
    "clamp": lambda x: lax.clamp(0.0, x, 1.0),
    "from -1": lambda x: jnp.clip(x, -1, 1),
    "from above": lambda x: jnp.minimum(x, 1),
    "then scaled": lambda x: 2 * jnp.clip(x, 0, 1) - 1,
    "after scaling": lambda x: jnp.clip(x / 127.5 - 1, 0, 1),
    "after mean and deviation": lambda x: jnp.clip((x - MEAN) / STD, 0, 1),
    "after a mean image": lambda x: relu(x - IMAGES[0]),
    "after a cast": lambda x: jnp.clip(x.astype(jnp.bfloat16), 0, 1).astype(jnp.float32),
    "after a turn": lambda x: jnp.moveaxis(jnp.clip(jnp.moveaxis(x, 3, 1), 0, 1), 1, 3),
    "after a resize": lambda x: jnp.clip(jax.image.resize(x, (2, 4, 4, 3), "cubic"), 0, 1),
    "after a pool": lambda x: jnp.clip(lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1,) * 4, "SAME") / 4, 0, 1),
    "after standardisation": lambda x: jnp.clip((x - x.mean((1, 2, 3), keepdims=True)) / STD, 0, 1),
    "after a turn of the colours": lambda x: jnp.clip(jnp.einsum("bhwc,cd->bhwd", x, np.eye(3)[::-1]), 0, 1),
    "after a matrix that scales": lambda x: jnp.clip(x @ np.diag(STD), 0, 1),
    "after each channel's pool": lambda x: jnp.clip(
        lax.reduce_window((x - MEAN) / STD, 0.0, lax.add, (1, 2, 2, 1), (1,) * 4, "SAME") / 4, 0, 1
    ),
    "after contrast": lambda x: jnp.clip(1.5 * (x - (mean := x.mean((1, 2), keepdims=True))) + mean, 0, 1),
    "after channels are swapped": lambda x: jnp.clip(jnp.take(x, jnp.array([2, 0, 1]), axis=-1), 0, 1),
    "after grey": lambda x: jnp.repeat(jnp.clip(x.mean(-1, keepdims=True), 0, 1), 3, -1),
    "in a map": lambda x: lax.map(lambda image: jnp.clip((image - MEAN) / STD, 0, 1), x),
    "after padding": lambda x: jnp.clip(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), 0, 1),
    "a hard sigmoid": lambda x: relu6(x + 3) / 6,
}


@pytest.mark.parametrize("form", OF_THE_INPUT)
def test_a_bound_of_the_input_keeps_its_derivative(form):
    """The picture has the negative half that the clip lets through; the ReLU of the features follows the rule."""
    clip = OF_THE_INPUT[form]
    features = jax.eval_shape(lambda x: conv(clip(x)), IMAGES).shape
    incoming = RNG.normal(size=features).astype(np.float32)

    @jax.custom_vjp
    def rectifier(x):
        return relu(x)

    rectifier.defvjp(lambda x: (relu(x), None), lambda _, incoming: (relu(incoming),))
    (expected,) = jax.jit(lambda x, g: jax.vjp(lambda x: rectifier(conv(clip(x))), x)[1](g))(IMAGES, incoming)
    found = down(lambda x: relu(conv(clip(x))), "deconvnet", x=IMAGES, incoming=incoming)["deconvnet"][1]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    report = explain_rules(lambda x: relu(conv(clip(x))), IMAGES)
    assert [line.rule for line in report].count("rectifier") == 1
    assert "no weights stand beneath it" in " ".join(line.reason for line in report if line.rule == "own gradient")


YUV = np.float32([[0.299, -0.147, 0.615], [0.587, -0.289, -0.515], [0.114, 0.436, -0.1]])
OF_COLOURS = {
    "YUV": lambda x: x @ YUV,
    "and back": lambda x: x @ YUV @ np.linalg.inv(YUV),
    "of an image at a time": lambda x: lax.map(lambda image: image @ YUV, x),
    "grey": lambda x: (x @ YUV[:, 0])[..., None],
    "grey by a sum": lambda x: 0.3 * x[..., :1] + 0.6 * x[..., 1:2] + 0.1 * x[..., 2:],
    "blurred": lambda x: (jnp.roll(x, 1, 1) + x + jnp.roll(x, -1, 1)) / 3,
    "blurred by a filter": lambda x: lax.conv_general_dilated(
        x, np.full((3, 3, 1, 3), 1 / 9, np.float32), (1, 1), "SAME", (1, 1), (1, 1), ("NHWC", "HWIO", "NHWC"), 3
    ),
    "by Fourier": lambda x: jnp.fft.irfft2(jnp.fft.rfft2(x, axes=(1, 2)), axes=(1, 2)),
    "in a loop": lambda x: lax.fori_loop(0, 3, lambda _, x: 0.9 * x, x),
    "a layer of 3 maps": lambda x: x @ FILTERS[0, 0, :, :3],
}


FILTERED = {"grey by a sum", "blurred", "by Fourier", "in a loop"}  # by no matrix and no convolution
CLIPS = {
    "clip": lambda x: jnp.clip(x, 0, 1),
    "from above first": lambda x: jnp.maximum(jnp.minimum(x, 255), 0),
    "written out": lambda x: jnp.minimum(x - jnp.minimum(x, 0), 1),
}


@pytest.mark.parametrize("form", OF_COLOURS)
@pytest.mark.parametrize("bound", [*CLIPS, "relu"])
def test_a_clip_of_mixed_colours_may_be_either_and_is_refused(form, bound):
    def fn(x):
        colours = CLIPS.get(bound, lambda x: x - jnp.minimum(x, 0))(OF_COLOURS[form](x))
        return relu(jnp.tile(colours, 3)[..., :3] @ FILTERS[0, 0])

    rules = rules_of(fn, IMAGES)
    refused = bound in CLIPS or form in FILTERED
    assert ("unclassified" in rules) == refused and rules.count("rectifier") == 2 - refused


@pytest.mark.parametrize(
    "form",
    [lambda x: jnp.maximum(x, 0), lambda x: jnp.where(x > 0, x, 0), lambda x: jnp.clip(x, 0, None)],
    ids=["max", "where", "clip"],
)
@pytest.mark.parametrize("maps", [1, 2, 3])
def test_a_relu_of_few_maps_is_a_rectifier(form, maps):
    first, second = FILTERS[0, 0, :, :maps], FILTERS[0, 0, :maps]
    assert set(rules_of(lambda x: form(x @ first) @ second, IMAGES)) == {"rectifier"}


def test_a_relu_by_name_of_few_maps_is_a_rectifier():
    assert rules_of(lambda x: relu(x @ FILTERS[0, 0, :, :3]) @ FILTERS[0, 0], IMAGES) == ["rectifier"]


def test_a_bound_of_mixed_colours_is_what_is_said_of_it():
    def clip(x):
        return jnp.clip(x, 0, 1)

    def fn(x, bound=clip):
        return bound(2 * x @ YUV) @ FILTERS[0, 0]

    @jax.custom_vjp
    def rectifier(x):
        return clip(x)

    rectifier.defvjp(lambda x: (clip(x), None), lambda _, incoming: (relu(incoming),))
    incoming = RNG.normal(size=(2, 4, 4, 5)).astype(np.float32)
    for choice, twin in (("keep", clip), (as_relu, rectifier)):
        (expected,) = jax.vjp(lambda x, twin=twin: fn(x, twin), IMAGES)[1](incoming)
        (found,) = jax.vjp(with_relu_rule(fn, "deconvnet", on_unknown={"clip": choice}), IMAGES)[1](incoming)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


WEIGHTS = {
    "dense": lambda x: x @ KERNEL,
    "by a sum": lambda x: (x[:, :, None] * KERNEL).sum(1),
    "einsum": lambda x: jnp.einsum("bi,io->bo", x, KERNEL),
    "convolution": lambda x: jax.vmap(lambda row: jnp.convolve(row, KERNEL[0, :3], "same"))(x),
    "of an argument's copy": lambda x: jnp.clip(x, 0, 1) @ KERNEL + 1,
    "in a scan": lambda x: lax.scan(lambda c, w: (c @ w, None), x, jnp.stack([KERNEL, OTHER]))[0],
    "several of one channel": lambda x: x[:, :1] @ KERNEL[:1],
    "made of a key": lambda x: x @ jax.random.normal(jax.random.key(0), (8, 8)),
}


@pytest.mark.parametrize("form", WEIGHTS)
def test_a_bound_above_weights_is_a_rectifier(form):
    assert rules_of(lambda x: relu(WEIGHTS[form](x)) @ OTHER)[-1] == "rectifier"


BY_HAND = {
    "in bfloat16": lambda x, w: (x.astype(jnp.bfloat16)[..., None] * w.astype(jnp.bfloat16)).sum(-2, dtype=jnp.float32),
    "rounded in between": lambda x, w: (x[..., None] * w).astype(jnp.bfloat16).astype(jnp.float32).sum(-2),
    "with an offset": lambda x, w: (x[..., None] * w + w[0]).sum(-2),
    "by division": lambda x, w: (x[..., None] / w).sum(-2),
    "scaled once more": lambda x, w: ((x[..., None] * w) * 2.0).sum(-2),
    "of some": lambda x, w: (x[..., None] * w).sum(-2, where=np.array([[True], [True], [False]])),
    "turned": lambda x, w: (x[..., None] * w).swapaxes(3, 4).sum(-1),
    "reshaped": lambda x, w: (x[..., None] * w).reshape(2, 16, 3, 5).sum(2).reshape(2, 4, 4, 5),
    "of slices": lambda x, w: sum(x[..., i : i + 1] * w[i] for i in range(3)),
    "of a split": lambda x, w: sum(jnp.concatenate([v * w[i, 0]] * 5, -1) for i, v in enumerate(jnp.split(x, 3, -1))),
    "of shifts": lambda x, w: jnp.tile(sum(jnp.roll(x, i, 1) * w[i, :3] for i in range(3)), 2)[..., :5],
    "of a stack": lambda x, w: jnp.tile(jnp.stack([x, -2 * jnp.roll(x, 1, 2)]).sum(0), 2)[..., :5],
    "by Fourier": lambda x, w: jnp.tile(
        jnp.fft.irfft(jnp.fft.rfft(x, axis=2) * w[:, :1].astype(np.complex64), axis=2), 2
    )[..., :5],
    "in a scan": lambda x, w: lax.scan(
        lambda c, v: (c + v[0][..., None] * v[1], None), jnp.zeros((2, 4, 4, 5)), (jnp.moveaxis(x, 3, 0), w)
    )[0],
    "in a loop": lambda x, w: lax.fori_loop(
        0, 3, lambda i, c: c + lax.dynamic_index_in_dim(x, i, 3) * jnp.asarray(w)[i], jnp.zeros((2, 4, 4, 5))
    ),
    "stacked by a map": lambda x, w: lax.map(lambda v: v[0][..., None] * v[1], (jnp.moveaxis(x, 3, 0), w)).sum(0),
    "of patches": lambda x, w: (x.reshape(2, 16, 3)[:, :, [0, 2, 1], None] * w).sum(2).reshape(2, 4, 4, 5),
    "of one channel": lambda x, w: x[..., :1] * w[0] + w[1],
    "of a running sum": lambda x, w: jnp.cumsum(x[..., None] * w, 3)[..., -1, :],
    "of means": lambda x, w: (x.mean((1, 2), keepdims=True)[..., None] * w).sum(-2) + jnp.zeros((2, 4, 4, 5)),
}


@pytest.mark.parametrize("form", BY_HAND)
@pytest.mark.parametrize("clip", [lambda x: x, lambda x: jnp.clip(x, 0, 1)], ids=["bare", "clipped"])
def test_a_relu_above_a_layer_by_hand_is_the_papers_and_a_clip_beneath_it_none(form, clip):
    """The whole picture is that of the same function with a ReLU of another derivative."""
    weights = FILTERS[0, 0] + 2

    @jax.custom_vjp
    def rectifier(x):
        return relu(x)

    rectifier.defvjp(lambda x: (relu(x), None), lambda _, incoming: (relu(incoming),))

    def net(x, relu=relu):
        return relu(BY_HAND[form](clip(x), weights) - 1) @ OTHER[:5]

    incoming = RNG.normal(size=(2, 4, 4, 8)).astype(np.float32)
    (expected,) = jax.jit(lambda x, g: jax.vjp(lambda x: net(x, rectifier), x)[1](g))(IMAGES, incoming)
    found = down(net, "deconvnet", x=IMAGES, incoming=incoming)["deconvnet"][1]
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_bare_activation_keeps_its_rule():
    """Where no weights stand above it either, the argument may be a feature."""
    for fn in (relu, lambda x: 2 * relu(x / 3), lambda x: nn.max_pool(relu(x[None]), (2, 2))):
        assert "rectifier" in rules_of(fn)


HARD_SIGMOIDS = {
    "relu6": lambda z: relu6(z + 3) / 6,
    "relu6, reciprocal": lambda z: relu6(3.0 + z) * (1 / 6),
    "clip": lambda z: jnp.clip(0.2 * z + 0.5, 0, 1),
    "clip of sixths": lambda z: jnp.clip(z / 6 + 0.5, 0.0, 1.0),
    "clip of a sum": lambda z: jnp.clip((z + 1) / 2, 0, 1),
    "clip of a difference": lambda z: jnp.clip((3 - z) / 6, 0, 1),
    "minimum of maximum": lambda z: jnp.minimum(jnp.maximum(z + 3, 0), 6) / 6,
    "maximum of minimum": lambda z: jnp.maximum(jnp.minimum(z + 3, 6), 0) / 6,
    "minimum after scaling": lambda z: jnp.minimum(relu(z + 3) / 6, 1),
    "clamp": lambda z: lax.clamp(0.0, 0.25 * z + 0.5, 1.0),
    "offset as an array": lambda z: relu6(z + jnp.full(8, 3.0)) / 6,
    "not in the middle": lambda z: jnp.clip(0.2 * z + 0.4, 0, 1),
    "by where": lambda z: jnp.minimum(jnp.where(z + 3 > 0, z + 3, 0), 6) / 6,
    "hard tanh": lambda z: jnp.clip(z + 1, 0, 2) - 1,
}

COMPOSED = {
    "leaky": lambda z: relu(z) - 0.1 * relu(-z),
    "leaky by the identity": lambda z: 0.1 * z + 0.9 * relu(z),
    "leaky for each channel": lambda z: relu(z) - KERNEL[0] * relu(-z),
    "leaky over calls": lambda z: jax.jit(relu)(z) + jax.jit(lambda y: 0.1 * jnp.minimum(y, 0))(z),
    "absolute value": lambda z: relu(z) + relu(-z),
    "absolute value by max": lambda z: jnp.maximum(relu(z), relu(-z)),
    "identity by two": lambda z: 2 * relu(z) - z,
    "hard tanh": lambda z: relu(z + 1) - relu(z - 1) - 1,
    "soft shrinkage": lambda z: relu(z - 0.5) - relu(-z - 0.5),
    "soft shrinkage by clip": lambda z: z - jnp.clip(z, -0.5, 0.5),
    "maxout by a rectifier": lambda z: relu(z @ KERNEL - (b := z @ OTHER)) + b,
    "maxout, products computed twice": lambda z: relu(z @ KERNEL - z @ OTHER) + z @ OTHER,
    "a bound at -1": lambda z: relu(z + 1) - 1,
    "bounds at 1 and 7": lambda z: relu6(z - 1) + 1,
    "bounds at 1 and 3": lambda z: jnp.minimum(relu(z - 1), 2) + 1,
    "a bound at -1, scaled": lambda z: 3 * relu(2 * z + 1) - 3,
    "bounds of their own": lambda z: relu(z - KERNEL[0]) + KERNEL[0],
    "bounds of their own, by the opposite": lambda z: relu(z - KERNEL[0]) - jnp.asarray(-KERNEL[0]),
    "bounds of their own, negated": lambda z: relu(z + KERNEL[0]) + (-jnp.asarray(KERNEL[0])),
    "bounds of their own, in halves": lambda z: relu(z + KERNEL[0]) - jnp.asarray(KERNEL[0]) / 2 - KERNEL[0] / 2,
    "bounds of their own, scaled": lambda z: 2 * relu(z + KERNEL[0]) - 2 * KERNEL[0],
    "bounds of their own, turned round": lambda z: KERNEL[0] - relu(KERNEL[0] - z),
    "bounds of their own, and a number": lambda z: relu(z + (jnp.asarray(KERNEL[0]) + 1)) - KERNEL[0] - 1,
    "bounds of their own for each row": lambda z: relu(z + KERNEL[:3]) + (-KERNEL[:3]),
    "bounds of their own that jit makes": lambda z: jax.jit(lambda z, b: relu(z + b) + (-b))(z, KERNEL[0]),
    "a bound from above": lambda z: 1 - relu(1 - z),
    "two bounds": lambda z: relu(1 - relu(1 - z)),
    "one above another": lambda z: relu(relu(z) - 0.5),
    "the opposite of the opposite": lambda z: relu(-relu(-z) + 1) - 1,
    "sum of a stack": lambda z: jnp.stack([relu(z), -0.1 * relu(-z)]).sum(0),
    "sum of halves": lambda z: jnp.concatenate([relu(z), -0.1 * relu(-z)], -1).reshape(3, 2, 8).sum(1),
    "shrinkage by the sign": lambda z: jnp.sign(z) * relu(jnp.abs(z) - 0.2),
    "leaky in pieces": lambda z: relu(z)[:, :4] - 0.1 * relu(-z[:, :4]),
    "leaky of pieces": lambda z: relu(z[:, 4:]) - 0.1 * relu(-z)[:, 4:],
    "difference of halves": lambda z: jnp.subtract(*jnp.split(jnp.concatenate([relu(z), 0.3 * relu(-z)], -1), 2, -1)),
    "product with its mirror": lambda z: relu(z) * relu(3 - z),
    "elu": lambda z: relu(z) + jnp.minimum(jnp.exp(z) - 1, 0),
    "elu without a bound": lambda z: relu(z) - relu(1 - jnp.exp(z)),
    "triangle": lambda z: relu(z) - 2 * relu(z - 1) + relu(z - 2),
    "hard swish": lambda z: z * relu6(z + 3) / 6,
    "hard swish by parts": lambda z: z * jnp.clip(z / 6 + 0.5, 0, 1),
    "in vmap": jax.vmap(lambda z: relu(z) - 0.2 * relu(-z)),
    "in scan": lambda z: lax.map(lambda row: relu(row) - 0.2 * relu(-row), z),
    "in a scan, beside what it reads": lambda z: lax.map(relu, z) + 0.5 * z,
    "in a scan over columns": lambda z: lax.map(relu, z.T).T + 0.5 * z,
    "in two scans": lambda z: lax.map(relu, z) - 0.2 * lax.map(relu, -z),
    "in a scan over some rows at once": lambda z: lax.map(relu, z, batch_size=2) + 0.5 * z,
    "slope in a scan": lambda z: jnp.maximum(z, lax.map(lambda row: 0.1 * row, z)),
    "in a branch": lambda z: lax.cond(z.shape[0] > 2, relu, lambda z: z, z) + 0.5 * z,
    "written out": lambda z: jnp.stack([z, 0 * z]).max(0) - 0.2 * jnp.stack([-z, 0 * z]).max(0),
    "written into zeros": lambda z: jnp.zeros((3, 8)).at[:, 2:6].set(relu(z[:, 2:6])) + 0.5 * z,
    "written into zeros at a place": lambda z: lax.dynamic_update_slice(0 * z, relu(z[1:]), (1, 0)) + 0.5 * z,
    "written into another": lambda z: z.at[1].set(relu(z[1])) - 0.9 * z,
    "of the largest of one": lambda z: relu(z[None].max(0)) + 0.5 * z,
    "of a pool of one": lambda z: relu(lax.reduce_window(z, -jnp.inf, lax.max, (1, 1), (1, 1), "VALID")) + 0.5 * z,
    "turned": lambda z: relu(z) - 0.2 * relu(-z.T).T,
    "by einsum": lambda z: jnp.einsum("s...,s->...", jnp.stack([relu(z), relu(-z)]), SLOPES),
    "by a product with the last axis": lambda z: jnp.stack([relu(z), relu(-z)], -1) @ SLOPES,
    "by a matrix of constants": lambda z: jnp.concatenate([relu(z), relu(-z)], -1) @ MATRIX,
    "by a matrix that jnp makes": lambda z: (
        jnp.concatenate([relu(z), relu(-z)], -1) @ jnp.concatenate([jnp.eye(8), -0.1 * jnp.eye(8)])
    ),
    "by two matrices, one rectifier": lambda z: relu(z @ np.concatenate([np.eye(8), -np.eye(8)], 1)) @ MATRIX,
    "by identities": lambda z: relu(z) @ np.eye(8) - relu(-z) @ (0.1 * np.eye(8)),
    "one rectifier of halves": lambda z: jnp.subtract(*jnp.split(relu(jnp.concatenate([z, -z], -1)), 2, -1)),
    "one rectifier of a stack": lambda z: (relu(jnp.stack([z, -z])) * SLOPES[:, None, None]).sum(0),
    "one rectifier of signs": lambda z: (relu(z[..., None] * np.float32([1, -1])) * SLOPES).sum(-1),
    "signs in vmap": lambda z: jax.vmap(lambda s: s * relu(s * z))(np.float32([1, -1])).sum(0),
    "signs in scan": lambda z: lax.scan(lambda c, s: (c + s * relu(s * z), None), 0 * z, SLOPES)[0],
    "signs in a loop": lambda z: lax.fori_loop(0, 2, lambda i, c: c + (1 - 1.1 * i) * relu((1 - 2 * i) * z), 0 * z),
    "of opposite products": lambda z: relu(z @ KERNEL) - 0.1 * relu((-z) @ KERNEL),
    "of opposite weights": lambda z: relu(z @ KERNEL) - 0.1 * relu(z @ -KERNEL),
    "of opposite weights that jnp makes": lambda z: (
        relu(z @ jnp.asarray(KERNEL)) - 0.1 * relu(z @ -jnp.asarray(KERNEL))
    ),
    "of opposite layers with bias": lambda z: relu(z @ KERNEL + OTHER[0]) - 0.1 * relu(-z @ KERNEL - OTHER[0]),
    "of layers of other sizes": lambda z: relu(z @ (2 * KERNEL)) - 0.1 * relu(-z @ KERNEL),
    "of one layer with opposite columns": lambda z: jnp.subtract(
        *jnp.split(relu(z @ np.concatenate([KERNEL, -2 * KERNEL], 1)), 2, -1)
    ),
    "by a running sum": lambda z: jnp.cumsum(jnp.stack([relu(z), -0.1 * relu(-z)]), 0)[-1],
    "by a pool": lambda z: lax.reduce_window(
        jnp.stack([relu(z), -0.1 * relu(-z)]), 0.0, lax.add, (2, 1, 1), (1, 1, 1), "VALID"
    )[0],
    "by a convolution of places": lambda z: lax.conv_general_dilated(
        jnp.concatenate([relu(z), relu(-z)], -1)[:, None],
        MATRIX[None],
        (1,),
        "SAME",
        dimension_numbers=("NWC", "WIO", "NWC"),
    )[:, 0],
    "by a convolution in groups": lambda z: lax.conv_general_dilated(
        jnp.stack([relu(z), relu(-z)], -1).reshape(3, 1, 16),
        np.tile(SLOPES[:, None], (1, 8))[None],
        (1,),
        "SAME",
        dimension_numbers=("NWC", "WIO", "NWC"),
        feature_group_count=8,
    )[:, 0],
    "by a matrix for each channel": lambda z: jnp.einsum(
        "bkc,kc->bc", jnp.stack([relu(z), relu(-z)], 1), np.stack([np.ones(8), KERNEL[0]]).astype(np.float32)
    ),
    "by filters of one place": lambda z: (
        lax.conv_general_dilated(
            relu(z)[None],
            np.eye(8, dtype=np.float32)[None] * np.float32([0, 1, 0])[:, None, None],
            (1,),
            "SAME",
            dimension_numbers=("NWC", "WIO", "NWC"),
        )[0]
        + 0.5 * z
    ),
    "of many knots": lambda z: jnp.stack([(-0.5) ** k * relu(z - 0.2 * k) for k in range(6)]).sum(0),
    "written row by row": lambda z: rows(relu, z) - 0.1 * rows(lambda row: relu(-row), z),
    "written row by row, beside what it reads": lambda z: rows(relu, z) + 0.5 * z,
    "read at numbers that a scan counts": lambda z: lax.map(lambda k: relu(z[k]), jnp.arange(3)) + 0.5 * z,
    "there and back by Fourier": lambda z: jnp.fft.ifft(jnp.fft.fft(relu(z))).real - 0.1 * relu(-z),
    "differences of running sums": lambda z: jnp.diff(jnp.cumsum(relu(z), -1), prepend=0) - 0.1 * relu(-z),
    "sorted and put back": lambda z: (
        jnp.take_along_axis(jnp.take_along_axis(relu(z), order := jnp.argsort(z, -1), -1), jnp.argsort(order, -1), -1)
        - 0.1 * relu(-z)
    ),
    "by adding at places": lambda z: relu(z).at[:].add(-0.1 * relu(-z)),
    "by sums of segments": lambda z: jax.ops.segment_sum(
        jnp.stack([relu(z), -0.1 * relu(-z)]), jnp.zeros(2, int), num_segments=1
    )[0],
    "by reads": lambda z: (
        (both := jnp.concatenate([relu(z), relu(-z)], -1))[:, jnp.arange(8)] - both[:, jnp.arange(8, 16)]
    ),
}


def test_opposite_convolutions_are_one_and_refused_like_any_leaky_rectifier():
    for other in (lambda x: -conv(x), lambda x: conv(-x), lambda x: conv(-3 * x)):
        (line,) = {one.reason for one in explain_rules(lambda x, f=other: relu(conv(x)) - 0.1 * relu(f(x)), IMAGES)}
        assert "leaky" in line


@pytest.mark.parametrize("form", HARD_SIGMOIDS | COMPOSED)
def test_an_activation_that_is_no_relu_is_refused_in_words_and_kept_on_request(form):
    activation = (HARD_SIGMOIDS | COMPOSED)[form]

    def fn(x):
        activated = activation(x @ KERNEL)
        return activated @ OTHER[: activated.shape[-1]]

    assert "rectifier" not in rules_of(fn) and "unclassified" in rules_of(fn)
    words = "no ReLU|no rule is known|no rectifier's|product of features|no constant|another function of it"
    with pytest.raises(ValueError, match=words):
        with_relu_rule(fn, "deconvnet")(X)
    found = down(fn, "deconvnet", "guided", x=X, incoming=INCOMING, on_unknown="keep")
    for rule in ("deconvnet", "guided"):
        np.testing.assert_array_equal(found[rule][1], found[OWN][1])


@pytest.mark.parametrize(
    ("after", "rule"),
    [
        (lambda y, b: y - b, "unclassified"),
        (lambda y, b: y + (-b), "unclassified"),
        (lambda y, b: y - b / 2 - 0.5 * b, "unclassified"),
        (lambda y, b: y + b, "rectifier"),
        (lambda y, b: y - 2 * b, "rectifier"),
    ],
)
def test_an_offset_whose_numbers_are_not_known_is_taken_back_all_the_same(after, rule):
    found = []

    @jax.jit
    def traced(bias):
        found.extend(explain_rules(lambda x: after(relu(x @ KERNEL + bias), bias), X))
        return bias

    traced(KERNEL[0])
    assert [line.rule for line in found] == [rule]


def test_a_gate_keeps_its_own_gradient_beside_a_ruled_rectifier():
    """Squeeze and excite: of the three bounds the two of features follow the rule."""

    def block(x, relu=relu):
        maps = relu(x @ KERNEL)
        gate = relu6(relu(maps.mean(0) @ OTHER) @ KERNEL + 3) / 6
        return maps * gate

    @jax.custom_vjp
    def rectifier(x):
        return relu(x)

    rectifier.defvjp(lambda x: (relu(x), None), lambda _, incoming: (relu(incoming),))
    found = down(block, "deconvnet", x=X, incoming=INCOMING, on_unknown="keep")["deconvnet"][1]
    (expected,) = jax.vjp(lambda x: block(x, rectifier), X)[1](INCOMING)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


TWO_RECTIFIERS = {
    "the same offset twice": lambda z: relu(relu(z + KERNEL[0]) @ OTHER + KERNEL[0]) + KERNEL[0],
    "another offset": lambda z: relu((relu(z + KERNEL[0]) - OTHER[0]) @ OTHER),
    "crelu under a global mean": lambda z: jnp.concatenate([relu(z), relu(-z)], -1).mean(0) @ BOTH,
    "biases of a half, as arrays": lambda z: relu(KERNEL[0] * relu(z) + jnp.full(8, 0.5)) @ OTHER,
    "crelu": lambda z: jnp.concatenate([relu(z), relu(-z)], -1) @ np.concatenate([KERNEL, OTHER]),
    "residual": lambda z: relu(relu(z) @ KERNEL + z),
    "before a residual": lambda z: relu(z) @ KERNEL + relu(z) @ OTHER,
    "dense connections": lambda z: relu(jnp.concatenate([z, relu(z) @ KERNEL], -1)) @ np.concatenate([KERNEL, OTHER]),
    "above a norm in evaluation": lambda z: relu(KERNEL[0] * relu(z) + KERNEL[1]) @ OTHER,
    "biases of ones": lambda z: relu(relu(z + jnp.ones(8)) @ KERNEL + jnp.ones(8)),
    "norms": lambda z: relu((h := relu(z)) + (h - h.mean(1, keepdims=True)) * lax.rsqrt(h.var(1, keepdims=True) + 1)),
    "offset afterwards": lambda z: relu((relu(z) - 0.4) @ KERNEL),
    "opposite products, weighted apart": lambda z: relu(z @ KERNEL) @ OTHER - relu(-z @ KERNEL) @ OTHER[::-1],
    "of mirrored rows": lambda z: relu(z @ KERNEL) + relu(z[:, ::-1] @ KERNEL),
    "mean of two heads": lambda z: jnp.stack([relu(z @ KERNEL), relu(z @ OTHER)]).mean(0),
    "residual in a scan": lambda z: relu(lax.map(lambda row: relu(row) @ KERNEL, z) + z),
    "residual of two scans": lambda z: lax.map(relu, z) @ KERNEL + lax.map(lambda row: relu(row @ KERNEL), z),
    "written beside each other": lambda z: z.at[1].set(relu(z[1]) @ KERNEL).at[0].set(relu(z[0])),
    "of a branch": lambda z: relu(lax.cond(z.shape[0] > 2, relu, lambda z: -z, z) @ KERNEL),
    "of halves that do not meet": lambda z: jnp.concatenate([relu(z[:, :4]), relu(-z[:, 4:])], -1) @ KERNEL,
}


@pytest.mark.parametrize("form", TWO_RECTIFIERS)
def test_rectifiers_with_weights_or_maps_between_them_are_rectifiers(form):
    rules = rules_of(lambda x: TWO_RECTIFIERS[form](x @ KERNEL))
    assert rules.count("rectifier") == 2 and "unclassified" not in rules


IN_PLACES_NOBODY_STATES = {
    "sum of rows in a loop": lambda z: lax.fori_loop(0, 3, lambda k, c: c + relu(z[k]), jnp.zeros(8)),
    "row by row": lambda z: rows(relu, z),
    "beside its Fourier transform": lambda z: (h := relu(z)) + jnp.fft.fft2(h).real,
    "differences of running sums": lambda z: (c := jnp.cumsum(relu(z), 1))[:, 3:] - c[:, :-3],
    "recurrent": lambda z: lax.fori_loop(0, 3, lambda k, h: relu(z[k] + h @ OTHER), jnp.zeros(8)),
}


@pytest.mark.parametrize("form", IN_PLACES_NOBODY_STATES)
def test_a_rectifier_whose_places_nobody_states_is_one(form):
    assert rules_of(lambda x: IN_PLACES_NOBODY_STATES[form](x @ KERNEL)) == ["rectifier"]


def test_constants_made_by_arithmetic_are_folded():
    for fn in (
        lambda z: jnp.maximum(z, jnp.zeros(8) * 1.0),
        lambda z: jnp.maximum(z, 0 * jnp.arange(8.0)),
        lambda z: jnp.maximum(z, jnp.sin(jnp.zeros((3, 1)))),
        lambda z: jnp.maximum(z, jnp.asarray(KERNEL[0]) - KERNEL[0]),
        lambda z: jnp.clip(z, 0.0, jnp.asarray(3.0) * 2),
        lambda z: jnp.maximum(z, jnp.cumsum(jnp.zeros(8))),
        lambda z: jnp.where(z > jnp.log(jnp.ones(())), z, jnp.float32(3) - 3),
        lambda z: jnp.maximum(z, jax.random.normal(jax.random.key(0), (8,)) * 0),
        lambda z: jnp.clip(z, int(0.5), jnp.exp(2.0)),
        lambda z: jnp.maximum(jnp.broadcast_to(z[None], (4000, 3, 8)), jnp.zeros((4000, 3, 8)) * 2)[0],
    ):
        assert {*rules_of(lambda x, fn=fn: fn(x @ KERNEL)[:3])} - {"own gradient"} == {"rectifier"}
    guards = (1 / np.sqrt(8), 1 / jnp.sqrt(8), jnp.finfo(jnp.float32).eps * 2, jnp.linspace(0.1, 1, 3)[:, None])
    for guard in guards:

        def norm(x, guard=guard):
            return (x - x.mean(1, keepdims=True)) / jnp.maximum(x.std(1, keepdims=True), guard * 1)

        assert {*rules_of(norm)} == {"own gradient"}


def side_by_side(*maps):
    return jnp.concatenate(maps, -1)


LARGE = {
    "pieces of a join": lambda z: (h := side_by_side(relu(z), z))[..., :65] + 0.1 * h[..., 65:],
    "pieces of what is written": lambda z: (
        (h := jnp.zeros_like(side_by_side(z, z)).at[..., :65].set(z).at[..., 65:].set(relu(z)))[..., :65] + h[..., 65:]
    ),
    "pieces of a rectified join": lambda z: (h := relu(side_by_side(z, -z)))[..., :65] - 0.1 * h[..., 65:],
    "small pieces of a join": lambda z: (h := side_by_side(relu(z), z))[:, :2, :2, :9] + 0.1 * h[:, :2, :2, 65:74],
    "sum of pairs": lambda z: side_by_side(relu(z), 0.1 * z).reshape(*z.shape[:3], 2, 65).sum(-2),
    "two slopes": lambda z: (SLOPES * relu(z[..., None] * np.sign(SLOPES))).sum(-1),
    "by a matrix": lambda z: side_by_side(relu(z), z) @ jnp.concatenate([jnp.eye(65), 0.1 * jnp.eye(65)]),
    "sum of a stack": lambda z: jnp.stack([relu(z), -0.1 * relu(-z)]).sum(0),
    "turned": lambda z: relu(z) - 0.1 * relu(-jnp.moveaxis(z, -1, 1)).transpose(0, 2, 3, 1),
}


LARGE_RECTIFIERS = {
    "turned": lambda z: relu(jnp.moveaxis(z, -1, 1)) + 1,
    "opposites side by side": lambda z: jnp.moveaxis(side_by_side(relu(z), relu(-z)), -1, 1),
    "beside what they read": lambda z: side_by_side(z, relu(z) @ jnp.ones((65, 3))),
    "shifted": lambda z: relu(z)[:, 1:] + relu(z)[:, :-1],
    "pooled, of one mean": lambda z: pooled(relu(z - z.mean((1, 2), keepdims=True))),
}


@pytest.mark.parametrize("form", LARGE)
@pytest.mark.parametrize("num", [1, 64])
def test_large_maps_are_looked_at_too(form, num):
    images = jax.ShapeDtypeStruct((num, 128, 128, 3), np.float32)
    (rule,) = {line.rule for line in explain_rules(lambda x: LARGE[form](jnp.tile(conv(x), 13)), images)}
    assert rule == "unclassified"


@pytest.mark.parametrize("form", LARGE_RECTIFIERS)
def test_rectifiers_of_large_maps_are_ruled(form):
    images = jax.ShapeDtypeStruct((64, 128, 128, 3), np.float32)
    rules = [line.rule for line in explain_rules(lambda x: LARGE_RECTIFIERS[form](x @ jnp.ones((3, 65))), images)]
    assert "rectifier" in rules and "unclassified" not in rules


def pooled(h):
    return lax.reduce_window(h, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def standardised(h, axes):
    return (h - h.mean(axes, keepdims=True)) / jnp.sqrt(h.var(axes, keepdims=True) + 1e-5)


NORMALISED = {
    "each image": lambda h: pooled(relu(standardised(h, (1, 2, 3)))),
    "each map": lambda h: pooled(relu(standardised(h, (1, 2)))),
    "groups": lambda h: pooled(relu(standardised(h.reshape(*h.shape[:3], 2, -1), (1, 2, 4)).reshape(h.shape))),
    "each place": lambda h: relu(standardised(h, (3,))).reshape(*h.shape[:3], -1, 2).sum(-1),
    "moved as a whole": lambda h: pooled(relu(h + (h.mean((1, 2)) @ KERNEL)[:, None, None])),
}


@pytest.mark.parametrize("form", NORMALISED)
def test_neighbours_that_share_a_mean_are_pooled(form):
    images = jax.ShapeDtypeStruct((2, 6, 6, 3), np.float32)
    rules = [line.rule for line in explain_rules(lambda x: NORMALISED[form](x @ KERNEL[:3]), images)]
    assert rules.count("rectifier") == 1 and "unclassified" not in rules
