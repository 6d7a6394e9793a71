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


SMALL = FunctionNet(forward, _params(3), image_size=(20, 28), class_names=CLASS_NAMES, name="small")
GREY = FunctionNet(forward, _params(1), image_size=(20, 28), channels=1, class_names=CLASS_NAMES, name="grey")
MAPS_ONLY = FunctionNet(
    lambda params, images: {k: v for k, v in forward(params, images).items() if k != "logits"},
    _params(3),
    image_size=(20, 28),
    name="maps only",
)


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
