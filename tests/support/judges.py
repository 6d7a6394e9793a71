"""What the report's judges say of a result.json that a command wrote, read as the report reads it."""

from experiments import paper_report
from experiments.report.results import read_results
from experiments.report.verdicts import VERDICTS


def findings(folder):
    """{name of the judge: its finding, or None} of the one result in `folder`; every field they read is checked."""
    measurements, unreadable = read_results(folder)
    assert len(measurements) == 1 and not unreadable
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
    return {row.claim.judge.__name__: row.finding for row in rows}
