"""The one writer of results: what it claims, writes, names and removes."""

import dataclasses
import importlib
import json
import multiprocessing
import os

import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments.shell import results
from zfjax import files
from zfjax.errors import UserError


def write(folder, names, command="figure_a", **facts):
    return results.write(folder, facts, command=command, contents={name: {"x": np.arange(3)} for name in names})


def test_result_json_names_every_file_with_its_size_and_digest(tmp_path):
    figure = Figure(figsize=(1, 1))
    written = results.write(
        tmp_path, {"value": 1}, command="figure_a", contents={"a.npz": {"x": np.arange(3)}, "b.png": figure}
    )
    read = json.loads((tmp_path / "result.json").read_text())
    assert read["command"] == "figure_a" and read["value"] == 1 and read["folder"] == str(tmp_path)
    assert {name: facts["bytes"] for name, facts in read["files"].items()} == {
        name: (tmp_path / name).stat().st_size for name in ("a.npz", "b.png")
    }
    assert written["files"] == read["files"]


def test_only_files_of_an_earlier_result_are_removed(tmp_path):
    write(tmp_path, ["old.npz", "kept.npz"])
    (tmp_path / "mine.npz").write_bytes(b"somebody's own")
    write(tmp_path, ["kept.npz"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept.npz", "mine.npz", "result.json"]
    assert (tmp_path / "mine.npz").read_bytes() == b"somebody's own"


def test_a_file_of_somebody_elses_is_never_replaced(tmp_path):
    write(tmp_path, ["a.npz"])
    (tmp_path / "b.npz").write_bytes(b"precious")
    with pytest.raises(UserError, match="b.npz there is not from an earlier result; move it away"):
        write(tmp_path, ["a.npz", "b.npz"])
    assert (tmp_path / "b.npz").read_bytes() == b"precious" and (tmp_path / "result.json").exists()


def test_a_result_that_was_killed_half_way_can_be_replaced(tmp_path, monkeypatch):
    write(tmp_path, ["a.npz", "old.npz"])

    def killed(source, target):
        raise KeyboardInterrupt

    replace = os.replace
    monkeypatch.setattr(files, "save_json", lambda path, value: path.write_text(json.dumps(value, default=str)))
    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, ["a.npz", "b.npz"])
    monkeypatch.setattr(os, "replace", replace)
    write(tmp_path, ["b.npz"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.npz", "result.json"]


def test_what_a_kill_left_half_written_goes_with_the_next_result(tmp_path):
    for name in (".a.npz.77.partial", ".result.json.77", "..pending.json.8", ".a.npz.notes", ".c.npz.77"):
        (tmp_path / name).touch()
    write(tmp_path, ["a.npz", "b.npz"])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".a.npz.notes",
        ".c.npz.77",
        "a.npz",
        "b.npz",
        "result.json",
    ]


def test_a_manifest_cannot_reach_beyond_its_folder(tmp_path):
    (tmp_path / "precious").write_text("x")
    folder = tmp_path / "out"
    write(folder, ["a.npz"])
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps({**result, "files": {"../precious": {}, "a.npz": {}}}))
    write(folder, ["a.npz"])
    assert (tmp_path / "precious").exists()


def test_a_failed_write_leaves_the_earlier_result_whole(tmp_path):
    write(tmp_path, ["a.npz"], value=1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(TypeError):
        results.write(tmp_path, {}, command="figure_a", contents={"a.npz": {"x": np.arange(9)}, "b.npz": 5})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_with_a_result_is_refused_unless_it_may_be_replaced(tmp_path):
    write(tmp_path, ["a.npz"])
    with pytest.raises(UserError, match="already holds a result; give another folder, or --overwrite"):
        with results.claimed(tmp_path, "figure_a", overwrite=False):
            pass
    with results.claimed(tmp_path, "figure_a", overwrite=True) as folder:
        assert folder == tmp_path


def test_the_result_of_another_command_is_never_replaced(tmp_path):
    write(tmp_path, ["a.npz"])
    with pytest.raises(UserError, match="it holds a result of figure_a; give another folder"):
        with results.claimed(tmp_path, "figure_b", overwrite=True):
            pass


def test_pictures_of_something_else_are_not_mixed_with(tmp_path):
    (tmp_path / "holiday.png").write_bytes(b"")
    with pytest.raises(UserError, match="it holds files of something else"):
        with results.claimed(tmp_path, "figure_a", overwrite=False):
            pass


def _hold(folder, ready, end):
    with files.locked(folder):
        ready.set()
        end.wait(30)


def test_two_commands_never_write_into_one_folder(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, end = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path, ready, end))
    other.start()
    assert ready.wait(60)
    with pytest.raises(UserError, match="another process is writing into"):
        with results.claimed(tmp_path, "figure_a", overwrite=False):
            pass
    end.set()
    other.join(30)
    with results.claimed(tmp_path, "figure_a", overwrite=False):
        pass


def test_a_command_that_was_refused_leaves_no_folder(tmp_path):
    with pytest.raises(UserError), results.claimed(tmp_path / "out", "figure_a", overwrite=False):
        raise UserError("layer='x'")
    assert not (tmp_path / "out").exists()


def test_an_empty_folder_of_the_user_stays_after_a_refusal(tmp_path):
    with pytest.raises(UserError), results.claimed(tmp_path, "figure_a", overwrite=False):
        raise UserError("layer='x'")
    assert tmp_path.is_dir() and not list(tmp_path.iterdir())


def test_a_result_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "result.json").write_text("{")
    with pytest.raises(UserError, match="result.json is damaged .*; remove it, or give another folder"):
        with results.claimed(tmp_path, "figure_a", overwrite=True):
            pass


COMMANDS = {  # a file of each that is known before any work is done
    "deconv_figures": "conv1.npz",
    "activation_maximization": "conv1.npz",
    "invariance_curves": "figure5.png",
    "sanity_checks": "table.png",
    "occlusion_maps": "maps.png",
    "part_correspondence": "signs.npz",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_foreign_file_in_the_way_is_noticed_before_the_data_are_opened(tmp_path, command):
    room = importlib.import_module(f"experiments.{command}")
    (tmp_path / "mine.txt").write_text("")
    (tmp_path / "result.json").write_text(json.dumps({"command": command, "files": {}}))
    (tmp_path / COMMANDS[command]).write_bytes(b"precious")
    config = room.Config(net="foreign_nets:SMALL", data="absent", out=tmp_path, overwrite=True)
    with pytest.raises(UserError, match=f"{COMMANDS[command]} there is not from an earlier result; move it away"):
        room.run(config)
    assert {path.name for path in tmp_path.glob("[!.]*")} == {"mine.txt", "result.json", COMMANDS[command]}


@pytest.mark.parametrize("command", COMMANDS)
def test_numbers_below_what_can_be_are_refused_before_the_data_are_opened(tmp_path, command):
    room = importlib.import_module(f"experiments.{command}")
    config = room.Config(net="foreign_nets:SMALL", data="absent", out=tmp_path / "out")
    for field in dataclasses.fields(config):
        if type(field.default) is int:
            with pytest.raises(UserError, match=f"{field.name}=-1"):
                room.run(dataclasses.replace(config, **{field.name: -1}))
    assert not (tmp_path / "out").exists()
