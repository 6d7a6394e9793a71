"""Our own files: read whole, of the form that they should have, or refused with their path and the way on."""

import io
import os
import zipfile
from typing import TypedDict

import numpy as np
import pytest

from zfjax import files
from zfjax.errors import UserError


class Fields(TypedDict):
    size: int
    names: list[str]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\xfe{",
        b"[]",
        b"null",
        b'{"size": 3}',
        b'{"size": "3", "names": []}',
        b'{"size": 3, "names": [4]}',
        b"[" * 100_000,
        b'{"names": [], "size": ' + b"9" * 5000 + b"}",
    ],
)
def test_json_of_another_form_is_refused_with_its_path_and_the_way_on(tmp_path, text):
    path = tmp_path / "facts.json"
    path.write_bytes(text)
    with pytest.raises(UserError, match=r"facts.json is damaged \(.*\); make it again"):
        files.read_json(path, Fields, "make it again")


def test_json_that_is_whole_is_read_and_one_that_is_not_there_is_said_to_be(tmp_path):
    files.save_json(tmp_path / "facts.json", {"size": 3, "names": ["a"], "more": None})
    assert files.read_json(tmp_path / "facts.json", Fields, "") == {"size": 3, "names": ["a"], "more": None}
    with pytest.raises(FileNotFoundError, match="other.json: no such file; make it again"):
        files.read_json(tmp_path / "other.json", Fields, "make it again")


def test_every_flipped_bit_and_every_cut_of_an_npz_is_refused_or_changes_nothing(tmp_path):
    arrays = {"a": np.random.default_rng(0).random((4, 5)), "b": np.arange(7)}
    whole, path = files.npz(arrays), tmp_path / "state.npz"
    rng = np.random.default_rng(0)
    flips = [(at, whole[at] ^ 1 << rng.integers(8)) for at in rng.integers(0, len(whole), 150)]
    damaged = [whole[:at] + bytes([byte]) + whole[at + 1 :] for at, byte in flips]
    damaged += [whole[:at] for at in rng.integers(0, len(whole), 20)]
    words: list[str] = []
    for data in damaged:
        path.write_bytes(data)
        try:
            found = files.read_npz(path, "remove it")
        except UserError as error:
            words.append(str(error))
        else:
            assert found.keys() == arrays.keys() and all((found[name] == arrays[name]).all() for name in arrays)
    assert len(words) > 100
    assert all("state.npz is damaged" in line and line.endswith("; remove it") for line in words)


def test_an_npz_with_a_name_twice_or_an_object_is_refused(tmp_path):
    path = tmp_path / "state.npz"
    buffer = io.BytesIO()
    np.save(buffer, np.array(1))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", buffer.getvalue())
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a.npy", buffer.getvalue())
    with pytest.raises(UserError, match="not whole, or has a name twice"):
        files.read_npz(path, "remove it")
    np.savez(path, a=np.array([{}], object))
    with pytest.raises(UserError, match=r"state.npz is damaged \(Object arrays cannot be loaded"):
        files.read_npz(path, "remove it")


def test_an_npy_has_its_shape_type_and_finite_numbers(tmp_path):
    path = tmp_path / "mean.npy"
    np.save(path, np.float32([[1, 2]]))
    assert files.read_npy(path, shape=(1, 2), dtype=np.float32, way_on="", finite=True).tolist() == [[1, 2]]
    for array, words in (
        (np.float32([1, 2]), r"float32 \[2\], not .* \[1, 2\]"),
        (np.float64([[1, 2]]), "float64"),
        (np.float32([[1, np.nan]]), "not finite"),
        (np.array([{}], object), "damaged"),
    ):
        np.save(path, array)
        with pytest.raises(UserError, match=rf"mean.npy .*{words}.*; prepare it again"):
            files.read_npy(path, shape=(1, 2), dtype=np.float32, way_on="prepare it again", finite=True)


@pytest.mark.parametrize(
    "use",
    [
        lambda path: files.write_atomically(path, b"x"),
        lambda path: files.save_json(path, {}),
        lambda path: files.read_json(path, dict[str, str], "make it again"),
        lambda path: files.read_npz(path, "make it again"),
        lambda path: files.read_npy(path, shape=(1,), dtype=np.float32, way_on="make it again"),
    ],
)
def test_a_folder_in_the_place_of_a_file_of_ours_is_named(tmp_path, use):
    path = tmp_path / "ours"
    path.mkdir()
    with pytest.raises(UserError, match=f"{path} is a folder, and a file of that name belongs there: move it away"):
        use(path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_in_the_place_of_a_folder_of_ours_is_named(tmp_path):
    (tmp_path / "scans").write_bytes(b"x")
    with pytest.raises(UserError, match=f"{tmp_path / 'scans'} is no folder, and one belongs there: move it away"):
        files.write_atomically(tmp_path / "scans" / "a.npz", b"x")
    with pytest.raises(UserError, match=f"{tmp_path / 'scans'}.* is no folder, and one belongs there: move it away"):
        files.write_atomically(tmp_path / "scans" / "deep" / "a.npz", b"x")


def test_a_files_name_is_another_for_every_text_and_stays_in_its_folder():
    texts = ["conv1", "a/b", "a b", "a%2Fb", "..", ".", "a:2", "Netz/Ä"]
    names = [files.file_name(text) for text in texts]
    assert len(set(names)) == len(texts) and files.file_name("conv1") == "conv1"
    assert not any("/" in name or name.startswith(".") for name in names)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("caf\u00e9 \u3000\u00a0.jpg", "caf\u00e9 \u3000\u00a0.jpg"),
        (os.fsdecode(b"caf\xe9.jpg"), r"caf\xe9.jpg"),
        ("a\nb\r.jpg", r"a\nb\r.jpg"),
        ("\x1b[31mred\u2028.jpg", r"\x1b[31mred\u2028.jpg"),
    ],
)
def test_a_name_is_shown_in_one_line_whatever_is_in_it(name, shown):
    assert files.printable(name) == shown
