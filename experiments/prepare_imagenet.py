"""Prepare ImageNet for training: decode, resize and crop every photo once, and compute the mean picture.

    python -m experiments.prepare_imagenet --source DIR --data-dir DIR

--source holds ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar as downloaded; or class folders train/<class>/*.jpg
and val/<class>/*.jpg (also validation/ or valid/), where val/ may be flat as it comes out of the tar; or Kaggle's
ILSVRC/Data/CLS-LOC; or imagenet2012 as TensorFlow Datasets prepared it. --val-share 0.1 splits validation photos off
class folders without splits (<class>/*.jpg, or <class>_<number>.jpg in one folder). Files that are not read, and photos
of equal bytes, are counted and named. --verify reads a prepared set as a whole and checks its checksums. Expected time
for all of ImageNet at 256 pixels: one to two hours on one core, minutes on sixteen; it takes 40 GB. If both splits are
there, the last line printed is the command to train on the set.
"""

import dataclasses
import os
import time
from collections.abc import Mapping
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import tyro

from experiments.shell.sizes import SizeFlag
from zfjax import files, shell
from zfjax.architecture import Size
from zfjax.errors import UserError, check_name, command_line
from zfjax.pixels import as_size, size_of, size_words

SPLITS = ("train", "validation")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Prepare ImageNet (official tars, class folders or TFDS's records) for training."""

    source: Path | None = None
    """Folder with the official tars, with train/<class>/ and val/<class>/, or another form (see above)."""
    data_dir: Path
    """Folder that receives the prepared set; sets of several sizes may share it."""
    size: SizeFlag = 256
    """Side of the stored pictures in pixels: shortest side resized to it, then the centre square (paper: 256); or
    HEIGHTxWIDTH, as 192x256: the centre of that shape, resized to it."""
    workers: int | None = None
    """Processes that decode and encode; by default one per core."""
    skip_bad: bool = False
    """Leave out files that cannot be decoded, and list them, instead of stopping at the first."""
    overwrite: bool = False
    """Replace a set of this size that is already there, once the new one is whole."""
    val_share: float | None = None
    """Share of each class's photos that becomes the validation split, where the source has none."""
    verify: bool = False
    """Read the set that is there whole, instead of preparing one."""


def run(config: Config) -> dict[str, Any]:
    """Prepares (or finds) the set; returns its facts, "folder", "fresh", "seconds" and the "sizes" that lie there."""
    from zfjax.data import archives, imagenet, imagenet_builder

    start = time.monotonic()
    check_name("data_dir", config.data_dir)
    if config.verify:
        facts = {**imagenet.verify(config.data_dir, config.size), "fresh": False}
    elif config.source is None:
        raise UserError("--source DIR is needed, the folder with the photos; or --verify for a set that is there")
    else:
        if config.overwrite or not imagenet.set_folder(config.data_dir, config.size).exists():
            print(announcement(archives.find_splits(config.source, config.val_share)), flush=True)
        facts = imagenet_builder.prepare(
            config.source,
            config.data_dir,
            size=config.size,
            workers=(os.cpu_count() or 1) if config.workers is None else config.workers,
            skip_bad=config.skip_bad,
            overwrite=config.overwrite,
            val_share=config.val_share,
        )
    return {**facts, "seconds": time.monotonic() - start, "sizes": imagenet.sizes_in(config.data_dir)}


def announcement(splits: Mapping[str, Any]) -> str:
    """What was found, said before the work begins, so that a missing split is noticed now and not after hours."""
    lines = [f"{split}: {splits[split].where}" if split in splits else f"{split}: none" for split in SPLITS]
    missing = [split for split in SPLITS if split not in splits]
    if missing:
        hint = ", or hold out a share of the training photos: --val-share 0.1" if missing == ["validation"] else ""
        lines.append(f"Training needs the {missing[0]} split too: stop now (Ctrl-C) and put it there{hint}.")
    return "\n".join(lines)


def report(config: Config, result: dict[str, Any]) -> str:
    """What the command line prints about `result`."""
    done = "Prepared" if result["fresh"] else "Verified" if config.verify else "Already prepared, nothing done"
    lines = [f"{done}: {result['folder']}"]
    if done.startswith("Already") and config.source is not None:
        lines[0] += " (--overwrite prepares it anew)"
        if result["source"] != str(config.source.resolve()):
            lines.append(f"Note: it was prepared from {result['source']}, not from {config.source.resolve()}.")
    size = as_size(size_of(result["size"]))
    height, width = size_of(size)
    counts = ", ".join(f"{count:,} {split}" for split, count in result["counts"].items())
    lines.append(f"{counts} photos of {len(result['class_names'])} classes, {height} x {width} pixels")
    if result["fresh"] or config.verify:
        lines.append(f"{result['seconds']:.0f} s")
    lines += remarks(result)
    missing = set(SPLITS) - set(result["counts"])
    if missing:
        return "\n".join([*lines, f"To train on it the {missing.pop()} split is needed too."])
    flags = ["--data-dir", config.data_dir, *(["--data-size", size_words(size)] if len(result["sizes"]) > 1 else [])]
    if height != width or height < 256:  # the paper's crops are 7/8 of its pictures: the rest is room to move
        fits = height == width >= 128  # the preset's own crops
        flags += ["--preset", "reduced", *([] if fits else ["--image-size", crop_of(size)])]
    return "\n".join([*lines, "Train on it:", f"  {command_line('python -m experiments.train_imagenet', *flags)}"])


def crop_of(size: Size) -> str:
    """The size of crops that leaves them as much room in pictures of `size` pixels as the paper's 224 have in 256."""
    return size_words(as_size([max(side * 7 // 8, 1) for side in size_of(size)]))


def remarks(result: Mapping[str, Any]) -> list[str]:
    """What was left out of a set, or is odd about it."""
    lines = []
    if result["skipped"]:
        lines.append(f"{len(result['skipped'])} files left out, because they cannot be decoded:")
        lines += [f"  {line}" for line in result["skipped"]]
    if left_out := files.lines_of(result.get("left_out", {})):
        lines.append("Left out of the source:")
        lines += [f"  {line}" for line in left_out]
    equal = result.get("equal", {"count": 0})
    if equal["count"]:
        lines.append(f"{equal['count']:,} photos have the bytes of another one; they stay in the set:")
        lines += [f"  {' = '.join(names)}" for names in equal["first"]]
    if unseen := [files.printable(name) for name in result.get("unseen", [])]:
        lines.append(
            f"{len(unseen)} classes have no validation photo: {', '.join(unseen[:5])}{', ...' * (len(unseen) > 5)}"
        )
    return lines


@shell.ending_with_reader()
def main() -> None:
    """Runs the command line; an error that the user can mend ends it in one line."""
    from experiments.shell.command import described, first_flags, in_one_line, is_idle, split_flags

    first = first_flags(joins=False, compiles=False)
    chosen, rest = split_flags(first)
    config = tyro.cli(Config, description=described(__doc__, first), args=rest)
    try:
        with in_one_line("nothing half done is left, running it again starts anew"):
            if not is_idle(alone=chosen.alone):
                print(report(config, run(config)))
    except BrokenProcessPool as error:
        raise SystemExit(f"error: a worker process died (out of memory?); try fewer --workers: {error}") from error


if __name__ == "__main__":
    main()
