"""The table of docs/any_model.md: its place, its columns and its lines."""

import pathlib

import zoo

PAGE = pathlib.Path(__file__).parents[2] / "docs/any_model.md"
BEGIN, END = "<!-- python tests/zoo -->\n", "<!-- end of the zoo -->"
WORDS, NUMBER = "---", "---:"
COLUMNS = {
    "net": WORDS,
    "rectifiers": NUMBER,
    "own gradient": NUMBER,
    "no rule": WORDS,
    "`on_unknown`": WORDS,
    "to the twin": NUMBER,
    "to Captum": NUMBER,
    "gradient to twin": NUMBER,
    "first call": NUMBER,
    "of `jax.grad`": NUMBER,
}
HEAD = f"| {' | '.join(COLUMNS)} |\n|{'|'.join(COLUMNS.values())}|\n"


def parts():
    """The page above its table, {net: line} of the table, and the page below it."""
    above, rest = PAGE.read_text().split(BEGIN)
    table, below = rest.split(END)
    return above, {line.split(" | ")[0][2:]: line for line in table.splitlines(keepends=True)[2:]}, below


def write(above, rows, below):
    """The page anew, its lines in the order of the zoo."""
    PAGE.write_text(above + BEGIN + HEAD + "".join(rows[name] for name in zoo.NETS) + END + below)


def row(name, found):
    """One line of the table."""
    choices = {} if zoo.NETS[name].on_unknown == "error" else zoo.NETS[name].on_unknown
    cells = [
        name,
        found.rules["rectifier"],
        found.rules["own gradient"],
        ", ".join(f"{count} {operation}" for operation, count in found.refused.items()),
        ", ".join(f"`{pattern}`: {getattr(choice, '__name__', choice)}" for pattern, choice in choices.items()),
        *("" if error is None else f"{error:.0e}" if error else 0 for error in (found.error, found.from_captum)),
        f"{found.from_gradient:.2f}",
        f"{found.seconds:.1f} s",
        f"{found.gradient_seconds:.1f} s",
    ]
    return f"| {' | '.join(map(str, cells))} |\n"
