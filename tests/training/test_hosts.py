"""One device, four, and two processes of two are one run, crops and dropout included; they stop and go on together."""

import contextlib
import shutil
import socket
import time

import jax
import numpy as np
import pytest
import runs
import test_training

from zfjax.training import checkpoints

pytestmark = pytest.mark.slow  # nine processes

SLURM_PORTS = range(65536 - 4096, 65536)  # where JAX meets, by the job's number


def free_port(*wanted):
    """The first port of `wanted` (0: any) that nobody uses."""
    for port in wanted:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return probe.getsockname()[1]
    raise OSError("no free port")


def start_two(*flags, moments=("none", "none")):
    """Two processes of two devices, which meet at a named port."""
    meeting = ("--coordinator", f"127.0.0.1:{free_port(0)}", "--num-hosts", 2)
    return [runs.start(*flags, *meeting, "--host", host, moment=moments[host], devices=2) for host in (0, 1)]


def start_two_under_slurm(*flags):
    """Two processes of two devices, told by nothing but what Slurm puts into their environment."""
    job = {"SLURM_JOB_ID": free_port(*SLURM_PORTS) - SLURM_PORTS[0], "SLURM_STEP_NODELIST": "localhost"}
    job |= {"SLURM_NTASKS": 2, "SLURM_LOCALID": 0, "SLURM_STEP_NUM_NODES": 2}
    job = {name: str(value) for name, value in job.items()}
    return [runs.start(*flags, devices=2, environment={**job, "SLURM_PROCID": str(host)}) for host in (0, 1)]


def done(*processes):
    for status, output in runs.finish(*processes):
        assert status == 0, output


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One run on different devices; "two, then one" and "one, then two" were stopped on the way."""
    out = tmp_path_factory.mktemp("hosts")
    shutil.copytree(runs.whole()[0], out / "four")
    shutil.copytree(runs.whole()[0], out / "one, then two")
    for step in (12, 16, 18):
        shutil.rmtree(out / "one, then two" / "checkpoints" / str(step))
    two = start_two(*runs.FLAGS, "--out", out / "two, then one", moments=("none", "terminated"))
    (out / "stop of two").write_text("\n".join(f"status {status}\n{output}" for status, output in runs.finish(*two)))
    one = runs.start(*runs.FLAGS, "--out", out / "one", devices=1)
    done(one, runs.start(*runs.FLAGS, "--seed", 1, "--out", out / "other seed"))
    two = start_two_under_slurm("--resume", out / "one, then two")
    done(runs.start("--resume", out / "two, then one"), *two)
    return out


def difference(a, b):
    """Largest difference of two runs' parameters."""
    first, second = (runs.last(folder).params for folder in (a, b))
    return max(np.abs(x - y).max() for x, y in zip(*map(jax.tree.leaves, (first, second)), strict=True))


@pytest.mark.parametrize("devices", ["one", "two, then one", "one, then two"])
def test_the_devices_do_not_matter(folders, devices):
    found, expected = (runs.last(folders / name) for name in (devices, "four"))
    test_training.close(found.params, expected.params, rtol=1e-4, atol=1e-5)
    assert (found.step, found.annealing) == (18, expected.annealing)


@pytest.mark.parametrize("devices", ["one", "two, then one", "one, then two"])
def test_the_records_are_those_of_one_run_each_once(folders, devices):
    for record, expected in zip(runs.records(folders / devices), runs.records(folders / "four"), strict=True):
        assert record.pop("kind") == expected.pop("kind") and record == pytest.approx(expected, rel=1e-4)


def test_another_seed_gives_clearly_other_parameters(folders):
    assert difference(folders / "other seed", folders / "four") > 100 * difference(folders / "one", folders / "four")
    assert difference(folders / "other seed", folders / "four") > 0.05


def test_a_signal_to_one_of_two_processes_stops_both_after_the_same_step(folders):
    said = (folders / "stop of two").read_text()
    ends = [line.split("; go on with: ") for line in said.splitlines() if line.startswith("stopped; saved after step")]
    assert len(ends) == 2 and ends[0] == ends[1], said
    assert said.count("status 143") == 2 and "Traceback" not in said, said


def test_two_processes_write_what_one_reads(folders):
    read = checkpoints.load(folders / "one, then two", with_optimizer=True)
    assert read.step == 18 and runs.steps(folders / "one, then two") == runs.steps(folders / "four")


@pytest.mark.parametrize("victim", [0, 1])
def test_a_host_that_is_killed_ends_the_other_in_one_line_that_names_it_and_how_to_go_on(tmp_path, victim):
    flags = (*runs.FLAGS, "--num-epochs", 60, "--out", tmp_path / "run", "--host-timeout", 10)
    two = start_two(*flags)
    while not (tmp_path / "run" / "checkpoints" / "6").exists() and all(one.poll() is None for one in two):
        time.sleep(0.1)
    two[victim].kill()
    status, said = runs.finish(two[1 - victim])[0]
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert status == 1 and len(errors) == 1 and "Traceback" not in said and "***" not in said, said
    assert f"host {victim} is lost" in errors[0] and f"--resume {tmp_path / 'run'}" in errors[0]
    two[victim].communicate()


def test_hosts_of_different_settings_end_before_the_first_step_and_name_the_difference(tmp_path):
    meeting = ("--coordinator", f"127.0.0.1:{free_port(0)}", "--num-hosts", 2, "--out", tmp_path / "run")
    two = [runs.start(*runs.FLAGS, *meeting, "--host", host, "--seed", host, devices=2) for host in (0, 1)]
    for status, said in runs.finish(*two):
        assert status == 1 and "error: the hosts do not agree: seed is 0 on host 0 and 1 on host 1" in said, said
    assert not (tmp_path / "run").exists()


def test_hosts_that_were_given_different_counts_end_in_a_line_each(tmp_path):
    meeting = ("--coordinator", f"127.0.0.1:{free_port(0)}", "--host-timeout", 10, "--out", tmp_path / "run")
    counts = [("--num-hosts", 2, "--host", 0), ("--num-hosts", 3, "--host", 2)]
    two = [runs.start(*runs.FLAGS, *meeting, *count, devices=2) for count in counts]
    (first, said_first), (other, said_other) = runs.finish(*two)
    assert (first, other) == (1, 1) and "Traceback" not in said_first + said_other, said_first + said_other
    assert "error: host 0 of 2: host 1 did not come within 10 s" in said_first, said_first
    assert "error: host 2 of 3: host 0 counts fewer hosts than 3" in said_other, said_other
    assert not (tmp_path / "run").exists()
