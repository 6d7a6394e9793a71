"""What can go wrong while ImageNet is prepared: each is named, and nothing half done is ever taken for a set."""

import errno
import io
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import offspring
import pytest
from tensorflow_datasets.core.utils import gcs_utils
from tiny_photos import NUMBERS, SIZE, SYNSETS, TRAIN, VAL, photo, prepare, tar_of, write_folders, write_tars

from experiments import prepare_imagenet
from zfjax import files
from zfjax.data import archives, imagenet, imagenet_builder, preparation
from zfjax.data.imagenet import open_imagenet
from zfjax.errors import UserError


def cut_at_end_mark(tar):
    """The tar without the blocks that mark its end: cut exactly after its last member."""
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        archive.getmembers()
        return tar[: archive.offset]


def command_line(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["prepare_imagenet", *map(str, arguments)])
    prepare_imagenet.main()


def nothing_is_left(data_dir):
    with pytest.raises(FileNotFoundError, match="no prepared ImageNet"):
        open_imagenet(data_dir)
    return not [path for path in Path(data_dir).rglob("*") if path.is_file() and path.name != ".lock"]


def test_undecodable_file_stops_with_its_name(tmp_path):
    bad = {**TRAIN, "n01440764": {**TRAIN["n01440764"], "n01440764_9.JPEG": photo(1)[:400]}}
    with pytest.raises(ValueError, match=r"train photo n01440764/n01440764_9.JPEG in .*train.tar: no readable picture"):
        prepare(write_tars(tmp_path / "source", train=bad), tmp_path / "data")
    assert nothing_is_left(tmp_path / "data")


def test_a_preparation_asks_nobody_and_leaves_no_temporary_files(tmp_path, monkeypatch):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setattr(gcs_utils, "gcs_dataset_info_files", lambda name: pytest.fail(f"Google was asked for {name}"))
    prepare(write_tars(tmp_path / "source"), tmp_path / "data")
    assert list(temporary.iterdir()) == []


@pytest.mark.usefixtures("usual_signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_preparation_that_is_stopped_leaves_nothing_half_done(tmp_path, monkeypatch, capsys, name):
    write_tars(tmp_path / "source")
    monkeypatch.setattr(preparation, "_convert_chunk", lambda *_: signal.raise_signal(getattr(signal, name)))
    with pytest.raises(SystemExit) as ended:
        command_line(
            monkeypatch,
            "--source",
            tmp_path / "source",
            "--data-dir",
            tmp_path / "data",
            "--size",
            SIZE,
            "--workers",
            1,
        )
    assert ended.value.code == 128 + getattr(signal, name)
    assert capsys.readouterr().err.endswith("stopped; nothing half done is left, running it again starts anew\n")
    assert not (tmp_path / "data").exists()


TOLD_TO_ALL = """
import os, signal, sys
from pathlib import Path
from zfjax.data import archives, preparation
from zfjax.leaving import STOPPING
os.setpgrp()
paths = Path(sys.argv[1]).rglob("*.JPEG")
photos = [archives.Photo(str(path), 0, path.stat().st_size, "c", path.name) for path in paths]
for number in STOPPING:
    signal.signal(number, lambda *_: None)  # here alone
chunks = preparation.convert(iter(40 * photos), 8, workers=2)
sizes = [len(next(chunks).stored)]
for number in STOPPING:
    os.killpg(0, number)  # as a terminal that closes
sizes += [len(chunk.stored) for chunk in chunks]
print(sum(sizes) == 40 * len(photos) > 0)
"""


@pytest.mark.slow
def test_a_signal_for_all_processes_of_a_preparation_ends_no_worker_and_confuses_no_tracker(tmp_path):
    command = [sys.executable, "-c", TOLD_TO_ALL, str(write_folders(tmp_path))]
    ended = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "JAX_PLATFORMS": "cpu"})
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "True\n", "")


def test_a_data_dir_whose_name_is_not_utf8_is_told_so(tmp_path):
    strange = tmp_path / os.fsdecode(b"no \xff letters")
    with pytest.raises(UserError, match=r"data_dir='.*no \\xff letters': its name is not UTF-8"):
        prepare(write_tars(tmp_path / "source"), strange)
    prepare(tmp_path / "source", tmp_path / "data")
    (tmp_path / "data").rename(strange)
    with pytest.raises(UserError, match=r"no \\xff letters.*': its name is not UTF-8"):
        open_imagenet(strange)


def test_skipped_files_are_counted_and_listed_with_the_set(tmp_path, monkeypatch, capsys):
    write_tars(tmp_path / "source", val={**VAL, f"ILSVRC2012_val_{NUMBERS[0]:08d}.JPEG": b"<html>"})
    arguments = ("--source", tmp_path / "source", "--data-dir", tmp_path, "--size", SIZE, "--workers", 1, "--skip-bad")
    command_line(monkeypatch, *arguments)
    skipped = imagenet.read_facts(imagenet.set_folder(tmp_path, SIZE))["skipped"]
    (line,) = skipped
    assert f"/ILSVRC2012_val_{NUMBERS[0]:08d}.JPEG: no readable picture" in line
    printed = capsys.readouterr().out
    assert line in printed and "1 files left out" in printed and "8 train, 4 validation photos of 2 classes" in printed
    command = f"python -m experiments.train_imagenet --data-dir {tmp_path} --preset reduced --image-size 14"
    assert printed.endswith(f"\n  {command}\n")
    command_line(monkeypatch, *arguments[:5], 8, *arguments[6:])
    assert capsys.readouterr().out.endswith(f"--data-dir {tmp_path} --data-size 8 --preset reduced --image-size 7\n")


def cut_in_half(tar):
    return tar[: len(tar) // 2]


@pytest.mark.parametrize("cut", [cut_in_half, cut_at_end_mark])
@pytest.mark.parametrize("which", ["outer", "nested", "validation"])
def test_truncated_tar_leaves_no_set(tmp_path, which, cut):
    source = write_tars(tmp_path / "source")
    path = source / archives.TARS["validation" if which == "validation" else "train"]
    if which == "nested":
        nested = {s: tar_of(files) for s, files in TRAIN.items()}
        path.write_bytes(tar_of({f"{s}.tar": cut(tar) if s == SYNSETS[0] else tar for s, tar in nested.items()}))
    else:
        path.write_bytes(cut(path.read_bytes()))
    where = rf"{path.name}( \(n01443537.tar\))? is (no complete tar|cut short)"
    with pytest.raises(ValueError, match=where + ".*: copy or download it again"):
        prepare(source, tmp_path / "data")
    assert nothing_is_left(tmp_path / "data")


def test_validation_class_that_training_lacks_is_named(tmp_path):
    source = write_tars(tmp_path / "source", train={SYNSETS[0]: TRAIN[SYNSETS[0]]})
    with pytest.raises(ValueError, match="is of class n01440764, which is not among the training classes"):
        prepare(source, tmp_path)


@pytest.mark.parametrize("number", ["00000000", "00050001", "0000000\uff11"])
def test_foreign_validation_name_is_named(tmp_path, number):
    source = write_tars(tmp_path / "source", val={f"ILSVRC2012_val_{number}.JPEG": photo(1)})
    with pytest.raises(ValueError, match=f"ILSVRC2012_val_{number}.JPEG.: names must run from"):
        prepare(source, tmp_path)


def test_wrong_sources_and_arguments_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="must hold ILSVRC2012_img_train.tar and/or ILSVRC2012_img_val.tar"):
        prepare(tmp_path / "nowhere", tmp_path)
    source = write_folders(write_tars(tmp_path / "both"))
    with pytest.raises(ValueError, match="holds both ILSVRC2012_img_train.tar and train/"):
        prepare(source, tmp_path)
    for name in ("size", "workers"):
        with pytest.raises(ValueError, match=f"--{name} must be at least 1, not 0"):
            prepare(source, tmp_path, **{name: 0})
    with pytest.raises(ValueError, match="--size must be at most 4,096 pixels, not 70,000"):
        prepare(source, tmp_path, size=70_000)
    (tmp_path / "empty" / "train" / "cat").mkdir(parents=True)
    with pytest.raises(ValueError, match="train/cat has no pictures"):
        prepare(tmp_path / "empty", tmp_path)


class FullDisk:
    """An array_record writer on a full disk, which says so at the close, or at a write if that comes later."""

    def __init__(self, path, options):
        Path(path).write_bytes(b"half")

    def write(self, record):
        pass

    def close(self):
        raise RuntimeError("write() failed: No space left on device")


class FullDiskNoticedEarly(FullDisk):
    def write(self, record):
        self.close()


def no_space(*_):
    """A write on a full disk."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("writer", [FullDisk, FullDiskNoticedEarly])
def test_full_disk_is_named_with_the_folder_and_leaves_no_set(tmp_path, monkeypatch, writer):
    source = write_tars(tmp_path / "source")
    with monkeypatch.context() as patch:
        patch.setattr(imagenet_builder, "ArrayRecordWriter", writer)
        with pytest.raises(SystemExit, match=rf"^error: preparing {tmp_path}/data/.* No space left on device$"):
            command_line(patch, "--source", source, "--data-dir", tmp_path / "data", "--workers", 1)
    assert nothing_is_left(tmp_path / "data")

    with monkeypatch.context() as patch:  # all shards fit, the mean does not
        patch.setattr(np, "save", no_space)
        with pytest.raises(OSError, match="No space left on device"):
            prepare(source, tmp_path / "data")
    assert nothing_is_left(tmp_path / "data")
    assert prepare(source, tmp_path / "data")["fresh"]


def test_complete_set_is_left_alone_and_says_where_it_came_from(tmp_path, monkeypatch, capsys):
    first, second = write_tars(tmp_path / "a"), write_tars(tmp_path / "b", val={next(iter(VAL)): photo(1)})
    for source in (first, first, second):
        command_line(monkeypatch, "--source", source, "--data-dir", tmp_path, "--size", SIZE, "--workers", 1)
    fresh, again, elsewhere = (f"{part}Train on it:" for part in capsys.readouterr().out.split("Train on it:")[:3])
    assert "Prepared: " in fresh and "Already prepared, nothing done: " in again and "Note" not in again
    assert f"Note: it was prepared from {first}, not from {second}." in elsewhere
    assert "8 train, 5 validation photos" in elsewhere
    assert prepare(second, tmp_path, overwrite=True)["counts"] == {"train": 8, "validation": 1}
    assert len(open_imagenet(tmp_path).validation) == 1


def test_second_preparation_at_the_same_time_is_refused(tmp_path):
    held = files.locked(imagenet.set_folder(tmp_path, SIZE).parent)
    with held, pytest.raises(ValueError, match="another process is writing into"):
        prepare(write_tars(tmp_path / "source"), tmp_path)


def test_failed_overwrite_keeps_the_set_that_was_there(tmp_path, monkeypatch):
    source, data = write_tars(tmp_path / "source"), tmp_path / "data"
    before = prepare(source, data)["fingerprint"]
    with monkeypatch.context() as patch:
        patch.setattr(np, "save", no_space)
        with pytest.raises(OSError, match="No space left on device"):
            prepare(source, data, overwrite=True)
    assert open_imagenet(data).fingerprint == before
    folder = imagenet.set_folder(data, SIZE)
    folder.rename(folder.parent / "incomplete.old")  # as a kill between the two renames leaves it
    files.clear(folder, folder.parent / "incomplete.old")
    assert open_imagenet(data).fingerprint == before


def test_nothing_is_left_of_a_preparation_whose_worker_was_killed(tmp_path, monkeypatch):
    def broken(*_, **__):
        raise BrokenProcessPool("a worker was killed")
        yield

    monkeypatch.setattr(preparation, "convert", broken)
    with pytest.raises(BrokenProcessPool):
        prepare(write_tars(tmp_path / "source"), tmp_path)
    assert not list(tmp_path.rglob("incomplete.*"))


@offspring.needs_proc
def test_killed_preparation_leaves_no_set_no_worker_and_can_be_run_again(tmp_path):
    many = {s: {f"{i}.JPEG": TRAIN[SYNSETS[0]]["n01443537_0.JPEG"] for i in range(2000)} for s in SYNSETS}
    big, small, data = write_tars(tmp_path / "big", train=many, val={}), write_tars(tmp_path / "a"), tmp_path / "data"
    (big / archives.TARS["validation"]).unlink()
    command = [
        sys.executable,
        "-m",
        "experiments.prepare_imagenet",
        "--source",
        big,
        "--data-dir",
        data,
        "--workers",
        2,
    ]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    folder = imagenet.set_folder(data, 256).parent
    while not list(folder.rglob("incomplete.*/train.0")):
        assert process.poll() is None, "ended before it could be killed"
        time.sleep(0.01)
    children = offspring.children(process.pid)
    assert len(children) == 3  # two workers and multiprocessing's resource tracker
    process.send_signal(signal.SIGKILL)
    process.wait()
    with pytest.raises(FileNotFoundError, match="a preparation was begun there and has not finished"):
        open_imagenet(data)
    offspring.wait_for_end(children)
    assert prepare(small, data, size=256)["fresh"] and not list(folder.glob("incomplete.*"))
    assert len(open_imagenet(data).train) == 8


def test_tensorflow_is_never_imported(tmp_path):
    write_tars(tmp_path / "source")
    code = (
        "import sys; from pathlib import Path; from zfjax.data import imagenet, imagenet_builder, loader\n"
        f"imagenet_builder.prepare(Path({str(tmp_path / 'source')!r}), Path({str(tmp_path)!r}), size=8)\n"
        f"train = imagenet.open_imagenet({str(tmp_path)!r}).train\n"
        "assert len(next(loader.train_batches(train, batch_size=4, seed=0, num_epochs=1))['label']) == 4\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
