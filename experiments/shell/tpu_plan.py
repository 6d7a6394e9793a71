"""What the real TPU compiler says of the training step, for chips that are not here: `experiments.benchmark plan`."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from experiments.shell.workloads import STORED_MARGIN, Table
from zfjax import extras, parallel, training
from zfjax.errors import UserError


class Chip(NamedTuple):
    """What a chip can do at most, as Google's description of Cloud TPU's system architecture says."""

    flops: float  # bfloat16 operations a second; JAX's default precision multiplies float32 so too
    bandwidth: float  # bytes a second between the chip's cores and its memory
    exchange: float  # bytes a second to other chips, over all its links, in one direction
    memory: float  # bytes, of which the system keeps 256 MB


CHIPS = {
    "v4": Chip(275e12, 1228e9, 2400e9 / 8 / 2, 32 << 30),
    "v5e": Chip(197e12, 819e9, 1600e9 / 8 / 2, 16 << 30),
    "v5p": Chip(459e12, 2765e9, 4800e9 / 8 / 2, 95 << 30),
    "v6e": Chip(918e12, 1640e9, 3584e9 / 8 / 2, 32 << 30),
}
KEPT_BYTES = 256 << 20  # by the system
PHOTOS, EPOCHS = 1_281_167, 70  # of the paper's training
_TOPOLOGY = re.compile(r"(v\w+):([1-9]\d*(?:x[1-9]\d*)+)")


@dataclass(frozen=True)
class Plan(Table):
    """A training that is planned, not run."""

    topology: str = "v5e:2x2"
    """Generation and layout of the chips: v5e:2x2, v5e:16x16, v4:2x2x1, v6e:2x4, ..."""
    batch_size: int = 512
    """Images per step, over all chips."""
    compute_dtype: Literal["float32", "bfloat16"] = "bfloat16"


class Program(NamedTuple):
    """What the compiler says of one step on one device."""

    flops: float  # operations
    bytes: float  # moved between the cores and the memory
    memory: float  # bytes held at once: arguments, results and what lies between


def planned(plan: Plan) -> dict[str, Any]:
    """The record of `benchmark plan`: what compute, memory and the exchange of gradients allow; nothing is run.

    Raises:
      UserError: an unknown topology, a batch that the chips cannot share evenly or that does not fit their memory;
        a missing libtpu.
    """
    chip, num_chips, devices = chips_of(plan.topology)
    if plan.batch_size < 1 or plan.batch_size % len(devices):
        raise UserError(
            f"batch_size={plan.batch_size}: {len(devices)} devices of {plan.topology} share it evenly; "
            f"{math.ceil(max(plan.batch_size, 1) / len(devices)) * len(devices)} would do"
        )
    compiled = cache(partial(program, plan, devices))
    per_chip = len(devices) / num_chips
    of_step = compiled(plan.batch_size)
    of_weights = gradient_bytes(plan)
    largest = largest_batch(
        compiled,
        batch_size=plan.batch_size,
        num_devices=len(devices),
        memory=(chip.memory - KEPT_BYTES) / per_chip,
        always=3 * of_weights,  # with momentum and gradient
    )
    if of_step is None:
        raise UserError(f"batch_size={plan.batch_size}: {plan.topology} has memory for at most {largest:,} images")
    seconds = {
        "compute": of_step.flops * per_chip / chip.flops,
        "memory": of_step.bytes * per_chip / chip.bandwidth,
        "exchange": exchange_seconds(of_weights, num_chips, chip),
    }
    slowest = max(seconds["compute"], seconds["memory"]) + seconds["exchange"]
    rate = plan.batch_size / slowest
    of_chip = plan.batch_size / num_chips
    return {
        "name": "plan",
        "engine": "zfjax",
        "planned": "not run",
        "topology": plan.topology,
        "num_chips": num_chips,
        "batch_size": plan.batch_size,
        "gflop_per_image": round(of_step.flops * per_chip / of_chip / 1e9, 2),
        "mb_per_image": round(of_step.bytes * per_chip / of_chip / 1e6, 1),
        "gb_of_memory_per_chip": round(of_step.memory * per_chip / 1e9, 2),
        "largest_batch_size": largest,
        **{f"ms_per_step_{what}": round(1000 * value, 3) for what, value in seconds.items()},
        "images_per_second": round(rate),
        "loader_images_per_second": round(rate),
        "hours": round(EPOCHS * PHOTOS / rate / 3600, 2),
        "epochs": EPOCHS,
        "photos": PHOTOS,
        **{name: getattr(plan, name) for name in ("architecture", "image_size", "width", "compute_dtype")},
        "version": jax.__version__,
    }


def chips_of(topology: str) -> tuple[Chip, int, list[Any]]:
    """What the chips of a topology can do, how many they are, and their devices (a chip of v4 is two)."""
    named = _TOPOLOGY.fullmatch(topology)
    if named is None or named[1] not in CHIPS:
        raise UserError(f"topology={topology!r}: one of {', '.join(CHIPS)} and a layout are needed, as v5e:2x2")
    extras.check("tpu")
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # else libtpu asks the cloud which machine this is
    try:
        devices = list(topologies.get_topology_desc(platform="tpu", topology_name=topology).devices)
    except jax.errors.JaxRuntimeError as error:
        raise UserError(f"topology={topology!r}: libtpu knows none such ({str(error).splitlines()[0]})") from error
    return CHIPS[named[1]], math.prod(map(int, named[2].split("x"))), devices


def program(plan: Plan, devices: list[Any], batch_size: int) -> Program | None:
    """The compiled training step of `experiments.train_imagenet`; None where it does not fit the memory."""
    architecture = plan.table()
    recipe = training.Recipe(batch_size=batch_size, compute_dtype=plan.compute_dtype)
    height, width, channels = architecture.image_shape
    stored = (height + STORED_MARGIN, width + STORED_MARGIN, channels)
    step = training.make_train_step(recipe, architecture, np.zeros(stored, np.float32))
    mesh = Mesh(np.array(devices), (parallel.AXIS,))
    whole, shared = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), (parallel.AXIS,)))

    def on(sharding: NamedSharding, tree: Any) -> Any:
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)

    state = jax.eval_shape(lambda: training.init_state(recipe, architecture))
    batch = {
        "image": jax.ShapeDtypeStruct((batch_size, *stored), jnp.uint8),
        "label": jax.ShapeDtypeStruct((batch_size,), jnp.int32),
        "position": jax.ShapeDtypeStruct((batch_size,), jnp.int32),
    }
    specs: dict[str, Any] = {"in_specs": (PartitionSpec(), PartitionSpec(parallel.AXIS)), "out_specs": PartitionSpec()}
    shared_step = jax.jit(jax.shard_map(step, mesh=mesh, check_vma=False, **specs), donate_argnums=0)
    try:
        compiled = shared_step.lower(on(whole, state), on(shared, batch)).compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return None
    cost, memory = compiled.cost_analysis(), compiled.memory_analysis()
    assert cost is not None and memory is not None  # as they are where a platform cannot tell
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return Program(cost["flops"], cost["bytes accessed"], held + memory.temp_size_in_bytes)


def largest_batch(
    compiled: Callable[[int], Program | None], *, batch_size: int, num_devices: int, memory: float, always: float
) -> int:
    """The largest batch that fits, to a sixteenth of itself; 0 where none does.

    What one batch takes says what an image does; what follows for the memory is compiled, and lowered until it fits.

    Args:
      compiled: what the compiler says of a batch; None where it does not fit.
      batch_size: a batch to begin with, halved until it fits.
      num_devices: which share a batch evenly.
      memory: bytes of a device.
      always: bytes that a device holds whatever the batch.
    """
    number = batch_size // num_devices
    while (of_step := compiled(number * num_devices)) is None:
        number //= 2
        if not number:
            return 0
    number = int((memory - always) / (of_step.memory - always) * number)
    while compiled(number * num_devices) is None:
        number -= max(1, number // 16)
    return number * num_devices


def gradient_bytes(plan: Plan) -> int:
    """Bytes of the gradient, in float32."""
    params = jax.eval_shape(lambda: training.init_state(training.Recipe(), plan.table())).params
    num_bytes: int = 4 * sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    return num_bytes


def exchange_seconds(size: int, num_chips: int, chip: Chip) -> float:
    """Seconds to add up an array of `size` bytes over all chips in a ring: each sends it nearly twice."""
    return 2 * size * (num_chips - 1) / num_chips / chip.exchange
