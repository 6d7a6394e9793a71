"""Every result on one page: the paper's claims, its numbers and ours, and every figure.

    python -m experiments.paper_report

Reads every result.json below --results (default runs/), and writes report.md and a self-contained report.html to
runs/report (or --out). Expected time: seconds. Expected page: a table of the claims, each with one sentence to quote
and its verdicts, linked to its figure or table of the paper. There, one row for each claim and result: the paper's
statement, its number, ours, that of a null (see `null_claims`), the networks and data, the precondition on their
training, the verdict and its rule; below, the pictures or numbers of those results. Of several results about the same
networks and pictures the one of most networks, then images, rows, folds, layers, epochs and maps is judged. A claim
that no test decides, or whose precondition is not met, is "not shown". Claims without a result are "not measured", and
stand in a table of their own with the commands that decide them. A result.json that cannot be read, or lacks what this
version reads, is named at the end of the page with what to do, and stops nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from experiments.report import nulls
from experiments.report import results as report_results
from experiments.report.figures import CLAIMS, HOW
from experiments.report.render import Block, Cell, Page, Part, Table, as_html, as_markdown
from experiments.report.results import Measurement, Unreadable, joined, read_results
from experiments.report.verdicts import FAILS, HOLDS, NOT_MEASURED, NOT_SHOWN, VERDICTS, Claim, Finding
from experiments.shell import command, results
from zfjax import nets, schema
from zfjax.errors import NotThereError, UserError, check_name

COMMAND = "paper_report"
HEADS = (
    "The paper says",
    "Its number",
    "Ours",
    "The null's",
    "Networks and data",
    "Precondition",
    "Verdict here",
    "Rule",
)
OVERVIEW = ("Source", "In one sentence", *(verdict.capitalize() for verdict in VERDICTS))
OPEN_HEADS = ("Source", "The paper says", "Its number", "The null's", "Precondition", "Decided by", "Rule")
NOT_YET, UNREADABLE = "Claims that are not measured", "Results that could not be read"


@dataclass(frozen=True)
class Config:
    """Compare every result with the paper, on one page."""

    results: Path = nets.RUNS
    """Folder; every result.json below it is read."""
    out: Path = nets.RUNS / "report"
    """Folder for report.md, report.html and its own result.json."""
    overwrite: bool = False
    """Replace a report that is already there."""


class Row(NamedTuple):
    """One claim and one result that speaks to it, or none."""

    claim: Claim
    measurement: Measurement | None = None
    finding: Finding | None = None

    @property
    def result(self) -> Mapping[str, Any]:
        """What its result.json holds."""
        return self.measurement.result if self.measurement else {}

    @property
    def verdict(self) -> str:
        """One of VERDICTS."""
        return NOT_MEASURED if self.finding is None else self.finding.verdict


class ClaimFacts(TypedDict):
    """What result.json says of one claim and one result that speaks to it, or none."""

    source: str
    says: str
    paper: str
    rule: str
    precondition: str
    null: str
    decides: str  # the command
    ours: str | None
    verdict: str
    because: str
    result: str | None  # its folder
    setting: str


class UnreadableFacts(TypedDict):
    """A result.json that cannot be used."""

    where: str
    what: str


class Result(results.Written):
    """What result.json holds."""

    report: str
    claims: list[ClaimFacts]
    unreadable: list[UnreadableFacts]


def run(config: Config) -> Result:
    """Read, judge and write; what result.json holds.

    Raises:
      UserError: a report that is already there.
      FileNotFoundError: no result at all.
    """
    with results.claimed(config.out, COMMAND, overwrite=config.overwrite, names=["report.md", "report.html"]) as out:
        return judge_and_write(config, out)


def judge_and_write(config: Config, out: Path) -> Result:
    """The same, in a folder that was claimed."""
    check_name("results", config.results)
    measurements, unreadable = read_results(config.results)
    if not measurements and not unreadable:
        raise NotThereError(
            f"no result below {config.results}/: draw a figure first, as `python -m experiments.deconv_figures`"
        )
    usable, rows, stale = judge_all(measurements)
    page = make_page(usable, rows, [*unreadable, *stale])
    result: Result = {
        "report": "claims",
        "claims": [facts_of(row) for row in rows],
        "unreadable": [{"where": one.where, "what": one.what} for one in (*unreadable, *stale)],
        "config": config,
        "versions": results.versions(),
    }
    texts = {"report.md": as_markdown(page, out), "report.html": as_html(page)}
    contents = {name: text.encode(errors="replace") for name, text in texts.items()}
    return results.write(out, result, command=COMMAND, contents=contents)


def judge_all(measurements: Sequence[Measurement]) -> tuple[list[Measurement], list[Row], list[Unreadable]]:
    """(results that hold what their judges read, rows, the others); a claim that no result speaks to has one row."""
    usable, stale, rows = [], [], []
    for one in measurements:
        try:
            of_one = judged(one)
        except UserError as error:  # of an earlier version, or of another program
            stale.append(Unreadable(one.where, f"no result of this version of {one.source} ({error}); make it again"))
        else:
            usable.append(one)
            rows += of_one
    for one in joined(usable):
        rows += judged(one)
    spoken = [row for row in rows if row.finding is not None]
    by_claim = [counted_once([row for row in spoken if row.claim is claim]) or [Row(claim)] for claim in CLAIMS]
    return usable, [row for of_claim in by_claim for row in of_claim], stale


def counted_once(rows: Sequence[Row]) -> list[Row]:
    """Of the rows of one claim those that are about networks or pictures that no other one is about.

    Two drawings say no more than one does, and are no second witness. The one of most networks counts, of as many that
    of most images, then rows (arms at so many training images, layers, variants), folds, layers, epochs and maps, then
    that of the most cautious verdict, whatever their folders are called; a result that does not say what it is about
    counts by itself.
    """
    kept: list[Row] = []
    for row in sorted(rows, key=_size, reverse=True):
        if not any(_is_in(row, other) for other in kept):
            kept.append(row)
    return [row for row in rows if row in kept]


def _size(row: Row) -> tuple[int, ...]:
    """Networks, images, rows, folds and so on that it is about; of as many of all the cautious one is more."""
    result, about, layers = row.result, report_results.about(row.result), row.result.get("layers")
    of_layers = layers.values() if isinstance(layers, Mapping) else ()
    rows = report_results.objects(result.get("rows"))
    return (
        len(about.networks) if about else 0,
        report_results.num_images(result) or 0,
        sum(one.get("arm") != "pretrained" for one in rows),  # without the curve, which is of that arm alone
        len(rows),
        max((_count(one.get("folds")) for one in rows), default=0),
        _count(layers),
        _count(result.get("epochs")),
        sum(_count(of.get("maps")) for of in of_layers if isinstance(of, Mapping)),
        -CAUTIOUS_FIRST.index(row.verdict),
    )


def _count(value: object) -> int:
    """A number of things, or that of those in a list; 0 for anything else."""
    if isinstance(value, list | Mapping):
        return len(value)
    return value if isinstance(value, int) else 0


def _is_in(row: Row, other: Row) -> bool:
    """Whether all that it is about is among what another one is about."""
    one, more = report_results.about(row.result), report_results.about(other.result)
    return one is not None and more is not None and one.data == more.data and one.networks <= more.networks


def judged(measurement: Measurement) -> list[Row]:
    """What each claim's judge says of a result; UserError for one that lacks a field that a judge reads."""
    claims = [claim for claim in CLAIMS if claim.source == measurement.source]
    for claim in claims:
        schema.check(measurement.result, claim.fields)
    return [Row(claim, measurement, claim.finding(measurement.result)) for claim in claims]


def make_page(measurements: Sequence[Measurement], rows: Sequence[Row], unreadable: Sequence[Unreadable]) -> Page:
    """The overview, a part for each figure and table of the paper, and what could not be read."""
    sources = sorted(
        {row.claim.source for row in rows if row.finding} | {one.source for one in measurements}, key=order_of
    )
    parts = [part_of(source, measurements, rows) for source in sources]
    if unmeasured := [open_cells(row.claim) for row in rows if row.finding is None]:
        parts.append(Part(NOT_YET, Table(OPEN_HEADS, unmeasured), ()))
    if unreadable:
        lines = [[Cell(f"unreadable: {one.where}/result.json: {one.what}", "unreadable")] for one in unreadable]
        parts.append(Part(UNREADABLE, Table(("What is wrong",), lines), ()))
    return Page(
        title="Visualizing and Understanding Convolutional Networks: the paper's claims and ours",
        notes=(summary(rows, unreadable), *HOW),
        overview=Table(OVERVIEW, [overview_cells(claim, rows) for claim in CLAIMS]),
        parts=parts,
    )


def order_of(source: str) -> tuple[str, int, str]:
    """Figures by their number, then tables, then what the paper does not have."""
    kind, _, rest = source.partition(" ")
    number = rest.split(",")[0]
    known = kind in ("Figure", "Table") and number.isdigit()
    return (kind if known else "Z", int(number) if known else 0, source)


def part_of(source: str, measurements: Sequence[Measurement], rows: Sequence[Row]) -> Part:
    """The claims about one figure or table that were measured, and below them each result's pictures or numbers."""
    of_source = [cells(row, row.finding) for row in rows if row.claim.source == source and row.finding]
    table = Table(HEADS, of_source) if of_source else None
    blocks = [
        Block(one.setting or one.where, f"from {one.where}", one.figures, report_results.table_of(one))
        for one in measurements
        if one.source == source
    ]
    return Part(source[0].upper() + source[1:], table, blocks)


def summary(rows: Sequence[Row], unreadable: Sequence[Unreadable]) -> str:
    """How many verdicts of each kind there are."""
    verdicts = [row.verdict for row in rows]
    counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in VERDICTS)
    count = len(unreadable)
    lost = f" {count} result{'s' * (count != 1)} could not be read; see the end of the page." if count else ""
    return f"{len(CLAIMS)} claims. Verdicts, one for each claim and each result that speaks to it: {counts}.{lost}"


def overview_cells(claim: Claim, rows: Sequence[Row]) -> list[Cell]:
    """One line of the overview: how many results say what, with a link to the part that says more."""
    verdicts = [row.verdict for row in rows if row.claim is claim]
    counts = [(verdict, verdicts.count(verdict)) for verdict in VERDICTS]
    marks = [Cell(str(count), verdict) if count else Cell("") for verdict, count in counts]
    if NOT_MEASURED in verdicts:
        marks[-1] = Cell("×", NOT_MEASURED)
    link = NOT_YET if NOT_MEASURED in verdicts else claim.source
    said = sentence(claim, [row for row in rows if row.claim is claim])
    return [Cell(claim.source, link=link), Cell(said), *marks]


def cells(row: Row, finding: Finding) -> list[Cell]:
    """One line of a figure's or table's claims."""
    null = nulls.words(row.claim.judge.__name__)
    says = (
        row.claim.says,
        row.claim.paper,
        finding.ours,
        null,
        _setting(row),
        row.claim.needs.words_beside(row.result),
    )
    return [*map(Cell, says), Cell(finding.words, finding.verdict), Cell(row.claim.rule)]


def open_cells(claim: Claim) -> list[Cell]:
    """One line of the claims that are not measured."""
    null, decided = nulls.words(claim.judge.__name__), DECIDES[claim.source]
    return [*map(Cell, (claim.source, claim.says, claim.paper, null, claim.needs.words, decided, claim.rule))]


def sentence(claim: Claim, rows: Sequence[Row]) -> str:
    """One sentence that can be quoted by itself: what the paper says and what was found, or the command to find it."""
    says = f"“{claim.says.removesuffix('.')}”"
    said = [row for row in rows if row.finding is not None]
    if not said:
        return f"{says} is not measured; decided by: {DECIDES[claim.source]}"
    by_verdict = {verdict: [row for row in said if row.verdict == verdict] for verdict in CAUTIOUS_FIRST}
    verdict = max(by_verdict, key=lambda verdict: len(by_verdict[verdict]))
    first = by_verdict.pop(verdict)
    of_first = max(first, key=lambda row: bool(row.finding and row.finding.ours))  # the first that has numbers
    reason = f"; {of_first.finding.because}" if of_first.finding and of_first.finding.because else ""
    ours = f": {of_first.finding.ours}" if of_first.finding and of_first.finding.ours else ""
    of = _setting(of_first) or (of_first.measurement.where if of_first.measurement else "")
    share = f" in {len(first)} of {len(said)} results" if len(said) > 1 else ""
    beside = "".join(f"; {word} in {len(rows)}" for word, rows in by_verdict.items() if rows)
    return f"{says} {BEGINS[verdict].format(share)} ({of}{reason}){ours}{beside}."


CAUTIOUS_FIRST = (NOT_SHOWN, FAILS, HOLDS)  # the sentence begins with what most results come to, of as many with this
BEGINS = {
    HOLDS: "holds here{}",
    FAILS: "does not hold here{}",
    NOT_SHOWN: "is neither shown nor refuted here{}",
}
_LEARNED = "python -m experiments.{} --net runs/RUN"
_ABLATION = "python -m experiments.architecture_ablation --preset paper --data-dir PREPARED --out runs/ablation"
DECIDES = {
    "Figure 2": _LEARNED.format("deconv_figures"),
    "Figure 3": "python -m experiments.architecture_diagram",
    "Figure 4": _LEARNED.format("feature_evolution")
    + " --num-maps 16 --epochs 1 2 5 10 20 30 40 64 69 70",  # neighbours, between which images stay
    "Figure 5": _LEARNED.format("invariance_curves") + " --num-images 64",
    "Figure 6": _LEARNED.format("first_layer") + " --alexnet runs/ALEXNET --unclipped runs/UNCLIPPED",
    "Figure 7": "python -m experiments.train_imagenet --preset demo --out runs/demo && "  # it knows where objects are
    "python -m experiments.occlusion_maps --net runs/demo",
    "Table 1": _LEARNED.format("part_correspondence") + " --annotations FACES.json",
    "Table 2": f"{_ABLATION} && python -m experiments.evaluate_imagenet --net "
    "runs/ablation/zfnet runs/ablation/alexnet runs/ablation/zfnet-conv3+4+5-of-512+1024+512",
    "Table 3": _ABLATION,
    "Table 4": _LEARNED.format("transfer_learning") + " --images 101_ObjectCategories",
    "Table 5, Figure 9": _LEARNED.format("transfer_learning")
    + " --dataset caltech256 --images 256_ObjectCategories --curve 1 2 4 6 10",
    "Table 6": _LEARNED.format("transfer_learning") + " --dataset voc2012 --images VOC2012",
    "Table 7": _LEARNED.format("layer_analysis") + " --images 101_ObjectCategories",
}
"""What decides the claims about a figure or table, given the data that it names."""


def facts_of(row: Row) -> ClaimFacts:
    """What result.json says of a row."""
    claim, finding = row.claim, row.finding
    return {
        "source": claim.source,
        "says": claim.says,
        "paper": claim.paper,
        "rule": claim.rule,
        "precondition": claim.needs.words,
        "null": nulls.words(claim.judge.__name__),
        "decides": DECIDES[claim.source],
        "ours": finding.ours if finding else None,
        "verdict": row.verdict,
        "because": finding.because if finding else "",
        "result": row.measurement.where if row.measurement else None,
        "setting": _setting(row),
    }


def _setting(row: Row) -> str:
    return row.measurement.setting if row.measurement else ""


def report(result: Result) -> None:
    """Print the verdicts, and what could not be read."""
    for claim in result["claims"]:
        print(f"{claim['source']:18} {claim['verdict']:14} {claim['says']}")
    for one in result["unreadable"]:
        print(f"unreadable: {one['where']}: {one['what']}")


def main() -> None:
    """The command line."""
    command.main(Config, run, doc=__doc__, report=report)


if __name__ == "__main__":
    main()
