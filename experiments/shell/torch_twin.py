"""The same networks in PyTorch, as a user would write them, for `experiments.benchmark --against torch`."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from experiments.shell.workloads import UNITS, Engine, Workload
from zfjax.architecture import Architecture, Conv, Pool
from zfjax.extras import extra

with extra("bench"):
    import torch
    from captum.attr import Deconvolution, NeuronDeconvolution, Occlusion
    from torch import nn
    from torch.nn import functional

LAYOUTS = {"torch": torch.contiguous_format, "torch channels_last": torch.channels_last}


class ConvLayer(nn.Module):
    """Filters, ReLU, then the table's stages."""

    def __init__(self, row: Conv, channels: int):
        super().__init__()
        self.row = row
        self.conv = nn.Conv2d(channels, row.features, row.kernel, row.stride, groups=row.groups)
        self.relu = nn.ReLU()  # a module, because Captum's Deconvolution finds no functional ones

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> what the layer hands on."""
        before, after = self.row.padding
        if before == after:
            maps = functional.conv2d(
                maps, self.conv.weight, self.conv.bias, self.row.stride, before, groups=self.row.groups
            )
        else:
            maps = self.conv(functional.pad(maps, (before, after, before, after)))
        maps = self.relu(maps)
        for stage in self.row.after:
            if isinstance(stage, Pool):
                maps = functional.max_pool2d(maps, stage.size, stage.stride, ceil_mode=True)
            else:  # PyTorch divides alpha by the number of maps
                alpha = stage.alpha * stage.num_maps
                maps = functional.local_response_norm(maps, stage.num_maps, alpha, stage.beta, stage.k)
        return maps


def build(architecture: Architecture, upto: str) -> nn.Sequential:
    """The table as modules, from the image up to layer `upto`."""
    layers: list[nn.Module] = []
    sizes = architecture.sizes()
    for row in architecture.layers:
        shape = sizes[row.name].input
        if isinstance(row, Conv):
            layers.append(ConvLayer(row, shape[2]))
        else:
            layers += [nn.Flatten(), nn.Linear(sizes[row.name].kernel[0], row.features)]
            layers += [nn.ReLU(), nn.Dropout(row.dropout)] if row.hidden else []
        if row.name == upto:
            break
    return nn.Sequential(*layers)


def device() -> torch.device:
    """The accelerator where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def facts() -> dict[str, Any]:
    """What the records say of PyTorch."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {"version": torch.__version__, "device": name, "tf32": torch.backends.cudnn.allow_tf32}


def engines(name: str, workload: Workload, **more: Any) -> dict[str, Engine]:
    """The engine of each memory layout for the thing called `name`."""
    makers: dict[str, Callable[..., Engine]] = {
        "train_step": train_engine,
        "forward": forward_engine,
        "project": project_engine,
        "units": units_engine,
        "occlusion": occlusion_engine,
    }
    return {label: makers[name](workload, layout, **more) for label, layout in LAYOUTS.items()}


def wait(_: Any) -> None:
    """Until everything that was started is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def batch_of(workload: Workload, layout: torch.memory_format) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of noise in pixels, and labels."""
    height, width, channels = workload.table().image_shape
    shape = (workload.batch_size, channels, height, width)
    images = (58 * torch.randn(shape)).to(device(), memory_format=layout)
    return images, torch.randint(workload.num_classes, (workload.batch_size,), device=device())


def autocast(workload: Workload) -> torch.autocast:
    """bfloat16 where it is asked for."""
    return torch.autocast(device().type, torch.bfloat16, enabled=workload.compute_dtype == "bfloat16")


def train_engine(workload: Workload, layout: torch.memory_format) -> Engine:
    """Forward with dropout, gradient and SGD with momentum; crops, mean and renormalisation are left out."""
    table = workload.table()
    net = build(table, table.layer_names[-1]).to(device(), memory_format=layout)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9)
    images, labels = batch_of(workload, layout)

    def advance() -> torch.Tensor:
        optimizer.zero_grad()
        with autocast(workload):
            loss = functional.cross_entropy(net(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    return advance, wait


def forward_engine(workload: Workload, layout: torch.memory_format) -> Engine:
    """Images to logits in evaluation mode."""
    table = workload.table()
    net = build(table, table.layer_names[-1]).to(device(), memory_format=layout).eval()
    images, _ = batch_of(workload, layout)

    def advance() -> torch.Tensor:
        with torch.inference_mode(), autocast(workload):
            return net(images)

    return advance, wait


def project_engine(workload: Workload, layout: torch.memory_format, *, layer: str, channel: int) -> Engine:
    """Captum's Deconvolution of the strongest activation of one map in each image."""
    table = workload.table()
    net = build(table, layer).to(device(), memory_format=layout).eval()
    deconvolution = Deconvolution(Strongest(net, channel))
    images, _ = batch_of(workload, layout)
    images.requires_grad_()

    def advance() -> torch.Tensor:
        with autocast(workload):
            return deconvolution.attribute(images)

    return advance, wait


def units_engine(workload: Workload, layout: torch.memory_format, *, layer: str) -> Engine:
    """Captum's NeuronDeconvolution of nine units of each image: one at a time, at its strongest place."""
    images, _ = batch_of(workload, layout)
    attribute = unit_attribution(workload, layout, layer)

    def advance() -> list[torch.Tensor]:
        with autocast(workload):
            return [attribute(images, channel) for channel in range(UNITS)]

    return advance, wait


def occlusion_engine(workload: Workload, layout: torch.memory_format, *, square: int, stride: int) -> Engine:
    """Captum's Occlusion of one logit and one image, with a square of 0 at every place."""
    table = workload.table()
    net = build(table, table.layer_names[-1]).to(device(), memory_format=layout).eval()
    images, _ = batch_of(workload, layout)
    occlusion, channels = Occlusion(net), table.channels

    def advance() -> torch.Tensor:
        with torch.inference_mode():
            return occlusion.attribute(
                images[:1],
                sliding_window_shapes=(channels, square, square),
                strides=(channels, stride, stride),
                target=0,
                perturbations_per_eval=workload.batch_size,
            )

    return advance, wait


def unit_attribution(
    workload: Workload, layout: torch.memory_format, layer: str
) -> Callable[[torch.Tensor, int], torch.Tensor]:
    """fn(images, channel) -> pictures of one map's strongest place in each image, of the net up to the layer."""
    net = build(workload.table(), layer).to(device(), memory_format=layout).eval()
    deconvolution = NeuronDeconvolution(net, net[-1])

    def attribute(images: torch.Tensor, channel: int) -> torch.Tensor:
        return deconvolution.attribute(images, lambda maps: maps[:, channel].flatten(1).max(dim=1).values)

    return attribute


def seconds_of_atlas(workload: Workload, layers: list[str], *, images: int, sample: int) -> dict[str, float]:
    """Of the scan and of Captum's loop over all units, from the time of one batch and of `sample` units a layer."""
    table, seconds = workload.table(), dict[str, float]()
    for label, layout in LAYOUTS.items():
        batch, _ = batch_of(workload, layout)
        net = build(table, layers[-1]).to(device(), memory_format=layout).eval()
        with torch.inference_mode():
            seconds[label] = images / len(batch) * timed(partial(net, batch), 3)
        for layer in layers:
            attribute = partial(unit_attribution(workload, layout, layer), batch, 0)
            num_units = UNITS * table.sizes()[layer].output[-1]
            seconds[label] += num_units / len(batch) * timed(attribute, -(-sample // len(batch)))
    return seconds


def timed(work: Callable[[], Any], times: int) -> float:
    """Median seconds of one call, after one that is not counted."""
    taken = []
    for _ in range(times + 1):
        began = time.perf_counter()
        wait(work())
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:])


class Strongest(nn.Module):
    """The strongest activation of one map, for each image: [B]."""

    def __init__(self, net: nn.Module, channel: int):
        super().__init__()
        self.net, self.channel = net, channel

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[B, 3, H, W] -> [B]."""
        return self.net(images)[:, self.channel].flatten(1).max(dim=1).values
