"""A prepared ImageNet holds the right pictures, labels and mean, and opens or says why not."""

import io

import numpy as np
import pytest
from PIL import Image
from tiny_photos import NUMBERS, SIZE, SYNSETS, TRAIN, VAL, VALIDATION, photo, prepare, write_folders, write_tars

from zfjax.data import archives
from zfjax.data.imagenet import open_imagenet


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


def test_synsets_are_called_by_their_first_word_and_other_classes_by_their_name():
    assert archives.class_words(["n03445777", "dog", "n01440764"]) == ("golf ball", "dog", "tench")
    assert archives.class_words(archives.official_synsets())[574] == "golf ball"
