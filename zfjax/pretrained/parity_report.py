"""Whether an imported network computes what its exporter's did: layer by layer, on the exporter's own inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from zfjax.features import Features, in_batches
from zfjax.pretrained.weights import read_arrays

TOLERANCE = 1e-3  # relative: other kernels and machines round otherwise, another padding or norm differs by far more


class ParityRow(NamedTuple):
    """One layer of the report."""

    layer: str
    difference: float  # largest |ours - the exporter's|
    largest: float  # largest |the exporter's|

    @property
    def relative(self) -> float:
        """The difference as a share of the largest value."""
        if not self.largest:
            return math.inf if self.difference else 0.0
        return self.difference / self.largest


class ExporterRun(NamedTuple):
    """What the exporter's network read and handed on."""

    inputs: np.ndarray  # [B, C, H, W], as its first layer reads them: normalised, its own order of colours
    outputs: dict[str, np.ndarray]  # {layer: [B, H, W, C] or [B, C]}, after ReLU, pool and norm


def parity(fn: Features, images: np.ndarray, outputs: Mapping[str, np.ndarray]) -> list[ParityRow]:
    """Compare layers, in the order of `outputs`.

    Args:
      fn: images -> {layer: features}; it may hand on more layers.
      images: [B, H, W, C], as `fn` reads them.
      outputs: {layer: the exporter's features of the same images, [B, H, W, C] or [B, C]}.

    Raises:
      ValueError: a layer that `fn` does not hand on, or one of another shape.
    """
    found = in_batches(fn, images)
    rows = []
    for layer, expected in outputs.items():
        if layer not in found:
            raise ValueError(f"outputs of layer {layer!r}: the network has {', '.join(found)}")
        if found[layer].shape != expected.shape:
            raise ValueError(f"outputs of layer {layer!r} have shape {expected.shape}, ours {found[layer].shape}")
        difference = np.abs(found[layer].astype(np.float64) - expected)
        rows.append(ParityRow(layer, float(difference.max()), float(np.abs(expected).max())))
    return rows


def parity_lines(rows: Sequence[ParityRow]) -> list[str]:
    """The report, to print."""
    head = f"{'layer':<12}{'largest difference':>20}{'largest value':>16}{'relative':>11}"
    return [head, *(f"{r.layer:<12}{r.difference:>20.3g}{r.largest:>16.4g}{r.relative:>11.1e}" for r in rows)]


def check_parity(rows: Sequence[ParityRow]) -> None:
    """ValueError with the report where a layer differs by more than TOLERANCE of its largest value, or is NaN."""
    apart = [row.layer for row in rows if not row.relative <= TOLERANCE]
    if apart:
        raise ValueError(
            f"the imported network is not the exporter's: {', '.join(apart)} differ by more than {TOLERANCE:g} of the "
            "largest value; look at what the table says of the first of them\n" + "\n".join(parity_lines(rows))
        )


def read_exporter_run(path: Path) -> ExporterRun:
    """An .npz of the exporter: "inputs", and one array called as each layer to compare, in its own layout.

    ValueError for an array that is not [B, C, H, W] (or, of a dense layer, [B, C]), or one of the two kinds missing.
    """
    arrays = read_arrays(path)
    inputs = arrays.pop("inputs", None)
    if inputs is None or inputs.ndim != 4 or not arrays:
        raise ValueError(f"{path}: 'inputs' of [B, C, H, W] and one array for each layer to compare are needed")
    for layer, array in arrays.items():
        if array.ndim not in (2, 4) or len(array) != len(inputs):
            raise ValueError(
                f"{path}: {layer!r} of shape {array.shape}: [{len(inputs)}, C, H, W] or [{len(inputs)}, C] is needed"
            )
    outputs = {name: np.moveaxis(array, 1, 3) if array.ndim == 4 else array for name, array in arrays.items()}
    return ExporterRun(inputs, outputs)
