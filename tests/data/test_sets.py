"""What experiments start from: sets by name or folder, and their centre crops."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import zfjax
from zfjax import nets
from zfjax.data import demo, imagenet, sets
from zfjax.errors import UserError

SIZE, SIDE = 20, 24
MEAN = np.full((SIDE, SIDE, 3), 100, np.float32)


def trained(data="demo:24:4:6"):
    architecture = zfjax.Architecture("tiny", (zfjax.Dense("fc8", 2, hidden=False),), image_size=SIZE)
    return nets.TrainedNet(
        architecture, {}, MEAN, Path("runs/x/checkpoints/1"), Path("runs/x"), data, ("a", "b"), "net"
    )


@pytest.fixture
def photos(tmp_path):
    """b/one.PNG of 24 pixels, c/two.jpg of 48 x 24, notes.txt and a picture that is none."""
    for name, colour, size in [("b/one.PNG", (10, 20, 30), (24, 24)), ("c/two.jpg", (200, 100, 50), (48, 24))]:
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", size, colour).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def test_a_folder_is_opened_at_the_nets_size_with_the_classes_it_knows(photos):
    data = sets.open_images(str(photos), trained())
    assert data.train is data.validation and len(data.validation) == 2 and data.class_names == ("a", "b")
    one, two = data.validation[0], data.validation[1]
    assert (one["label"], two["label"]) == (1, -1)  # "c" is no class of the net
    assert one["image"].shape == (SIDE, SIDE, 3) and (one["image"] == (10, 20, 30)).all()
    assert np.abs(two["image"].astype(int) - (200, 100, 50)).max() <= 2
    assert [data.validation.name(n) for n in (0, 1)] == ["b/one.PNG", "c/two.jpg"]


def test_pictures_of_one_name_in_two_folders_are_told_apart(photos):
    Image.new("RGB", (24, 24)).save(photos / "c" / "one.PNG")
    names = [sets.open_images(str(photos), trained()).validation.name(n) for n in range(3)]
    assert len(set(names)) == 3


def test_one_picture_is_a_set_of_one(photos):
    data = sets.open_images(str(photos / "b" / "one.PNG"), trained())
    assert len(data.validation) == 1 and data.validation[0]["label"] == 1


def test_the_fingerprint_of_a_folder_changes_with_its_files(photos):
    before = sets.open_images(str(photos), trained()).fingerprint
    assert sets.open_images(str(photos), trained()).fingerprint == before
    Image.new("RGB", (24, 24), (1, 2, 3)).save(photos / "c" / "three.png")
    assert sets.open_images(str(photos), trained()).fingerprint != before


def test_what_is_no_picture_is_named(photos, tmp_path):
    (photos / "c" / "bad.jpg").write_bytes(b"not a picture")
    data = sets.open_images(str(photos), trained())
    with pytest.raises(ValueError, match="bad.jpg: no readable picture"):
        data.validation[1]
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty: no picture there"):
        sets.open_images(str(tmp_path / "empty"), trained())
    (tmp_path / "empty" / "IMG_1.HEIC").write_bytes(b"x")
    with pytest.raises(FileNotFoundError, match=r"\); 1 without the ending of a picture \(empty/IMG_1.HEIC\)"):
        sets.open_images(str(tmp_path / "empty"), trained())
    with pytest.raises(FileNotFoundError, match="data='nowhere': no such folder"):
        sets.open_images("nowhere", trained())


def test_views_are_the_centre_and_carry_object_and_parts_along():
    data = sets.open_images(None, trained())
    views = nets.read_views(data.validation, [4, 1], trained())
    scenes = demo.demo_images(1, 0, 6, size=SIDE)
    for n, index in enumerate((4, 1)):
        centre = scenes["image"][index, 2:22, 2:22]
        np.testing.assert_array_equal(views.pictures[n], centre)
        np.testing.assert_array_equal(views.images[n], centre.astype(np.float32) - np.float32(100))
        np.testing.assert_array_equal(views.objects[n], scenes["mask"][index, 2:22, 2:22])
        np.testing.assert_array_equal(views.parts[n], scenes["parts"][index] - np.float32(2))
        assert views.labels[n] == scenes["label"][index]


def test_a_choice_is_seeded_ascending_and_never_twice():
    source = sets.open_images(None, trained()).validation
    assert sets.choose(source, 3, seed=1).tolist() == sets.choose(source, 3, seed=1).tolist()
    assert {tuple(sets.choose(source, 3, seed=s)) for s in range(20)} > {tuple(sets.choose(source, 3, seed=1))}
    assert sets.choose(source, 99, seed=0).tolist() == [0, 1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="num_images=0: at least 1"):
        sets.choose(source, 0, seed=0)


def test_a_size_and_a_folder_that_is_called_so_are_told_apart(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(imagenet, "open_imagenet", lambda folder, size=None: opened.append((folder, size)))
    monkeypatch.setattr(imagenet, "sizes_in", lambda folder: [80] if str(folder).rstrip("/") == str(both) else [])
    both, alone = tmp_path / "both", tmp_path / "alone"
    sets.open_data(f"{alone}:80")
    (tmp_path / "both:80").mkdir()
    (tmp_path / "alone:80").mkdir()
    for name in (f"{alone}:80", f"{both}:80:80", f"{both}/:80"):
        sets.open_data(name)
    assert opened == [(str(alone), 80), (f"{alone}:80", None), (f"{both}:80", 80), (f"{both}/", 80)]
    with pytest.raises(UserError, match=r"a folder is called so, and .*both holds pictures of 80 pixels"):
        sets.open_data(f"{both}:80")


def test_bad_pictures_of_a_folder_are_left_out_counted_and_named_where_that_is_asked_for(photos):
    whole = sets.open_images(str(photos), trained())
    (photos / "c" / "bad.jpg").write_bytes(b"not a picture")
    data = sets.open_images(str(photos), trained(), skip_bad=True)
    assert [data.train.name(i) for i in range(len(data.train))] == [
        whole.train.name(i) for i in range(len(whole.train))
    ]
    left_out = data.left_out["pictures that cannot be decoded"]
    assert left_out["count"] == 1 and "c/bad.jpg: no readable picture" in left_out["first"][0]
    with pytest.raises(UserError, match=r"bad.jpg: no readable picture.*; --skip-bad leaves such pictures out"):
        sets.open_images(str(photos), trained()).train[1]
    with pytest.raises(UserError, match="none of its 1 pictures can be decoded"):
        sets.open_images(str(photos / "c" / "bad.jpg"), trained(), skip_bad=True)


@pytest.mark.parametrize("data", ["demo", None])
def test_the_demo_set_is_there_for_nets_of_few_pixels(data):
    net = zfjax.FunctionNet(lambda images: {"a": images}, image_size=12, name="mine", data="demo")
    assert sets.open_images(data, net).validation[0]["image"].shape == (12, 12, 3)


def test_a_net_of_channels_that_no_picture_has_is_named(tmp_path):
    net = zfjax.FunctionNet(lambda images: {"a": images}, image_size=12, channels=5, name="mine")
    for data in ("demo", str(tmp_path)):
        with pytest.raises(UserError, match="mine takes images of 5 channels: figures by command need pictures of 1"):
            sets.open_images(data, net, skip_bad=True)


@pytest.mark.parametrize(
    ("data", "message"), [("demo:8:1:1", "size=8: at least 16"), ("demo:16:0:1", "num_train=0: at")]
)
def test_a_demo_set_that_cannot_be_is_named(data, message):
    with pytest.raises(UserError, match=f"data='{data}': {message}"):
        sets.open_data(data)
