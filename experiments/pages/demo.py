"""The demo set on one page."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from experiments.pages import canvas
from zfjax import pixels
from zfjax.data import demo

SHOWN = 8  # scenes of each class on the page
ANNOTATED = 2  # of them with mask and parts
PART_COLOURS = ((255, 40, 40), (40, 230, 40), (255, 230, 0))  # right eye, left eye, nose


def draw(scenes: dict[str, np.ndarray]) -> Figure:
    """Rows of `SHOWN` scenes for each class, the last `ANNOTATED` with the mask's outline and the parts."""
    panels = []
    for label, name in enumerate(demo.CLASS_NAMES):
        chosen = np.flatnonzero(scenes["label"] == label)[:SHOWN]
        if not chosen.size:  # of few scenes
            continue
        images = [scenes["image"][index] for index in chosen]
        for place in range(SHOWN - ANNOTATED, len(chosen)):
            images[place] = annotated(images[place], scenes["mask"][chosen[place]], scenes["parts"][chosen[place]])
        panels.append(canvas.Panel(pixels.mosaic(np.stack(images), columns=SHOWN), name))
    caption = [
        f"Each row a class; the last {ANNOTATED} scenes with the creature's outline, right eye red, left eye green, "
        "nose yellow. Pose, colours, light, ground and clutter are drawn independently of the class."
    ]
    return canvas.page("The demo set", [canvas.Section("", panels, columns=2)], caption)


def annotated(image: np.ndarray, mask: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """A copy with the mask's outline in white and a dot of 3 x 3 pixels on each part."""
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    marked = image.copy()
    marked[mask & ~inner] = 255
    for (y, x), colour in zip(np.floor(parts).astype(int), PART_COLOURS, strict=True):
        marked[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2] = colour
    return marked
