"""All sheets of an atlas, some units at a time; what is drawn already stays, so that a stopped atlas goes on."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from zfjax import files, nets, pixels
from zfjax.analyses import robust_ascent
from zfjax.atlas import site, sprites
from zfjax.atlas.maxima import maxima_of
from zfjax.atlas.measures import Measured
from zfjax.atlas.options import Options
from zfjax.data import Source
from zfjax.features import full_batches
from zfjax.nets import Net
from zfjax.programs import as_partial
from zfjax.units import Unit

AT_ONCE = 16  # images or units that go through the network together
MOST = 128  # units drawn together, at most
BYTES = 2**26  # of their pictures, each way


def part_of(measured: Measured, units: slice) -> Measured:
    """Some of the units."""
    return Measured(*(of[units] for of in measured))


Drawn = dict[str, np.ndarray]
"""boxes [U, 4 of each image], scales [U, ways], resemblance [U], object [U, 2], parts [U, parts, 2], grey [U]."""


def draw_all(
    net: Net,
    source: Source,
    page: site.Site,
    *,
    measured: Mapping[str, Measured],
    options: Options,
    key: str,
    progress: bool,
) -> dict[str, Drawn]:
    """Draw the sheets of all units and the whole images, some units at a time; what is there already stays."""

    def draw(number: int, *, layer: str, channels: np.ndarray, part: Measured) -> Drawn:
        return _draw_block(
            net, source, page, number=number, layer=layer, channels=channels, part=part, options=options, key=key
        )

    height, width = nets.size_of(net.image_size)
    of_unit = 4 * options.num_images * height * width * nets.num_channels(net)
    at_once = int(np.clip(BYTES // of_unit, AT_ONCE // 2, MOST))
    return _in_blocks(draw, measured, at_once=at_once, called="drawing", progress=progress)


def _in_blocks(
    draw: Callable[..., Drawn],
    measured: Mapping[str, Measured],
    *,
    at_once: int = AT_ONCE,
    called: str,
    progress: bool,
) -> dict[str, Drawn]:
    """draw(number of the layer, layer=, channels=, part= of what was measured) of some units at once, put together."""
    total = sum(len(of.strength) for of in measured.values())
    drawn: dict[str, Drawn] = {}
    with tqdm(total=total, unit=" units", desc=called, disable=not progress) as bar:
        for number, (layer, of_layer) in enumerate(measured.items()):
            parts = []
            for start in range(0, len(of_layer.strength), at_once):
                channels = np.arange(start, min(start + at_once, len(of_layer.strength)))
                part = part_of(of_layer, slice(start, start + at_once))
                parts.append(draw(number, layer=layer, channels=channels, part=part))
                bar.update(len(channels))
            drawn[layer] = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return drawn


def _draw_block(
    net: Net,
    source: Source,
    page: site.Site,
    *,
    number: int,
    layer: str,
    channels: np.ndarray,
    part: Measured,
    options: Options,
    key: str,
) -> Drawn:
    notes = page.folder / "scan" / f"drawn-{number}-{channels[0]}.npz"
    excited = channels[(part.images >= 0).any(axis=1)]
    names = [site.sheet_of(number, m, kind) for m in excited for kind in ("patch", *options.ways)]
    names += [site.image_of(index) for index in np.unique(part.images[part.images >= 0])]
    belongs = json.dumps([key, layer, channels.tolist(), files.digest([part.images, part.values])])
    if (kept := _kept(page, notes, belongs=belongs, names=names)) is not None:
        return kept
    block = sprites.draw(net, source, layer=layer, channels=channels, measured=part, ways=options.ways)
    alive = set(excited.tolist())
    for m, kind, data in sprites.sheets(block, options.tile, options.quality):
        if int(channels[m]) in alive:
            page.write(site.sheet_of(number, int(channels[m]), kind), data)
    for index, picture in zip(block.indices, block.views.pictures, strict=True):
        if not page.has(site.image_of(index)):
            page.write(site.image_of(index), sprites.webp(picture, quality=options.quality))
    first, num = block.ways[options.ways[0]], len(channels)
    drawn = {
        "boxes": first.boxes + np.zeros((num, 1, 1), int),
        "scales": np.stack([of.scales for of in block.ways.values()], axis=1).astype(np.float32),
        "resemblance": block.resemblance,
        "object": np.full((num, 2), np.nan, np.float32) if block.on_object is None else block.on_object,
        "parts": on_no_parts(source, num) if block.on_parts is None else block.on_parts,
        "grey": _grey(net, source, layer=layer, channels=channels, part=part)
        if options.grey
        else np.full(num, np.nan, np.float32),
    }
    files.save_arrays(notes, {**drawn, "key": np.array(belongs)})
    return drawn


def on_no_parts(source: Source, num: int) -> np.ndarray:
    """float32 [num, parts, 2] of units that no image excites, as those beside them have it: NaN; no part is none."""
    return np.full((num, len(source[0].get("parts", ())), 2), np.nan, np.float32)


def _kept(page: site.Site, notes: Path, *, belongs: str, names: Sequence[str]) -> Drawn | None:
    """What was noted of units that are drawn already; None where they are not, or of something else."""
    if not notes.exists():
        return None
    kept = files.read_npz(notes, "remove it, and its units are drawn anew")
    return kept if str(kept.pop("key", "")) == belongs and all(page.keep(name) for name in names) else None


def draw_epochs(
    epochs: Mapping[int, Net],
    source: Source,
    page: site.Site,
    *,
    measured: Mapping[str, Measured],
    key: str,
    progress: bool,
) -> dict[str, Drawn]:
    """Each unit's strongest image, projected from its strongest place in it, by the network of each epoch.

    Returns:
      {layer: {"values" [U, epochs], "scales" [U]}}, one scale for all epochs of a unit.
    """
    fingerprints = [net.fingerprint for net in epochs.values()]

    def draw(number: int, *, layer: str, channels: np.ndarray, part: Measured) -> Drawn:
        images = part.images[:, 0]
        belongs = json.dumps([key, layer, channels.tolist(), images.tolist(), fingerprints])
        notes = page.folder / "scan" / f"epochs-{number}-{channels[0]}.npz"
        sheets = [site.sheet_of(number, m, "epochs") for m in channels[images >= 0]]
        if (kept := _kept(page, notes, belongs=belongs, names=sheets)) is not None:
            return kept
        drawn = _epochs_of(epochs, source, page, number=number, layer=layer, channels=channels, images=images)
        files.save_arrays(notes, {**drawn, "key": np.array(belongs)})
        return drawn

    return _in_blocks(draw, measured, called="epochs", progress=progress)


def draw_ascents(
    net: Net,
    source: Source,
    page: site.Site,
    *,
    measured: Mapping[str, Measured],
    options: Options,
    key: str,
    progress: bool,
) -> dict[str, Drawn]:
    """What `robust_ascent.climb` makes of every unit that is not dead, from `options.ascent` starts.

    Returns:
      {layer: {"reached" [U, starts]}}, the strongest activation of the unit on each picture; NaN where it is dead.
    """
    colours = robust_ascent.colours_of(source)

    def draw(number: int, *, layer: str, channels: np.ndarray, part: Measured) -> Drawn:
        excited = (part.images >= 0).any(axis=1)
        alive = channels[excited]
        belongs = json.dumps([key, layer, channels.tolist(), alive.tolist(), options.ascent])
        notes = page.folder / "scan" / f"ascent-{number}-{channels[0]}.npz"
        sheets = [site.sheet_of(number, m, "ascent") for m in alive]
        if (kept := _kept(page, notes, belongs=belongs, names=sheets)) is not None:
            return kept
        reached = np.full((len(channels), options.ascent), np.nan, np.float32)
        if len(alive):
            units, starts = Unit(alive, layer=layer), options.ascent
            climbed = robust_ascent.climb(net, units, key=jax.random.key(0), starts=starts, colours=colours)
            reached[excited] = climbed.reached.reshape(len(alive), starts)
            for m, tiles in zip(alive, climbed.patches.reshape(-1, starts, *climbed.patches.shape[1:]), strict=True):
                page.write(site.sheet_of(number, int(m), "ascent"), sprites.sheet(tiles, options.tile, options.quality))
        files.save_arrays(notes, {"reached": reached, "key": np.array(belongs)})
        return {"reached": reached}

    return _in_blocks(draw, measured, at_once=MOST, called="ascent", progress=progress)


def _epochs_of(
    epochs: Mapping[int, Net],
    source: Source,
    page: site.Site,
    *,
    number: int,
    layer: str,
    channels: np.ndarray,
    images: np.ndarray,
) -> Drawn:
    alive = np.flatnonzero(images >= 0)
    values, scales = np.full((len(channels), len(epochs)), np.nan, np.float32), np.zeros(len(channels), np.float32)
    if not len(alive):
        return {"values": values, "scales": scales}
    drawn = []
    for n, net in enumerate(epochs.values()):
        views = nets.read_views(source, images[alive], net)
        fn, units = as_partial(net.features([layer])), Unit(channels[alive], None)
        place = nets.places_of(units, views.images, of=np.arange(len(alive)), fn=fn, layer=layer)
        shape = nets.shapes_of(net, [layer])[layer]
        strongest = np.asarray(maxima_of(fn, np.resize(views.images, (AT_ONCE, *views.images.shape[1:])))[layer][0])
        values[alive, n] = strongest[np.arange(len(alive)), channels[alive]]
        at = Unit(channels[alive], (place["row"], place["column"]) if len(shape) == 3 else None)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "seed='value'")
            drawn.append(net.project(views.images, at, layer=layer, of=np.arange(len(alive))))
    for m, of_unit in zip(alive, np.stack(drawn, axis=1), strict=True):
        scales[m] = pixels.symmetric_scale(of_unit)
        tiles = pixels.signed_pictures(of_unit, float(scales[m]))
        page.write(site.sheet_of(number, int(channels[m]), "epochs"), sprites.sheet(tiles))
    return {"values": values, "scales": scales}


def _grey(net: Net, source: Source, *, layer: str, channels: np.ndarray, part: Measured) -> np.ndarray:
    """float32 [u]: the share of the units' activations in their strongest images that stays when these are grey."""
    drawn = part.images >= 0
    if nets.num_channels(net) != 3:  # no colours to lose
        return np.full(len(drawn), np.nan, np.float32)
    indices, which = np.unique(part.images[drawn], return_inverse=True)
    values = np.full(drawn.shape, np.nan)
    fn = as_partial(nets.features_of_pictures(net, [layer]))
    strongest = np.zeros((len(indices), len(channels)), np.float32)
    for rows in full_batches(len(indices), AT_ONCE) if len(indices) else []:
        pictures = np.stack([source[int(indices[row])]["image"] for row in rows])
        strongest[rows] = np.asarray(maxima_of(fn, pixels.grey(pictures))[layer][0])[:, channels]
    values[drawn] = strongest[which, np.nonzero(drawn)[0]]
    counted = part.values > 0
    before = np.where(counted, part.values, 0).sum(axis=1, dtype=np.float64)
    after = np.where(counted, np.maximum(values, 0), 0).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: np.ndarray = (after / before).astype(np.float32)
        return ratio
