"""Table 2's measure of one network: top-1 and top-5 error on the validation set, from the centre crop and ten crops.

    python -m experiments.evaluate_imagenet --checkpoint runs/RUN

Without --checkpoint the newest run under runs/ is taken. Expected time: eleven forward passes over the set; 6 s for
500 pictures with the net of preset `reduced` on two CPU cores. Expected result: ten crops err a little less than one.
Writes <run>/evaluation/result.json (or --out).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from experiments import command, inputs, pictures
from zfjax import evaluation, parallel
from zfjax.data import Source
from zfjax.data.loader import eval_batches

# Table 2, validation error on ImageNet 2012 with 1,000 classes, networks of full width
PAPER = {
    "zfnet": {"top1_percent": 38.4, "top5_percent": 16.5},
    "alexnet": {"top1_percent": 40.5, "top5_percent": 18.1},
}


@dataclass(frozen=True)
class Config:
    """Measure a network's error on the validation set."""

    checkpoint: Path | None = None
    """Run folder or checkpoint; by default the newest run under runs/."""
    data: str | None = None
    """Data set to measure on; by default the one that the net was trained on."""
    out: Path | None = None
    """Folder for result.json; by default <run>/evaluation."""
    batch_size: int = 128
    """Images per step over all devices."""
    num_workers: int = 0
    """Processes that decode pictures; 0 decodes on threads."""
    overwrite: bool = False
    """Replace a result that is already there."""


def run(config: Config) -> dict[str, Any]:
    """Measure and write result.json.

    Returns:
      What result.json holds. ValueError for a set without validation pictures, of another size or with other classes
      than the net's, or for an output folder that already holds a result.
    """
    parallel.check_batch_size(config.batch_size)
    net = inputs.load_net(config.checkpoint)
    data = inputs.open_images(config.data, net)
    source = inputs.validation_of(data)
    if data.class_names != net.class_names:
        raise ValueError(f"data={data.name!r}: its classes are not those that {net.path} was trained on")
    out = inputs.result_folder(config.out, net.run / "evaluation", overwrite=config.overwrite)
    began = time.monotonic()
    errors = {views: error_of(config, net, source, views) for views in ("center", "ten")}
    result = {
        "table": "Table 2",
        "error": errors,  # shares of the images
        "num_images": len(source),
        "num_classes": len(data.class_names),
        "paper": PAPER.get(net.architecture.name),
        "paper_data": "ImageNet 2012 validation, 50,000 images of 1,000 classes",
        "seconds": time.monotonic() - began,
        **inputs.provenance(net, data, config),
    }
    if parallel.host_count()[0] == 0:
        pictures.save_result(out / "result.json", result)
    return result


def error_of(config: Config, net: inputs.TrainedNet, source: Source, views: evaluation.Views) -> dict[str, float]:
    """{"top1", "top5"} of the whole split, shares of the images, averaging the softmax over `views`."""
    host, num_hosts = parallel.host_count()
    batches = eval_batches(
        source,
        batch_size=config.batch_size,
        host=host,
        num_hosts=num_hosts,
        num_workers=config.num_workers,
    )
    evaluate = evaluation.make_evaluate(net.architecture, net.mean, views=views)

    def shown() -> Iterator[dict[str, np.ndarray]]:
        with tqdm(total=len(source), desc=f"{views} crop(s)", unit="img", disable=host > 0) as bar:
            for batch in batches:
                if (batch["label"][batch["mask"]] < 0).any():
                    raise ValueError(
                        "data: a picture of no class of the net; put each into a folder called as its class"
                    )
                yield batch
                bar.update(int(batch["mask"].sum()) * num_hosts)

    return evaluate(net.params, shown()).shares()


def report(result: dict[str, Any]) -> None:
    """Print the errors."""
    images = f"{result['num_images']:,} images of {result['num_classes']:,} classes"
    for views, error in result["error"].items():
        print(f"{views:>6} crop(s): top-1 error {error['top1']:.1%}, top-5 error {error['top5']:.1%} on {images}")


def main() -> None:
    """The command line."""
    command.main(Config, run, __doc__, report)


if __name__ == "__main__":
    main()
