"""From a network and pictures to an atlas: look, measure, draw, write. Stopped, it goes on where it was."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np

from zfjax import files, nets, pixels
from zfjax.atlas import drawing, measures, records, site, sprites
from zfjax.atlas.maxima import Maxima, all_maxima
from zfjax.atlas.measures import Measured
from zfjax.atlas.options import Options
from zfjax.data import ImageSet, Source, archives, sets
from zfjax.deconvnet import Way
from zfjax.errors import UserError
from zfjax.nets import Net
from zfjax.units import Unit

CHUNK = 256  # images whose data are one script


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
        return files.read_npz(self.folder / site.arrays_of(self._number(layer)), "build the atlas again")

    def unit(self, layer: str | Unit, channel: int | None = None) -> UnitView:
        """One unit, which a notebook shows by itself; UserError for one that is not there.

        Args:
          layer: the unit, as Unit(17, layer="conv4"); or its layer.
          channel: with a layer its map or dense unit.
        """
        unit = layer if isinstance(layer, Unit) else Unit(channel, layer=layer)
        layer, index = str(unit.layer), np.asarray(unit.channel)
        number, units = self._number(layer), self.layers[layer]
        if index.dtype.kind not in "iu" or index.ndim or not 0 <= index < len(units):
            raise UserError(f"channel={unit.channel}: 0 to {len(units) - 1} is needed in layer {layer!r}")
        channel = int(index)
        record, facts = units[channel], self.facts["layers"][number]
        kinds = ["patch", *self.facts["ways"]]
        pictures = []
        for kind in kinds if record["images"] else []:
            sheet = (self.folder / site.sheet_of(number, channel, kind)).read_bytes()
            data = sprites.apart(sheet, facts["tile"], self.facts["columns"])
            source = "data:image/webp;base64," + base64.b64encode(data).decode()
            pictures.append({"source": source, "words": "patches" if kind == "patch" else kind})
        scales = ", ".join(
            f"{way} is nothing but rounding" if scale is None else f"{way} ±{scale:.3g}"
            for way, scale in zip(self.facts["ways"], record["scales"], strict=True)
        )
        html = site.page(
            "unit.html.j2",
            net=self.facts["name"],
            layer=layer,
            name=record["name"],
            facts=f"strongest activation {record['strength']:.4g}"
            + ("" if record["selectivity"] is None else f", class selectivity {record['selectivity']:.2f}"),
            pictures=pictures,
            scales=f"Zero is mid-grey; one scale for all pictures of a way: {scales}"
            if pictures
            else "no image excites it",
            in_grey=self.facts["in_grey"],
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
    compare: Net | None = None,
    compare_images: ImageSet | Source | np.ndarray | None = None,
    epochs: Mapping[int, Net] | None = None,
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
      compare: a second network, whose atlas is written below this one; units of layers of one name are matched by the
        correlation of their activations over the images.
      compare_images: the same images at the second network's size, where that is another.
      epochs: {epoch: the network then}, all in memory at once; each unit's strongest image is shown at each of them.
      options: how it is made.
      work: folder of the scans, which later atlases of the same net and images start from; by default one in `out`.
      progress: show bars.
      changes: fields of `Options`, as layers=("conv4", "conv5").

    Returns:
      Atlas. UserError for an unknown layer or way, pictures of another size, or a folder that holds something else.

    Examples:
      atlas = zfjax.atlas.build(net, zfjax.open_data("demo"), "atlas")
      atlas.unit("conv4", 17)
    """
    options = _changed(options or Options(), changes)
    for one in (net, *([] if compare is None else [compare]), *(epochs or {}).values()):
        nets.check_weights(one)
    folder = Path(out)
    own = _opened(net, images)
    layers = _layers_of(net, options)  # before any work
    if epochs:
        nets.check_way_down(net, layers)
    site.check_free(folder)
    common: dict[str, Any] = {"options": options, "work": work, "progress": progress}
    beside = None
    if compare is not None:
        shared = tuple(layer for layer in _layers_of(net, options) if layer in compare.layers)
        if not shared:
            raise UserError(f"compare={compare.name!r}: none of the layers of {net.name}, {', '.join(net.layers)}")
        second = _opened(compare, images if compare_images is None else compare_images, argument="compare_images")
        if len(second.source) != len(own.source):
            raise UserError(
                f"compare_images: {len(second.source)} pictures, and {len(own.source)} of the first network"
            )
        common_too = {**common, "options": replace(options, layers=shared)}
        beside = _build(compare, second, folder / site.COMPARED, **common_too)
    made = _build(net, own, folder, beside=beside, epochs=epochs or {}, **common).atlas
    if compare is None and (folder / site.COMPARED / site.MANIFEST).exists():
        site.Site(folder / site.COMPARED).close({})  # which an earlier call made
    return made


class _Opened(NamedTuple):
    source: Source  # what is looked through
    classes: tuple[str, ...]  # of its labels
    of: dict[str, Any]  # what it is called


class _Built(NamedTuple):
    atlas: Atlas
    maxima: Maxima


def _build(
    net: Net,
    opened: _Opened,
    folder: Path,
    *,
    options: Options,
    work: Path | None,
    progress: bool,
    beside: _Built | None = None,
    epochs: Mapping[int, Net] = MappingProxyType({}),
) -> _Built:
    source, classes, of = opened
    layers = _layers_of(net, options)
    asked = options.ways
    options = replace(options, ways=_ways_of(net, layers, options), num_images=min(options.num_images, len(source)))
    started = time.monotonic()
    seconds: dict[str, float] = {}

    def clock(step: str) -> None:
        nonlocal started
        seconds[step], started = round(time.monotonic() - started, 2), time.monotonic()

    page = site.Site(folder)
    key = f"{net.fingerprint} {of['fingerprint']}"
    maxima = all_maxima(
        net,
        source,
        layers=layers,
        folder=(folder / "scan" if work is None else work) / f"atlas-{files.hash_of(f'{key} {layers}'.encode())[:16]}",
        key=key,
        batch_size=options.batch_size,
        save_every=options.save_every,
        progress=progress,
    )
    classes = _named(classes, maxima.labels)
    clock("scan")
    shapes = nets.shapes_of(net, layers)
    measured = {
        layer: _measured(maxima, layer=layer, shape=shapes[layer], k=options.num_images, num_classes=len(classes))
        for layer in layers
    }
    clock("measures")
    belongs = json.dumps(
        [key, len(source), options.ways, options.num_images, options.grey, options.tile, options.quality]
    )
    drawn = drawing.draw_all(net, source, page, measured=measured, options=options, key=belongs, progress=progress)
    units = {layer: records.records_of(net, layer, measured=measured[layer], drawn=drawn[layer]) for layer in layers}
    clock("pictures")
    if epochs:
        drawn_then = drawing.draw_epochs(epochs, source, page, measured=measured, key=belongs, progress=progress)
        _add(units, records.epochs_of(drawn_then))
        clock("epochs")
    if options.ascent:
        climbed = drawing.draw_ascents(
            net, source, page, measured=measured, options=options, key=belongs, progress=progress
        )
        _add(units, records.ascents_of(climbed))
        clock("ascent")
    _add(units, records.wires(net, layers))
    facts = records.facts_of(net, source, of=of, classes=classes, measured=measured, records=units, options=options)
    facts["epochs"] = list(epochs)
    missing = " and ".join(way for way in asked if way not in options.ways)
    facts["not_applicable"] = {missing: nets.why_no_way_down(net, layers)} if missing else {}
    facts["compare"] = None
    if beside is not None:
        matched, facts["compare"] = _matched(maxima, beside, way=options.ways[0])
        _add(units, matched)
    clock("records")
    of_images = records.images_of(net, source, maxima=maxima, measured=measured)
    if options.num_occluded:
        records.add_occlusion(net, source, of_images, num=options.num_occluded, progress=progress)
        clock("occlusion")
    _write(net, page, measured=measured, units=units, images=of_images, facts=facts, options=options)
    clock("site")
    return _Built(Atlas(page.folder, facts, units, seconds), maxima)


def _add(units: Mapping[str, list[dict[str, Any]]], more: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    for layer, of_layer in more.items():
        for record, wire in zip(units[layer], of_layer, strict=True):
            record.update(wire)


def _matched(maxima: Maxima, beside: _Built, *, way: Way) -> tuple[dict[str, list[dict[str, Any]]], dict[str, Any]]:
    """({layer: for each unit "match", [unit of the other net, correlation]}, what the overview says of it).

    Its pictures are those of `way`, or of its own first one where that does not lead down in it.
    """
    matched, facts, ways = {}, {}, beside.atlas.facts["ways"]
    for number, layer in enumerate(beside.atlas.layers):
        best, correlation = measures.matches(maxima.of(layer)[0], beside.maxima.of(layer)[0])
        matched[layer] = [
            {"match": [int(unit), records.number_of(value)] if unit >= 0 else None}
            for unit, value in zip(best, correlation, strict=True)
        ]
        known = np.isfinite(correlation)
        mean = records.number_of(correlation[known].mean()) if known.any() else None
        facts[layer] = {"number": number, "mean": mean, "tile": beside.atlas.facts["layers"][number]["tile"]}
    return matched, {
        "name": beside.atlas.facts["name"],
        "folder": site.COMPARED,
        "layers": facts,
        "way": way if way in ways else ways[0],
    }


def _changed(options: Options, changes: Mapping[str, Any]) -> Options:
    known = Options.__dataclass_fields__
    for name in changes:
        if name not in known:
            raise UserError(f"{name}={changes[name]!r}: one of {', '.join(known)} is needed")
    return Options(**{**vars(options), **changes})


def _layers_of(net: Net, options: Options) -> tuple[str, ...]:
    """The layers to show, from the image up."""
    wanted = {nets.check_layer(net, layer) for layer in options.layers}
    if not wanted:
        wanted = {*(nets.map_layers(net) or net.layers), net.layers[-1]}
    return tuple(layer for layer in net.layers if layer in wanted)


def _ways_of(net: Net, layers: Sequence[str], options: Options) -> tuple[Way, ...]:
    """Those of the ways asked for that lead down from all of the layers, or the gradient, which always does."""
    known = nets.ways_down(net, layers)
    return tuple(way for way in options.ways if way in known) or ("gradient",)


class _Pictures:
    """Pictures in memory, as a source; unlike `ArraySource` of any shape and without labels."""

    def __init__(self, pictures: np.ndarray):
        self._pictures = pictures

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self._pictures[index], "label": np.int32(-1), "index": np.int32(index)}


def _opened(net: Net, images: ImageSet | Source | np.ndarray, *, argument: str = "images") -> _Opened:
    if isinstance(images, ImageSet):
        source, classes = sets.validation_of(images), archives.class_words(images.class_names)
        of = {"name": images.name, "fingerprint": images.fingerprint}
    elif isinstance(images, np.ndarray | jax.Array):
        array = np.asarray(images)
        needed = (*nets.size_of(net.picture_size), nets.num_channels(net))
        if array.dtype != np.uint8 or array.shape[1:] != needed:
            raise UserError(
                f"{argument} of type {array.dtype} and shape {array.shape}: pictures uint8 "
                f"[N, {', '.join(map(str, needed))}] are needed, as {net.name} prepares them"
            )
        source, classes, of = (
            _Pictures(array),
            (),
            {"name": "an array", "fingerprint": files.digest(array)},
        )
    else:
        if not (hasattr(images, "__len__") and hasattr(images, "__getitem__")):
            raise UserError(f"{argument} of type {type(images).__name__}: a data set, a Source or an array is needed")
        source, classes = images, nets.class_words(net)
        of = {"name": type(source).__name__, "fingerprint": ""}
    if not len(source):
        raise UserError(f"{argument}: at least one picture is needed")
    first, needed = source[0], (*nets.size_of(net.picture_size), nets.num_channels(net))
    if not isinstance(first, Mapping) or not {"image", "label", "index"} <= first.keys():
        given = ", ".join(map(str, first)) if isinstance(first, Mapping) else f"a {type(first).__name__}"
        raise UserError(
            f"{argument}: entry 0 is {given}: {{'image', 'label', 'index'}} are needed, as of a Source (label -1: none)"
        )
    if np.asarray(first["label"]).dtype.kind not in "iu":
        raise UserError(
            f"{argument}: entry 0 has the label {first['label']!r}: a whole number is needed; -1 is no class"
        )
    image = np.asarray(first["image"])
    if image.dtype != np.uint8 or image.shape != needed:
        raise UserError(
            f"{argument} of type {image.dtype} and shape {image.shape}: uint8 {needed} is needed, the size of the "
            f"pictures of {net.name}"
        )
    return _Opened(source, classes, {**of, "fingerprint": of["fingerprint"] or _digest_of(source)})


def _digest_of(source: Source) -> str:
    """Of every entry of a source that has no fingerprint, read once: a scan of other pictures must not go on."""
    digests: list[str] = []
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(source), CHUNK):  # so many in memory
            chunk = range(start, min(start + CHUNK, len(source)))
            digests += pool.map(lambda index: files.digest(source[index]), chunk)
    return files.hash_of(" ".join(digests).encode())


def _named(classes: tuple[str, ...], labels: np.ndarray) -> tuple[str, ...]:
    """The classes of the labels, by number where they have no names; UserError for a label beyond them."""
    num = int(labels.max(initial=-1)) + 1
    if classes and num > len(classes):
        raise UserError(f"images: label {num - 1}, where there are {len(classes)} classes, 0 to {len(classes) - 1}")
    return classes or tuple(map(str, range(num)))


def _measured(maxima: Maxima, *, layer: str, shape: tuple[int, ...], k: int, num_classes: int) -> Measured:
    """Of all units of a layer, some at a time."""
    size = (shape[0], shape[1]) if len(shape) == 3 else (1, 1)
    parts = [
        measures.measure(
            *maxima.of(layer, slice(start, start + 64)), maxima.labels, k=k, num_classes=num_classes, size=size
        )
        for start in range(0, shape[-1], 64)
    ]
    return Measured(*(np.concatenate(fields) for fields in zip(*parts, strict=True)))


def _write(
    net: Net,
    page: site.Site,
    *,
    measured: Mapping[str, Measured],
    units: Mapping[str, Sequence[Mapping[str, Any]]],
    images: Mapping[int, Mapping[str, Any]],
    facts: Mapping[str, Any],
    options: Options,
) -> None:
    """Everything but the sheets."""
    for number, (layer, of_layer) in enumerate(units.items()):
        page.write(f"data/layer-{number}.js", site.script(f"layer-{number}", of_layer))
        page.write(site.arrays_of(number), files.npz(measured[layer]._asdict()))
    chunks: dict[int, dict[str, Any]] = {}
    for index, record in images.items():
        chunks.setdefault(index // CHUNK, {})[str(index)] = record
    for number, chunk in chunks.items():
        page.write(f"data/images-{number}.js", site.script(f"images-{number}", chunk))
    if facts["filters"] is not None and (kernel := nets.own_filters(net)) is not None:
        pictures = pixels.filter_pictures(kernel)[0]
        page.write("img/filters.webp", sprites.webp(sprites.in_square(pictures), fine=True))
    page.write("data/net.js", site.script("net", {**facts, "chunk": CHUNK, "chunks": sorted(chunks)}))
    for name in site.STATIC:
        page.write(name, site.static(name))
    page.write(site.PAGE, site.page("index.html.j2", title=facts["title"]).encode())
    page.close({"atlas": facts, "options": options})
