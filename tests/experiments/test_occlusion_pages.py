"""Figure 7's page: the square where it stood, values and classes in their colours, words that say what was seen."""

import numpy as np
from tiny_run import CENTRES

from experiments.pages import canvas
from experiments.pages import occlusion as occlusion_page
from zfjax import nets
from zfjax.analyses import occlusion
from zfjax.analyses.occlusion import Projected, Swept

IMAGES = CENTRES.astype(np.float32) - np.float32(120)
FILL = np.full_like(CENTRES[0], 120)  # the mean image


def test_the_square_is_drawn_where_it_stood():
    panel = occlusion_page.square_panel(CENTRES[0], FILL, corner=np.array([5, 10]), square=5)
    scale = occlusion_page.panel_size(20)[0] // 20
    assert panel.shape[0] == 20 * scale
    inside = panel[5 * scale + 2 : 10 * scale - 2, 10 * scale + 2 : 15 * scale - 2]
    np.testing.assert_array_equal(inside, np.full_like(inside, 120))
    assert (panel[5 * scale, 10 * scale : 15 * scale] == occlusion_page.RED).all()
    np.testing.assert_array_equal(panel[:scale, :scale], np.broadcast_to(CENTRES[0, 0, 0], (scale, scale, 3)))


def test_panels_of_a_picture_that_is_not_square_keep_its_sides():
    panel = occlusion_page.square_panel(CENTRES[0, :10], FILL, corner=np.array([2, 10]), square=5)
    height, width = occlusion_page.panel_size((10, 20))
    scale = width // 20
    assert panel.shape == (height, width, 3) and height == 10 * scale
    assert (panel[2 * scale, 10 * scale : 15 * scale] == occlusion_page.RED).all()
    values = occlusion_page.value_panel(np.ones((10, 20)), 1.0, outline=None, cross=np.array([4, 5]))
    assert values.shape == (height, width + occlusion_page.BAR, 3)


def result_of(**changes):
    """What the page reads of a result."""
    facts = {"image": "4", "class": "a", "class_is_known": True, "predicted": "a", "unit": "map 2"}
    facts |= {"probability": 0.9, "lowest_probability": 0.1, "other_class": 0.0}
    result = {"square": 5, "stride": 5, "layer": "conv2", "fill": "the mean image", "places": (4, 4), "images": [facts]}
    return {**result, "score": None, "not_applicable": {}, **changes}


def test_square_and_cross_stand_where_the_probability_is_lowest(monkeypatch):
    views = nets.Views(IMAGES[:1], CENTRES[:1], np.array([0]), None, None)
    corners = occlusion.places(20, 5, 5)
    probability = np.full((1, 4, 4), 0.5, np.float32)
    probability[0, 1, 2], probability[0, 3, 3] = 0.1, 0.9
    swept = Swept(probability, probability, np.zeros((1, 4, 4), np.int32))
    crosses = []
    real = occlusion_page.value_panel
    monkeypatch.setattr(
        occlusion_page, "value_panel", lambda *a, **k: crosses.append(k["cross"].tolist()) or real(*a, **k)
    )
    projected = [Projected(np.array([4]), IMAGES[:1])]
    page = occlusion_page.draw(
        views, swept, fills=FILL[None], projected=projected, corners=corners, class_names=("a", "b"), result=result_of()
    )
    assert crosses == [[5 + 2, 10 + 2]] * 2
    sheet, scale = canvas.pixels_of(page), occlusion_page.panel_size(20)[0] // 20
    red = np.argwhere((sheet == occlusion_page.RED).all(axis=-1))
    top, left = np.argwhere((sheet == CENTRES[0, 0, 0]).all(axis=-1))[0]
    np.testing.assert_array_equal(red.min(axis=0) - (top, left), (5 * scale, 10 * scale))
    edges = np.concatenate([sheet[:12].ravel(), sheet[-12:].ravel(), sheet[:, :12].ravel(), sheet[:, -12:].ravel()])
    assert (edges == 255).all()


def test_values_share_colours_and_the_frame_is_grey():
    values = np.full((20, 20), np.nan)
    values[5:15, 5:10], values[5:15, 10:15] = 0.0, 1.0
    panel = occlusion_page.value_panel(values, 1.0, outline=None, cross=np.array([14, 5]))
    side = occlusion_page.panel_size(20)[0]
    assert panel.shape == (side, side + occlusion_page.BAR, 3)
    at = {name: panel[side * y // 20, side * x // 20] for name, (y, x) in {"low": (7, 7), "high": (7, 12)}.items()}
    np.testing.assert_allclose(at["low"], (68, 1, 84), atol=1)  # viridis
    np.testing.assert_allclose(at["high"], (253, 231, 37), atol=1)
    np.testing.assert_allclose(panel[3, 3], 3 * [255 * occlusion_page.FRAME], atol=1)
    red = (panel == occlusion_page.RED).all(axis=-1)
    assert red[side * 14 // 20 : side * 15 // 20, side * 5 // 20 : side * 6 // 20].any()


def test_a_class_has_one_colour_in_all_images_and_the_rarest_share_a_grey():
    predicted = np.repeat(np.arange(12), np.arange(24, 0, -2))
    colours = occlusion_page.class_colours(predicted)
    own = [colours[label] for label in range(9)]
    assert len(set(own)) == 9 and occlusion_page.OTHERS not in own
    assert [colours[label] for label in (9, 10, 11)] == 3 * [occlusion_page.OTHERS]
    shown = np.full((20, 20), -1)
    shown[5:15, 5:15], shown[9:11, 9:11] = 2, 11
    panel = occlusion_page.class_panel(shown, colours, [f"class {n}" for n in range(12)])
    side = occlusion_page.panel_size(20)[0]
    np.testing.assert_allclose(panel[side * 6 // 20, side * 6 // 20], np.multiply(255, colours[2]), atol=1)
    np.testing.assert_allclose(panel[side // 2, side // 2], [127.5] * 3, atol=1)
    legend = panel[14, side + 8 : side + 20]  # the first entry's patch
    np.testing.assert_allclose(legend[6], np.multiply(255, colours[2]), atol=1)


def test_the_words_say_what_was_seen():
    facts = {
        "image": "7",
        "class": "a sea elephant of the southern islands",
        "class_is_known": True,
        "predicted": "cat",
    }
    facts |= {"probability": 0.25, "lowest_probability": 0.031, "other_class": 0.5}
    assert occlusion_page.heading(facts) == (
        "Image 7, a sea ele…n islands, taken for cat: probability 0.25, with the square 0.03 at its lowest; "
        "another class wins at 50% of places"
    )
    assert occlusion_page.heading(facts | {"other_class": 0.0}).endswith("at its lowest; no other class wins anywhere")
    assert occlusion_page.heading(facts | {"other_class": 0.001}).endswith("another class wins at <1% of places")
    assert "class unknown, most probable: cat" in occlusion_page.heading(
        facts | {"class": "cat", "class_is_known": False}
    )
    rising = occlusion_page.heading(facts | {"probability": 0.45, "lowest_probability": 0.47})
    assert "probability 0.45, with the square 0.47 at its lowest" in rising
    assert ", 1 pixel apart" in occlusion_page.caption(result_of(stride=1))[0]
    shares = {"object": 0.9, "interval": (0.79, 0.96), "other_object": 0.6}
    result = result_of(layer="conv5", square=18, stride=2, places=(28, 28))
    result["score"] = {"num_images": 50, "area": 0.25, "occlusion": shares, "gradient": {**shares, "object": 0.8}}
    caption = occlusion_page.caption(result)
    assert "on the object in 90% (79% to 96%)" in caption[2] and "covers 25% of the pixels" in caption[2]
    assert caption[-1] == canvas.SWITCHES_NOTE and "the mean image" in caption[0]
    assert len(occlusion_page.caption({**result, "score": None})) == 3
