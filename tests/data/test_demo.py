"""The demo set: pure scenes with true ground truth, and a label that only the creature shows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zfjax.data import creatures, demo

SIZE = 32
TRAIN = 500  # of the 600 scenes of the baselines


@pytest.fixture(scope="module")
def scenes():
    return demo.demo_images(0, 0, 600, size=SIZE)


@pytest.fixture(scope="module")
def backgrounds():
    render = jax.jit(jax.vmap(lambda index: demo.render_background(0, index, size=SIZE)))
    return np.asarray(render(jnp.arange(600)))


@pytest.fixture(scope="module")
def doubled():
    """The first eight scenes at twice the size."""
    return demo.demo_images(0, 0, 8, size=2 * SIZE)


def held_out_accuracy(features, labels):
    """Best held-out accuracy of ridge regression to one-hot labels over five penalties: a generous baseline."""
    features = features - features[:TRAIN].mean(axis=0)
    train, test = features[:TRAIN], features[TRAIN:]
    gram, targets = train @ train.T, np.eye(demo.NUM_CLASSES)[labels[:TRAIN]] - 1 / demo.NUM_CLASSES
    accuracies = []
    for penalty in np.trace(gram) / TRAIN * 10.0 ** np.arange(-3, 2):
        weights = train.T @ np.linalg.solve(gram + penalty * np.eye(TRAIN), targets)
        accuracies.append(((test @ weights).argmax(axis=1) == labels[TRAIN:]).mean())
    return max(accuracies)


def colour_histogram(images):
    """Square roots of the counts in 8 x 8 x 8 colours."""
    bins = (images // 32).astype(int) @ np.array([64, 8, 1])
    return np.sqrt([np.bincount(image.ravel(), minlength=512) for image in bins])


def test_the_same_seed_and_index_are_the_same_bytes(scenes):
    again = demo.demo_images(0, 0, 10, size=SIZE)
    for name in demo.Scene._fields:
        np.testing.assert_array_equal(again[name], scenes[name][:10])


def test_one_scene_alone_is_the_scene_in_a_batch(scenes):
    alone = demo.render(0, 7, size=SIZE)
    # Compilers may round a fused product differently: one grey level, and no more.
    np.testing.assert_allclose(np.asarray(alone.image, int), scenes["image"][7].astype(int), atol=1)
    np.testing.assert_array_equal(alone.mask, scenes["mask"][7])
    np.testing.assert_array_equal(alone.label, scenes["label"][7])
    np.testing.assert_allclose(alone.parts, scenes["parts"][7], atol=1e-4)


def test_chunks_do_not_show(scenes):
    later = demo.demo_images(0, 60, 70, size=SIZE)
    np.testing.assert_array_equal(later["image"], scenes["image"][60:130])
    np.testing.assert_array_equal(later["label"], scenes["label"][60:130])


def test_other_indices_and_other_seeds_are_other_scenes(scenes):
    other_seed = demo.demo_images(1, 0, 2, size=SIZE)["image"][0]
    first, second = scenes["image"][:2].astype(int)
    assert np.abs(first - second).mean() > 5
    assert np.abs(first - other_seed.astype(int)).mean() > 5


@pytest.mark.parametrize("axis", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_a_scene_that_is_no_square_holds_the_same_creature_moved_along_the_longer_side(scenes, axis):
    """As many pixels of it, and its three parts moved alike."""
    long = demo.demo_images(0, 0, 12, size=((50, SIZE), (SIZE, 50))[axis])
    assert long["image"].shape[1:] == (*long["mask"].shape[1:], 3) and long["mask"].shape[1 + axis] == 50
    np.testing.assert_array_equal(long["label"], scenes["label"][:12])
    moved = long["parts"] - scenes["parts"][:12]
    np.testing.assert_allclose(moved[..., 1 - axis], 0, atol=1e-4)
    np.testing.assert_allclose(moved[..., axis], moved[:, :1, axis] * np.ones(3), atol=1e-3)
    assert 0 <= moved[..., axis].min() < 6 and 12 < moved[..., axis].max() <= 50 - SIZE
    area, expected = (of["mask"][:12].sum(axis=(1, 2)) for of in (long, scenes))
    np.testing.assert_allclose(area, expected, rtol=0.08, atol=8)


def test_a_square_by_its_two_sides_is_the_square(scenes):
    again = demo.demo_set((SIZE, SIZE), 4, 4, with_mean=False)
    assert again.size == SIZE and again.fingerprint == demo.demo_set(SIZE, 4, 4, with_mean=False).fingerprint
    np.testing.assert_array_equal(again.train[3]["image"], scenes["image"][3])


def test_size_only_resamples_the_image(scenes, doubled):
    halved = doubled["image"].reshape(8, SIZE, 2, SIZE, 2, 3).mean(axis=(2, 4))
    small = scenes["image"][:8].astype(float)
    assert np.abs(halved - small).mean() < 5  # of 255
    assert np.corrcoef(halved.ravel(), small.ravel())[0, 1] > 0.97


def test_size_scales_parts_exactly_and_keeps_labels_and_masks(scenes, doubled):
    np.testing.assert_allclose(doubled["parts"], 2 * scenes["parts"][:8], rtol=1e-5)
    np.testing.assert_array_equal(doubled["label"], scenes["label"][:8])
    halved = doubled["mask"].reshape(8, SIZE, 2, SIZE, 2).mean(axis=(2, 4))
    assert ((halved >= 0.5) != scenes["mask"][:8]).mean() < 0.02


def test_parts_lie_on_the_creature(scenes):
    rows, columns = np.moveaxis(scenes["parts"].astype(int), -1, 0)
    assert scenes["mask"][np.arange(600)[:, None], rows, columns].all()


def test_the_right_eye_is_on_the_left_of_the_picture_and_the_nose_below_the_eyes(scenes):
    right, left, nose = np.moveaxis(scenes["parts"], 1, 0)
    assert (right[:, 1] < left[:, 1]).all()
    assert (nose[:, 0] > (right[:, 0] + left[:, 0]) / 2).all()


def test_eyes_are_white_with_dark_pupils(doubled):
    centres = np.arange(2 * SIZE) + 0.5
    for image, parts in zip(doubled["image"], doubled["parts"], strict=True):
        for y, x in parts[:2]:
            eye = image[np.hypot(centres[:, None] - y, centres[None, :] - x) < 4].mean(axis=-1)
            assert eye.max() > 130
            assert eye.min() < 70


def test_creatures_are_whole(scenes):
    mask = scenes["mask"]
    assert not (mask[:, [0, -1]].any() or mask[:, :, [0, -1]].any())
    areas = mask.mean(axis=(1, 2))
    assert 0.08 < areas.min() and areas.max() < 0.45


def test_without_its_creature_a_scene_changes_only_on_the_mask(scenes, backgrounds):
    changed = np.abs(scenes["image"].astype(int) - backgrounds.astype(int)).max(axis=-1) > 1
    mask = scenes["mask"]
    padded = np.pad(mask, ((0, 0), (1, 1), (1, 1)))
    grown = np.zeros_like(mask)
    for dy in range(3):
        for dx in range(3):
            grown |= padded[:, dy : dy + SIZE, dx : dx + SIZE]
    # What is thinner than a pixel (a feeler, the tip of an ear) is seen, but is not in the mask.
    assert (changed & ~grown).mean() < 0.001
    assert changed[mask].mean() > 0.97


def test_labels_are_uniform_and_found_without_rendering(scenes):
    labels = np.asarray(jax.jit(jax.vmap(lambda index: demo.scene_label(0, index)))(jnp.arange(2000)))
    np.testing.assert_array_equal(labels[:600], scenes["label"])
    expected = 2000 / demo.NUM_CLASSES
    chi_square = ((np.bincount(labels, minlength=demo.NUM_CLASSES) - expected) ** 2 / expected).sum()
    assert chi_square < 27.9  # 9 degrees of freedom: exceeded once in a thousand


def test_the_label_reaches_nothing_but_the_creature(monkeypatch, scenes, backgrounds):
    scene_label = demo.scene_label
    monkeypatch.setattr(demo, "scene_label", lambda *scene: (scene_label(*scene) + 1) % demo.NUM_CLASSES)
    other = jax.jit(lambda: demo.render.__wrapped__(0, 0, size=SIZE))()
    assert other.label == (scenes["label"][0] + 1) % demo.NUM_CLASSES
    neither = ~(np.asarray(other.mask) | scenes["mask"][0])
    neither[1:-1, 1:-1] &= neither[:-2, 1:-1] & neither[2:, 1:-1] & neither[1:-1, :-2] & neither[1:-1, 2:]
    difference = np.abs(np.asarray(other.image, int) - backgrounds[0].astype(int)).max(axis=-1)
    assert np.percentile(difference[neither], 99) <= 1
    assert difference[np.asarray(other.mask)].mean() > 10


def test_pixels_are_not_linearly_separable(scenes):
    pixels = scenes["image"].reshape(600, SIZE // 2, 2, SIZE // 2, 2, 3).mean(axis=(2, 4)).reshape(600, -1)
    assert held_out_accuracy(pixels, scenes["label"]) < 0.4


def test_colour_histograms_do_not_tell_the_class(scenes):
    assert held_out_accuracy(colour_histogram(scenes["image"]), scenes["label"]) < 0.4


def test_backgrounds_do_not_tell_the_class(scenes, backgrounds):
    pixels = backgrounds.reshape(600, SIZE // 2, 2, SIZE // 2, 2, 3).mean(axis=(2, 4)).reshape(600, -1)
    assert held_out_accuracy(pixels, scenes["label"]) < 0.25
    assert held_out_accuracy(colour_histogram(backgrounds), scenes["label"]) < 0.25


@pytest.mark.parametrize("function", [demo.render, demo.render_background])
def test_a_size_too_small_is_refused(function):
    with pytest.raises(ValueError, match="size=15: a scene needs at least 16 pixels a side"):
        function(0, 0, size=15)


def test_no_scenes_are_refused():
    with pytest.raises(ValueError, match="count=0: at least one scene"):
        demo.demo_images(0, 0, 0, size=SIZE)


def test_scenes_are_kept_beside_compiled_programs_and_a_damaged_file_is_rendered_again(tmp_path, monkeypatch):
    count = demo.CHUNK + 2
    plain = demo.demo_images(5, 0, count, size=16)
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    try:
        first = demo.DemoSource(5, count, 16)[count - 1]  # the second chunk alone
        (kept,) = tmp_path.glob("scenes-*/*.npz")
        rendered = []
        render = demo.demo_images
        monkeypatch.setattr(demo, "demo_images", lambda *a, **k: rendered.append(a) or render(*a, **k))
        again = demo.DemoSource(5, count, 16)[count - 1]
        assert not rendered
        kept.write_bytes(kept.read_bytes()[:100])
        damaged = demo.DemoSource(5, count, 16)[count - 1]
        assert rendered == [(5, demo.CHUNK, demo.CHUNK)]
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    for example in (first, again, damaged):
        np.testing.assert_array_equal(example["image"], plain["image"][-1])
        np.testing.assert_array_equal(example["object"], plain["mask"][-1])
        np.testing.assert_array_equal(example["parts"], plain["parts"][-1])


def test_the_cosine_of_the_skins_is_the_cosine():
    turns = np.random.default_rng(0).uniform(-40, 40, 100_000).astype(np.float32)
    np.testing.assert_allclose(creatures.cosine(turns), np.cos(2 * np.pi * turns.astype(float)), atol=1e-6)
