"""Every reader of what lies on a disk, given damaged files: it refuses them by name, or reads the same.

Only where a format has no checksum (pixels, text) may something else be read. Nothing hangs, and nothing is executed.
"""

from __future__ import annotations

import json
import pickle
import random
import shutil
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from native_sets import CALTECH, caltech_by_tfds, devkit, voc_by_tfds, write
from tensorflow_datasets.core.file_adapters import FileFormat
from tiny_photos import photo, prepare, tar_of, write_folders, write_tars

from experiments.shell import scans
from experiments.shell.training_log import TrainingLog
from zfjax import files, results
from zfjax.analyses.top_activations import TopActivations
from zfjax.data import photo_sets, tfds_sets
from zfjax.data.annotations import open_annotations
from zfjax.data.folder import open_folder
from zfjax.data.imagenet import open_imagenet
from zfjax.pretrained import weights
from zfjax.transfer.records import recorded

FEW, MANY = 40, 300  # damages of each reader
EXECUTED = "executed"
ARRAYS = {"a": np.random.default_rng(0).random((8, 9)).astype(np.float32), "b": np.zeros(9, np.float32)}


class Bomb:
    """A pickle of it makes a file where it is read."""

    def __init__(self, folder):
        self.path = Path(folder) / EXECUTED

    def __reduce__(self):
        return Path.touch, (self.path,)


class Reader(NamedTuple):
    write: Callable[[Path], object]
    read: Callable[[Path], Any]
    checked: bool = True  # what it reads carries a checksum


def pictures_of(source):
    return [
        (np.asarray(source[i]["image"]).tolist(), np.asarray(source[i]["label"]).tolist()) for i in range(len(source))
    ]


def read_native(name):
    def read(folder):
        found = tfds_sets.open_set(name, folder)
        return found.class_names, found.labels.tolist(), pictures_of(photo_sets.source_of(found, 8))

    return read


def read_prepared(folder):
    found = open_imagenet(folder / "data")
    return found.class_names, found.mean.tolist(), pictures_of(found.train), pictures_of(found.validation)


def read_source(folder):
    shutil.rmtree(folder / "data", ignore_errors=True)
    facts = prepare(folder / "source", folder / "data", size=8)
    return facts["fingerprint"], facts["counts"]


def write_annotations(folder):
    faces = [{"file": f"{n}.jpg", "eye": [9.0, 9.0], "nose": [12.0, 11.0]} for n in range(2)]
    for n in range(2):
        (folder / f"{n}.jpg").write_bytes(photo(n))
    (folder / "faces.json").write_text(json.dumps({"faces": faces}))


def read_annotations(folder):
    net = types.SimpleNamespace(picture_size=16, image_size=16, channels=3)
    data, parts = open_annotations(folder / "faces.json", net)
    return parts, pictures_of(data.validation), [data.validation[i]["parts"].tolist() for i in range(2)]


def write_scan(folder):
    rng = np.random.default_rng(0)
    fields = [rng.integers(0, 9, (3, 4)).astype(dtype) for dtype in (np.float32, np.int32, np.int32, np.int32)]
    scans.save(folder / "scan.npz", {"conv1": TopActivations(*fields)}, key="key", done=40)


def read_scan(folder):
    state, done = scans.load(folder / "scan.npz", "key")
    return done, [np.asarray(field).tolist() for field in state["conv1"]]


def write_log(folder):
    log = TrainingLog(folder)
    for step in range(20, 100, 20):
        log.append({"kind": "step", "step": step, "epoch_done": step / 50, "loss": 1.5})


def write_record(folder):
    recorded(folder, "fold", key={"seed": 0}, compute=lambda: {"accuracy": 0.5})


def read_record(folder):
    (path,) = folder.glob("fold-*.json")
    return recorded(folder, path.name.split("-")[0], key={"seed": 0}, compute=lambda: pytest.fail("computed anew"))[
        "key"
    ]


def write_pictures(folder):
    for n in range(3):
        (folder / f"{n}.jpg").write_bytes(photo(n))


READERS = {
    "folder": Reader(write_pictures, lambda folder: pictures_of(open_folder(folder, 8).train), checked=False),
    "class folders": Reader(lambda folder: write_folders(folder / "source"), read_source, checked=False),
    "tars": Reader(lambda folder: write_tars(folder / "source"), read_source, checked=False),
    "prepared": Reader(lambda folder: prepare(write_tars(folder / "tars"), folder / "data", size=8), read_prepared),
    "caltech": Reader(lambda folder: write(folder, CALTECH), read_native("caltech101"), checked=False),
    "voc": Reader(lambda folder: write(folder, devkit()), read_native("voc2012"), checked=False),
    "tfds": Reader(
        lambda folder: caltech_by_tfds(folder, FileFormat.ARRAY_RECORD), read_native("caltech101"), checked=False
    ),
    "tfrecords": Reader(lambda folder: voc_by_tfds(folder, FileFormat.TFRECORD), read_native("voc2012"), checked=False),
    "annotations": Reader(write_annotations, read_annotations, checked=False),
    "scan": Reader(write_scan, read_scan),
    "metrics": Reader(write_log, lambda folder: TrainingLog(folder).records(), checked=False),
    "record": Reader(write_record, read_record),
    "result": Reader(
        lambda folder: files.save_json(folder / "result.json", {"command": "x", "files": {"a.png": {}}}),
        results.read,
        checked=False,
    ),
    "npz of weights": Reader(
        lambda folder: np.savez(folder / "w.npz", **ARRAYS),
        lambda folder: {name: array.tolist() for name, array in weights.read_arrays(folder / "w.npz").items()},
    ),
}


def damaged(data: bytes, rng: random.Random, folder: Path) -> bytes:
    """One of the things that disks, transfers and people do to a file."""
    at = rng.randrange(len(data))
    block = rng.randrange(1, 600)
    other = rng.randrange(len(data))
    return rng.choice(
        [
            data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :],
            data[:at],
            b"",
            data[:at] + bytes(len(data[at : at + block])) + data[at + block :],
            data[:at] + data[at + block :],
            data[:at] + data[other : other + block] + data[at:],
            b"<html>404</html>\n" * 9,
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
            pickle.dumps(Bomb(folder)),
            b"[" * 50_000,
            tar_of({"../../evil.jpg": photo(0)}),
        ]
    )


def campaign(name: str, count: int, seed: int, root: Path) -> None:
    reader, rng = READERS[name], random.Random(f"{name} {seed}")
    reader.write(root)
    whole = reader.read(root)
    paths = [path for path in sorted(root.rglob("*")) if path.is_file() and path.name != files.LOCK]
    if reader.read is read_prepared:
        paths = [path for path in paths if root / "data" in path.parents]
    elif reader.read is read_source:
        paths = [path for path in paths if root / "source" in path.parents]
    refused = 0
    for _ in range(count):
        path = rng.choice(paths)
        before = path.read_bytes()
        after = damaged(before, rng, root)
        path.write_bytes(after)
        try:
            found = reader.read(root)
        except (ValueError, OSError) as error:  # what a command shows in one line
            words, refused = str(error), refused + 1
            named = path.name in words or path.stem in words or path.parent.name in words
            if not named:
                pytest.fail(f"{path.name} is damaged, and the error does not name it: {type(error).__name__}: {words}")
        else:
            if reader.checked and found != whole:
                pytest.fail(f"{path.name} is damaged, and something else was read: {after[:200]!r}")
        finally:
            path.write_bytes(before)
        assert not (root / EXECUTED).exists()
        assert not list(root.parent.glob("evil*"))
    assert refused > count // 10  # the campaign damages
    assert reader.read(root) == whole


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_refused_by_name_or_read_the_same(name, tmp_path):
    (tmp_path / "set").mkdir()
    campaign(name, FEW, 0, tmp_path / "set")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_refused_by_name_or_read_the_same_for_many(name, seed, tmp_path):
    (tmp_path / "set").mkdir()
    campaign(name, MANY, seed, tmp_path / "set")
