"""Accuracy on other data sets: against the number of training images (Figure 9), and against the layer (Table 7)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from experiments.pages import canvas, lettering
from experiments.pages.lettering import counted

TICKS, GAP = 800, 10  # pixels of an axis of layers; between two names


def draw_curve(result: Mapping[str, Any]) -> Figure:
    """Accuracy against training images per class: ours with their spread, the paper's dashed."""
    figure = Figure(figsize=(8.0, 5.0), dpi=canvas.DPI, layout="constrained")
    axes = figure.subplots()
    for colour, name in enumerate(("pretrained", "scratch", "best earlier", "untrained")):
        rows = [row for row in result["rows"] if row["arm"] == name]
        if rows:
            spread = [row["spread"] or 0.0 for row in rows]
            places = [row["num_train"] for row in rows], [row["mean"] for row in rows]
            axes.errorbar(*places, yerr=spread, color=f"C{colour}", marker="o", capsize=3, label=f"{name}, here")
        if name not in result["paper"]:
            continue
        paper = result["paper"][name]
        label = f"{name}, paper (ImageNet, full width)" if name == "pretrained" else f"{name}, paper"
        axes.plot(list(paper), [p["mean"] for p in paper.values()], f"C{colour}s--", alpha=0.5, label=label)
    axes.set_xlabel("training images per class")
    axes.set_ylabel("mean per-class accuracy (%)")
    axes.set_ylim(0, 100)
    axes.set_xlim(left=0)
    axes.set_title(
        f"{result['data']['name']}: {counted(result['num_classes'], 'class')}, {counted(result['num_images'], 'image')}"
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def draw_layers(result: Mapping[str, Any]) -> Figure:
    """Accuracy against layer: ours with its spread, the paper's dashed."""
    figure = Figure(figsize=(8.0, 5.0), dpi=canvas.DPI, layout="constrained")
    axes = figure.subplots()
    layers = list(dict.fromkeys(row["layer"] for row in result["rows"]))
    for colour, name in enumerate(("svm", "softmax")):
        rows = [row for row in result["rows"] if row["classifier"] == name]
        places = [layers.index(row["layer"]) for row in rows]
        if rows:
            spread = [row["spread"] or 0.0 for row in rows]
            means = [row["mean"] for row in rows]
            axes.errorbar(places, means, yerr=spread, color=f"C{colour}", marker="o", capsize=3, label=f"{name}, here")
        known = [(place, row["paper"]) for place, row in zip(places, rows, strict=True) if row["paper"] is not None]
        if known:
            label = f"{name}, paper (ImageNet, full width, {result['paper']['num_train']} per class)"
            axes.plot(*zip(*known, strict=True), f"C{colour}s--", alpha=0.5, label=label)
    room = (TICKS - GAP * len(layers)) / len(layers)  # of a layer's name, below the axis
    names = ["\n".join(lettering.lines(layer, "label", room, most=4)) for layer in layers]
    axes.set_xticks(range(len(layers)), names, parse_math=False, fontsize=canvas.SIZES["label"])
    axes.set_ylabel("mean per-class accuracy (%)")
    axes.set_ylim(0, 100)
    of_class = f"{counted(result['num_train'], 'image')} per class"
    axes.set_title(f"{result['data']['name']}: {counted(result['num_classes'], 'class')}, {of_class}")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure
