"""Prepares ImageNet for training: decodes, resizes and crops every photo once, and takes the mean picture.

    python -m experiments.prepare_imagenet --source DIR --data-dir DIR

--source holds ILSVRC2012_img_train.tar and/or ILSVRC2012_img_val.tar as downloaded, or class folders
train/<class>/*.jpg and val/<class>/*.jpg. Expected for the whole of ImageNet at 256 pixels: one to two hours on one
core, minutes on sixteen; 40 GB. The last line printed is the command that trains on it, where both splits are there.
"""

import dataclasses
import os
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import tyro


@dataclasses.dataclass(frozen=True)
class Config:
    """Prepare ImageNet (official tars or class folders) for training."""

    source: Path
    """Folder with the official tars, or with train/<class>/ and val/<class>/."""
    data_dir: Path
    """Folder that receives the prepared set; sets of several sizes may share it."""
    size: int = 256
    """Side of the stored pictures in pixels: shortest side resized to it, then the centre square (paper: 256)."""
    workers: int | None = None
    """Processes that decode and encode; by default one per core."""
    skip_bad: bool = False
    """Leave out files that cannot be decoded, and list them, instead of stopping at the first."""
    overwrite: bool = False
    """Replace a set of this size that is already there, once the new one is whole."""


def run(config: Config) -> dict[str, Any]:
    """Prepares (or finds) the set; returns its facts, "folder", "fresh", "seconds" and the "sizes" that lie there."""
    from zfjax.data import imagenet, imagenet_builder

    start = time.monotonic()
    facts = imagenet_builder.prepare(
        config.source,
        config.data_dir,
        size=config.size,
        workers=(os.cpu_count() or 1) if config.workers is None else config.workers,
        skip_bad=config.skip_bad,
        overwrite=config.overwrite,
    )
    return {**facts, "seconds": time.monotonic() - start, "sizes": imagenet.sizes_in(config.data_dir)}


def report(config: Config, result: dict[str, Any]) -> str:
    """What the command line prints about `result`."""
    lines = [f"{'Prepared' if result['fresh'] else 'Already prepared, nothing done'}: {result['folder']}"]
    if not result["fresh"]:
        lines[0] += " (--overwrite prepares it anew)"
        if result["source"] != str(config.source.resolve()):
            lines.append(f"Note: it was prepared from {result['source']}, not from {config.source.resolve()}.")
    counts = ", ".join(f"{count:,} {split}" for split, count in result["counts"].items())
    lines.append(f"{counts} photos of {len(result['class_names'])} classes, {result['size']} x {result['size']} pixels")
    if result["fresh"]:
        lines.append(f"{result['seconds']:.0f} s")
    if result["skipped"]:
        lines.append(f"{len(result['skipped'])} files left out, because they cannot be decoded:")
        lines += [f"  {line}" for line in result["skipped"]]
    missing = {"train", "validation"} - set(result["counts"])
    if missing:
        return "\n".join([*lines, f"To train on it the {missing.pop()} split is needed too."])
    command = f"python -m experiments.train_imagenet --data-dir {config.data_dir}"
    if len(result["sizes"]) > 1:
        command += f" --data-size {result['size']}"
    if result["size"] < 224:  # the paper's crops
        command += " --preset reduced" + (f" --image-size {result['size']}" if result["size"] < 112 else "")
    return "\n".join([*lines, "Train on it:", f"  {command}"])


def main() -> None:
    """Runs the command line; an error that the user can mend ends it in one line."""
    from experiments.shell.command import in_one_line

    config = tyro.cli(Config, description=__doc__)
    try:
        with in_one_line():
            print(report(config, run(config)))
    except KeyboardInterrupt:
        raise SystemExit("stopped; nothing half done is left, running it again starts anew") from None
    except BrokenProcessPool as error:
        raise SystemExit(f"error: a worker process died (out of memory?); try fewer --workers: {error}") from error


if __name__ == "__main__":
    main()
