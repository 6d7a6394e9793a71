"""Between stored pictures and the network's input: mean, sub-crops, mirror; and back to something to look at.

Network pixels are float32 with the per-pixel mean of the training images subtracted and nothing divided (sec. 3), so
they lie in about [-128, 128]; a projection has the same unit. `signed_pictures` makes uint8 pictures of projections,
zero as mid-grey, and `mosaic` lays pictures out side by side.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from PIL import Image

from zfjax.architecture import Size
from zfjax.errors import UserError

Crops = Literal["ten", "random"]
Pixels = TypeVar("Pixels", jax.Array, np.ndarray)  # traced or NumPy's
_SIZE = re.compile("[1-9][0-9]{0,5}(x[1-9][0-9]{0,5})?")  # in words


def size_of(size: Size) -> tuple[int, int]:
    """(height, width) of a size, pixels; UserError for what is no size of a picture."""
    given = np.asarray(size)
    if given.shape not in ((), (2,)) or not np.issubdtype(given.dtype, np.integer):
        raise UserError(f"size={size!r}: a whole number of pixels, or (height, width), is needed")
    height, width = np.broadcast_to(given, (2,)).tolist()
    return height, width


def as_size(sides: Sequence[int]) -> Size:
    """(height, width) as a size: one number where they are the same."""
    height, width = sides
    return int(height) if height == width else (int(height), int(width))


def size_words(size: Size) -> str:
    """A size in words, "224", or "48x64" of a height and another width: what `size_of_words` reads."""
    height, width = size_of(size)
    return f"{height}" if height == width else f"{height}x{width}"


def size_of_words(words: str) -> Size:
    """The size that "224", or "48x64" for a height and a width, names; UserError for other words.

    Examples:
      >>> zfjax.pixels.size_of_words("48x64"), zfjax.pixels.size_of_words("64x64")
      ((48, 64), 64)
    """
    if not is_size(words):
        raise UserError(f"{words!r}: a number of pixels, as 64, or HEIGHTxWIDTH, as 48x64, is needed")
    numbers = words.split("x")
    return as_size((int(numbers[0]), int(numbers[-1])))


def is_size(words: str) -> bool:
    """Whether `size_of_words` reads it."""
    return _SIZE.fullmatch(words) is not None


def subtract_mean(pictures: Pixels, mean: Pixels) -> Pixels:
    """uint8 [B, H, W, C] minus the mean image float32 [H, W, C], both stored at the same size. -> float32

    Examples:
      >>> import numpy as np, zfjax
      >>> zfjax.pixels.subtract_mean(np.full((1, 2, 2, 1), 9, np.uint8), np.full((2, 2, 1), 4, np.float32))[0, :, :, 0]
      array([[5., 5.],
             [5., 5.]], dtype=float32)
    """
    if pictures.shape[1:] != mean.shape:
        raise UserError(f"mean of shape {mean.shape}: the pictures are {pictures.shape[1:]}")
    centred: Pixels = pictures.astype(jnp.float32) - mean[None]
    return centred


def center_crop(pictures: Pixels, mean: Pixels, size: Size) -> Pixels:
    """The mean-subtracted centre of each picture. [B, H, W, C] uint8 -> [B, *size, C] float32

    Examples:
      >>> import numpy as np, zfjax
      >>> zfjax.pixels.center_crop(np.full((1, 4, 4, 1), 9, np.uint8), np.full((4, 4, 1), 4, np.float32), 2)[0, :, :, 0]
      array([[5., 5.],
             [5., 5.]], dtype=float32)
    """
    (rows, columns), (height, width) = _margins(pictures, size), size_of(size)
    top, left = rows // 2, columns // 2
    return subtract_mean(pictures, mean)[:, top : top + height, left : left + width]


def ten_crops(pictures: jax.Array, mean: jax.Array, size: Size) -> jax.Array:
    """Four corners and the centre, then their mirror images (sec. 3). -> float32 [10, B, *size, C]"""
    places, (height, width) = _five_places(pictures, size).tolist(), size_of(size)
    images = subtract_mean(pictures, mean)
    views = [images[:, top : top + height, left : left + width] for top, left in places]
    return jnp.stack([*views, *(view[:, :, ::-1] for view in views)])


def training_crops(
    pictures: jax.Array, mean: jax.Array, keys: jax.Array, *, size: Size, crops: Crops = "ten"
) -> jax.Array:
    """One sub-crop of each picture, mirrored half of the time, drawn with the picture's own key.

    Args:
      pictures: uint8 [B, H, W, C].
      mean: float32 [H, W, C].
      keys: typed keys [B].
      size: side of the crop, or (height, width), at most the picture's.
      crops: "ten", one of the paper's ten fixed sub-crops (4 corners and centre, mirrored or not; sec. 3);
        "random", a place anywhere.

    Returns:
      float32 [B, *size, C]; UserError for a crop larger than the picture or an unknown rule.
    """
    if crops not in ("ten", "random"):
        raise UserError(f"crops={crops!r}: one of 'ten', 'random' is needed")
    rows, columns = _margins(pictures, size)

    def crop(image: jax.Array, key: jax.Array) -> jax.Array:
        place_key, mirror_key = jax.random.split(key)
        if crops == "ten":
            place = jnp.asarray(_five_places(pictures, size))[jax.random.randint(place_key, (), 0, 5)]
        else:
            place = jax.random.randint(place_key, (2,), 0, jnp.array([rows + 1, columns + 1]))
        view = lax.dynamic_slice(image, (place[0], place[1], 0), (*size_of(size), image.shape[-1]))
        return jnp.where(jax.random.bernoulli(mirror_key), view[:, ::-1], view)

    return jax.vmap(crop)(subtract_mean(pictures, mean), keys)


def as_picture(projection: np.ndarray, scale: float) -> np.ndarray:
    """A signed projection as a picture in [0, 1]: zero is mid-grey, +-scale are white and black."""
    if not scale >= 0:
        raise UserError(f"scale={scale!r}: the value that becomes white, at least 0, is needed")
    return np.clip(0.5 + np.asarray(projection) / (2 * scale or 1.0), 0.0, 1.0)


def cut(picture: np.ndarray, box: tuple[int, int, int, int], fill: float | np.ndarray) -> np.ndarray:
    """Rows and columns (top, left, bottom, right) of [H, W, C]; what lies outside the picture is `fill`.

    Examples:
      >>> import numpy as np, zfjax
      >>> zfjax.pixels.cut(np.ones((4, 4, 3), np.uint8), (-1, 0, 2, 2), fill=0)[:, :, 0]
      array([[0, 0],
             [1, 1],
             [1, 1]], dtype=uint8)
    """
    if picture.ndim != 3:
        raise UserError(f"picture of shape {picture.shape}: [H, W, C] is needed")
    top, left, bottom, right = box
    patch = np.broadcast_to(np.asarray(fill, picture.dtype), (bottom - top, right - left, picture.shape[2])).copy()
    inside = np.s_[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    own = picture[inside]
    patch[max(-top, 0) :, max(-left, 0) :][: own.shape[0], : own.shape[1]] = own
    return patch


def _margins(pictures: jax.Array | np.ndarray, size: Size) -> tuple[int, int]:
    if pictures.ndim != 4:
        raise UserError(f"pictures of shape {pictures.shape}: [B, H, W, C] is needed")
    (height, width), (high, wide) = pictures.shape[1:3], size_of(size)
    if not (1 <= high <= height and 1 <= wide <= width):
        raise UserError(f"size={size}: a crop of the {height}x{width} pictures is needed")
    return height - high, width - wide


def _five_places(pictures: jax.Array, size: Size) -> np.ndarray:
    rows, columns = _margins(pictures, size)
    corners = [(0, 0), (0, columns), (rows, 0), (rows, columns), (rows // 2, columns // 2)]
    return np.array(corners, np.int32)


TILE_GAP = 2  # pixels between the tiles of a mosaic
PERCENTILE = 99.5  # of |value|; the few above it are drawn white or black, so that one spike does not grey the rest


def symmetric_scale(values: np.ndarray) -> float:
    """The |value| that is drawn white (or black): the PERCENTILE of those that are not zero; 0 where all are.

    Examples:
      >>> import numpy as np, zfjax
      >>> zfjax.pixels.symmetric_scale(np.array([-2.0, 1.0]))
      1.995
    """
    size = np.abs(values[values != 0])
    return float(np.percentile(size, PERCENTILE)) if size.size else 0.0


def in_colours(pictures: np.ndarray) -> np.ndarray:
    """[..., H, W, C] as [..., H, W, 3]: three channels as they are; any other number as grey, by their mean."""
    if pictures.ndim < 3:
        raise UserError(f"pictures of shape {pictures.shape}: [..., H, W, C] is needed; a map [H, W] has C = 1")
    if pictures.shape[-1] == 3:
        return pictures
    grey = pictures.mean(axis=-1, keepdims=True).astype(pictures.dtype)
    return np.broadcast_to(grey, (*pictures.shape[:-1], 3))


def grey_projections(channels: int, drawn: str = "Projections") -> list[str]:
    """How projections, or what else is `drawn`, are drawn where their channels are no colours: see `in_colours`.

    Examples:
      >>> import zfjax
      >>> zfjax.pixels.grey_projections(4), zfjax.pixels.grey_projections(3)
      (['Projections have 4 channels: their mean is drawn, in grey.'], [])
    """
    return [f"{drawn} have {channels} channels: their mean is drawn, in grey."] if channels not in (1, 3) else []


def as_seen(pictures: np.ndarray) -> np.ndarray:
    """Pictures uint8 [..., H, W, C] as a reader sees them: four channels, RGBA, laid over white. -> [..., H, W, 3]

    Examples:
      >>> import numpy as np, zfjax
      >>> zfjax.pixels.as_seen(np.array([[[[200, 100, 0, 0], [200, 100, 0, 255]]]], np.uint8)).tolist()
      [[[[255, 255, 255], [200, 100, 0]]]]
    """
    if pictures.ndim < 3 or pictures.shape[-1] != 4:
        return in_colours(pictures)
    cover = pictures[..., 3:].astype(np.float64) / 255
    return np.floor(pictures[..., :3] * cover + 255 * (1 - cover) + 0.5).astype(np.uint8)


def grey(pictures: np.ndarray) -> np.ndarray:
    """Pictures uint8 [..., H, W, C] without their colours: each pixel's luma (Rec. 601) in all three channels.

    Examples:
      >>> import numpy as np, zfjax
      >>> zfjax.pixels.grey(np.array([[[[255, 0, 0]]]], np.uint8))
      array([[[[76, 76, 76]]]], dtype=uint8)
    """
    if pictures.shape[-1] != 3:
        return pictures
    luma = pictures @ np.array([0.299, 0.587, 0.114])
    return np.broadcast_to(np.floor(luma + 0.5).astype(np.uint8)[..., None], pictures.shape).copy()


def signed_pictures(signed: np.ndarray, scale: float) -> np.ndarray:
    """Signed values [..., H, W, C] on one scale: zero is mid-grey 128, +-scale white and black. -> uint8 [..., 3]

    Examples:
      >>> import numpy as np, zfjax
      >>> zfjax.pixels.signed_pictures(np.array([[[[-1.0, 0.0, 1.0]]]]), 1.0)
      array([[[[  0, 128, 255]]]], dtype=uint8)
    """
    return np.floor(as_picture(in_colours(signed), scale) * 255 + 0.5).astype(np.uint8)


def filter_pictures(kernel: np.ndarray) -> tuple[np.ndarray, float]:
    """Layer 1's filters [h, w, 3, N] on one shared scale, their largest |weight|. -> (uint8 [N, h, w, 3], scale)"""
    scale = float(np.abs(kernel).max())
    return signed_pictures(np.moveaxis(kernel, -1, 0), scale), scale


def resized(pictures: np.ndarray, side: int) -> np.ndarray:
    """Pictures uint8 [N, h, w, 3] whose longer side becomes `side`. -> [N, side, side, 3] of squares

    Those of at most a third of `side` keep their pixels visible, each as a square of whole pixels, and come out at the
    largest multiple of their size that `side` holds.

    Examples:
      >>> import numpy as np, zfjax
      >>> zfjax.pixels.resized(np.zeros((1, 8, 8, 3), np.uint8), 4).shape
      (1, 4, 4, 3)
    """
    height, width = pictures.shape[1:3]
    longer = max(height, width)
    if 3 * longer <= side:
        return pictures.repeat(side // longer, axis=1).repeat(side // longer, axis=2)
    size = (max(1, round(side * width / longer)), max(1, round(side * height / longer)))
    look = Image.Resampling.LANCZOS
    return np.stack([np.asarray(Image.fromarray(picture).resize(size, look)) for picture in pictures])


def mosaic(pictures: np.ndarray, columns: int, gap: int = TILE_GAP) -> np.ndarray:
    """uint8 [N, h, w, 3] in rows of `columns` with white gaps. -> uint8 [H, W, 3]

    Examples:
      >>> import numpy as np, zfjax
      >>> zfjax.pixels.mosaic(np.zeros((4, 8, 8, 3), np.uint8), columns=2).shape
      (18, 18, 3)
    """
    num, height, width, _ = pictures.shape
    rows = -(-num // columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for n, picture in enumerate(pictures):
        top, left = (n // columns) * (height + gap), (n % columns) * (width + gap)
        sheet[top : top + height, left : left + width] = picture
    return sheet


def side_by_side(*sheets: np.ndarray, gap: int = 3 * TILE_GAP) -> np.ndarray:
    """Sheets uint8 [H, W, 3] of one height, left to right with white gaps. -> uint8 [H, W', 3]"""
    between = np.full((sheets[0].shape[0], gap, 3), 255, np.uint8)
    pieces = [piece for sheet in sheets for piece in (between, sheet)]
    return np.concatenate(pieces[1:], axis=1)
