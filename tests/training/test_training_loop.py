"""The loop in the library: what happens comes as events, in order; it stops and goes on after any step, to the bit."""

import dataclasses
import doctest
import functools
import itertools
import json

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from experiments.shell import training_log
from experiments.shell.command import StopRequest
from zfjax import parallel
from zfjax.architecture import Architecture, Conv, Dense, Pool
from zfjax.data import ArraySource
from zfjax.training import Recipe, checkpoints, loop
from zfjax.training.loop import Diverged, EpochDone, Finished, Halted, Run, Saved, Stepped, begin, train

SIZE, EPOCH_STEPS, NUM_EPOCHS = 10, 3, 2

TABLE = Architecture(
    name="tiny",
    layers=(
        Conv("conv1", 4, kernel=3, stride=2, after=(Pool(),)),
        Dense("fc2", 8),
        Dense("fc3", 5, hidden=False),
    ),
    image_size=9,
    input_scale=1 / 32,
)

RECIPE = Recipe(
    batch_size=8, num_epochs=NUM_EPOCHS, learning_rate=0.1, initialization="he", annealing="cosine", crops="random"
)


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory):
    """The runs below differ in what they save and show, hardly in what they compile."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = [getattr(jax.config, name) for name in names]
    for name, value in zip(names, (str(tmp_path_factory.mktemp("compiled")), 0.0), strict=True):
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield
    for name, value in zip(names, before, strict=True):
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def source(count, seed=0):
    """Noise of five brightnesses."""
    labels = np.arange(count) % 5
    noise = np.random.default_rng(seed).integers(0, 100, (count, SIZE, SIZE, 3))
    return ArraySource((noise + 30 * labels[:, None, None, None]).astype(np.uint8), labels)


def tiny_run(folder=None, num_train=26, num_validation=11, **changes):
    """A run of two epochs of three steps, saved after every second one too."""
    parts = {
        "architecture": TABLE,
        "recipe": RECIPE,
        "train": source(num_train),
        "mean": np.full((SIZE, SIZE, 3), 100, np.float32),
        "validation": source(num_validation, 1) if num_validation else None,
        "folder": folder,
        "save_steps": 2,
    }
    return Run(**{**parts, **changes})


def asked_after(count):
    """should_stop: no to the first `count` questions, then yes."""
    return (asked >= count for asked in itertools.count()).__next__


def plain(events):
    """Events that two runs share: no speed, no state."""
    changes = {EpochDone: {"images_per_second": None}, Finished: {"progress": None}, Halted: {"progress": None}}
    return [event._replace(**changes.get(type(event), {})) for event in events]


def bits(progress):
    return checkpoints.digest(progress.state), progress.annealing, progress.totals


@functools.cache
def run_in_memory():
    """The run without checkpoints."""
    return tiny_run()


@functools.cache
def whole():
    """Its events, uninterrupted."""
    return list(train(run_in_memory()))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(folder, events) of the same run with checkpoints."""
    folder = tmp_path_factory.mktemp("run")
    return folder, list(train(tiny_run(folder)))


def test_events_come_in_order(saved):
    epochs = [["step 1", "step 2", "save 2", "step 3", "save 3", "epoch 1"]]
    epochs += [["step 4", "save 4", "step 5", "step 6", "save 6", "epoch 2"]]
    names = {Stepped: "step", Saved: "save", EpochDone: "epoch", Finished: "end"}
    told = [f"{names[type(event)]} {getattr(event, 'epoch', event.step)}" for event in saved[1]]
    assert told == [*itertools.chain(*epochs), "end 6"]


def test_checkpoints_change_nothing_else(saved):
    assert plain(whole()) == plain(event for event in saved[1] if not isinstance(event, Saved))
    assert bits(whole()[-1].progress) == bits(saved[1][-1].progress)
    assert checkpoints.steps_in(saved[0] / "checkpoints") == [3, 4, 6]


def test_an_epoch_sums_its_steps_and_names_its_rate():
    steps = [event for event in whole() if isinstance(event, Stepped)]
    for number, done in enumerate(event for event in whole() if isinstance(event, EpochDone)):
        own = steps[EPOCH_STEPS * number : EPOCH_STEPS * (number + 1)]
        assert done.train_loss == pytest.approx(np.mean([step.loss for step in own]), rel=1e-6)
        assert done.train_top1_error == pytest.approx(1 - np.mean([step.accuracy for step in own]))
        assert done.learning_rate == (0.1, 0.05)[number] and done.images_per_second > 0
        assert 0 <= done.validation_top1_error <= 1 and done.validation_top5_error is None  # of five classes
    assert all(step.num_images == 8 and step.gradient_norm > 0 for step in steps)


# Questions: after each step, where checkpoints would be saved (2, 3, 4, 6), before each of two validation batches
@pytest.mark.parametrize(("questions", "step"), [(0, 1), (1, 2), (2, 2), (3, 3), (7, 4)])
def test_a_request_to_stop_is_followed_after_the_very_step_and_goes_on_from_there_to_the_bit(questions, step):
    before = list(train(run_in_memory(), should_stop=asked_after(questions)))
    assert isinstance(before[-1], Halted) and before[-1].step == step
    after = list(train(run_in_memory(), before[-1].progress))
    assert plain(before[:-1] + after) == plain(whole())
    assert bits(after[-1].progress) == bits(whole()[-1].progress)


def test_a_request_in_a_validation_leaves_it_to_the_continued_run():
    before = list(train(run_in_memory(), should_stop=asked_after(5)))
    assert [type(event) for event in before] == [Stepped] * EPOCH_STEPS + [Halted]
    after = list(train(run_in_memory(), before[-1].progress))
    assert plain(before[:-1] + after) == plain(whole()) and isinstance(after[0], EpochDone)
    assert bits(after[-1].progress) == bits(whole()[-1].progress)


@pytest.mark.parametrize("step", [3, 4, 6])
def test_a_run_goes_on_from_its_checkpoint_to_the_same_bits(saved, step):
    checkpoint = checkpoints.load(saved[0] / "checkpoints" / str(step), with_optimizer=True)
    after = list(train(run_in_memory(), begin(run_in_memory(), checkpoint)))
    place = 1 + [event.step for event in whole() if isinstance(event, Stepped | EpochDone)].index(step)
    assert plain(after) == plain(whole()[place:])
    assert bits(after[-1].progress) == bits(whole()[-1].progress)


def test_a_stopped_run_is_saved_at_the_step_that_it_names(tmp_path):
    *_, saving, halted = train(tiny_run(tmp_path, save_steps=None), should_stop=asked_after(0))
    assert (saving, halted.step) == (Saved(1), 1)
    assert bits(halted.progress) == bits(begin(run_in_memory(), checkpoints.load(tmp_path, with_optimizer=True)))


def test_training_leaves_the_progress_that_it_began_from():
    start = begin(run_in_memory())
    first, second = (list(train(run_in_memory(), start))[-1].progress for _ in range(2))
    assert bits(first) == bits(second) != bits(start) == bits(begin(run_in_memory()))


def test_closing_it_leaves_whole_checkpoints_and_trains_no_further(tmp_path):
    events = train(tiny_run(tmp_path))
    assert next(event for event in events if isinstance(event, Saved)) == Saved(2)
    events.close()
    assert checkpoints.load(tmp_path, with_optimizer=True).step == 2 and list(events) == []


def test_without_validation_no_error_is_measured_and_a_plateau_is_refused():
    done = [event for event in train(tiny_run(num_validation=0)) if isinstance(event, EpochDone)]
    assert [(event.validation_top1_error, event.validation_top5_error) for event in done] == [(None, None)] * 2
    assert [event.learning_rate for event in done] == [0.1, 0.05]
    with pytest.raises(ValueError, match="validation=None: annealing='plateau' watches its error"):
        tiny_run(num_validation=0, recipe=dataclasses.replace(RECIPE, annealing="plateau"))


def test_a_loss_that_is_not_finite_names_its_step_and_the_checkpoints_that_stay(tmp_path):
    nan = np.full((SIZE, SIZE, 3), np.nan, np.float32)
    with pytest.raises(Diverged, match="loss=nan at step 1: training diverged") as raised:
        list(train(tiny_run(mean=nan)))
    assert (raised.value.quantity, raised.value.step, raised.value.saved_steps) == ("loss", 1, [])
    recipe = dataclasses.replace(RECIPE, learning_rate=1e30, renormalize_radius=None)
    with pytest.raises(Diverged) as raised:
        list(train(tiny_run(tmp_path, recipe=recipe, save_steps=1)))
    assert raised.value.saved_steps == list(range(1, raised.value.step)) != []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"save_steps": 0}, "save_steps=0: at least 1 is needed"),
        ({"num_workers": -1}, "num_workers=-1: at least 0 is needed"),
        ({"mean": np.zeros((8, 8, 3), np.float32)}, "image_size=9: crops of at most 8 pixels"),
        ({"num_train": 7}, "batch_size must lie between 1 and the 7 examples"),
    ],
    ids=lambda value: "",
)
def test_parts_that_do_not_fit_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny_run(**changes)


@pytest.mark.parametrize(("num_hosts", "asked"), [(1, 20 + 1), (2, 2 + 1)])
def test_several_hosts_agree_every_eighth_step_and_where_they_save(monkeypatch, num_hosts, asked):
    """As the first of so many hosts, whose rows are the only ones here."""
    questions = []
    monkeypatch.setattr(parallel, "host_count", lambda: (0, num_hosts))
    monkeypatch.setattr(parallel, "any_host", lambda flag: questions.append(flag) or False)
    recipe = dataclasses.replace(RECIPE, num_epochs=1)
    run = tiny_run(num_train=160, num_validation=0, recipe=recipe, save_steps=None)
    assert [event.step for event in train(run)] == [*range(1, 21), 20, 20]
    assert questions == [False] * asked


def test_the_command_s_log_holds_the_loop_s_own_numbers(tmp_path, capsys):
    recipe = dataclasses.replace(RECIPE, num_epochs=1)
    run = tiny_run(num_train=168, recipe=recipe, save_steps=None)
    events = list(train(run))
    record = training_log.train(run, begin(run), stop=StopRequest(), folder=tmp_path)
    step, epoch = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    twentieth = {name: value for name, value in events[19]._asdict().items() if name != "num_images"}
    assert step == {"kind": "step", "epoch_done": 20 / 21, **twentieth} and step["step"] == 20
    told = {name: value for name, value in events[21]._asdict().items() if name != "validation_top5_error"}
    assert epoch == record == {"kind": "epoch", **told, "images_per_second": record["images_per_second"]}
    assert capsys.readouterr().out.startswith(f"epoch 1/1: training loss {record['train_loss']:.3f}, validation error ")


def test_the_example_of_the_module_runs():
    assert doctest.testmod(loop) == (0, 12)
