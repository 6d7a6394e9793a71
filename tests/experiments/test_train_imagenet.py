"""The training command: what a run leaves behind, and that kills and signals at any moment change no bit of it."""

import json
import shlex
import shutil
import signal

import jax
import numpy as np
import pytest
import runs

import zfjax
from zfjax import nets, pixels
from zfjax.training import checkpoints, evaluation

KILLED = ["killed in an epoch", "killed in a save", "killed in a validation"]
STOPPED = {"terminated": signal.SIGTERM, "interrupted in a validation": signal.SIGINT}
SLOW = ("killed in a validation", "interrupted in a validation")


def each(moments):
    return [pytest.param(moment, marks=[pytest.mark.slow] * (moment in SLOW)) for moment in moments]


@pytest.fixture(scope="module")
def whole():
    return runs.whole()


@pytest.fixture(scope="module")
def broken_off(whole, tmp_path_factory, request):
    """{moment: (folder, exit status, output)} of runs that something befell, and "diverged"; all with workers."""
    out = tmp_path_factory.mktemp("broken")
    asked = {item.callspec.params.get("moment") for item in request.session.items if hasattr(item, "callspec")}
    moments = [moment for moment in (*KILLED, *STOPPED) if moment in asked or moment not in SLOW]
    started = [runs.start(*runs.FLAGS, "--num-workers", 1, "--out", out / m, moment=m) for m in moments]
    started.append(runs.start(*runs.FLAGS, "--learning-rate", "1e30", "--save-steps", 1, "--out", out / "diverged"))
    ends = runs.finish(*started)
    return {name: (out / name, *end) for name, end in zip([*moments, "diverged"], ends, strict=True)}


@pytest.fixture(scope="module")
def resumed(broken_off, tmp_path_factory):
    """{moment: (folder, exit status, output)} of the same runs, resumed without workers."""
    folders = {name: folder for name, (folder, *_) in broken_off.items() if name != "diverged"}
    out = tmp_path_factory.mktemp("resumed")
    for name, folder in folders.items():
        shutil.copytree(folder, out / name)
    started = [runs.start("--resume", out / name, "--num-workers", 0) for name in folders]
    other = out / "another rate"
    shutil.copytree(folders["terminated"], other)
    started.append(runs.start("--resume", other, "--learning-rate", "0.002", "--num-workers", 0))
    names = [*folders, "another rate"]
    return {name: (out / name, *end) for name, end in zip(names, runs.finish(*started), strict=True)}


def test_a_run_leaves_its_settings_metrics_curves_and_checkpoints(whole):
    folder = whole[0]
    assert runs.steps(folder) == [6, 12, 16, 18]  # the latest three, and those of the epochs 1 and 2
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    config = json.loads((folder / "config.json").read_text())
    assert config["recipe"]["batch_size"] == runs.BATCH and config["config"]["width"] == 0.04
    epochs = [record for record in runs.records(folder) if record["kind"] == "epoch"]
    assert [(record["epoch"], record["step"]) for record in epochs] == [(1, 6), (2, 12), (3, 18)]
    assert epochs[-1]["train_loss"] < epochs[0]["train_loss"] < 2.5
    trained = nets.load_net(folder / "checkpoints/12").training
    assert trained == {"num_classes": 10, "num_images": runs.NUM_TRAIN, "epochs": 2.0, "width": 4 / 96}


def test_the_recorded_errors_are_those_of_every_validation_image(whole):
    checkpoint, images = checkpoints.load(whole[0]), runs.tiny_set().validation
    pictures = np.stack([images[i]["image"] for i in range(runs.NUM_VALIDATION)])
    labels = np.array([images[i]["label"] for i in range(runs.NUM_VALIDATION)])
    crops = pixels.center_crop(pictures, checkpoint.mean, 36)
    forward = jax.jit(zfjax.forward, static_argnames="architecture")
    logits = forward(checkpoint.params, crops, architecture=checkpoint.architecture)[0]
    ranks = np.asarray(evaluation.rank_of_label(logits, labels))
    record = runs.records(whole[0])[-1]
    assert record["validation_top1_error"] == np.mean(ranks >= 1) and record["validation_top5_error"] == np.mean(
        ranks >= 5
    )


def test_the_summary_fits_one_screen_and_names_the_parts(whole):
    summary = whole[1].split("epoch 1/3")[0].splitlines()
    assert len(summary) < 24 and max(map(len, summary)) <= 140
    for part in ("conv1", "fc8", "parameters", "50 training", "19 validation", "SGD 0.03", "4 x cpu", str(whole[0])):
        assert part in "\n".join(summary)
    assert f"done: validation top-1 error {runs.records(whole[0])[-1]['validation_top1_error']:.1%}" in whole[1]


def test_a_terminal_shows_progress_with_loss_accuracy_speed_and_remaining_time(whole):
    line = whole[2].replace("\r", "\n").strip().splitlines()[-1]
    for part in ("epoch 3/3", "100%", " images/s", "00:00 left", "loss ", "accuracy "):
        assert part in line, line
    assert len(line) <= 80
    assert "Warning" not in whole[2] and "WARNING" not in whole[2]


@pytest.mark.parametrize("moment", each(KILLED))
def test_a_killed_run_goes_on_to_the_same_bits(whole, broken_off, resumed, moment):
    killed, status, output = broken_off[moment]
    assert status == -signal.SIGKILL, output
    folder, status, output = resumed[moment]
    assert status == 0, output
    assert runs.fingerprint(folder) == runs.fingerprint(whole[0])
    assert runs.records(folder) == runs.records(whole[0]) and runs.steps(folder) == runs.steps(whole[0])


def test_the_kill_in_a_save_left_no_checkpoint_of_that_step(broken_off, resumed):
    names = [entry.name for entry in (broken_off["killed in a save"][0] / "checkpoints").iterdir()]
    assert "8" not in names and any(name.startswith("8.") and "tmp" in name for name in names)
    left = [entry.name for entry in (resumed["killed in a save"][0] / "checkpoints").iterdir()]
    assert all(name.isdigit() or name == checkpoints.RECORD for name in left)


@pytest.mark.parametrize("moment", each(STOPPED))
def test_a_signal_saves_says_how_to_go_on_and_leaves_without_a_traceback(broken_off, moment):
    folder, status, output = broken_off[moment]
    assert status == 128 + STOPPED[moment], output
    step = runs.last(folder).step
    assert step == runs.steps(folder)[-1] and (6 < step < 12 if moment == "terminated" else step == 6)
    assert f"stopped; saved after step {step}; go on with: " in output
    assert f"--resume {shlex.quote(str(folder))}" in output  # as a shell reads it
    # Not "leaked": Grain now and then closes a worker's queue while a batch is in it, and Python cleans up and says so
    for noise in ("Traceback", "Error", "Exception"):
        assert noise not in output, output


@pytest.mark.parametrize("moment", each(STOPPED))
def test_a_stopped_run_goes_on_to_the_same_bits(whole, resumed, moment):
    folder, status, output = resumed[moment]
    assert status == 0 and "going on after step" in output, output
    assert runs.fingerprint(folder) == runs.fingerprint(whole[0])
    assert runs.records(folder) == runs.records(whole[0])


def test_another_learning_rate_takes_over_at_once(whole, resumed):
    folder, status, output = resumed["another rate"]
    assert status == 0 and "SGD 0.002" in output, output
    epochs = [record for record in runs.records(folder) if record["kind"] == "epoch"]
    assert epochs[1]["learning_rate"] == 0.002 and runs.last(folder).recipe.learning_rate == 0.002
    assert epochs[0] == runs.records(whole[0])[0] and epochs[1]["train_loss"] != runs.records(whole[0])[1]["train_loss"]


def test_a_loss_that_is_not_finite_ends_the_run_by_name_and_the_checkpoints_stay(broken_off):
    folder, status, output = broken_off["diverged"]
    good = runs.steps(folder)
    error = output.replace("\r", "\n").strip().splitlines()[-1]
    assert status == 1 and error.startswith(("error: loss=", "error: gradient norm=")), output
    assert f"at step {good[-1] + 1}: training diverged; the checkpoints of steps {good} stay" in error
    assert runs.last(folder).step == good[-1] and "Traceback" not in output
