"""A scan that is shown, saved and gone on with: the same strongest images whatever befalls it."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny_run import MEAN, NET, PICTURES, make_params

from experiments.shell import scans
from zfjax import nets
from zfjax.data import ArraySource
from zfjax.errors import UserError

SOURCE = ArraySource(PICTURES, np.zeros(len(PICTURES), int))
TRAINED = nets.TrainedNet(NET, make_params(), MEAN, Path("runs/x/checkpoints/1"), Path("runs/x"), "tiny", ("a",), "net")


@pytest.fixture
def reader(monkeypatch):
    """Batches that were read; `reader.stop` of them, then a Ctrl-C."""

    def batches(*arguments, **options):
        for batch in real(*arguments, **options):
            if len(batches.read) == batches.stop:
                raise KeyboardInterrupt
            batches.read.append(batch["index"])
            yield batch

    real, batches.read, batches.stop = scans.eval_batches, [], 99
    monkeypatch.setattr(scans, "eval_batches", batches)
    return batches


def scan(reader, path, net=TRAINED, of="data", batch_size=4, stop=99):
    reader.read, reader.stop = [], stop
    return scans.kept_scan(
        net, SOURCE, ("conv1", "conv2"), path=path, of=of, k=9, batch_size=batch_size, save_every=0.0
    )


def test_a_killed_scan_goes_on_where_it_was(reader, tmp_path):
    whole = scan(reader, tmp_path / "other.npz")
    assert len(reader.read) == 6
    with pytest.raises(KeyboardInterrupt):
        scan(reader, tmp_path / "scan.npz", stop=4)
    resumed = scan(reader, tmp_path / "scan.npz")
    assert len(reader.read) == 2
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)
    jax.tree.map(np.testing.assert_array_equal, scan(reader, tmp_path / "scan.npz", batch_size=8), whole)
    assert not reader.read  # a whole scan serves every batch size


@pytest.mark.usefixtures("undrawn")
def test_another_net_or_set_or_a_batch_size_that_does_not_fit_starts_anew(reader, tmp_path):
    path = tmp_path / "scan.npz"
    with pytest.raises(KeyboardInterrupt):
        scan(reader, path, stop=1)
    whole = scan(reader, path, batch_size=8)  # 4 images seen are no whole batch of 8
    assert len(reader.read) == 3
    scan(reader, path, net=dataclasses.replace(TRAINED, fingerprint="another"))
    assert len(reader.read) == 6
    scan(reader, path, of="other data")
    assert len(reader.read) == 6
    jax.tree.map(np.testing.assert_array_equal, scan(reader, path), whole)


def test_a_torn_file_is_named(tmp_path):
    path = tmp_path / "scan.npz"
    path.write_bytes(b"PK torn")
    with pytest.raises(ValueError, match="scan.npz is damaged .*; remove it to scan again"):
        scans.kept_scan(TRAINED, SOURCE, ("conv1",), path=path, of="data", batch_size=4)


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.update({"conv1/values": np.flip(a["conv1/values"])}),
        lambda a: a.update({"conv1/images": a["conv1/images"] + 1}),
        lambda a: a.update({"conv1/values": a["conv1/values"] * np.nan}),
        lambda a: a.update({"conv1/values": a["conv1/values"][:2]}),
        lambda a: a.update(done=np.array(-4)),
        lambda a: a.update(done=np.array("x")),
        lambda a: a.pop("conv1/rows"),
        lambda a: [a.pop(name) for name in list(a) if name.startswith("conv1")],
    ],
)
def test_other_numbers_than_were_saved_are_refused(reader, tmp_path, change):
    path = tmp_path / "scan.npz"
    scan(reader, path)
    arrays = dict(np.load(path))
    change(arrays)
    np.savez(path, **arrays)
    with pytest.raises(UserError, match=r"scan.npz is damaged, .*; remove it to scan again"):
        scan(reader, path)


def test_a_scan_of_before_has_no_digest_and_its_maps_and_images_are_checked(reader, tmp_path):
    path = tmp_path / "scan.npz"
    whole = scan(reader, path)
    arrays = {name: array for name, array in np.load(path).items() if name != "digest"}
    np.savez(path, **arrays)
    jax.tree.map(np.testing.assert_array_equal, scan(reader, path), whole)
    assert not reader.read
    for wrong in ({"conv1/images": arrays["conv1/images"] + 99}, {"done": np.array(99)}):
        np.savez(path, **{**arrays, **wrong})
        with pytest.raises(UserError, match="is a scan of other maps or images"):
            scan(reader, path)


def test_arrays_of_another_program_are_no_scan(tmp_path):
    np.savez(tmp_path / "scan.npz", weights=np.zeros(3))
    assert scans.load(tmp_path / "scan.npz", "key") is None
