"""Figure 3 from the table: the paper's sizes, one rule for every block, every network's own numbers."""

import dataclasses
import json
from pathlib import Path

import foreign_nets
import numpy as np
import pytest
import tiny_nets
from judges import findings
from PIL import Image

import zfjax
from experiments import architecture_diagram
from experiments.architecture_diagram import Config
from experiments.pages import architecture as architecture_page
from experiments.pages import canvas
from zfjax import nets


def rows_of(architecture):
    return {row["layer"]: row for row in architecture_diagram.table(architecture)}


def result_of(architecture):
    return {
        "architecture": architecture.name,
        "image_size": architecture.image_size,
        "layers": architecture_diagram.table(architecture),
        "num_parameters": architecture.num_parameters(),
        "paper": None,
    }


def test_the_papers_network_has_the_papers_numbers():
    assert architecture_diagram.map_sides(zfjax.ZFNET) == [110, 55, 26, 13, 13, 13, 13, 6]
    rows = rows_of(zfjax.ZFNET)
    parameters = [14_208, 614_656, 885_120, 1_327_488, 884_992, 37_752_832, 16_781_312, 4_097_000]
    assert [row["parameters"] for row in rows.values()] == parameters and sum(parameters) == 62_357_608
    fields = {
        "conv1": (7, 2, 11, 4),
        "conv2": (27, 8, 43, 16),
        "conv4": (107, 16, 107, 16),
        "conv5": (139, 16, 171, 32),
    }
    for layer, expected in fields.items():
        sees = rows[layer]["sees"]
        assert (*sees["filtered"].values(), *sees["output"].values()) == expected
    assert rows["conv1"]["then"] == ["ReLU", "max 3x3, stride 2", "norm over 5 maps"]
    assert rows["fc7"]["then"] == ["ReLU", "dropout 0.5"] and rows["fc8"]["then"] == ["softmax"]


def test_what_the_paper_says_goes_with_its_own_tables_only():
    for table, numbers in architecture_diagram.PAPER.items():
        assert list(numbers["map_sides"]) == architecture_diagram.map_sides(table)
        assert numbers["num_parameters"] == table.num_parameters()
    assert zfjax.ZFNET.with_sizes(image=112) not in architecture_diagram.PAPER


@pytest.mark.parametrize("table", tiny_nets.TABLES.values())
def test_parameters_of_the_rows_add_up(table):
    assert sum(row["parameters"] for row in architecture_diagram.table(table)) == table.num_parameters()


def test_maps_that_are_no_squares_are_as_high_as_their_rows_and_as_deep_as_their_columns():
    table = zfjax.ZFNET.with_sizes(image=(224, 160))
    assert architecture_diagram.map_sides(table)[:3] == [(110, 78), (55, 39), (26, 18)]
    result = result_of(table)
    conv1, *_, fc6, _, _ = result["layers"]
    first, pooled = architecture_page.blocks_of(result, row=conv1, left=100.0, middle=0.0)
    per_place = architecture_page.TALLEST**2 / 224
    assert (first.height**2, first.depth**2) == pytest.approx((110 * per_place, 78 * per_place))
    assert (pooled.height**2, pooled.depth**2) == pytest.approx((55 * per_place, 39 * per_place))
    assert fc6["sees"]["output"] == {"pixels": (331, 267), "every": 32}
    assert architecture_page.words(conv1, (224, 160))[3:6] == ["110 x 78 x 96", "55 x 39 x 96", "7 px, every 2"]
    assert architecture_page.words(fc6, (224, 160))[5] == "the whole image"
    assert architecture_page.words(fc6, (400, 160))[5] == "331x267 px, every 32"


def test_every_block_keeps_the_rule_and_the_largest_just_fit():
    """Squares of heights go like the maps' sides, squares of widths like their number; a dense block stands upright."""
    result = result_of(zfjax.ZFNET)
    rows = {row["layer"]: row for row in result["layers"]}
    blocks = {name: architecture_page.blocks_of(result, row=row, left=100.0, middle=0.0) for name, row in rows.items()}
    per_place = architecture_page.TALLEST**2 / 224
    first, pooled = blocks["conv1"]
    assert (first.height**2, pooled.height**2) == pytest.approx((110 * per_place, 55 * per_place))
    assert first.depth == first.height and first.width == pooled.width and len(blocks["conv3"]) == 1
    assert blocks["conv3"][0].width ** 2 / first.width**2 == pytest.approx(384 / 96)
    assert blocks["fc8"][0].height ** 2 / blocks["fc6"][0].height ** 2 == pytest.approx(1000 / 4096)
    assert blocks["fc6"][0].width ** 2 == pytest.approx(per_place)
    per_map = [blocks["conv3"][0].width ** 2 / 384, blocks["fc6"][0].height ** 2 / 4096]
    assert per_map[0] == pytest.approx(per_map[1])
    assert max(blocks["conv3"][0].width / architecture_page.WIDEST, blocks["fc6"][0].height / 150) == pytest.approx(1)
    assert pooled.left >= first.left + first.width + architecture_page.DEPTH[0] * first.depth
    for name, table in tiny_nets.TABLES.items():
        some = result_of(table)
        for row in some["layers"]:
            last = architecture_page.blocks_of(some, row=row, left=0.0, middle=0.0)[-1]
            assert last.left + last.width + architecture_page.DEPTH[0] * last.depth <= architecture_page.COLUMN, name


def test_words_of_a_layer():
    rows = rows_of(zfjax.ALEXNET)
    assert architecture_page.words(rows["conv2"], 224) == [
        "5 x 5 x 48 x 256",
        "1, 2 and 2, 2 groups",
        "ReLU\nnorm over 5 maps\nmax 3x3, stride 2",
        "27 x 27 x 256",
        "13 x 13 x 256",
        "51 px, every 8",
        "67 px, every 16",
        "307,456",
    ]
    words = architecture_page.words(rows["fc6"], 224)
    assert words[0] == "9,216 x 4,096" and words[1] == "-" and words[5:7] == ["the whole image", "-"]
    assert architecture_page.words(rows_of(zfjax.ZFNET)["conv3"], 224)[5:7] == ["75 px, every 16", "-"]


def test_a_deep_network_goes_on_in_further_rows():
    convs = tuple(zfjax.Conv(f"conv{n}", 8, kernel=3, padding=(1, 1)) for n in range(1, 16))
    deep = zfjax.Architecture("deep", (*convs, zfjax.Dense("fc", 5, hidden=False)), image_size=32)
    page, one = (canvas.pixels_of(architecture_page.draw(result_of(table))) for table in (deep, zfjax.ZFNET))
    assert page.shape[1] == one.shape[1] <= 1500 and page.shape[0] > 1.6 * one.shape[0]


def test_the_command_writes_the_picture_and_the_table(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    result = architecture_diagram.run(Config())
    out = tmp_path / "runs" / "architecture" / "zfnet"
    written = json.loads((out / "result.json").read_text())
    assert written["num_parameters"] == written["paper"]["num_parameters"] == 62_357_608
    assert written["map_sides"] == written["paper"]["map_sides"] and len(written["layers"]) == 8
    with Image.open(out / "architecture.png") as page:
        assert page.size[0] <= 1500
    judged = findings(out)["geometry"]
    assert judged == ("62,357,608 parameters, maps of 110-55-26-13-13-13-13-6", "holds", "")
    architecture_diagram.report(result)
    assert "62,357,608 parameters, maps of 110-55-26-13-13-13-13-6" in capsys.readouterr().out
    with pytest.raises(ValueError, match="already holds a result"):
        architecture_diagram.run(Config())
    changed = architecture_diagram.run(Config(image_size=112, width=0.5, out=tmp_path / "small"))
    assert changed["paper"] is None and changed["map_sides"] == [54, 27, 12, 6, 6, 6, 6, 3]
    assert [row["output"][-1] for row in changed["layers"]] == [48, 128, 192, 192, 128, 2048, 2048, 1000]


def test_a_checkpoints_network_is_drawn_into_its_run(tmp_path):
    table = dataclasses.replace(zfjax.ALEXNET.scaled(0.125).with_sizes(fc8=10), input_scale=0.5)
    net = nets.TrainedNet(table, {}, np.zeros((1, 1, 3)), tmp_path / "7", tmp_path, "demo", (), "print")
    result = architecture_diagram.run(Config(), net=net)
    assert result["num_parameters"] == table.num_parameters() and result["paper"] is None
    written = json.loads((tmp_path / "figures" / "architecture" / "result.json").read_text())
    assert written["checkpoint"]["fingerprint"] == "print"


def test_what_cannot_be_drawn_is_named_before_anything_is_written(tmp_path):
    for config, message in (
        (Config(architecture="alexnet", net=Path("x")), "architecture='alexnet', net='x': name one"),
        (Config(image_size=20, out=tmp_path), "layer 'conv2': its input of 4x4.*the image is too small"),
        (Config(width=0.0, out=tmp_path), "width=0.0: a finite factor above 0"),
    ):
        with pytest.raises(ValueError, match=message):
            architecture_diagram.run(config)
    assert not list(tmp_path.iterdir())


def test_a_net_that_is_no_table_is_drawn_by_its_layers(tmp_path, capsys):
    result = architecture_diagram.run(Config(net="foreign_nets:SMALL", out=tmp_path / "out"))
    written = json.loads((tmp_path / "out" / "result.json").read_text())
    first, second, logits = written["layers"]
    assert first == {
        "layer": "conv1",
        "reads": ["image"],
        "steps": ["conv 3x3", "ReLU", "max 2x2, stride 2"],
        "output": [10, 14, 4],
        "sees": {"pixels": 4, "every": 2},
        "parameters": 108,
    }
    assert (second["sees"], logits["sees"]) == ({"pixels": 10, "every": 4}, None)
    assert written["num_parameters"] == 954 and written["image_size"] == [20, 28]
    assert written["map_sides"] == [[10, 14], [5, 7]]
    assert written["not_applicable"] == {
        "filters, padding and dropout of each layer": "small is a program and no table of layers"
    }
    architecture_diagram.report(result)
    assert "small: 954 parameters, maps of 10x14-5x7 places a side\nLeft out: filters, padd" in capsys.readouterr().out
    assert architecture_page.layer_words(result["layers"][1], (20, 28)) == [
        ["conv1"],
        ["conv 3x3", "ReLU", "max 2x2, stride 2"],
        ["6 maps of 5x7"],
        ["10 px, every 4"],
        ["216"],
    ]
    with pytest.raises(ValueError, match="image_size=64, width=1: small is no table of layers"):
        architecture_diagram.run(Config(net="foreign_nets:SMALL", image_size=64, out=tmp_path / "other"))
    assert not (tmp_path / "other").exists()


def test_fields_that_no_program_proves_are_named():
    facts = architecture_diagram.of_layers(foreign_nets.MINIMAL)
    assert facts["not_applicable"]["what a place sees"].startswith(
        "of 2 layers with maps it is neither said nor proved"
    )
    assert architecture_page.layer_words(facts["layers"][0], (20, 28))[3] == ["not known"]


def test_fifty_layers_of_long_names_stay_on_the_page():
    row = {"reads": ["image"], "steps": ["conv 3x3"] * 12, "output": (8, 6, 5), "sees": None, "parameters": 7}
    names = [f"stage_{number:02d}/" + "a_very_long_module_path/" * 6 + "conv" for number in range(50)]
    assert len(names[0]) == 157
    result = {
        "architecture": "N" * 155,
        "image_size": (16, 12),
        "layers": [{**row, "layer": name} for name in names],
        "num_parameters": 350,
        "not_applicable": {},
    }
    page = canvas.pixels_of(architecture_page.draw_layers(result))
    assert page.shape[1] <= 1500 and canvas.framed(page).shape == page.shape  # no ink at its edges
    assert architecture_page.layer_words({**row, "layer": names[0]}, (16, 12))[1][7:] == [
        "... and 4 more ...",
        "conv 3x3",
    ]
    headings = {tuple(architecture_page.heading(name)) for name in names}
    assert len(headings) == 50  # though each is shortened
