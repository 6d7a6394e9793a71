"""torchvision's own networks, where it is there, and their deconvnets by a ReLU of another rule."""

import importlib.util

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the twins are PyTorch's")
if importlib.util.find_spec("torchvision") is None:
    pytest.skip("the twins are torchvision's", allow_module_level=True)

# A torchvision that was built for another PyTorch lacks its own operations, which no network here needs
_OPERATIONS = torch.library.Library("torchvision", "FRAGMENT")
for _name in ("nms", "qnms"):
    if not hasattr(torch.ops.torchvision, _name):
        _OPERATIONS.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import torchvision  # noqa: E402


def twin(kind, arrays):
    """torchvision's network of this kind with these arrays, its rectifiers each a module that is not in place."""
    num_classes = len(arrays[list(arrays)[-1]])
    network = getattr(torchvision.models, kind)(num_classes=num_classes).eval()
    state = network.state_dict()
    state |= {name: torch.tensor(array) for name, array in arrays.items()}
    network.load_state_dict(state)
    for module in network.modules():
        if isinstance(module, torch.nn.ReLU):
            module.inplace = False
    return network


def outputs_of(network, layers, inputs):
    """{layer: what the module of this name hands on, the first time that it is called}, NumPy arrays."""
    found = {}
    modules = dict(network.named_modules())

    def keep(layer):
        def hook(module, below, above):
            found.setdefault(layer, above.detach().numpy().copy())

        return hook

    handles = [modules[layer].register_forward_hook(keep(layer)) for layer in layers]
    with torch.no_grad():
        network(torch.tensor(inputs))
    for handle in handles:
        handle.remove()
    return found


def projection(network, layer, channel, inputs, *, way):
    """The picture of one unit, at its strongest place and from its own value, float32 [H, W, C], by hooks on ReLU."""

    class Rectifier(torch.autograd.Function):
        @staticmethod
        def forward(ctx, maps):
            ctx.save_for_backward(maps)
            return maps.clamp(min=0)

        @staticmethod
        def backward(ctx, signal):
            (maps,) = ctx.saved_tensors
            passed = signal.clamp(min=0)
            return passed if way == "deconvnet" else passed * (maps > 0)

    found = {}
    modules = dict(network.named_modules())
    rectifiers = [module for module in modules.values() if isinstance(module, torch.nn.ReLU)]
    for module in rectifiers:
        module.forward = Rectifier.apply
    handle = modules[layer].register_forward_hook(lambda module, below, above: found.update(maps=above))
    images = torch.tensor(inputs, requires_grad=True)
    network(images)
    handle.remove()
    maps = found["maps"][0, channel]
    value = maps.flatten()[maps.argmax()]
    (value * value.detach()).backward()
    for module in rectifiers:
        del module.forward
    return np.moveaxis(images.grad[0].numpy(), 0, 2)
