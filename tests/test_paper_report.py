"""The report: whatever results there are, each claim once at least, words escaped, pictures inside."""

import base64
import json
import re

import numpy as np
import pytest
from PIL import Image

from experiments import paper_report
from experiments.paper_claims import CLAIMS

NASTY = "<script>alert(1)</script> | `x` & [y](z)"


@pytest.fixture
def results(tmp_path):
    """Two runs with Figure 4, one of nasty names, and a table without a claim."""

    def write(folder, result, *pictures):
        (tmp_path / "runs" / folder).mkdir(parents=True)
        (tmp_path / "runs" / folder / "result.json").write_text(json.dumps(result))
        for name in pictures:
            Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(tmp_path / "runs" / folder / name)

    def settled(share, name):
        checkpoint = {"path": f"runs/{name}/checkpoints/7", "fingerprint": "f"}
        return {
            "figure": "Figure 4",
            "lower_layers_first": share,
            "layers": {},
            "num_images": 1234,
            "data": {"name": NASTY if name == "b" else "demo"},
            "checkpoint": checkpoint,
        }

    write("a/figures/evolution", settled(1.0, "a"), "evolution.png")
    write("b/figures/evolution", settled(0.2, "b"), "overview.png", "conv1.png")
    write("a/sanity", {"table": "sanity checks"}, "sanity_checks.png")
    write("a/training", {"no": "figure"})
    return tmp_path


def make(results, **more):
    return paper_report.run(paper_report.Config(results / "runs", results / "report", **more))


def test_each_claim_stands_for_each_result_and_once_where_there_is_none(results):
    claims = make(results)["claims"]
    first = [claim for claim in claims if claim["rule"].startswith("in more than half")]
    assert [claim["verdict"] for claim in first] == ["holds", "does not hold"]
    assert [claim["ours"] for claim in first] == ["in 100% of the pairs of layers", "in 20% of the pairs of layers"]
    assert len(claims) == len(CLAIMS) + 1
    assert sum(claim["verdict"] == "not measured" for claim in claims) == len(CLAIMS) - 1
    assert "1 holds, 1 does not hold" in (results / "report" / "report.md").read_text()


def test_the_pages_hold_every_picture_and_no_name_as_code(results):
    make(results)
    page, text = ((results / "report" / name).read_text() for name in ("report.html", "report.md"))
    assert "<script>" not in page and "&lt;script&gt;" in page and "a, on demo, 1,234 images" in page
    assert "<script>" not in text and "\\<script\\>" in text and "\\[y\\]" in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {len(paper_report.HEADS) + 1}
    images = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(images) == 3  # the overview stands for the page that it sums up
    assert all(base64.b64decode(image).startswith(b"\x89PNG") for image in images)
    assert "](../runs/a/figures/evolution/evolution.png)" in text and "conv1" not in text


def test_a_report_is_replaced_only_when_told(results):
    make(results)
    with pytest.raises(ValueError, match="already holds a result; give another folder, or --overwrite"):
        make(results)
    make(results, overwrite=True)


def test_a_damaged_result_is_named(results):
    path = results / "runs" / "a" / "training" / "result.json"
    path.write_text("{")
    with pytest.raises(ValueError, match=r"training/result.json is damaged; remove it, or make it again"):
        make(results)
    path.write_text(json.dumps({"figure": "Figure 7"}))
    with pytest.raises(ValueError, match=r"result.json is no result of this version of Figure 7 \(KeyError\('score'\)"):
        make(results)


def test_where_there_is_nothing_to_report_it_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="no result below .*/: draw a figure first"):
        paper_report.run(paper_report.Config(tmp_path, tmp_path / "report"))
