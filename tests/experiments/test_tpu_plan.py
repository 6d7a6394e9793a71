"""`benchmark plan`: what a compiler's figures of a step come to on chips that are not here."""

import json

import pytest

from experiments import benchmark
from experiments.shell import tpu_plan
from experiments.shell.tpu_plan import Plan, Program
from zfjax import extras
from zfjax.errors import UserError

GIB = 1 << 30


def compiler(of_image, always, memory):
    """A compiler to which a device's step of n images takes `always` and n times `of_image` bytes."""

    def compiled(batch_size, num_devices=4):
        held = always + of_image * batch_size / num_devices
        return Program(1e9 * batch_size / num_devices, 8e7 * batch_size / num_devices, held) if held <= memory else None

    return compiled


@pytest.mark.parametrize("begin", [8, 512, 1 << 20])
def test_the_largest_batch_fits_and_one_a_sixteenth_larger_does_not(begin):
    compiled = compiler(8e6, 7.5e8, 16 * GIB)
    largest = tpu_plan.largest_batch(compiled, batch_size=begin, num_devices=4, memory=16 * GIB, always=7.5e8)
    assert largest % 4 == 0 and compiled(largest) is not None
    assert compiled(int(largest * 17 / 16) // 4 * 4) is None


def test_where_an_image_takes_more_than_it_seemed_to_the_batch_is_lowered_until_it_fits():
    compiled = compiler(8e6, 5e8, 16 * GIB)
    largest = tpu_plan.largest_batch(compiled, batch_size=512, num_devices=4, memory=16 * GIB, always=7.5e8)
    assert compiled(largest) is not None and compiled(int(largest * 17 / 16) // 4 * 4) is None


def test_where_nothing_fits_the_largest_batch_is_0():
    assert tpu_plan.largest_batch(compiler(1, 2 * GIB, GIB), batch_size=512, num_devices=4, memory=GIB, always=0) == 0


def test_a_ring_of_chips_sends_an_array_nearly_twice():
    chip = tpu_plan.Chip(flops=1, bandwidth=1, exchange=100.0, memory=1)
    assert tpu_plan.exchange_seconds(1000, 4, chip) == 15.0
    assert tpu_plan.exchange_seconds(1000, 1, chip) == 0.0


def test_the_gradient_of_figure_3_has_4_bytes_for_each_parameter():
    assert tpu_plan.gradient_bytes(Plan()) == 4 * 62_357_608


@pytest.fixture
def figures(monkeypatch):
    chip = tpu_plan.CHIPS["v5e"]
    monkeypatch.setattr(tpu_plan, "chips_of", lambda topology: (chip, 4, list("abcd")))
    compiled = compiler(8e6, 7.5e8, 16 * GIB)
    monkeypatch.setattr(tpu_plan, "program", lambda plan, devices, batch_size: compiled(batch_size))


@pytest.mark.usefixtures("figures")
def test_the_slower_of_compute_and_memory_and_the_exchange_bound_the_rate(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["x", "plan", "--topology", "v5e:2x2", "--batch-size", "512"])
    benchmark.main()
    record = json.loads(capsys.readouterr().out)
    assert record["gflop_per_image"] == 1.0 and record["mb_per_image"] == 80.0
    assert record["ms_per_step_memory"] == pytest.approx(1e3 * 128 * 8e7 / 819e9, abs=1e-3)
    assert record["ms_per_step_compute"] == pytest.approx(1e3 * 128 * 1e9 / 197e12, abs=1e-3)
    seconds = (record["ms_per_step_memory"] + record["ms_per_step_exchange"]) / 1000
    assert record["images_per_second"] == pytest.approx(512 / seconds, rel=1e-3)
    assert record["hours"] == pytest.approx(70 * 1_281_167 / record["images_per_second"] / 3600, abs=0.01)


@pytest.mark.usefixtures("figures")
@pytest.mark.parametrize("batch_size", [0, -4, 6])
def test_a_batch_that_chips_cannot_share_is_refused(batch_size):
    with pytest.raises(
        UserError, match=f"batch_size={batch_size}: 4 devices of v5e:2x2 share it evenly; [48] would do"
    ):
        tpu_plan.planned(Plan(batch_size=batch_size))


@pytest.mark.usefixtures("figures")
def test_a_batch_too_large_for_the_memory_is_told_the_largest():
    with pytest.raises(UserError, match="batch_size=1048576: v5e:2x2 has memory for at most [0-9],[0-9]{3} images"):
        tpu_plan.planned(Plan(batch_size=1 << 20))


@pytest.mark.parametrize("topology", ["v5e", "v9:2x2", "v5e:0x2", "rubbish", "", "v5e:2*2"])
def test_an_unknown_topology_is_refused(topology):
    with pytest.raises(UserError, match="one of v4, v5e, v5p, v6e and a layout are needed, as v5e:2x2"):
        tpu_plan.chips_of(topology)


def test_a_missing_compiler_is_one_line(monkeypatch):
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"libtpu is not installed: `pip install 'zfjax\[tpu\]'` brings it"):
        tpu_plan.chips_of("v5e:2x2")
