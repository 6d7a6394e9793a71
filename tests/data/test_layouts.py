"""What people have as ImageNet: every form is read as the official tars are, and what is not read is told."""

import gzip
import io
import os
import shutil
import sys
import tarfile
from functools import partial

import pytest
import tensorflow_datasets as tfds
from native_sets import prepared_by_tfds
from tensorflow_datasets.core.file_adapters import FileFormat
from tiny_photos import (
    OFFICIAL,
    SIZE,
    SYNSETS,
    TRAIN,
    VAL,
    VALIDATION,
    photo,
    prepare,
    tar_of,
    write_folders,
    write_tars,
)

from experiments import prepare_imagenet
from zfjax.data import archives, folder, imagenet, sets
from zfjax.data.imagenet import open_imagenet
from zfjax.data.photo_sets import list_files
from zfjax.errors import UserError


@pytest.fixture(scope="module")
def fingerprint(tmp_path_factory):
    root = tmp_path_factory.mktemp("tars")
    return prepare(write_tars(root / "source"), root)["fingerprint"]


def flatten(val):
    for path in list(val.glob("*/*")):
        path.rename(val / path.name)
        if not any(path.parent.iterdir()):
            path.parent.rmdir()


def kaggle(root):
    inside = root / "ILSVRC" / "Data" / "CLS-LOC"
    inside.mkdir(parents=True)
    write_folders(inside)
    flatten(inside / "val")
    (inside / "test").mkdir()
    (root / "ILSVRC" / "ImageSets").mkdir()


def flat_val(root):
    flatten(write_folders(root) / "val")


def renamed(name):
    return lambda root: (write_folders(root) / "val").rename(root / name)


def with_files_of_systems(root):
    write_folders(root)
    for name in (".DS_Store", "Thumbs.db", "train/.DS_Store", "val/n01440764/._1.JPEG", "train/n01440764/desktop.ini"):
        (root / name).write_bytes(b"\0")
    for name in ("train/@eaDir", "val/__MACOSX", "train/n01443537/@eaDir"):
        (root / name).mkdir()
        (root / name / "a.JPEG").write_bytes(b"\0")


def by_tfds(root, **splits):
    features = {
        "image": tfds.features.Image(),
        "label": tfds.features.ClassLabel(names=(OFFICIAL / "labels.txt").read_text().split()),
        "file_name": tfds.features.Text(),
    }
    train = [{"image": data, "label": s, "file_name": name} for s, of in TRAIN.items() for name, data in of.items()]
    val = [{"image": data, "label": VALIDATION[int(n[15:23]) - 1], "file_name": n} for n, data in VAL.items()]
    examples = {"train": train, "validation": val, **splits}
    prepared_by_tfds(root, "imagenet2012", features, examples, FileFormat.ARRAY_RECORD)


@pytest.mark.parametrize(
    "write", [kaggle, flat_val, renamed("validation"), renamed("valid"), with_files_of_systems, by_tfds]
)
def test_every_layout_gives_the_set_of_the_tars(tmp_path, fingerprint, write):
    source = tmp_path / "source"
    source.mkdir()
    write(source)
    assert prepare(source, tmp_path)["fingerprint"] == fingerprint


def test_records_and_versions_of_tfds_beside_those_that_are_read_are_counted(tmp_path, fingerprint):
    by_tfds(tmp_path, test=[{"image": photo(0), "label": -1, "file_name": "test_1.JPEG"}])
    (folder,) = (tmp_path / "imagenet2012").iterdir()
    for other in ("2.9.0", "10.0.0.incompleteA"):
        shutil.copytree(folder, folder.with_name(other))
    folder.rename(folder.with_name("2.10.0"))
    facts = prepare(tmp_path, tmp_path / "out")
    assert facts["fingerprint"] == fingerprint
    assert facts["left_out"]["records of other splits"] == {"count": 1, "first": ["test 0"]}
    first = facts["left_out"]["other files beside the splits"]["first"]
    assert first[0] == "imagenet2012/10.0.0.incompleteA/dataset_info.json"


@pytest.mark.parametrize(
    ("label", "name", "words"),
    [
        (-1, "ILSVRC2012_val_00000009.JPEG", "has no name or label in record 0"),
        (0, "again.JPEG", "imagenet2012-validation.* holds n01440764/again.JPEG twice"),
    ],
)
def test_records_of_no_class_and_records_given_twice_are_refused(tmp_path, label, name, words):
    row = {"image": photo(0), "label": 0, "file_name": "again.JPEG"}
    by_tfds(tmp_path, validation=[{**row, "label": label, "file_name": name}, row])
    with pytest.raises(UserError, match=words):
        prepare(tmp_path, tmp_path / "out")


def test_folders_beside_records_of_tfds_are_refused(tmp_path):
    by_tfds(tmp_path)
    write_folders(tmp_path)
    with pytest.raises(UserError, match="holds both .*imagenet2012.* and .*train: leave only one of them there"):
        prepare(tmp_path, tmp_path / "out")


def test_official_validation_is_found_in_every_layout_too(tmp_path):
    kaggle(tmp_path)
    opened = sets.official_validation(str(tmp_path), 16, 3)
    assert len(opened.validation) == 5 and {int(opened.validation[i]["label"]) for i in range(5)} == {0, 1}


@pytest.mark.parametrize("flat", [False, True])
def test_a_share_of_each_class_is_held_out_where_there_is_no_split(tmp_path, flat):
    source = tmp_path / "pets"
    for kind in ("cat", "great_dane"):
        for number in range(10):
            path = source / ("" if flat else kind) / f"{kind}_{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(photo(number + 50 * len(kind)))
    with pytest.raises(FileNotFoundError, match="with --val-share 0.1 class folders <class>/\\*.jpg will do"):
        prepare(source, tmp_path)
    facts = prepare(source, tmp_path, val_share=0.2)
    assert facts["counts"] == {"train": 16, "validation": 4} and facts["class_names"] == ["cat", "great_dane"]
    opened = open_imagenet(tmp_path)
    names = [{split.name(i) for i in range(len(split))} for split in (opened.train, opened.validation)]
    assert not names[0] & names[1] and len(names[0] | names[1]) == 20
    assert sum(name.startswith("cat/") for name in names[1]) == 2
    for share in (0, 1, -0.5):
        with pytest.raises(UserError, match="a share between 0 and 1 is needed"):
            prepare(source, tmp_path / "other", val_share=share)
    (source / "Testing").mkdir()
    with pytest.raises(UserError, match="Testing seems to be a split and no class: move it away, or rename it"):
        prepare(source, tmp_path / "other", val_share=0.2)
    with pytest.raises(UserError, match="there is a validation split already"):
        prepare(write_folders(tmp_path / "both"), tmp_path / "other", val_share=0.2)


def test_what_is_not_read_is_counted_by_reason_and_told(tmp_path, monkeypatch, capsys):
    source = write_folders(tmp_path / "source")
    of_class = source / "train" / SYNSETS[0]
    (of_class / "deeper").mkdir()
    for name in ("deeper/1.JPEG", "notes.txt", "without_ending"):
        (of_class / name).write_bytes(photo(1))
    (of_class / "gone.JPEG").symlink_to(tmp_path / "nowhere")
    (of_class / "again").symlink_to(of_class)
    os.mkfifo(of_class / "pipe.JPEG")
    (of_class / "copy.JPEG").write_bytes(TRAIN[SYNSETS[0]][f"{SYNSETS[0]}_0.JPEG"])
    (source / "val" / "ILSVRC2012_val_00000009.JPEG").write_bytes(photo(1))
    (source / "val" / ".DS_Store").write_bytes(b"\0")
    monkeypatch.setattr(
        sys, "argv", ["x", "--source", str(source), "--data-dir", str(tmp_path), "--size", "16", "--workers", "1"]
    )
    prepare_imagenet.main()
    facts = imagenet.read_facts(imagenet.set_folder(tmp_path, SIZE))
    assert {reason: entry["count"] for reason, entry in facts["left_out"].items()} == {
        "pictures in folders within a class": 1,
        "files without the ending of a picture": 2,
        "links to nothing": 1,
        "links back to a folder above": 1,
        "neither files nor folders": 1,
        "pictures beside the class folders": 1,
        "hidden files": 1,
    }
    assert facts["left_out"]["pictures beside the class folders"]["first"] == ["val/ILSVRC2012_val_00000009.JPEG"]
    pair = [f"train/{SYNSETS[0]}/copy.JPEG", f"train/{SYNSETS[0]}/{SYNSETS[0]}_0.JPEG"]
    assert facts["equal"] == {"count": 1, "first": [pair]} and facts["counts"]["train"] == 9
    printed = capsys.readouterr().out
    assert printed.startswith(f"train: {source}/train\nvalidation: {source}/val\n")
    assert "1 links to nothing (train/n01443537/gone.JPEG)" in printed and " = ".join(pair) in printed


def test_a_split_that_is_a_link_is_read_and_not_counted_as_left_out(tmp_path, fingerprint):
    source = tmp_path / "source"
    inside = write_folders(source) / "inside"
    inside.mkdir()
    (source / "train").rename(inside / "first")
    (source / "train").symlink_to(inside / "first")
    (source / "val").rename(tmp_path / "second")
    (source / "val").symlink_to(tmp_path / "second")
    facts = prepare(source, tmp_path)
    assert facts["fingerprint"] == fingerprint and facts["left_out"] == {}


def test_what_lies_beside_the_splits_is_counted_too(tmp_path):
    source = write_folders(tmp_path)
    names = ["loose.jpg", "classx/1.jpg", "classx/deep/2.png", "LOC_val_solution.csv", ".cache/3.jpg", ".cache/4.jpg"]
    names.append(".snapshot/monday/1.jpg")  # of a disk: what lies deeper is not looked for
    for name in names:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(photo(1))
    (source / "gone.jpg").symlink_to(tmp_path / "nowhere")
    (source / "train" / ".a").mkdir()
    (source / "train" / ".a" / "5.jpg").write_bytes(photo(1))
    left_out = prepare(source, tmp_path)["left_out"]
    assert {reason: entry["count"] for reason, entry in left_out.items()} == {
        "pictures beside the splits": 3,
        "other files beside the splits": 1,
        "hidden files": 4,
        "links to nothing": 1,
    }
    assert left_out["pictures beside the splits"]["first"] == ["classx/1.jpg", "classx/deep/2.png", "loose.jpg"]
    assert left_out["hidden files"]["first"] == ["train/.a/5.jpg", ".cache/3.jpg", ".cache/4.jpg", ".snapshot"]


zipped = partial(gzip.compress, mtime=0)  # a time in it would be one in the names of tests
GZIP, ZSTD = zipped(b"x"), b"\x28\xb5\x2f\xfd" + bytes(600)


@pytest.mark.parametrize(
    ("missing", "name", "data", "words"),
    [
        ("val", "ILSVRC2012_img_val.tar.gz", GZIP, r"is compressed \(gzip\): unpack it.*the validation split"),
        ("val", "ILSVRC2012_img_val.tar.part", b"", "is no finished download: finish it"),
        ("val", "ILSVRC2012_img_val.tar.zst", ZSTD, r"is compressed \(zstd\)"),
        ("val", "val.zip", b"PK\x03\x04", r"is compressed \(zip\)"),
        ("val", "val.tar", bytes(512), "has another name than the official tar's"),
        (
            "val",
            "validate/a/1.jpg",
            b"x",
            "the validation split, which is called val/, validation/, valid/: rename",
        ),
        ("val", "Val/a/1.jpg", b"x", "seems to be the validation split"),
        ("train", "training/a/1.jpg", b"x", "seems to be the train split, which is called train/"),
        ("train", "ILSVRC2012_img_train.tar.crdownload", b"x", "is no finished download"),
    ],
)
def test_a_split_under_a_name_that_is_not_read_is_told(tmp_path, missing, name, data, words):
    source = write_folders(tmp_path / "source")
    shutil.rmtree(source / missing)
    (source / name).parent.mkdir(parents=True, exist_ok=True)
    (source / name).write_bytes(data)
    with pytest.raises(UserError, match=words):
        prepare(source, tmp_path)


@pytest.mark.parametrize("ending", [".jfif", ".jpe", ".JPG", ".avif", ".ppm"])
def test_pictures_of_every_ending_are_read(tmp_path, ending):
    for kind in "ab":
        (tmp_path / "train" / kind).mkdir(parents=True)
        (tmp_path / "train" / kind / f"1{ending}").write_bytes(photo(ord(kind)))
    assert prepare(tmp_path, tmp_path)["counts"] == {"train": 2}


def dangling_class(root):
    (write_folders(root) / "train" / "n01530575").symlink_to(root / "nowhere")


def dangling_split(root):
    (write_folders(root) / "val").rename(root.parent / "elsewhere")
    (root / "val").symlink_to(root / "gone")


def dangling_tar(root):
    write_tars(root)
    (root / archives.TARS["train"]).unlink()
    (root / archives.TARS["train"]).symlink_to("gone.tar")


def empty_class(root):
    (write_folders(root) / "train" / "n01530575").mkdir()


def undecodable_class(root):
    (write_folders(root) / "train" / "n01530575").mkdir()
    (root / "train" / "n01530575" / "1.JPEG").write_bytes(b"x")


def undecodable_validation(root):
    for path in (write_folders(root) / "val" / SYNSETS[0]).iterdir():
        path.write_bytes(b"x")


def one_class(root):
    write_tars(root, train={SYNSETS[0]: TRAIN[SYNSETS[0]]}, val={}).joinpath(archives.TARS["validation"]).unlink()


def not_utf8(root):
    path = os.fsencode(write_folders(root) / "train" / SYNSETS[0]) + b"/caf\xe9.JPEG"
    with open(path, "wb") as file:
        file.write(photo(1))


def val_and_validation(root):
    write_folders(root)
    (root / "validation" / "a").mkdir(parents=True)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (dangling_class, "n01530575 is a link to nothing: a whole class would be missing"),
        (dangling_split, "val is a link to nothing: the validation split would be missing; mend or remove it"),
        (dangling_tar, "train.tar is a link to nothing: the train split would be missing; mend or remove it"),
        (empty_class, r"n01530575 has no pictures .*: put some there, or remove it"),
        (undecodable_class, "no train photo of class n01530575 can be decoded"),
        (undecodable_validation, f"no validation photo of class {SYNSETS[0]} can be decoded"),
        (one_class, "holds one class alone, n01443537"),
        (not_utf8, r"caf\\xe9.JPEG.*the name is not UTF-8"),
        (val_and_validation, "holds both val/ and validation/"),
    ],
)
def test_a_source_that_would_lose_something_is_refused(tmp_path, write, words):
    (tmp_path / "source").mkdir()
    write(tmp_path / "source")
    with pytest.raises(UserError, match=words.replace("\\\\", r"\\")):
        prepare(tmp_path / "source", tmp_path, skip_bad=True)


def with_links(kind):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in TRAIN[SYNSETS[0]].items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo("second.JPEG")
        link.type, link.linkname = kind, f"{SYNSETS[0]}_0.JPEG"
        archive.addfile(link)
    return buffer.getvalue()


def twice(files):
    """A tar in which every name stands twice."""
    one = tar_of(files)
    with tarfile.open(fileobj=io.BytesIO(one)) as archive:
        archive.getmembers()
        return one[: archive.offset] + one


CLASS = {s: tar_of(files) for s, files in TRAIN.items()}


def outer(**changed):
    return tar_of({f"{s}.tar": tar for s, tar in {**CLASS, **changed}.items()})


@pytest.mark.parametrize(
    ("tar", "words"),
    [
        (outer(n01443537=with_links(tarfile.SYMTYPE)), r"\(n01443537.tar\) holds the link second.JPEG"),
        (outer(n01443537=with_links(tarfile.LNKTYPE)), r"\(n01443537.tar\) holds the link second.JPEG"),
        (outer(n01443537=twice(TRAIN[SYNSETS[0]])), r"\(n01443537.tar\) holds n01443537_\d.JPEG 2 times"),
        (twice({f"{s}.tar": tar for s, tar in CLASS.items()}), "holds n0144.* 2 times"),
        (outer(n01530575=tar_of({})), r"\(n01530575.tar\) holds no photo"),
        (outer(n01443537=zipped(CLASS["n01443537"])), r"\(n01443537.tar\) is compressed \(gzip\): unpack it"),
        (zipped(outer()), r"train.tar is compressed \(gzip\): unpack it"),
        (outer() + outer(), "goes on after its end"),
        (ZSTD, r"train.tar is compressed \(zstd\)"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(600), r"train.tar is compressed \(7z\)"),
        (b"<!DOCTYPE html><html>sign in</html>", "train.tar is a web page and no tar: the download needs an account"),
        (b"", "train.tar is empty"),
    ],
)
def test_tars_that_hold_less_or_more_than_they_seem_to_are_refused(tmp_path, tar, words):
    (tmp_path / archives.TARS["train"]).write_bytes(tar)
    with pytest.raises(UserError, match=words):
        prepare(tmp_path, tmp_path)


def test_a_tar_with_one_block_at_its_end_is_whole_and_hidden_members_are_counted(tmp_path):
    tar = tar_of({**{f"{s}.tar": of for s, of in CLASS.items()}, "._n01440764.tar": b"\0", "__MACOSX/a.tar": b"\0"})
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        archive.getmembers()
        (tmp_path / archives.TARS["train"]).write_bytes(tar[: archive.offset + 512])
    facts = prepare(tmp_path, tmp_path)
    assert facts["counts"] == {"train": 8} and facts["left_out"]["hidden files"]["count"] == 2


def sparse():
    """A class tar as `tar --sparse` writes it: of a photo with a hole the rest alone, and a map of the hole."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("a.JPEG")
        member.size, member.pax_headers = 20, {"GNU.sparse.map": "0,20,2000,0", "GNU.sparse.size": "2000"}
        archive.addfile(member, io.BytesIO(photo(0)))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("tar", "words"),
    [
        (sparse(), r"\(n01443537.tar\) holds a.JPEG with its holes left out: make it anew without tar's --sparse"),
        (tar_of({"a.JPEG": photo(0), "./a.JPEG": photo(1)}), r"\(n01443537.tar\) holds a.JPEG 2 times"),
    ],
)
def test_members_that_would_be_taken_for_another_are_refused(tmp_path, tar, words):
    (tmp_path / archives.TARS["train"]).write_bytes(outer(n01443537=tar))
    with pytest.raises(UserError, match=words):
        prepare(tmp_path, tmp_path)


def test_validation_photos_given_twice_are_refused(tmp_path):
    (tmp_path / archives.TARS["validation"]).write_bytes(twice(VAL))
    with pytest.raises(UserError, match="ILSVRC2012_val_.*JPEG 2 times"):
        prepare(tmp_path, tmp_path)


def test_a_missing_split_is_told_before_the_work_begins(tmp_path, monkeypatch, capsys):
    source = write_tars(tmp_path / "source", train={**TRAIN, SYNSETS[0]: {"bad.JPEG": b"x"}})
    (source / archives.TARS["validation"]).unlink()
    monkeypatch.setattr(sys, "argv", ["x", "--source", str(source), "--data-dir", str(tmp_path), "--workers", "1"])
    with pytest.raises(SystemExit, match="bad.JPEG"):
        prepare_imagenet.main()
    assert "validation: none\nTraining needs the validation split too: stop now" in capsys.readouterr().out


def test_hidden_files_and_links_to_nothing_are_no_pictures_of_a_users_folder(tmp_path):
    for name in ("a.jpg", "._a.jpg", "sub/b.png", "@eaDir/a.jpg", ".cache/c.jpg", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(photo(1))
    (tmp_path / "gone.jpg").symlink_to("nowhere")
    opened = folder.open_folder(tmp_path, 16)
    assert [opened.train.name(i) for i in range(len(opened.train))] == ["a.jpg", "sub/b.png"]
    assert {reason: entry["count"] for reason, entry in opened.left_out.items()} == {
        "hidden files": 3,
        "links to nothing": 1,
        "without the ending of a picture": 1,
    }
    (tmp_path / "gone.jpg").unlink()
    assert list(list_files(tmp_path)) == ["a.jpg", "notes.txt", "sub/b.png"]
