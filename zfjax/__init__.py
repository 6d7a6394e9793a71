"""zfjax: the convnet, deconvnet and analyses of Zeiler & Fergus (2013) as pure JAX functions.

The network and the deconvnet are imported with the package; other modules, such as `zfjax.occlusion` and
`zfjax.training`, are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from zfjax import leaving as _leaving  # noqa: F401  first: importing what follows may be stopped
from zfjax.anymodel import (
    as_relu,
    as_relu_guided,
    elu_rule,
    explain_rules,
    gelu_rule,
    kept_on_the_way_down,
    layers,
    leaky_relu_rule,
    prelu_rule,
    project_fn,
    silu_rule,
    skipped_on_the_way_down,
    with_relu_rule,
)
from zfjax.architecture import ALEXNET, ZFNET, Architecture, ContrastNorm, Conv, Dense, Pool, receptive_field
from zfjax.deconvnet import gradient, guided_backprop, project, project_windows
from zfjax.errors import UserError
from zfjax.network import ConvNet, LayerTrace, forward
from zfjax.ops import max_pool, unpool
from zfjax.units import Unit, isolate
from zfjax.windows import Windows

if TYPE_CHECKING:
    from zfjax import (
        anymodel,
        architecture,
        atlas,
        data,
        deconvnet,
        features,
        nets,
        network,
        ops,
        parallel,
        pixels,
        pretrained,
        training,
        transfer,
        units,
        windows,
    )
    from zfjax.analyses import (
        correspondence,
        evolution,
        filters,
        invariance,
        maximization,
        occlusion,
        sanity,
        strongest,
        top_activations,
        walkthrough,
    )
    from zfjax.data.sets import open_data
    from zfjax.nets import FunctionNet, Net, load_net
    from zfjax.training import checkpoints, evaluation
    from zfjax.training.step import renormalize
    from zfjax.transfer import linear_models

__version__ = "0.1.0"
__all__ = [
    "ALEXNET",
    "ZFNET",
    "Architecture",
    "ContrastNorm",
    "Conv",
    "ConvNet",
    "Dense",
    "FunctionNet",
    "LayerTrace",
    "Net",
    "Pool",
    "Unit",
    "UserError",
    "Windows",
    "anymodel",
    "architecture",
    "as_relu",
    "as_relu_guided",
    "atlas",
    "checkpoints",
    "correspondence",
    "data",
    "deconvnet",
    "elu_rule",
    "evaluation",
    "evolution",
    "explain_rules",
    "features",
    "filters",
    "forward",
    "gelu_rule",
    "gradient",
    "guided_backprop",
    "invariance",
    "isolate",
    "kept_on_the_way_down",
    "layers",
    "leaky_relu_rule",
    "linear_models",
    "load_net",
    "max_pool",
    "maximization",
    "nets",
    "network",
    "occlusion",
    "open_data",
    "ops",
    "parallel",
    "pixels",
    "prelu_rule",
    "pretrained",
    "project",
    "project_fn",
    "project_windows",
    "receptive_field",
    "renormalize",
    "sanity",
    "silu_rule",
    "skipped_on_the_way_down",
    "strongest",
    "top_activations",
    "training",
    "transfer",
    "unpool",
    "walkthrough",
    "units",
    "windows",
    "with_relu_rule",
]

# Names whose rooms need more than the network does: imported when they are first used
_NAMES = {
    **dict.fromkeys(("FunctionNet", "Net", "load_net"), "zfjax.nets"),
    "open_data": "zfjax.data.sets",
    "renormalize": "zfjax.training.step",
}
_ROOMS = {
    **{
        name: f"zfjax.analyses.{name}"
        for name in ("correspondence", "evolution", "filters", "invariance", "maximization", "occlusion", "sanity")
    },
    **{name: f"zfjax.analyses.{name}" for name in ("strongest", "top_activations", "walkthrough")},
    **{name: f"zfjax.training.{name}" for name in ("checkpoints", "evaluation")},
    **{
        name: f"zfjax.{name}"
        for name in ("atlas", "data", "features", "nets", "parallel", "pretrained", "training", "transfer")
    },
    "pixels": "zfjax.pixels",
    "linear_models": "zfjax.transfer.linear_models",
    "gradients": "zfjax.deconvnet",  # names of before the rooms
    "inner_products": "zfjax.transfer.linear_models",
    "part_masks": "zfjax.analyses.correspondence",
}


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        value = getattr(importlib.import_module(_NAMES[name]), name)
    elif name in _ROOMS:
        value = importlib.import_module(_ROOMS[name])
    else:
        raise AttributeError(f"module 'zfjax' has no attribute {name!r}; it has {', '.join(__all__)}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
