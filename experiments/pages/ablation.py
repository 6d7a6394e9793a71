"""Table 3 as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure


def draw(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Table 3 as a picture: our errors beside the paper's."""
    figure = Figure(figsize=(9, 0.7 + 0.3 * len(rows)), layout="constrained")
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_title("Table 3: error in percent, ours and (the paper's, on ImageNet)", fontsize=12, loc="left")
    heads = ["variant", "parameters", "training top-1", "validation top-1", "validation top-5"]
    widths = (0.36, 0.13, 0.17, 0.17, 0.17)
    whole: Any = (0, 0, 1, 1)  # the stub knows no box of four numbers
    table = axes.table(list(map(cells, rows)), colLabels=heads, colWidths=widths, cellLoc="right", bbox=whole)
    table.auto_set_font_size(False)
    table.set_fontsize(10)
    for (row, column), cell in table.get_celld().items():
        cell.set_edgecolor("0.8")
        cell.set_text_props(ha="left" if column == 0 else "right", weight="bold" if row == 0 else "normal")
    return figure


def cells(row: Mapping[str, Any]) -> list[str]:
    """One line of the table."""
    error = row["error"]
    ours = (error["train"]["top1"], error["validation"]["top1"], error["validation"].get("top5"))
    theirs = row["paper"] or (None, None, None)
    numbers = [
        ("-" if a is None else f"{100 * a:.1f}") + ("" if b is None else f" ({b:.1f})")
        for a, b in zip(ours, theirs, strict=True)
    ]
    return [row["name"], f"{row['parameters']:,}", *numbers]
