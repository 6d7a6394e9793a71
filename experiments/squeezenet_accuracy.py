"""Top-1 and top-5 accuracy of SqueezeNet v1.0 on ImageNet, as a check of the import.

    python -m experiments.squeezenet_accuracy --weights models/squeezenet_v1.0 --data SOURCE

--data is ImageNet's official validation tar or class folders, as for `prepare_imagenet --source`, or a set prepared
from them. The centre square of each photo is resized to 256 pixels (bilinear), and its centre 227 x 227 is classified.
With --outputs, an .npz with another implementation's inputs ("inputs", [B, 3, 227, 227], BGR) and activations ("pool1"
and so on), the two are first compared layer by layer, and a network that differs is refused.
Expected time: 20 s for 500 photos on two CPU cores. Expected result: 57.5 % / 80.3 % on the 50,000 validation photos
(Iandola et al. 2016); 57.6 % / 80.6 % on 500 photos of ten classes stored at 224 pixels; 57.0 % / 80.8 % on a set
prepared from them at that size, whose JPEGs are encoded again. Writes result.json to a folder below
runs/squeezenet/accuracy that is named by the flags (or --out).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
from PIL import Image

from experiments.shell import command, figure, results, scoring
from zfjax import nets, pretrained
from zfjax.data import sets
from zfjax.pretrained.parity_report import ParityFacts, parity_facts

COMMAND = "squeezenet_accuracy"


class Accuracy(TypedDict):
    """Shares of the photos."""

    top1: float
    top5: float


REPORTED: Accuracy = {"top1": 0.575, "top5": 0.803}  # Iandola et al. 2016: all 50,000 validation photos


@dataclass(frozen=True, kw_only=True)
class Config(figure.ResultConfig):
    """Measure SqueezeNet's accuracy on validation photos."""

    weights: Path
    """Folder with architecture.json and squeezenet_v1.0.npz."""
    data: str
    """Folder with ImageNet's validation tar or class folders, or a prepared set."""
    outputs: Path | None = None
    """An .npz of another implementation's inputs and outputs, to compare with."""
    batch_size: int = 50
    """Photos per forward pass."""


class Result(results.Provenance):
    """What result.json holds."""

    accuracy: Accuracy
    reported: Accuracy
    paper: None  # it has no such network
    num_images: int
    num_classes: int
    parity: list[ParityFacts]  # empty without outputs to compare with


def run(config: Config) -> Result:
    """Measure and write result.json.

    Returns:
      What result.json holds. UserError or OSError for weights or photos that do not fit, a class that is not one of
      ImageNet's, a network that differs from the outputs, or an output folder that already holds a result.
    """
    with figure.claimed(config, COMMAND, nets.RUNS / "squeezenet" / "accuracy") as out:
        caffe = pretrained.squeezenet(config.weights)
        rows = [] if config.outputs is None else compared(caffe, config.outputs)
        pretrained.check_parity(rows)
        net = caffe.as_net()
        data = sets.official_validation(config.data, caffe.picture_size, Image.Resampling.BILINEAR)
        logits = np.asarray(data.official_labels, np.int32)
        source = sets.validation_of(data)
        scored = scoring.score([net], source, logits, batch_size=config.batch_size)
        errors = scored.errors["center"].ensemble.shares()
        result: Result = {
            "accuracy": {"top1": round(1 - errors["top1"], 6), "top5": round(1 - errors["top5"], 6)},
            "reported": REPORTED,
            "paper": None,
            "num_images": len(source),
            "num_classes": len(net.class_names),
            "parity": parity_facts(rows),
            **results.provenance(net, data, config),
        }
        return results.write(out, result, command=COMMAND, contents={})


def compared(caffe: pretrained.CaffeNet, outputs: Path) -> list[pretrained.ParityRow]:
    """The parity report of the layers in another implementation's .npz."""
    other = pretrained.read_exporter_run(outputs)

    def as_images(inputs: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(np.moveaxis(inputs, 1, 3)[..., ::-1])

    fn = caffe.layers_of(list(other.outputs))
    return pretrained.exporter_parity(fn, other, as_images=as_images, preprocess=caffe.preprocess)


def report(result: Result) -> None:
    """Print the parity report and the accuracy."""
    if result["parity"]:
        rows = [pretrained.ParityRow(row["layer"], row["difference"], row["largest"]) for row in result["parity"]]
        print("\n".join(pretrained.parity_lines(rows)))
    print(f"SqueezeNet v1.0 on {result['num_images']:,} photos, {result['num_classes']:,} classes, centre crop:")
    measured, reported = result["accuracy"], result["reported"]
    print(f"top1 accuracy {measured['top1']:.1%} (reported on all 50,000: {reported['top1']:.1%})")
    print(f"top5 accuracy {measured['top5']:.1%} (reported on all 50,000: {reported['top5']:.1%})")


def main() -> None:
    """The command line."""
    command.main(Config, run, doc=__doc__, report=report)


if __name__ == "__main__":
    main()
