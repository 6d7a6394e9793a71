"""Figure 6: each net in its role, numbers of hand-made filters, panels that are there, commands for the others."""

import dataclasses
import json
import shlex
import shutil

import foreign_nets
import jax
import numpy as np
import pytest
from judges import findings
from saved_runs import save_run
from tiny_nets import forward
from tiny_run import MEAN, NUM, PICTURES, SIDE

import zfjax
from experiments import first_layer, train_imagenet
from experiments.pages import canvas
from experiments.pages import first_layer as first_layer_page
from experiments.shell import training_run
from zfjax import nets, pixels
from zfjax.analyses import filters
from zfjax.architecture import ReceptiveField
from zfjax.data import ArraySource, ImageSet


def table(kernel, stride, name):
    """Two convolutional layers and logits on 20 pixels."""
    layers = (
        zfjax.Conv("conv1", 6, kernel=kernel, stride=stride, padding=(1, 1), after=(zfjax.Pool(),)),
        zfjax.Conv("conv2", 5, kernel=3, padding=(1, 1)),
        zfjax.Dense("fc8", 3, hidden=False),
    )
    return zfjax.Architecture(name, layers, image_size=20)


OURS, OTHER = table(3, 2, "zfnet"), table(5, 4, "alexnet")
SHALLOW = zfjax.Architecture("shallow", (OURS.layers[0], zfjax.Dense("fc8", 3, hidden=False)), image_size=20)
STRENGTHS = {"ours": (1, 1, 1, 1, 0.01, 2), "other": (1, 1, 1, 0.01, 0.01, 2), "unclipped": (1, 1, 1, 1, 1, 30)}


def params(architecture, strengths):
    """Noise filters of these RMS in conv1; its map 1 is dead by its bias."""
    rng = np.random.default_rng(0)
    drawn = {}
    for name, size in architecture.sizes().items():
        kernel = rng.normal(size=size.kernel) * np.sqrt(2 / np.prod(size.kernel[:-1]))
        drawn[name] = {"kernel": kernel.astype(np.float32), "bias": np.zeros(size.kernel[-1], np.float32)}
    kernel = drawn["conv1"]["kernel"]
    drawn["conv1"]["kernel"] = kernel / np.sqrt(np.mean(kernel**2, axis=(0, 1, 2))) * np.array(strengths, np.float32)
    drawn["conv1"]["bias"][1] = -1e6
    return drawn


RECIPE = train_imagenet.PRESETS["demo"].recipe
CONFIG = training_run.config_to_json(train_imagenet.PRESETS["demo"])
KINDS = {  # run: architecture, data, radius
    "ours": (OURS, "data", 0.1),
    "other": (OTHER, "data", 0.1),
    "unclipped": (OURS, "data", None),
    "foreign": (OURS, "another", 0.1),
    "shallow": (SHALLOW, "data", 0.1),
}


def save(run, architecture=OURS, data="data", radius=0.1, weights=None, strengths=STRENGTHS["ours"], **changes):
    """A run whose settings are those of preset demo."""
    weights = params(architecture, strengths) if weights is None else weights
    recipe = dataclasses.replace(RECIPE, renormalize_radius=radius)
    options = {"class_names": ("a", "b", "c"), "recipe": recipe, "data_fingerprint": data, "config": CONFIG}
    return save_run(run, architecture, {1: weights}, MEAN, **{**options, **changes})


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with a run of each kind."""
    root = tmp_path_factory.mktemp("saved") / "runs"
    for name, kind in KINDS.items():
        save(root / name, *kind, strengths=STRENGTHS.get(name, STRENGTHS["ours"]))
    return root


@pytest.fixture
def runs(saved, tmp_path):
    """A copy of it, to write to."""
    return shutil.copytree(saved, tmp_path / "runs")


IMAGES = ImageSet("tiny", SIDE, ("a",), None, ArraySource(PICTURES, np.zeros(NUM, int)), MEAN, None, "data")


def config(runs, **changes):
    named = {role: runs / changes.pop(role) for role in ("net", "alexnet", "unclipped") if role in changes}
    return first_layer.Config(**{"net": runs / "ours", "batch_size": 4, "num_maps": 2, **named, **changes})


def draw(runs, **changes):
    return first_layer.run(config(runs, **changes), data=IMAGES)


THREE = {"alexnet": "other", "unclipped": "unclipped"}


@pytest.mark.usefixtures("undrawn")
def test_numbers_are_those_of_the_filters_and_of_what_they_answer(runs):
    result = draw(runs, **THREE)
    facts, out = result["nets"], result["folder"]
    assert list(facts) == ["clipped", "unclipped", "alexnet"]
    assert facts["clipped"]["dominance"]["largest_over_median"] == pytest.approx(2, rel=1e-4)
    assert facts["unclipped"]["dominance"]["largest_over_median"] == pytest.approx(30, rel=1e-4)
    assert facts["unclipped"]["dominance"]["energy_share"] == pytest.approx(900 / 905, rel=1e-4)
    assert facts["clipped"]["dead_by_weight"] == {"count": 1, "share": pytest.approx(1 / 6)}
    assert facts["alexnet"]["dead_by_weight"] == {"count": 2, "share": pytest.approx(1 / 3)}
    ours, other, plain = (facts[role] for role in ("clipped", "alexnet", "unclipped"))
    dead = [max(of["dead_by_weight"]["share"], of["dead_by_activity"]["share"]) for of in (ours, other)]
    judged = findings(out)
    assert judged["renormalisation_tames"][:2] == ("2.0 against 30.0", "holds")
    assert plain["dominance"]["largest_over_median"] == pytest.approx(30, rel=1e-4)
    assert dead == [pytest.approx(1 / 6), pytest.approx(1 / 3)]  # with their intervals of 95 %:
    assert judged["fewer_dead_filters"].ours == "16.7% (3.0% to 56.4%) of 6 against 33.3% (9.7% to 70.0%) of 6"
    shares = [of["band_energy"]["middle"] for of in (ours, other)]
    assert judged["more_middle_frequencies"].ours == f"{shares[0]:.1%} against {shares[1]:.1%}"
    words = [f"{of['aliased_energy']:.1%} ({of['aliased_by_noise']:.1%} of white noise)" for of in (ours, other)]
    finer = other["on_finer_grid"]
    words = f"{' against '.join(words)}, AlexNet's filters at stride 2: {finer['aliased_energy']:.1%}"
    assert judged["less_aliasing"].ours == words
    assert "on_finer_grid" not in ours and "on_finer_grid" not in plain
    kernel = params(OTHER, STRENGTHS["other"])["conv1"]["kernel"]
    assert finer["aliased"] == pytest.approx(filters.aliased_energy(kernel[..., ~filters.weak(kernel)], 2), abs=1e-6)
    assert finer["aliased_energy"] == pytest.approx(np.mean(finer["aliased"]))
    assert (finer["stride"], finer["aliased_by_noise"]) == (2, filters.aliased_by_noise(2))
    images = PICTURES[:, 2:22, 2:22].astype(np.float32) - 120
    for role, name, architecture in (("clipped", "ours", OURS), ("alexnet", "other", OTHER)):
        weights = params(architecture, STRENGTHS[name])
        trace = forward(weights, images, architecture=architecture)[1]
        maps = trace["conv1"].features
        never = int((np.asarray(maps).max(axis=(0, 1, 2)) <= 0).sum())
        assert facts[role]["dead_by_activity"]["count"] == never >= 1
        assert (facts[role]["size"], facts[role]["stride"]) == {"ours": (3, 2), "other": (5, 4)}[name]
        alive = weights["conv1"]["kernel"][..., ~filters.weak(weights["conv1"]["kernel"])]
        for band, share in filters.band_energy(alive).items():
            assert facts[role]["band_energy"][band] == pytest.approx(share.mean(), abs=1e-6)
        assert sum(facts[role]["band_peaks"].values()) == pytest.approx(1)
        with np.load(out / f"{role}.npz") as saved:
            drawn, values, chosen, names = (saved[name] for name in ("projections", "values", "maps", "names"))
        assert facts[role]["units_of_layer_2"] == [f"map {number}" for number in chosen]
        assert facts[role]["images_of_layer_2"] == names.tolist() and set(names.ravel()) <= set(map(str, range(NUM)))
        strongest = np.asarray(trace["conv2"].features).max(axis=(0, 1, 2))
        assert (strongest > 0).sum() > len(chosen) == 2 and (strongest[chosen] > 0).all()
        np.testing.assert_allclose(values[:, 0], strongest[chosen], rtol=1e-4)
        assert np.abs(drawn[:, 0]).max(axis=(1, 2, 3)).min() > 0
        stride = architecture.layers[0].stride
        assert facts[role]["aliased_energy"] == pytest.approx(filters.aliased_energy(alive, stride).mean(), abs=1e-6)


def test_what_is_not_given_is_left_out_and_its_command_is_named(runs, tmp_path):
    out = tmp_path / "out"
    draw(runs, out=out)
    names = {"clipped.npz", "first_layer.png", "numbers.png", "result.json"}
    assert {path.name for path in out.iterdir()} == names
    written = json.loads((out / "result.json").read_text())
    assert set(written["missing"]) == {"unclipped", "alexnet"} and set(written["nets"]) == {"clipped"}
    assert written["folder"] == str(out) and written["seed"] == 0 and written["num_images"] == NUM
    assert written["checkpoint"]["fingerprint"] == nets.load_net(runs / "ours").fingerprint
    assert written["data"]["fingerprint"] == "data"
    assert written["renormalisation_acted"] is None and written["not_applicable"] == {}
    assert "Left out: AlexNet; result.json holds the command" in " ".join(first_layer_page.caption(written))
    assert "--architecture alexnet" in written["missing"]["alexnet"]
    with pytest.raises(ValueError, match="already holds a result; give another folder, or --overwrite"):
        draw(runs, out=out)
    again = draw(runs, **THREE, out=out, overwrite=True)
    assert {path.name for path in out.iterdir()} == names | {"unclipped.npz", "alexnet.npz"}
    for name in ("ours", "unclipped", "other"):
        assert len(list((runs / name / "scans").iterdir())) == 1
    assert not again["missing"]
    line = first_layer_page.summary_line(again["nets"]["alexnet"])
    assert line.startswith("5x5, stride 4; 2 of 6 dead; ") and line.endswith("peak at middle frequencies")
    caption = first_layer_page.caption(again)
    assert canvas.SWITCHES_NOTE in caption and again["renormalisation_acted"] is True
    assert not any("is not shown" in paragraph for paragraph in caption)
    draw(runs, out=out, overwrite=True)
    assert not (out / "alexnet.npz").exists()


@pytest.mark.usefixtures("undrawn")
def test_a_renormalisation_that_never_acted_is_told(runs):
    save(runs / "same", radius=None)
    save(runs / "calm", radius=2.1)
    result = draw(runs, net="calm", unclipped="same")
    assert result["renormalisation_acted"] is False
    assert result["nets"]["clipped"]["largest_rms"] == pytest.approx(2, rel=1e-4)
    assert any("is not shown" in paragraph for paragraph in first_layer_page.caption(result))


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(("radius", "acted"), [(1.4, True), (1.6, False)])
def test_renormalisation_acts_only_where_filters_outgrow_the_radius_without_it(runs, radius, acted):
    """Two seeds of a training whose filters stay below the radius differ too."""
    save(runs / "tame", radius=radius, strengths=(1, 1, 1, 1, 0.01, 1.2))
    save(runs / "free", radius=None, strengths=(1, 1, 1, 1, 0.01, 1.5))
    result = draw(runs, net="tame", unclipped="free")
    assert result["renormalisation_acted"] is acted
    notes = [note for note in first_layer_page.caption(result) if "is not shown" in note]
    assert bool(notes) is not acted


@pytest.mark.parametrize("role", ["unclipped", "alexnet"])
@pytest.mark.parametrize("preset", ["demo", "paper"])
def test_the_command_trains_the_other_net_as_this_one_was_trained(tmp_path, role, preset):
    size, crop = {"demo": ("40x56", "36x48"), "paper": ("40", "36")}[preset]
    flags = ["--seed", "5", "--demo-sizes", size, "50", "19", "--image-size", crop]
    stored = train_imagenet.parse(train_imagenet.PRESETS[preset], flags)
    settings = {"config": training_run.config_to_json(stored), "recipe": stored.recipe}
    words = shlex.split(first_layer.train_command(nets.load_net(save(tmp_path / "ours", **settings)), role))
    assert words[:5] == ["python", "-m", "experiments.train_imagenet", "--preset", preset]
    parsed = train_imagenet.parse(train_imagenet.PRESETS[preset], words[5:])
    before, after = first_layer.settings_of(stored), first_layer.settings_of(parsed)
    changed = {name: value for name, value in after.items() if value != before[name]}
    expected = {"unclipped": ("recipe.renormalize_radius", None), "alexnet": ("architecture", "alexnet")}[role]
    if preset == "paper":  # the demo set lies in no folder
        assert changed.pop("data_dir") == stored.data_dir.absolute()
        assert changed.pop("data_size") == 24  # the pictures that it was trained on, whatever lies beside them by now
    assert changed.pop("out").name == f"ours-{role}" and changed == dict([expected])


@pytest.mark.usefixtures("undrawn")
def test_an_imported_net_stands_alone_or_beside_one_of_data_of_the_same_name(tmp_path):
    for name, kind in {"ours": OURS, "other": OTHER, "foreign": OURS}.items():
        data = "other" if name == "foreign" else "tiny"
        save_run(tmp_path / name, kind, {1: params(kind, STRENGTHS["ours"])}, MEAN, class_names="abc", data=data)
    ours = nets.load_net(tmp_path / "ours")
    assert first_layer.train_command(ours, "alexnet").endswith("unknown, as the net was imported")
    assert list(first_layer.load_nets(config(tmp_path, alexnet="other"))) == ["clipped", "alexnet"]
    with pytest.raises(ValueError, match="foreign/checkpoints/1': it was not trained on the data of"):
        first_layer.load_nets(config(tmp_path, unclipped="foreign"))


def test_nets_that_do_not_fit_their_role_are_refused(runs, tmp_path):
    wrong = {
        ("alexnet", "foreign"): "alexnet='.*foreign/checkpoints/1': it was not trained on the data of .*ours",
        ("unclipped", "foreign"): "unclipped='.*foreign/checkpoints/1': it was not trained on the data of",
        ("unclipped", "ours"): "unclipped='.*ours/checkpoints/1': a net trained without renormalisation",
        ("net", "unclipped"): "net='.*unclipped/checkpoints/1': a net trained with renormalisation",
        ("alexnet", "unclipped"): "alexnet='.*unclipped/checkpoints/1': a net trained with renormalisation",
        ("alexnet", "ours"): "alexnet='.*ours': a first layer of a stride above 2 is needed",
        ("alexnet", "shallow"): "alexnet='.*shallow/checkpoints/1': two convolutional layers are needed",
    }
    for (flag, path), message in wrong.items():
        with pytest.raises(ValueError, match=message):
            draw(runs, **{flag: path})
    save(runs / "other unclipped", OTHER, radius=None)
    with pytest.raises(ValueError, match="unclipped='.*other unclipped': the architecture of .*ours.* is needed"):
        draw(runs, unclipped="other unclipped")
    plain = dataclasses.replace(RECIPE, renormalize_radius=None, seed=7)
    save(runs / "undecayed", recipe=dataclasses.replace(plain, weight_decay=0.0))
    message = "unclipped='.*undecayed': it has weight_decay=0.0; 0.01 as .*ours/checkpoints/1 is needed"
    with pytest.raises(ValueError, match=message):
        draw(runs, unclipped="undecayed")
    save(runs / "of another seed", recipe=plain)
    assert set(first_layer.load_nets(config(runs, unclipped="of another seed"))) == {"clipped", "unclipped"}
    with pytest.raises(ValueError, match="num_maps=0: at least 1"):
        draw(runs, num_maps=0)
    assert not list(tmp_path.rglob("figures"))


def test_a_second_layer_that_nothing_excites_is_named(tmp_path):
    dead = params(OURS, STRENGTHS["ours"])
    dead["conv2"]["bias"] -= 1e9
    save(tmp_path / "ours", weights=dead)
    result = draw(tmp_path)
    assert result["not_applicable"] == {"the second layer": "no validation image excites any map of conv2"}
    assert result["nets"]["clipped"]["num_filters"] == len(dead["conv1"]["bias"])


def test_one_scale_serves_a_panel_so_that_what_dominates_leaves_the_others_grey():
    kernel = np.full((3, 3, 3, 6), 0.1, np.float32)
    kernel[..., 2] = 10.0
    kernel[..., 4] = 0.0001
    bottom = filters.Bottom("zfnet", ("conv1", "conv2"), kernel, np.ones(6, bool), 2, None)
    facts = {"dominance": {"largest_over_median": 100.0}, "size": 3, "band_peaks": {"middle": 0.5}}
    facts |= {"dead_by_weight": {"count": 1}, "num_filters": 6, "stride": 2}
    strength = first_layer_page.strength_panel("(b)", bottom, facts)
    look = first_layer_page.look_panel("(d)", bottom, facts)
    assert strength.label == "(b): strongest 100 x median; white = +10"
    assert look.label == "(d): 3x3, stride 2; 1 of 6 dead; 50% peak at middle frequencies; white = +0.1"
    assert strength.pixels.shape == look.pixels.shape == (*look.pixels.shape[:1], first_layer_page.HALF, 3)
    pitch = (first_layer_page.HALF + pixels.TILE_GAP) // 4
    values = [[int(panel.pixels[5, n * pitch + 5, 0]) for n in range(4)] for panel in (strength, look)]
    assert values == [[129, 129, 255, 129], [255, 255, 255, 255]]
    assert int(look.pixels[pitch + 5, 5, 0]) == 128  # the fifth filter: dead, so grey


def test_curves_show_each_nets_filters():
    weights = params(OURS, STRENGTHS["ours"])
    kernel = 3 * weights["conv1"]["kernel"]
    bottom = filters.Bottom("zfnet", ("conv1", "conv2"), kernel, np.ones(6, bool), 2, None)
    figure = first_layer_page.numbers_figure({"clipped": bottom}, {"nets": {"clipped": {"stride": 2}}})
    strength, layer1 = (axes.lines[0] for axes in figure.axes)
    np.testing.assert_allclose(strength.get_ydata(), [2, 1, 1, 1, 1, 0.01], rtol=1e-4)
    assert sum(layer1.get_ydata()) == pytest.approx(100)
    assert set(figure.axes[1].lines[1].get_xdata()) == {1 / 4}  # 1 / (2 stride)


@pytest.fixture
def foreign(monkeypatch, tmp_path):
    """The flags for a folder of pictures, of a small function."""
    monkeypatch.chdir(tmp_path)
    data = str(foreign_nets.folder(tmp_path / "pictures"))
    return {"data": data, "out": tmp_path / "out", "batch_size": 4, "num_maps": 2}


def small(**changes):
    """The small function, whose first filters are known."""
    known = {"first_filters": np.asarray(foreign_nets.SMALL.params["conv1"])}
    return dataclasses.replace(foreign_nets.SMALL, **{**known, **changes})


def test_the_filters_alone_are_drawn_where_no_pictures_are_named(foreign, capsys):
    flags = {name: value for name, value in foreign.items() if name != "data"}
    result = first_layer.run(first_layer.Config(**flags), net=small())
    assert result["nets"]["clipped"]["num_filters"] == 4 and result["num_images"] == 0
    for part in ("filters that no image excites", "the second layer"):
        assert result["not_applicable"][part] == filters.NO_PICTURES
    assert "data: none, so that the filters alone are drawn" in capsys.readouterr().out


def test_a_net_that_is_none_of_ours_stands_alone_and_says_what_is_not_known(foreign, capsys):
    result = first_layer.run(first_layer.Config(**foreign), net=small())
    kernel = np.asarray(foreign_nets.SMALL.params["conv1"])
    facts = result["nets"]["clipped"]
    assert facts["dominance"] == filters.dominance(kernel)._asdict()
    assert (facts["architecture"], facts["size"], facts["stride"], facts["num_filters"]) == ("small", 3, None, 4)
    assert "aliased_energy" not in facts and result["missing"] == {} and result["renormalisation_acted"] is None
    assert set(result["not_applicable"]) == {"renormalisation", "the comparison with AlexNet", "aliasing"}
    assert all(name.split("/")[-1].startswith("picture ") for row in facts["images_of_layer_2"] for name in row if name)
    with np.load(foreign["out"] / "clipped.npz") as saved:
        np.testing.assert_array_equal(saved["kernel"], kernel)
        assert saved["projections"].shape == (2, 9, 10, 10, 3) and np.abs(saved["projections"]).max() > 0
    words = " ".join(first_layer_page.caption(result))
    assert "Left out: renormalisation, as small is no training run" in words
    first_layer.report(result)
    printed = capsys.readouterr().out
    assert "Left out: aliasing, as the stride of the first filters is not known" in printed
    energy = facts["band_energy"]
    shares = ", ".join(f"{energy[band]:.0%} at {band}" for band in ("low", "middle", "high"))
    assert f"  Of the filters' energy {shares} frequencies.\n" in printed and "too fine" not in printed
    assert first_layer_page.summary_line(facts).startswith("3x3; ")


def test_the_stride_is_known_where_nothing_but_the_filters_lies_between():
    assert filters.stride_of(small()) is None
    for field, stride in (
        (ReceptiveField(3, 1, -1), 1),
        (ReceptiveField(3, 2, 0), 2),
        (ReceptiveField(4, 2, -1), None),
    ):
        assert filters.stride_of(small(receptive_fields={"conv1": field})) == stride


def test_nets_whose_first_filters_are_not_there_or_not_of_the_first_layer_are_refused(foreign):
    def refused(message, **changes):
        with pytest.raises(ValueError, match=message):
            first_layer.run(first_layer.Config(**foreign), net=small(**changes))

    resized = lambda params, images: foreign_nets.forward(  # noqa: E731
        params, jax.image.resize(jax.image.resize(images, (len(images), 30, 42, 3), "linear"), images.shape, "linear")
    )
    refused("its first filters cannot be read, as its first weights meet", first_filters=None, fn=resized)
    refused(r"first_filters of shape \(3, 3, 3, 5\); its first layer has 4 maps", first_filters=np.zeros((3, 3, 3, 5)))
    assert not foreign["out"].exists()


@pytest.mark.usefixtures("undrawn")
def test_the_filters_of_any_net_are_read_from_its_program(foreign, capsys):
    result = first_layer.run(first_layer.Config(**foreign), net=foreign_nets.SMALL)
    kernel, facts = np.asarray(foreign_nets.SMALL.params["conv1"]), result["nets"]["clipped"]
    assert facts["dominance"] == filters.dominance(kernel)._asdict()
    assert (facts["size"], facts["stride"], facts["channels"], facts["num_filters"]) == (3, 1, 3, 4)
    assert facts["aliased_energy"] == 0 and set(result["not_applicable"]) == {
        "renormalisation",
        "the comparison with AlexNet",
    }
    with np.load(foreign["out"] / "clipped.npz") as saved:
        np.testing.assert_array_equal(saved["kernel"], kernel)
        assert saved["alive"].shape == (4,)
    first_layer.report(result)
    assert "Left out: the comparison with AlexNet, as only runs" in capsys.readouterr().out


def test_a_net_that_has_no_layer_of_its_first_filters_draws_them_and_says_so(foreign):
    def upper(params, images):
        every = foreign_nets.forward(params, images)
        return {name: every[name] for name in ("conv2", "logits")}

    result = first_layer.run(first_layer.Config(**foreign), net=small(fn=upper, layers=(), first_filters=None))
    facts = result["nets"]["clipped"]
    assert facts["num_filters"] == 4 and "dead_by_activity" not in facts
    assert result["not_applicable"]["filters that no image excites"].startswith("conv2, the lowest layer of small, is")
    assert len(facts["maps_of_layer_2"]) == 2
    with np.load(foreign["out"] / "clipped.npz") as saved:
        assert "alive" not in saved and saved["projections"].shape[:2] == (2, 9)


def test_units_of_a_dense_net_are_filters_as_large_as_the_image(foreign):
    weights = np.random.default_rng(0).normal(size=(6 * 8 * 3, 5)).astype(np.float32)

    def dense(images):
        hidden = jax.nn.relu(images.reshape(len(images), -1) @ weights)
        return {"hidden": hidden, "logits": hidden[:, :2]}

    net = nets.FunctionNet(dense, image_size=(6, 8), name="dense")
    result = first_layer.run(first_layer.Config(**foreign), net=net)
    assert result["nets"]["clipped"]["size"] == (6, 8) and result["nets"]["clipped"]["stride"] is None
    assert result["not_applicable"]["aliasing"].startswith("each of the first filters is as large as the image")
    with np.load(foreign["out"] / "clipped.npz") as saved:
        np.testing.assert_array_equal(saved["kernel"], weights.reshape(6, 8, 3, 5))


def test_channels_other_than_colours_are_tiles_of_grey_beside_each_other():
    kernel = np.zeros((2, 2, 4, 3), np.float32)
    for channel in range(4):
        kernel[:, :, channel] = channel / 3
    sheet = first_layer_page.filter_sheet(kernel, 1.0)
    assert sheet.shape[1] == first_layer_page.HALF and (sheet == sheet[..., :1]).all()
    side = next(n for n in range(1, 200) if sheet[5, n + 1, 0] == 255)  # up to the gap after the first tile
    corners = [int(sheet[5 + down, 5 + across, 0]) for down in (0, side + 3) for across in (0, side + 3)]
    assert corners == [128, 170, 213, 255]
    assert "4 channels: a filter is drawn as 4 tiles in grey" in first_layer_page.channels_note(4)[0]
    assert first_layer_page.channels_note(3) == []


def test_only_trained_runs_are_compared(runs):
    beside = first_layer.Config(net=runs / "ours", alexnet="foreign_nets:SMALL")
    for net, given, named in ((foreign_nets.SMALL, config(runs, alexnet="other"), "net"), (None, beside, "alexnet")):
        with pytest.raises(ValueError, match=f"{named}='small': only trained runs are compared"):
            first_layer.load_nets(given, net)


def test_a_net_of_one_layer_with_maps_leaves_the_second_layer_out(foreign):
    def lowest(params, images):
        every = foreign_nets.forward(params, images)
        return {name: every[name] for name in ("conv1", "logits")}

    result = first_layer.run(first_layer.Config(**foreign), net=small(fn=lowest, layers=()))
    assert result["not_applicable"]["the second layer"] == "no second layer has maps"
    assert "maps_of_layer_2" not in result["nets"]["clipped"]
