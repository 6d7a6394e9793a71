"""What stands beside a claim of the paper: its judge, the judge's finding, one of four verdicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, get_type_hints

import numpy as np

from experiments.report.statistics import ALPHA, Outcome

HOLDS, FAILS, NOT_SHOWN, NOT_MEASURED = VERDICTS = ("holds", "does not hold", "not shown", "not measured")

Result = Mapping[str, Any]  # a result.json
ROUNDING = 1e-9  # what numbers written with a few digits, and taken from one another, may miss a bound by


class Finding(NamedTuple):
    """What one result says to one claim."""

    ours: str
    verdict: str  # one of VERDICTS
    because: str = ""  # the p-value that decides, what decides in its place, or why none does

    @property
    def words(self) -> str:
        """The verdict with its reason."""
        return f"{self.verdict} ({self.because})" if self.because else self.verdict


class Needs(NamedTuple):
    """What every network of a result has to be trained on, at least, before a claim can be decided by it."""

    epochs: float = 0
    num_classes: int = 0
    num_images: int = 0
    width: float = 0
    alike: bool = False  # as long as each other, and on as much: a claim that holds one network against another
    to_refute: Needs | None = None  # what those need that refute it, where that is more

    @property
    def words(self) -> str:
        """As "trained: at least 1 epoch, 100 classes; all networks alike; to refute it at least 1,000 classes"."""
        alike = "; all networks as wide, as long, and on as many classes and images" if self.alike else ""
        refute = f"; to refute it at least {self.to_refute.least_words}" if self.to_refute else ""
        return f"trained: at least {least}{alike}{refute}" if (least := self.least_words) else "none"

    def words_beside(self, result: Result) -> str:
        """The same and what the result's networks have of it: "trained: at least 1 epoch; here 20 epochs"."""
        names = (self.to_refute or self).least
        known = {name: {_number(of[name]) for of in trainings(result) if name in of} for name in names}
        here = ", ".join(f"{' and '.join(sorted(numbers))} {UNITS[name]}" for name, numbers in known.items() if numbers)
        return f"{self.words}; here {here}" if here else self.words

    def lacking(self, result: Result) -> str:
        """What the result's networks lack, the first of it; "" where nothing."""
        wanted = self.least
        known = (trainings(result) or [{}]) if wanted else []
        for training in known:
            for name, least in wanted.items():
                if name not in training:
                    if name == "width":
                        return "how wide it is beside the paper's is not known"
                    return f"the number of {UNITS[name]} of its training is not known"
                if training[name] < least:
                    return f"trained: {_amount(name, training[name])}, not {_number(least)}"
        for name, unit in UNITS.items() if self.alike else ():
            if len(numbers := {training.get(name) for training in known}) > 1:
                each = ", ".join(sorted("unknown" if number is None else _number(number) for number in numbers))
                return f"its networks were not trained alike: {each} {unit}"
        return ""

    @property
    def least(self) -> dict[str, float]:
        """The numbers that are asked for."""
        return {name: least for name in UNITS if (least := getattr(self, name))}

    @property
    def least_words(self) -> str:
        """As "1 epoch, 100 classes"."""
        return ", ".join(_amount(name, value) for name, value in self.least.items())


UNITS = {"epochs": "epochs", "num_classes": "classes", "num_images": "images", "width": "of the full width"}
ONE = {"epochs": "1 epoch", "num_classes": "1 class", "num_images": "1 image", "width": "the full width"}


def _number(value: float) -> str:
    """As "0.33" or "1,281,167"."""
    return f"{round(value, 2):,.12g}"


def _amount(name: str, value: float) -> str:
    """As "1 epoch" or "1,000 classes"."""
    return ONE[name] if value == 1 else f"{_number(value)} {UNITS[name]}"


NOTHING = Needs()
TRAINED = Needs(epochs=1)
LONG = Needs(epochs=10)  # the paper's upper layers settle after 40 to 50
IMAGENET = LONG._replace(num_classes=1_000, num_images=1_000_000, width=1)  # held against printed accuracies
# What features or layers are worth. A net that has only begun shows nothing of it: deep nets begin late (after 3 epochs
# of 50,000 photos of 200 classes AlexNet errs in 95 %, without four of its layers in 87 %). One that has learnt less
# than the paper's may bear a claim out, but refutes none: its features are worse, and deep nets overfit few photos. Nor
# does it bear out that a layer is as good as another, or costs little: where little is learnt all is alike.
MANY_CLASSES = LONG._replace(num_classes=100, to_refute=IMAGENET)
COMPARED = TRAINED._replace(alike=True)  # a network that was trained longer, or on more, differs by that alone
COMPARED_MANY = MANY_CLASSES._replace(alike=True)
# Where the errors of two single networks are compared: the paper's differ by .8 to 2.1 points, two seeds of one recipe
# by 1.8 (5 epochs of 50,000 photos). No margin fits between these, so only networks trained as the paper's are decide.
COMPARED_IMAGENET = IMAGENET._replace(alike=True)


def trainings(result: Result) -> list[dict[str, float]]:
    """The numbers of what each network of a result was trained on; {} where it does not say so."""
    trained = [checkpoint.get("training") for checkpoint in checkpoints_of(result)]
    known = [training if isinstance(training, Mapping) else {} for training in trained]
    return [{name: of[name] for name in UNITS if isinstance(of.get(name), int | float)} for of in known]


def checkpoints_of(result: Result) -> list[Mapping[str, Any]]:
    """Where the networks of a result come from: its checkpoint or, where it compares several, that of each.

    Of several every one counts, also one that does not say where it comes from: {}; not one that goes beyond the paper.
    """
    roles = result.get("checkpoints")
    several: list[object] = [*roles.values()] if isinstance(roles, Mapping) else []
    for name in ("members", "rows"):
        listed = result.get(name)
        named = [one for one in listed if isinstance(one, Mapping)] if isinstance(listed, list) else []
        if any("checkpoint" in one for one in named):
            several += [one.get("checkpoint") for one in named if one.get("paper", True) is not None]
    if several:
        return [one if isinstance(one, Mapping) else {} for one in several]
    return [one] if isinstance(one := result.get("checkpoint"), Mapping) else []


Judge = Callable[[Any], Finding | None]  # of a result.json; None where that says nothing to the claim


class Claim(NamedTuple):
    """One sentence of the paper."""

    source: str  # the "figure" or "table" of the results that speak to it
    says: str
    paper: str  # its number, or where it shows it
    rule: str  # when our result bears it out
    judge: Judge
    fields: Any  # a TypedDict: what the judge reads of a result.json, see `schema.check`
    needs: Needs  # what the networks have to be trained on

    def finding(self, result: Result) -> Finding | None:
        """What its judge says, which is not shown where the networks are not trained on what this needs."""
        finding = self.judge(result)
        if finding is None or finding.verdict == NOT_SHOWN:
            return finding
        if lacking := self.needs.lacking(result):
            return Finding(finding.ours, NOT_SHOWN, f"precondition: {lacking}")
        if finding.verdict == FAILS and self.needs.to_refute and (lacking := self.needs.to_refute.lacking(result)):
            because = f"; {finding.because}" if finding.because else ""
            return Finding(finding.ours, NOT_SHOWN, f"precondition of a refutation: {lacking}{because}")
        return finding


def claim(source: str, *, says: str, paper: str, rule: str, needs: Needs) -> Callable[[Judge], Claim]:
    """Make the function below it the judge of a claim; its name then is that of the claim.

    The type of the judge's argument, a TypedDict, is the claim's `fields`. The other arguments are those of `Claim`.
    """

    def judged_by(judge: Judge) -> Claim:
        (fields,) = (kind for name, kind in get_type_hints(judge).items() if name != "return")
        return Claim(source, says, paper, rule, judge, fields, needs)

    return judged_by


def tested(ours: str, test: Outcome) -> Finding:
    """By a test: it holds, the contrary does, or neither is shown."""
    if test.p is None or test.against is None or test.p != test.p:  # NaN
        return Finding(ours, NOT_SHOWN, test.why or "no p-value")
    assumes = f"; {test.why}" if test.why else ""
    if test.p < ALPHA:
        return Finding(ours, HOLDS, p_words(test.p) + assumes)
    if test.against < ALPHA:
        return Finding(ours, FAILS, f"the contrary: {p_words(test.against)}{assumes}")
    return Finding(ours, NOT_SHOWN, p_words(test.p) + assumes)


def bounded(ours: str, value: float, *, holds_from: float, fails_to: float) -> Finding:
    """By a number that has no spread: it holds from one bound on, fails up to another, and between is not shown."""
    if reaches(value, holds_from):
        return Finding(ours, HOLDS)
    if reaches(-value, -fails_to):
        return Finding(ours, FAILS)
    between = f"{value:.4g} is below {holds_from:g}" + (f" and above {fails_to:g}" if np.isfinite(fails_to) else "")
    return Finding(ours, NOT_SHOWN, between)


def reaches(value: float, bound: float) -> bool:
    """Whether a number is at a bound or above it, but for `ROUNDING`."""
    return value >= bound - ROUNDING


def p_words(p: float) -> str:
    """As "p = 0.031"."""
    return f"p = {p:.2g}" if p >= 1e-4 else "p < 0.0001"
