"""Write golden/torchvision.npz: what torchvision's networks compute, and their deconvnets, for the weights of a seed.

PYTHONPATH=.:tests/support python tests/support/make_torchvision_golden.py
"""

import pathlib

import numpy as np
import torchvision_arrays as drawn
import torchvision_models

golden = {}
for kind, side in drawn.SIDES.items():
    network = torchvision_models.twin(kind, drawn.arrays_of(kind))
    inputs = drawn.inputs_of(side)
    logits = "fc" if kind.startswith("resnet") else "classifier.3"
    layers = [drawn.LAYERS[kind], logits]
    for layer, maps in torchvision_models.outputs_of(network, layers, inputs).items():
        golden[f"{kind}/{layer}"] = maps
    for way in ("deconvnet", "guided"):
        picture = torchvision_models.projection(network, drawn.LAYERS[kind], drawn.CHANNEL, inputs[:1], way=way)
        golden[f"{kind}/{way}"] = picture
np.savez_compressed(pathlib.Path(__file__).parent / "golden" / "torchvision.npz", **golden)
print({name: (array.shape, float(abs(array).max())) for name, array in golden.items()})
