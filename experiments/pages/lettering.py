"""Words of any length in the room that a page has for them: measured as they are drawn, broken into lines, shortened.

Names of layers, classes and files are others': of any length, in any script, with any signs. `fitted` gives one line
and `lines` several; both leave out the middle where a text is too long, as names often differ at their ends.
`fit_plots` does so with the words of plots.
"""

from __future__ import annotations

import contextlib
import functools
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.legend import Legend
from matplotlib.text import Text

from experiments.pages.words import left_out as left_out
from zfjax.pixels import grey_projections as grey_projections

DPI = 120  # pixels per inch: type of 9 points is 15 pixels high
SIZES = {"title": 13.0, "heading": 10.5, "caption": 9.0, "strong": 9.0, "label": 8.0, "small": 6.0}  # points
TITLE_LINES, LEGEND_LINES = 4, 10  # of a plot, at most
HANDLE = 5.0  # sizes of its type that a legend's frame, and the sign before an entry, take

Measure = Callable[[str], float]  # pixels that a line takes


def fitted(text: str, kind: str, width: float) -> str:
    """The text on one line, or as much of both its ends as fits into so many pixels, around an ellipsis."""
    return _fitted(text, functools.partial(text_width, kind=kind), width)


def lines(text: str, kind: str, width: float, *, most: int | None = None) -> list[str]:
    """The text in lines of so many pixels at most, broken at spaces, and within a word at / _ . : - where it must be.

    What needs more than `most` lines is left out in the middle.
    """
    return _lines(text, measure=functools.partial(text_width, kind=kind), width=width, most=most)


def text_width(text: str, kind: str) -> float:
    """Pixels that a line takes, by the renderer that draws it."""
    return _width(text, SIZES[kind], bold=is_bold(kind))


def is_bold(kind: str) -> bool:
    """Whether lines of this kind are."""
    return kind in ("title", "heading", "strong")


def plain(text: str) -> str:
    """The text as fonts can draw it: one space for every stretch of white, "?" for half a sign or a control."""
    if text.isprintable():
        return text
    signs = ("?" if unicodedata.category(sign) in ("Cs", "Cc") else sign for sign in re.sub(r"\s+", " ", text))
    return "".join(signs).strip()


def counted(number: int, noun: str) -> str:
    """A number of things: "1 class", "1,000 classes"."""
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{ending}"


def percent(share: float) -> str:
    """A share as "4%"; what is there and rounds to nothing as "<1%"."""
    words = f"{share:.0%}"
    return "<1%" if words == "0%" and share > 0 else words


def two_digits(value: float) -> str:
    """The number to two significant digits, below a million without an exponent: 290, 0.0055."""
    return f"{float(f'{value:.2g}'):g}"


def on_console(name: str, most: int = 60) -> str:
    """A name in so many letters at most, without its middle where it is longer: for lines of a terminal."""
    return _shortened(plain(name), lambda shorter: len(shorter) <= most)


def legend(axes: Axes | Figure, handles: Sequence[Any], *, most: int = LEGEND_LINES, **style: Any) -> None:
    """A legend of the first `most` of what is drawn, by its labels as they are: "_" and "$" are signs like others."""
    names = [str(one.get_label()) for one in handles]
    num = len(names) if len(names) <= most else most - 1
    entries = [*names[:num], *([f"and {len(names) - num} more"] if num < len(names) else [])]
    drawn = axes.legend(handles[: len(entries)], [f"{n}" for n in range(len(entries))], **style)
    if num < len(names):
        drawn.legend_handles[-1].set_visible(False)  # type: ignore[union-attr]
    for text, name in zip(drawn.get_texts(), entries, strict=True):
        text.set_parse_math(False)
        text.set_text(plain(name))


def fit_plots(figure: Figure) -> None:
    """Break or shorten the titles, the labels below and the legends of a figure's plots to their width.

    Plots are laid out without these words first: such as are too long leave no room for a plot.
    """
    around = [(axes, text, text.get_text()) for axes in figure.axes for text in _above_and_below(axes)]
    entries = [(axes, text, text.get_text()) for axes in figure.axes for text in _entries(axes)]
    for _, text, _ in (*around, *entries):
        text.set_parse_math(False)
        text.set_text("")
    if (around or entries) and (engine := figure.get_layout_engine()) is not None:
        engine.execute(figure)
    for axes, text, words in around:
        text.set_text(
            "\n".join(_lines(words, measure=_as_drawn(text, figure), width=axes.bbox.width, most=TITLE_LINES))
        )
    for axes, text, words in entries:
        room = 0.8 * axes.bbox.width - HANDLE * float(text.get_fontsize()) * figure.dpi / 72
        text.set_text(_fitted(words, _as_drawn(text, figure), room))


@contextlib.contextmanager
def missing_letters_as_boxes() -> Iterator[None]:
    """Names of classes and files may be in scripts that the font has no letters of."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        yield


def font(kind: str) -> FontProperties:
    """The type of one kind of text."""
    return FontProperties(size=SIZES[kind], weight="bold" if is_bold(kind) else "normal")


def _above_and_below(axes: Axes) -> list[Text]:
    """The titles of a plot and the label of its lower axis, where there are any."""
    own = [one for one in axes.get_children() if isinstance(one, Text) and one not in axes.texts]
    return [text for text in (*own, axes.xaxis.label) if text.get_text()]


def _entries(axes: Axes) -> list[Text]:
    """The words of a plot's legends."""
    return [text for one in axes.get_children() if isinstance(one, Legend) for text in one.get_texts()]


def _as_drawn(text: Text, figure: Figure) -> Measure:
    """How wide words are in the type of a text of the figure."""
    points, bold = float(text.get_fontsize()), text.get_fontweight() in ("bold", 700)
    return lambda words: _width(words, points, bold=bold) * figure.dpi / DPI


def _lines(text: str, *, measure: Measure, width: float, most: int | None = None) -> list[str]:
    broken = list(_broken(plain(text), measure, width))
    if most is None or len(broken) <= most:
        return broken
    if most == 1:
        return [_fitted(text, measure, width)]
    fits = functools.partial(_fit_lines, measure=measure, width=width, most=most)
    return list(_broken(_shortened(plain(text), fits), measure, width))


def _fit_lines(text: str, *, measure: Measure, width: float, most: int) -> bool:
    return len(list(_broken(text, measure, width))) <= most


def _fitted(text: str, measure: Measure, width: float) -> str:
    return _shortened(plain(text), lambda shorter: measure(shorter) <= width)


def _shortened(text: str, fits: Callable[[str], bool]) -> str:
    """The text, or the longest that fits of those that an ellipsis stands in the middle of."""
    if fits(text):
        return text
    low, high = 0, len(text) - 1  # letters kept: so many fit, or are taken to; so many at most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(_without_middle(text, middle)) else (low, middle - 1)
    return _without_middle(text, low)


def _without_middle(text: str, kept: int) -> str:
    """So many letters of a text, from both its ends; signs that belong to the letter before them go with it."""
    first, last = text[: (kept + 1) // 2].rstrip(" \u200d"), text[len(text) - kept // 2 :].lstrip()
    while last and (unicodedata.category(last[0]) in ("Mn", "Me", "Cf") or "\U0001f3fb" <= last[0] <= "\U0001f3ff"):
        last = last[1:]
    return f"{first}…{last}"


def _broken(text: str, measure: Measure, width: float) -> Iterator[str]:
    """The text's lines, each as long as it can be."""
    if measure(text) <= width:
        yield text
        return
    line = ""
    for word in text.split():
        between = " " if line else ""
        for piece in _pieces(word, measure=measure, width=width):
            if line and measure(line + between + piece) > width:
                yield line
                line, between = "", ""
            line, between = line + between + piece, ""
    yield line


def _pieces(word: str, *, measure: Measure, width: float, ends: Sequence[str] = ("/", "_.:-")) -> Iterator[str]:
    """A word, or the parts of one that is wider than a line: up to a slash, else up to another sign, else letters."""
    if measure(word) <= width:
        yield word
    elif ends:
        for part in re.findall(f"[^{ends[0]}]*[{ends[0]}]+|[^{ends[0]}]+", word):
            yield from _pieces(part, measure=measure, width=width, ends=ends[1:])
    else:
        low, high = 1, len(word)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if measure(word[:middle]) <= width else (low, middle - 1)
        yield word[:low]
        if low < len(word):
            yield from _pieces(word[low:], measure=measure, width=width, ends=())


@functools.lru_cache(maxsize=4096)
def _width(text: str, points: float, *, bold: bool) -> float:
    of = FontProperties(size=points, weight="bold" if bold else "normal")
    with missing_letters_as_boxes():
        return float(_renderer().get_text_width_height_descent(text, of, ismath=False)[0])


@functools.cache
def _renderer() -> RendererAgg:
    renderer: RendererAgg = FigureCanvasAgg(Figure(dpi=DPI)).get_renderer()
    return renderer
