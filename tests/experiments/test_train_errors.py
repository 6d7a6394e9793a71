"""The training command refuses what cannot be meant, in one line that names it, before it writes anything."""

import dataclasses
import os
import shutil
import signal
import socket
import sys

import pytest
import runs

from experiments import train_imagenet
from experiments.shell import hosts, run_folders, training_run
from zfjax import files as files_of_zfjax
from zfjax import parallel, training
from zfjax.architecture import ZFNET
from zfjax.data import sets
from zfjax.errors import UserError
from zfjax.training import checkpoints, loop

NEW = [
    (["--save-steps", "0"], "save_steps=0: at least 1 is needed"),
    (["--num-workers", "-1"], "num_workers=-1: at least 0 is needed"),
    (["--batch-size", "6"], "batch_size=6: a multiple of the number of devices, 4, is needed"),
    (["--batch-size", "52"], "batch_size must lie between 1 and the 50 examples of the split, not 52"),
    (["--image-size", "41"], "image_size=41: crops of at most 40 pixels"),
    (["--image-size", "20"], "the image is too small"),
    (["--width", "0"], "width=0.0: a finite factor above 0 is needed"),
]

CONTINUED = [
    (["--width", "0.05"], "width=0.05: the run was started with 0.04"),
    (["--architecture", "zfnet"], "architecture='zfnet': the run was started with 'alexnet'"),
    (["--seed", "1"], "recipe.seed=1: the run was started with 0"),
    (["--batch-size", "4"], "recipe.batch_size=4: the run was started with 8"),
    (["--out", "elsewhere"], "out='elsewhere': the resumed run is in"),
    (["--num-epochs", "2"], "num_epochs=2: the run has done 3 already"),
    (["--preset", "demo"], "preset='demo': a continued run keeps its own settings"),
]

# Orbax gives up at the first unreadable array; its readers of the others then complain, now or in the next test
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def finished(tmp_path):
    """A copy of a finished run."""
    shutil.copytree(runs.whole()[0], tmp_path / "run")
    return tmp_path / "run"


def error_of(monkeypatch, *flags, **arguments):
    """The one line that the command ends with."""
    with pytest.raises(SystemExit) as ended:
        runs.train(monkeypatch, *flags, **arguments)
    assert isinstance(ended.value.code, str) and ended.value.code.startswith("error: ")
    assert "\n" not in ended.value.code
    return ended.value.code


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("flags", "message"), NEW, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_a_new_run_with_an_impossible_setting_writes_nothing(monkeypatch, tmp_path, flags, message):
    assert message in error_of(monkeypatch, *runs.FLAGS, "--out", tmp_path / "run", *flags)
    assert not (tmp_path / "run").exists()


def facts_of(monkeypatch, folder, *, images=None, software=None, **recipe):
    """What a host of two tells the others of its run."""
    monkeypatch.setattr(training_run.parallel, "host_count", lambda: (0, 2))
    if software is not None:
        version = hosts.version
        monkeypatch.setattr(hosts, "version", lambda name: software if name == "zfjax" else version(name))
    config = train_imagenet.parse(train_imagenet.PRESETS["demo"], list(runs.FLAGS)[2:])
    config = dataclasses.replace(config, recipe=dataclasses.replace(config.recipe, **recipe))
    place = run_folders.Place(folder, None, str(folder))
    facts = training_run.prepare(config, place, table=None, data=images or runs.tiny_set(), resumed=False).facts
    return parallel.facts_in_short(facts)


OTHERS = [
    (
        {"images": dataclasses.replace(runs.tiny_set(), class_names=("cat", *runs.tiny_set().class_names[1:]))},
        "class names",
    ),
    ({"images": dataclasses.replace(runs.tiny_set(), fingerprint="other")}, "data fingerprint"),
    ({"images": dataclasses.replace(runs.tiny_set(), mean=runs.tiny_set().mean + 1)}, "mean picture"),
    ({"software": "0.0"}, "version of zfjax"),
    ({"momentum": 0.5}, "momentum"),
]


@pytest.mark.parametrize(("other", "named"), OTHERS, ids=[named for _, named in OTHERS])
def test_hosts_that_differ_in_data_or_software_are_told_in_what(monkeypatch, tmp_path, other, named):
    mine = facts_of(monkeypatch, tmp_path)
    parallel.check_alike([mine, facts_of(monkeypatch, tmp_path)])
    with pytest.raises(UserError, match=rf"the hosts do not agree: {named} is [^;]* on host 0 and [^;]* on host 1"):
        parallel.check_alike([mine, facts_of(monkeypatch, tmp_path, **other)])


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGHUP"])
def test_a_signal_before_the_first_step_is_one_line_and_leaves_nothing(monkeypatch, tmp_path, capsys, name):
    def interrupted(*_):
        signal.raise_signal(getattr(signal, name))

    monkeypatch.setattr(training_run, "open_images", interrupted)
    with pytest.raises(SystemExit) as ended:
        runs.train(monkeypatch, *runs.FLAGS, "--out", tmp_path / "run")
    assert ended.value.code == 128 + getattr(signal, name)
    assert capsys.readouterr().err == "stopped; what was saved before stays\n"
    assert not (tmp_path / "run").exists() and signal.getsignal(getattr(signal, name)) == signal.SIG_DFL


@pytest.mark.parametrize(
    ("flags", "message"), CONTINUED, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_a_continued_run_keeps_its_settings(monkeypatch, finished, flags, message):
    before = files(finished)
    assert message in error_of(monkeypatch, "--resume", finished, *flags)
    assert files(finished) == before


def test_the_command_of_a_finished_run_says_that_it_is_done_and_changes_nothing(monkeypatch, finished, capsys):
    before, records = runs.fingerprint(finished), runs.records(finished)
    runs.train(monkeypatch, *runs.FLAGS, "--out", finished)
    assert f"; the run is in {finished}" in capsys.readouterr().out
    assert (runs.fingerprint(finished), runs.records(finished)) == (before, records)


@pytest.mark.parametrize(("flag", "value", "stored"), [("--width", 0.05, 0.04), ("--learning-rate", 0.01, 0.03)])
def test_a_folder_holds_one_run(monkeypatch, finished, flag, value, stored):
    before = files(finished)
    error = error_of(monkeypatch, *runs.FLAGS, "--out", finished, flag, value)
    assert f"{flag[2:].replace('-', '_')}={value}: the run" in error and f"was started with {stored}" in error
    assert files(finished) == before


def test_a_folder_of_something_else_is_left_alone(monkeypatch, tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    error = error_of(monkeypatch, *runs.FLAGS, "--out", tmp_path)
    assert f"out={str(tmp_path)!r} is not empty and holds no run: 'thesis.tex' is there" in error
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("written", ["link", "../{}/other/../run/"])
def test_the_folder_of_a_run_may_be_written_in_any_way(monkeypatch, finished, written, capsys):
    monkeypatch.chdir(finished.parent)
    (finished.parent / "other").mkdir()
    (finished.parent / "link").symlink_to(finished)
    runs.train(monkeypatch, "--resume", finished, "--out", written.format(finished.parent.name))
    assert "done: " in capsys.readouterr().out


def test_a_run_that_another_process_is_training_is_refused_by_its_name(monkeypatch, finished):
    monkeypatch.setattr(run_folders, "PATIENCE", 0.2)
    with files_of_zfjax.locked(finished):
        error = error_of(monkeypatch, "--resume", finished)
        assert f"process {os.getpid()} on {socket.gethostname()}" in error
        assert error == error_of(monkeypatch, *runs.FLAGS, "--out", finished)


@pytest.mark.parametrize("name", ["best", "\u00b2", "007"])
def test_what_is_no_step_among_the_checkpoints_is_told_so(monkeypatch, finished, name):
    shutil.copytree(finished / "checkpoints" / "6", finished / "checkpoints" / name)
    assert f"holds {name!r}, which is no step" in error_of(monkeypatch, "--resume", finished)


def test_a_checkpoint_under_the_number_of_another_is_refused(monkeypatch, finished):
    shutil.copytree(finished / "checkpoints" / "6", finished / "checkpoints" / "99")
    error = error_of(monkeypatch, "--resume", finished)
    assert f"checkpoint {finished / 'checkpoints' / '99'} is of step 6: call its folder by its step, 6" in error


def test_a_run_does_not_go_on_with_other_pictures(monkeypatch, finished):
    error = error_of(monkeypatch, "--resume", finished, images=runs.tiny_set(1))
    assert f"not the pictures that {finished} was trained on" in error


def test_a_data_set_without_validation_is_refused_by_name(monkeypatch, tmp_path):
    images = dataclasses.replace(runs.tiny_set(), validation=None)
    error = error_of(monkeypatch, *runs.FLAGS, "--out", tmp_path / "run", images=images)
    assert "has no validation split" in error


def test_a_run_goes_on_from_its_newest_checkpoint_only(monkeypatch, finished):
    error = error_of(monkeypatch, "--resume", finished / "checkpoints" / "6")
    assert "6 has later ones beside it, [12, 16, 18]" in error


def test_a_damaged_checkpoint_is_named_with_the_good_ones_beside_it(monkeypatch, finished):
    newest = finished / "checkpoints" / "18"
    for path in (newest / "network").rglob("*"):
        if path.parent.name == "d":
            path.write_bytes(path.read_bytes()[:-9] + b"damaged!!")
    error = error_of(monkeypatch, "--resume", finished)
    assert f"checkpoint {newest} is damaged (" in error and "beside it stand [6, 12, 16]" in error
    assert runs.steps(finished) == [6, 12, 16, 18]


def test_nothing_to_resume_says_how_to_make_a_run(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    error = error_of(monkeypatch, "--resume")
    assert "no trained network under runs/" in error and "train_imagenet --preset demo" in error
    assert f"no checkpoint at {tmp_path / 'run'}" in error_of(monkeypatch, "--resume", tmp_path / "run")


def test_missing_imagenet_names_the_ways_to_prepare_it_and_to_the_demo(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train_imagenet"])
    monkeypatch.setattr(parallel, "connect_hosts", lambda *_, **__: None)
    with pytest.raises(SystemExit) as ended:
        train_imagenet.main()
    assert ended.value.code.startswith("error: ") and "experiments.prepare_imagenet" in ended.value.code
    assert "--preset demo" in ended.value.code and not list(tmp_path.iterdir())


@pytest.mark.parametrize("data", ["demo:forty", "demo:56:12"])
def test_an_unreadable_data_name_is_refused(data):
    with pytest.raises(ValueError, match=f"data='{data}'"):
        sets.open_data(data)


def test_a_number_out_of_its_range_is_refused_by_name(monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        runs.train(monkeypatch, *runs.FLAGS, "--momentum", "1.5")
    assert ended.value.code == 2 and "momentum=1.5: 0 or more and below 1 is needed" in capsys.readouterr().err


def test_a_run_goes_on_with_the_network_that_it_holds_whatever_today_s_defaults_are(monkeypatch, finished):
    def refuse(run, *_, **__):
        raise UserError(f"{run.architecture.input_scale}")

    he = training.INITIALIZATIONS["he"]
    stored = checkpoints.load(finished).architecture.input_scale
    monkeypatch.setitem(training.INITIALIZATIONS, "he", he._replace(input_scale=stored / 2))
    monkeypatch.setattr(loop, "begin", refuse)
    monkeypatch.delattr(training_run, "build_architecture")  # it is not asked for
    assert error_of(monkeypatch, "--resume", finished) == f"error: {stored}"


def test_an_unknown_preset_is_refused_with_the_known_ones(monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        runs.train(monkeypatch, "--preset", "fast")
    said = capsys.readouterr().err
    assert ended.value.code == 2 and "invalid choice: 'fast'" in said
    assert all(preset in said for preset in train_imagenet.PRESETS)


def test_without_a_preset_the_paper_is_trained():
    config = train_imagenet.parse(train_imagenet.PRESETS["paper"], [])
    assert config == train_imagenet.Config()
    assert (config.data, config.image_size, config.width) == ("imagenet", 224, 1.0)
    assert training_run.build_architecture(config, 1000) == ZFNET


def test_help_lists_the_flags_that_choose_the_settings_too(monkeypatch, capsys):
    with pytest.raises(SystemExit) as left:
        runs.train(monkeypatch, "--help")
    shown = capsys.readouterr().out
    assert left.value.code == 0
    for flag in ("--preset", "--resume", "--coordinator", "--num-hosts", "--host", "--learning-rate"):
        assert flag in shown
