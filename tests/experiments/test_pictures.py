"""One photo, whatever its file holds, becomes the paper's square RGB picture."""

import io

import numpy as np
import pytest
from PIL import Image

from zfjax.data import pictures


def file_of(pixels, kind="PNG", **options):
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def solid(mode, colour, size=(12, 8)):
    return Image.new(mode, size, colour)


def test_photo_of_the_right_size_keeps_its_pixels():
    np.testing.assert_array_equal(pictures.preprocess(file_of(noise(8, 8, 3)), 8), noise(8, 8, 3))


def test_landscape_and_portrait_lose_equally_at_both_ends():
    wide, high = noise(4, 10, 3), noise(10, 4, 3)
    np.testing.assert_array_equal(pictures.preprocess(file_of(wide), 4), wide[:, 3:7])
    np.testing.assert_array_equal(pictures.preprocess(file_of(high), 4), high[3:7])


def test_shortest_side_is_scaled_to_the_size():
    ramp = np.broadcast_to(np.arange(0, 256, 4, dtype=np.uint8)[None, :, None], (32, 64, 3))  # 64 columns, 4 apart
    columns = pictures.preprocess(file_of(np.ascontiguousarray(ramp)), 16)[8, :, 0].astype(int)
    # each column of the result covers two of the centre's 16..47: their mean is 4 * (16.5 + 2 x)
    np.testing.assert_allclose(columns[2:-2], [66 + 8 * x for x in range(2, 14)], atol=1)


def test_grey_becomes_three_equal_channels():
    np.testing.assert_array_equal(pictures.preprocess(file_of(noise(6, 6)), 6), np.repeat(noise(6, 6)[..., None], 3, 2))


def test_black_and_white_become_0_and_255():
    assert np.unique(pictures.preprocess(file_of(solid("1", 1)), 4)).tolist() == [255]


def test_palette_colours_are_looked_up():
    data = file_of(solid("RGB", (10, 200, 30)).convert("P", palette=Image.Palette.ADAPTIVE), "GIF")
    np.testing.assert_array_equal(pictures.preprocess(data, 4)[0, 0], [10, 200, 30])


def test_cmyk_ink_subtracts_from_white():
    picture = pictures.preprocess(file_of(solid("CMYK", (0, 255, 255, 0)), "JPEG", quality=95), 4)
    np.testing.assert_allclose(picture[2, 2].astype(int), [255, 0, 0], atol=4)


def test_transparency_lies_on_white():
    np.testing.assert_allclose(
        pictures.preprocess(file_of(solid("RGBA", (255, 0, 0, 128))), 4)[0, 0].astype(int), [255, 127, 127], atol=1
    )
    np.testing.assert_array_equal(pictures.preprocess(file_of(solid("LA", (0, 0))), 4)[0, 0], [255, 255, 255])


def test_transparent_palette_colour_lies_on_white():
    image = solid("P", 0)
    image.putpalette([9, 9, 9])
    assert np.unique(pictures.preprocess(file_of(image, transparency=0), 4)).tolist() == [255]


def test_16_bit_grey_is_scaled_not_clipped():
    deep = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    np.testing.assert_array_equal(pictures.preprocess(file_of(deep), 16)[..., 1], np.arange(256).reshape(16, 16))


def test_floating_point_picture_is_refused():
    with pytest.raises(ValueError, match="do not say which value is white"):
        pictures.preprocess(file_of(np.ones((4, 4), np.float32), "TIFF"), 4)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(kind, orientation):
    # EXIF: which corner of the scene the file's first row and column show
    stored_as = {
        1: lambda p: p,
        2: lambda p: p[:, ::-1],
        3: lambda p: p[::-1, ::-1],
        4: lambda p: p[::-1],
        5: lambda p: p.transpose(1, 0, 2),
        6: lambda p: np.rot90(p),
        7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
        8: lambda p: np.rot90(p, -1),
    }
    tags = Image.Exif()
    tags[0x0112] = orientation
    data = file_of(np.ascontiguousarray(stored_as[orientation](noise(6, 6, 3))), kind, exif=tags)
    np.testing.assert_array_equal(pictures.preprocess(data, 6), noise(6, 6, 3))


def test_broken_exif_does_not_lose_the_photo():
    data = file_of(solid("RGB", (50, 60, 70)), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x05broken")
    np.testing.assert_allclose(pictures.preprocess(data, 4)[0, 0].astype(int), [50, 60, 70], atol=2)


def test_one_pixel_fills_the_picture():
    np.testing.assert_array_equal(
        pictures.preprocess(file_of(solid("RGB", (1, 2, 3), (1, 1))), 8), np.full((8, 8, 3), [1, 2, 3])
    )


def test_panorama_shows_its_centre():
    long = np.zeros((3, 60001, 3), np.uint8)
    long[:, 29999:30002] = noise(3, 3, 3)
    np.testing.assert_array_equal(pictures.preprocess(file_of(long), 3), noise(3, 3, 3))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_truncated_file_is_no_picture(kind):
    data = file_of(noise(64, 64, 3), kind)
    with pytest.raises(ValueError, match="no readable picture"):
        pictures.preprocess(data[: len(data) // 2], 8)


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff", b"<html>not found</html>"])
def test_what_is_no_picture_is_refused(data):
    with pytest.raises(ValueError, match="no readable picture"):
        pictures.preprocess(data, 8)


def test_stored_picture_reads_back_within_jpeg_error():
    smooth = np.add.outer(np.arange(64), np.arange(64))[..., None].repeat(3, 2).astype(np.uint8)
    stored = pictures.encode(smooth)
    assert stored == pictures.encode(smooth)
    np.testing.assert_allclose(pictures.decode(stored).astype(int), smooth, atol=3)
