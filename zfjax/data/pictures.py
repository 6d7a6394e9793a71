"""One photo: whatever its file holds, decoded upright to RGB, made square, and stored as JPEG."""

import functools
import io
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from zfjax.errors import UserError

# What is opened, by Pillow's names. Not among them: formats that start other programs (EPS) or are no photos.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "AVIF", "JPEG2000", "PPM")
ENDINGS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".avif"),
    *(".jp2", ".ppm", ".pgm", ".pnm"),
)
MAX_PIXELS = 2**27  # of one photo, 134 million: decoded it takes 400 MB
MAX_BYTES = 2**30  # of one photo's file

# Paper is silent: how the photos were stored; at quality 95 (colour at half resolution) 256x256 takes about 30 kB.
JPEG_QUALITY = 95
_ORIENTATION = 0x0112  # the EXIF tag whose values stand below; 1 is upright

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def preprocess(
    data: bytes,
    size: int | tuple[int, int],
    channels: int = 3,
    *,
    resample: Image.Resampling = Image.Resampling.BICUBIC,
) -> np.ndarray:
    """The paper's picture of a photo: shortest side resized to `size`, centre `size` x `size` (sec. 3).

    The centre square is cut out before the resize, on whole pixels of the photo, so a panorama costs no more than its
    square, and a photo whose shortest side is `size` keeps its pixels. Paper is silent: the filter (bicubic here).

    Args:
      data: the bytes of the photo's file, in one of `FORMATS` and any mode.
      size: side of the result, or its (height, width), pixels.
      channels: 3 of colours, 1 of grey, or 4 of colours and how far they cover what is behind (RGBA).
      resample: the filter.

    Returns:
      uint8 [size, size, channels], or [height, width, channels].

    Raises:
      UserError: where the bytes are no complete picture.
    """
    return fitted(load(data, transparent=channels == 4), size, channels, resample=resample)


def fitted(
    image: Image.Image,
    size: int | tuple[int, int],
    channels: int = 3,
    *,
    resample: Image.Resampling = Image.Resampling.BICUBIC,
) -> np.ndarray:
    """A picture's centre, of the shape of `size`, resized to it, in so many `CHANNELS`: uint8 [height, width, C]."""
    if channels not in CHANNELS:
        raise UserError(f"channels={channels}: photos have 3 of colours, 1 of grey, or 4 with transparency")
    height, width = (size, size) if isinstance(size, int) else size
    centre = image.crop(centre_of(image.size, (height, width))).resize((width, height), resample)
    pixels = np.asarray(centre if centre.mode == CHANNELS[channels] else centre.convert(CHANNELS[channels]))
    return pixels if pixels.ndim == 3 else pixels[..., None]


CHANNELS = {3: "RGB", 1: "L", 4: "RGBA"}  # what photos can be read as, and Pillow's names of it


def centre_of(whole: tuple[int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the largest centre of a picture, `whole` (width, height), of `size`'s shape.

    `size` is (height, width).
    """
    (height, width), (wide, high) = size, whole
    scale = min(wide / width, high / height)  # pixels of the photo for one of the result
    across, down = round(width * scale), round(height * scale)
    left, top = (wide - across) // 2, (high - down) // 2
    return left, top, left + across, top + down


def load(data: bytes, *, transparent: bool = False) -> Image.Image:
    """A photo decoded, upright, in 8-bit RGB: the one place where a picture of unknown origin is opened.

    Args:
      data: the bytes of its file, in one of `FORMATS`.
      transparent: RGBA instead: transparency is kept, and what has none covers all.

    Raises:
      UserError: no complete picture, another format, or more than `MAX_PIXELS`.
    """
    try:
        with warnings.catch_warnings():
            # Broken EXIF blocks and pictures of more than 89 megapixels only warn; both are decoded all the same.
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=_formats())
            _check_pixels(image.width * image.height)
            upright = _upright(image)
            return upright.convert("RGBA") if transparent and upright.has_transparency_data else _to_rgb(upright)
    except UnidentifiedImageError:
        raise UserError(f"no readable picture (none of {', '.join(_formats())})") from None
    except Image.DecompressionBombError:
        raise UserError(_TOO_LARGE) from None
    except UserError:
        raise
    except Exception as error:  # Pillow's decoders raise some ten kinds on broken files; all say the same here
        raise UserError(f"no readable picture ({type(error).__name__}: {error})") from error


_TOO_LARGE = f"a picture of more than {MAX_PIXELS / 1e6:.0f} million pixels is not decoded; make it smaller"


def _check_pixels(count: int) -> None:
    if count > MAX_PIXELS:
        raise UserError(_TOO_LARGE)


@functools.cache
def _formats() -> tuple[str, ...]:
    """Those of `FORMATS` that this Pillow was built with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def read(path: Path) -> bytes:
    """The bytes of a picture's file; UserError for one of more than `MAX_BYTES`."""
    check_bytes(path.stat().st_size)
    return path.read_bytes()


def check_bytes(size: int) -> None:
    """UserError for a file of more than `MAX_BYTES`."""
    if size > MAX_BYTES:
        raise UserError(f"a picture's file of {size / 1e9:.1f} GB is not read; at most {MAX_BYTES / 1e9:.1f} are")


def encode(pixels: np.ndarray) -> bytes:
    """`pixels` (uint8 [H, W, 3]) as JPEG bytes, the same bytes every time."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def decode(jpeg: bytes) -> np.ndarray:
    """The pixels, uint8 [H, W, 3], of bytes that `encode` made.

    By simplejpeg of the extra "train" where it is installed, in two thirds of Pillow's time; else by Pillow. Both are
    libjpeg-turbo with its exact transform, and give the same pixels.

    Raises:
      ValueError, OSError, SyntaxError: the bytes are no complete picture.
    """
    return decoder()(jpeg)


@functools.cache
def decoder() -> Callable[[bytes], np.ndarray]:
    """What `decode` decodes by, the fastest that is installed."""
    try:
        from simplejpeg import decode_jpeg
    except ModuleNotFoundError:
        return decode_by_pillow
    by_simplejpeg: Callable[[bytes], np.ndarray] = decode_jpeg
    return by_simplejpeg


def decode_by_pillow(jpeg: bytes) -> np.ndarray:
    """`decode` without an extra."""
    return np.asarray(Image.open(io.BytesIO(jpeg), formats=("JPEG",)))


def _upright(image: Image.Image) -> Image.Image:
    """The photo turned as its EXIF orientation says."""
    image.load()  # first: Pillow turns TIFF pictures by itself while loading, and then drops the tag
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001  an unreadable EXIF block says nothing about the pixels
        return image
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def _to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB: grey repeated, CMYK by Pillow's rule, 16-bit scaled by 1/257, transparency laid over white.

    Paper is silent: all of these; ImageNet has some of each, and a picture viewer on a white page shows the same.
    """
    if image.mode == "F":
        raise UserError("floating-point pictures do not say which value is white")
    if image.mode.startswith("I"):  # Pillow's own conversion clips 16-bit grey at 255 instead of scaling it
        deep = np.asarray(image).astype(np.int64)
        if deep.min() < 0 or deep.max() > 65535:
            raise UserError(f"grey values {deep.min()}..{deep.max()} lie outside 16 bits")
        return Image.fromarray(((deep + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        page = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(page, image)
    return image.convert("RGB")
