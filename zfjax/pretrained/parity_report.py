"""Whether an imported network computes what its exporter's did: layer by layer, on the exporter's own inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypedDict

import jax
import numpy as np
from jax.tree_util import Partial

from zfjax.errors import UserError
from zfjax.features import Features, in_batches
from zfjax.pretrained.weights import read_arrays
from zfjax.programs import as_partial

INPUTS = "inputs"  # the row of what the first layer reads
NOT_CHECKED = "mean, std, channel order: not checked, the outputs hold no 'pictures' to start from"
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

    pictures: np.ndarray | None  # uint8 [B, H, W, C], RGB: the inputs are their centres, preprocessed
    inputs: np.ndarray  # [B, C, H, W], as its first layer reads them: normalised, its own order of colours
    outputs: dict[str, np.ndarray]  # {layer: [B, H, W, C] or [B, C]}, after ReLU, pool and norm


class ParityFacts(TypedDict):
    """A row as a result holds it."""

    layer: str
    difference: float
    largest: float
    relative: float


def parity_facts(rows: Sequence[ParityRow]) -> list[ParityFacts]:
    """The report as a result holds it."""
    return [
        {"layer": row.layer, "difference": row.difference, "largest": row.largest, "relative": row.relative}
        for row in rows
    ]


def parity(fn: Features, images: np.ndarray, outputs: Mapping[str, np.ndarray]) -> list[ParityRow]:
    """Compare layers, in the order of `outputs`.

    Args:
      fn: images -> {layer: features}; it may hand on more layers.
      images: [B, H, W, C], as `fn` reads them.
      outputs: {layer: the exporter's features of the same images, [B, H, W, C] or [B, C]}.

    Raises:
      UserError: a layer that `fn` does not hand on, or one of another shape.

    Examples:
      >>> import numpy as np
      >>> from zfjax import pretrained
      >>> images, outputs = np.ones((1, 2, 2, 3), np.float32), {"sum": np.full((1, 3), 4.0, np.float32)}
      >>> pretrained.parity(lambda images: {"sum": images.sum((1, 2))}, images, outputs)
      [ParityRow(layer='sum', difference=0.0, largest=4.0)]
    """
    ours = in_batches(fn, images)
    rows = []
    for layer, expected in outputs.items():
        if layer not in ours:
            raise UserError(f"outputs of layer {layer!r}: the network has {', '.join(ours)}")
        if ours[layer].shape != expected.shape:
            raise UserError(f"outputs of layer {layer!r} have shape {expected.shape}, ours {ours[layer].shape}")
        difference = np.abs(ours[layer].astype(np.float64) - expected)
        rows.append(ParityRow(layer, float(difference.max()), float(np.abs(expected).max())))
    return rows


def exporter_parity(
    fn: Features,
    exporter: ExporterRun,
    *,
    as_images: Callable[[np.ndarray], np.ndarray],
    preprocess: Callable[[np.ndarray], np.ndarray],
) -> list[ParityRow]:
    """Compare with the exporter, from the pictures on where it handed them on, else from its inputs.

    The inputs are turned into ours by the very mean, std and order of colours that the weights were, so that they
    cannot show whether these are right. Pictures can: they get a first row, what the two networks read.

    Args:
      fn: images -> {layer: features}.
      exporter: from `read_exporter_run`.
      as_images: its inputs -> images as `fn` reads them.
      preprocess: pictures uint8 [B, H, W, C], RGB -> images as `fn` reads them.
    """
    read = as_images(exporter.inputs)
    if exporter.pictures is None:
        return parity(fn, read, exporter.outputs)
    both = Partial(_with_inputs, as_partial(fn))
    return parity(both, preprocess(exporter.pictures), {INPUTS: read, **exporter.outputs})


def parity_lines(rows: Sequence[ParityRow]) -> list[str]:
    """The report, to print; its last line says so where mean, std and order of colours were not compared.

    Examples:
      >>> from zfjax import pretrained
      >>> pretrained.parity_lines([pretrained.ParityRow("conv1", difference=1e-7, largest=2.0)])[0][:5]
      'layer'
    """
    head = f"{'layer':<12}{'largest difference':>20}{'largest value':>16}{'relative':>11}"
    lines = [f"{r.layer:<12}{r.difference:>20.3g}{r.largest:>16.4g}{r.relative:>11.1e}" for r in rows]
    return [head, *lines, *(() if INPUTS in [row.layer for row in rows] else (NOT_CHECKED,))]


def check_parity(rows: Sequence[ParityRow]) -> None:
    """UserError with the report where a layer differs by more than TOLERANCE of its largest value, or is NaN.

    Examples:
      >>> from zfjax import pretrained
      >>> pretrained.check_parity([pretrained.ParityRow("conv1", difference=1e-7, largest=2.0)])
    """
    apart = [row.layer for row in rows if not row.relative <= TOLERANCE]
    if apart:
        raise UserError(
            f"the imported network is not the exporter's: {', '.join(apart)} differ by more than {TOLERANCE:g} of the "
            "largest value; look at what the table says of the first of them (of the inputs: mean, std, channels)\n"
            + "\n".join(parity_lines(rows))
        )


def read_exporter_run(path: Path) -> ExporterRun:
    """An .npz of the exporter: "inputs", and one array called as each layer to compare, in its own layout.

    "pictures" may stand there too: uint8 [B, H, W, C], RGB, whose centres became the inputs. UserError for an array
    that is not [B, C, H, W] (or, of a dense layer, [B, C]), or inputs or layers missing.
    """
    arrays = read_arrays(path)
    inputs, pictures = arrays.pop(INPUTS, None), arrays.pop("pictures", None)
    if inputs is None or inputs.ndim != 4 or not arrays:
        raise UserError(f"{path}: 'inputs' of [B, C, H, W] and one array for each layer to compare are needed")
    for layer, array in arrays.items():
        if array.ndim not in (2, 4) or len(array) != len(inputs):
            raise UserError(
                f"{path}: {layer!r} of shape {array.shape}: [{len(inputs)}, C, H, W] or [{len(inputs)}, C] is needed"
            )
    if pictures is not None:
        fits = pictures.ndim == 4 and (len(pictures), pictures.shape[3]) == (len(inputs), inputs.shape[1])
        if pictures.dtype != np.uint8 or not fits:
            raise UserError(
                f"{path}: 'pictures' of {pictures.dtype} {pictures.shape}: uint8 [{len(inputs)}, H, W, "
                f"{inputs.shape[1]}] is needed"
            )
    outputs = {name: np.moveaxis(array, 1, 3) if array.ndim == 4 else array for name, array in arrays.items()}
    return ExporterRun(pictures, inputs, outputs)


def _with_inputs(fn: Partial, images: jax.Array) -> dict[str, jax.Array]:
    return {INPUTS: images, **fn(images)}
