"""The `loader` part of the benchmark: pictures per second from a prepared set to batches in memory."""

from __future__ import annotations

import itertools
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image

from experiments import inputs
from zfjax.data import ImageSet
from zfjax.data.loader import steps_per_epoch, train_batches

OWN_SCENES, OWN_COPIES, OWN_SIDE = 64, 32, 256  # of the set that is made where none is named


def loader(
    data: str | None = None, batch_size: int = 128, num_workers: int = 0, seconds: float = 10.0
) -> list[dict[str, Any]]:
    """Shuffled training batches, decoded.

    Args:
      data: a prepared set, DIR or DIR:SIZE; None prepares a temporary one of 2,048 demo scenes of 256 pixels.
      batch_size: images per batch.
      num_workers: processes that decode; 0 decodes on threads of this one.
      seconds: how long to measure.
    """
    if data is not None:
        return [measure(inputs.open_data(data), batch_size, num_workers, seconds)]
    with tempfile.TemporaryDirectory() as folder:
        return [measure(own_set(Path(folder)), batch_size, num_workers, seconds)]


def measure(images: ImageSet, batch_size: int, num_workers: int, seconds: float) -> dict[str, Any]:
    """The record of one measurement: wall clock, and processor time of this process where it does the decoding."""
    if images.train is None:
        raise ValueError(f"data={images.name!r} has no train split, whose batches are measured")
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


def own_set(folder: Path) -> ImageSet:
    """A prepared set of demo scenes, through the very preparation that ImageNet takes."""
    from zfjax.data import demo, imagenet, imagenet_builder

    scenes = demo.demo_images(0, 0, OWN_SCENES, size=OWN_SIDE)
    for number, (picture, label) in enumerate(zip(scenes["image"], scenes["label"], strict=True)):
        place = folder / "source" / "train" / demo.CLASS_NAMES[label]
        place.mkdir(parents=True, exist_ok=True)
        for copy in range(OWN_COPIES):
            Image.fromarray(picture).save(place / f"{number}_{copy}.png", compress_level=1)
    imagenet_builder.prepare(folder / "source", folder / "data", size=OWN_SIDE, workers=2)
    return imagenet.open_imagenet(folder / "data")
