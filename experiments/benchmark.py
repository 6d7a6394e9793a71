"""How fast it is, here and now: one JSON line for each engine and thing measured.

    python -m experiments.benchmark train --batch-size 32 --architecture zfnet
    python -m experiments.benchmark forward
    python -m experiments.benchmark project --layer conv5
    python -m experiments.benchmark project-fn --layer conv5
    python -m experiments.benchmark loader --data DIR

`--against torch` measures PyTorch (and Captum's Deconvolution for `project`) in the same run, in turns, in both of its
memory layouts: `pip install -e ".[bench]"`. `project-fn` measures `zfjax.project_fn`, the deconvnet of any function, in
turns with that of our own networks, and says how many times its seconds it takes. Expected time: half a minute to three
minutes on two CPU cores. Figures are medians over rounds, as "images_per_second"; compare only lines of one run.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments import benchmark_loader
from experiments.benchmark_workload import Engine, Workload
from zfjax import deconvnet, network, parallel, relu_rules, training
from zfjax.architecture import Architecture

STORED_MARGIN = 32  # pixels by which stored pictures are larger than the crop: 256 for 224


def train(workload: Workload) -> list[dict[str, Any]]:
    """Training steps: crop, mean, forward with dropout, gradient, SGD with momentum, renormalisation."""
    return compare("train_step", workload, {"zfjax": train_step(workload)})


def forward(workload: Workload) -> list[dict[str, Any]]:
    """Images to logits, as at test time."""
    architecture, params, images = network_of(workload)

    @jax.jit
    def logits(params: network.Params, images: jax.Array) -> jax.Array:
        return network.forward(params, images, architecture=architecture, compute_dtype=workload.compute_dtype)[0]

    return compare("forward", workload, {"zfjax": (lambda: logits(params, images), jax.block_until_ready)})


def project(workload: Workload, layer: str = "conv5", channel: int = 0) -> list[dict[str, Any]]:
    """Images to the projection of one map's strongest activation: forward, isolate, deconvnet.

    Args:
      workload: what is measured, and how long.
      layer: layer of the activation.
      channel: its map.
    """
    return compare("project", workload, {"zfjax": projection(workload, layer, channel)}, layer=layer, channel=channel)


def project_fn(workload: Workload, layer: str = "conv5", channel: int = 0) -> list[dict[str, Any]]:
    """The same by `zfjax.project_fn`, which traces the network as any function, beside `project`.

    Args:
      workload: what is measured, and how long.
      layer: layer of the activation.
      channel: its map.
    """
    ours = {"zfjax": projection(workload, layer, channel), "zfjax project_fn": ruled(workload, layer, channel)}
    explicit, traced, *others = compare("project", workload, ours, layer=layer, channel=channel)
    times = traced["seconds_per_step"]["median"] / explicit["seconds_per_step"]["median"]
    return [explicit, {**traced, "times_the_seconds_of_zfjax": round(times, 3)}, *others]


def projection(workload: Workload, layer: str, channel: int) -> Engine:
    """Forward, isolate and the explicit way down, compiled as one."""
    architecture, params, images = network_of(workload)
    architecture.layer(layer)  # an unknown one is named

    @jax.jit
    def pixels(params: network.Params, images: jax.Array) -> jax.Array:
        _, trace = network.forward(params, images, architecture=architecture, compute_dtype=workload.compute_dtype)
        top = deconvnet.isolate(trace[layer].features, channel=channel)
        return deconvnet.project(params, trace, top, layer=layer, architecture=architecture)

    return lambda: pixels(params, images), jax.block_until_ready


def ruled(workload: Workload, layer: str, channel: int) -> Engine:
    """The same with the rule of the deconvnet put into the network's own program."""
    architecture, params, images = network_of(workload)

    @jax.jit
    def pixels(params: network.Params, images: jax.Array) -> jax.Array:
        def features(images: jax.Array) -> jax.Array:
            _, trace = network.forward(params, images, architecture=architecture, compute_dtype=workload.compute_dtype)
            return trace[layer].features

        return relu_rules.project_fn(features, images, unit=channel)

    return lambda: pixels(params, images), jax.block_until_ready


def network_of(workload: Workload) -> tuple[Architecture, network.Params, jax.Array]:
    """The table, He-initialised parameters and one batch of noise in pixels."""
    architecture = workload.table()
    recipe = training.Recipe(initialization="he")
    params = training.init_state(recipe, architecture).params
    side = architecture.image_size
    images = 58 * jax.random.normal(jax.random.key(1), (workload.batch_size, side, side, 3), jnp.float32)
    return architecture, params, images


def train_step(workload: Workload) -> Engine:
    """The step of `experiments.train_imagenet`, on stored pictures of noise."""
    architecture = workload.table()
    recipe = training.Recipe(batch_size=workload.batch_size, compute_dtype=workload.compute_dtype, learning_rate=1e-4)
    parallel.check_batch_size(recipe.batch_size)
    side = architecture.image_size + STORED_MARGIN
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (recipe.batch_size, side, side, 3), np.uint8),
        "label": rng.integers(0, workload.num_classes, recipe.batch_size, np.int32),
        "position": np.arange(recipe.batch_size, dtype=np.int32),
    }
    mean = np.full((side, side, 3), 127.0, np.float32)
    step = parallel.data_parallel(training.make_train_step(recipe, architecture, mean), donate_state=True)
    state = parallel.replicate(training.init_state(recipe, architecture))

    def advance() -> Any:
        nonlocal state
        state, metrics = step(state, parallel.split(batch))
        return state.step, metrics

    return advance, jax.block_until_ready


def compare(name: str, workload: Workload, ours: dict[str, Engine], **more: Any) -> list[dict[str, Any]]:
    """Rounds of every engine in turn; one record for each."""
    engines = dict(ours)
    facts = {label: {"version": jax.__version__, "device": jax.devices()[0].device_kind} for label in ours}
    if workload.against == "torch":
        from experiments import benchmark_torch  # torch is an extra: zfjax[bench]

        for label, engine in benchmark_torch.engines(name, workload, **more).items():
            engines[label], facts[label] = engine, benchmark_torch.facts()
    seconds: dict[str, list[float]] = {label: [] for label in engines}
    for engine in engines.values():
        run_steps(engine, 2)  # compile, warm up
    for _ in range(workload.rounds):
        for label, engine in engines.items():
            seconds[label].append(run_steps(engine, workload.steps) / workload.steps)
    return [
        {
            "name": name,
            "engine": label,
            "images_per_second": round(workload.batch_size / statistics.median(taken), 2),
            "seconds_per_step": {"min": min(taken), "median": statistics.median(taken), "max": max(taken)},
            "batch_size": workload.batch_size,
            "architecture": workload.architecture,
            "image_size": workload.image_size,
            "width": workload.width,
            "compute_dtype": workload.compute_dtype,
            **more,
            **facts[label],
        }
        for label, taken in seconds.items()
    ]


def run_steps(engine: Engine, steps: int) -> float:
    """Seconds that `steps` steps take, from the first call until the last result is there."""
    step, wait = engine
    began = time.perf_counter()
    for _ in range(steps):
        result = step()
    wait(result)
    return time.perf_counter() - began


def main() -> None:
    """The command line."""
    commands: dict[str, Callable[..., list[dict[str, Any]]]] = {
        "train": train,
        "forward": forward,
        "project": project,
        "project-fn": project_fn,
    }
    commands["loader"] = benchmark_loader.loader
    try:
        records = tyro.extras.subcommand_cli_from_dict(
            commands, prog="python -m experiments.benchmark", description=__doc__, config=(tyro.conf.OmitArgPrefixes,)
        )
    except ModuleNotFoundError as error:
        raise SystemExit(f'error: {error}: `pip install -e ".[bench]"` brings what --against needs') from error
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    for record in records:
        print(json.dumps(record))


if __name__ == "__main__":
    main()
