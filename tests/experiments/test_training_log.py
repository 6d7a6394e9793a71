"""metrics.jsonl: a run goes on from whatever a kill, or another hand, left there, and nothing is lost."""

import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from experiments.pages.training import draw_curves
from experiments.shell import training_log
from experiments.shell.training_log import TrainingLog, epoch_line, epoch_record
from zfjax.errors import UserError
from zfjax.training import Recipe
from zfjax.training.loop import EpochDone, Stepped

EPOCH = {
    "kind": "epoch",
    "step": 11,
    "epoch": 1,
    "learning_rate": 0.03,
    "train_loss": 1.1,
    "train_top1_error": 0.6,
    "validation_top1_error": 0.5,
    "validation_top5_error": 0.25,
    "images_per_second": 8.6,
}
STEP = {"kind": "step", "step": 20, "epoch_done": 1.8, "loss": 1.1, "accuracy": 0.3, "gradient_norm": 0.2}
RECORDS = [EPOCH, STEP, {**EPOCH, "step": 22, "epoch": 2}]
LINES = [json.dumps(record).encode() + b"\n" for record in RECORDS]


def log_of(folder, *lines):
    (folder / "metrics.jsonl").write_bytes(b"".join(lines))
    return TrainingLog(folder)


@pytest.mark.parametrize("strange", [b"@@@@", b"5", b"null", b"[]", b"{}", b"[" * 100_000, b"\xff\xfe"])
def test_lines_that_never_were_records_are_kept_aside_when_a_run_goes_on(tmp_path, strange, caplog):
    log = log_of(tmp_path, LINES[0], strange + b"\n", *LINES[1:])
    assert log.records() == RECORDS
    log.rewind(22, 2)
    assert log.records() == RECORDS and (tmp_path / "metrics.jsonl.strange").read_bytes() == strange + b"\n"
    assert "1 lines are no records; they are kept in metrics.jsonl.strange" in caplog.text
    log.rewind(22, 2)
    assert (tmp_path / "metrics.jsonl.strange").read_bytes() == strange + b"\n"


@pytest.mark.parametrize(
    "damaged",
    [
        LINES[1].replace(b"{", b"[", 1),
        LINES[1].replace(b"20", b'"20"', 1),
        LINES[1].replace(b'"kind": "step", ', b""),
        LINES[1].replace(b"kind", b"k\xffnd"),
        LINES[0].replace(b'"train_loss": 1.1, ', b""),
        LINES[1].replace(b"20", b"9" * 5000, 1),
    ],
)
def test_a_damaged_record_is_named_and_stays_where_it_is(tmp_path, damaged):
    log = log_of(tmp_path, LINES[0], damaged, LINES[2])
    with pytest.raises(UserError, match=r"metrics.jsonl: line 2 is damaged \(.*\); mend that line"):
        log.rewind(22, 2)
    assert damaged in (tmp_path / "metrics.jsonl").read_bytes()


def test_a_last_line_that_was_cut_is_left_out_and_a_record_twice_is_one(tmp_path):
    assert log_of(tmp_path, *LINES, LINES[1][:30]).records() == RECORDS
    assert log_of(tmp_path, LINES[0], *LINES).records() == RECORDS
    assert log_of(tmp_path, *LINES[:2], LINES[2].rstrip()).records() == RECORDS


def test_where_there_are_five_classes_or_fewer_no_top5_is_told(tmp_path):
    epoch = {name: value for name, value in RECORDS[0].items() if name != "kind"}
    six, five = (epoch_record(EpochDone(**epoch), num_classes=num_classes) for num_classes in (6, 5))
    assert six == RECORDS[0] and five == {name: six[name] for name in six if name != "validation_top5_error"}
    assert "top-5 25.0%" in epoch_line(six, 3) and "top-5" not in epoch_line(five, 3)
    log_of(tmp_path, json.dumps(five).encode() + b"\n", *LINES[1:2])
    few = TrainingLog(tmp_path).records()  # it is no damaged record
    assert few == [five, RECORDS[1]]
    labels = [[line.get_label() for line in draw_curves(of).axes[1].lines] for of in (RECORDS, few)]
    assert "validation top-5" in labels[0] and "validation top-5" not in labels[1]


def test_where_some_epochs_hold_no_error_its_curve_has_a_gap():
    without = {name: value for name, value in EPOCH.items() if name != "validation_top5_error"}
    curves = draw_curves([EPOCH, {**without, "epoch": 2, "validation_top1_error": None}, {**EPOCH, "epoch": 3}])
    values = {line.get_label(): list(line.get_ydata()) for line in curves.axes[1].lines}
    np.testing.assert_array_equal(values["validation top-1"], [50, np.nan, 50])
    np.testing.assert_array_equal(values["validation top-5"], [25, np.nan, 25])


@pytest.mark.parametrize("name", ["metrics.jsonl", "curves.png"])
def test_a_folder_in_the_place_of_the_log_or_of_its_curves_is_named(tmp_path, name):
    log = log_of(tmp_path, *LINES)
    (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / name).mkdir()
    use = log.draw if name == "curves.png" else lambda: log.rewind(22, 2)
    with pytest.raises(UserError, match=f"{name} is a folder, and a file of that name belongs there"):
        use()


def test_the_curves_have_a_margin(tmp_path):
    log_of(tmp_path, *LINES).draw()
    pixels = np.asarray(Image.open(tmp_path / "curves.png").convert("RGB"))
    frame = np.ones(pixels.shape[:2], bool)
    frame[12:-12, 12:-12] = False
    assert (pixels[frame] >= 250).all() and (pixels < 250).any()


def test_curves_are_drawn_now_and_then_and_the_last_ones_at_the_end(tmp_path, monkeypatch):
    log, drawn, now = log_of(tmp_path, *LINES), [], [0.0]
    monkeypatch.setattr(log, "draw", lambda: drawn.append(now[0]))
    monkeypatch.setattr(training_log.time, "monotonic", lambda: now[0])
    for moments, expected in [((0, 1, 29, 31, 40), [0, 31, 40]), ((50, 80), [50, 80]), ((), [])]:
        drawn.clear()
        with log.curves() as redraw:
            for now[0] in moments:
                redraw()
        assert drawn == expected


def test_the_time_that_is_left_does_not_count_the_first_step_which_compiles(monkeypatch):
    run = SimpleNamespace(recipe=Recipe(batch_size=64, num_epochs=2), epoch_steps=10)
    progress = SimpleNamespace(annealing=SimpleNamespace(epoch=0), state=SimpleNamespace(step=0))
    now = [0.0]
    monkeypatch.setattr("sys.stderr", io.StringIO())
    with training_log.progress_bar(run, progress, is_drawn=True) as bar:
        monkeypatch.setattr(bar, "_time", lambda: now[0])
        monkeypatch.setattr(training_log.time, "time", lambda: now[0])
        for step, moment in ((1, 90.0), (2, 92.0), (3, 94.0)):
            now[0] = moment
            training_log.show_step(bar, Stepped(step, 1.0, 0.5, 1.0, 64), is_first=step == 1)
        assert "32.00 images/s, 00:34 left" in bar.format_meter(**bar.format_dict)
