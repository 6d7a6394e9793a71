"""Several hosts: only where no cluster announces itself does a program stay alone."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from zfjax import parallel
from zfjax.errors import UserError

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


INTERACTIVE = {"SLURM_JOB_ID": "1", "SLURM_PROCID": "0", "SLURM_NTASKS": "4"}
MPI = {"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "3"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        (SLURM | {"SLURM_PROCID": "1"}, ("Slurm", 1, 2, True)),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "1"}, ("Slurm", 0, 1, False)),
        (INTERACTIVE | {"SLURM_STEPID": "4294967290"}, ("Slurm", 0, 1, False)),
        (INTERACTIVE | {"SLURM_PTY_PORT": "40000"}, ("Slurm", 0, 1, False)),
        (MPI, ("Open MPI", 2, 3, False)),
        (SLURM | MPI | {"OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.1:3"}, ("Open MPI", 2, 3, True)),
        ({"PMI_RANK": "1", "PMI_SIZE": "2"}, ("MPI", 1, 2, False)),
        ({"TPU_WORKER_ID": "1", "TPU_WORKER_HOSTNAMES": "a,b"}, ("the TPU pod", 1, 2, True)),
    ],
)
def test_what_a_launcher_announces_is_read_from_the_environment(monkeypatch, environment, expected):
    for name in os.environ:
        if name.startswith(("SLURM_", "OMPI_", "PMI_", "TPU_")):
            monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert parallel.announced() == expected


def test_a_launcher_s_number_that_is_none_is_named(monkeypatch):
    for name, value in (SLURM | {"SLURM_NTASKS": "two"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="SLURM_NTASKS='two': a whole number is needed"):
        parallel.announced()


def spread(monkeypatch, *others):
    """This process as host 0 of several, whose words are those of `others`."""
    monkeypatch.setattr(jax, "process_count", lambda: 1 + len(others))
    monkeypatch.setattr(multihost_utils, "broadcast_one_to_all", lambda value: value)

    def gather(value):
        if np.ndim(value) == 0:
            return np.stack([value, *(np.int32(len(other)) for other in others)])
        return np.stack([value, *(np.frombuffer(other.ljust(len(value)), np.uint8) for other in others)])

    monkeypatch.setattr(multihost_utils, "process_allgather", gather)


def test_what_host_0_answers_or_refuses_reaches_every_host(monkeypatch):
    spread(monkeypatch, b"")
    assert parallel.of_host_0(lambda: ["runs/x", None]) == ["runs/x", None]
    with pytest.raises(UserError, match="out='x' is not empty"):
        parallel.of_host_0(lambda: (_ for _ in ()).throw(UserError("out='x' is not empty")))
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    monkeypatch.setattr(multihost_utils, "broadcast_one_to_all", lambda value: answers.pop())
    words = b'{"kind": "user", "error": "out=\'x\' is not empty"}'
    answers = [np.frombuffer(words, np.uint8), np.int32(len(words))]
    with pytest.raises(UserError, match="out='x' is not empty"):
        parallel.of_host_0(lambda: pytest.fail("host 0 alone runs it"))


def test_an_error_of_one_host_ends_all(monkeypatch):
    spread(monkeypatch, b"{}", b'{"kind": "user", "error": "no such folder"}')
    with pytest.raises(UserError, match="host 2: no such folder"):
        parallel.of_every_host(lambda: 5)
    spread(monkeypatch, b"{}")
    assert parallel.of_every_host(lambda: 5) == 5
    with pytest.raises(ZeroDivisionError):
        parallel.of_every_host(lambda: 1 // 0)


def test_hosts_that_hold_different_facts_are_told_which(monkeypatch):
    facts = {"seed": 0, "class names": ["a"] * 50}
    said = parallel.facts_in_short(facts)
    spread(monkeypatch, json.dumps(said).encode())
    parallel.check_agreement(facts)
    other = parallel.facts_in_short({"seed": 7, "class names": ["b"] * 50})
    spread(monkeypatch, json.dumps(other).encode())
    with pytest.raises(
        UserError, match=r"seed is 0 on host 0 and 7 on host 1; class names is \[.*\(digest .* on host 1"
    ):
        parallel.check_agreement(facts)


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
    def initialize(cluster_detection_method=None, **_):
        raise error if cluster_detection_method is None else ValueError("nobody there")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(type(error), match=str(error).replace("()", "")):
        parallel.connect_hosts()
