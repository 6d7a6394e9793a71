"""Table 2: top-1 and top-5 error on the validation set, of one network or the average of several.

    python -m experiments.evaluate_imagenet --checkpoint runs/RUN
    python -m experiments.evaluate_imagenet --checkpoint runs/A runs/B runs/C

Without --checkpoint the newest run under runs/ is taken. Several networks, of any architectures but with the same
classes and size of pictures, average their softmax; each is measured by itself too, in the same pass. Expected time:
eleven forward passes of each over the set; 6 s for 500 pictures with the net of preset `reduced` on two CPU cores.
Expected result: ten crops err a little less than one, several networks less than one of them.
Writes <run>/evaluation/result.json (or --out), <first run>/evaluation_of_N for N networks.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from experiments.shell import command, results
from zfjax import files, nets, parallel
from zfjax.data import Source, sets
from zfjax.data.loader import eval_batches
from zfjax.errors import UserError
from zfjax.training import evaluation

# Table 2: error in percent on ImageNet 2012 (validation top-1, top-5, test top-5)
PAPER = {
    "Krizhevsky et al. 2012, 1 net": (40.7, 18.2, None),
    "Krizhevsky et al. 2012, 5 nets": (38.1, 16.4, 16.4),
    "replication of Krizhevsky et al. 2012, 1 net": (40.5, 18.1, None),
    "1 net as per Fig. 3": (38.4, 16.5, None),
    "5 nets as per Fig. 3 (a)": (36.7, 15.3, 15.3),
    "1 net as per Fig. 3 with layers 3, 4, 5 of 512, 1024, 512 maps (b)": (37.5, 16.0, 16.1),
    "6 nets, (a) and (b) combined": (36.0, 14.7, 14.8),
}


@dataclass(frozen=True)
class Config:
    """Measure the error of a network, or of the average of several, on the validation set."""

    checkpoint: tuple[Path, ...] = ()
    """Run folders or checkpoints; by default the newest run under runs/."""
    data: str | None = None
    """Data set to measure on; by default the one that the first net was trained on."""
    out: Path | None = None
    """Folder for result.json; by default <run>/evaluation, or evaluation_of_N in the first run of N."""
    batch_size: int = 128
    """Images per step over all devices."""
    num_workers: int = 0
    """Processes that decode pictures; 0 decodes on threads."""
    overwrite: bool = False
    """Replace a result that is already there."""


def run(config: Config) -> dict[str, Any]:
    """Measure and write result.json.

    Returns:
      What result.json holds. UserError for a set without validation pictures, of another size or with other classes
      than the nets', or for an output folder that already holds a result.
    """
    parallel.check_batch_size(config.batch_size)
    networks = [nets.load_net(path) for path in config.checkpoint or (None,)]
    for before, net in itertools.pairwise(sorted(networks, key=lambda net: net.fingerprint)):
        if before.fingerprint == net.fingerprint:
            raise UserError(f"checkpoint: {before.path} and {net.path} are one network; different ones are needed")
    data = sets.open_images(config.data, networks[0])
    source = sets.validation_of(data)
    for net in networks:
        if data.class_names != net.class_names:
            raise UserError(f"data={data.name!r}: its classes are not those that {net.path} was trained on")
        if data.size != len(net.mean):
            raise UserError(
                f"checkpoint={str(net.path)!r}: it sees pictures of {len(net.mean)} pixels, not {data.size}"
            )
    name = "evaluation" if len(networks) == 1 else f"evaluation_of_{len(networks)}"
    out = results.result_folder(config.out, networks[0].run / name, overwrite=config.overwrite)
    began = time.monotonic()
    errors = {views: errors_of(config, networks, source, views) for views in ("center", "ten")}
    members = [
        {
            "name": net.architecture.name,
            "parameters": net.architecture.num_parameters(),
            "checkpoint": {"path": net.path, "fingerprint": net.fingerprint},
            "error": {views: errors[views].members[n].shares() for views in errors},
        }
        for n, net in enumerate(networks)
    ]
    result = {
        "table": "Table 2",
        "error": {views: errors[views].ensemble.shares() for views in errors},  # shares of the images
        "members": members,
        "num_images": len(source),
        "num_classes": len(data.class_names),
        "paper": PAPER,
        "paper_data": "ImageNet 2012, 1,000 classes, full width; percent: validation top-1, top-5, test top-5",
        "seconds": time.monotonic() - began,
        **results.provenance(networks[0], data, config),
    }
    if parallel.host_count()[0] == 0:
        files.save_json(out / "result.json", result)
    return result


def errors_of(
    config: Config, networks: Sequence[nets.TrainedNet], source: Source, views: evaluation.Views
) -> evaluation.EnsembleErrors:
    """Errors over the whole split, averaging the softmax over `views` and nets."""
    host, num_hosts = parallel.host_count()
    rows = {"batch_size": config.batch_size, "host": host, "num_hosts": num_hosts, "num_workers": config.num_workers}
    members = [evaluation.Member(net.architecture, net.mean) for net in networks]
    evaluate = evaluation.make_evaluate_ensemble(members, views=views)

    def shown() -> Iterator[dict[str, np.ndarray]]:
        with tqdm(total=len(source), desc=f"{views} crop(s)", unit="img", disable=host > 0) as bar:
            for batch in eval_batches(source, **rows):
                if (batch["label"][batch["mask"]] < 0).any():
                    raise UserError(
                        "data: a picture of no class of the net; put each into a folder called as its class"
                    )
                yield batch
                bar.update(int(batch["mask"].sum()) * num_hosts)

    return evaluate([net.params for net in networks], shown())


def report(result: dict[str, Any]) -> None:
    """Print the errors."""
    images = f"{result['num_images']:,} images of {result['num_classes']:,} classes"
    several = len(result["members"]) > 1
    for views, error in result["error"].items():
        print(f"{views:>6} crop(s): top-1 error {error['top1']:.1%}, top-5 error {error['top5']:.1%} on {images}")
        for member in result["members"] if several else []:
            alone = member["error"][views]
            print(f"    alone: {alone['top1']:.1%}, {alone['top5']:.1%}  {member['checkpoint']['path']}")


def main() -> None:
    """The command line."""
    command.main(Config, run, __doc__, report)


if __name__ == "__main__":
    main()
