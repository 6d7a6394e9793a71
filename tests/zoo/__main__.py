"""`python tests/zoo [NAME …]`: measure the nets, all or those with such names, into the table of docs/any_model.md."""

import pathlib
import re
import sys

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


def main(asked):
    text = PAGE.read_text()
    before, (table, after) = text.split(BEGIN)[0], text.split(BEGIN)[1].split(END)
    rows = {re.split(r" *\| *", line)[1]: line for line in table.splitlines(keepends=True)[2:]}
    for name in zoo.NETS:
        if name not in rows or not asked or any(word in name for word in asked):
            rows[name] = row(name, zoo.measure(name))
            print(rows[name], end="", flush=True)
    PAGE.write_text(before + BEGIN + HEAD + "".join(rows[name] for name in zoo.NETS) + END + after)


if __name__ == "__main__":
    main(sys.argv[1:])
