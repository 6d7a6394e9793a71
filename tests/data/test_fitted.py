"""A set's square pictures in colours for nets of others: cut, resized and converted as photos are."""

import numpy as np
import pytest
from PIL import Image

import zfjax
from zfjax.data import demo, fitted, folder, pictures, sets


def net(size, channels=3):
    return zfjax.FunctionNet(lambda images: {"a": images}, image_size=size, channels=channels, name="mine")


def scene(size, channels=3):
    """The first of the demo set's scenes for such a net, and the same one as it is rendered."""
    return sets.open_images("demo", net(size, channels)).validation[0], demo.DemoSource(1, 1, 24)[0]


@pytest.mark.slow
def test_a_rectangle_is_the_centre_of_a_square_scene_with_its_object_and_parts():
    squares = demo.demo_set(24, with_mean=False)
    cut, whole = fitted.fitted(squares, net((16, 24))).validation[0], squares.validation[0]
    np.testing.assert_array_equal(cut["image"], whole["image"][4:20])
    np.testing.assert_array_equal(cut["object"], whole["object"][4:20])
    np.testing.assert_array_equal(cut["parts"], whole["parts"] - np.array([4, 0], np.float32))
    assert (cut["label"], cut["index"]) == (whole["label"], whole["index"])


def test_scenes_for_a_net_of_rectangles_are_rendered_as_such():
    scenes = sets.open_images("demo", net((16, 24)))
    assert scenes is demo.demo_set((16, 24), with_mean=False) and scenes.size == (16, 24)


def test_a_grey_net_sees_a_scene_as_it_sees_a_grey_photo():
    grey, whole = scene(24, 1)
    np.testing.assert_array_equal(grey["image"][..., 0], Image.fromarray(whole["image"]).convert("L"))
    np.testing.assert_array_equal(grey["parts"], whole["parts"])


@pytest.mark.slow
def test_fewer_pixels_than_a_scene_has_are_those_of_a_photo_of_it(tmp_path):
    cut, _ = scene((6, 12))
    small = demo.DemoSource(1, 1, demo.MIN_SIZE)[0]
    Image.fromarray(small["image"]).save(tmp_path / "scene.png")
    np.testing.assert_array_equal(cut["image"], folder.open_folder(tmp_path, (6, 12)).validation[0]["image"])
    np.testing.assert_allclose(cut["parts"], (small["parts"] - np.array([4, 0], np.float32)) * 0.75, rtol=1e-6)
    assert cut["object"].shape == (6, 12)


def test_sets_fitted_to_different_nets_are_different_sets():
    prints = {sets.open_images("demo", net(size, channels)).fingerprint for size, channels in ((24, 3), (24, 1))}
    prints.add(sets.open_images("demo", net((16, 24))).fingerprint)
    assert len(prints) == 3
    assert sets.open_images("demo", net(24)) is demo.demo_set(24, with_mean=False)


@pytest.mark.parametrize("mode", ["RGBA", "RGB", "LA"])
def test_pictures_are_read_with_their_transparency_for_nets_of_four_channels(tmp_path, mode):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (6, 8, 4), np.uint8)).convert(mode)
    image.save(tmp_path / "picture.png")
    data = sets.open_images(str(tmp_path), net((6, 8), 4))
    read = data.validation[0]["image"]
    np.testing.assert_array_equal(read, np.asarray(image.convert("RGBA")))
    assert read.dtype == np.uint8 and (mode != "RGB" or (read[..., 3] == 255).all())
    seen = zfjax.nets.read_views(data.validation, [0], net((6, 8), 4)).pictures[0]
    difference = seen.astype(int) - np.asarray(pictures.load((tmp_path / "picture.png").read_bytes())).astype(int)
    assert seen.shape == (6, 8, 3) and np.abs(difference).max() <= 1
