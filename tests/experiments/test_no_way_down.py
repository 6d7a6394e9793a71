"""A network with an activation that no rule covers: what needs no rule is drawn, the rest is named."""

import foreign_nets
import numpy as np
import pytest

from experiments import (
    activation_maximization,
    atlas,
    deconv_figures,
    deconvnet_walkthrough,
    first_layer,
    occlusion_maps,
    sanity_checks,
)
from zfjax import FunctionNet, UserError, nets

SILU = foreign_nets.SILU
REASON = "on the way down from layer conv2; say by the on_unknown= of silu what becomes of it"


@pytest.fixture
def options(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return {
        "net": "foreign_nets:SILU",
        "data": str(foreign_nets.folder(tmp_path / "pictures", 3)),
        "out": tmp_path / "out",
    }


def test_the_ways_of_a_layer_are_those_that_rules_cover():
    assert nets.ways_down(SILU, ["conv1"]) == ("deconvnet", "guided", "gradient")
    assert nets.ways_down(SILU, ["conv1", "conv2"]) == ("gradient",)
    assert "no rule covers silu at " in nets.why_no_way_down(SILU, ["conv2"])
    assert REASON in nets.why_no_way_down(SILU, ["conv2"])
    assert nets.why_no_way_down(foreign_nets.MINIMAL, ["conv2"]) is None


def test_the_ways_are_there_where_on_unknown_says_what_becomes_of_it():
    kept = FunctionNet(SILU.fn, SILU.params, image_size=(20, 28), on_unknown="keep")
    assert nets.why_no_way_down(kept, kept.layers) is None


def test_a_pattern_that_fits_nothing_is_an_error_and_no_reason():
    wrong = FunctionNet(SILU.fn, SILU.params, image_size=(20, 28), on_unknown={"mish": "keep"})
    with pytest.raises(UserError, match="fits no operation of fn"):
        nets.ways_down(wrong, ["conv2"])


@pytest.mark.parametrize("command", [deconv_figures, deconvnet_walkthrough])
def test_figures_of_projections_alone_refuse_before_data_are_opened(command, options):
    with pytest.raises(UserError, match="net='silu': no rule covers silu at"):
        command.run(command.Config(**{**options, "data": "no such folder"}))


def test_the_sanity_table_holds_the_gradient(options, capsys):
    result = sanity_checks.run(sanity_checks.Config(**options, num_images=2))
    methods = ["gradient", "gradient x input", "edges alone"]
    assert list(result["checks"]["units"]["best class and worst class"]) == methods
    assert REASON in result["not_applicable"]["deconvnet and guided backprop"]
    assert result["sentence"].startswith("Cosine of the gradient's pictures of best and worst class")
    sanity_checks.report(result)
    assert REASON in capsys.readouterr().out


def test_the_square_slides_without_the_projection(options):
    result = occlusion_maps.run(occlusion_maps.Config(**options, num_images=1, stride=8))
    assert list(result["not_applicable"]) == ["projection (c)"] and result["images"][0]["probability"] > 0


@pytest.mark.slow
def test_the_ascent_stands_beside_patches_alone(options):
    result = activation_maximization.run(activation_maximization.Config(**options, num_maps=1, steps=2))
    assert "the deconvnet's pictures of conv2, logits" in result["not_applicable"]
    with np.load(options["out"] / "conv2.npz") as above, np.load(options["out"] / "conv1.npz") as below:
        assert "deconvnet_projections" not in above and above["deconvnet_patches"].any()
        assert below["deconvnet_projections"].any()


@pytest.mark.slow
def test_the_first_filters_are_drawn_without_the_second_layer(options):
    result = first_layer.run(first_layer.Config(**options))
    assert REASON in result["not_applicable"]["the second layer"]
    assert result["nets"]["clipped"]["num_filters"] == 4


@pytest.mark.slow
def test_the_atlas_shows_the_gradient(options, capsys):
    result = atlas.run(atlas.Config(**options, layers=("conv2",), num_images=1))
    assert REASON in result["not_applicable"]["deconvnet and guided"]
    assert list((options["out"] / "img").rglob("*gradient*")) and not list((options["out"] / "img").rglob("*guided*"))
    atlas.report(result)
    assert "Left out: deconvnet and guided, as no rule covers" in capsys.readouterr().out
