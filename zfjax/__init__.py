"""zfjax: the convnet, deconvnet and analyses of Zeiler & Fergus (2013) as pure JAX functions."""

from zfjax.architecture import ALEXNET, ZFNET, Architecture, receptive_field
from zfjax.deconvnet import isolate, project
from zfjax.gradients import gradient, guided_backprop
from zfjax.layers import ContrastNorm, Conv, Dense, Pool
from zfjax.network import ConvNet, LayerTrace, forward
from zfjax.ops import max_pool, unpool
from zfjax.relu_rules import (
    Unit,
    explain_rules,
    kept_on_the_way_down,
    project_fn,
    skipped_on_the_way_down,
    with_relu_rule,
)
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
    "Unit",
    "explain_rules",
    "forward",
    "gradient",
    "guided_backprop",
    "isolate",
    "kept_on_the_way_down",
    "max_pool",
    "project",
    "project_fn",
    "receptive_field",
    "renormalize",
    "skipped_on_the_way_down",
    "unpool",
    "with_relu_rule",
]
