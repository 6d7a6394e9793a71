"""VOC 2012's devkit: labels by its lists or its annotations, or an error that names the file that is wrong."""

import numpy as np
import pytest
from native_sets import CALTECH, SHOWN, VOC, devkit, write
from tiny_photos import photo, tar_of

from zfjax.data import tfds_sets
from zfjax.data.voc import open_voc


@pytest.mark.parametrize(
    ("below", "lists"), [("", True), ("", False), ("VOCdevkit", True), ("VOCdevkit/VOC2012", False)]
)
def test_a_devkit_by_its_lists_or_its_annotations(tmp_path, below, lists):
    write(tmp_path, devkit(lists))
    found = tfds_sets.open_set("voc2012", tmp_path / below)
    assert found.class_names == ("cat", "dog") and found.labels.dtype == np.int8
    np.testing.assert_array_equal(found.labels, np.array([SHOWN["cat"], SHOWN["dog"]]).T)
    assert found.per_class() == [SHOWN["cat"].count(1), SHOWN["dog"].count(1)]  # difficult ones (0) do not count
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


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"ImageSets/Main/cat_val.txt": "2008_4 -1\n2007_9 1"},
            "cat_val.txt does not list the photos of val.txt .2007_9",
        ),
        ({"ImageSets/Main/cat_val.txt": "2008_4 -1\n2008_5 2"}, "cat_val.txt gives 2008_5 the label '2': 1, -1 or 0"),
        (
            {"ImageSets/Main/cat_val.txt": "2008_4 -1\n2008_5 1\n2008_4 1"},
            r"cat_val.txt does not list the photos of val.txt \(2008_4\), each once",
        ),
        ({"ImageSets/Main/cat_val.txt": "2008_4 -1\n2008_5"}, "cat_val.txt gives 2008_5 the label '': 1, -1 or 0"),
        ({"ImageSets/Main/dog_train.txt": None}, "VOC2012/ImageSets/Main/dog_train.txt is missing"),
        (
            {"ImageSets/Main/dog_train.txt": None, "ImageSets/Main/dog_val.txt": None},
            "VOC2012/ImageSets/Main/dog_train.txt is missing",
        ),
        ({"ImageSets/Main/train.txt": "\n"}, "VOC2012/ImageSets/Main/train.txt lists no photo"),
        ({"ImageSets/Main/val.txt": ""}, "VOC2012/ImageSets/Main/val.txt lists no photo"),
        ({"ImageSets/Main/train.txt": "2008_1\n2008_2\n2008_1"}, "Main/train.txt lists 2008_1 again: .* once"),
        ({"ImageSets/Main/val.txt": "2008_4\n2008_3"}, "Main/val.txt lists 2008_3 again: .* in train or in val"),
        (
            {"ImageSets/Main/val.txt": b"2008_4\xff"},
            "VOC2012/ImageSets/Main/val.txt is damaged .*utf-8.*unpack it again",
        ),
        ({"ImageSets/Main/dog_val.txt": b"\xfe"}, "VOC2012/ImageSets/Main/dog_val.txt is damaged"),
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


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ("<annotation><object>", "Annotations/2008_2.xml is damaged .no element found.*unpack it again"),
        (b"", "Annotations/2008_2.xml is damaged"),
        ("<?xml version='1.0' encoding='none'?><a/>", "Annotations/2008_2.xml is damaged .unknown encoding"),
        ("<?xml version='1.0' encoding='utf-32'?><a/>", "Annotations/2008_2.xml is damaged .multi-byte encodings"),
        ("<annotation><object/></annotation>", "Annotations/2008_2.xml has an object without a name"),
        (None, "Annotations/2008_2.xml is missing"),
    ],
)
def test_a_damaged_annotation_is_named(tmp_path, annotation, message):
    files = devkit(False) | {f"{VOC}/Annotations/2008_2.xml": annotation}
    write(tmp_path, {name: data for name, data in files.items() if data is not None})
    with pytest.raises(ValueError, match=f"VOC2012/{message}"):
        open_voc(tmp_path)


def test_voc_of_another_year_is_refused_whatever_its_folder_is_called(tmp_path):
    with pytest.raises(ValueError, match="has no VOCdevkit/VOC2012/ImageSets/Main/train.txt: is it VOC 2012?"):
        tfds_sets.open_set("voc2012", write(tmp_path / "caltech", CALTECH))
    early = {name.replace("VOC2012", "VOC2007"): data for name, data in devkit().items()}
    with pytest.raises(ValueError, match="has no VOCdevkit/VOC2012/ImageSets/Main/train.txt"):
        open_voc(write(tmp_path / "early", early))
    numbered = {
        name.replace("2008_", "00000"): data if isinstance(data, bytes) else data.replace("2008_", "00000")
        for name, data in early.items()
    }
    root = write(tmp_path / "numbered", numbered) / "VOCdevkit" / "VOC2007"
    with pytest.raises(ValueError, match="train.txt lists '000001', not <year>_<number> as in .*: is it VOC 2007?"):
        open_voc(root)
    of_year = "<annotation><folder>{}</folder></annotation>"
    open_voc(write(tmp_path / "right", devkit() | {f"{VOC}/Annotations/2008_1.xml": of_year.format("VOC2012")}))
    with pytest.raises(ValueError, match="Annotations/2008_1.xml is of VOC2010: VOC2012 is needed"):
        open_voc(write(tmp_path / "later", devkit() | {f"{VOC}/Annotations/2008_1.xml": of_year.format("VOC2010")}))
