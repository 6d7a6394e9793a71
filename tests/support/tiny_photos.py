"""Small photos in ImageNet's official tars and in class folders, for the tests of their preparation."""

import io
import tarfile
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from zfjax.data import archives, imagenet_builder

SIZE = 16
OFFICIAL = Path(tfds.__file__).parent / "datasets" / "imagenet2012"
SYNSETS = ("n01443537", "n01440764")  # not in their order, which is 1 and 0 in ImageNet
VALIDATION = (OFFICIAL / "validation_labels.txt").read_text().split()


def photo(seed, side=20):
    pixels = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((side + 8, side), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def tar_of(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


TRAIN = {s: {f"{s}_{i}.JPEG": photo(10 * k + i) for i in (3, 0, 2, 1)} for k, s in enumerate(SYNSETS)}
NUMBERS = sorted([i + 1 for i, s in enumerate(VALIDATION) if s in SYNSETS][:5])
VAL = {f"ILSVRC2012_val_{number:08d}.JPEG": photo(number) for number in reversed(NUMBERS)}


def write_tars(folder, train=TRAIN, val=VAL):
    folder.mkdir(exist_ok=True)
    (folder / archives.TARS["train"]).write_bytes(tar_of({f"{s}.tar": tar_of(files) for s, files in train.items()}))
    (folder / archives.TARS["validation"]).write_bytes(tar_of(val))
    return folder


def write_folders(folder, train=TRAIN, val=VAL):
    for split, synset_of in (("train", lambda name: name[:9]), ("val", lambda name: VALIDATION[int(name[15:23]) - 1])):
        files = val if split == "val" else {name: data for one in train.values() for name, data in one.items()}
        for name, data in files.items():
            path = folder / split / synset_of(name) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    return folder


def prepare(source, data_dir, **options):
    return imagenet_builder.prepare(source, data_dir, **({"size": SIZE} | options))
