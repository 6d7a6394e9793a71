"""Batches: their order depends on the seed and the step, not on hosts, workers or where a run starts."""

import contextlib
import errno
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial

import grain
import numpy as np
import offspring
import pytest

from zfjax.data import ArraySource, loader
from zfjax.data.folder import open_folder
from zfjax.errors import FailedError, UserError

COUNT, BATCH = 22, 4  # five whole batches, two examples left over


@pytest.fixture(scope="module")
def source():
    images = np.random.default_rng(1).integers(0, 256, (COUNT, 3, 3, 3), dtype=np.uint8)
    return ArraySource(images, np.arange(COUNT) % 5)


def train_order(source, **arguments):
    arguments = {"batch_size": BATCH, "seed": 0, "num_epochs": 3} | arguments
    return [batch["index"].tolist() for batch in loader.train_batches(source, **arguments)]


def eval_order(source, **arguments):
    return [batch["index"].tolist() for batch in loader.eval_batches(source, batch_size=8, **arguments)]


def test_batch_holds_the_examples_that_its_index_names(source):
    batch = next(loader.train_batches(source, batch_size=BATCH, seed=3, num_epochs=1))
    for row, index in enumerate(batch["index"]):
        np.testing.assert_array_equal(batch["image"][row], source[index]["image"])
        assert batch["label"][row] == source[index]["label"] == index % 5
    assert {name: array.dtype.name for name, array in batch.items()} == {
        "image": "uint8",
        "label": "int32",
        "index": "int32",
    }


def test_each_epoch_shows_no_example_twice_and_drops_the_rest(source):
    order = train_order(source)
    assert len(order) == 3 * loader.steps_per_epoch(source, BATCH) == 15
    for epoch in range(3):
        seen = np.concatenate(order[5 * epoch : 5 * epoch + 5])
        assert len(np.unique(seen)) == 20 and set(seen) <= set(range(COUNT))


def test_each_epoch_is_another_shuffle_and_drops_another_rest(source):
    epochs = [sum(train_order(source)[first : first + 5], []) for first in (0, 5, 10)]
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert len({frozenset(epoch) for epoch in epochs}) == 3


def test_seed_decides_the_order(source):
    assert train_order(source, seed=7) == train_order(source, seed=7) != train_order(source, seed=8)


def test_neighbouring_seeds_share_no_epoch(source):
    assert train_order(source, seed=0)[5:10] != train_order(source, seed=1)[:5]


@pytest.mark.parametrize("first_step", [1, 5, 7, 15])
def test_run_goes_on_at_any_step(source, first_step):
    assert train_order(source, first_step=first_step) == train_order(source)[first_step:]


@pytest.mark.parametrize("num_hosts", [2, 4])
def test_hosts_deal_out_the_rows_of_the_same_global_batches(source, num_hosts):
    hosts = [train_order(source, host=host, num_hosts=num_hosts, first_step=2) for host in range(num_hosts)]
    for batch, *rows in zip(train_order(source, first_step=2), *hosts, strict=True):
        assert batch == [rows[position % num_hosts][position // num_hosts] for position in range(BATCH)]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_do_not_change_the_order(source, num_workers):
    assert train_order(source, num_workers=num_workers, first_step=4) == train_order(source)[4:]


def test_dropping_the_iterator_ends_its_workers(source):
    batches = loader.eval_batches(source, batch_size=8, num_workers=1)
    assert next(batches)["index"].tolist() == list(range(8)) and multiprocessing.active_children()
    del batches
    gc.collect()
    assert not multiprocessing.active_children()


@offspring.needs_proc
def test_signals_for_the_training_kill_no_worker_even_while_it_starts(source):
    before, ready, told = set(offspring.children(os.getpid())), threading.Event(), set()

    def tell():
        while not ready.is_set():
            for child in set(offspring.children(os.getpid())) - before:
                for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(child, number)
                told.add(child)
            time.sleep(0.002)

    teller = threading.Thread(target=tell)
    teller.start()
    try:
        batches = loader.eval_batches(source, batch_size=8, num_workers=2)
        assert next(batches)["index"].tolist() == list(range(8))
    finally:
        ready.set()
        teller.join()
    batches.close()
    assert len(told) >= 2


@offspring.needs_proc
def test_killed_training_leaves_no_worker():
    code = (
        "import time; import numpy as np; from zfjax.data import ArraySource, loader\n"
        "source = ArraySource(np.ones((8, 2, 2, 3), np.uint8), np.zeros(8, int))\n"
        "batches = loader.eval_batches(source, batch_size=2, num_workers=1)\n"
        "next(batches); print('ready', flush=True); time.sleep(100)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout.readline() == "ready\n"
    children = offspring.children(process.pid)
    assert len(children) == 2  # the worker and multiprocessing's resource tracker
    process.kill()
    process.communicate()
    offspring.wait_for_end(children)


def test_evaluation_shows_each_example_once_in_order_and_masks_the_filling(source):
    batches = list(loader.eval_batches(source, batch_size=8))
    assert [batch["index"].tolist() for batch in batches] == [[*range(8)], [*range(8, 16)], [*range(16, 22), -1, -1]]
    assert batches[-1]["mask"].tolist() == [True] * 6 + [False] * 2 and batches[0]["mask"].all()
    assert not batches[-1]["image"][6:].any() and batches[-1]["label"].tolist() == [1, 2, 3, 4, 0, 1, 0, 0]


def test_evaluation_hosts_get_equally_many_batches(source):
    small = ArraySource(np.ones((9, 2, 2, 3), np.uint8), np.zeros(9, int))
    assert [eval_order(small, host=host, num_hosts=4) for host in (0, 1)] == [[[0, 4], [8, -1]], [[1, 5], [-1, -1]]]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_evaluation_goes_on_at_any_batch(source, num_workers):
    assert eval_order(source, first_batch=2, num_workers=num_workers) == eval_order(source)[2:]


def test_evaluation_on_threads_makes_the_batches_of_the_workers(source):
    ways = [list(loader.eval_batches(source, batch_size=4, host=1, num_hosts=2, num_workers=num)) for num in (0, 1)]
    for threads, workers in zip(*ways, strict=True):
        assert threads.keys() == workers.keys() == {"image", "label", "index", "mask"}
        for name, value in threads.items():
            assert value.dtype == workers[name].dtype
            np.testing.assert_array_equal(value, workers[name])


def test_closing_an_evaluation_ends_its_threads(source):
    before = set(threading.enumerate())
    batches = loader.eval_batches(source, batch_size=1)
    next(batches)
    own = set(threading.enumerate()) - before
    assert own
    batches.close()
    assert not own & set(threading.enumerate())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 23}, "batch_size must lie between 1 and the 22 examples of the split, not 23"),
        ({"batch_size": 0}, "batch_size must lie between 1 and the 22 examples of the split, not 0"),
        ({"num_hosts": 3}, "batch_size 4 must be a multiple of num_hosts, which is 3"),
        ({"host": 2, "num_hosts": 2}, "host must lie between 0 and num_hosts - 1 = 1, not 2"),
        ({"num_epochs": 0}, "num_epochs must be at least 1, not 0"),
        ({"first_step": -1}, "first_step must be 0 or more, not -1"),
        ({"num_workers": -1}, "num_workers must be 0 or more, not -1"),
    ],
)
def test_wrong_argument_is_named_at_the_call(source, arguments, message):
    with pytest.raises(ValueError, match=message):
        loader.train_batches(source, **({"batch_size": BATCH, "seed": 0, "num_epochs": 3} | arguments))


def test_arrays_of_wrong_shape_are_named():
    with pytest.raises(ValueError, match=r"images must be uint8 \[N, H, W, C\], not float64 \[2, 4, 4, 3\]"):
        ArraySource(np.ones((2, 4, 4, 3)), np.zeros(2, int))
    with pytest.raises(ValueError, match=r"labels must be whole numbers \[2\], one per image, not int64 \[3\]"):
        ArraySource(np.ones((2, 4, 4, 3), np.uint8), np.zeros(3, int))


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGKILL, "was killed by signal 9, as one does where memory runs out; fewer than 1 --num-workers"),
        (signal.SIGBUS, "no shared memory left in /dev/shm; make it larger .*, or .* --num-workers 0"),
    ],
)
def test_a_worker_that_was_killed_is_told_with_the_way_on(source, number, words):
    batches = loader.train_batches(source, batch_size=BATCH, seed=0, num_epochs=999, num_workers=1)
    next(batches)
    before = {process.pid for process in multiprocessing.active_children()}
    for pid in before:
        os.kill(pid, number)
    with pytest.raises(FailedError, match=f"a process that decodes pictures .*{words}"):
        for _ in batches:
            pass


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_error_of_a_picture_comes_through_as_it_is(tmp_path, num_workers):
    (tmp_path / "bad.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match="bad.jpg: no readable picture"):
        next(loader.eval_batches(open_folder(tmp_path, 8).train, batch_size=1, num_workers=num_workers))


def test_a_full_shared_memory_is_told(source, monkeypatch):
    class Full:
        def __iter__(self):
            return self

        def __next__(self):
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self):
            pass

    monkeypatch.setattr(grain.MapDataset, "to_iter_dataset", lambda *_: Full())
    with pytest.raises(FailedError, match="the shared memory /dev/shm is full"):
        next(loader.train_batches(source, batch_size=1, seed=0, num_epochs=1))


@pytest.mark.parametrize("batches", [partial(loader.train_batches, seed=0, num_epochs=1), loader.eval_batches])
def test_pictures_of_several_shapes_are_named(batches):
    source = [{"image": np.zeros((4, 4, 3 if index == 2 else 1), np.uint8)} for index in range(4)]
    with pytest.raises(UserError, match=r"of the source: image has the shape \(4, 4, [13]\), not \(4, 4, [13]\)"):
        list(batches(source, batch_size=4))
