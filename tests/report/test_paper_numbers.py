"""What the paper printed, judged by our rules: it bears its own claims out."""

import numpy as np
import pytest

from experiments.report import tables, transfer
from tests.support import paper_numbers

TABLE_2 = (tables.averaging_helps, tables.member_beats_alexnet, tables.wide_member_helps)
CALTECH_101 = (transfer.pretrained_beats_scratch_on_101, transfer.pretrained_beats_earlier_on_101)
CALTECH_256 = (transfer.pretrained_beats_scratch_on_256, transfer.pretrained_beats_earlier_on_256)
RESULTS = [
    *((claim, paper_numbers.table_2()) for claim in TABLE_2),
    *((claim, paper_numbers.table_3()) for claim in tables.ARCHITECTURES),
    *((claim, paper_numbers.caltech(4, alike)) for claim in CALTECH_101 for alike in (False, True)),
    *((claim, paper_numbers.caltech(5, alike)) for claim in CALTECH_256 for alike in (False, True)),
    *((claim, paper_numbers.table_7(n, alike)) for claim in transfer.LAYERS for n in (0, 1) for alike in (False, True)),
    (tables.parts_gain_less_above, paper_numbers.table_1()),
    (transfer.average_precision, {"mean_average_precision": 79.0, "average_precision": dict.fromkeys(range(20), 79.0)}),
]


@pytest.mark.parametrize(
    ("claim", "result"), RESULTS, ids=lambda value: value.judge.__name__ if hasattr(value, "judge") else ""
)
def test_the_papers_own_numbers_hold(claim, result):
    finding = claim.judge(result)
    assert finding is not None and finding.verdict == "holds", finding


def test_folds_have_the_mean_and_the_spread_that_the_paper_prints():
    for number in range(5):
        values = paper_numbers.folds(86.2, 0.8, number)
        assert (np.mean(values), np.std(values, ddof=1)) == (pytest.approx(86.2), pytest.approx(0.8))
