"""Several hosts: only where no cluster announces itself does a program stay alone."""

import os
import subprocess
import sys

import jax
import pytest

from zfjax import parallel

ALONE = """
import jax
from zfjax import parallel
parallel.connect_hosts()
assert not jax.distributed.is_initialized()
print(parallel.host_count())
parallel.connect_hosts()
"""


def run_alone(program=ALONE, **environment):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "OMPI_", "JAX_"))}
    return subprocess.run([sys.executable, "-c", program], env=clean | environment, capture_output=True, text=True)


def test_without_a_cluster_a_program_is_the_one_host_before_and_after_jax_runs():
    ended = run_alone(JAX_PLATFORMS="cpu")
    assert ended.stdout == "(0, 1)\n" and ended.returncode == 0, ended.stderr


SLURM = {"SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2", "SLURM_LOCALID": "0"}


SLURM |= {"SLURM_PROCID": "0", "SLURM_STEP_NUM_NODES": "2"}


@pytest.mark.parametrize("announced", [{}, SLURM, {"JAX_COORDINATOR_ADDRESS": "localhost:1"}])
def test_where_jax_runs_already_a_program_stays_alone(announced):
    ended = run_alone("import jax; jax.devices()" + ALONE, JAX_PLATFORMS="cpu", **announced)
    assert ended.stdout == "(0, 1)\n" and ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    ("announced", "error"),
    [
        ({"JAX_COORDINATOR_ADDRESS": "localhost:1"}, "ValueError: Number of processes must be defined"),
        (SLURM | {"SLURM_NTASKS": "two"}, "ValueError: invalid literal for int()"),
    ],
)
def test_a_cluster_that_announces_itself_in_part_or_wrongly_is_an_error(announced, error):
    ended = run_alone(JAX_PLATFORMS="cpu", **announced)
    assert ended.returncode == 1 and error in ended.stderr


@pytest.mark.parametrize("flag", [False, True])
def test_a_host_that_is_alone_agrees_with_itself_without_a_device(monkeypatch, flag):
    monkeypatch.setattr(parallel, "split", lambda _: pytest.fail("a device was asked"))
    assert parallel.any_host(flag) is flag


@pytest.mark.parametrize("flag", [False, True])
def test_the_flag_of_a_host_with_others_goes_over_all_devices(monkeypatch, flag):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert parallel.any_host(flag) is flag


@pytest.mark.parametrize("error", [ValueError("invalid literal for int()"), RuntimeError("connection refused")])
def test_what_goes_wrong_in_a_cluster_is_not_hidden(error, monkeypatch):
    def initialize(cluster_detection_method=None):
        raise error if cluster_detection_method is None else ValueError("nobody there")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(type(error), match=str(error).replace("()", "")):
        parallel.connect_hosts()
