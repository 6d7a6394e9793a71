"""Weights of torchvision's networks, drawn from a fixed seed: all that a golden file of their outputs needs."""

import numpy as np

from zfjax.pretrained import torchvision_nets

NUM_CLASSES = 10
SIDES = {"resnet18": 33, "squeezenet1_0": 39, "squeezenet1_1": 35}  # pixels
LAYERS = {"resnet18": "layer2.0", "squeezenet1_0": "features.4", "squeezenet1_1": "features.4"}
CHANNEL = 3


def shapes_of(kind, num_classes=NUM_CLASSES):
    shapes, channels = {}, 3
    for row in torchvision_nets.TORCHVISION[kind](num_classes):
        more, channels = row.shapes(channels)
        shapes |= more
    return shapes


def arrays_of(kind, seed=0):
    """Kernels that keep the scale of the signal, norms near 1, and biases of both signs."""
    rng, arrays, shapes = np.random.default_rng(seed), {}, shapes_of(kind)
    for name, shape in shapes.items():
        is_norm = f"{name.rpartition('.')[0]}.running_var" in shapes
        if len(shape) > 1:
            array = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        elif is_norm and name.endswith(("weight", "running_var")):
            array = rng.uniform(0.5, 1.5, shape)
        else:
            array = rng.normal(0, 0.1, shape)
        arrays[name] = array.astype(np.float32)
    return arrays


def inputs_of(side, num=2):
    """[B, 3, H, W], normalised, as the networks read them."""
    return np.random.default_rng(1).normal(0, 1, (num, 3, side, side)).astype(np.float32)
