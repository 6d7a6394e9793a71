"""Every result.json below a folder: what each is about in few words, and its numbers as a small table."""

from __future__ import annotations

import json
import math
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.report.render import Cell, Table
from experiments.report.statistics import interval
from experiments.report.tables import ErrorShares, Evaluation
from experiments.report.transfer import Voc
from experiments.report.verdicts import Result, checkpoints_of
from zfjax.errors import UserError, naming, of_the_system
from zfjax.files import once
from zfjax.results import RESULT

PLUMBING = {"figure", "table", "config", "versions", "checkpoint", "checkpoints", "data", "meanings", "paper", "folder"}
MOST = 40  # rows


class Measurement(NamedTuple):
    """One result, or several evaluations on the same data taken together."""

    where: str  # its folder, below the one that was searched
    source: str  # the figure or table that it is about
    setting: str  # networks, data and size
    result: Result
    figures: Sequence[Path] = ()  # its pictures


class Unreadable(NamedTuple):
    """A result.json that cannot be used."""

    where: str
    what: str


def read_results(folder: Path) -> tuple[list[Measurement], list[Unreadable]]:
    """Every figure's and table's result below `folder`, by path; others, as a training's, are passed over."""
    measurements, unreadable = [], []
    for path in sorted(folder.rglob(RESULT)):
        where = str(path.parent.relative_to(folder))
        try:
            result = load(path)
            source = source_of(result)
        except UserError as error:
            unreadable.append(Unreadable(where, str(error)))
        else:
            if source is not None:
                measurements.append(Measurement(where, source, setting(result), result, figures_of(path.parent)))
    return measurements, unreadable


def load(path: Path) -> Result:
    """A result.json; empty where it holds no object. UserError where it is no JSON, or cannot be read at all."""
    way_on = "copy it again, or make it again"
    try:
        with naming("result", path, way_on):
            text = path.read_bytes()
    except UserError:
        raise
    except OSError as error:
        if (words := of_the_system(error)) is None:
            raise
        raise UserError(words) from error
    try:
        result = json.loads(text.decode(), object_pairs_hook=once, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:  # ValueError: no text, or no JSON
        raise UserError(f"{type(error).__name__}: {error}; {way_on}") from error
    return result if isinstance(result, dict) else {}


def _finite(word: str) -> float:
    """A number; ValueError for NaN, an infinity, or one too large: JSON has none, and ours become null."""
    if not math.isfinite(number := float(word)):
        raise ValueError(f"{word} is no finite number")
    return number


def source_of(result: Result) -> str | None:
    """The figure or table; None for what is neither; UserError for a name that is none."""
    if "figure" not in result and "table" not in result:
        return None
    name = result.get("figure") or result.get("table")
    if not isinstance(name, str) or not name.strip():
        raise UserError(f"figure or table {name!r}: a name is needed; make it again, or take it away")
    return name


def joined(measurements: Sequence[Measurement]) -> list[Measurement]:
    """Networks that were evaluated one by one on the same data, side by side as Table 2 compares them."""
    by_data: dict[tuple[str, str], list[Measurement]] = {}
    for one in measurements:
        of = one.result.get("data")
        if one.source == "Table 2" and isinstance(of, Mapping) and "fingerprint" in of:
            images = str(of["fingerprint"]), str(one.result["num_images"])  # fewer where bad ones were left out
            by_data.setdefault(images, []).append(one)
    together = []
    for evaluations in by_data.values():
        sets = [{str(member["checkpoint"]): member for member in one.result["members"]} for one in evaluations]
        members = {name: member for of_one in sets for name, member in of_one.items()}
        if all(len(of_one) < len(members) for of_one in sets):
            names = ("table", "data", "num_images", "num_classes", "largest_class_share")
            facts = [{name: one.result[name] for name in names if name in one.result} for one in evaluations]
            result = {**ChainMap(*facts), "members": list(members.values())}  # earlier versions do not tell all
            where = ", ".join(one.where for one in evaluations)
            together.append(Measurement(where, "Table 2", setting(result), result))
    return together


class About(NamedTuple):
    """What a result is about, by fingerprints."""

    networks: frozenset[str]
    data: str  # the pictures


def about(result: Result) -> About | None:
    """What a result is about; None where it does not name it."""
    of = result.get("data")
    prints = [checkpoint.get("fingerprint") for checkpoint in checkpoints_of(result)]
    data = of.get("fingerprint") if isinstance(of, Mapping) else None
    if not prints or not all(isinstance(each, str) for each in (*prints, data)):
        return None
    return About(frozenset(map(str, prints)), str(data))


def setting(result: Result) -> str:
    """Networks, data and size: "photos40; imagenet, 500 images of 10 classes"."""
    return "; ".join(part for part in (networks(result), data(result)) if part)


def networks(result: Result) -> str:
    """The networks by the names of their runs; "" where the result names none, as one of another program may."""
    members, rows = (objects(result.get(name)) for name in ("members", "rows"))
    roles = result.get("checkpoints")
    if members:
        return ", ".join(_with_run(str(member.get("name", "")), member.get("checkpoint")) for member in members)
    if isinstance(roles, Mapping):
        return ", ".join(_with_run(role, checkpoint) for role, checkpoint in roles.items())
    if name := result.get("network") or run_name(result.get("checkpoint")):
        return str(name)
    if rows and all("parameters" in row for row in rows):
        return f"{len(rows)} architecture{'s' * (len(rows) != 1)}"
    name, side = result.get("architecture"), result.get("image_size")
    return f"{name}, {side_words(side)} pixels" if name and side else str(name or "")


def side_words(side: object) -> str:
    """A side as JSON has it, or both: "224", "224x160"."""
    return "x".join(map(str, side)) if isinstance(side, list | tuple) else str(side)


def data(result: Result) -> str:
    """The data set, the number of its images that were looked at, and then of its classes; "" where it names none."""
    of = result.get("data")
    name, more = (of.get("name", ""), of) if isinstance(of, Mapping) else (of or "", {})
    number = num_images(result)
    size = f"{number:,} image{'s' * (number != 1)}" if number is not None else ""
    classes = more.get("num_classes") or result.get("num_classes")
    if size and isinstance(classes, int):
        size = f"{size} of {classes:,} class{'es' * (classes != 1)}"
    return ", ".join(str(part) for part in (name, size) if part)


def num_images(result: Result) -> int | None:
    """The images that a result is about: those that were scored, where others were drawn; of draws of a few, all."""
    scored = [of for of in (result.get("score"), result) if isinstance(of, Mapping)]
    counts = [n for of in scored for key in ("num_pictures", "num_images") if isinstance(n := of.get(key), int)]
    listed = result.get("images")
    return counts[0] if counts else len(listed) if isinstance(listed, list) else None


def run_name(checkpoint: Any) -> str:
    """The folder of the run, or the name of a network that comes of none."""
    path = checkpoint.get("path") if isinstance(checkpoint, Mapping) else checkpoint
    if not isinstance(path, str) or not path:
        return ""
    parts = Path(path)
    return parts.parent.parent.name if parts.parent.name == "checkpoints" else parts.name


def figures_of(folder: Path) -> list[Path]:
    """The pictures in a folder; an overview stands for the pages that it sums up."""
    paths = sorted(path for path in folder.glob("*.png") if path.is_file())
    return [path for path in paths if path.name == "overview.png"] or paths


def _with_run(name: str, checkpoint: Any) -> str:
    run = run_name(checkpoint)
    return f"{name} ({run})" if run and run != name else name


def objects(value: Any) -> Sequence[Mapping[str, Any]]:
    """A list of objects; an empty one for anything else."""
    return value if isinstance(value, list) and all(isinstance(one, Mapping) for one in value) else ()


def table_of(measurement: Measurement) -> Table | None:
    """None where there are pictures, which show the numbers, or where there is no number."""
    if measurement.figures:
        return None
    known: dict[str, Callable[[Any], Numbers]] = {"Table 2": errors, "Table 6": precisions}
    heads, rows = known.get(measurement.source, everything)(measurement.result)
    if len(rows) > MOST:
        rows = [*rows[:MOST], (f"... and {len(rows) - MOST:,} more", *[""] * (len(heads) - 1))]
    return Table(heads, [[Cell(word) for word in row] for row in rows]) if rows else None


Numbers = tuple[tuple[str, ...], list[tuple[str, ...]]]  # heads, rows


def errors(result: Evaluation) -> Numbers:
    """Table 2: top-1 and top-5 error of each network, of all together, with 95 % intervals, and the paper's."""
    known = [(f"{one['name']} ({run_name(one['checkpoint'])})", one["error"]) for one in result["members"]]
    if len(known) > 1 and "error" in result:
        known.append((f"the average of all {len(known)}", result["error"]))
    num, classes = result["num_images"], result.get("num_classes") or 1_000
    rows: list[tuple[str, ...]] = [
        (name, *_percent(error["center"], num, classes), *_percent(error.get("ten"), num, classes))
        for name, error in known
    ]
    rows += [
        (f"paper: {name}", "", "", f"{top1:.1f}", f"{top5:.1f}")
        for name, (top1, top5, _) in result.get("paper", {}).items()
    ]
    return ("error (%)", "centre, top-1", "centre, top-5", "ten crops, top-1", "ten crops, top-5"), rows


def _percent(error: ErrorShares | None, num: int, classes: int) -> tuple[str, str]:
    """Top-1 and top-5; of five classes or fewer, where earlier versions wrote 0, no top-5."""
    if error is None:
        return "", ""
    top5 = error.get("top5") if classes > 5 else None
    return _with_interval(error["top1"], num), "" if top5 is None else _with_interval(top5, num)


def _with_interval(share: float, num: int) -> str:
    low, high = interval(share, num)
    return f"{100 * share:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def precisions(result: Voc) -> Numbers:
    """Table 6: average precision of each class, their mean, and the paper's."""
    of_class = result["average_precision"].items()
    rows: list[tuple[str, ...]] = [(name, "-" if value is None else f"{value:.1f}") for name, value in of_class]
    rows.append(("mean", f"{result['mean_average_precision']:.1f}"))
    rows.append(("paper, mean on the test set", f"{result['paper']['pretrained']:.1f}"))
    return ("class", "average precision (%)"), rows


def everything(result: Result) -> Numbers:
    """Each number by its place in the result."""
    own = {name: value for name, value in result.items() if name not in PLUMBING}
    words = ((name, f"{value:,}" if isinstance(value, int) else f"{value:,.4g}") for name, value in _numbers(own, ""))
    return ("number", "value"), list(words)


def _numbers(value: Any, name: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping | list):
        named = value.items() if isinstance(value, Mapping) else enumerate(value, start=1)
        for part, inner in named:
            yield from _numbers(inner, f"{name}, {part}" if name else str(part))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, value
