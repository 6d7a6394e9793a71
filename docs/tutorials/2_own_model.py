# %% [markdown]
# # 2. Your own Flax, NNX, Equinox or Keras model
#
# The model stays unchanged and is not retrained: the deconvnet only replaces the backward rule at each ReLU of its
# program. [The notebook](2_own_model.ipynb).

# %%
import importlib.util
import os

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import zfjax

SIZE = 64  # small: 24
images = jax.random.uniform(jax.random.key(0), (2, SIZE, SIZE, 3))

# %% [markdown]
# ## Flax Linen: a residual block with norms


# %%
class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    features: int

    @nn.compact
    def __call__(self, maps):
        inner = nn.relu(nn.GroupNorm(4)(nn.Conv(self.features, (3, 3), name="first")(maps)))
        inner = nn.GroupNorm(4)(nn.Conv(self.features, (3, 3), name="second")(inner))
        return nn.relu(inner + nn.Conv(self.features, (1, 1), name="shortcut")(maps))


class Linen(nn.Module):
    """Two blocks, a pool, and ten logits."""

    @nn.compact
    def __call__(self, images):
        maps = Block(16, name="block_1")(images)
        maps = nn.max_pool(maps, (2, 2), strides=(2, 2))
        maps = Block(32, name="block_2")(maps)
        return nn.Dense(10, name="head")(maps.mean((1, 2)))


model = Linen()
variables = model.init(jax.random.key(1), images)
fn = lambda images: model.apply(variables, images)
report = zfjax.explain_rules(fn, images)
print(report)
assert [line.rule for line in report].count("rectifier") == 4

# %% [markdown]
# `zfjax.layers` lists every intermediate by the path of its module. Here one map of the second block is projected from
# its strongest activation.

# %%
layers = zfjax.layers(fn, images)
print([path for path, layer in layers.items() if layer.is_module])
block = next(path for path, layer in layers.items() if layer.is_module and path.endswith("block_2"))
pixels = zfjax.project_fn(fn, images, unit=5, layer=block)
assert pixels.shape == images.shape and bool(jnp.isfinite(pixels).all())

# %% [markdown]
# ## Flax NNX


# %%
class Nnx(nnx.Module):
    """Two convolutions."""

    def __init__(self, rngs):
        self.conv1 = nnx.Conv(3, 16, (3, 3), rngs=rngs)
        self.conv2 = nnx.Conv(16, 8, (3, 3), rngs=rngs)

    def __call__(self, images):
        return jnp.maximum(self.conv2(nnx.relu(self.conv1(images))), 0)


pixels = jax.jit(lambda images: zfjax.project_fn(Nnx(nnx.Rngs(0)), images, unit=5))(images)
touched = np.abs(np.asarray(pixels)).sum(axis=(0, 3)) > 0
assert 0 < touched.sum() <= 2 * 25  # two filters of 3x3 see 5x5 pixels of each image

# %% [markdown]
# ## Equinox, and a norm that is skipped on the way down

# %%
if importlib.util.find_spec("equinox"):
    import equinox as eqx

    conv1, conv2 = (eqx.nn.Conv2d(n, m, 3, padding=1, key=jax.random.key(n)) for n, m in [(3, 16), (16, 8)])
    norm = zfjax.skipped_on_the_way_down(eqx.nn.GroupNorm(4, 16))

    def channels_first(image):
        """[C, H, W], as Equinox has it."""
        return jax.nn.relu(conv2(norm(jax.nn.relu(conv1(image)))))

    equinox = lambda images: jnp.moveaxis(jax.vmap(channels_first)(jnp.moveaxis(images, 3, 1)), 1, 3)
    assert zfjax.project_fn(equinox, images, unit=5).shape == images.shape

# %% [markdown]
# ## Keras, on its JAX backend
#
# A Keras model is already a function.

# %%
if importlib.util.find_spec("keras"):
    os.environ["KERAS_BACKEND"] = "jax"  # before Keras is imported
    import keras

    stages = [
        keras.Input((SIZE, SIZE, 3)),
        keras.layers.Conv2D(8, 3, activation="relu", name="last"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(5, activation="softmax"),
    ]
    keras_model = keras.Sequential(stages, name="small")
    of_keras = lambda images: keras_model(images, training=False)
    assert zfjax.project_fn(of_keras, images, unit=5, layer="small/last").shape == images.shape

# %% [markdown]
# A softmax at the end of a model is refused, because the paper defines no way down for it. Choose a layer below it, by
# its path.

# %%
softmax = lambda images: jax.nn.softmax(fn(images))
try:
    zfjax.project_fn(softmax, images, unit=3)
except zfjax.UserError as error:
    print(error)
else:
    raise AssertionError("a softmax has no way down")

# %% [markdown]
# ## All the figures
#
# A `FunctionNet` makes the model a network like any other, with analyses, figures (`--net my_nets:NET`) and the atlas
# (`zfjax atlas my_nets:NET --data PHOTOS`).

# %%
NET = zfjax.FunctionNet(fn, image_size=SIZE, layers=(block, "logits"), class_names=tuple("abcdefghij"), name="mine")
print(zfjax.nets.shapes_of(NET))
assert NET.project(images, zfjax.Unit(3, layer="logits"), seed="one").shape == images.shape
