"""A run's folder: begun, gone on with or refused."""

import os

import pytest

from experiments.shell import hosts, run_folders, training_log
from zfjax.errors import UserError


def test_two_runs_of_one_second_get_two_folders(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_folders.time, "strftime", lambda *_: "now")
    with run_folders.claimed(None, None, "demo") as first, run_folders.claimed(None, None, "demo") as second:
        names = [str(place.folder) for place in (first, second)]
        (first.folder / "config.json").touch()
    with run_folders.claimed(None, None, "demo") as third:
        names.append(str(third.folder))
    assert names == ["runs/demo-now", "runs/demo-now-2", "runs/demo-now-2"]  # nothing came of the second


def test_what_a_run_leaves_before_its_first_checkpoint_is_begun_anew(tmp_path):
    (tmp_path / "checkpoints" / "3.orbax-checkpoint-tmp").mkdir(parents=True)
    for name in ("config.json", "metrics.jsonl", ".lock", ".config.json.77", "host-1.log"):
        (tmp_path / name).touch()
    with run_folders.claimed(None, tmp_path, "demo") as place:
        assert (place.folder, place.checkpoint) == (tmp_path, None)
        assert not (tmp_path / ".config.json.77").exists()
    (tmp_path / "notes").touch()
    with pytest.raises(UserError, match="'notes' is there"), run_folders.claimed(None, tmp_path, "demo"):
        pass


def test_a_run_whose_checkpoints_were_taken_away_is_not_begun_anew(tmp_path):
    """The epoch after a checkpoint is recorded; of the first one a kill may leave the record alone."""
    losses = {"train_loss": 1.0, "train_top1_error": 0.5, "validation_top1_error": 0.5}
    log = training_log.TrainingLog(tmp_path)
    log.append({"kind": "epoch", "step": 4, "epoch": 1, "learning_rate": 0.1, **losses})
    with run_folders.claimed(None, tmp_path, "demo") as place:
        assert place.checkpoint is None
    log.append({"kind": "epoch", "step": 8, "epoch": 2, "learning_rate": 0.1, **losses})
    with pytest.raises(UserError, match="records 2 epochs and holds no checkpoint, .* put checkpoints/ back, or name"):
        with run_folders.claimed(None, tmp_path, "demo"):
            pass


def test_where_a_host_is_lost_the_way_on_is_one_that_there_is(tmp_path):
    begin_anew = "; nothing was saved yet: start the same command again, on all hosts or on one"
    assert hosts.way_on(None, None) == begin_anew  # of a command that trains nothing
    (tmp_path / "checkpoints" / "3.orbax-checkpoint-tmp").mkdir(parents=True)
    assert hosts.way_on(str(tmp_path), "train --resume it") == begin_anew
    (tmp_path / "checkpoints" / "3").mkdir()
    go_on = "; what was saved stays; go on, on all hosts or on one: train --resume it"
    assert hosts.way_on(str(tmp_path), "train --resume it") == go_on


def test_a_name_that_is_not_utf8_is_refused_before_anything_is_written(monkeypatch, tmp_path):
    strange = tmp_path / os.fsdecode(b"no \xff letters")
    with pytest.raises(UserError, match=r"out='.*no \\xff letters': its name is not UTF-8"):
        with run_folders.claimed(None, strange, "demo"):
            pass
    assert list(tmp_path.iterdir()) == []
    strange.mkdir()
    monkeypatch.chdir(strange)
    with pytest.raises(UserError, match="its name is not UTF-8"), run_folders.claimed(None, None, "demo"):
        pass


def test_hosts_compare_the_checkpoint_that_each_finds(monkeypatch, tmp_path):
    for step in ("4", "18"):
        (tmp_path / "checkpoints" / step / "network").mkdir(parents=True)
    compared = []
    monkeypatch.setattr(run_folders.parallel, "check_agreement", compared.append)
    for resume, out in ((tmp_path, None), (None, tmp_path)):
        with run_folders.claimed(resume, out, "demo"):
            pass
    assert compared == [{"folder": str(tmp_path), "newest checkpoint": "18"}] * 2
