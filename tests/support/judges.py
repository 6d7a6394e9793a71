"""What the report's judges say of a result.json that a command wrote, read as the report reads it."""

import importlib
import json
from typing import NotRequired, get_args, get_origin, get_type_hints, is_typeddict

from experiments import paper_report
from experiments.report.results import read_results
from experiments.report.verdicts import VERDICTS


def findings(folder):
    """{name of the judge: its finding, or None} of the one result in `folder`; every field they read is checked."""
    measurements, unreadable = read_results(folder)
    assert len(measurements) == 1 and not unreadable
    check_keys(folder)
    return of_measurement(measurements[0])


def findings_of(folder, **changes):
    """The same of the result with other fields, as where a claim is about layers that a small network lacks."""
    (one,), _ = read_results(folder)
    return of_measurement(one._replace(result={**one.result, **changes}))


def of_measurement(measurement):
    rows = paper_report.judged(measurement)
    assert rows, f"no claim is about {measurement.source}"
    for row in rows:
        assert row.finding is None or (row.finding.ours and row.finding.verdict in VERDICTS[:3])
        assert (
            row.finding is None or row.finding.verdict == VERDICTS[2] or not row.claim.needs.lacking(measurement.result)
        )
    # by its rule alone, as small networks are hardly trained
    return {row.claim.judge.__name__: row.claim.judge(measurement.result) for row in rows}


def check_keys(folder):
    """The keys of the one result.json in `folder`, at every depth, are those that its command's Result names."""
    (path,) = folder.rglob("result.json")
    result = json.loads(path.read_text())
    assert list(_strangers(result, importlib.import_module(f"experiments.{result['command']}").Result)) == []


def _strangers(value, kind, place=""):
    """Keys that a value has beyond its TypedDict's, and those that it lacks."""
    while get_origin(kind) is NotRequired:
        kind = get_args(kind)[0]
    if is_typeddict(kind):
        hints = get_type_hints(kind, include_extras=True)
        yield from (f"{place}{name} is not named" for name in value.keys() - hints.keys())
        needed = {name for name, of in hints.items() if get_origin(of) is not NotRequired}
        yield from (f"{place}{name} is missing" for name in needed - value.keys())
        for name in value.keys() & hints.keys():
            yield from _strangers(value[name], hints[name], f"{place}{name}.")
    elif isinstance(value, dict) and get_origin(kind) is dict:
        for name, one in value.items():
            yield from _strangers(one, get_args(kind)[1], f"{place}{name}.")
    elif isinstance(value, list) and get_origin(kind) is list:
        for one in value:
            yield from _strangers(one, get_args(kind)[0], f"{place}*.")
    elif (
        value is not None
        and (inner := [of for of in get_args(kind) if is_typeddict(of)])
        and get_origin(kind) is not tuple
    ):
        yield from _strangers(value, inner[0], place)
