"""Features kept on disk under a key that knows weights, data and pictures; pictures that the net has seen."""

import dataclasses
import io

import numpy as np
import pytest
import tiny_transfer
from PIL import Image
from tiny_transfer import SIDE, TABLE

import zfjax
from zfjax import nets
from zfjax.data import ArraySource, ImageSet, caltech, photo_sets
from zfjax.transfer import arms, frozen_features, protocol, records


@pytest.fixture
def photo_set(tmp_path):
    return caltech.open_caltech(tiny_transfer.write_photos(tmp_path), "caltech101")


@pytest.fixture
def trained(tmp_path):
    return tiny_transfer.network(tmp_path / "run")


def test_features_are_computed_once_for_the_same_weights_data_and_pictures(trained, photo_set, tmp_path, monkeypatch):
    passes, real = [], protocol.features_of
    monkeypatch.setattr(protocol, "features_of", lambda *a, **o: passes.append(1) or real(*a, **o))

    def cached(net=trained, photo_set=photo_set, layers=("fc7",), batch_size=16):
        return frozen_features.cached(net, photo_set, layers=layers, folder=tmp_path / "cache", batch_size=batch_size)

    first = cached()["fc7"]
    assert first.shape == (46, 12) and first[20:].any(axis=1).sum() > 20
    np.testing.assert_array_equal(cached()["fc7"], first)
    assert len(passes) == 1
    np.testing.assert_allclose(cached(layers=("fc7", "fc8"), batch_size=7)["fc7"], first)
    assert len(passes) == 2  # fc8 alone
    other_mean = dataclasses.replace(trained, mean=trained.mean + np.float32(9))
    other_table = dataclasses.replace(trained, architecture=zfjax.Architecture("tiny", TABLE.layers, 16, 3, 1 / 58))
    fewer = photo_sets.without(photo_set, np.arange(46) == 0)
    for changed in (
        {"net": tiny_transfer.network(tmp_path / "other", 1)},
        {"net": other_mean},
        {"net": other_table},
        {"photo_set": fewer},
    ):
        passes.clear()
        found = cached(**changed)["fc7"]
        assert len(passes) == 1 and (len(found) != 46 or np.abs(found - first).max() > 1e-3)
    with pytest.raises(ValueError, match="layer='fc9': one of conv1, fc7, fc8 of"):
        cached(layers=("fc9",))


def test_a_pass_that_broke_leaves_no_features(trained, photo_set, tmp_path, monkeypatch):
    real = protocol.features_of

    def broken(*arguments, **options):
        yield next(real(*arguments, **options))
        raise KeyboardInterrupt

    monkeypatch.setattr(protocol, "features_of", broken)
    with pytest.raises(KeyboardInterrupt):
        frozen_features.cached(trained, photo_set, layers=["fc7"], folder=tmp_path / "cache", batch_size=16)
    assert not list((tmp_path / "cache").glob("*.npy"))
    monkeypatch.setattr(protocol, "features_of", real)
    frozen_features.cached(trained, photo_set, layers=["fc8"], folder=tmp_path / "cache", batch_size=16)
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 1 and not list((tmp_path / "cache").glob("*.unfinished"))
    monkeypatch.setattr(frozen_features.shutil, "disk_usage", lambda folder: type("Disk", (), {"free": 10}))
    with pytest.raises(ValueError, match="the features take 0.0 GB, and 0.0 GB are free there"):
        frozen_features.cached(trained, photo_set, layers=["fc7"], folder=tmp_path / "cache", batch_size=16)


def test_a_damaged_file_of_features_is_named_and_made_anew_once_it_is_deleted(trained, photo_set, tmp_path):
    def cached():
        return frozen_features.cached(trained, photo_set, layers=["fc7"], folder=tmp_path / "cache", batch_size=16)[
            "fc7"
        ]

    whole = np.array(cached())
    (path,) = (tmp_path / "cache").glob("*.npy")
    data = path.read_bytes()
    for damaged in (data[:-100], data[:50], b"", b"x" * 500):
        path.unlink()  # not while it is mapped
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"{path} is damaged \(.*\): delete it, and it is computed again"):
            cached()
    path.unlink()
    np.testing.assert_array_equal(cached(), whole)


def test_pictures_that_the_net_was_trained_on_are_left_out(trained, photo_set, tmp_path, monkeypatch):
    source = photo_sets.source_of(photo_set, SIDE)
    chosen = np.stack([source[i]["image"] for i in (3, 12)])
    darker = ArraySource((chosen * 0.7 + 5).astype(np.uint8), np.zeros(2, int))
    seen = ImageSet("seen", SIDE, ("a",), darker, None, trained.mean, None, "print")

    def opened(threshold, images=seen):
        folder = tmp_path / "cache"
        return frozen_features.open_photos(
            "caltech101", tmp_path, net=trained, threshold=threshold, folder=folder, trained=images
        )

    rest = opened(0.95)
    left = [photo for number, photo in enumerate(photo_set.photos) if number not in (3, 12)]
    assert list(rest.photos) == left and rest.fingerprint != photo_set.fingerprint
    assert opened(None).fingerprint == photo_set.fingerprint
    monkeypatch.setattr(protocol, "duplicates", None)  # found once
    assert list(opened(0.95).photos) == left
    key = frozen_features.duplicates_key(photo_set, seen, 0.95, size=SIDE)
    assert key["version"] == frozen_features.DUPLICATES_VERSION
    (kept,) = (tmp_path / "cache").iterdir()
    assert (
        records.recorded(tmp_path / "cache", "duplicates", key=key, compute=dict)["photos"] == [3, 12] and kept.exists()
    )
    with pytest.raises(TypeError, match="not callable"):  # they would be compared once more
        opened(0.96)
    nothing = ImageSet("seen", SIDE, ("a",), None, None, trained.mean, None, "print")
    with pytest.raises(ValueError, match="remove_duplicates=0.9: 'seen' has no training pictures to compare with"):
        opened(0.9, nothing)


def test_a_record_is_computed_once_for_its_key(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return {"accuracy": len(calls) / 4}

    first = records.recorded(tmp_path, "fold", key={"k": 1}, compute=compute)
    assert first["accuracy"] == 0.25 and first["key"] == {"k": 1} and first["seconds"] >= 0
    assert records.recorded(tmp_path, "fold", key={"k": 1}, compute=compute) == first
    assert records.recorded(tmp_path, "fold", key={"k": 2}, compute=compute)["accuracy"] == 0.5
    row = records.over_folds([{"accuracy": 0.25, "key": 1, "penalty": 3}, {"accuracy": 0.5, "penalty": 4}])
    assert row["folds"] == [25, 50] and row["mean"] == 37.5 and row["spread"] == pytest.approx(12.5 * 2**0.5)
    assert row["records"] == [{"penalty": 3}, {"penalty": 4}]
    assert records.mean_and_spread(row) == "37.5 ± 17.7" and records.mean_and_spread(None) == "-"
    alone = records.over_folds([{"accuracy": 0.25}])
    assert alone["spread"] is None and records.mean_and_spread(alone) == "25.0"


def test_a_damaged_record_is_named_and_so_is_one_of_another_key(tmp_path):
    records.recorded(tmp_path, "fold", key={"k": (1, 2)}, compute=lambda: {"accuracy": 0.5})
    (path,) = tmp_path.iterdir()
    data = path.read_bytes()
    for damaged in (data[:30], b"{", b"", b"\xff\xfe"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"{path} is damaged \(.*\); delete it, and it is computed again"):
            records.recorded(tmp_path, "fold", key={"k": (1, 2)}, compute=dict)
    for other in (b"[1]", b"{}", data.replace(b"2", b"3")):
        path.write_bytes(other)
        with pytest.raises(ValueError, match=rf"{path} is .*(its key:|an object\);) delete it, and it is computed"):
            records.recorded(tmp_path, "fold", key={"k": (1, 2)}, compute=dict)
    path.unlink()
    assert records.recorded(tmp_path, "fold", key={"k": (1, 2)}, compute=lambda: {"accuracy": 0.7})["accuracy"] == 0.7


@pytest.mark.parametrize("size", [(SIDE, SIDE), (SIDE - 3, SIDE + 5)], ids=str)
def test_features_of_any_net_are_its_own(photo_set, tmp_path, size):
    inner = (size[0] - 4, size[1] - 4)
    net = nets.FunctionNet(lambda images: {"mean": images.mean(axis=(1, 2))}, image_size=inner, picture_size=size)
    rows = frozen_features.cached(net, photo_set, layers=["mean"], folder=tmp_path, batch_size=16)["mean"]
    source = photo_sets.source_of(photo_set, size)
    pictures = np.stack([source[number]["image"] for number in range(len(source))])
    np.testing.assert_allclose(rows, pictures[:, 2:-2, 2:-2].mean(axis=(1, 2)) / 255, rtol=1e-5)


@pytest.mark.parametrize("channels", [1, 4])
def test_photos_are_read_in_the_channels_of_the_net(photo_set, tmp_path, channels):
    net = nets.FunctionNet(lambda images: {"mean": images.mean((1, 2))}, image_size=SIDE, channels=channels)
    rows = frozen_features.cached(net, photo_set, layers=["mean"], folder=tmp_path, batch_size=16)["mean"]
    photos = [
        Image.open(io.BytesIO(photo.read())).convert("L" if channels == 1 else "RGBA") for photo in photo_set.photos
    ]
    expected = [np.mean(np.asarray(photo).reshape(-1, channels), axis=0) / 255 for photo in photos]
    np.testing.assert_allclose(rows, expected, atol=0.01)
    assert len(frozen_features.open_photos("caltech101", tmp_path, net=net, threshold=None, folder=tmp_path).photos)


@pytest.mark.parametrize("channels", [1, 4])
def test_a_mean_picture_has_the_channels_of_its_source(channels):
    pictures = np.arange(24 * channels, dtype=np.uint8).reshape(2, 3, 4, channels)
    mean = arms.mean_picture(ArraySource(pictures, np.zeros(2, int)), (3, 4))
    np.testing.assert_array_equal(mean, pictures.mean(axis=0))


def test_a_layer_named_by_a_path_is_kept_in_one_file(photo_set, tmp_path):
    net = nets.FunctionNet(lambda images: {"Net/mean": images.mean((1, 2))}, image_size=SIDE, name="paths")
    folder = tmp_path / "cache"
    features = frozen_features.cached(net, photo_set, layers=["Net/mean"], folder=folder, batch_size=16)
    assert features["Net/mean"].shape == (46, 3) and features["Net/mean"].any()
    assert [path.name.partition("-")[0] for path in folder.rglob("*.npy")] == ["Net%2Fmean"]
