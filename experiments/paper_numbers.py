"""The numbers of a result that has no picture, as a small table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from experiments.paper_results import Found, run_name
from experiments.paper_verdicts import Result
from experiments.report_pages import Cell, Table

PLUMBING = {"figure", "table", "config", "versions", "checkpoint", "checkpoints", "data", "meanings", "paper", "folder"}
MOST = 40  # rows


def table_of(found: Found) -> Table | None:
    """None where there are pictures, which show the numbers, or where there is no number."""
    if found.figures:
        return None
    heads, rows = KNOWN.get(found.source, everything)(found.result)
    if len(rows) > MOST:
        rows = [*rows[:MOST], (f"... and {len(rows) - MOST:,} more", *[""] * (len(heads) - 1))]
    return Table(heads, [[Cell(word) for word in row] for row in rows]) if rows else None


def errors(result: Result) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Table 2: top-1 and top-5 error of each network, of all together, and the paper's."""
    known = [(f"{one['name']} ({run_name(one['checkpoint'])})", one["error"]) for one in result["members"]]
    if len(known) > 1:
        known.append((f"the average of all {len(known)}", result["error"]))
    rows = [
        (name, *(f"{100 * error[views][top]:.1f}" for views in ("center", "ten") for top in ("top1", "top5")))
        for name, error in known
    ]
    rows += [
        (f"paper: {name}", "", "", f"{top1:.1f}", f"{top5:.1f}") for name, (top1, top5, _) in result["paper"].items()
    ]
    return ("error (%)", "centre, top-1", "centre, top-5", "ten crops, top-1", "ten crops, top-5"), rows


def precisions(result: Result) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Table 6: average precision of each class, their mean, and the paper's."""
    of_class = result["average_precision"].items()
    rows: list[tuple[str, ...]] = [(name, "-" if value is None else f"{value:.1f}") for name, value in of_class]
    rows.append(("mean", f"{result['mean_average_precision']:.1f}"))
    rows.append(("paper, mean on the test set", f"{result['paper']['pretrained']:.1f}"))
    return ("class", "average precision (%)"), rows


def everything(result: Result) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Each number by its place in the result."""
    own = {name: value for name, value in result.items() if name not in PLUMBING}
    return ("number", "value"), [(name, f"{value:,.4g}") for name, value in _numbers(own, "")]


KNOWN = {"Table 2": errors, "Table 6": precisions}


def _numbers(value: Any, name: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping | list):
        named = value.items() if isinstance(value, Mapping) else enumerate(value, start=1)
        for part, inner in named:
            yield from _numbers(inner, f"{name}, {part}" if name else str(part))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, value
