"""A prepared ImageNet holds the right pictures, labels and mean, and opens or says why not."""

import io
import json
import sys

import numpy as np
import pytest
from PIL import Image
from tiny_photos import NUMBERS, SIZE, SYNSETS, TRAIN, VAL, VALIDATION, photo, prepare, write_folders, write_tars

from experiments import prepare_imagenet
from zfjax.data import ImageSet, archives
from zfjax.data.imagenet import open_imagenet
from zfjax.data.sets import open_data
from zfjax.errors import UserError


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("tars")
    prepare(write_tars(root / "source"), root / "data")
    return open_imagenet(root / "data")


def test_labels_are_dense_over_the_sorted_classes_with_the_official_ones_beside(prepared):
    assert prepared.class_names == ("n01440764", "n01443537") and prepared.official_labels == (0, 1)
    assert [prepared.train.name(i) for i in range(8)] == [
        f"{s}/{s}_{i}.JPEG" for s in sorted(SYNSETS) for i in range(4)
    ]
    assert [int(prepared.train[i]["label"]) for i in range(8)] == [0] * 4 + [1] * 4


def test_validation_labels_come_from_the_official_list_by_number(prepared):
    names = [prepared.validation.name(i) for i in range(5)]
    assert names == [f"{VALIDATION[n - 1]}/ILSVRC2012_val_{n:08d}.JPEG" for n in NUMBERS]
    labels = [prepared.class_names[prepared.validation[i]["label"]] for i in range(5)]
    assert labels == [VALIDATION[n - 1] for n in NUMBERS]


def test_stored_picture_is_the_resized_centre_of_its_photo_at_jpeg_quality_95(prepared):
    image = Image.open(io.BytesIO(TRAIN["n01440764"]["n01440764_2.JPEG"]))  # 28 x 20
    buffer = io.BytesIO()
    image.crop((4, 0, 24, 20)).resize((SIZE, SIZE), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=95)
    assert prepared.train[2]["index"] == 2
    np.testing.assert_array_equal(prepared.train[2]["image"], np.asarray(Image.open(buffer)))


def test_pictures_that_are_no_squares_are_the_centres_of_that_shape(tmp_path, monkeypatch, capsys):
    """Beside a set of squares, by the command; opened by its size in words."""
    source = write_tars(tmp_path / "source")
    prepare(source, tmp_path / "data")
    flags = ("--source", str(source), "--data-dir", str(tmp_path / "data"), "--size", "10x20", "--workers", "1")
    monkeypatch.setattr(sys, "argv", ["prepare_imagenet", *flags])
    prepare_imagenet.main()
    printed = capsys.readouterr().out
    assert "10 x 20 pixels" in printed and printed.endswith("--data-size 10x20 --preset reduced --image-size 8x17\n")
    image = Image.open(io.BytesIO(TRAIN["n01440764"]["n01440764_2.JPEG"]))  # 28 x 20: of its rows the middle 14
    buffer = io.BytesIO()
    image.crop((0, 3, 28, 17)).resize((20, 10), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=95)
    photos = open_data(f"{tmp_path / 'data'}:10x20")
    assert photos.size == (10, 20) and photos.mean.shape == (10, 20, 3)
    np.testing.assert_array_equal(photos.train[2]["image"], np.asarray(Image.open(buffer)))
    stored = np.stack([photos.train[i]["image"] for i in range(len(photos.train))])
    np.testing.assert_allclose(photos.mean, stored.mean(0, dtype=np.float64), rtol=1e-6)
    monkeypatch.setattr(sys, "argv", ["prepare_imagenet", *flags[2:6], "--verify"])
    prepare_imagenet.main()
    assert "Verified" in capsys.readouterr().out
    with pytest.raises(
        UserError, match=f"holds pictures of {SIZE}, 10x20 pixels: choose one" if SIZE < 10 else "10x20"
    ):
        open_imagenet(tmp_path / "data")
    with pytest.raises(FileNotFoundError, match=r"no prepared ImageNet of 20x10 pixels .* --size 20x10"):
        open_imagenet(tmp_path / "data", (20, 10))


def test_mean_is_that_of_the_stored_training_pictures(prepared):
    stored = np.stack([prepared.train[i]["image"] for i in range(len(prepared.train))])
    assert prepared.mean.dtype == np.float32
    np.testing.assert_allclose(prepared.mean, stored.mean(0, dtype=np.float64), rtol=1e-6)


def test_tars_folders_and_any_number_of_workers_give_the_same_bytes(prepared, tmp_path):
    prepare(write_folders(tmp_path / "source"), tmp_path / "data", workers=2)
    folders = open_imagenet(tmp_path / "data")
    assert folders.fingerprint == prepared.fingerprint and folders.class_names == prepared.class_names
    np.testing.assert_array_equal(folders.mean, prepared.mean)
    for ours, theirs in ((folders.train, prepared.train), (folders.validation, prepared.validation)):
        assert [ours.jpeg(i) for i in range(len(ours))] == [theirs.jpeg(i) for i in range(len(theirs))]


def test_other_data_have_another_fingerprint(prepared, tmp_path):
    prepare(write_tars(tmp_path / "source", val={**VAL, next(iter(VAL)): photo(99)}), tmp_path)
    assert open_imagenet(tmp_path).fingerprint != prepared.fingerprint


def test_set_of_several_shards_reads_in_order(prepared, tmp_path):
    facts = prepare(write_tars(tmp_path / "source"), tmp_path, pictures_per_shard=3)
    assert len(list(facts["folder"].glob("imagenet-train.array_record-*-of-00003"))) == 3
    train = open_imagenet(tmp_path).train
    assert [train.jpeg(i) for i in range(8)] == [prepared.train.jpeg(i) for i in range(8)]


def test_split_alone_and_unofficial_classes(tmp_path):
    (tmp_path / "val" / "cat").mkdir(parents=True)
    (tmp_path / "val" / "cat" / "1.png").write_bytes(photo(1))
    (tmp_path / "val" / "cat" / "notes.txt").write_text("not a picture")
    assert prepare(tmp_path, tmp_path / "data")["counts"] == {"validation": 1}
    opened = open_imagenet(tmp_path / "data")
    assert (opened.train, opened.mean, opened.official_labels, opened.class_names) == (None, None, None, ("cat",))


def test_sizes_live_side_by_side(tmp_path):
    source = write_tars(tmp_path / "source")
    for size in (8, SIZE):
        prepare(source, tmp_path, size=size)
    assert open_imagenet(tmp_path, 8).train[0]["image"].shape == (8, 8, 3)
    with pytest.raises(ValueError, match="holds pictures of 8, 16 pixels: choose one, by --data-size or DIR:SIZE"):
        open_imagenet(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"of 99 pixels in .* \(it holds 8, 16 pixels\)"):
        open_imagenet(tmp_path, 99)


def test_a_set_under_the_name_of_another_size_is_refused(tmp_path):
    prepare(write_tars(tmp_path / "source"), tmp_path)
    (tmp_path / "imagenet" / f"{SIZE}px").rename(tmp_path / "imagenet" / "48px")
    with pytest.raises(UserError, match=f"48px.* holds pictures of {SIZE} pixels: call the folder {SIZE}px"):
        open_imagenet(tmp_path, 48)


def test_missing_set_names_both_ways_on(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        open_imagenet(tmp_path)
    assert f"python -m experiments.prepare_imagenet --source DIR --data-dir {tmp_path}" in str(error.value)
    assert "python -m experiments.train_imagenet --preset demo" in str(error.value)


@pytest.mark.parametrize("lost", ["mean.npy", "zfjax.json", "imagenet-train.array_record-00000-of-00001"])
def test_set_that_lost_a_file_does_not_open(tmp_path, lost):
    (prepare(write_tars(tmp_path / "source"), tmp_path)["folder"] / lost).unlink()
    with pytest.raises(ValueError, match="prepare .* again with --overwrite"):
        open_imagenet(tmp_path)


def flipped(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)


def test_every_file_of_a_set_is_verified_when_it_opens_or_is_read(prepared, tmp_path):
    """Any byte of any file: it is refused with its path, or nothing that is read of the set has changed."""
    folder = prepare(write_tars(tmp_path / "source"), tmp_path)["folder"]
    rng = np.random.default_rng(0)
    files = {path: path.read_bytes() for path in folder.iterdir()}
    assert {"mean.npy", "zfjax.json", "checksums.npz", "dataset_info.json", "features.json"} <= {p.name for p in files}
    for path, whole in files.items():
        for at in rng.integers(0, len(whole), 4):
            flipped(path, at)
            try:
                with pytest.raises(UserError, match=rf"{path.name} is damaged.*prepare the set again"):
                    read_whole(tmp_path)
            except pytest.fail.Exception:  # between the records of a shard nothing is read
                assert read_whole(tmp_path) == read_whole(prepared) and "array_record" in path.name
            path.write_bytes(whole[: len(whole) // 2])
            with pytest.raises(UserError, match=rf"{path.name} (is damaged|has [0-9,]+ bytes, not)"):
                read_whole(tmp_path)
            path.write_bytes(whole)


def read_whole(opened):
    images = opened if isinstance(opened, ImageSet) else open_imagenet(opened)
    return [(split[i]["image"].tobytes(), int(split[i]["label"])) for split in both(images) for i in range(len(split))]


def both(images):
    return images.train, images.validation


def test_a_shard_or_a_mean_of_another_preparation_is_refused(tmp_path):
    other = {s: {name: photo(int(name[10]) + 70) for name in of} for s, of in TRAIN.items()}
    folders = [
        prepare(write_tars(tmp_path / f"source{n}", train=train), tmp_path / f"{n}")["folder"]
        for n, train in enumerate((TRAIN, other))
    ]
    for name in ("imagenet-train.array_record-00000-of-00001", "mean.npy", "zfjax.json"):
        whole = (folders[0] / name).read_bytes()
        (folders[0] / name).write_bytes((folders[1] / name).read_bytes())
        with pytest.raises(UserError, match="is damaged|has .* bytes, not"):
            read_whole(tmp_path / "0")
        (folders[0] / name).write_bytes(whole)
    read_whole(tmp_path / "0")


def test_verification_reads_every_record_and_names_the_photo(tmp_path, monkeypatch, capsys):
    folder = prepare(write_tars(tmp_path / "source"), tmp_path)["folder"]
    monkeypatch.setattr(sys, "argv", ["x", "--data-dir", str(tmp_path), "--size", str(SIZE), "--verify"])
    prepare_imagenet.main()
    assert f"Verified: {folder}\n8 train, 5 validation photos" in capsys.readouterr().out
    shard = folder / "imagenet-validation.array_record-00000-of-00001"
    data = shard.read_bytes()
    shard.write_bytes(data.replace(b"ILSVRC2012_val_", b"ILSVRC2013_val_", 1))
    with pytest.raises(SystemExit, match=r"validation.array_record-00000-of-00001 is damaged at record \d \("):
        prepare_imagenet.main()


def as_of_format_1(folder):
    """What was written before there were sizes, digests and checksums."""
    facts = json.loads((folder / "zfjax.json").read_text())
    (folder / "checksums.npz").unlink()
    old = ("source", "size", "jpeg_quality", "class_names", "official_labels", "counts", "skipped", "fingerprint")
    (folder / "zfjax.json").write_text(json.dumps({name: facts[name] for name in old}))


def test_a_set_of_before_is_opened_and_what_can_be_seen_of_it_is_checked(prepared, tmp_path):
    folder = prepare(write_tars(tmp_path / "source"), tmp_path)["folder"]
    as_of_format_1(folder)
    assert read_whole(tmp_path) == read_whole(prepared)
    for name, change, words in (
        ("mean.npy", lambda p: np.save(p, np.full((SIZE, SIZE, 3), np.nan, np.float32)), "not finite"),
        ("mean.npy", lambda p: np.save(p, np.zeros((8, 8, 3), np.float32)), r"holds float32 \[8, 8, 3\], not"),
        ("zfjax.json", lambda p: p.write_text("[]"), r"zfjax.json is damaged \(.* not an object\)"),
        ("zfjax.json", lambda p: p.write_text(p.read_text().replace('"train": 8', '"train": 7')), "8 records, not 7"),
        ("dataset_info.json", lambda p: p.write_text(""), "dataset_info.json is damaged"),
        ("imagenet-train.array_record-00000-of-00001", lambda p: p.write_bytes(b""), "cut short or damaged"),
    ):
        whole = (folder / name).read_bytes()
        change(folder / name)
        with pytest.raises(UserError, match=words):
            open_imagenet(tmp_path)
        (folder / name).write_bytes(whole)
    names = json.loads((folder / "zfjax.json").read_text())
    (folder / "zfjax.json").write_text(json.dumps({**names, "class_names": ["a"], "official_labels": [None]}))
    with pytest.raises(UserError, match=r"n01443537/n01443537_0.JPEG: .* of class 1, .* and 1 classes"):
        open_imagenet(tmp_path).train[4]


def test_a_set_of_a_newer_format_says_so(tmp_path):
    folder = prepare(write_tars(tmp_path / "source"), tmp_path)["folder"]
    facts = json.loads((folder / "zfjax.json").read_text())
    (folder / "zfjax.json").write_text(json.dumps({**facts, "format": 3}))
    with pytest.raises(UserError, match="is of format 3, made by a newer zfjax"):
        open_imagenet(tmp_path)


def test_synsets_are_called_by_their_first_word_and_other_classes_by_their_name():
    assert archives.class_words(["n03445777", "dog", "n01440764"]) == ("golf ball", "dog", "tench")
    assert archives.class_words(archives.official_synsets())[574] == "golf ball"
