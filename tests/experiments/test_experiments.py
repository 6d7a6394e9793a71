"""Experiments end to end on tiny nets: what they print and write is what a hand computation gives."""

import dataclasses
import json
import sys
from pathlib import Path

import foreign_nets
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from foreign_nets import SMALL
from judges import check_keys, findings, findings_of
from matplotlib.text import Text

import zfjax
from experiments import benchmark, demo_scenes, evaluate_imagenet
from experiments.benchmark import Workload
from experiments.pages import demo as demo_page
from experiments.report.statistics import with_interval
from experiments.shell import hosts, operations
from zfjax import nets, pixels, training
from zfjax.data import demo, sets
from zfjax.training import checkpoints

TINY = zfjax.ZFNET.scaled(1 / 32).with_sizes(image=48, fc8=demo.NUM_CLASSES)
RECIPE = training.Recipe(initialization="he", seed=3)
DATA = "demo:56:12:22"


def tiny_run(folder: Path, data: str = DATA, recipe: training.Recipe = RECIPE) -> Path:
    """A run folder with one checkpoint of an untrained net."""
    images = sets.open_data(data)
    saved = checkpoints.to_checkpoint(
        training.init_state(recipe, TINY),
        architecture=TINY,
        mean=images.mean,
        recipe=recipe,
        annealing=training.Annealing.start(recipe),
        settings={"data": data, "class_names": list(images.class_names)},
    )
    store = checkpoints.Checkpoints(folder / "checkpoints")
    store.save(saved)
    store.close()
    return folder


def call(monkeypatch, capsys, module, *arguments) -> str:
    """What `python -m module arguments` prints."""
    monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
    module.main()
    return capsys.readouterr().out


def error_by_hand(views) -> float:
    """Top-1 error of the tiny net on DATA, in NumPy from the logits of every view."""
    images = sets.open_data(DATA)
    examples = [images.validation[index] for index in range(len(images.validation))]
    pictures = jnp.asarray(np.stack([example["image"] for example in examples]))
    crops = np.asarray(views(pictures, jnp.asarray(images.mean), TINY.image_size)).reshape(-1, 48, 48, 3)
    params = training.init_state(RECIPE, TINY).params
    logits = np.asarray(jax.jit(lambda crops: zfjax.forward(params, crops, architecture=TINY)[0])(crops), np.float64)
    share = np.exp(logits - logits.max(axis=1, keepdims=True))
    share = (share / share.sum(axis=1, keepdims=True)).reshape(-1, len(examples), demo.NUM_CLASSES).mean(axis=0)
    return float(np.mean(share.argmax(axis=1) != [example["label"] for example in examples]))


def test_evaluation_is_that_of_single_images(tmp_path, monkeypatch, capsys):
    run = tiny_run(tmp_path)
    printed = call(monkeypatch, capsys, evaluate_imagenet, "--checkpoint", run, "--batch-size", 8)
    result = json.loads((run / "evaluation" / "result.json").read_text())
    assert result["error"]["center"]["top1"] == pytest.approx(error_by_hand(pixels.center_crop))
    assert result["error"]["ten"]["top1"] == pytest.approx(error_by_hand(pixels.ten_crops))
    assert result["paper"]["1 net as per Fig. 3"] == [38.4, 16.5, None] and result["num_images"] == 22
    assert [member["error"] for member in result["members"]] == [result["error"]]
    labels = [int(example["label"]) for example in map(sets.open_data(DATA).validation.__getitem__, range(22))]
    assert result["largest_class_share"] == max(map(labels.count, labels)) / 22
    assert f"{result['error']['ten']['top1']:.1%}" in printed
    with pytest.raises(SystemExit, match="it already holds a result; give another folder, or --overwrite"):
        call(monkeypatch, capsys, evaluate_imagenet, "--checkpoint", run)
    with pytest.raises(SystemExit, match="its pictures have 64 pixels a side, the net's 56"):
        call(monkeypatch, capsys, evaluate_imagenet, "--checkpoint", run, "--data", "demo:64:12:4", "--overwrite")


def test_several_checkpoints_are_averaged_and_measured_alone(tmp_path, monkeypatch, capsys):
    run = tiny_run(tmp_path / "a")
    other = tiny_run(tmp_path / "b", recipe=dataclasses.replace(RECIPE, seed=1))
    printed = call(monkeypatch, capsys, evaluate_imagenet, "--checkpoint", run, other, "--batch-size", 8)
    folder = run / "evaluation" / f"with-{other.parent.name}-{other.name}"
    result = json.loads((folder / "result.json").read_text())
    assert result["members"][0]["error"]["center"]["top1"] == pytest.approx(error_by_hand(pixels.center_crop))
    assert result["members"][0]["checkpoint"] != result["members"][1]["checkpoint"]
    assert printed.count("alone: ") == 4
    ten, alone = result["error"]["ten"]["top1"], [member["error"]["ten"]["top1"] for member in result["members"]]
    judged = findings(folder)
    center, num = result["error"]["center"]["top1"], result["num_images"]
    assert judged["ten_crops_help"].ours == f"{with_interval(ten, num)} against {with_interval(center, num)}"
    together, best = with_interval(ten, num), with_interval(min(alone), num)
    assert judged["averaging_helps"].ours == f"{together} together, {best} the best of 2 alone"
    assert judged["member_beats_alexnet"] is judged["wide_member_helps"] is None  # both are of one architecture
    for name, claim in (("alexnet", "member_beats_alexnet"), ("zfnet-conv3+4+5-of-512+1024+512", "wide_member_helps")):
        members = [result["members"][0], {**result["members"][1], "name": name}]
        better, worse = alone if name == "alexnet" else alone[::-1]
        words = f"{with_interval(better, num)} against {with_interval(worse, num)}"
        assert findings_of(folder, members=members)[claim].ours == words
    with pytest.raises(SystemExit, match="are one network; different ones are needed"):
        call(monkeypatch, capsys, evaluate_imagenet, "--checkpoint", run, other, run, "--overwrite")


def test_a_net_of_any_kind_is_measured_from_its_centre_crop(tmp_path, monkeypatch, capsys):
    data = foreign_nets.folder(tmp_path / "pictures")
    flags = ("--net", "foreign_nets:SMALL", "--data", data, "--out", tmp_path / "out", "--batch-size", 4)
    compared = []
    monkeypatch.setattr(evaluate_imagenet.parallel, "check_agreement", compared.append)
    printed = call(monkeypatch, capsys, evaluate_imagenet, *flags)
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    facts = {"networks": [SMALL.fingerprint], "data fingerprint": result["data"]["fingerprint"], "batch_size": 4}
    assert compared == [facts | hosts.software()] and "version of jaxlib" in compared[0]  # before the first picture
    views = nets.read_views(sets.open_images(str(data), SMALL).validation, range(6), SMALL)
    logits = np.asarray(SMALL.features(["logits"])(views.images)["logits"])
    assert result["error"] == {"center": {"top1": float(np.mean(logits.argmax(axis=1) != views.labels))}}
    assert 0 < result["error"]["center"]["top1"] < 1 and result["members"][0]["parameters"] == 108 + 216 + 630
    assert result["largest_class_share"] == 2 / 6  # two of each of three classes
    assert list(result["not_applicable"]) == ["ten"] and "ten crops: not measured, as small prepares" in printed
    with pytest.raises(
        SystemExit, match="net='maps only': there are no classes to compare with the labels, as the last layer"
    ):
        call(monkeypatch, capsys, evaluate_imagenet, "--net", "foreign_nets:MAPS_ONLY", "--data", data)


def test_newest_run_is_taken_and_a_missing_one_names_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="python -m experiments.train_imagenet --preset demo"):
        nets.load_net(None)
    tiny_run(tmp_path / "runs" / "one")
    net = nets.load_net(None)
    assert net.run == tmp_path / "runs" / "one" and net.architecture == TINY and net.data == DATA
    assert net.class_names == demo.CLASS_NAMES
    (tmp_path / "runs" / "two" / "checkpoints" / "3").mkdir(parents=True)
    (tmp_path / "runs" / "two" / "checkpoints" / "3" / "network").symlink_to("gone")  # as while its run removes it
    assert nets.load_net(None).run == tmp_path / "runs" / "one"
    with pytest.raises(FileNotFoundError, match="no checkpoint at .*nowhere"):
        nets.load_net(tmp_path / "nowhere")


def test_data_by_name(tmp_path):
    images = sets.open_data(DATA)
    assert (images.size, len(images.train), len(images.validation)) == (56, 12, 22)
    with pytest.raises(ValueError, match=r"data='demo:x': 'demo', 'demo:SIZE:TRAIN:VALIDATION', 'DIR' or 'DIR:SIZE'"):
        sets.open_data("demo:x")
    with pytest.raises(ValueError, match="data='demo:56:12'"):
        sets.open_data("demo:56:12")
    for folder in (str(tmp_path), f"{tmp_path}:128", f"{tmp_path}/a:b", "./demo"):
        with pytest.raises(FileNotFoundError, match="experiments.prepare_imagenet"):
            sets.open_data(folder)
    with pytest.raises(ValueError, match="num_validation=0: at least 1 is needed"):
        demo.demo_set(40, 12, 0)


def test_demo_examples_are_scenes_with_their_truth():
    example = sets.open_data(DATA).validation[5]
    scene = demo.render(1, 5, size=56)
    assert example["label"] == scene.label and example["index"] == 5
    np.testing.assert_array_equal(example["object"], scene.mask)
    np.testing.assert_allclose(example["parts"], scene.parts, rtol=1e-5)
    assert np.abs(example["image"].astype(int) - np.asarray(scene.image).astype(int)).max() <= 1


@pytest.mark.parametrize(("name", "more"), [("train", ()), ("forward", ()), ("project", ("--layer", "fc7"))])
def test_benchmark_prints_a_line_of_json(name, more, monkeypatch, capsys):
    flags = ("--width", 1 / 32, "--image-size", 48, "--num-classes", 10, "--batch-size", 4, "--steps", 1, "--rounds", 1)
    record = json.loads(call(monkeypatch, capsys, benchmark, name, *flags, *more))
    assert record["name"] == {"train": "train_step"}.get(name, name) and record["engine"] == "zfjax"
    assert record["images_per_second"] == pytest.approx(4 / record["seconds_per_step"]["median"], rel=0.01)


def test_benchmark_counts_nine_units_of_each_image(monkeypatch, capsys):
    flags = ("--width", 1 / 32, "--image-size", 48, "--batch-size", 2, "--rounds", 1, "--layer", "conv2")
    record = json.loads(call(monkeypatch, capsys, benchmark, "units", *flags))
    assert (record["name"], record["engine"], record["layer"]) == ("units", "zfjax", "conv2")
    seconds = record["seconds_per_step"]["median"]
    assert record["projections_per_second"] == pytest.approx(18 / seconds, rel=0.01)
    step, _ = benchmark.windows(Workload(width=1 / 32, image_size=48, batch_size=2), "conv2")
    assert len(step().rows) == 18 and np.abs(step().pixels).max(axis=(1, 2, 3)).astype(bool).mean() > 0.5


def test_benchmark_of_occlusion_counts_the_places_of_the_square(monkeypatch, capsys):
    flags = ("--width", 1 / 32, "--image-size", 48, "--num-classes", 10, "--batch-size", 9, "--rounds", 1)
    record = json.loads(call(monkeypatch, capsys, benchmark, "occlusion", *flags, "--square", 8, "--stride", 20))
    assert (record["engine"], record["num_places"], record["square"], record["stride"]) == ("zfjax", 9, 8, 20)
    assert record["evaluations_per_second"] == pytest.approx(9 / record["seconds_per_step"]["median"], rel=0.01)


@pytest.mark.slow
def test_benchmark_of_the_start_divides_its_seconds(monkeypatch, capsys):
    flags = ("--width", 1 / 32, "--image-size", 48, "--num-classes", 10, "--batch-size", 4, "--layer", "conv1")
    of_step, of_units = map(json.loads, call(monkeypatch, capsys, benchmark, "start", *flags).splitlines())
    assert (of_step["of"], of_units["of"], of_units["layer"]) == ("train_step", "units", "conv1")
    for record in (of_step, of_units):
        parts = [record[f"seconds_{stage}"] for stage in ("tracing", "lowering", "compiling", "running")]
        assert min(parts) > 0 and sum(parts) == pytest.approx(record["seconds"], abs=0.01)
        assert record["num_programs"] >= 2  # initial parameters, and what is begun


@pytest.mark.slow
def test_benchmark_of_the_step_lists_every_operation_and_its_products(monkeypatch, capsys):
    monkeypatch.setattr(operations, "MATRIX", 64)
    flags = ("--width", 1 / 32, "--image-size", 48, "--num-classes", 10, "--batch-size", 4, "--rounds", 1)
    records = [json.loads(line) for line in call(monkeypatch, capsys, benchmark, "step", *flags).splitlines()]
    listed = {(record["layer"], record["operation"]): record for record in records}
    assert len(listed) == len(records) and {layer for layer, _ in listed} == {None, *zfjax.ZFNET.layer_names}
    size = Workload(width=1 / 32, image_size=48, num_classes=10).table().sizes()["conv2"]
    by_hand = 2 * 4 * size.filtered[0] ** 2 * np.prod(size.kernel) / 1e9
    for way in ("filters", "filters, gradient of the kernel", "filters, gradient of the maps"):
        assert listed["conv2", way]["gflop"] == pytest.approx(by_hand, abs=1e-6)
    assert ("conv1", "filters, gradient of the maps") not in listed and ("conv1", "pool, gradient") in listed
    assert listed[None, "matrix product"]["share_of_peak"] == 1 and listed[None, "whole step"]["share_of_step"] == 1


def test_benchmark_of_decoding_finds_the_same_pixels_by_every_decoder(monkeypatch, capsys):
    lines = call(monkeypatch, capsys, benchmark, "decode", "--num-images", 2, "--rounds", 1).splitlines()
    records = {record["engine"]: record for record in map(json.loads, lines)}
    assert records.keys() == benchmark.installed_decoders().keys() and "pillow" in records
    assert all(record["num_images"] == 2 and record["same_pixels"] for record in records.values())
    with pytest.raises(SystemExit, match="num_images=0, rounds=5: at least 1 of each is needed"):
        call(monkeypatch, capsys, benchmark, "decode", "--num-images", 0)


def test_benchmark_of_crops_projects_the_same_pictures_as_whole_images_give(monkeypatch, capsys):
    flags = ("--net", "foreign_nets:SMALL", "--layer", nets.map_layers(SMALL)[0], "--num-units", 2, "--rounds", 1)
    records = [json.loads(line) for line in call(monkeypatch, capsys, benchmark, "crops", *flags).splitlines()]
    assert [record["engine"] for record in records] == ["crops", "whole images"]
    assert all(record["largest_difference"] < 1e-5 and record["num_units"] == 2 for record in records)
    with pytest.raises(SystemExit, match="layer='logits': one with places is needed, as "):
        call(monkeypatch, capsys, benchmark, "crops", "--net", "foreign_nets:SMALL", "--layer", "logits")


@pytest.mark.slow
def test_benchmark_of_the_scan_looks_through_photos_again_and_says_what_it_holds(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(benchmark, "own_set", lambda folder: demo.demo_set(80, 10, 1))
    flags = ("--width", 1 / 32, "--image-size", 48, "--num-classes", 10, "--batch-size", 4, "--steps", 2)
    found, forward = map(json.loads, call(monkeypatch, capsys, benchmark, "scan", *flags, "--images", 24).splitlines())
    assert (found["name"], found["engine"], forward["engine"]) == ("scan", "zfjax", "zfjax forward")
    assert found["images_per_second"] == pytest.approx(4 / found["seconds_per_step"]["median"], rel=0.01)
    assert list(found["resident_mb"]) == ["8", "24"] and min(found["resident_mb"].values()) > 50
    assert found["resident_mb_of_use"].keys() == found["resident_mb"].keys()
    assert 0 < found["times_the_rate_of_forward"] and "resident_mb" not in forward
    photos = benchmark.Repeated(demo.demo_set(16, 3, 1).train, range(2, 5))
    assert [photos[index]["index"] for index in range(3)] == [2, 3, 4]
    np.testing.assert_array_equal(photos[1]["image"], demo.demo_set(16, 3, 1).train[0]["image"])


def test_spans_inside_one_another_are_counted_once():
    assert benchmark.covered([(5.0, 6.0), (0.0, 3.0), (1.0, 2.0), (2.5, 4.0)]) == 5
    assert benchmark.covered([]) == 0


@pytest.mark.slow
def test_benchmark_of_the_atlas_projects_nine_units_of_every_map(monkeypatch, capsys):
    flags = ("--width", 1 / 32, "--image-size", 48, "--batch-size", 4, "--images", 10)
    record = json.loads(call(monkeypatch, capsys, benchmark, "atlas", *flags))
    table = Workload(width=1 / 32, image_size=48).table()
    num_units = 9 * sum(size.output[-1] for size in table.sizes().values() if len(size.output) == 3)
    assert (record["engine"], record["num_units"], record["num_images"]) == ("zfjax", num_units, 10)
    run = benchmark.whole_atlas(Workload(width=1 / 32, image_size=48, batch_size=4), 10, ["conv1", "conv2"])
    drawn = run(10)
    assert {layer: len(windows.rows) for layer, windows in drawn.items()} == {"conv1": 27, "conv2": 72}
    assert all(np.abs(windows.pixels).max() > 0 for windows in drawn.values())


@pytest.mark.slow
def test_benchmark_compares_the_traced_deconvnet_with_the_explicit_one(monkeypatch, capsys):
    flags = ("--width", 1 / 32, "--image-size", 48, "--num-classes", 10, "--batch-size", 4, "--steps", 1, "--rounds", 1)
    printed = call(monkeypatch, capsys, benchmark, "project-fn", *flags, "--layer", "conv3", "--channel", 1)
    ours, traced = map(json.loads, printed.splitlines())
    assert (ours["engine"], traced["engine"]) == ("zfjax", "zfjax project_fn") and ours["layer"] == "conv3"
    times = traced["seconds_per_step"]["median"] / ours["seconds_per_step"]["median"]
    assert traced["times_the_seconds_of_zfjax"] == pytest.approx(times, rel=0.01)
    workload = Workload(width=1 / 32, image_size=48, num_classes=10, batch_size=4)
    (explicit, _), (ruled, _) = (make(workload, "conv3", 1) for make in (benchmark.projection, benchmark.ruled))
    assert np.abs(explicit()).max() > 0
    np.testing.assert_allclose(ruled(), explicit(), rtol=1e-4, atol=1e-4 * np.abs(explicit()).max())


def test_torch_twin_of_the_benchmark_is_the_same_network():
    torch = pytest.importorskip("torch", reason="the PyTorch twin needs the extra zfjax[bench]")
    from experiments.shell import torch_twin as benchmark_torch

    for table in (zfjax.ZFNET, zfjax.ALEXNET):
        table = table.scaled(1 / 16).with_sizes(image=80, fc8=7)
        params = training.init_state(training.Recipe(initialization="he"), table).params
        twin = benchmark_torch.build(table, "fc8").eval()
        rows = [module for module in twin.modules() if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear))]
        for name, row in zip(table.layer_names, rows, strict=True):
            kernel = np.asarray(params[name]["kernel"])
            if kernel.ndim == 2 and name == "fc6":  # flattened from NHWC here, from NCHW there
                side, _, maps = table.sizes()[name].input
                kernel = kernel.reshape(side, side, maps, -1).transpose(2, 0, 1, 3).reshape(kernel.shape)
            row.weight.data = torch.tensor(kernel.T if kernel.ndim == 2 else kernel.transpose(3, 2, 0, 1))
            row.bias.data = torch.tensor(np.asarray(params[name]["bias"]))
        images = 50 * np.random.default_rng(0).standard_normal((2, 80, 80, 3)).astype(np.float32)
        theirs = twin(torch.tensor(images.transpose(0, 3, 1, 2))).detach().numpy()
        ours, _ = zfjax.forward(params, jnp.asarray(images), architecture=table)
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())


def test_workload_is_the_table_that_it_names():
    assert Workload(architecture="alexnet").table() == zfjax.ALEXNET
    assert Workload(image_size=112, width=0.5, num_classes=10).table().sizes()["conv1"].kernel == (7, 7, 3, 48)


def test_linear_baseline_solves_what_is_linear_and_only_that():
    labels = np.arange(200) % demo.NUM_CLASSES
    codes = np.eye(demo.NUM_CLASSES, dtype=np.float32)[labels] * 50
    assert demo_scenes.linear_accuracy(codes, codes, train_labels=labels, test_labels=labels) == 1
    assert (
        demo_scenes.linear_accuracy(codes[:, :1] * 0, codes[:, :1] * 0, train_labels=labels, test_labels=labels) == 0.1
    )


def test_histogram_counts_colours():
    black = np.zeros((1, 4, 4, 3), np.uint8)
    half = np.concatenate([black[:, :2], np.full((1, 2, 4, 3), 255, np.uint8)], axis=1)
    assert demo_scenes.histograms(black)[0, 0] == 10 and demo_scenes.histograms(black).sum() == 10
    np.testing.assert_allclose(demo_scenes.histograms(half)[0, [0, 511]], 10 / np.sqrt(2), rtol=1e-6)


def test_demo_page_of_few_scenes_shows_the_classes_that_they_have():
    scenes = demo.demo_images(1, 0, 2, size=16)
    names = {demo.CLASS_NAMES[label] for label in scenes["label"]}
    words = {text.get_text() for text in demo_page.draw(scenes).findobj(Text)}
    assert words & set(demo.CLASS_NAMES) == names


@pytest.mark.slow
def test_demo_page_and_its_result(tmp_path, monkeypatch, capsys):
    flags = ("--size", 16, "--num-train", 60, "--num-test", 64, "--out", tmp_path)
    printed = call(monkeypatch, capsys, demo_scenes, *flags)
    check_keys(tmp_path)
    accuracy = json.loads((tmp_path / "result.json").read_text())["accuracy"]
    assert set(accuracy) == {"linear_on_pixels", "colour_histogram", "background_without_creature"}
    assert f"{accuracy['colour_histogram']:.1%}" in printed and (tmp_path / "scenes.png").exists()
    with pytest.raises(SystemExit, match="it already holds a result"):
        call(monkeypatch, capsys, demo_scenes, *flags)
