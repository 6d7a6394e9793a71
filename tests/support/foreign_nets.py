"""Networks that are none of ours, for `--net foreign_nets:NAME`: images that are not square, grey or in colours."""

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from zfjax.nets import FunctionNet

CLASS_NAMES = ("cat", "dog", "owl")


def _params(channels, seed=0):
    keys = jax.random.split(jax.random.key(seed), 3)
    return {
        "conv1": 0.3 * jax.random.normal(keys[0], (3, 3, channels, 4)),
        "conv2": 0.3 * jax.random.normal(keys[1], (3, 3, 4, 6)),
        "head": 0.1 * jax.random.normal(keys[2], (5 * 7 * 6, 3)),
    }


def forward(params, images):
    """conv, relu, pool; conv, relu, pool; dense: images [B, 20, 28, C] -> {layer: features}."""
    conv = lambda x, kernel: jax.lax.conv_general_dilated(  # noqa: E731
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    pool = lambda x: jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")  # noqa: E731
    first = pool(jax.nn.relu(conv(images, params["conv1"])))
    second = pool(jax.nn.relu(conv(first, params["conv2"])))
    return {"conv1": first, "conv2": second, "logits": second.reshape(len(images), -1) @ params["head"]}


answers = jax.jit(forward)  # for what tests work out by hand: one program rather than one for each operation

SMALL = FunctionNet(forward, _params(3), image_size=(20, 28), class_names=CLASS_NAMES, name="small")
GREY = FunctionNet(forward, _params(1), image_size=(20, 28), channels=1, class_names=CLASS_NAMES, name="grey")
RGBA = FunctionNet(forward, _params(4), image_size=(20, 28), channels=4, class_names=CLASS_NAMES, name="rgba")
PATHED = FunctionNet(
    lambda params, images: {k if k == "logits" else f"Net/{k}": v for k, v in forward(params, images).items()},
    _params(3),
    image_size=(20, 28),
    class_names=CLASS_NAMES,
    name="pathed",
)
EPOCHS = {3: SMALL, 1: SMALL.with_params(_params(3, seed=1)), 2: SMALL.with_params(_params(3, seed=2))}
MAPS_ONLY = FunctionNet(
    lambda params, images: {k: v for k, v in forward(params, images).items() if k != "logits"},
    _params(3),
    image_size=(20, 28),
    name="maps only",
)
EMBEDDING = FunctionNet(  # its last layer is dense, and nobody says that its units are classes
    lambda params, images: {k.replace("logits", "embedding"): v for k, v in forward(params, images).items()},
    _params(3),
    image_size=(20, 28),
    name="embedding",
)


def _with_silu(params, images):
    """Of a rule only on its way down from conv1: above stands an activation that is no rectifier."""
    below = forward(params, images)
    return {"conv1": below["conv1"], "conv2": jax.nn.silu(below["conv2"] + 1), "logits": below["logits"] ** 2}


SILU = FunctionNet(_with_silu, _params(3), image_size=(20, 28), class_names=CLASS_NAMES, name="silu")


def folder(path, num=6):
    """A folder of pictures in class folders, each with a bright square somewhere."""
    rng = np.random.default_rng(0)
    for index in range(num):
        pixels = rng.integers(0, 90, (30, 40, 3), dtype=np.uint8)
        row, column = rng.integers(4, 18), rng.integers(4, 26)
        pixels[row : row + 8, column : column + 8] = rng.integers(150, 255, 3)
        place = path / CLASS_NAMES[index % 3] / f"picture {index}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place)
    return path


def linen_resnet():
    """A residual net of Flax Linen, with batch norms on their running statistics."""
    import flax.linen as nn

    class Block(nn.Module):
        width: int
        stride: int = 1

        @nn.compact
        def __call__(self, x):
            norm = lambda: nn.BatchNorm(use_running_average=True)  # noqa: E731
            y = nn.relu(norm()(nn.Conv(self.width, (3, 3), (self.stride, self.stride), use_bias=False)(x)))
            y = norm()(nn.Conv(self.width, (3, 3), use_bias=False)(y))
            if x.shape != y.shape:
                x = norm()(nn.Conv(self.width, (1, 1), (self.stride, self.stride), use_bias=False)(x))
            return nn.relu(x + y)

    class ResNet(nn.Module):
        @nn.compact
        def __call__(self, images):
            stem = nn.relu(nn.Conv(8, (3, 3), (2, 2))(images))
            pooled = nn.max_pool(stem, (3, 3), (2, 2), "SAME")
            first = Block(8)(pooled)
            second = Block(12, 2)(first)
            logits = nn.Dense(3)(second.mean(axis=(1, 2)))
            return {"stem": pooled, "block1": first, "block2": second, "logits": logits}

    model = ResNet()
    variables = model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    return FunctionNet(model.apply, variables, image_size=32, class_names=CLASS_NAMES, name="linen resnet")


def nnx_convnet():
    """A convnet of Flax NNX, which holds its own parameters."""
    from flax import nnx

    class ConvNet(nnx.Module):
        def __init__(self, rngs):
            self.conv1 = nnx.Conv(3, 8, (3, 3), rngs=rngs)
            self.conv2 = nnx.Conv(8, 12, (3, 3), strides=2, rngs=rngs)
            self.head = nnx.Linear(12, 3, rngs=rngs)

        def __call__(self, images):
            first = nnx.relu(self.conv1(images))
            second = nnx.relu(self.conv2(nnx.max_pool(first, (2, 2), (2, 2))))
            return {"conv1": first, "conv2": second, "logits": self.head(second.mean(axis=(1, 2)))}

    return FunctionNet(ConvNet(nnx.Rngs(0)), image_size=32, class_names=CLASS_NAMES, name="nnx convnet")


def equinox_net():
    """A convnet of Equinox, which sees one image [C, H, W] at a time."""
    import equinox as eqx

    keys = jax.random.split(jax.random.key(0), 3)
    conv1, conv2 = (
        eqx.nn.Conv2d(n, m, 3, padding=1, key=key) for (n, m), key in zip([(3, 8), (8, 12)], keys, strict=False)
    )
    pool, head = eqx.nn.MaxPool2d(2, 2), eqx.nn.Linear(12, 3, key=keys[2])

    def one(image):
        first = pool(jax.nn.relu(conv1(jnp.moveaxis(image, 2, 0))))
        second = pool(jax.nn.relu(conv2(first)))
        maps = {"conv1": first, "conv2": second}
        return {name: jnp.moveaxis(of, 0, 2) for name, of in maps.items()} | {"logits": head(second.mean(axis=(1, 2)))}

    return FunctionNet(jax.vmap(one), image_size=32, class_names=CLASS_NAMES, name="equinox net")


class Minimal:
    """A Net of exactly the protocol's members, each made anew at every call; it counts how often it is traced."""

    name, image_size, picture_size, class_names, fingerprint = "minimal", (20, 28), (20, 28), CLASS_NAMES, "minimal"
    layers = ("conv1", "conv2", "logits")

    def __init__(self):
        self.traces = 0

    def prepare(self, pictures):
        return jnp.asarray(pictures, jnp.float32) / 255

    def features(self, layers):
        def fn(images):
            self.traces += 1
            return {layer: of for layer, of in forward(SMALL.params, images).items() if layer in layers}

        return fn

    def project(self, images, units, *, layer=None, of=None, way="deconvnet"):
        return SMALL.project(images, units, layer=layer, of=of, way=way)

    def receptive_field(self, layer):
        return None


MINIMAL = Minimal()
