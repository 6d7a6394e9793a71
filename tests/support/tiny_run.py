"""A tiny net and a tiny set in the place of a run, for the commands that draw one."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import zfjax
from zfjax import nets
from zfjax.data import ArraySource, ImageSet

NET = zfjax.Architecture(
    name="tiny",
    layers=(
        zfjax.Conv("conv1", 6, kernel=3, stride=2, padding=(1, 1), after=(zfjax.Pool(),)),
        zfjax.Conv("conv2", 5, kernel=5, padding=(2, 2)),
        zfjax.Dense("fc6", 4),
        zfjax.Dense("fc7", 3, hidden=False),
    ),
    image_size=20,
)

SIDE, NUM = 24, 21
PICTURES = np.random.default_rng(0).integers(0, 256, (NUM, SIDE, SIDE, 3), np.uint8)
MEAN = np.full((SIDE, SIDE, 3), 120, np.float32)
CENTRES = PICTURES[:, 2:22, 2:22]


def make_params():
    net = zfjax.ConvNet(NET, kernel_init=jax.nn.initializers.normal(0.1))
    params = jax.tree.map(np.asarray, jax.jit(net.init)(jax.random.key(0), jnp.zeros((1, 20, 20, 3)))["params"])
    params["conv1"]["bias"] = np.array([0, -1e6, 0, 0, 0, 0], np.float32)  # map 1 is dead
    return params


def make_data():
    return ImageSet("tiny", SIDE, ("a",), None, ArraySource(PICTURES, np.zeros(NUM, int)), MEAN, None, "data")


def make_net(run=Path("runs/x")):
    return nets.TrainedNet(NET, make_params(), MEAN, Path("runs/x/checkpoints/1"), run, "tiny", ("a", "b"), "net")
