"""Every result on one page: the paper's claims, its numbers and ours, and every figure in place.

    python -m experiments.paper_report

Reads each result.json below --results (default runs/), whatever subset there is, and writes report.md and a
self-contained report.html to runs/report (or --out). Expected time: seconds.
Expected page: a table with one row for each claim of the paper and each result that speaks to it (what the paper says,
its number, ours, on which net and data, whether it holds here and by which rule), then the figures. A claim that does
not hold here is shown as not holding; one that no result speaks to, as not measured.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from experiments import command, inputs, pictures
from experiments.paper_claims import CLAIMS, Claim
from experiments.paper_judges import Finding
from experiments.report_pages import Cell, Figure, Page, as_html, as_markdown

VERDICTS = {True: "holds", False: "does not hold"}
HEADS = ("Source", "The paper says", "Its number", "Ours", "Net and data", "Verdict here", "Rule")


@dataclass(frozen=True)
class Config:
    """Hold every result against the paper, on one page."""

    results: Path = inputs.RUNS
    """Folder below which every result.json is read."""
    out: Path = inputs.RUNS / "report"
    """Folder for report.md, report.html and its own result.json."""
    overwrite: bool = False
    """Replace a report that is already there."""


class Found(NamedTuple):
    """One result.json."""

    path: Path
    result: dict[str, Any]

    @property
    def source(self) -> str:
        """The figure or table that it is about."""
        return str(self.result.get("figure") or self.result.get("table"))


class Row(NamedTuple):
    """One claim and one result that speaks to it, or none."""

    claim: Claim
    found: Found | None
    finding: Finding | None

    @property
    def verdict(self) -> str:
        """In words, with the p-value where there was a test."""
        if self.finding is None:
            return "not measured"
        p_value = "" if self.finding.p_value is None else f" (p = {self.finding.p_value:.2g})"
        return VERDICTS[self.finding.holds] + p_value


def run(config: Config) -> dict[str, Any]:
    """Read, judge and write; what result.json holds.

    Raises:
      ValueError: a damaged result.json, named; a report that is already there.
      FileNotFoundError: no result at all.
    """
    out = inputs.result_folder(config.out, config.out, overwrite=config.overwrite)
    found = read_results(config.results)
    rows = judge_all(found)
    page = Page(
        title="Visualizing and Understanding Convolutional Networks: the paper's claims and ours",
        summary=summary(rows),
        heads=HEADS,
        rows=[cells(row) for row in rows],
        figures=[figure for one in found for figure in figures_of(one)],
    )
    result = {
        "report": "claims",
        "claims": [
            {
                **{name: getattr(row.claim, name) for name in ("source", "says", "paper", "rule")},
                "result": row.found.path if row.found else None,
                "ours": row.finding.ours if row.finding else None,
                "verdict": row.verdict,
            }
            for row in rows
        ],
        "config": config,
        "versions": pictures.versions(),
    }
    (out / "result.json").unlink(missing_ok=True)
    pictures.write_atomically(out / "report.md", as_markdown(page, out).encode())
    pictures.write_atomically(out / "report.html", as_html(page).encode())
    pictures.save_result(out / "result.json", result)
    return {**result, "folder": out}


def read_results(folder: Path) -> list[Found]:
    """Every figure's and table's result below `folder`, by source, then path."""
    found = []
    for path in sorted(folder.rglob("result.json")):
        try:
            result = json.loads(path.read_text())
        except (ValueError, OSError) as error:
            raise ValueError(f"{path} is damaged; remove it, or make it again: {error}") from error
        if isinstance(result, dict) and ("figure" in result or "table" in result):
            found.append(Found(path, result))
    if not found:
        raise FileNotFoundError(
            f"no result below {folder}/: draw a figure first, as `python -m experiments.deconv_figures`"
        )
    return sorted(found, key=lambda one: (one.source, str(one.path)))


def judge_all(found: Sequence[Found]) -> list[Row]:
    """One row for each claim and result that speaks to it; a claim without any has one row of its own."""
    rows = []
    for claim in CLAIMS:
        judged = [Row(claim, one, finding_of(claim, one)) for one in found if one.source == claim.source]
        rows += [row for row in judged if row.finding is not None] or [Row(claim, None, None)]
    return rows


def finding_of(claim: Claim, one: Found) -> Finding | None:
    """The judge's finding; ValueError naming the file where it lacks what the experiment writes."""
    try:
        return claim.judge(one.result)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(
            f"{one.path} is no result of this version of {claim.source} ({error!r}): make it again"
        ) from error


def summary(rows: Sequence[Row]) -> str:
    """How many claims hold, do not, and were not measured."""
    counts = {verdict: 0 for verdict in ("holds", "does not hold", "not measured")}
    for row in rows:
        counts[row.verdict.split(" (")[0]] += 1
    said = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    return f"{len(CLAIMS)} claims; over all results that speak to them: {said}."


def cells(row: Row) -> list[Cell]:
    """One line of the table."""
    ours, where = (
        ("", "") if row.finding is None or row.found is None else (row.finding.ours, setting(row.found.result))
    )
    verdict = row.verdict
    words = (row.claim.source, row.claim.says, row.claim.paper, ours, where, verdict, row.claim.rule)
    return [
        Cell(word, verdict.split(" (")[0] if head == "Verdict here" else "")
        for head, word in zip(HEADS, words, strict=True)
    ]


def setting(result: dict[str, Any]) -> str:
    """Net and data of a result, in few words."""
    data, checkpoint = result.get("data") or {}, result.get("checkpoint") or {}
    run = Path(checkpoint.get("path") or "").parent.parent.name  # <run>/checkpoints/<step>
    parts = [name] if (name := result.get("network") or run) else []
    parts += [f"on {data['name']}"] if data.get("name") else []
    number = result.get("num_images")
    return ", ".join([*parts, *([f"{number:,} images"] if isinstance(number, int) else [])])


def figures_of(one: Found) -> list[Figure]:
    """The pictures beside a result.json; an overview stands for the pages that it sums up."""
    names = sorted(one.path.parent.glob("*.png"))
    overview = [name for name in names if name.name == "overview.png"]
    heading = f"{one.source[0].upper()}{one.source[1:]}: {setting(one.result)}"
    return [Figure(heading, name.stem.replace("_", " "), name) for name in overview or names]


def report(result: dict[str, Any]) -> None:
    """Print the verdicts."""
    for claim in result["claims"]:
        print(f"{claim['source']:18} {claim['verdict']:28} {claim['says']}")
    print(f"written to {result['folder']}")


def main() -> None:
    """The command line."""
    command.main(Config, run, __doc__, report)


if __name__ == "__main__":
    main()
