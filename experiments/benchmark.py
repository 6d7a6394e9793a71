"""How fast it is, here and now: one JSON line for each engine and thing measured.

    python -m experiments.benchmark train --batch-size 32 --architecture zfnet
    python -m experiments.benchmark forward
    python -m experiments.benchmark project --layer conv5
    python -m experiments.benchmark project-fn --layer conv5
    python -m experiments.benchmark units --layer conv5 --against torch
    python -m experiments.benchmark atlas --against torch
    python -m experiments.benchmark occlusion --against torch
    python -m experiments.benchmark scan --data DIR
    python -m experiments.benchmark start --batch-size 64
    python -m experiments.benchmark step
    python -m experiments.benchmark loader --data DIR
    python -m experiments.benchmark decode --data DIR
    python -m experiments.benchmark crops --net torchvision:vgg16:FILE --layer features.8
    python -m experiments.benchmark plan --topology v5e:2x2 --batch-size 512

`--against torch` measures PyTorch (and Captum's Deconvolution for `project`) in the same run, in turns, in both of its
memory layouts: `pip install -e ".[bench]"`. `units` projects nine units of each image, the forward pass included, and
`atlas` nine of every map below the dense layers, from the scan of all images on: beside Captum's NeuronDeconvolution,
which takes one unit of an image at a time. `scan` looks through stored photos for the strongest of every map of all
layers, in turns with the bare forward pass of a batch that is in memory, and says how much memory it holds on its way.
`occlusion` slides a square over one image, beside Captum's Occlusion, both
`--batch-size` places at a time. `project-fn` measures `zfjax.project_fn`, the deconvnet of any function, in
turns with that of our own networks, and says how many times its seconds it takes. `start` tells what the seconds before
the first training step and the first projections went into, and `step` what a training step consists of: each operation
by itself, with the speed of its products beside that of a matrix product. `decode` reads stored photos by each decoder
that is installed, and `crops` projects units of any network in their receptive fields and in whole images. Expected
time: half a minute to three minutes on two CPU cores. Figures are medians over rounds, as "images_per_second"; compare
only lines of one run.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import gc
import importlib
import itertools
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax import monitoring
from PIL import Image

from experiments.shell import operations, tpu_plan
from experiments.shell.command import described, first_flags, in_one_line, is_idle, split_flags
from experiments.shell.workloads import STORED_MARGIN, UNITS, Engine, Work, Workload
from zfjax import deconvnet, features, nets, network, parallel, shell, training
from zfjax.analyses import occlusion as sweeps
from zfjax.analyses import top_activations
from zfjax.anymodel import project_fn as project_fn_of
from zfjax.anymodel import rules
from zfjax.architecture import Architecture, Conv
from zfjax.data import ImageSet, Source, demo, pictures, sets
from zfjax.data.loader import eval_batches, steps_per_epoch, train_batches
from zfjax.errors import UserError
from zfjax.pixels import size_of
from zfjax.units import Unit
from zfjax.windows import Windows

UNITS_WORKLOAD = Workload(batch_size=16, steps=1)  # a step of the others takes long
STEP_WORKLOAD = Workload(steps=1, rounds=3)
SCAN_WORKLOAD = Workload(steps=4)
OCCLUSION_WORKLOAD = Workload(batch_size=64, steps=1, rounds=3)
OWN_SCENES, OWN_COPIES, OWN_SIDE = 64, 32, 256  # of the set that is made where none is named


def loader(
    data: str | None = None, *, batch_size: int = 128, num_workers: int = 0, seconds: float = 10.0
) -> list[dict[str, Any]]:
    """Shuffled training batches, decoded.

    Args:
      data: a prepared set, DIR or DIR:SIZE; None prepares a temporary one of 2,048 demo scenes of 256 pixels.
      batch_size: images per batch.
      num_workers: processes that decode; 0 decodes on threads of this one.
      seconds: how long to measure.
    """
    with named_or_own(data) as images:
        return [measure(images, batch_size=batch_size, num_workers=num_workers, seconds=seconds)]


@contextlib.contextmanager
def named_or_own(data: str | None) -> Iterator[ImageSet]:
    """The set that is named, or one of our own, as long as it is needed."""
    if data is not None:
        yield sets.open_data(data)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield own_set(Path(folder))


def measure(images: ImageSet, *, batch_size: int, num_workers: int, seconds: float) -> dict[str, Any]:
    """The record of one measurement: wall clock, and processor time of this process where it does the decoding."""
    if images.train is None:
        raise UserError(f"data={images.name!r} has no train split, whose batches are measured")
    epochs = 1 + int(100_000 * seconds) // (steps_per_epoch(images.train, batch_size) * batch_size)
    batches = train_batches(images.train, batch_size=batch_size, seed=0, num_epochs=epochs, num_workers=num_workers)
    for _ in itertools.islice(batches, 2 + num_workers):
        pass  # start the threads or processes
    began, processor, count = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - began < seconds:
        count += len(next(batches)["label"])
    wall, processor = time.perf_counter() - began, time.process_time() - processor
    batches.close()
    return {
        "name": "loader",
        "engine": "zfjax",
        "images_per_second": round(count / wall, 1),
        "images_per_core_second": None if num_workers else round(count / processor, 1),
        "batch_size": batch_size,
        "num_workers": num_workers,
        "picture_size": images.size,
        "data": images.name,
    }


def decode(data: str | None = None, *, num_images: int = 400, rounds: int = 5) -> list[dict[str, Any]]:
    """Stored photos decoded one after the other on one thread, by each decoder that is installed, in turns.

    Args:
      data: a prepared set, DIR or DIR:SIZE, whose training photos are encoded as they are stored; None takes scenes of
        the demo set, of 256 pixels.
      num_images: how many photos.
      rounds: readings of the clock; their median is printed.
    """
    if min(num_images, rounds) < 1:
        raise UserError(f"num_images={num_images}, rounds={rounds}: at least 1 of each is needed")
    if data is None:
        photos = list(demo.demo_images(0, 0, num_images, size=OWN_SIDE)["image"])
    else:
        split = sets.open_data(data).train
        photos = [split[place]["image"] for place in range(min(num_images, len(split or ())))] if split else []
    if not photos:
        raise UserError(f"data={data!r} has no training photos, which are decoded")
    stored = [pictures.encode(photo) for photo in photos]
    expected = [pictures.decode_by_pillow(jpeg) for jpeg in stored]

    def all_by(decoder: Callable[[bytes], np.ndarray]) -> Engine:
        return lambda: [decoder(jpeg) for jpeg in stored], lambda _: None

    decoders = installed_decoders()
    seconds = in_turns({name: all_by(decoder) for name, decoder in decoders.items()}, steps=1, rounds=rounds)
    return [
        {
            "name": "decode",
            "engine": name,
            "images_per_second": round(len(stored) / statistics.median(taken), 1),
            "same_pixels": all(
                np.array_equal(decoders[name](jpeg), pixels) for jpeg, pixels in zip(stored, expected, strict=True)
            ),
            "bytes_per_image": round(sum(map(len, stored)) / len(stored)),
            "num_images": len(stored),
            "data": data or "demo",
        }
        for name, taken in seconds.items()
    ]


def installed_decoders() -> dict[str, Callable[[bytes], np.ndarray]]:
    """JPEG bytes to uint8 [H, W, 3]: Pillow, and of simplejpeg and OpenCV those that are installed."""
    decoders: dict[str, Callable[[bytes], np.ndarray]] = {"pillow": pictures.decode_by_pillow}
    if pictures.decoder() is not pictures.decode_by_pillow:
        decoders["simplejpeg"] = pictures.decoder()
    with contextlib.suppress(ModuleNotFoundError):
        cv2 = importlib.import_module("cv2")
        decoders["opencv"] = lambda jpeg: cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    return decoders


def crops(net: str, layer: str, *, num_units: int = 4, steps: int = 1, rounds: int = 5) -> list[dict[str, Any]]:
    """Projections of units in the middle of their maps, in their receptive fields and in whole images of noise.

    Args:
      net: a network that is no table of the paper's, as "torchvision:vgg16:FILE" or "my_nets:NET".
      layer: one with places.
      num_units: projected together, of the first maps.
      steps: steps between two readings of the clock.
      rounds: readings of the clock; their median is printed.
    """
    if min(num_units, steps, rounds) < 1:
        raise UserError(f"num_units={num_units}, steps={steps}, rounds={rounds}: at least 1 of each is needed")
    opened = nets.load_net(net)
    if not isinstance(opened, nets.FunctionNet):
        raise UserError(f"net={net!r}: it is a table of layers, which `units` measures; name a function's network")
    nets.check_layer(opened, layer)
    if len(shape := opened.shapes[layer]) != 3:
        raise UserError(f"layer={layer!r}: one with places is needed, as {', '.join(nets.map_layers(opened))}")
    size = (1, *size_of(opened.picture_size), opened.channels)
    images = np.asarray(opened.prepare(np.random.default_rng(0).integers(0, 256, size, np.uint8)))
    channels = np.arange(num_units) % shape[2]
    units = Unit(channels, (np.full(num_units, shape[0] // 2), np.full(num_units, shape[1] // 2)))
    fn = opened.features([layer])
    options: dict[str, Any] = {"on_unknown": opened.on_unknown, "on_mixing": opened.on_mixing}
    whole = jax.jit(lambda images: project_fn_of(lambda images: fn(images)[layer], images, unit=units, **options))
    windows = nets.project_windows(opened, images, units, layer=layer, ways=("deconvnet",))["deconvnet"]
    engines: dict[str, Engine] = {
        "crops": (lambda: opened.project(images, units, layer=layer), lambda _: None),
        "whole images": (lambda: whole(images), jax.block_until_ready),
    }
    difference = np.abs(opened.project(images, units, layer=layer) - np.asarray(whole(images))).max()
    return [
        {
            "name": "crops",
            "engine": label,
            "projections_per_second": round(num_units / statistics.median(taken), 2),
            "net": opened.name,
            "layer": layer,
            "num_units": num_units,
            "image_size": list(size_of(opened.image_size)),
            "crop": list(windows.pixels.shape[1:3]),
            "largest_difference": float(difference),
            **device_facts(),
        }
        for label, taken in in_turns(engines, steps=steps, rounds=rounds).items()
    ]


def own_set(folder: Path) -> ImageSet:
    """A prepared set of demo scenes, through the very preparation that ImageNet takes."""
    from zfjax.data import imagenet, imagenet_builder

    scenes = demo.demo_images(0, 0, OWN_SCENES, size=OWN_SIDE)
    for number, (picture, label) in enumerate(zip(scenes["image"], scenes["label"], strict=True)):
        place = folder / "source" / "train" / demo.CLASS_NAMES[label]
        place.mkdir(parents=True, exist_ok=True)
        for copy in range(OWN_COPIES):
            Image.fromarray(picture).save(place / f"{number}_{copy}.png", compress_level=1)
    imagenet_builder.prepare(folder / "source", folder / "data", size=OWN_SIDE, workers=2)
    return imagenet.open_imagenet(folder / "data")


def train(workload: Workload) -> list[dict[str, Any]]:
    """Training steps: crop, mean, forward with dropout, gradient, SGD with momentum, renormalisation."""
    return compare("train_step", workload, {"zfjax": train_step(workload)})


def forward(workload: Workload) -> list[dict[str, Any]]:
    """Images to logits, as at test time."""
    engine = forward_pass(*network_of(workload), compute_dtype=workload.compute_dtype)
    return compare("forward", workload, {"zfjax": engine})


def forward_pass(
    architecture: Architecture, params: network.Params, images: jax.Array, *, compute_dtype: str
) -> Engine:
    """Logits of one batch that is in memory."""

    @jax.jit
    def logits(params: network.Params, images: jax.Array) -> jax.Array:
        return network.forward(params, images, architecture=architecture, compute_dtype=compute_dtype)[0]

    return lambda: logits(params, images), jax.block_until_ready


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

        return rules.project_fn(features, images, unit=channel)

    return lambda: pixels(params, images), jax.block_until_ready


AT_ONCE = 48  # units that go down together


def units(workload: Workload = UNITS_WORKLOAD, layer: str = "conv5") -> list[dict[str, Any]]:
    """Images to the projections of nine of their units each: the forward pass up to the layer, then each unit alone.

    Args:
      workload: what is measured, and how long.
      layer: layer of the units.
    """
    records = compare("units", workload, {"zfjax": windows(workload, layer)}, layer=layer)
    return [{**record, "projections_per_second": _per_second(record, UNITS)} for record in records]


def _per_second(record: dict[str, Any], of_each_image: int) -> float:
    rate: float = round(of_each_image * record["batch_size"] / record["seconds_per_step"]["median"], 2)
    return rate


def windows(workload: Workload, layer: str) -> Engine:
    """Nine maps of each image at their strongest places, in windows."""
    architecture, params, images = network_of(workload)
    fed, fn = np.asarray(images), features.layers_of(params, [layer], architecture=architecture)
    places = strongest_places(features.in_batches(fn, fed, batch_size=workload.batch_size)[layer])
    options: dict[str, Any] = {"layer": layer, "architecture": architecture, "batch_size": workload.batch_size}
    return lambda: deconvnet.windows_of_places(params, fed, places, units_at_once=AT_ONCE, **options), lambda _: None


def atlas(workload: Workload = UNITS_WORKLOAD, images: int = 1000, sample: int = 8) -> list[dict[str, Any]]:
    """Images of noise to nine projections of every map below the dense layers, by the images that excite it most.

    Args:
      workload: the table, and the images per forward pass; there is one round.
      images: how many are looked through.
      sample: units of each layer that Captum's loop is timed on, to which the others are in proportion.
    """
    table = workload.table()
    layers = [row.name for row in table.layers if isinstance(row, Conv)]
    num_units = UNITS * sum(table.sizes()[layer].output[-1] for layer in layers)
    run = whole_atlas(workload, images, layers)
    run(workload.batch_size)  # compile
    began = time.perf_counter()
    drawn = run(images)
    seconds = {"zfjax": time.perf_counter() - began}
    assert sum(len(windows.rows) for windows in drawn.values()) == num_units
    if workload.against == "torch":
        from experiments.shell import torch_twin  # of the extra "bench"

        seconds |= torch_twin.seconds_of_atlas(workload, layers, images=images, sample=sample)
    return [
        {
            "name": "atlas",
            "engine": engine,
            "seconds": round(taken, 1),
            "projections_per_second": round(num_units / taken, 2),
            "num_units": num_units,
            "num_images": images,
            "extrapolated_from": None if engine == "zfjax" else sample,
            "architecture": workload.architecture,
            "image_size": workload.image_size,
            "batch_size": workload.batch_size,
        }
        for engine, taken in seconds.items()
    ]


def whole_atlas(workload: Workload, num: int, layers: list[str]) -> Callable[[int], dict[str, Windows]]:
    """fn(how many images) -> {layer: windows}: the scan, then the nine strongest of every map."""
    architecture, params, noise = network_of(workload)
    pictures = np.resize(np.asarray(noise), (num, *noise.shape[1:]))
    pictures += np.random.default_rng(0).normal(size=(num, 1, 1, 3)).astype(np.float32)  # no two are the same
    fn = features.layers_of(params, layers, architecture=architecture)

    def run(some: int) -> dict[str, Windows]:
        batches = features.full_batches(some, workload.batch_size)
        top = top_activations.init({layer: architecture.sizes()[layer].output[-1] for layer in layers}, k=UNITS)
        for rows in batches:
            indices = np.where(np.diff(rows, prepend=-1) > 0, rows, -1).astype(np.int32)
            top = advance(top, pictures[rows], indices)
        places = {layer: places_of_top(top[layer]) for layer in layers}
        return deconvnet.windows_of_layers(
            params, pictures[:some], places, architecture=architecture, batch_size=workload.batch_size
        )

    @jax.jit
    def advance(top: top_activations.State, images: jax.Array, indices: jax.Array) -> top_activations.State:
        return top_activations.update(top, fn(images), indices)

    return run


def occlusion(workload: Workload = OCCLUSION_WORKLOAD, square: int = 44, stride: int = 12) -> list[dict[str, Any]]:
    """What the network says of an image with a square at each place: all logits by zfjax, the drop of one by Captum.

    Args:
      workload: what is measured, and how long; a batch is that many places.
      square: side of the square, pixels.
      stride: pixels between two places.
    """
    if workload.compute_dtype != "float32":
        raise UserError(f"compute_dtype={workload.compute_dtype!r}: occlusion is measured in float32")
    corners = sweeps.places(workload.image_size, square, stride)
    architecture, params, images = network_of(dataclasses.replace(workload, batch_size=1))
    fn = features.layers_of(params, architecture.layer_names[-1:], architecture=architecture)
    options: dict[str, Any] = {"square": square, "fill": 0.0, "batch_size": workload.batch_size}
    ours: Engine = (lambda: sweeps.sweep(fn, np.asarray(images[0]), corners, **options), lambda _: None)
    records = compare("occlusion", workload, {"zfjax": ours}, square=square, stride=stride)
    num = corners.shape[0] * corners.shape[1]
    for record in records:
        seconds = record["seconds_per_step"]["median"]
        record |= {"images_per_second": round(1 / seconds, 4), "evaluations_per_second": round(num / seconds, 2)}
        record |= {"num_places": num}
    return records


def scan(
    workload: Workload = SCAN_WORKLOAD, *, data: str | None = None, images: int = 1000, num_workers: int = 0
) -> list[dict[str, Any]]:
    """The nine strongest images of every map of all layers, the loader in front, beside the bare forward pass.

    Args:
      workload: what is measured; `rounds` does not matter, there are as many as the images take.
      data: a prepared set, DIR or DIR:SIZE; None prepares a temporary one of 2,048 demo scenes of 256 pixels.
      images: how many are looked through, those of the training split from the first on, again and again.
      num_workers: processes that decode; 0 decodes on threads of this one.
    """
    if workload.against is not None:
        raise UserError(f"against={workload.against!r}: the scan is measured beside our own forward pass")
    if workload.compute_dtype != "float32":
        raise UserError(f"compute_dtype={workload.compute_dtype!r}: scans compute in float32")
    if images < 1:
        raise UserError(f"images={images}: at least 1 is needed")
    with named_or_own(data) as photos:
        if photos.train is None or photos.mean is None:
            raise UserError(f"data={photos.name!r} has no train split, which is looked through")
        seconds, memory = timed_scan(workload, photos.train, mean=photos.mean, images=images, num_workers=num_workers)
    rates = {label: workload.batch_size / statistics.median(taken) for label, taken in seconds.items()}
    ratios = [bare / whole for whole, bare in zip(seconds["zfjax"], seconds["zfjax forward"], strict=True)]
    return [
        {
            "name": "scan",
            "engine": label,
            "images_per_second": round(rate, 2),
            "seconds_per_step": {"min": min(taken), "median": statistics.median(taken), "max": max(taken)},
            **(
                {
                    "times_the_rate_of_forward": round(statistics.median(ratios), 3),
                    "num_images": images,
                    "resident_mb": {count: held for count, (held, _) in memory.items()},
                    "resident_mb_of_use": {count: used for count, (_, used) in memory.items()},
                    "num_workers": num_workers,
                    "data": photos.name,
                }
                if label == "zfjax"
                else {}
            ),
            **described_workload(workload),
            **device_facts(),
        }
        for (label, taken), rate in zip(seconds.items(), rates.values(), strict=True)
    ]


def timed_scan(
    workload: Workload, source: Source, *, mean: np.ndarray, images: int, num_workers: int
) -> tuple[dict[str, list[float]], dict[str, tuple[float | None, float | None]]]:
    """Seconds of a step of each engine, by rounds in turns, and the megabytes held after so many images.

    These are what the process has of the system, and what of that is in use: the rest was freed before, and the C
    library gives it back or not as it likes. Both after a tenth of the images, and after all.
    """
    architecture, params, noise = network_of(workload)
    fn = features.layers_of_pictures(params, mean, architecture.layer_names, architecture=architecture)
    state = top_activations.init({layer: of.output[-1] for layer, of in architecture.sizes().items()}, k=UNITS)
    engine = forward_pass(architecture, params, noise, compute_dtype=workload.compute_dtype)
    in_round = workload.batch_size * workload.steps
    seconds: dict[str, list[float]] = {"zfjax": [], "zfjax forward": []}
    num_rounds = -(-images // in_round)
    looked_at = {-(-num_rounds // 10) * in_round, num_rounds * in_round}  # images, by when memory is looked at
    memory: dict[str, tuple[float | None, float | None]] = {}
    for first in range(-in_round, images, in_round):  # the first round compiles
        photos = Repeated(source, range(max(first, 0), max(first, 0) + in_round))
        began = time.perf_counter()
        batches = eval_batches(photos, batch_size=workload.batch_size, num_workers=num_workers)
        scanned = top_activations.scan(fn, batches, state)
        taken = time.perf_counter() - began
        bare = run_steps(engine, workload.steps)
        if first >= 0:
            state = scanned
            seconds["zfjax"].append(taken / workload.steps)
            seconds["zfjax forward"].append(bare / workload.steps)
            if first + in_round in looked_at:
                memory[str(first + in_round)] = (resident_mb(), resident_mb_of_use())
    return seconds, memory


class Repeated:
    """Some of the places of a source that begins anew at its end, as if it were that long: a `Source`."""

    def __init__(self, source: Source, places: range):
        self._source, self._places = source, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> dict[str, Any]:
        place = self._places[index]
        return {**self._source[place % len(self._source)], "index": np.int32(place)}


def resident_mb() -> float | None:
    """Megabytes of memory that this process holds now; None where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None
    return round(pages * resource.getpagesize() / 1e6, 1)


def resident_mb_of_use() -> float | None:
    """Likewise, once the C library has given back what is free; None where it is not glibc, which can be asked to."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        return None
    return resident_mb()


# What JAX tells of a program on its way to the first run, by the event that tells it
STAGES = {
    "/jax/core/compile/jaxpr_trace_duration": "tracing",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lowering",
    "/jax/core/compile/backend_compile_duration": "compiling",
}


def start(workload: Workload, layer: str = "conv5") -> list[dict[str, Any]]:
    """The first training step, and the first projections of units, each from nothing: seconds by what they went into.

    Initial parameters and noise are part of both. Programs that JAX was told to keep (JAX_COMPILATION_CACHE_DIR) are
    read and not compiled. What is neither traced, lowered nor compiled is running, Python's own work included.

    Args:
      workload: what is measured; its steps and rounds do not matter.
      layer: layer of the units.
    """
    if workload.against is not None:
        raise UserError(f"against={workload.against!r}: the start is measured of zfjax alone")
    workload.table().layer(layer)  # an unknown one is named
    first: dict[str, Callable[[], Engine]] = {
        "train_step": lambda: train_step(workload),
        "units": lambda: windows(workload, layer),
    }
    records = []
    for name, make in first.items():
        jax.clear_caches()
        with stages() as spans:
            began = time.perf_counter()
            run_steps(make(), 1)
            seconds = time.perf_counter() - began
        parts = {stage: covered(of) for stage, of in spans.items()}
        parts["running"] = seconds - sum(parts.values())
        records.append(
            {
                "name": "start",
                "engine": "zfjax",
                "of": name,
                "seconds": round(seconds, 3),
                **{f"seconds_{stage}": round(value, 3) for stage, value in parts.items()},
                "num_programs": len(spans["compiling"]),
                **described_workload(workload),
                **({"layer": layer} if name == "units" else {}),
                **device_facts(),
            }
        )
    return records


def step(workload: Workload = STEP_WORKLOAD) -> list[dict[str, Any]]:
    """The operations of a training step, each compiled and run by itself, in turns, beside the whole step.

    On CPU seconds are processor seconds, of all cores together, which other work on the machine does not lengthen by
    its own. Compiled as one, a step saves what neighbouring operations read and write twice, and computes some of them
    twice.

    Args:
      workload: what is measured, and in how many rounds.
    """
    if workload.against is not None:
        raise UserError(f"against={workload.against!r}: the operations are those of zfjax alone")
    clock = time.process_time if jax.default_backend() == "cpu" else time.perf_counter
    architecture, params, _ = network_of(workload)
    listed = list(operations.of_step(workload, architecture, params))
    programs = [jax.jit(operation.fn) for operation in listed]
    engines: list[Work] = [partial(fn, *of.arguments) for fn, of in zip(programs, listed, strict=True)]
    engines.append(train_step(workload)[0])
    taken: list[list[float]] = [[] for _ in engines]
    for turn in range(workload.rounds + 1):
        for work, seconds in zip(engines, taken, strict=True):
            began = clock()
            jax.block_until_ready(work())
            if turn:  # the first one compiles
                seconds.append(clock() - began)
    medians = [statistics.median(seconds) for seconds in taken]
    whole = medians.pop()
    peak = listed[-1].flop / medians[-1]
    common = {**described_workload(workload), **device_facts()}
    records = [
        {
            "name": "step",
            "engine": "zfjax",
            "layer": of.layer,
            "operation": of.name,
            "seconds": round(seconds, 5),
            "share_of_step": None if of is listed[-1] else round(seconds / whole, 3),
            "gflop": round(of.flop / 1e9, 6),
            "gflop_per_second": round(of.flop / 1e9 / seconds, 1),
            "share_of_peak": round(of.flop / seconds / peak, 3),
            **common,
        }
        for of, seconds in zip(listed, medians, strict=True)
    ]
    gflop = sum(of.flop for of in listed[:-1]) / 1e9
    speeds = {"gflop": round(gflop, 6), "gflop_per_second": round(gflop / whole, 1)}
    speeds |= {"share_of_peak": round(gflop * 1e9 / whole / peak, 3)}
    step_ = {"layer": None, "operation": "whole step", "seconds": round(whole, 5), "share_of_step": 1.0}
    return [*records, {"name": "step", "engine": "zfjax", **step_, **speeds, **common}]


@contextlib.contextmanager
def stages() -> Iterator[dict[str, list[tuple[float, float]]]]:
    """When JAX traced, lowered and compiled meanwhile: {stage: (begin, end) of each, in seconds}."""
    spans: dict[str, list[tuple[float, float]]] = {stage: [] for stage in STAGES.values()}

    def note(event: str, duration_secs: float, **_: str | int) -> None:
        if event in STAGES:
            end = time.perf_counter()
            spans[STAGES[event]].append((end - duration_secs, end))

    monitoring.register_event_duration_secs_listener(note)
    try:
        yield spans
    finally:
        monitoring.unregister_event_duration_listener(note)


def covered(spans: list[tuple[float, float]]) -> float:
    """Seconds in at least one of the spans, as the tracing of a function holds that of those which it calls."""
    total, reached = 0.0, -np.inf
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def places_of_top(top: top_activations.TopActivations) -> dict[str, np.ndarray]:
    """What a scan of one layer found, as `project_places` takes it."""
    maps = np.broadcast_to(np.arange(len(top.values))[:, None], top.values.shape)
    fields = {"image": top.images, "channel": maps, "row": top.rows, "column": top.columns}
    return {name: np.asarray(field)[np.asarray(top.images) >= 0] for name, field in fields.items()}


def strongest_places(maps: np.ndarray) -> dict[str, np.ndarray]:
    """Of nine channels of each image, the same ones in all."""
    channels = np.linspace(0, maps.shape[-1] - 1, UNITS, dtype=int)
    image, channel = (index.ravel() for index in np.meshgrid(np.arange(len(maps)), channels, indexing="ij"))
    own = maps.reshape(len(maps), -1, maps.shape[-1])[image, :, channel]
    row, column = np.divmod(own.argmax(axis=1), maps.shape[2] if maps.ndim == 4 else 1)
    return {"image": image, "channel": channel, "row": row, "column": column}


def network_of(workload: Workload) -> tuple[Architecture, network.Params, jax.Array]:
    """The table, He-initialised parameters and one batch of noise in pixels."""
    architecture = workload.table()
    recipe = training.Recipe(initialization="he")
    params = training.init_state(recipe, architecture).params
    shape = (workload.batch_size, *architecture.image_shape)
    images = 58 * jax.random.normal(jax.random.key(1), shape, jnp.float32)
    return architecture, params, images


def train_step(workload: Workload) -> Engine:
    """The step of `experiments.train_imagenet`, on stored pictures of noise."""
    architecture = workload.table()
    recipe = training.Recipe(batch_size=workload.batch_size, compute_dtype=workload.compute_dtype, learning_rate=1e-4)
    parallel.check_batch_size(recipe.batch_size)
    height, width, channels = architecture.image_shape
    stored = (height + STORED_MARGIN, width + STORED_MARGIN, channels)
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (recipe.batch_size, *stored), np.uint8),
        "label": rng.integers(0, workload.num_classes, recipe.batch_size, np.int32),
        "position": np.arange(recipe.batch_size, dtype=np.int32),
    }
    mean = np.full(stored, 127.0, np.float32)
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
    facts = dict.fromkeys(ours, device_facts())
    if workload.against == "torch":
        from experiments.shell import torch_twin as benchmark_torch  # of the extra "bench"

        for label, engine in benchmark_torch.engines(name, workload, **more).items():
            engines[label], facts[label] = engine, benchmark_torch.facts()
    seconds = in_turns(engines, steps=workload.steps, rounds=workload.rounds)
    return [
        {
            "name": name,
            "engine": label,
            "images_per_second": round(workload.batch_size / statistics.median(taken), 2),
            "seconds_per_step": {"min": min(taken), "median": statistics.median(taken), "max": max(taken)},
            **described_workload(workload),
            **more,
            **facts[label],
        }
        for label, taken in seconds.items()
    ]


def in_turns(engines: dict[str, Engine], *, steps: int, rounds: int) -> dict[str, list[float]]:
    """{engine: seconds of a step in each round}; the engines take turns."""
    seconds: dict[str, list[float]] = {label: [] for label in engines}
    for engine in engines.values():
        run_steps(engine, 2)  # compile, warm up
    for _ in range(rounds):
        for label, engine in engines.items():
            seconds[label].append(run_steps(engine, steps) / steps)
    return seconds


def described_workload(workload: Workload) -> dict[str, Any]:
    """What a line says of the workload."""
    names = ("batch_size", "architecture", "image_size", "width", "compute_dtype")
    return {name: getattr(workload, name) for name in names}


def device_facts() -> dict[str, Any]:
    """What a line says of where it was measured."""
    return {"version": jax.__version__, "device": jax.devices()[0].device_kind}


def run_steps(engine: Engine, steps: int) -> float:
    """Seconds that `steps` steps take, from the first call until the last result is there."""
    step, wait = engine
    began = time.perf_counter()
    for _ in range(steps):
        result = step()
    wait(result)
    return time.perf_counter() - began


def plan(plan: tpu_plan.Plan) -> list[dict[str, Any]]:
    """What a training step takes of TPUs that are not here, by their own compiler; nothing is run."""
    return [tpu_plan.planned(plan)]


@shell.ending_with_reader()
def main() -> None:
    """The command line."""
    commands: dict[str, Callable[..., list[dict[str, Any]]]] = {
        "train": train,
        "forward": forward,
        "project": project,
        "project-fn": project_fn,
        "units": units,
        "atlas": atlas,
        "occlusion": occlusion,
        "scan": scan,
        "start": start,
        "plan": plan,
        "step": step,
    }
    commands |= {"loader": loader, "decode": decode, "crops": crops}
    first = first_flags(joins=False, compiles=False)
    chosen, rest = split_flags(first)
    with in_one_line():
        if is_idle(alone=chosen.alone) and not {"-h", "--help"} & set(rest):
            return
        records = tyro.extras.subcommand_cli_from_dict(
            commands,
            prog="python -m experiments.benchmark",
            description=described(__doc__, first),
            args=rest,
            config=(tyro.conf.OmitArgPrefixes,),
        )
    for record in records:
        print(json.dumps(record))


if __name__ == "__main__":
    main()
