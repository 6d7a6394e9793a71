"""The demo set on one page, and the accuracy of classifiers that cannot see the creatures' shapes.

    python -m experiments.demo_scenes

Expected time: a minute on two CPU cores. Expected figure: ten classes of creatures, with masks and parts drawn into
the last two columns. Expected result: a linear classifier on pixels and one on colour histograms stay below 40 % on
fresh scenes, and one trained on the backgrounds without creatures stays near 10 %, which is chance.
Writes scenes.png and result.json to a folder below runs/demo_scenes that is named by the flags (or --out).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from experiments.pages import demo as demo_page
from experiments.shell import command, figure, results
from experiments.shell.sizes import SizeFlag
from zfjax import nets
from zfjax.architecture import Size
from zfjax.data import demo

COMMAND = "demo_scenes"
PENALTIES = (1e1, 1e2, 1e3, 1e4)  # of the ridge regressions; the best one on the test scenes counts, in their favour


@dataclass(frozen=True, kw_only=True)
class Config(figure.ResultConfig):
    """Draw the demo set and measure what it gives away without its creatures."""

    size: SizeFlag = 80
    """Size of the scenes in pixels: a side, or HEIGHTxWIDTH."""
    num_train: int = 4000
    """Scenes that the classifiers learn from."""
    num_test: int = 1000
    """Fresh scenes that they are measured on."""


class Result(results.Written):
    """What result.json holds."""

    accuracy: dict[str, float]  # by classifier: shares of the fresh scenes
    chance: float
    paper: None  # it has no such set


def run(config: Config) -> Result:
    """Render, measure, draw; what result.json holds. UserError for an output folder that already holds a result."""
    with figure.claimed(config, COMMAND, nets.RUNS / "demo_scenes", names=["scenes.png"]) as out:
        return measure_and_write(config, out)


def measure_and_write(config: Config, out: Path) -> Result:
    """The same, in a folder that was claimed."""
    train = demo.demo_images(0, 0, config.num_train, size=config.size)
    test = demo.demo_images(1, 0, config.num_test, size=config.size)
    backgrounds = [
        background_images(seed, len(scenes["label"]), config.size) for seed, scenes in enumerate((train, test))
    ]
    labels = {"train_labels": train["label"], "test_labels": test["label"]}
    accuracy = {
        "linear_on_pixels": linear_accuracy(flat(train["image"]), flat(test["image"]), **labels),
        "colour_histogram": linear_accuracy(histograms(train["image"]), histograms(test["image"]), **labels),
        "background_without_creature": linear_accuracy(flat(backgrounds[0]), flat(backgrounds[1]), **labels),
    }
    result: Result = {
        "accuracy": accuracy,
        "chance": 1 / demo.NUM_CLASSES,
        "paper": None,
        "config": config,
        "versions": results.versions(),
    }
    return results.write(out, result, command=COMMAND, contents={"scenes.png": demo_page.draw(test)})


def background_images(seed: int, count: int, size: Size) -> np.ndarray:
    """The scenes 0 .. count - 1 of a seed without their creatures: uint8 [count, H, W, 3]."""
    render = jax.jit(jax.vmap(lambda index: demo.render_background(seed, index, size=size)))
    chunks = [np.asarray(render(np.arange(first, first + demo.CHUNK))) for first in range(0, count, demo.CHUNK)]
    return np.concatenate(chunks)[:count]


def flat(images: np.ndarray) -> np.ndarray:
    """Pixels as features in -1..1: [N, H * W * 3]."""
    return images.reshape(len(images), -1).astype(np.float32) / 127.5 - 1


def histograms(images: np.ndarray) -> np.ndarray:
    """Square roots of the shares of 8 x 8 x 8 colours: [N, 512]."""
    codes = (images // 32).astype(np.int64) @ np.array([64, 8, 1])
    counts = np.stack([np.bincount(code.ravel(), minlength=512) for code in codes])
    roots: np.ndarray = 10 * np.sqrt(counts / counts.sum(axis=1, keepdims=True)).astype(np.float32)
    return roots


def linear_accuracy(train: np.ndarray, test: np.ndarray, *, train_labels: np.ndarray, test_labels: np.ndarray) -> float:
    """Accuracy of ridge regression onto the classes, at the best of `PENALTIES`; solved over the examples."""
    mean = train.mean(axis=0)
    train, test = train - mean, test - mean
    targets = np.eye(demo.NUM_CLASSES, dtype=np.float32)[train_labels] - 1 / demo.NUM_CLASSES
    gram, cross = train @ train.T, test @ train.T
    accuracies = []
    for penalty in PENALTIES:
        scores = cross @ np.linalg.solve(gram + penalty * np.eye(len(gram), dtype=np.float32), targets)
        accuracies.append(float((scores.argmax(axis=1) == test_labels).mean()))
    return max(accuracies)


def report(result: Result) -> None:
    """Print the accuracies."""
    for name, accuracy in result["accuracy"].items():
        print(f"{name.replace('_', ' ')}: {accuracy:.1%} on fresh scenes (chance {result['chance']:.0%})")


def main() -> None:
    """The command line."""
    command.main(Config, run, doc=__doc__, report=report)


if __name__ == "__main__":
    main()
