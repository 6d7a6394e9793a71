"""Checkpoints: read back bit for bit, the right ones kept, and whatever is damaged refused by name."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from test_training import RECIPE, TINY, fresh

from zfjax import nets, training
from zfjax.errors import FailedError, UserError
from zfjax.training import Annealing, checkpoints
from zfjax.training.checkpoints import Checkpoints

# Orbax gives up at the first unreadable array; its readers of the others then complain, now or in the next test
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
SETTINGS = {"data": "made up", "totals": [1.5, 2.0, 8.0]}
ANNEALING = Annealing(0.05, epoch=3, epochs_since_best=2)  # its best error is infinite, which JSON does not know
MEAN = np.random.default_rng(5).uniform(0, 255, (10, 10, 3)).astype(np.float32)


def snapshot(step):
    """A checkpoint whose every array tells its step."""
    state = jax.tree.map(lambda leaf: np.asarray(leaf) + np.asarray(step / 8, leaf.dtype), fresh(RECIPE))
    return checkpoints.to_checkpoint(
        state._replace(step=np.int32(step)),
        architecture=TINY,
        mean=MEAN,
        recipe=RECIPE,
        annealing=ANNEALING,
        settings=SETTINGS,
    )


def write(folder, *steps, kept=()):
    store = Checkpoints(folder, kept_steps=kept)
    for step in steps:
        store.save(snapshot(step))
    store.close()
    return sorted(int(entry.name) for entry in folder.iterdir() if entry.is_dir())


def same(a, b):
    """Equal in every bit and everything else."""
    arrays = [checkpoints.digest((dict(c.params), c.mean, c.optimizer)) for c in (a, b)]
    rest = [(c.architecture, c.recipe, c.annealing, c.step, c.settings) for c in (a, b)]
    return arrays[0] == arrays[1] and rest[0] == rest[1]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A run's folder with the checkpoints of the steps 10 and 20; not to be changed."""
    run = tmp_path_factory.mktemp("run")
    write(run / "checkpoints", 10, 20)
    return run


@pytest.fixture
def copy(written, tmp_path):
    shutil.copytree(written, tmp_path / "run")
    return tmp_path / "run"


def test_a_checkpoint_comes_back_bit_for_bit(written):
    read = checkpoints.load(written, with_optimizer=True)
    assert same(read, snapshot(20)) and not same(read, snapshot(10))
    assert read.annealing.best_error == float("inf")


def test_the_training_state_comes_back_bit_for_bit(written):
    state = checkpoints.to_state(checkpoints.load(written, with_optimizer=True), fresh(RECIPE))
    expected = checkpoints.to_state(snapshot(20), fresh(RECIPE))
    assert jax.tree.structure(state) == jax.tree.structure(expected)
    assert checkpoints.digest(state) == checkpoints.digest(expected) and state.step == 20
    assert training.learning_rate(state) == RECIPE.learning_rate + 20 / 8


def test_an_older_checkpoint_and_the_network_alone_can_be_asked_for(written):
    read = checkpoints.load(written / "checkpoints" / "10")
    assert read.step == 10 and read.optimizer is None
    assert checkpoints.digest(dict(read.params)) == checkpoints.digest(dict(snapshot(10).params))


def test_writing_and_reading_say_nothing(written, tmp_path, capfd):
    write(tmp_path, 1)
    checkpoints.load(written, with_optimizer=True)
    assert capfd.readouterr() == ("", "")


def test_the_latest_three_stay_and_those_that_are_kept(tmp_path):
    assert write(tmp_path, *range(1, 9), kept=(2, 4, 99)) == [2, 4, 6, 7, 8]


def test_a_step_that_is_there_is_not_written_again(tmp_path):
    write(tmp_path, 5)
    before = (tmp_path / "5").stat().st_mtime_ns
    assert write(tmp_path, 5) == [5] and (tmp_path / "5").stat().st_mtime_ns == before


def test_a_save_that_does_not_happen_is_an_error_that_names_the_folder(tmp_path):
    write(tmp_path, 50)
    with pytest.raises(FailedError, match=rf"{tmp_path} holds a later step than 20"):
        write(tmp_path, 20)


def test_a_checkpoint_that_is_gone_after_it_was_saved_is_an_error(tmp_path, monkeypatch):
    store = Checkpoints(tmp_path)
    store.save(snapshot(5))
    monkeypatch.setattr(checkpoints, "steps_in", lambda _: [])
    with pytest.raises(FailedError, match=f"the checkpoint of step 5 is not in {tmp_path}"):
        store.close()


def test_what_orbax_raises_while_it_writes_is_one_error_that_names_the_folder(tmp_path, monkeypatch):
    store = Checkpoints(tmp_path)
    monkeypatch.setattr(os, "rename", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    store.save(snapshot(5))  # goes on in the background
    with pytest.raises(FailedError, match=f"could not be written to {tmp_path}: .*No space left on device"):
        store.close()


def test_a_clock_that_is_put_forward_while_orbax_waits_by_it_is_named(tmp_path, monkeypatch):
    store, ahead, usual = Checkpoints(tmp_path), [0.0], time.time

    def rename(*_, **__):
        ahead[0] = 7200.0
        raise TimeoutError("Timed out after 7200.1 seconds.")

    monkeypatch.setattr(time, "time", lambda: usual() + ahead[0])
    monkeypatch.setattr(os, "rename", rename)
    store.save(snapshot(5))
    why = r"the machine's clock jumped by \+7,200 s while it was written \(Timed out .*\)"
    with pytest.raises(FailedError, match=f"{tmp_path}: {why}; what was saved before stays, go on from there"):
        store.close()


FULL = """
import resource, sys
from pathlib import Path
sys.path[:0] = [sys.argv[1]]
import numpy as np
from test_checkpoints import snapshot
from zfjax.errors import FailedError
from zfjax.training.checkpoints import Checkpoints
store = Checkpoints(Path(sys.argv[2]))
big = snapshot(5)._replace(mean=np.random.default_rng(0).random((200, 200, 3), np.float32))
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))  # as a disk that is full
store.save(big)
try:
    store.close()
except FailedError as error:
    print(error)
"""


@pytest.mark.slow
def test_what_cannot_be_written_by_threads_is_one_error_without_their_tracebacks(tmp_path):
    command = [sys.executable, "-c", FULL, str(Path(__file__).parent), str(tmp_path / "checkpoints")]
    ended = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "JAX_PLATFORMS": "cpu"})
    assert ended.stdout.startswith(f"a checkpoint could not be written to {tmp_path / 'checkpoints'}: "), ended.stderr
    assert ended.stdout.count("\n") == 1 and "Traceback" not in ended.stderr, ended.stderr


@pytest.mark.parametrize("name", ["best", "\u00b2", "020"])
def test_the_folder_of_a_checkpoint_is_called_by_its_step(copy, name):
    (copy / "checkpoints" / "20").rename(copy / "checkpoints" / name)
    with pytest.raises(UserError, match=f"{name!r} is no step"):
        checkpoints.load(copy / "checkpoints" / name)
    assert checkpoints.find(copy).name == "10"


def test_a_folder_whose_name_is_not_utf8_is_told_so_and_not_called_damaged(copy):
    strange = copy.rename(copy.with_name(os.fsdecode(b"no \xff letters")))
    for open_it in (checkpoints.load, Checkpoints):
        with pytest.raises(UserError, match=r"no \\xff letters': its name is not UTF-8"):
            open_it(strange)


def test_hidden_folders_are_no_checkpoints(copy):
    (copy / "checkpoints" / ".snapshot").mkdir()
    checkpoints.check_names(copy / "checkpoints")
    assert checkpoints.find(copy).name == "20"


def test_epochs_of_figure_4_and_the_last_are_the_kept_ones():
    assert checkpoints.EVOLUTION_EPOCHS == (1, 2, 5, 10, 20, 30, 40, 64, 70)


def test_what_a_kill_left_half_written_is_no_checkpoint_and_goes_with_the_next_run(copy):
    left = copy / "checkpoints" / "30.orbax-checkpoint-tmp-1"
    shutil.copytree(copy / "checkpoints" / "20", left)
    assert checkpoints.find(copy).name == "20"
    assert write(copy / "checkpoints", 40) == [10, 20, 40] and not left.exists()


@pytest.mark.parametrize("damage", ["flipped", "cut", "emptied", "removed"])
def test_damage_to_any_file_is_refused_by_name_or_changes_nothing(copy, damage):
    expected, refused = checkpoints.load(copy, with_optimizer=True), []
    newest = copy / "checkpoints" / "20"
    for path in sorted(path for path in newest.rglob("*") if path.is_file()):
        content = bytearray(path.read_bytes())
        middle = len(content) // 2
        if damage == "removed":
            path.unlink()
        else:
            flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :] if content else b""
            path.write_bytes({"flipped": flipped, "cut": content[:middle], "emptied": b""}[damage])
        try:
            loaded, words = checkpoints.load(copy, with_optimizer=True), None
        except ValueError as error:
            loaded, words = None, str(error)
        if words is None:
            assert same(loaded, expected), path
        else:
            assert words.startswith(f"checkpoint {newest} is damaged (") and words.endswith(
                "; take it away, to go on from another: beside it stand [10]"
            )
            refused.append(str(path.relative_to(newest)))
        path.write_bytes(content)
    assert {"meta/metadata"} < set(refused) and any("network" in name for name in refused)
    assert any("optimizer" in name for name in refused)
    assert same(checkpoints.load(copy / "checkpoints" / "10", with_optimizer=True), snapshot(10))


@pytest.mark.parametrize("part", ["network", "optimizer", "meta"])
def test_a_missing_part_is_damage_and_no_older_checkpoint_takes_its_place(copy, part):
    shutil.rmtree(copy / "checkpoints" / "20" / part)
    with pytest.raises(ValueError, match="20 is damaged"):
        checkpoints.load(copy, with_optimizer=True)


def test_a_number_changed_by_hand_is_damage(copy):
    path = copy / "checkpoints" / "20" / "meta" / "metadata"
    text = path.read_text()
    path.write_text(text.replace('"momentum": 0.9', '"momentum": 0.8'))
    assert path.read_text() != text
    with pytest.raises(ValueError, match="the contents of meta are not those that were written"):
        checkpoints.load(copy)


def sealed(meta):
    """`meta` with the digest of what it says now: as somebody writes it who knows how."""
    rest = {name: value for name, value in meta.items() if name != "digests"}
    digest = hashlib.blake2b(json.dumps(rest, sort_keys=True).encode(), digest_size=16).hexdigest()
    return {**rest, "digests": {**meta["digests"], "meta": digest}}


def forge(run, change):
    """Lets `change` another meta of the newest checkpoint of `run`, which fits together again."""
    path = run / "checkpoints" / "20" / "meta" / "metadata"
    meta = json.loads(path.read_text())
    change(meta)
    path.write_text(json.dumps(sealed(meta)))


def test_a_whole_checkpoint_of_another_run_in_the_place_of_one_is_refused(copy, tmp_path):
    other = Checkpoints(tmp_path / "other")
    other.save(snapshot(20)._replace(mean=MEAN + 1))
    other.close()
    shutil.rmtree(copy / "checkpoints" / "20")
    shutil.copytree(tmp_path / "other" / "20", copy / "checkpoints" / "20")
    with pytest.raises(UserError, match="20 is not the one that was saved there: it is another run's, or was changed"):
        checkpoints.load(copy, with_optimizer=True)
    assert same(checkpoints.load(copy / "checkpoints" / "10", with_optimizer=True), snapshot(10))


def test_a_checkpoint_that_was_put_into_a_run_is_refused(copy, tmp_path):
    write(tmp_path / "other", 30)
    shutil.copytree(tmp_path / "other" / "30", copy / "checkpoints" / "30")
    with pytest.raises(UserError, match="30 is not the one that was saved there"):
        checkpoints.load(copy)


def test_what_a_checkpoint_says_cannot_be_changed_even_by_one_who_knows_how(copy):
    forge(copy, lambda meta: meta["architecture"].update(image_size=meta["architecture"]["image_size"] + 1))
    with pytest.raises(UserError, match="20 is not the one that was saved there"):
        checkpoints.load(copy)


NONSENSE = {
    "settings": lambda meta: meta.update(settings=None),
    "no settings": lambda meta: meta.pop("settings"),
    "a rate that is none": lambda meta: meta["annealing"].update(learning_rate=float("nan")),
    "a rate below 0": lambda meta: meta["annealing"].update(learning_rate=-1.0),
    "half an epoch": lambda meta: meta["annealing"].update(epoch=0.5),
    "a count that is a string": lambda meta: meta["annealing"].update(epochs_since_best="1"),
    "half an image": lambda meta: meta["recipe"].update(batch_size=1.5),
    "a seed that is true": lambda meta: meta["recipe"].update(seed=True),
    "crops of no kind": lambda meta: meta["recipe"].update(crops=5),
    "a setting that is no JSON": lambda meta: meta["settings"].update(totals=[float("inf")]),
    "a type that is none": lambda meta: meta["architecture"].update(type={}),
    "an annealing in the recipe's place": lambda meta: meta.update(recipe=meta["annealing"]),
    "a step without end": lambda meta: meta.update(step=float("inf")),
}


@pytest.mark.parametrize("change", NONSENSE.values(), ids=NONSENSE)
def test_what_no_run_has_is_damage_also_where_nothing_was_recorded(copy, change):
    (copy / "checkpoints" / checkpoints.RECORD).unlink()
    forge(copy, change)
    with pytest.raises(UserError, match="20 is damaged"):
        checkpoints.load(copy)


def test_a_run_of_a_version_without_records_goes_on_and_has_one_from_then(copy):
    record = copy / "checkpoints" / checkpoints.RECORD
    before = json.loads(record.read_text())
    record.unlink()
    assert same(checkpoints.load(copy, with_optimizer=True), snapshot(20))
    write(copy / "checkpoints", 30)
    assert list(json.loads(record.read_text()).items())[:2] == list(before.items())
    assert same(checkpoints.load(copy / "checkpoints" / "10", with_optimizer=True), snapshot(10))


def test_the_record_names_the_checkpoints_that_are_there(tmp_path):
    steps = write(tmp_path, *range(1, 9), kept=(2, 4, 99))
    record = json.loads((tmp_path / checkpoints.RECORD).read_text())
    assert set(map(str, steps)) <= set(record) and "1" not in record


@pytest.mark.parametrize("text", ["", "[]", '{"20": 5}', '{"20": "a", "20": "b"}', "[" * 100_000])
def test_a_damaged_record_is_named_and_can_be_taken_away(copy, text):
    record = copy / "checkpoints" / checkpoints.RECORD
    record.write_text(text)
    with pytest.raises(UserError, match=f"{record} is damaged .*; remove it"):
        checkpoints.load(copy)
    record.unlink()
    assert checkpoints.load(copy).step == 20


def test_settings_that_json_has_not_are_refused_before_anything_is_written(tmp_path):
    store = Checkpoints(tmp_path)
    with pytest.raises(UserError, match="settings: .* give values that JSON has"):
        store.save(snapshot(5)._replace(settings={"loss": float("nan")}))
    store.close()
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_without_names_of_classes_is_no_network_to_look_at(written):
    with pytest.raises(UserError, match="20 was not written for looking at .*: settings.class_names is missing"):
        nets.load_net(written)


def with_format(run, number):
    """The newest checkpoint of `run` as a version with this format would have written it (None: with no number)."""
    (run / "checkpoints" / checkpoints.RECORD).unlink()
    path = run / "checkpoints" / "20" / "meta" / "metadata"
    meta = json.loads(path.read_text())
    assert meta.pop("format") == 1 and checkpoints.FORMAT == 2  # of square images, and the newest
    if number is not None:
        meta["format"] = number
    assert sealed(meta) != meta
    path.write_text(json.dumps(sealed(meta)))
    return run


def test_a_checkpoint_from_before_formats_had_numbers_is_read(copy):
    assert same(checkpoints.load(with_format(copy, None), with_optimizer=True), snapshot(20))


@pytest.mark.parametrize("parts", [["network", "optimizer"], []])
def test_a_checkpoint_of_a_newer_version_says_so_whatever_else_changed(copy, parts):
    with_format(copy, 3)
    for part in parts:
        shutil.rmtree(copy / "checkpoints" / "20" / part)
    with pytest.raises(ValueError, match="20 is of format 3: it was written by a newer version of zfjax") as raised:
        checkpoints.load(copy)
    assert "update zfjax" in str(raised.value) and "damaged" not in str(raised.value)


@pytest.mark.parametrize("number", ["two", -1])
def test_a_format_that_is_no_number_of_one_is_damage(copy, number):
    with pytest.raises(ValueError, match="20 is damaged"):
        checkpoints.load(with_format(copy, number))


def test_arrays_of_another_architecture_are_refused_by_name(tmp_path):
    store = Checkpoints(tmp_path)
    store.save(snapshot(1)._replace(architecture=TINY.with_sizes(fc6=13)))
    store.close()
    with pytest.raises(ValueError, match=r"checkpoint .*1 is damaged \(its kernels .* are not those of tiny, .*13"):
        checkpoints.load(tmp_path)


def test_a_state_of_another_network_is_refused():
    sizes = TINY.with_sizes(fc6=13).sizes()
    zeros = partial(np.zeros, dtype=np.float32)
    params = {name: {"kernel": zeros(s.kernel), "bias": zeros(s.kernel[-1])} for name, s in sizes.items()}
    other = fresh(RECIPE)._replace(optimizer=training.make_optimizer(RECIPE).init(params))
    with pytest.raises(ValueError, match="belongs to another network or optimizer"):
        checkpoints.to_state(snapshot(1), other)
    with pytest.raises(ValueError, match="it was left out"):
        checkpoints.to_state(snapshot(1)._replace(optimizer=None), fresh(RECIPE))


def test_only_the_newest_checkpoint_of_a_run_can_be_gone_on_from(written):
    checkpoints.check_newest(written / "checkpoints" / "20")
    with pytest.raises(ValueError, match=r"10 has later ones beside it, \[20\]: remove them"):
        checkpoints.check_newest(written / "checkpoints" / "10")


def test_no_checkpoint_is_an_error_that_names_the_place(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"no checkpoint at {tmp_path}"):
        checkpoints.find(tmp_path)
    os.mkdir(tmp_path / "checkpoints")
    with pytest.raises(FileNotFoundError, match="a run's folder or one of its checkpoints/<step> is needed"):
        checkpoints.load(tmp_path)
    (tmp_path / "checkpoints" / "30").mkdir()  # or a file of that name
    with pytest.raises(FileNotFoundError, match=r"30: .*; take it away, to have the newest one taken"):
        checkpoints.find(tmp_path / "checkpoints" / "30")


def test_a_mistake_of_ours_is_not_called_damage(tmp_path, monkeypatch):
    store = Checkpoints(tmp_path)
    store.save(snapshot(10))
    store.close()

    def mistaken(_, kind):
        raise NameError("name 'foo' is not defined")

    monkeypatch.setattr(checkpoints, "_decode", mistaken)
    with pytest.raises(NameError):
        checkpoints.load(tmp_path)


def test_a_network_of_images_that_are_no_squares_is_stored_whole_by_a_format_of_its_own(tmp_path):
    table = TINY.with_sizes(image=(9, 8))
    state = training.init_state(RECIPE, table)
    kept = checkpoints.to_checkpoint(
        state, architecture=table, mean=MEAN[:, :9], recipe=RECIPE, annealing=ANNEALING, settings=SETTINGS
    )
    store = Checkpoints(tmp_path)
    store.save(kept)
    store.close()
    assert json.loads((tmp_path / "0" / "meta" / "metadata").read_text())["format"] == 2
    assert same(checkpoints.load(tmp_path, with_optimizer=True), kept)
    assert checkpoints.load(tmp_path).architecture.image_size == (9, 8)
