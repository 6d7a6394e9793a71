"""Rendering: what a value looks like, where a panel stands, and files that are whole or not there."""

import dataclasses
import io
import json
import pathlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.pages import canvas
from experiments.pages.canvas import Panel, Section
from zfjax import files, pixels

CAPTION = ["A paragraph long enough that it has to be wrapped, " * 6, canvas.SWITCHES_NOTE]


def _page(panels, columns=2):
    return canvas.page("A title", [Section("A heading", panels, columns)], CAPTION)


def _noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def test_zero_is_drawn_mid_grey():
    """On the canvas itself, whatever the scale, also where every projection is zero."""
    signed = np.zeros((9, 20, 20, 3), np.float32)
    signed[3, 5, 5] = 7.0
    for scale in (pixels.symmetric_scale(signed), pixels.symmetric_scale(0 * signed)):
        sheet = pixels.mosaic(pixels.resized(pixels.signed_pictures(signed, scale), 60), columns=3)
        figure = _page([Panel(sheet)])
        top, left = int(figure.bbox.height) - figure.images[0].oy - len(sheet), figure.images[0].ox
        drawn = canvas.pixels_of(figure)[top : top + len(sheet), left : left + sheet.shape[1]]
        np.testing.assert_array_equal(drawn, sheet)
        assert (drawn[:60, :60] == 128).all() and (drawn == 128).mean() > 0.9


def test_plus_and_minus_scale_are_white_and_black():
    signed = np.array([-3.0, -2.0, 0.0, 1.0, 2.0, 9.0]).reshape(1, 1, 6, 1).repeat(3, axis=-1)
    np.testing.assert_array_equal(pixels.signed_pictures(signed, 2.0)[0, 0, :, 0], [0, 0, 128, 191, 255, 255])


def test_the_scale_is_symmetric_and_not_led_by_one_spike_or_by_zeros():
    values = np.concatenate([np.zeros(10_000), np.linspace(-1, 1, 1000), [50.0]])
    assert 0.98 < pixels.symmetric_scale(values) <= 1.0
    assert pixels.symmetric_scale(np.zeros(5)) == 0.0


def test_filters_share_one_scale():
    kernel = np.zeros((2, 2, 3, 2), np.float32)
    kernel[..., 0], kernel[..., 1] = 4.0, -1.0
    tiles, scale = pixels.filter_pictures(kernel)
    assert scale == 4.0 and tiles.shape == (2, 2, 2, 3)
    assert (tiles[0] == 255).all() and (tiles[1] == 96).all()


def test_a_mosaic_puts_tiles_in_rows_with_white_gaps():
    tiles = np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1).repeat(3, axis=-1)
    expected = [[0, 255, 1, 255, 2], [255] * 5, [3, 255, 4, 255, 255]]
    np.testing.assert_array_equal(pixels.mosaic(tiles, columns=3, gap=1)[..., 0], expected)


def test_small_tiles_keep_their_pixels_and_large_ones_are_smoothed():
    small = _noise(7, 7)[None]
    np.testing.assert_array_equal(pixels.resized(small, 24)[0], small[0].repeat(3, axis=0).repeat(3, axis=1))
    assert pixels.resized(_noise(40, 40)[None], 24).shape == (1, 24, 24, 3)


def test_panels_stand_on_the_page_pixel_for_pixel():
    panels = [Panel(_noise(40, 50 + 10 * n, n), f"panel {n}") for n in range(3)]
    figure = _page(panels)
    drawn = canvas.pixels_of(figure)
    for panel in panels:
        height, width, _ = panel.pixels.shape
        corner = np.argwhere((drawn == panel.pixels[0, 0]).all(axis=-1))
        found = [
            (drawn[y : y + height, x : x + width] == panel.pixels).all() for y, x in corner if y + height <= len(drawn)
        ]
        assert sum(found) == 1


def test_no_text_is_clipped_small_or_over_a_panel():
    """A wide and a narrow page; every line inside the page, of at least 7 points, and above the panels' pixels."""
    for width in (150, 900):
        figure = _page([Panel(_noise(30, width), "map 123   white = +0.0012")], columns=1)
        canvas.pixels_of(figure)
        for text in figure.texts:
            box = text.get_window_extent()
            assert box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y0 >= 0 and box.y1 <= figure.bbox.height
            assert text.get_fontsize() >= 7
            low, high = figure.images[0].oy, figure.images[0].oy + 30
            assert box.y0 >= high or box.y1 <= low


NAMES = ["map 7", "a" * 400, "golf ball " * 40, "<script>&$x^2$ 猫 ﷽", "W" * 61]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [30, 700])
def test_no_page_has_ink_in_its_outer_12_pixels(name, width):
    """Whatever is written on it; and its last line ends before the margin, not at the page's edge."""
    panels = [Panel(_noise(30, width), name), Panel(_noise(30, 40), name)]
    figure = canvas.page(name, [Section(name, panels, 2)], [name])
    drawn = canvas.pixels_of(figure)
    ink = (drawn < 250).any(axis=2)
    inner = ink[12:-12, 12:-12]
    assert ink.sum() == inner.sum() and inner.any()
    for text in figure.texts:
        assert text.get_window_extent().x1 <= figure.bbox.width - canvas.MARGIN + 2


def test_a_picture_whose_ink_touches_its_edge_is_widened():
    pixels = np.full((40, 50, 3), 255, np.uint8)
    pixels[0, 20], pixels[30, 45] = 0, 0
    framed = canvas.framed(pixels)
    assert framed.shape == (40 + 12 + 3, 50 + 8, 3) and (framed[12, 20] == 0).all() and (framed[42, 45] == 0).all()
    np.testing.assert_array_equal(canvas.framed(framed), framed)


def test_a_large_png_is_saved_in_256_colours():
    figure = _page([Panel(_noise(120, 120))])
    assert Image.open(io.BytesIO(canvas.png(figure))).mode == "RGB"
    small = Image.open(io.BytesIO(canvas.png(figure, max_bytes=20_000)))
    assert small.mode == "P" and small.size == tuple(int(side) for side in figure.bbox.size)


def test_among_few_colours_the_page_stays_white_and_zero_mid_grey():
    noise = _noise(120, 120) // 2 + 100
    noise[40:80, 40:80] = 128
    few = np.asarray(Image.open(io.BytesIO(canvas.png(_page([Panel(noise)]), max_bytes=20_000))).convert("RGB"))
    assert (few[:12] == 255).all() and (few[-12:] == 255).all() and (few[:, :12] == 255).all()
    assert (few == 128).all(axis=2).sum() > 1000


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    files.write_atomically(path, b"old")

    def fail(*names):
        raise OSError("disk full")

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        files.write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_results_arrays_and_figures_are_read_back(tmp_path):
    @dataclasses.dataclass
    class Settings:
        out: Path = Path("here")
        layers: tuple[str, ...] = ("conv1",)

    result = {"value": np.float32(0.5), "maps": np.arange(3), "config": Settings()}
    files.save_json(tmp_path / "deep" / "result.json", result)
    found = json.loads((tmp_path / "deep" / "result.json").read_text())
    assert found == {"value": 0.5, "maps": [0, 1, 2], "config": {"out": "here", "layers": ["conv1"]}}
    files.save_arrays(tmp_path / "arrays.npz", {"a": np.arange(4)})
    np.testing.assert_array_equal(np.load(tmp_path / "arrays.npz")["a"], np.arange(4))
    figure = _page([Panel(_noise(20, 20))])
    with Image.open(io.BytesIO(canvas.png(figure))) as saved:
        np.testing.assert_array_equal(np.asarray(saved), canvas.pixels_of(figure))


def test_numbers_that_are_not_finite_are_null_as_json_has_none(tmp_path):
    files.save_json(tmp_path / "x.json", {"a": float("nan"), "b": [np.float32("inf"), 1.5], "c": np.array([np.nan, 2])})
    strict = json.loads((tmp_path / "x.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert strict == {"a": None, "b": [None, 1.5], "c": [None, 2.0]}
    with pytest.raises(TypeError, match="result of set"):
        files.save_json(tmp_path / "result.json", {"x": {1}})


DOCS = [
    path for path in (pathlib.Path(__file__).parents[2] / "docs").glob("*.png") if not path.name.startswith("atlas")
]


@pytest.mark.parametrize("path", DOCS, ids=[path.name for path in DOCS])
def test_no_picture_of_the_documents_has_ink_in_its_outer_12_pixels(path):
    """Those of the atlas are a browser's window."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    ink = (np.abs(pixels - pixels[0, 0]) > 8).any(axis=2)
    assert ink.sum() == ink[12:-12, 12:-12].sum() and ink.any()


def test_the_documents_have_pictures():
    assert {"figure2.png", "figure7.png"} <= {path.name for path in DOCS}
