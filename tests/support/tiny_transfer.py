"""A tiny net and a tiny Caltech-101, for the tests of what is measured on frozen features."""

from pathlib import Path

import jax
import numpy as np
from PIL import Image

import zfjax
from zfjax import nets, training
from zfjax.training import checkpoints

TABLE = zfjax.Architecture(
    name="tiny",
    layers=(
        zfjax.Conv("conv1", 3, kernel=5, stride=3, after=(zfjax.Pool(),)),
        zfjax.Dense("fc7", 12),
        zfjax.Dense("fc8", 3, hidden=False),
    ),
    image_size=16,
    input_scale=7 / 58,
)

SIDE = 20
RECIPE = training.Recipe(initialization="he", batch_size=8, crops="random", seed=4)
COLOURS = {"ant": (200, 60, 60), "bass": (60, 200, 60), "crab": (60, 60, 200)}
COUNTS = {"ant": 9, "bass": 7, "crab": 30}


def write_photos(root):
    """Caltech-101 with three classes: noise around a colour, which a net that looks at colours tells apart."""
    for number, (name, colour) in enumerate(COLOURS.items()):
        folder = root / "101_ObjectCategories" / name
        folder.mkdir(parents=True)
        for index in range(COUNTS[name]):
            noise = np.random.default_rng(100 * number + index).normal(0, 40, (24, 24, 3))
            pixels = np.clip(noise + colour, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"image_{index:04d}.png")
    return root


def network(run, seed=0):
    """The net, untrained, of the run folder `run`."""
    params = training.init_params(jax.random.key(seed), architecture=TABLE, initialization="he")
    params = jax.tree.map(np.asarray, params)
    mean = np.full((SIDE, SIDE, 3), 110, np.float32)
    classes = ("a", "b", "c")
    path = Path("runs/x/checkpoints/1")
    return nets.TrainedNet(TABLE, params, mean, path, run, "photos", classes, checkpoints.digest(params))


def install(monkeypatch, net):
    """`net` is what the experiments load, whatever checkpoint is named; only what goes on training is truly read."""
    load, untrained = checkpoints.load, checkpoints.Checkpoint(*[None] * 3, RECIPE, *[None] * 4)
    monkeypatch.setattr(nets, "load_net", lambda checkpoint: net)
    monkeypatch.setattr(checkpoints, "load", lambda path, **how: load(path, **how) if how else untrained)
    return net
