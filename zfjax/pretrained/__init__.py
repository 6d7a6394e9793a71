"""Networks that others have trained: read from their files, expressed as ours, compared with the exporter's outputs.

net = pretrained.squeezenet("models/squeezenet_v1.0")               # net.layers_of(["fire8"])(images)
net = pretrained.torchvision("resnet18", "resnet18.pth")           # net.fn(images), net.as_net()
net = pretrained.from_file("alexnet.pth", pretrained.TABLES["alexnet-torchvision"])
logits, trace = zfjax.forward(net.params, images, architecture=net.architecture)
"""

from zfjax.pretrained.importing import Import, Imported, folder_of, read_import, replacing
from zfjax.pretrained.parity_report import (
    ParityRow,
    check_parity,
    exporter_parity,
    parity,
    parity_lines,
    read_exporter_run,
)
from zfjax.pretrained.squeezenet_v1 import CaffeNet, squeezenet
from zfjax.pretrained.tables import TABLES, ImportedNet, ImportTable, Names, as_images, by_prefix, from_file
from zfjax.pretrained.torchvision_nets import TORCHVISION, TorchvisionNet, torchvision
from zfjax.pretrained.weights import Weights, read_arrays, read_weights

__all__ = [
    "TABLES",
    "TORCHVISION",
    "CaffeNet",
    "Import",
    "ImportTable",
    "Imported",
    "ImportedNet",
    "Names",
    "ParityRow",
    "TorchvisionNet",
    "Weights",
    "as_images",
    "by_prefix",
    "check_parity",
    "exporter_parity",
    "folder_of",
    "from_file",
    "parity",
    "parity_lines",
    "read_arrays",
    "read_exporter_run",
    "read_import",
    "read_weights",
    "replacing",
    "squeezenet",
    "torchvision",
]
