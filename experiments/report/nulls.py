"""Nulls: networks that can bear no claim out, for want of training or of a difference; how every rule judges them.

A rule that such a null often satisfies says nothing by itself. `STORED`, which `experiments.null_claims` makes, counts
the verdicts of every rule on its null; the report shows them beside ours.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any, TypedDict

from experiments.report.verdicts import VERDICTS

STORED = Path(__file__).with_name("nulls.json")


class NullOfClaim(TypedDict):
    """How a claim's rule alone, without its precondition, judges its null."""

    null: str
    ours: str  # the number of the first seed
    verdicts: dict[str, int]  # how many seeds have which


@functools.cache
def stored() -> dict[str, list[NullOfClaim]]:
    """{name of the judge: its nulls}."""
    return dict(json.loads(STORED.read_text(encoding="utf-8"))["claims"]) if STORED.exists() else {}


def words(name: str) -> str:
    """As "untrained networks: R² 0.97 (by the rule alone, of 3: not shown 3)"; where there is none, that."""
    return "; ".join(map(_words_of, stored().get(name, ()))) or "no null is measured"


def _words_of(null: NullOfClaim) -> str:
    counts = ", ".join(f"{verdict} {count}" for verdict, count in null["verdicts"].items() if count)
    return f"{null['null']}: {null['ours']} (by the rule alone, of {sum(null['verdicts'].values())}: {counts})"


def counted(findings: list[Any], null: str) -> NullOfClaim | None:
    """What the findings of several seeds come to; None where none says anything."""
    said = [finding for finding in findings if finding is not None]
    if not said:
        return None
    verdicts = {verdict: sum(finding.verdict == verdict for finding in said) for verdict in VERDICTS[:3]}
    return {"null": null, "ours": said[0].ours, "verdicts": verdicts}
