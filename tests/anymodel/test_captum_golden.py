"""with_relu_rule against Captum's Deconvolution, GuidedBackprop and Saliency, whose results are committed.

`make_captum_golden` made them with PyTorch; nothing here needs it, but for the one test that makes them again.
"""

import functools

import captum_nets
import jax
import numpy as np
import pytest
import tiny_nets

from zfjax.anymodel.rules import explain_rules


@functools.lru_cache
def read(name):
    """{what: float64 array} of a golden file."""
    with np.load(captum_nets.FOLDER / f"captum_{name}.npz") as arrays:
        return dict(arrays)


@pytest.mark.parametrize("rule", captum_nets.RULES)
@pytest.mark.parametrize("name", captum_nets.NETS)
def test_what_comes_down_agrees_with_captum(name, rule):
    found = captum_nets.by_rule(name, read(name), rule, np.float32)
    assert found["logits"].dtype == np.float32
    assert tiny_nets.relative_error(found["logits"], read(name)["logits"]) < 1e-5
    assert tiny_nets.relative_error(found[rule], read(name)[rule]) < 1e-5


@pytest.mark.parametrize("name", captum_nets.NETS)
def test_the_deconvnet_agrees_in_double_precision(name, double_precision):
    found = captum_nets.by_rule(name, read(name), "deconvnet", np.float64)
    assert found["deconvnet"].dtype == np.float64
    assert tiny_nets.relative_error(found["deconvnet"], read(name)["deconvnet"]) < 1e-9


@pytest.mark.parametrize("name", captum_nets.NETS)
def test_the_three_methods_differ(name):
    """Otherwise agreement would say little."""
    golden = read(name)
    for rule, other in (("deconvnet", "guided"), ("deconvnet", "gradient"), ("guided", "gradient")):
        assert tiny_nets.relative_error(golden[rule], golden[other]) > 0.1


@pytest.mark.parametrize(
    ("name", "rectifiers"),
    [("strided", 3), ("pools", 2), ("residual", 5), ("batch_norm", 2), ("concatenation", 5), ("recurrent", 2)],
)
def test_every_rectifier_is_found_and_nothing_is_unclassified(name, rectifiers):
    """The rounds of the recurrent net's scan count once."""
    params, images = captum_nets.draw(name)
    params, images = jax.tree.map(np.float32, (params, images))
    rules = [line.rule for line in explain_rules(lambda images: captum_nets.NETS[name](params, images), images)]
    assert rules.count("rectifier") == rectifiers
    assert rules.count("own gradient") == {"pools": 2, "concatenation": 2}.get(name, 0)
    assert len(rules) == rules.count("rectifier") + rules.count("own gradient")


def test_the_files_are_small():
    assert sum(path.stat().st_size for path in captum_nets.FOLDER.glob("captum_*.npz")) < 1_000_000


def test_captum_gives_the_committed_values_where_it_is_installed():
    pytest.importorskip("captum", reason="captum is not installed")
    import make_captum_golden

    for key, value in make_captum_golden.by_captum("residual").items():
        np.testing.assert_allclose(value, read("residual")[key], rtol=1e-9, atol=1e-12)
