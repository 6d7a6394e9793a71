"""Words of any length on pages: no two texts of a picture overlap, and none leaves the room that it has."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text

from experiments.pages import canvas, evolution, invariance, lettering, maximization, occlusion, sanity, transfer
from experiments.pages.canvas import Panel, Section
from zfjax.analyses.invariance import Chosen, Curves

LONG = "someones_network/stage_three/bottleneck_block_number_seventeen/convolution_with_a_long_name"
NAMES = [
    "c",
    "ResNetModel/encoder/stages_3/layers_1/bottleneck/Conv_0",
    f"{LONG}/and_more_words_here_so_that_it_is_long/and_then_some/Conv_1",
    "שכבה_של_הרשת_" * 6,
    "👩🏽‍🔬🐘" * 30,
    "_private $x^2$ and $ a\nsecond line",
    "W" * 130,
    "half a sign \udce9.png",
]
EACH = pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
SOME = pytest.mark.parametrize("name", [NAMES[2], NAMES[7]], ids=["path", "half a sign"])


def boxes(figure):
    """(text, box) of every text of a drawn figure but the numbers along its axes."""
    numbers = {text for axes in figure.axes for text in (*axes.get_xticklabels(), *axes.get_yticklabels())}
    every = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    own = {id(text) for text in numbers}
    return [(text, text.get_window_extent()) for text in every if id(text) not in own]


def check(figure):
    """No two texts of the figure overlap; all lie inside it; those of a plot lie in its column."""
    drawn = boxes(figure)
    assert drawn
    for (one, first), (other, second) in itertools.combinations(drawn, 2):
        apart = first.x1 <= second.x0 + 1 or second.x1 <= first.x0 + 1
        apart = apart or first.y1 <= second.y0 + 1 or second.y1 <= first.y0 + 1
        assert apart, f"{one.get_text()!r} lies on {other.get_text()!r}"
    for text, box in drawn:
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1
        assert inside, f"{text.get_text()!r} leaves the figure"
    for axes in figure.axes:
        legends = [text for one in axes.get_children() if isinstance(one, Legend) for text in one.get_texts()]
        for box in (text.get_window_extent() for text in (axes.title, axes.xaxis.label, *legends) if text.get_text()):
            assert axes.bbox.x0 - 1 <= box.x0 and box.x1 <= axes.bbox.x1 + 1


@pytest.fixture
def checked(monkeypatch):
    """Every figure that is drawn is checked, the parts of pages too."""
    figures, real = [], canvas.pixels_of

    def pixels_of(figure):
        drawn = real(figure)
        figures.append(figure)
        if boxes(figure):
            check(figure)
        return drawn

    monkeypatch.setattr(canvas, "pixels_of", pixels_of)
    return figures


@EACH
def test_a_page_wraps_titles_headings_and_labels_and_keeps_its_columns(checked, name):
    panels = [Panel(np.full((20, 30 + 40 * n, 3), n, np.uint8), label) for n, label in enumerate((name, "", name))]
    page = canvas.page(name, [Section(name, [*panels, *panels], 3)], [name])
    canvas.pixels_of(page)
    lefts = [image.ox for image in page.images]
    assert lefts[:3] == lefts[3:] and checked == [page]


@SOME
def test_figure_5_keeps_every_title_in_its_column(checked, name):
    layers = (name, f"{name}2", f"{name}3")
    amounts = {kind: np.linspace(0.5, 1.5, 5) for kind in ("translation", "scale", "rotation")}
    line, shares = np.linspace(0, 1, 10).reshape(2, 5), np.full((2, 5, 2), 0.5, np.float32)
    curves = Curves(dict.fromkeys(layers, line), dict.fromkeys(layers, np.ones(2)), shares, shares[:, 0])
    stored = np.zeros((2, 12, 16, 3), np.uint8)
    known = np.array([True, False])
    chosen = Chosen(np.arange(2), stored, np.arange(2), known, known, (name, "b"), (f"{name}.png", "b.png"))
    canvas.pixels_of(
        invariance.draw(chosen, dict.fromkeys(amounts, curves), amounts=amounts, layers=layers, size=(8, 12))
    )
    assert len(checked) == 2


@SOME
def test_the_paths_of_climbs_keep_titles_and_legends_in_their_columns(checked, name):
    climbed = {layer: SimpleNamespace(paths=np.ones((12, 3))) for layer in (name, f"{name}2", f"{name}3")}
    units = [f"{name} {n}" for n in range(12)]
    result = {"layers": dict.fromkeys(climbed, {"units": units}), "settings": {"before_relu": True}}
    figure = maximization.paths_figure(climbed, result)
    canvas.pixels_of(figure)
    legend = figure.axes[0].get_legend().get_texts()
    assert len(legend) == lettering.LEGEND_LINES and legend[-1].get_text() == "and 3 more"


@SOME
def test_figure_4_keeps_layers_and_units_in_their_room(checked, name):
    result = {"epochs": [1, 2, 4], "threshold": 0.9}
    result["layers"] = dict.fromkeys((name, f"{name}2"), {kind: [0.1, 0.5, 1.0] for kind in evolution.CURVES})
    canvas.pixels_of(evolution.curves_figure(result))
    evolution.strip(np.zeros((2, 60, 70, 3), np.uint8), name, epochs=[1, 2])
    assert len(checked) == 2


@SOME
def test_the_sanity_table_keeps_words_and_numbers_in_their_columns(checked, name):
    cells = dict.fromkeys(sanity.METHODS, {"mean": None, "std": None, "num": 0})
    table = {"units": {name: cells}, "signed": {f"{name}2": cells}, "absolute": {f"{name}2": cells}}
    sanity.table_panel(table)
    lines = sanity.table_lines(table)
    row = lines[4][lines[4].index("undefined") :]
    assert row.split("  ") == ["undefined", "(undefined)"] * len(sanity.METHODS) and len(checked) == 1


@SOME
def test_a_class_stands_beside_its_picture_whatever_its_name(checked, name):
    """And classes whose shortened names are the same have entries of their own."""
    predicted = np.repeat([[0, 1]], 2, axis=0)
    occlusion.class_panel(predicted, occlusion.class_colours(predicted), [name, f"{name}"])
    assert len(boxes(checked[0])) == 2
    assert max(box.x1 for _, box in boxes(checked[0])) <= checked[0].bbox.x1


@SOME
def test_layers_below_an_axis_stand_side_by_side(name):
    rows = [{"layer": f"{name}{n}", "classifier": "svm", "mean": 50.0, "spread": None, "paper": None} for n in range(6)]
    result = {"rows": rows, "data": {"name": name}, "num_classes": 3, "num_train": 5, "paper": {"num_train": 30}}
    figure = transfer.draw_layers(result)
    canvas.pixels_of(figure)
    check(figure)
    ticks = [text.get_window_extent() for text in figure.axes[0].get_xticklabels()]
    assert all(first.x1 < second.x0 for first, second in itertools.pairwise(ticks))


@EACH
def test_a_text_is_shortened_in_its_middle_to_what_its_room_holds(name):
    plain = lettering.plain(name)
    for room in (60, 200):
        short = lettering.fitted(name, "label", room)
        assert lettering.text_width(short, "label") <= room
        ends = short.split("…")
        assert short == plain or (plain.startswith(ends[0]) and plain.endswith(ends[-1]))
        lines = lettering.lines(name, "label", room, most=3)
        assert len(lines) <= 3 and all(lettering.text_width(line, "label") <= room for line in lines)


def test_both_ends_of_a_long_name_are_kept():
    short = lettering.fitted(NAMES[2], "label", 200)
    assert short.startswith("someones_net") and short.endswith("/Conv_1") and "…" in short
    assert lettering.text_width(short, "label") > 150
    broken = lettering.lines(NAMES[1], "label", 200)
    assert broken == ["ResNetModel/encoder/", "stages_3/layers_1/bottleneck/", "Conv_0"]


def test_a_text_that_fits_stays_what_it_is():
    text = "map 7   white = +0.1"
    assert lettering.fitted(text, "label", 500) == text and lettering.lines(text, "label", 500) == [text]
    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    axes.set_title("$a$", fontsize=10)
    canvas.pixels_of(figure)
    assert axes.get_title() == "$a$" and not axes.title.get_parse_math()


def test_a_letter_keeps_the_signs_that_belong_to_it():
    """An accent, a joiner, a colour of skin: none is left alone behind the ellipsis."""
    for name in ("e\u0301" * 60, NAMES[4]):
        for room in range(30, 200, 7):
            after = lettering.fitted(name, "label", room).partition("…")[2]
            assert not after or after[0] in "e👩🔬🐘"


def test_a_legend_shows_names_as_they_are():
    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], label="_hidden $x$")
    lettering.legend(axes, axes.get_lines())
    canvas.pixels_of(figure)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["_hidden $x$"]
    assert not axes.get_legend().get_texts()[0].get_parse_math()


@pytest.mark.parametrize(
    ("number", "noun", "words"),
    [(1, "pixel", "1 pixel"), (0, "class", "0 classes"), (1, "class", "1 class"), (1000, "image", "1,000 images")],
)
def test_one_thing_is_no_plural(number, noun, words):
    assert lettering.counted(number, noun) == words


@pytest.mark.parametrize(
    ("share", "words"), [(0.0, "0%"), (0.001, "<1%"), (0.005, "<1%"), (0.006, "1%"), (1.0, "100%")]
)
def test_a_small_share_is_not_said_to_be_none(share, words):
    assert lettering.percent(share) == words


def test_a_long_name_takes_60_letters_of_a_console_line():
    short = lettering.on_console(NAMES[2])
    assert 58 <= len(short) <= 60 and short.startswith("someones_network") and short.endswith("some/Conv_1")
    assert lettering.on_console("conv5") == "conv5"


@pytest.mark.parametrize(
    ("known", "words", "of"),
    [
        ([True, True], ["a.png: cat", "b.png: dog"], "of the true class. What"),
        ([True, False], ["a.png: cat", "b.png: dog (the net's answer)"], "the net's answer where that is not"),
        ([False, False], ["a.png: cat (the net's answer)"], "of the net's answer, as the true class is not"),
    ],
)
def test_figure_5_says_whose_class_is_the_nets_own_answer(known, words, of):
    pictures = np.zeros((2, 4, 4, 3), np.uint8)
    chosen = Chosen(
        np.arange(2), pictures, np.arange(2), np.array(known), np.array(known), ("cat", "dog"), ("a.png", "b.png")
    )
    assert invariance.legend_words(chosen)[: len(words)] == words and of in invariance.caption(chosen)


@pytest.mark.parametrize(
    ("files", "named"),
    [(("n01/a.png", "n02/b.png"), ["a.png", "b.png"]), (("n01/a.png", "n02/a.png"), ["n01/a.png", "n02/a.png"])],
)
def test_figure_5_names_folders_only_where_they_tell_pictures_apart(files, named):
    known = np.zeros(2, bool)
    chosen = Chosen(np.arange(2), np.zeros((2, 4, 4, 3), np.uint8), np.arange(2), known, known, (), files)
    assert invariance.legend_words(chosen) == named


def test_an_entry_of_figure_5_shortens_the_longer_of_its_names():
    mark = f" ({invariance.OWN})"
    for picture, of_class in ((NAMES[2], "cat"), ("cat.png", NAMES[2]), (NAMES[2], NAMES[2]), (NAMES[4], NAMES[4])):
        entry = invariance.entry_of(picture, of_class, mark=mark, room=360)
        first, second = entry.removesuffix(mark).split(": ")
        assert 300 < lettering.text_width(entry, "caption") <= 360
        assert ("…" in first, "…" in second) == (len(picture) > 10, len(of_class) > 10)


def test_the_numbers_beside_a_low_panel_are_whole(checked):
    occlusion.value_panel(np.ones((4, 20)), 1.0, outline=None, cross=np.array([1, 1]))
    bar = checked[0].axes[1].child_axes[0]
    drawn = [text.get_window_extent() for text in bar.get_yticklabels() if text.get_text()]
    assert all(0 <= box.y0 and box.y1 <= checked[0].bbox.y1 for box in drawn) and len(drawn) >= 2


@pytest.mark.parametrize(
    ("value", "words"),
    [(290.4, "290"), (2847.0, "2800"), (0.00549, "0.0055"), (1.0, "1"), (0.38, "0.38"), (3.1e7, "3.1e+07")],
)
def test_numbers_of_two_digits_have_no_exponent_that_a_reader_must_work_out(value, words):
    assert lettering.two_digits(value) == words


def test_what_is_left_out_for_one_reason_is_one_sentence():
    parts = {"(a)": "it is grey", "(b)": "it is small", "(c)": "it is grey", "(d)": "it is grey"}
    assert lettering.left_out(parts) == ["Left out: (a), (c) and (d), as it is grey.", "Left out: (b), as it is small."]
