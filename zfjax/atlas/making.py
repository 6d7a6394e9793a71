"""From a network and pictures to an atlas: look, measure, draw, write. Stopped, it goes on where it was."""

from __future__ import annotations

import base64
import datetime
import json
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from zfjax import files, nets, pixels
from zfjax.analyses import sanity
from zfjax.atlas import measures, site, sprites
from zfjax.atlas.measures import Measured
from zfjax.atlas.scan import Maxima, maxima_of, scan
from zfjax.data import ImageSet, Source, archives, name_of, sets
from zfjax.deconvnet import WAYS, Way
from zfjax.errors import UserError
from zfjax.features import full_batches
from zfjax.nets import Net, OfTable
from zfjax.programs import as_partial

AT_ONCE = 16  # units drawn together
STRIP = 8  # strongest units of a layer on the overview
BEST_OF_IMAGE = 6  # strongest units of each layer on the page of an image
WIRES = 6  # strongest inputs and outputs of a unit
CHUNK = 256  # images whose data are one script
ASKED = 8  # images on which the net's own selectivity is measured
EMBEDS = "The site embeds the pictures that it shows: pass it on only where those may go."


@dataclass(frozen=True, kw_only=True)
class Options:
    """How an atlas is made."""

    layers: tuple[str, ...] = ()
    """Layers to show; by default every one that has feature maps, and the logits."""
    ways: tuple[Way, ...] = ("deconvnet", "guided", "gradient")
    """Ways down to the pixels; the first one is what the walls show."""
    num_images: int = 9
    """Strongest images of each unit."""
    batch_size: int = 64
    """Images at once while the set is looked through."""
    grey: bool = False
    """Measure too what stays of each activation when its images lose their colours."""
    save_every: float = 30.0
    """Seconds between two savings of the scan."""


class UnitView(NamedTuple):
    """One unit, as a notebook shows it."""

    html: str

    def _repr_html_(self) -> str:
        return self.html


@dataclass(frozen=True, eq=False)
class Atlas:
    """A site that was built, and its numbers.

    Attributes:
      folder: of the site; open its index.html.
      facts: what the overview says.
      layers: {layer: its units' records, as the site has them}.
      seconds: {step: how long it took}.
    """

    folder: Path
    facts: Mapping[str, Any]
    layers: Mapping[str, Sequence[Mapping[str, Any]]]
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def page(self) -> Path:
        """The page to open."""
        return self.folder / site.PAGE

    def arrays(self, layer: str) -> dict[str, np.ndarray]:
        """The numbers of a layer, by name: those of `zfjax.atlas.measures.Measured`."""
        return files.read_npz(self.folder / _arrays_of(self._number(layer)), "build the atlas again")

    def unit(self, layer: str, channel: int) -> UnitView:
        """One unit, which a notebook shows by itself; UserError for one that is not there."""
        number = self._number(layer)
        records = self.layers[layer]
        if not 0 <= channel < len(records):
            raise UserError(f"channel={channel}: 0 to {len(records) - 1} is needed in layer {layer!r}")
        record, facts = records[channel], self.facts["layers"][number]
        kinds = ["patch", *self.facts["ways"]]
        pictures = []
        for kind in kinds if record["images"] else []:
            data = (self.folder / _sheet_of(number, channel, kind)).read_bytes()
            source = "data:image/webp;base64," + base64.b64encode(data).decode()
            pictures.append({"source": source, "words": "patches" if kind == "patch" else kind})
        scales = ", ".join(
            f"{way} ±{scale:.3g}" for way, scale in zip(self.facts["ways"], record["scales"], strict=True)
        )
        html = site.page(
            "unit.html.j2",
            net=self.facts["name"],
            layer=layer,
            name=record["name"],
            facts=f"strongest activation {record['strength']:.4g}"
            + ("" if record["selectivity"] is None else f", class selectivity {record['selectivity']:.2f}"),
            pictures=pictures,
            width=facts["sheet"],
            scales=f"Zero is mid-grey; one scale for all projections of the unit: {scales}"
            if pictures
            else "no image excites it",
        )
        return UnitView(html)

    def _number(self, layer: str) -> int:
        if layer not in self.layers:
            raise UserError(f"layer={layer!r}: one of {', '.join(self.layers)} is needed")
        return list(self.layers).index(layer)

    def _repr_html_(self) -> str:
        units = sum(map(len, self.layers.values()))
        return site.page("atlas.html.j2", name=self.facts["name"], page=str(self.page), units=f"{units:,}")


def build(
    net: Net,
    images: ImageSet | Source | np.ndarray,
    out: Path | str,
    *,
    options: Options | None = None,
    work: Path | None = None,
    progress: bool = True,
    **changes: Any,
) -> Atlas:
    """Write an atlas of `net` into the folder `out`.

    Args:
      net: any network.
      images: a data set, whose validation split is looked through; a `Source`; or pictures uint8 [N, *picture_size, C].
      out: folder of the site; an atlas that was begun there goes on where it was stopped.
      options: how it is made.
      work: folder of the scan, which later atlases of the same net and images start from; by default one in `out`.
      progress: show bars.
      changes: fields of `Options`, as layers=("conv4", "conv5").

    Returns:
      Atlas. UserError for an unknown layer or way, pictures of another size, or a folder that holds something else.

    Examples:
      atlas = zfjax.atlas.build(net, zfjax.open_data("demo"), "atlas")
      atlas.unit("conv4", 17)
    """
    options = _checked(options or Options(), changes)
    layers = _layers_of(net, options)
    source, classes, of = _opened(net, images)
    started = time.monotonic()
    seconds: dict[str, float] = {}

    def clock(step: str) -> None:
        nonlocal started
        seconds[step], started = round(time.monotonic() - started, 2), time.monotonic()

    page = site.Site(Path(out))
    work = page.folder / "scan" if work is None else work
    key = f"{net.fingerprint} {of['fingerprint']}"
    maxima = scan(
        net,
        source,
        layers,
        work,
        key=key,
        batch_size=options.batch_size,
        save_every=options.save_every,
        progress=progress,
    )
    clock("scan")
    shapes = nets.shapes_of(net, layers)
    measured = {layer: _measured(maxima, layer, shapes[layer], options.num_images, len(classes)) for layer in layers}
    clock("measures")
    ending = json.dumps([key, len(source), options.ways, options.num_images, options.grey, sprites.TILE])
    drawn = _draw_all(net, source, page, measured, options, key=ending, progress=progress)
    clock("pictures")
    records = {layer: _records(net, layer, measured[layer], drawn[layer]) for layer in layers}
    for layer, wires in _wires(net, layers).items():
        for record, wire in zip(records[layer], wires, strict=True):
            record.update(wire)
    clock("wiring")
    facts = _facts(net, source, of, classes, layers, measured, records, options)
    clock("sanity")
    _write(net, source, page, maxima, measured, records, facts, options)
    clock("site")
    return Atlas(page.folder, facts, records, seconds)


def _checked(options: Options, changes: Mapping[str, Any]) -> Options:
    known = Options.__dataclass_fields__
    for name in changes:
        if name not in known:
            raise UserError(f"{name}={changes[name]!r}: one of {', '.join(known)} is needed")
    options = Options(**{**vars(options), **changes})
    for way in options.ways:
        if way not in WAYS:
            raise UserError(f"ways={options.ways!r}: each one of {', '.join(map(repr, WAYS))} is needed")
    if not options.ways or len(set(options.ways)) != len(options.ways):
        raise UserError(f"ways={options.ways!r}: at least one is needed, each once")
    for name in ("num_images", "batch_size"):
        if getattr(options, name) < 1:
            raise UserError(f"{name}={getattr(options, name)}: at least 1 is needed")
    return options


def _layers_of(net: Net, options: Options) -> tuple[str, ...]:
    """The layers to show, from the image up."""
    wanted = {nets.check_layer(net, layer) for layer in options.layers}
    if not wanted:
        wanted = {*nets.map_layers(net), *filter(None, [nets.logits_layer(net)])}
    return tuple(layer for layer in net.layers if layer in wanted)


class _Pictures:
    """Pictures in memory, as a source; unlike `ArraySource` of any shape and without labels."""

    def __init__(self, pictures: np.ndarray):
        self._pictures = pictures

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self._pictures[index], "label": np.int32(-1), "index": np.int32(index)}


def _opened(net: Net, images: ImageSet | Source | np.ndarray) -> tuple[Source, tuple[str, ...], dict[str, Any]]:
    """(what is looked through, the classes of its labels, what it is called)."""
    if isinstance(images, ImageSet):
        source, classes = sets.validation_of(images), archives.class_words(images.class_names)
        of = {"name": images.name, "fingerprint": images.fingerprint}
    elif isinstance(images, np.ndarray | jax.Array):
        array = np.asarray(images)
        needed = (*nets.size_of(net.picture_size), nets.num_channels(net))
        if array.dtype != np.uint8 or array.shape[1:] != needed:
            raise UserError(
                f"images of type {array.dtype} and shape {array.shape}: pictures uint8 "
                f"[N, {', '.join(map(str, needed))}] are needed, as {net.name} prepares them"
            )
        source, classes, of = (
            _Pictures(array),
            (),
            {"name": f"{len(array)} pictures", "fingerprint": files.digest(array)},
        )
    else:
        source, classes = images, nets.class_words(net)
        of = {"name": type(source).__name__, "fingerprint": _digest_of(source)}
    if not len(source):
        raise UserError("images: at least one picture is needed")
    shape, needed = source[0]["image"].shape, (*nets.size_of(net.picture_size), nets.num_channels(net))
    if shape != needed:
        raise UserError(f"images of shape {shape}: {needed} is needed, the size of the pictures of {net.name}")
    return source, classes, of


def _digest_of(source: Source) -> str:
    """Of a source that does not say which it is: its length and its first, middle and last pictures."""
    places = sorted({0, len(source) // 2, len(source) - 1})
    return files.digest([np.array(len(source)), *(source[place]["image"] for place in places)])


def _measured(maxima: Maxima, layer: str, shape: tuple[int, ...], k: int, num_classes: int) -> Measured:
    """Of all units of a layer, some at a time."""
    size = (shape[0], shape[1]) if len(shape) == 3 else (1, 1)
    parts = [
        measures.measure(
            *maxima.of(layer, slice(start, start + 64)), maxima.labels, k=k, num_classes=num_classes, size=size
        )
        for start in range(0, shape[-1], 64)
    ]
    return Measured(*(np.concatenate(fields) for fields in zip(*parts, strict=True)))


def _part(measured: Measured, units: slice) -> Measured:
    return Measured(*(of[units] for of in measured))


def _sheet_of(number: int, channel: int, kind: str) -> str:
    return f"img/{number}/{channel}-{kind}.webp"


def _image_of(index: int) -> str:
    return f"img/whole/{index}.webp"


def _arrays_of(number: int) -> str:
    return f"arrays/{number}.npz"


Drawn = dict[str, np.ndarray]  # boxes [U, 4 of each image], scales [U, ways], resemblance [U], object [U, 2], grey [U]


def _draw_all(
    net: Net,
    source: Source,
    page: site.Site,
    measured: Mapping[str, Measured],
    options: Options,
    *,
    key: str,
    progress: bool,
) -> dict[str, Drawn]:
    """Draw the sheets of all units and the whole images, some units at a time; what is there already stays."""
    total = sum(len(of.strength) for of in measured.values())
    found: dict[str, Drawn] = {}
    with tqdm(total=total, unit=" units", desc="drawing", disable=not progress) as bar:
        for number, (layer, of_layer) in enumerate(measured.items()):
            parts = []
            for start in range(0, len(of_layer.strength), AT_ONCE):
                channels = np.arange(start, min(start + AT_ONCE, len(of_layer.strength)))
                part = _part(of_layer, slice(start, start + AT_ONCE))
                parts.append(_draw_block(net, source, page, number, layer, channels, part, options, key))
                bar.update(len(channels))
            found[layer] = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return found


def _draw_block(
    net: Net,
    source: Source,
    page: site.Site,
    number: int,
    layer: str,
    channels: np.ndarray,
    part: Measured,
    options: Options,
    key: str,
) -> Drawn:
    notes = page.folder / "scan" / f"drawn-{number}-{channels[0]}.npz"
    excited = channels[(part.images >= 0).any(axis=1)]
    names = [_sheet_of(number, m, kind) for m in excited for kind in ("patch", *options.ways)]
    names += [_image_of(index) for index in np.unique(part.images[part.images >= 0])]
    belongs = json.dumps([key, layer, channels.tolist(), files.digest([part.images, part.values])])
    if notes.exists():
        kept = files.read_npz(notes, "remove it, and its units are drawn anew")
        if str(kept.pop("key", "")) == belongs and all(page.keep(name) for name in names):
            return kept
    block = sprites.draw(net, source, layer, channels, part, options.ways)
    alive = set(excited.tolist())
    for m, kind, data in sprites.sheets(block):
        if int(channels[m]) in alive:
            page.write(_sheet_of(number, int(channels[m]), kind), data)
    for index, picture in zip(block.shown, block.views.pictures, strict=True):
        if not page.has(_image_of(index)):
            page.write(_image_of(index), sprites.webp(picture))
    first = block.ways[options.ways[0]]
    num = len(channels)
    drawn = {
        "boxes": first.seen.boxes + np.zeros((num, 1, 1), int),
        "scales": np.stack([of.seen.scales for of in block.ways.values()], axis=1).astype(np.float32),
        "resemblance": first.resemblance,
        "object": np.full((num, 2), np.nan, np.float32) if first.on_object is None else first.on_object,
        "grey": _grey(net, source, layer, channels, part) if options.grey else np.full(num, np.nan, np.float32),
    }
    files.save_arrays(notes, {**drawn, "key": np.array(belongs)})
    return drawn


def _grey(net: Net, source: Source, layer: str, channels: np.ndarray, part: Measured) -> np.ndarray:
    """float32 [u]: the share of the units' activations in their strongest images that stays when these are grey."""
    drawn = part.images >= 0
    shown, which = np.unique(part.images[drawn], return_inverse=True)
    values = np.full(drawn.shape, np.nan)
    fn = as_partial(nets.features_of_pictures(net, [layer]))
    strongest = np.zeros((len(shown), len(channels)), np.float32)
    for rows in full_batches(len(shown), AT_ONCE) if len(shown) else []:
        pictures = np.stack([source[int(shown[row])]["image"] for row in rows])
        strongest[rows] = np.asarray(maxima_of(fn, pixels.grey(pictures))[layer][0])[:, channels]
    values[drawn] = strongest[which, np.nonzero(drawn)[0]]
    counted = part.values > 0
    before = np.where(counted, part.values, 0).sum(axis=1, dtype=np.float64)
    after = np.where(counted, np.maximum(values, 0), 0).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (after / before).astype(np.float32)


def _records(net: Net, layer: str, measured: Measured, drawn: Drawn) -> list[dict[str, Any]]:
    """What the site says of each unit of a layer."""
    records = []
    for m in range(len(measured.strength)):
        there = measured.images[m] >= 0
        classes = measured.top_classes[m]
        best = np.argsort(-classes, kind="stable")[:5]
        records.append(
            {
                "name": nets.unit_name(net, layer, m),
                "strength": _number(measured.strength[m]),
                "mean": _number(measured.mean[m]),
                "sparsity": _number(measured.sparsity[m]),
                "selectivity": _number(measured.selectivity[m]),
                "resemblance": _number(drawn["resemblance"][m]),
                "class": int(measured.best_class[m]),
                "classes": [[int(label), int(classes[label])] for label in best if classes[label] > 0],
                "images": measured.images[m][there].tolist(),
                "values": [_number(value) for value in measured.values[m][there]],
                "boxes": drawn["boxes"][m][there].tolist(),
                "scales": [_number(scale) for scale in drawn["scales"][m]],
                "histogram": [*measured.histogram[m].tolist(), _number(measured.low[m]), _number(measured.high[m])],
                "where": measured.where[m].ravel().tolist(),
                "grey": _number(drawn["grey"][m]),
                "object": None if np.isnan(drawn["object"][m, 0]) else [_number(share) for share in drawn["object"][m]],
            }
        )
    return records


def _number(value: Any) -> float | None:
    """Four digits are enough for a page; None where there is no number."""
    return float(f"{value:.4g}") if np.isfinite(value) else None


def _wires(net: Net, layers: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """{layer: for each unit "inputs" and "outputs", [unit, weight] each}, where the network is of a table."""
    if not isinstance(net, OfTable):
        return {}
    rows, weights = net.architecture.layers, {}
    num_below = net.channels
    for row in rows:
        weights[row.name] = measures.wiring(row, np.asarray(net.params[row.name]["kernel"], np.float32), num_below)
        num_below = row.features
    names = [row.name for row in rows]
    found = {}
    for layer in layers:
        number = names.index(layer)
        below = None if number == 0 else (names[number - 1], weights[layer])
        above = None if number + 1 == len(names) else (names[number + 1], weights[names[number + 1]].T)
        found[layer] = [
            {kind: _largest(of, m) for kind, of in (("inputs", below), ("outputs", above)) if of is not None}
            for m in range(rows[number].features)
        ]
    return found


def _largest(of: tuple[str, np.ndarray], m: int) -> dict[str, Any]:
    layer, weights = of
    best = np.argsort(-np.abs(weights[m]), kind="stable")[:WIRES]
    return {"layer": layer, "units": [[int(n), _number(weights[m, n])] for n in best if weights[m, n] != 0]}


def _facts(
    net: Net,
    source: Source,
    of: Mapping[str, Any],
    classes: Sequence[str],
    layers: Sequence[str],
    measured: Mapping[str, Measured],
    records: Mapping[str, Sequence[Mapping[str, Any]]],
    options: Options,
) -> dict[str, Any]:
    """What the overview says."""
    shapes = nets.shapes_of(net, layers)
    height, width = nets.size_of(net.image_size)
    facts = []
    for layer in layers:
        field, of_layer = net.receptive_field(layer), measured[layer]
        whole = field is None or field.size >= max(height, width)
        tile = sprites.tile_size(*((height, width) if field is None or whole else (field.size, field.size)))
        order = np.argsort(-of_layer.strength, kind="stable")
        facts.append(
            {
                "name": layer,
                "shape": shapes[layer],
                "field": None if field is None else field.size,
                "sees_all": whole,
                "cells": of_layer.where.shape[1:],
                "dead": int((of_layer.strength <= 0).sum()),
                "strongest": [int(m) for m in order[:STRIP] if records[layer][m]["images"]],
                "tile": tile,
                "sheet": max(180, 3 * tile[1]),
                "is_logits": layer == nets.logits_layer(net),
            }
        )
    return {
        "name": net.name,
        "fingerprint": net.fingerprint,
        "image_size": [height, width],
        "net_layers": net.layers,
        "data": {**of, "num_images": len(source), "classes": list(classes)},
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("zfjax", "jax", "numpy")},
        },
        "ways": options.ways,
        "num_images": options.num_images,
        "columns": sprites.num_columns(options.num_images),
        "layers": facts,
        "meanings": measures.MEANINGS,
        "switches": _likeness(net, source, measured),
        "filters": _filter_size(net, layers),
        "embeds": EMBEDS,
    }


def _likeness(net: Net, source: Source, measured: Mapping[str, Measured]) -> dict[str, Any] | None:
    """How alike the pictures of two units of one place are, the strongest and the weakest active one: mean cosine."""
    hidden = [layer for layer in nets.hidden_layers(net) if layer in measured]
    if not hidden:
        return None
    layer = hidden[-1]
    chosen = np.unique(measured[layer].images[measured[layer].images >= 0])
    if not len(chosen):
        return None
    chosen = chosen[np.linspace(0, len(chosen) - 1, min(ASKED, len(chosen))).astype(int)]
    images = nets.read_views(source, chosen, net).images
    ways = sanity.ways_of(net, layer, images)
    first, second = (ways.down(top, layer) for top in sanity.neuron_tops(ways.features[layer]))
    cosines = {}
    for name, way in sanity.WAY_NAMES.items():
        values = sanity.cosine(first[name], second[name])
        if np.isfinite(values).any():
            cosines[way] = _number(np.nanmean(values))
    return {"layer": layer, "num_images": len(images), "cosine": cosines}


def _filter_size(net: Net, layers: Sequence[str]) -> dict[str, Any] | None:
    """Where the filters of the first layer stand on their sheet."""
    kernel = getattr(net, "first_filters", None)
    if kernel is None or net.layers[0] not in layers:
        return None
    return {
        "layer": net.layers[0],
        "size": kernel.shape[:2],
        "columns": sprites.num_columns(kernel.shape[3]),
        "scale": _number(pixels.filter_pictures(kernel)[1]),
    }


def _write(
    net: Net,
    source: Source,
    page: site.Site,
    maxima: Maxima,
    measured: Mapping[str, Measured],
    records: Mapping[str, Sequence[Mapping[str, Any]]],
    facts: Mapping[str, Any],
    options: Options,
) -> None:
    """Everything but the sheets."""
    for number, (layer, of_layer) in enumerate(records.items()):
        page.write(f"data/layer-{number}.js", site.script(f"layer-{number}", of_layer))
        page.write(_arrays_of(number), files.npz(measured[layer]._asdict()))
    shown = np.unique(np.concatenate([of.images[of.images >= 0] for of in measured.values()]))
    chunks: dict[int, dict[str, Any]] = {}
    for index, record in _images(net, source, maxima, measured, shown):
        chunks.setdefault(index // CHUNK, {})[str(index)] = record
    for number, chunk in chunks.items():
        page.write(f"data/images-{number}.js", site.script(f"images-{number}", chunk))
    if facts["filters"] is not None:
        pictures = pixels.filter_pictures(net.first_filters)[0]  # type: ignore[attr-defined]
        page.write("img/filters.webp", sprites.webp(sprites.in_square(pictures), fine=True))
    page.write("data/net.js", site.script("net", {**facts, "chunk": CHUNK}))
    for name in site.STATIC:
        page.write(name, site.static(name))
    page.write(site.PAGE, site.page("index.html.j2", title=net.name).encode())
    page.close({"atlas": facts, "options": options})


def _images(
    net: Net, source: Source, maxima: Maxima, measured: Mapping[str, Measured], shown: np.ndarray
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(index, what the site says of it) of each image that is shown."""
    logits = nets.logits_layer(net)
    for index in map(int, shown):
        best: dict[str, Any] = {}
        for number, (layer, of_layer) in enumerate(measured.items()):
            values = maxima.values[index, maxima.columns[layer]]
            share = np.divide(values, of_layer.strength, out=np.zeros_like(values), where=of_layer.strength > 0)
            order = np.argsort(-share, kind="stable")[:BEST_OF_IMAGE]
            best[str(number)] = [[int(m), _number(values[m]), _number(share[m])] for m in order if values[m] > 0]
        record = {"name": name_of(source, index), "label": int(maxima.labels[index]), "units": best}
        if logits is not None and logits in measured and len(net.class_names):
            record["said"] = nets.unit_name(net, logits, int(np.argmax(maxima.values[index][maxima.columns[logits]])))
        yield index, record
