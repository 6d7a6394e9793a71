"""Data parallelism: the one place of `jax.pmap`, and what it needs around it on one host or several."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from zfjax.errors import FailedError, UserError, of_the_system, saying_keywords
from zfjax.jax_versions import accepted

T = TypeVar("T")

AXIS = "devices"  # the axis over all devices of all hosts, for lax.psum, pmean and all_gather inside a step


def data_parallel(step: Callable[..., Any], *, donate_state: bool = False) -> Callable[..., Any]:
    """`step(state, batch) -> result` on every device: the state is the same everywhere, the batch is split.

    Args:
      step: pure; it sees its device's share of the batch and makes its result the same on all devices by
        collectives over `AXIS`.
      donate_state: the memory of `state` is reused for the result; the caller's `state` is gone afterwards.

    Returns:
      A compiled function of (state from `replicate`, batch from `split`), whose result is one value, not a stack.

    Examples:
      >>> import jax, jax.numpy as jnp, zfjax
      >>> step = lambda total, batch: total + jax.lax.psum(batch.sum(), zfjax.parallel.AXIS)
      >>> add = zfjax.parallel.data_parallel(step)
      >>> add(zfjax.parallel.replicate(jnp.zeros(())), zfjax.parallel.split(jnp.ones((8, 2))))
      Array(16., dtype=float32)
    """
    donated = (0,) if donate_state else ()
    program: Callable[..., Any] = jax.pmap(
        step, axis_name=AXIS, in_axes=(None, 0), out_axes=None, donate_argnums=donated
    )
    return program


def of_this_host(step: Callable[..., Any]) -> Callable[..., Any]:
    """`data_parallel` over the devices of one host, for steps that come and go: `jax.pmap` keeps each for ever."""
    mesh = Mesh(np.array(jax.local_devices()), (AXIS,))

    def on_a_device(state: Any, batch: Any) -> Any:
        return step(state, jax.tree.map(lambda rows: rows[0], batch))

    specs: dict[str, Any] = {"in_specs": (PartitionSpec(), PartitionSpec(AXIS)), "out_specs": PartitionSpec()}
    return jax.jit(jax.shard_map(on_a_device, mesh=mesh, check_vma=False, **specs))


def replicate(state: Any) -> Any:
    """Place a state on all devices of this host, where `data_parallel` keeps it.

    Without this a donated state breaks with several hosts: their devices are no single default device.

    Examples:
      >>> import jax, jax.numpy as jnp, zfjax
      >>> zfjax.parallel.replicate({"total": jnp.zeros(())})["total"].sharding.num_devices == jax.local_device_count()
      True
    """
    mesh = Mesh(np.array(jax.local_devices()), (AXIS,))
    return jax.device_put(state, NamedSharding(mesh, PartitionSpec()))


def split(batch: Any) -> Any:
    """Give each local device its rows: [b, ...] -> [local devices, b / local devices, ...] of every array.

    Devices take consecutive blocks of rows. UserError where the rows do not divide evenly.

    Examples:
      >>> import jax.numpy as jnp, zfjax
      >>> zfjax.parallel.split({"image": jnp.ones((8, 4, 4, 3))})["image"].ndim
      5
    """
    return jax.tree.map(_split_rows, batch)


def check_batch_size(batch_size: int) -> None:
    """UserError unless a global batch divides evenly over all devices of all hosts."""
    if batch_size < 1 or batch_size % jax.device_count():
        raise UserError(
            f"batch_size={batch_size}: a multiple of the number of devices, {jax.device_count()}, is needed"
        )


def host_count() -> tuple[int, int]:
    """(this host's number, number of hosts)."""
    return jax.process_index(), jax.process_count()


def any_host(flag: bool) -> bool:
    """Whether `flag` is true on at least one host; the same answer on all of them.

    Every host has to ask at the same place of its program, and waits there for the others and for what its devices
    still compute. A host that is alone answers at once, without a device.
    """
    if jax.process_count() == 1:
        return bool(flag)
    flags = np.full(jax.local_device_count(), flag, np.int32)
    return int(_sum_over_devices()(replicate(()), split(flags))) > 0


def of_host_0(fn: Callable[[], T]) -> T:
    """What `fn` gives on host 0, as JSON keeps it, on every host; where it fails there, every host ends in its words.

    Every host has to ask at the same place of its program. `fn` runs on host 0 alone.

    Raises:
      Exception: on host 0 what `fn` raises; on the others a UserError or FailedError with its words.
    """
    if jax.process_count() == 1:
        return fn()
    answer: dict[str, Any] = {}
    failure: Exception | None = None
    if jax.process_index() == 0:
        try:
            answer = {"value": fn()}
        except Exception as error:  # noqa: BLE001  raised again below, when the others know
            failure, answer = error, _in_words(error)
    answer = json.loads(_broadcast(json.dumps(answer).encode()))
    if failure is not None:
        raise failure
    _raise_words(answer)
    value: T = answer["value"]
    return value


def of_every_host(fn: Callable[[], T]) -> T:
    """What `fn` gives on this host, once it has succeeded on all; where it fails on one, every host ends in its words.

    `fn` must not wait for other hosts.

    Raises:
      Exception: what `fn` raises on this host; else a UserError or FailedError with the words of the first host that
        failed.
    """
    if jax.process_count() == 1:
        return fn()
    failure: Exception | None = None
    try:
        value = fn()
    except Exception as error:  # noqa: BLE001  raised again below, when the others know
        failure = error
    said = [json.loads(words) for words in _gather(json.dumps({} if failure is None else _in_words(failure)).encode())]
    if failure is not None:
        raise failure
    for host, words in enumerate(said):
        _raise_words({**words, "error": f"host {host}: {words['error']}"} if words else {})
    return value


def check_agreement(facts: Mapping[str, Any]) -> None:
    """UserError on every host where the hosts do not hold the same facts; it names those that differ, and the hosts.

    Args:
      facts: {name: JSON, of any length}; their digests are compared.
    """
    if jax.process_count() == 1:
        return
    check_alike([json.loads(said) for said in _gather(json.dumps(facts_in_short(facts)).encode())])


def check_alike(hosts: Sequence[Mapping[str, Sequence[str]]]) -> None:
    """UserError that names the facts in which a host is unlike host 0; of each {name: (digest, first characters)}."""
    unlike = []
    for name in dict.fromkeys(name for host in hosts for name in host):
        first = hosts[0].get(name, ["", "nothing"])
        for number, host in enumerate(hosts):
            other = host.get(name, ["", "nothing"])
            if other[0] != first[0]:
                unlike.append(f"{name} is {_short(first)} on host 0 and {_short(other)} on host {number}")
                break
    if unlike:
        raise UserError(f"the hosts do not agree: {'; '.join(unlike)}. Give every host the same command and data")


def facts_in_short(facts: Mapping[str, Any]) -> dict[str, list[str]]:
    """{name: [digest, beginning of the text]} of facts, which is what the hosts tell each other."""
    texts = {name: json.dumps(value, sort_keys=True, default=str) for name, value in facts.items()}
    hashes = {name: hashlib.blake2b(text.encode(), digest_size=16) for name, text in texts.items()}
    return {name: [hashes[name].hexdigest(), text[:80]] for name, text in texts.items()}


def _short(fact: Sequence[str]) -> str:
    """A fact as far as it can be shown: its value, or of a long one the digest."""
    digest, text = fact
    return text if len(text) < 80 else f"{text[:40]}… (digest {digest[:8]})"


def _in_words(error: Exception) -> dict[str, str]:
    kind = "user" if isinstance(error, UserError) else "failed"
    words = str(error) if isinstance(error, UserError | FailedError) else None
    words = of_the_system(error) if isinstance(error, OSError) and words is None else words
    return {"kind": kind, "error": f"{type(error).__name__}: {error}" if words is None else words}


def _raise_words(words: Mapping[str, str]) -> None:
    if "error" in words:
        raise (UserError if words["kind"] == "user" else FailedError)(words["error"])


def _broadcast(data: bytes) -> bytes:
    """Host 0's bytes, on every host."""
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(data))))
    padded = np.frombuffer(data.ljust(length, b" ")[:length], np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(padded)).astype(np.uint8).tobytes()


def _gather(data: bytes) -> list[bytes]:
    """The bytes of every host, on every host, in their order."""
    length = int(np.max(multihost_utils.process_allgather(np.int32(len(data)))))
    padded = np.frombuffer(data.ljust(length, b" "), np.uint8)
    return [np.asarray(row).astype(np.uint8).tobytes() for row in multihost_utils.process_allgather(padded)]


class Announced(NamedTuple):
    """What a launcher tells this process of itself."""

    by: str  # the launcher
    host: int  # number of this process, from 0
    num_hosts: int
    can_join: bool  # JAX finds host 0 by itself


# (launcher, the variables of a process's number and of how many there are, what JAX needs to find host 0)
_LAUNCHERS = (
    ("Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", ("OMPI_MCA_orte_hnp_uri",)),
    ("Slurm", "SLURM_PROCID", "SLURM_NTASKS", ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_LOCALID")),
    ("MPI", "PMI_RANK", "PMI_SIZE", ("no variable",)),
)
_ONE_PROCESS_STEPS = {"4294967290", "4294967291"}  # Slurm's interactive and batch steps


def announced() -> Announced | None:
    """What Slurm, MPI or a TPU pod announces in the environment; None where none of them does.

    An interactive step of Slurm (salloc, srun --pty), and a batch script's own, is one process whatever its job has.
    UserError for numbers that are none.
    """
    hostnames = os.environ.get("TPU_WORKER_HOSTNAMES", "").split(",")
    if len(hostnames) > 1 and "TPU_WORKER_ID" in os.environ:
        return Announced("the TPU pod", _number("TPU_WORKER_ID"), len(hostnames), can_join=True)
    for by, number, count, needed in _LAUNCHERS:
        if number not in os.environ or count not in os.environ:
            continue
        if by == "Slurm" and "SLURM_STEP_NUM_TASKS" in os.environ:  # of this step, not of the job
            count = "SLURM_STEP_NUM_TASKS"
        if _number(count) == 1 or (by == "Slurm" and _is_interactive()):
            return Announced(by, 0, 1, can_join=False)
        host, num_hosts = _number(number), _number(count)
        if host >= num_hosts:
            raise UserError(f"{number}={host} and {count}={num_hosts}: no process has this number; or --alone")
        return Announced(by, host, num_hosts, can_join=all(name in os.environ for name in needed))
    return None


def _is_interactive() -> bool:
    step = os.environ.get("SLURM_STEP_ID", os.environ.get("SLURM_STEPID"))
    by_terminal = "SLURM_PTY_PORT" in os.environ and "SLURM_STEP_NUM_TASKS" not in os.environ
    return step in _ONE_PROCESS_STEPS or by_terminal


def _number(variable: str) -> int:
    value = os.environ[variable]
    if not (value.isascii() and value.isdigit()):
        raise UserError(f"{variable}={value!r}: a whole number is needed, as launchers set it; or --alone")
    return int(value)


@saying_keywords
def connect_hosts(
    coordinator: str | None = None, *, num_hosts: int | None = None, host: int | None = None, timeout: int | None = None
) -> None:
    """Join the other hosts: named ones, or those that the cluster announces (Slurm, MPI, TPU pods); else stay alone.

    To be called before anything runs on a device. Where JAX runs already it cannot look for a cluster: then a call
    that names no host stays alone.

    Args:
      coordinator: "address:port" of host 0; None lets JAX look for a cluster.
      num_hosts: number of hosts; needed with `coordinator`.
      host: number of this host, from 0; needed with `coordinator`.
      timeout: seconds to wait for the others, and after which one without a sign of life is lost; None: JAX's own.

    Raises:
      UserError: as `check_hosts`.
      RuntimeError and others, from JAX: the coordinator is not reached, or a cluster announces itself wrongly.
    """
    limits = ("initialization_timeout", "heartbeat_timeout_seconds", "shutdown_timeout_seconds")
    options = {} if timeout is None else accepted(jax.distributed.initialize, dict.fromkeys(limits, timeout))
    check_hosts(coordinator, num_hosts=num_hosts, host=host, timeout=timeout)
    if coordinator is not None:
        jax.distributed.initialize(coordinator, num_hosts, host, **options)
    elif not jax.distributed.is_initialized():
        try:
            jax.distributed.initialize(**options)
        except (ValueError, RuntimeError) as error:
            if not _is_alone(error):
                raise


def check_hosts(coordinator: str | None, *, num_hosts: int | None, host: int | None, timeout: int | None) -> None:
    """UserError for what joins no hosts: some of the first three alone, or a host, address or time out of range."""
    if timeout is not None and not 1 <= timeout <= _LONGEST:
        raise UserError(f"timeout={timeout}: 1 to {_LONGEST:,} seconds are needed (--host-timeout)")
    if coordinator is None:
        if num_hosts is not None or host is not None:
            raise UserError(f"coordinator=None: num_hosts and host need its address; got {num_hosts=}, {host=}")
        return
    _, _, port = coordinator.rpartition(":")
    if not re.fullmatch(r"[^:\s]+:[0-9]{1,5}|\[[0-9a-fA-F:.]+\]:[0-9]{1,5}", coordinator) or not 0 < int(port) < 2**16:
        raise UserError(f"coordinator={coordinator!r}: HOST:PORT of host 0 is needed, as 10.0.0.1:1234")
    if num_hosts is None or host is None or not 0 <= host < num_hosts:
        raise UserError(
            f"coordinator={coordinator!r} needs num_hosts and host in 0..num_hosts-1; got {num_hosts=}, {host=}"
        )


_LONGEST = 10**6  # seconds that others are waited for


def _is_alone(error: Exception) -> bool:
    """JAX found no cluster, or runs already: it says the same to a program that looks for none.

    An address in the environment announces a cluster that need not be looked for; without the rest it is an error.
    """
    if isinstance(error, ValueError) and "JAX_COORDINATOR_ADDRESS" in os.environ:
        return False
    try:
        jax.distributed.initialize(cluster_detection_method="deactivate")
    except (ValueError, RuntimeError) as alone:
        return (type(alone), str(alone)) == (type(error), str(error))
    return False


@functools.cache
def _sum_over_devices() -> Callable[..., Any]:
    return data_parallel(lambda _, rows: lax.psum(rows.sum(), AXIS))


def _split_rows(array: np.ndarray) -> np.ndarray:
    devices = jax.local_device_count()
    if array.shape[0] % devices:
        raise UserError(f"batch of {array.shape[0]} rows: a multiple of the {devices} local devices is needed")
    return array.reshape(devices, array.shape[0] // devices, *array.shape[1:])
