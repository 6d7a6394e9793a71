"""The deconvnet of any JAX function: project units, mark regions, and list the backward rule of every operation."""

from zfjax.anymodel.names import Layer, layers
from zfjax.anymodel.ready import (
    as_relu,
    as_relu_guided,
    elu_rule,
    gelu_rule,
    leaky_relu_rule,
    prelu_rule,
    silu_rule,
)
from zfjax.anymodel.rules import (
    explain_rules,
    kept_on_the_way_down,
    project_fn,
    skipped_on_the_way_down,
    with_relu_rule,
)
from zfjax.units import Unit

__all__ = [
    "Layer",
    "Unit",
    "as_relu",
    "as_relu_guided",
    "elu_rule",
    "gelu_rule",
    "leaky_relu_rule",
    "prelu_rule",
    "silu_rule",
    "explain_rules",
    "kept_on_the_way_down",
    "layers",
    "project_fn",
    "skipped_on_the_way_down",
    "with_relu_rule",
]
