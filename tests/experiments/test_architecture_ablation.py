"""Table 3: the right architectures, each trained once, skipped when done, gone on with when stopped."""

import dataclasses
import json
import os
import signal

import numpy as np
import pytest
import runs
from judges import findings, findings_of

from experiments import architecture_ablation
from experiments.report.statistics import with_interval
from experiments.shell import training_run
from experiments.shell.command import Stopped
from zfjax.analyses import ablation
from zfjax.training import loop

COUNTS = {  # paper.md's list, at 1,000 classes
    "alexnet": 60_965_224,
    "alexnet, no conv3,4": 59_268_712,
    "alexnet, no fc7": 44_183_912,
    "alexnet, no fc6,7": 11_551_080,
    "alexnet, no conv3,4,fc6,7": 9_854_568,
    "alexnet, fc6,7 of 2048": 27_455_848,
    "alexnet, fc6,7 of 8192": 153_149_800,
    "zfnet": 62_357_608,
    "zfnet, fc6,7 of 2048": 28_848_232,
    "zfnet, fc6,7 of 8192": 154_542_184,
    "zfnet, conv3,4,5 of 512,1024,512": 107_627_624,
    "zfnet, both": 237_560_936,
}

CHOSEN = ("alexnet", "alexnet, no fc6,7", "alexnet, no fc7")


@pytest.fixture
def tiny(tmp_path):
    """A configuration of a few steps on small pictures."""
    small = {"image_size": 36, "width": 0.03, "batch_size": 8, "num_epochs": 1}
    return architecture_ablation.Config(variants=CHOSEN, out=tmp_path / "ablation", **small)


def run(config):
    """Of made-up pictures."""
    return architecture_ablation.run(config, data=runs.tiny_set())


def test_the_variants_are_those_of_table_3():
    assert {v.name: v.table.num_parameters() for v in ablation.VARIANTS if v.paper} == COUNTS


def test_how_the_weights_begin_is_the_presets_or_what_is_asked_for():
    for given, begins in ((None, "he"), ("he_even", "he_even")):
        config = architecture_ablation.Config(preset="reduced", initialization=given)
        assert architecture_ablation.settings_of(config).recipe.initialization == begins


@pytest.mark.parametrize("width", [1.0, 0.25])
def test_the_four_layers_are_widened_to_the_parameters_of_the_whole_net(width):
    settings = dataclasses.replace(training_run.PRESETS["reduced"], width=width)
    tables = {v.name: architecture_ablation.table_of(v, settings, 1000) for v in ablation.VARIANTS}
    wide, full = tables["four layers, widened"], tables["alexnet"]
    assert wide.layer_names == ("conv1", "conv2", "conv5", "fc8")
    assert 0.98 * full.num_parameters() < wide.num_parameters() <= full.num_parameters()


@pytest.mark.slow
def test_each_variant_is_trained_and_measured_once(tiny, monkeypatch):
    result, validation = run(tiny), runs.tiny_set().validation
    largest = np.bincount([validation[n]["label"] for n in range(len(validation))]).max() / len(validation)
    assert [row["name"] for row in result["rows"]] == list(CHOSEN)
    for row in result["rows"]:
        record = runs.records(tiny.out / row["name"].replace(", ", "-").replace(",", "+").replace(" ", "-"))[-1]
        assert row["error"]["validation"]["top1"] == pytest.approx(record["validation_top1_error"])
        assert 0 <= row["error"]["train"]["top5"] <= row["error"]["train"]["top1"] <= 1
        assert row["largest_class_share"] == largest
    written = json.loads((tiny.out / "result.json").read_text())
    assert written["rows"][0]["paper"] == [35.1, 40.5, 18.1] and (tiny.out / "table.png").stat().st_size > 1000
    judged = findings(tiny.out)
    assert judged["dense_layers_cost_little"] is None  # what all four layers cost is its yardstick
    rho = written["rank_correlation"]["rho"]
    assert judged["same_order"].ours == ("3 variants" if rho is None else f"Spearman's rho {rho:.2f}, 3 variants")
    assert judged["depth_matters"] is None  # not all of its variants were trained
    monkeypatch.setattr(training_run, "run", lambda *_, **__: pytest.fail("trained again"))
    assert run(tiny)["rows"] == result["rows"]
    with pytest.raises(ValueError, match="alexnet was begun with other settings; name another"):
        run(dataclasses.replace(tiny, seed=1))


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_a_variant_that_was_killed_before_it_was_measured_is_not_trained_again(tiny):
    tiny = dataclasses.replace(tiny, variants=("alexnet",))
    row = run(tiny)["rows"][0]
    path = tiny.out / "records" / "alexnet.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "row": None}))
    again = run(tiny)["rows"][0]
    assert again["error"] == row["error"] and again["checkpoint"] == row["checkpoint"]


def stop_in_the_second_epoch(config, monkeypatch):
    """Run, and press Ctrl-C there."""
    batches_of = loop.train_batches

    def interrupted(*args, **kwargs):
        for index, batch in enumerate(batches_of(*args, **kwargs)):
            if index == runs.EPOCH_STEPS + 1:
                os.kill(os.getpid(), signal.SIGINT)
            yield batch

    with monkeypatch.context() as patched:
        patched.setattr(loop, "train_batches", interrupted)
        with pytest.raises(Stopped):
            run(config)


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_a_variant_that_was_stopped_goes_on_as_if_nothing_had_happened(tiny, tmp_path, monkeypatch):
    tiny = dataclasses.replace(tiny, variants=("alexnet",), num_epochs=3)
    stop_in_the_second_epoch(tiny, monkeypatch)
    with pytest.raises(ValueError, match="alexnet was begun with other settings; name another"):
        run(dataclasses.replace(tiny, width=0.06))
    run(tiny)
    whole = dataclasses.replace(tiny, out=tmp_path / "whole")
    run(whole)
    found, expected = (runs.records(config.out / "alexnet") for config in (tiny, whole))
    assert found == expected
    assert len({record["learning_rate"] for record in expected if record["kind"] == "epoch"}) == 3  # it was annealed


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_a_variant_that_diverges_is_named_and_the_others_are_measured(tiny, monkeypatch, capsys):
    def train(settings, table, images):
        if table.name == "alexnet":
            raise FloatingPointError("loss=nan at step 7")
        real(settings, table, images)

    real = architecture_ablation.train
    monkeypatch.setattr(architecture_ablation, "train", train)
    result = run(dataclasses.replace(tiny, variants=CHOSEN[:2]))
    assert result["diverged"] == {"alexnet": "loss=nan at step 7"}
    assert [row["name"] for row in result["rows"]] == ["alexnet, no fc6,7"]
    assert set(findings(tiny.out).values()) == {None}  # one variant is compared with nothing
    shifts = {variant.name: number / 50 for number, variant in enumerate(ablation.VARIANTS)}
    (row,) = json.loads((tiny.out / "result.json").read_text())["rows"]
    named = [{**row, "name": name, "error": {"validation": {"top1": shift}}} for name, shift in shifts.items()]
    judged = findings_of(tiny.out, rows=named)

    def words(*errors):
        own, *others = (with_interval(error, 19) for error in errors)
        return f"{own} against {', '.join(others)}"

    assert judged["depth_matters"].ours == words(0.08, 0, 0.02, 0.06)
    assert judged["wide_variant_helps"].ours == words(0.2, 0.14)
    assert judged["wide_dense_layers_overfit"].ours == words(0.2, 0.22)
    assert judged["variant_beats_alexnet"].ours == words(0.14, 0)
    assert judged["middle_layers_cost_little"].ours.startswith(
        "alexnet, no conv3,4: +2.0 points; all four layers: +8.0 points (from and to 0.0%"
    )
    assert judged["dense_sizes_matter_little"].ours.startswith("alexnet, fc6,7 of 2048: +10.0, alexnet")
    alone = run(dataclasses.replace(tiny, variants=("alexnet",), out=tiny.out / "alone"))
    architecture_ablation.report(alone)
    assert "alexnet                            left out: loss=nan at step 7" in capsys.readouterr().out
    assert json.loads((tiny.out / "alone" / "result.json").read_text())["rows"] == []


def test_the_rank_correlation_is_spearmans_with_the_share_of_orders_that_agree_as_well():
    def rows(*errors):
        papers = [(0, 40, 0), (0, 30, 0), (0, 20, 0), None]
        named = [("alexnet, a", *papers[:1]), ("alexnet", papers[1]), ("alexnet, b", papers[2]), ("alexnet, c", None)]
        errors = zip(named, errors, strict=True)
        return [{"name": n, "paper": p, "error": {"validation": {"top1": e}}} for (n, p), e in errors]

    same, opposite, half = ((0.9, 0.5, 0.1, 0.0), (0.1, 0.5, 0.9, 0.0), (0.5, 0.9, 0.1, 0.0))
    for errors, rho, *p in ((same, 1, 1 / 6, 1), (opposite, -1, 1, 1 / 6), (half, 0.5, 3 / 6, 5 / 6)):
        expected = {"rho": rho, "p_value": p[0], "p_contrary": p[1], "num_variants": 3}
        assert ablation.rank_correlation(rows(*errors)) == pytest.approx(expected)
    assert ablation.rank_correlation(rows(*half)[1:3]) is None
    assert ablation.rank_correlation(rows(0.9, 0.9, 0.9, 0.1))["rho"] is None


def test_that_one_family_errs_more_than_the_other_is_no_order_of_the_variants():
    """Where orders are few all of them count, 1 of 3! 3! that agree as well; of twelve variants many are drawn."""
    paper = [variant for variant in ablation.VARIANTS if variant.paper]

    def ranked(variants, error):
        rows = [{"name": v.name, "paper": v.paper, "error": {"validation": {"top1": error(v)}}} for v in variants]
        return ablation.rank_correlation(rows)

    six = [*paper[:3], *paper[7:10]]
    same = ranked(six, lambda variant: variant.paper[1])
    assert same["rho"] == pytest.approx(1) and same["p_value"] == pytest.approx(1 / 36) and same["p_contrary"] == 1
    noise = dict(zip([v.name for v in paper], np.random.default_rng(0).permutation(12), strict=True))
    apart = ranked(paper, lambda variant: 100 * variant.name.startswith("alexnet") + noise[variant.name])
    assert apart["rho"] > 0.6 and 0.05 < apart["p_value"] < 0.95
    whole = ranked(paper, lambda variant: variant.paper[1])
    assert whole["p_value"] <= 2 / (1 + ablation.NUM_ORDERS) and whole["p_contrary"] == 1


def test_an_unknown_variant_is_refused_with_the_known_ones(tiny):
    with pytest.raises(ValueError, match="variants='vgg': one of alexnet; alexnet, no conv3,4; "):
        run(dataclasses.replace(tiny, variants=("vgg",)))
