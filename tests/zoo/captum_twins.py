"""Keras nets in PyTorch, with the same weights, for Captum's Deconvolution; imported only where these are there."""

import warnings

import numpy as np
import torch
from captum.attr import Deconvolution
from torch import nn


def picture(build, model, images, channel):
    """What comes down from a logit of the Keras model, beginning with its own value, at images [B, H, W, C]."""
    net = build({layer.name: layer for layer in model.layers}).eval()
    tensor = torch.from_numpy(np.moveaxis(np.array(images), 3, 1).copy()).requires_grad_()
    values = net(tensor)[:, channel].detach()[:, None, None, None]  # Captum begins with 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Captum says that it sets hooks
        down = Deconvolution(net).attribute(tensor, target=channel) * values
    return np.moveaxis(down.detach().numpy(), 1, 3)


def numbers(variable):
    """Those of a weight of Keras, whose own `numpy()` warns beside NumPy 2."""
    return np.array(variable.value)


def conv(layer, padding=0):
    kernel, bias = map(numbers, layer.weights)
    made = nn.Conv2d(*kernel.shape[2:], kernel.shape[:2], layer.strides, padding)
    made.weight.data, made.bias.data = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()), torch.from_numpy(bias)
    return made


def dense(layer):
    kernel, bias = map(numbers, layer.weights)
    made = nn.Linear(*kernel.shape)
    made.weight.data, made.bias.data = torch.from_numpy(kernel.T.copy()), torch.from_numpy(bias)
    return made


def norm(layer):
    made = nn.BatchNorm2d(layer.gamma.shape[0], layer.epsilon)
    names = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
    for ours, theirs in names.items():
        getattr(made, ours).data = torch.from_numpy(numbers(getattr(layer, theirs)))
    return made


class Rows(nn.Module):
    """[B, C, H, W] -> [B, H * W * C], in the order of Keras."""

    def forward(self, maps):
        return maps.movedim(1, 3).flatten(1)


class Mean(nn.Module):
    """[B, C, H, W] -> [B, C]"""

    def forward(self, maps):
        return maps.mean((2, 3))


class Block(nn.Module):
    """A bottleneck of ResNet50 v1, with the stride on its first filter."""

    def __init__(self, layers, name):
        super().__init__()
        parts = [
            (conv(layers[f"{name}_{n}_conv"], 1 if n == 2 else 0), norm(layers[f"{name}_{n}_bn"])) for n in (1, 2, 3)
        ]
        self.inside = nn.Sequential(*parts[0], nn.ReLU(), *parts[1], nn.ReLU(), *parts[2])
        widens = f"{name}_0_conv" in layers
        shortcut = (conv(layers[f"{name}_0_conv"]), norm(layers[f"{name}_0_bn"])) if widens else ()
        self.shortcut, self.relu = nn.Sequential(*shortcut), nn.ReLU()

    def forward(self, x):
        return self.relu(self.inside(x) + self.shortcut(x))


def vgg16(layers):
    parts = []
    for name, layer in layers.items():
        if "conv" in name:
            parts += [conv(layer, 1), nn.ReLU()]
        elif "pool" in name:
            parts.append(nn.MaxPool2d(2))
    return nn.Sequential(
        *parts, Rows(), dense(layers["fc1"]), nn.ReLU(), dense(layers["fc2"]), nn.ReLU(), dense(layers["predictions"])
    )


def resnet50(layers):
    stem = [conv(layers["conv1_conv"], 3), norm(layers["conv1_bn"]), nn.ReLU(), nn.ZeroPad2d(1), nn.MaxPool2d(3, 2)]
    blocks = [Block(layers, name.removesuffix("_1_conv")) for name in layers if name.endswith("_1_conv")]
    return nn.Sequential(*stem, *blocks, Mean(), dense(layers["predictions"]))
