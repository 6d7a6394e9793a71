"""The nets of `captum_nets` in PyTorch, from the same parameters; imported only where PyTorch is there.

Captum finds a rectifier by its module, `nn.ReLU`, and hooks each once: so every place has a module of its own.
"""

import torch
from torch import nn


class Twin(nn.Module):
    """Takes images [B, 3, H, W]; its convolutions and dense layers carry the names of the parameters."""

    def __init__(self, params):
        super().__init__()
        self.layers = nn.ModuleDict()
        self.relus = nn.ModuleList([nn.ReLU() for _ in range(self.num_relus)])
        kernels = {key.split("/")[0]: value for key, value in params.items() if key.endswith("kernel")}
        for layer, kernel in kernels.items():
            stride, padding, groups = self.options.get(layer, (1, 0, 1))
            if kernel.ndim == 4:
                size, inputs, outputs = kernel.shape[0], kernel.shape[2] * groups, kernel.shape[3]
                self.layers[layer] = nn.Conv2d(inputs, outputs, size, stride, padding, groups=groups)
                weight = kernel.transpose(3, 2, 0, 1)
            else:
                self.layers[layer] = nn.Linear(*kernel.shape)
                weight = kernel.T
            state = {"weight": torch.tensor(weight), "bias": torch.tensor(params[f"{layer}/bias"])}
            self.layers[layer].double().load_state_dict(state)

    options: dict = {}  # layer -> (stride, padding, groups) where they are not (1, 0, 1)
    num_relus: int


def flat(maps):
    """Flattened as NHWC."""
    return maps.permute(0, 2, 3, 1).flatten(1)


class Strided(Twin):
    options, num_relus = {"conv1": (2, 2, 1), "conv2": (2, 1, 1)}, 3

    def forward(self, images):
        maps = self.relus[0](self.layers["conv1"](images))
        maps = self.relus[1](self.layers["conv2"](maps))
        return self.layers["fc2"](self.relus[2](self.layers["fc1"](flat(maps))))


class Pools(Twin):
    options, num_relus = {"conv1": (1, 1, 1), "conv2": (1, 1, 1)}, 2

    def forward(self, images):
        for layer, relu in zip(("conv1", "conv2"), self.relus, strict=True):
            images = nn.functional.max_pool2d(relu(self.layers[layer](images)), 3, 2)
        return self.layers["fc1"](flat(images))


class Residual(Twin):
    options = dict.fromkeys(("conv1", "conv2", "conv3", "conv5"), (1, 1, 1))
    options |= {"conv4": (2, 1, 1), "shortcut": (2, 0, 1)}
    num_relus = 5

    def forward(self, images):
        maps = self.relus[0](self.layers["conv1"](images))
        inside = self.layers["conv3"](self.relus[1](self.layers["conv2"](maps)))
        maps = self.relus[2](inside + maps)
        inside = self.layers["conv5"](self.relus[3](self.layers["conv4"](maps)))
        maps = self.relus[4](inside + self.layers["shortcut"](maps))
        return self.layers["fc1"](maps.mean((2, 3)))


class BatchNorm(Twin):
    options, num_relus = {"conv1": (2, 0, 1), "conv2": (2, 0, 1)}, 2

    def __init__(self, params):
        super().__init__(params)
        self.norms = nn.ModuleDict()
        for layer in ("conv1", "conv2"):
            scale, mean, variance = (torch.tensor(params[f"{layer}/{part}"]) for part in ("scale", "mean", "variance"))
            norm = nn.BatchNorm2d(len(scale), eps=1e-5).double()
            norm.load_state_dict(
                {"weight": scale, "bias": torch.zeros_like(scale), "running_mean": mean, "running_var": variance},
                strict=False,
            )
            self.norms[layer] = norm

    def forward(self, images):
        for layer, relu in zip(("conv1", "conv2"), self.relus, strict=True):
            images = relu(self.norms[layer](self.layers[layer](images)))
        return self.layers["fc1"](flat(images))


class Concatenation(Twin):
    options, num_relus = {"expand3": (1, 1, 1)}, 5

    def forward(self, images):
        maps = nn.functional.max_pool2d(self.relus[0](self.layers["conv1"](images)), 3, 2)
        squeezed = self.relus[1](self.layers["squeeze"](maps))
        wide = [self.relus[k](self.layers[name](squeezed)) for k, name in ((2, "expand1"), (3, "expand3"))]
        maps = nn.functional.max_pool2d(torch.cat(wide, dim=1), 3, 2)
        return self.relus[4](self.layers["conv2"](maps)).mean((2, 3))


class Recurrent(Twin):
    options, num_relus = {"conv1": (2, 0, 1), "conv2": (1, 1, 2)}, 4

    def forward(self, images):
        maps = self.relus[0](self.layers["conv1"](images))
        for relu in self.relus[1:]:
            maps = relu(self.layers["conv2"](maps) + maps)
        return self.layers["fc1"](maps.mean((2, 3)))


TWINS = {
    "strided": Strided,
    "pools": Pools,
    "residual": Residual,
    "batch_norm": BatchNorm,
    "concatenation": Concatenation,
    "recurrent": Recurrent,
}
