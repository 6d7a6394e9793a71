"""A tiny net and a tiny Caltech-101, for the tests of what is measured on frozen features."""

import jax
import numpy as np
import tiny_nets
from PIL import Image
from saved_runs import save_run

import zfjax
from zfjax import nets, training
from zfjax.data import caltech, photo_sets

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


def write_photos(root, dataset="caltech101"):
    """Caltech with three classes: noise around a colour, which a net that looks at colours tells apart."""
    for number, (name, colour) in enumerate(COLOURS.items()):
        called = name if dataset == "caltech101" else f"{number + 1:03d}.{name}"
        folder = root / caltech.FOLDERS[dataset] / called
        folder.mkdir(parents=True)
        for index in range(COUNTS[name]):
            noise = np.random.default_rng(100 * number + index).normal(0, 40, (24, 24, 3))
            pixels = np.clip(noise + colour, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"image_{index:04d}.png")
    return root


def features_of(net, photo_set):
    """{layer: rows of features} of the set's photos, of single pictures, by a plain forward pass."""
    source = photo_sets.source_of(photo_set, SIDE)
    pictures = np.stack([source[i]["image"] for i in range(len(source))]).astype(np.float32)
    trace = tiny_nets.forward(net.params, (pictures - net.mean)[:, 2:-2, 2:-2], architecture=TABLE)[1]
    return {layer: np.asarray(of.features).reshape(len(pictures), -1) for layer, of in trace.items()}


def network(run, seed=0):
    """The net, untrained, of the run folder `run`, which is saved there."""
    params = training.init_params(jax.random.key(seed), architecture=TABLE, initialization="he")
    mean = np.full((SIDE, SIDE, 3), 110, np.float32)
    params = jax.tree.map(np.asarray, params)
    return nets.load_net(save_run(run, TABLE, {1: params}, mean, class_names="abc", recipe=RECIPE, data="photos"))
