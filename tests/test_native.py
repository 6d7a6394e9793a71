"""Caltech's folders and tars, VOC's devkit, TFDS's records: the same photos and labels, or an error that says why."""

import io
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
from native_sets import CALTECH, SHOWN, STRAY, VOC, WRITERS, caltech_by_tfds, devkit, voc_by_tfds, write
from photos import photo, tar_of
from tensorflow_datasets.core.file_adapters import FileFormat

from zfjax.data import pictures, transfer_sets
from zfjax.data.photo_sets import decoded, list_files, source_of, without
from zfjax.data.voc import open_voc


def test_folder_and_tar_of_caltech_are_the_same_set(tmp_path):
    folder = write(tmp_path / "native", CALTECH | STRAY)
    tar = tmp_path / "tars" / "101_ObjectCategories.tar"
    write(tmp_path, {"tars/101_ObjectCategories.tar": tar_of(STRAY | CALTECH)})
    opened = [
        transfer_sets.open_set("caltech101", path)
        for path in (folder, folder / "101_ObjectCategories", tar, tar.parent)
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
    assert transfer_sets.open_set("caltech256", folder).class_names == ("001.ak47", "257.clutter")


def test_pictures_are_the_papers_squares_and_a_part_keeps_its_order(tmp_path):
    photo_set = transfer_sets.open_set("caltech101", write(tmp_path, CALTECH))
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
        {name.replace("bass", "boat"): data for name, data in CALTECH.items()},
    ]
    opened = [transfer_sets.open_set("caltech101", write(tmp_path / str(n), files)) for n, files in enumerate(variants)]
    assert len({photo_set.fingerprint for photo_set in opened}) == 3


def test_photos_left_out_are_gone_from_labels_splits_and_fingerprint(tmp_path):
    whole = open_voc(write(tmp_path, devkit()))
    rest = without(whole, np.array([False, True, False, True, False]))
    assert [p.name for p in rest.photos] == ["2008_1.jpg", "2008_3.jpg", "2008_5.jpg"]
    assert rest.splits["train"].tolist() == [0, 1] and rest.splits["val"].tolist() == [2]
    np.testing.assert_array_equal(rest.labels, whole.labels[[0, 2, 4]])
    assert rest.fingerprint != whole.fingerprint


@pytest.mark.parametrize("below, lists", [("", True), ("", False), ("VOCdevkit", True), ("VOCdevkit/VOC2012", False)])
def test_a_devkit_by_its_lists_or_its_annotations(tmp_path, below, lists):
    write(tmp_path, devkit(lists))
    found = transfer_sets.open_set("voc2012", tmp_path / below)
    assert found.class_names == ("cat", "dog") and found.labels.dtype == np.int8
    np.testing.assert_array_equal(found.labels, np.array([SHOWN["cat"], SHOWN["dog"]]).T)
    assert found.splits["train"].tolist() == [0, 1, 2] and found.splits["val"].tolist() == [3, 4]
    assert [p.read() for p in found.photos] == [photo(n) for n in range(5)]


def test_a_devkits_tar_is_its_folder(tmp_path):
    write(
        tmp_path,
        {
            "tars/VOCtrainval.tar": tar_of(
                {name: d if isinstance(d, bytes) else d.encode() for name, d in devkit().items()}
            )
        },
    )
    write(tmp_path / "folder", devkit())
    assert open_voc(tmp_path / "tars" / "VOCtrainval.tar").fingerprint == open_voc(tmp_path / "folder").fingerprint


@pytest.mark.parametrize("file_format", list(WRITERS))
def test_sets_prepared_by_tfds_are_read_from_both_kinds_of_records(tmp_path, file_format):
    caltech_by_tfds(tmp_path, file_format)
    voc_by_tfds(tmp_path, file_format)
    for path in (tmp_path, tmp_path / "caltech101" / "3.0.1"):
        caltech = transfer_sets.open_set("caltech101", path)
        assert caltech.class_names == ("bass", "ant") and caltech.labels.tolist() == [0, 1, 0, 1, 0]
        assert [p.read() for p in caltech.photos] == [photo(n) for n in range(5)] and caltech.splits == {}
        assert caltech.photos[4].name == "image_4.jpg"
    voc = transfer_sets.open_set("voc2012", tmp_path)
    np.testing.assert_array_equal(voc.labels, np.array([SHOWN["cat"], SHOWN["dog"]]).T)
    assert voc.splits["train"].tolist() == [0, 1, 2] and voc.splits["val"].tolist() == [3, 4]
    with pytest.raises(ValueError, match="holds TFDS's 'caltech101': voc2012 is needed"):
        transfer_sets.open_set("voc2012", tmp_path / "caltech101" / "3.0.1")


def test_records_that_are_cut_short_or_gone_are_refused(tmp_path):
    caltech_by_tfds(tmp_path, FileFormat.TFRECORD)
    shard = next(tmp_path.rglob("*-test.tfrecord*"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-9])
    with pytest.raises(ValueError, match=f"{shard.name} is cut short: prepare the set again"):
        transfer_sets.open_set("caltech101", tmp_path)
    (first,) = struct.unpack("<Q", whole[:8])
    shard.write_bytes(whole[: first + 16])
    with pytest.raises(ValueError, match=f"{shard.name} holds 1 records, not 3"):
        transfer_sets.open_set("caltech101", tmp_path)
    shard.unlink()
    with pytest.raises(ValueError, match=f"{shard.name} is missing"):
        transfer_sets.open_set("caltech101", tmp_path)


def test_a_truncated_tar_is_named_wherever_it_was_cut(tmp_path):
    whole = tar_of(CALTECH)
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        ends = [member.offset_data + member.size for member in archive.getmembers()]
    for cut in (ends[1] - 100, -(-ends[1] // 512) * 512, ends[-1] + 20, 300):
        (tmp_path / "cut.tar").write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=r"cut.tar is (no complete tar|cut short).*copy or download it again"):
            transfer_sets.open_set("caltech101", tmp_path / "cut.tar")
    (tmp_path / "zipped.tar").write_bytes(b"\x1f\x8b" + bytes(600))
    with pytest.raises(ValueError, match=r"zipped.tar is compressed \(gzip\): unpack it"):
        transfer_sets.open_set("caltech101", tmp_path / "zipped.tar")


def test_a_folder_without_classes_or_with_an_empty_one_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has no class folders: <class>/.*jpg is needed"):
        transfer_sets.open_set("caltech101", write(tmp_path / "a", {"one.jpg": photo(0)}))
    folder = write(tmp_path / "b", CALTECH)
    (folder / "101_ObjectCategories" / "crab").mkdir()
    with pytest.raises(ValueError, match=r"crab has no pictures \(.jpg"):
        transfer_sets.open_set("caltech101", folder)
    with pytest.raises(FileNotFoundError, match="nowhere is neither a folder nor a tar"):
        transfer_sets.open_set("caltech101", tmp_path / "nowhere")
    with pytest.raises(ValueError, match="dataset='cifar': one of caltech101, caltech256, voc2012"):
        transfer_sets.open_set("cifar", tmp_path)


def test_another_set_is_told_apart(tmp_path):
    folder = write(tmp_path / "a", CALTECH)
    with pytest.raises(ValueError, match="holds 101_ObjectCategories, which is caltech101, not caltech256"):
        transfer_sets.open_set("caltech256", folder)
    with pytest.raises(ValueError, match="the class 'BACKGROUND_Google', which is not a name of caltech256"):
        transfer_sets.open_set("caltech256", folder / "101_ObjectCategories")
    with pytest.raises(ValueError, match="the class '056.dog', which is not a name of caltech101"):
        transfer_sets.open_set("caltech101", write(tmp_path / "b", {"056.dog/a.jpg": photo(0)}))
    with pytest.raises(ValueError, match="has no VOCdevkit/VOC2012/ImageSets/Main/train.txt: is it VOC 2012?"):
        transfer_sets.open_set("voc2012", folder)


@pytest.mark.parametrize(
    "changed, message",
    [
        (
            {"ImageSets/Main/cat_val.txt": "2008_4 -1\n2007_9 1"},
            "cat_val.txt does not list the photos of val.txt .2007_9",
        ),
        ({"ImageSets/Main/cat_val.txt": "2008_4 -1\n2008_5 2"}, "cat_val.txt gives 2008_5 the label '2': 1, -1 or 0"),
        ({"ImageSets/Main/dog_val.txt": None}, "VOC2012/ImageSets/Main/dog_val.txt is missing"),
        ({"ImageSets/Main/val.txt": None}, "VOC2012/ImageSets/Main/val.txt is missing"),
        ({"JPEGImages/2008_3.jpg": None}, "VOC2012/JPEGImages/2008_3.jpg is missing"),
    ],
)
def test_a_devkit_that_lacks_something_names_it(tmp_path, changed, message):
    files = devkit() | {f"{VOC}/{name}": data for name, data in changed.items()}
    write(tmp_path, {name: data for name, data in files.items() if data is not None})
    with pytest.raises(ValueError, match=message):
        open_voc(tmp_path)


def test_a_devkit_without_any_class_is_refused(tmp_path):
    files = {name: "<annotation/>" if name.endswith("xml") else data for name, data in devkit(False).items()}
    with pytest.raises(ValueError, match="has no classes: neither ImageSets/Main/<class>_train.txt nor objects"):
        open_voc(write(tmp_path, files))


def test_a_broken_photo_is_named_when_it_is_read(tmp_path):
    files = CALTECH | {"101_ObjectCategories/bass/image_0001.JPG": b"no picture"}
    source = source_of(transfer_sets.open_set("caltech101", write(tmp_path, files)), 12)
    with pytest.raises(ValueError, match="bass/image_0001.JPG: no readable picture"):
        source[3]


def test_files_are_listed_by_path_without_hidden_ones(tmp_path):
    write(tmp_path / "f", {"b/two.txt": "2", "a.txt": "1", ".git/x": "3", "b/.y": "4"})
    (tmp_path / "t.tar").write_bytes(tar_of({"./b/two.txt": b"2", "a.txt": b"1", ".git/x": b"3", "b/.y": b"4"}))
    for root in (tmp_path / "f", tmp_path / "t.tar"):
        found = list_files(Path(root))
        assert {name: file.read() for name, file in found.items()} == {"a.txt": b"1", "b/two.txt": b"2"}
        assert list(found) == ["a.txt", "b/two.txt"]
