"""Every judge is tried on each side of its bounds, as far as it has sides."""

import test_paper_judges
import test_paper_table_judges
import test_paper_transfer_judges

from experiments.report.figures import CLAIMS

MODULES = (test_paper_judges, test_paper_table_judges, test_paper_transfer_judges)
VERDICTS = {"holds", "does not hold", "not shown"}
LACKS = {"parts_correspond": {"does not hold"}}  # no contrary is tested: see its rule
ELSEWHERE = {"geometry", "jumps_come_from_other_images"}  # have tests of their own


def test_every_judge_has_a_case_of_every_verdict():
    tried = {}
    for module in MODULES:
        for claim, _, verdict in module.CASES:
            tried.setdefault(claim.judge.__name__, set()).add(verdict)
    names = {claim.judge.__name__ for claim in CLAIMS} - ELSEWHERE
    assert {name: VERDICTS - tried.get(name, set()) for name in names} == {
        name: LACKS.get(name, set()) for name in names
    }
