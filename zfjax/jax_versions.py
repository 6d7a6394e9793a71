"""All that depends on which version of JAX is installed: a new one is looked at here first. Imports no JAX."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any


def manual_axes(params: Mapping[str, Any]) -> Any:
    """Which axes of the mesh a `shard_map` runs over by hand, of its equation's parameters: renamed in JAX 0.8."""
    return params["manual_axes" if "manual_axes" in params else "newly_manual_axes"]


def accepted(fn: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the options that this version of `fn` takes."""
    known = inspect.signature(fn).parameters
    return {name: value for name, value in options.items() if name in known}


def quick_kernels() -> tuple[str, str] | None:
    """(flag, value) that leaves convolutions on CPU to Eigen; None where XLA does so itself, or no flag is known.

    XLA 0.10's YNN kernels take two to four times as long for the convolutions of this network and their gradients
    (conv1's weights: 550 ms against 125 ms, batch 32 on two cores); for matrix products they are as good or better.
    Other versions may not know the flag.
    """
    if version("jaxlib").startswith("0.10."):
        return "xla_cpu_experimental_ynn_fusion_type", "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
    return None
