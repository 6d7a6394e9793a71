"""What lies between the layers of a program: which it reads, what it does in words, how many weights that takes."""

import foreign_nets
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from zfjax import nets
from zfjax.anymodel.between import between_layers

RNG = np.random.default_rng(0)


def conv(images, kernel, stride=(1, 1), **options):
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(images, kernel, stride, "SAME", dimension_numbers=layout, **options)


def kernel(*shape):
    return RNG.normal(size=shape).astype(np.float32)


FIRST, SECOND, ACROSS, DENSE = kernel(5, 3, 3, 4), kernel(3, 3, 2, 4), kernel(1, 1, 4, 4), kernel(4, 6)


def branching(images):
    """A stem, a residual block of grouped filters, a head; the stem's second half is asked for once more."""
    stem = jax.nn.relu(conv(images, FIRST, (2, 1)))
    pooled = lax.reduce_window(stem, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")
    block = jax.nn.gelu(conv(pooled, SECOND, feature_group_count=2) + conv(pooled, ACROSS))
    both = jnp.concatenate([block, pooled], axis=-1)
    return {"stem": stem, "pooled": pooled, "block": block, "both": both, "logits": block.mean((1, 2)) @ DENSE}


def read(fn, layers, shape=(12, 20, 3)):
    return between_layers(fn, layers, shape=shape, dtype=np.float32)


def test_layers_are_made_of_those_below_by_operations_in_words():
    made, num_weights = read(branching, ("stem", "pooled", "block", "both", "logits"))
    assert made["stem"] == ((), ("conv 5x3, stride 2x1", "ReLU"), FIRST.size)
    assert made["pooled"] == (("stem",), ("max 3x3, stride 2",), 0)
    assert made["block"].reads == ("pooled",) and made["block"].num_weights == SECOND.size + ACROSS.size
    assert made["block"].steps == ("conv 3x3, 2 groups", "conv 1x1", "sum of branches", "GELU")
    assert made["both"] == (("pooled", "block"), ("side by side",), 0)
    assert made["logits"] == (("block",), ("mean over places", "matrix"), DENSE.size)
    assert num_weights == FIRST.size + SECOND.size + ACROSS.size + DENSE.size


def test_of_some_layers_the_operations_add_up():
    made, _ = read(branching, ("pooled", "logits"))
    assert made["pooled"].steps == ("conv 5x3, stride 2x1", "ReLU", "max 3x3, stride 2")
    assert made["logits"].reads == ("pooled",) and made["logits"].num_weights == 36 * 2 + 16 + 24


def test_layers_whose_axes_were_turned_or_that_are_computed_anew_are_the_same():
    def turned(images):
        one = jax.nn.relu(
            lax.conv_general_dilated(images.transpose(0, 3, 1, 2), FIRST.transpose(3, 2, 0, 1), (1, 1), "SAME")
        )
        return {"maps": one.transpose(0, 2, 3, 1), "mean": one.mean((2, 3))}

    made, _ = read(turned, ("maps", "mean"))
    assert made["mean"] == (("maps",), ("mean over places",), 0)
    anew, num_weights = read(lambda images: {k: branching(images)[k] for k in ("stem", "logits")}, ("stem", "logits"))
    assert anew["logits"].reads == ("stem",) and anew["logits"].steps[0] == "max 3x3, stride 2"
    assert num_weights == FIRST.size + SECOND.size + ACROSS.size + DENSE.size


def test_a_norms_clamp_is_no_relu_and_products_of_features_are_no_matrices():
    def attends(images):
        tokens = images.reshape(len(images), -1, 3)
        spread = jnp.maximum((tokens**2).mean(-1, keepdims=True) - tokens.mean(-1, keepdims=True) ** 2, 0.0)
        scaled = tokens * lax.rsqrt(spread + 1e-6)
        weights = jax.nn.softmax(scaled @ scaled.swapaxes(1, 2))
        return {"tokens": (weights @ scaled).reshape(images.shape)}

    made, _ = read(attends, ("tokens",))
    assert made["tokens"].steps == ("product", "softmax", "product")


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (jax.nn.gelu, ("GELU",)),
        (lambda x: jax.nn.gelu(x, approximate=False), ("GELU",)),
        (jax.nn.silu, ("SiLU",)),
        (jax.nn.sigmoid, ("sigmoid",)),
        (jnp.tanh, ("tanh",)),
        (jax.nn.softmax, ("softmax",)),
        (jax.nn.log_softmax, ("log softmax",)),
        (lambda x: jnp.maximum(x, 0), ("ReLU",)),
        (lambda x: x + jnp.tanh(conv(x, ACROSS[:, :, :3, :3])), ("conv 1x1", "tanh", "sum of branches")),
    ],
)
def test_functions_that_bend_are_named(function, words):
    made, _ = read(lambda images: {"maps": function(images)}, ("maps",))
    assert made["maps"].steps == words


@pytest.mark.parametrize("name", ["linen_resnet", "nnx_convnet", "equinox_net"])
def test_every_parameter_of_a_frameworks_net_is_counted_once(name):
    net = getattr(foreign_nets, name)()
    made, num_weights = nets.between_layers(net)
    if net.params is not None:
        assert num_weights == sum(leaf.size for leaf in jax.tree.leaves(net.params))
    assert num_weights == sum(between.num_weights for between in made.values())
    assert [between.reads for between in made.values()] == [(), *((layer,) for layer in net.layers[:-1])]
