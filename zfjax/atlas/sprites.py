"""The pictures of the atlas: for each unit one sheet of its patches, and one of its projections for each way down."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from PIL import Image

from zfjax import nets, pixels
from zfjax.analyses import strongest
from zfjax.analyses.strongest import OUTSIDE, Strongest
from zfjax.atlas.measures import Measured
from zfjax.data import Source, name_of
from zfjax.deconvnet import Way
from zfjax.nets import Net, Views
from zfjax.units import Unit
from zfjax.windows import Windows

TILE = 88  # pixels of the longer side of a tile, at most, unless told
FINE = 32  # below it a sheet is kept to the pixel
QUALITY = 80
NEAR = 12  # to a part is what lies within this share of the image's shorter side, one in so many
APART = 60  # pixels of the longer side that a small tile is enlarged to in a notebook, at most
NOTHING = 128  # mid-grey, between tiles and where nothing is drawn


class Block(NamedTuple):
    """What the atlas draws of u units."""

    ways: dict[Way, Strongest]
    resemblance: np.ndarray  # float32 [u], of the first way; NaN where nothing is drawn
    on_object: np.ndarray | None  # float32 [u, 2], likewise: energy there, and by chance; None where it is not known
    on_parts: np.ndarray | None  # float32 [u, parts, 2], likewise
    views: Views  # of the images drawn
    indices: np.ndarray  # int [images of `views`] their indices


def draw(
    net: Net, source: Source, *, layer: str, channels: np.ndarray, measured: Measured, ways: Sequence[Way]
) -> Block:
    """Carry the strongest activations of some units down to the pixels, each alone, and cut out what they see.

    Args:
      net, source, layer: any network, the pictures, and where the units stand.
      channels: int [u].
      measured: of these units.
      ways: down.
    """
    drawn = measured.images >= 0
    indices, which = np.unique(measured.images[drawn], return_inverse=True)
    views = nets.read_views(source, indices, net)
    shape = nets.shapes_of(net, [layer])[layer]
    rows, columns = np.divmod(measured.places, shape[1] if len(shape) == 3 else 1)
    of = np.broadcast_to(channels[:, None], drawn.shape)[drawn]
    units = Unit(of, (rows[drawn], columns[drawn]) if len(shape) == 3 else None)
    boxes = strongest.boxes_of(net.receptive_field(layer), nets.size_of(net.image_size), rows=rows, columns=columns)
    cut_all = partial(strongest.cut_boxes, of=which, boxes=boxes, drawn=drawn)
    patches = cut_all(views.pictures, fill=OUTSIDE)
    inside = cut_all(np.ones((*views.pictures.shape[:3], 1), bool), fill=False)[..., 0]
    objects = None if views.objects is None else cut_all(views.objects[..., None], fill=False)[..., 0]
    names = np.array([[name_of(source, int(index)) if index >= 0 else "" for index in row] for row in measured.images])
    nothing = Windows(np.zeros((0, *views.images.shape[1:]), np.float32), *np.zeros((2, 0), np.int32))
    carried: dict[Way, Windows] = dict.fromkeys(ways, nothing)
    if len(of):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "seed='value'")  # the page says which activations are below 0
            carried = nets.project_windows(net, views.images, units, ways=ways, layer=layer, of=which)
    by_way: dict[Way, Strongest] = {}
    for way, windows in carried.items():
        nets.check_finite(net, {layer: windows.pixels})
        projections = strongest.cut_windows(windows, boxes=boxes, drawn=drawn)
        rounding = _rounding(
            net,
            views.images,
            layer=layer,
            way=way,
            units=units,
            which=which,
            windows=windows,
            measured=measured,
            drawn=drawn,
        )
        by_way[way] = Strongest(
            maps=channels,
            values=measured.values,
            images=measured.images,
            boxes=boxes,
            projections=projections,
            patches=patches,
            inside=inside,
            objects=objects,
            scales=np.where(rounding, np.inf, [pixels.symmetric_scale(of_map) for of_map in projections]),
            names=names,
            rounding=rounding,
        )
    first = by_way[ways[0]]
    near = min(nets.size_of(net.image_size)) / NEAR
    parts = None if views.parts is None else np.full((*drawn.shape, *views.parts.shape[1:]), np.nan)
    if parts is not None and views.parts is not None:
        parts[drawn] = views.parts[which] - boxes[drawn][:, None, :2]
    on_parts = None if parts is None else _on_parts(first, parts, near)
    return Block(by_way, _resemblance(first), _on_object(first), on_parts, views, indices)


def _rounding(
    net: Net,
    images: np.ndarray,
    *,
    layer: str,
    way: Way,
    units: Unit,
    which: np.ndarray,
    windows: Windows,
    measured: Measured,
    drawn: np.ndarray,
) -> np.ndarray:
    """bool [u]: of each unit the largest picture is nothing but rounding."""
    rounding = np.zeros(len(drawn), bool)
    largest = np.full(drawn.shape, -1.0)
    largest[drawn] = np.abs(windows.pixels).max(axis=(1, 2, 3), initial=0)
    first = np.flatnonzero((largest > 0).any(axis=1))
    if len(first) and not isinstance(net, nets.OfTable):
        chosen = (np.cumsum(drawn).reshape(drawn.shape) - 1)[first, largest[first].argmax(axis=1)]
        at_once = min(len(which), getattr(net, "units_at_once", 1))
        chosen = np.resize(chosen, max(len(chosen), at_once))  # one program
        place = jax.tree.map(lambda index: index[chosen], units.position)
        some = Unit(np.asarray(units.channel)[chosen], place)
        values = measured.values[drawn][chosen]
        pictures = Windows(*(field[chosen] for field in windows)).paste(images.shape[1:3])
        again = strongest.is_rounding(
            net, images, units=some, pictures=pictures, values=values, layer=layer, of=which[chosen], way=way
        )
        rounding[first] = again[: len(first)]
    return rounding


def _resemblance(projected: Strongest) -> np.ndarray:
    own = [strongest.correlations(projected, m, m) for m in range(len(projected.maps))]
    return np.array([np.mean(of_unit) if of_unit else np.nan for of_unit in own], np.float32)


def _on_object(projected: Strongest) -> np.ndarray | None:
    if projected.objects is None:
        return None
    shares = [_share_on(projected, m, projected.objects[m]) for m in range(len(projected.maps))]
    return np.array(shares, np.float32).reshape(-1, 2)


def _on_parts(projected: Strongest, parts: np.ndarray, near: float) -> np.ndarray:
    """`parts` [u, k, P, 2]: (y, x) in the patches; `near`: pixels. -> float32 [u, P, 2]"""
    height, width = projected.inside.shape[2:]
    rows, columns = np.arange(height)[:, None] + 0.5, np.arange(width) + 0.5  # the middles of the pixels
    shares = np.zeros((len(parts), *parts.shape[2:]), np.float32)
    for m, n in np.ndindex(shares.shape[:2]):
        y, x = (place[:, None, None] for place in parts[m, :, n].T)
        shares[m, n] = _share_on(projected, m, (rows - y) ** 2 + (columns - x) ** 2 <= near**2)
    return shares


def _share_on(projected: Strongest, m: int, there: np.ndarray) -> tuple[float, float]:
    """Mean share of map number m's energy, and of its patches' pixels, where `there` bool [k, h, w]."""
    energy = np.square(projected.projections[m], dtype=np.float64).sum(axis=-1)
    drawn = energy.sum(axis=(1, 2)) > 0
    if not drawn.any():
        return np.nan, np.nan
    on, inside, there = energy[drawn], projected.inside[m][drawn], there[drawn]
    share = (on * there).sum(axis=(1, 2)) / on.sum(axis=(1, 2))
    chance = (there & inside).sum(axis=(1, 2)) / inside.sum(axis=(1, 2))
    return float(share.mean()), float(chance.mean())


def tile_size(height: int, width: int, longest: int = TILE) -> tuple[int, int]:
    """(height, width) of the tiles of patches of this size."""
    shrink = min(1.0, longest / max(height, width))
    return max(1, round(height * shrink)), max(1, round(width * shrink))


def sheets(block: Block, longest: int = TILE, quality: int = QUALITY) -> Iterator[tuple[int, str, bytes]]:
    """(number of the unit in the block, "patch" or the way, WebP) of all sheets."""
    patches = next(iter(block.ways.values())).patches
    for m in range(len(patches)):
        yield m, "patch", sheet(patches[m], longest, quality)
        for way, projected in block.ways.items():
            tiles = pixels.signed_pictures(projected.projections[m], float(projected.scales[m]))
            yield m, way, sheet(tiles, longest, quality)


def sheet(tiles: np.ndarray, longest: int = TILE, quality: int = QUALITY) -> bytes:
    """Tiles uint8 [k, h, w, 3] in a square of rows, without gaps, as WebP; each at most `longest` pixels a side."""
    height, width = tile_size(tiles.shape[1], tiles.shape[2], longest)
    if (height, width) != tiles.shape[1:3]:
        look = Image.Resampling.LANCZOS
        tiles = np.stack([np.asarray(Image.fromarray(tile).resize((width, height), look)) for tile in tiles])
    return webp(in_square(tiles), fine=max(height, width) <= FINE, quality=quality)


def in_square(tiles: np.ndarray) -> np.ndarray:
    """Tiles uint8 [N, h, w, 3] in rows of `num_columns`, without gaps. -> uint8 [H, W, 3]"""
    columns = num_columns(len(tiles))
    blank = np.full((-len(tiles) % columns, *tiles.shape[1:]), NOTHING, np.uint8)
    return pixels.mosaic(np.concatenate([tiles, blank]), columns, gap=0)


def apart(data: bytes, tile: tuple[int, int], columns: int) -> bytes:
    """A sheet's tiles of (height, width) with gaps between them, small ones enlarged pixel by pixel; WebP."""
    with Image.open(io.BytesIO(data)) as opened:
        picture = np.asarray(opened.convert("RGB"))
    height, width = tile
    tiles = picture.reshape(-1, height, columns, width, 3).swapaxes(1, 2).reshape(-1, height, width, 3)
    times = max(1, APART // max(tile))
    return webp(pixels.mosaic(tiles.repeat(times, axis=1).repeat(times, axis=2), columns), fine=True)


def num_columns(num: int) -> int:
    """Tiles in each row of a sheet of `num`."""
    return int(np.ceil(np.sqrt(num)))


def webp(picture: np.ndarray, *, fine: bool = False, quality: int = QUALITY) -> bytes:
    """uint8 [H, W, 3] as WebP; `fine` to the pixel."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "WEBP", quality=quality, method=2, lossless=fine)
    return buffer.getvalue()
