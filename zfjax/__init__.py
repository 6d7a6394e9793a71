"""zfjax: the convnet, deconvnet and analyses of Zeiler & Fergus (2013) as pure JAX functions."""

from zfjax.architecture import ALEXNET, ZFNET, Architecture, receptive_field
from zfjax.deconvnet import isolate, project
from zfjax.gradients import gradient, guided_backprop
from zfjax.layers import ContrastNorm, Conv, Dense, Pool
from zfjax.network import ConvNet, LayerTrace, forward
from zfjax.ops import max_pool, unpool
from zfjax.renormalize import renormalize

__all__ = [
    "ALEXNET",
    "ZFNET",
    "Architecture",
    "ContrastNorm",
    "Conv",
    "ConvNet",
    "Dense",
    "LayerTrace",
    "Pool",
    "forward",
    "gradient",
    "guided_backprop",
    "isolate",
    "max_pool",
    "project",
    "receptive_field",
    "renormalize",
    "unpool",
]
