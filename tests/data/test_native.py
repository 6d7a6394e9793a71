"""Caltech's folders and tars, TFDS's records: the same photos and labels, or an error that says why."""

import importlib.resources
import io
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
from native_sets import CALTECH, SHOWN, STRAY, WRITERS, caltech_by_tfds, devkit, voc_by_tfds, write
from tensorflow_datasets.core.file_adapters import FileFormat
from tiny_photos import photo, tar_of

from zfjax.data import caltech, pictures, tfds_sets
from zfjax.data.photo_sets import decoded, list_files, source_of, without
from zfjax.data.voc import open_voc
from zfjax.errors import UserError


def test_folder_and_tar_of_caltech_are_the_same_set(tmp_path):
    folder = write(tmp_path / "native", CALTECH | STRAY)
    tar = tmp_path / "tars" / "101_ObjectCategories.tar"
    write(tmp_path, {"tars/101_ObjectCategories.tar": tar_of(STRAY | CALTECH)})
    opened = [
        tfds_sets.open_set("caltech101", path) for path in (folder, folder / "101_ObjectCategories", tar, tar.parent)
    ]
    for photo_set in opened:
        assert photo_set.class_names == ("BACKGROUND_Google", "ant", "bass")
        assert photo_set.labels.tolist() == [0, 1, 1, 2] and photo_set.labels.dtype == np.int32
        assert [p.read() for p in photo_set.photos] == [photo(3), photo(1), photo(2), photo(4)]
        assert photo_set.splits == {}
    assert len({photo_set.fingerprint for photo_set in opened}) == 1


def test_caltech256_keeps_its_numbered_names(tmp_path):
    folder = write(
        tmp_path, {"256_ObjectCategories/257.clutter/a.jpg": photo(0), "256_ObjectCategories/001.ak47/b.jpg": photo(1)}
    )
    assert tfds_sets.open_set("caltech256", folder).class_names == ("001.ak47", "257.clutter")


def test_pictures_are_the_papers_squares_and_a_part_keeps_its_order(tmp_path):
    photo_set = tfds_sets.open_set("caltech101", write(tmp_path, CALTECH))
    source = source_of(photo_set, 12, np.array([3, 1]))
    assert source[0]["label"] == 2 and source[1]["label"] == 1 and source[1]["index"] == 1
    np.testing.assert_array_equal(source[1]["image"], pictures.preprocess(photo(1), 12))
    held = decoded(source, threads=2)
    for index in range(2):
        np.testing.assert_array_equal(held[index]["image"], source[index]["image"])
        assert held[index]["label"] == source[index]["label"]


def test_the_fingerprint_changes_with_a_photo_and_with_a_name(tmp_path):
    variants = [
        CALTECH,
        CALTECH | {"101_ObjectCategories/bass/image_0001.JPG": photo(5)},
        {name.replace("bass", "beaver"): data for name, data in CALTECH.items()},
    ]
    opened = [tfds_sets.open_set("caltech101", write(tmp_path / str(n), files)) for n, files in enumerate(variants)]
    assert len({photo_set.fingerprint for photo_set in opened}) == 3


def test_photos_left_out_are_gone_from_labels_splits_and_fingerprint(tmp_path):
    whole = open_voc(write(tmp_path, devkit()))
    rest = without(whole, np.array([False, True, False, True, False]))
    assert [p.name for p in rest.photos] == ["2008_1.jpg", "2008_3.jpg", "2008_5.jpg"]
    assert rest.splits["train"].tolist() == [0, 1] and rest.splits["val"].tolist() == [2]
    np.testing.assert_array_equal(rest.labels, whole.labels[[0, 2, 4]])
    assert rest.fingerprint != whole.fingerprint


@pytest.mark.parametrize("file_format", list(WRITERS))
def test_sets_prepared_by_tfds_are_read_from_both_kinds_of_records(tmp_path, file_format):
    caltech_by_tfds(tmp_path, file_format)
    voc_by_tfds(tmp_path, file_format)
    for path in (tmp_path, tmp_path / "caltech101" / "3.0.1"):
        caltech = tfds_sets.open_set("caltech101", path)
        assert caltech.class_names == ("bass", "ant") and caltech.labels.tolist() == [0, 1, 0, 1, 0]
        assert [p.read() for p in caltech.photos] == [photo(n) for n in range(5)] and caltech.splits == {}
        assert caltech.photos[4].name == "image_4.jpg"
    voc = tfds_sets.open_set("voc2012", tmp_path)
    np.testing.assert_array_equal(voc.labels, np.array([SHOWN["cat"], SHOWN["dog"]]).T)
    assert voc.splits["train"].tolist() == [0, 1, 2] and voc.splits["val"].tolist() == [3, 4]
    with pytest.raises(ValueError, match="holds TFDS's 'caltech101': voc2012 is needed"):
        tfds_sets.open_set("voc2012", tmp_path / "caltech101" / "3.0.1")


@pytest.mark.parametrize("file_format", list(WRITERS))
def test_records_of_no_class_are_refused(tmp_path, file_format):
    caltech_by_tfds(tmp_path, file_format, last_label=-1)
    with pytest.raises(UserError, match="-test.*has no name or label in record 2: prepare the set again"):
        tfds_sets.open_set("caltech101", tmp_path)


def test_records_that_are_cut_short_or_gone_are_refused(tmp_path):
    caltech_by_tfds(tmp_path, FileFormat.TFRECORD)
    shard = next(tmp_path.rglob("*-test.tfrecord*"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-9])
    with pytest.raises(ValueError, match=f"{shard.name} is cut short: prepare the set again"):
        tfds_sets.open_set("caltech101", tmp_path)
    (first,) = struct.unpack("<Q", whole[:8])
    shard.write_bytes(whole[: first + 16])
    with pytest.raises(ValueError, match=f"{shard.name} holds 1 records, not 3"):
        tfds_sets.open_set("caltech101", tmp_path)
    shard.unlink()
    with pytest.raises(ValueError, match=f"{shard.name} is missing"):
        tfds_sets.open_set("caltech101", tmp_path)


def test_a_truncated_tar_is_named_wherever_it_was_cut(tmp_path):
    whole = tar_of(CALTECH)
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        ends = [member.offset_data + member.size for member in archive.getmembers()]
    for cut in (ends[1] - 100, -(-ends[1] // 512) * 512, ends[-1] + 20, 300):
        (tmp_path / "cut.tar").write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=r"cut.tar is (no complete tar|cut short).*copy or download it again"):
            tfds_sets.open_set("caltech101", tmp_path / "cut.tar")
    (tmp_path / "zipped.tar").write_bytes(b"\x1f\x8b" + bytes(600))
    with pytest.raises(ValueError, match=r"zipped.tar is compressed \(gzip\): unpack it"):
        tfds_sets.open_set("caltech101", tmp_path / "zipped.tar")


def test_a_folder_without_classes_or_with_an_empty_one_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has no class folders: <class>/.*jpg is needed"):
        tfds_sets.open_set("caltech101", write(tmp_path / "a", {"one.jpg": photo(0)}))
    folder = write(tmp_path / "b", CALTECH)
    (folder / "101_ObjectCategories" / "crab").mkdir()
    with pytest.raises(ValueError, match=r"crab has no pictures \(.jpg"):
        tfds_sets.open_set("caltech101", folder)
    with pytest.raises(FileNotFoundError, match="images=.*nowhere': no such folder or tar; name the one that holds"):
        tfds_sets.open_set("caltech101", tmp_path / "nowhere")
    with pytest.raises(ValueError, match="dataset='cifar': one of caltech101, caltech256, voc2012"):
        tfds_sets.open_set("cifar", tmp_path)


def test_another_set_is_told_apart(tmp_path):
    folder = write(tmp_path / "a", CALTECH)
    with pytest.raises(ValueError, match="holds 101_ObjectCategories, which is caltech101, not caltech256"):
        tfds_sets.open_set("caltech256", folder)
    with pytest.raises(ValueError, match="the class 'BACKGROUND_Google', which is not a name of caltech256"):
        tfds_sets.open_set("caltech256", folder / "101_ObjectCategories")
    with pytest.raises(ValueError, match="the class '056.dog', which is not a name of caltech101"):
        tfds_sets.open_set("caltech101", write(tmp_path / "b", {"056.dog/a.jpg": photo(0)}))
    for own in ("256_ObjectCategories/000.dog", "256_ObjectCategories/258.dog", "256_ObjectCategories/dog"):
        with pytest.raises(ValueError, match=f"the class '{own[21:]}', which is not a name of caltech256"):
            tfds_sets.open_set("caltech256", write(tmp_path / own[21:], {f"{own}/a.jpg": photo(0)}))
    synsets = {f"{name}/a.jpg": photo(0) for name in ("ant", "n01440764", "n01443537")}
    with pytest.raises(ValueError, match="the class 'n01440764', which is not a name of caltech101: is it another set"):
        tfds_sets.open_set("caltech101", write(tmp_path / "synsets", synsets))
    for twice, name in (({"faces", "Faces", "ant"}, "caltech101"), ({"056.dog", "056.cat", "001.ak47"}, "caltech256")):
        files = {f"{folder}/a.jpg": photo(0) for folder in twice}
        with pytest.raises(ValueError, match="holds two folders of the class '(faces|056)': one is needed"):
            tfds_sets.open_set(name, write(tmp_path / f"twice {name}", files))
    with pytest.raises(ValueError, match="holds the class 'ant' alone: at least two are needed to tell them apart"):
        tfds_sets.open_set("caltech101", write(tmp_path / "one", {"ant/a.jpg": photo(0)}))


def test_caltech101_has_its_102_folders_in_capitals_or_small_letters(tmp_path):
    bundled = importlib.resources.files("tensorflow_datasets") / "image_classification" / "caltech101_labels.txt"
    assert sorted(name.lower() for name in caltech.CALTECH101) == sorted(bundled.read_text().split())
    small = {name.lower(): data for name, data in CALTECH.items()}
    folder = write(tmp_path, {name.replace("101_objectcategories", "small"): data for name, data in small.items()})
    assert tfds_sets.open_set("caltech101", folder / "small").class_names == ("ant", "background_google", "bass")


def test_links_are_followed_and_one_that_leads_nowhere_is_named(tmp_path):
    folder = write(tmp_path / "set", CALTECH)
    whole = tfds_sets.open_set("caltech101", folder)
    own = folder / "101_ObjectCategories"
    (own / "ant").rename(tmp_path / "elsewhere")
    (own / "ant").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (own / "bass" / "back").symlink_to(own, target_is_directory=True)  # would never end
    (own / "bass" / ".#image_0001.jpg").symlink_to(tmp_path / "an_editors_lock")
    linked = tfds_sets.open_set("caltech101", folder)
    assert linked.fingerprint == whole.fingerprint and linked.labels.tolist() == [0, 1, 1, 2]
    (tmp_path / "elsewhere").rename(tmp_path / "away")
    with pytest.raises(ValueError, match="ant is a link to nothing: what it pointed to is gone"):
        tfds_sets.open_set("caltech101", folder)


def test_a_broken_photo_is_named_when_it_is_read(tmp_path):
    files = CALTECH | {"101_ObjectCategories/bass/image_0001.JPG": b"no picture"}
    source = source_of(tfds_sets.open_set("caltech101", write(tmp_path, files)), 12)
    with pytest.raises(ValueError, match="bass/image_0001.JPG: no readable picture"):
        source[3]


def test_files_are_listed_by_path_without_hidden_ones(tmp_path):
    write(tmp_path / "f", {"b/two.txt": "2", "a.txt": "1", ".git/x": "3", "b/.y": "4"})
    (tmp_path / "t.tar").write_bytes(tar_of({"./b/two.txt": b"2", "a.txt": b"1", ".git/x": b"3", "b/.y": b"4"}))
    for root in (tmp_path / "f", tmp_path / "t.tar"):
        found = list_files(Path(root))
        assert {name: file.read() for name, file in found.items()} == {"a.txt": b"1", "b/two.txt": b"2"}
        assert list(found) == ["a.txt", "b/two.txt"]
