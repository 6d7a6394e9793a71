"""What stands beside a claim of the paper: its judge, the judge's finding, one of four verdicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, get_type_hints

from experiments.report.statistics import ALPHA, Outcome

HOLDS, FAILS, NOT_SHOWN, NOT_MEASURED = VERDICTS = ("holds", "does not hold", "not shown", "not measured")

Result = Mapping[str, Any]  # a result.json


class Finding(NamedTuple):
    """What one result says to one claim."""

    ours: str
    verdict: str  # one of VERDICTS
    because: str = ""  # the p-value that decides, what decides in its place, or why none does

    @property
    def words(self) -> str:
        """The verdict with its reason."""
        return f"{self.verdict} ({self.because})" if self.because else self.verdict


Judge = Callable[[Any], Finding | None]  # of a result.json; None where that says nothing to the claim


class Claim(NamedTuple):
    """One sentence of the paper."""

    source: str  # the "figure" or "table" of the results that speak to it
    says: str
    paper: str  # its number, or where it shows it
    rule: str  # when our result bears it out
    judge: Judge
    fields: Any  # a TypedDict: what the judge reads of a result.json, see `schema.check`


def claim(source: str, *, says: str, paper: str, rule: str) -> Callable[[Judge], Claim]:
    """Make the function below it the judge of a claim; its name then is that of the claim.

    The type of the judge's argument, a TypedDict, is the claim's `fields`. The other arguments are those of `Claim`.
    """

    def judged_by(judge: Judge) -> Claim:
        (fields,) = (kind for name, kind in get_type_hints(judge).items() if name != "return")
        return Claim(source, says, paper, rule, judge, fields)

    return judged_by


def tested(ours: str, test: Outcome) -> Finding:
    """By a test: it holds, the contrary does, or neither is shown."""
    if test.p is None or test.against is None or test.p != test.p:  # NaN
        return Finding(ours, NOT_SHOWN, test.why or "no p-value")
    if test.p < ALPHA:
        return Finding(ours, HOLDS, test.why or p_words(test.p))
    if test.against < ALPHA:
        return Finding(ours, FAILS, test.why or f"the contrary: {p_words(test.against)}")
    return Finding(ours, NOT_SHOWN, test.why or p_words(test.p))


def bounded(ours: str, value: float, *, holds_from: float, fails_to: float) -> Finding:
    """By a number that has no spread: it holds from one bound on, fails up to another, and between is not shown."""
    if value >= holds_from:
        return Finding(ours, HOLDS)
    return Finding(ours, FAILS if value <= fails_to else NOT_SHOWN)


def p_words(p: float) -> str:
    """As "p = 0.031"."""
    return f"p = {p:.2g}" if p >= 1e-4 else "p < 0.0001"
