"""Kernel coordinates stand for the features that they were made of, in bounded memory."""

import itertools
import mmap
import tracemalloc

import numpy as np
import pytest

from zfjax.transfer import linear_models

NUM, DIM, CLASSES = 60, 7, 3
LABELS = np.arange(NUM) % CLASSES
FEATURES = (np.random.default_rng(0).normal(size=(NUM, DIM)) + 1.2 * np.eye(DIM)[LABELS]).astype(np.float32)
TARGETS = linear_models.targets_of(LABELS, CLASSES)


def test_gram_matrix_is_added_up_over_blocks_of_features_and_rows(tmp_path):
    sizes = {"block_bytes": 4 * NUM * 3, "rows": 25}  # three features at a time, one in the last block
    np.save(tmp_path / "features.npy", FEATURES)
    seen = []
    gram = linear_models.gram_matrix(np.load(tmp_path / "features.npy", mmap_mode="r"), seen.append, **sizes)
    assert seen == [3, 3, 1]
    centred = FEATURES - FEATURES.mean(axis=0)
    np.testing.assert_allclose(gram, centred @ centred.T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("order", ["C", "F"])
def test_gram_matrix_of_a_part_of_a_file_is_that_of_its_rows(tmp_path, order):
    np.save(tmp_path / "features.npy", np.asarray(FEATURES, order=order))
    part = np.load(tmp_path / "features.npy", mmap_mode="r")[5:, 2:]
    gram = linear_models.gram_matrix(part, block_bytes=4 * len(part) * 3)
    np.testing.assert_array_equal(gram, linear_models.gram_matrix(FEATURES[5:, 2:], block_bytes=4 * len(part) * 3))


@pytest.mark.skipif(not hasattr(mmap, "MADV_WILLNEED"), reason="this system has no madvise")
def test_of_a_file_each_block_of_each_row_is_asked_for_and_no_more(tmp_path):
    """What the system would read ahead by itself is the rest of the row, and of a large file lost before its turn."""
    asked = []

    class Spied(mmap.mmap):
        def madvise(self, *of):
            asked.append(of)
            super().madvise(*of)

    num_features = 5 * mmap.PAGESIZE
    np.zeros((3, num_features), np.float32).tofile(tmp_path / "features")
    with open(tmp_path / "features", "rb") as file:
        pages = Spied(file.fileno(), 0, access=mmap.ACCESS_READ)
    features = np.frombuffer(pages, np.float32).reshape(3, -1).view(np.memmap)
    features._mmap = pages  # noqa: SLF001  as numpy.load sets it
    half = num_features // 2
    linear_models.gram_matrix(features, block_bytes=4 * 3 * half)
    for (option, start, length), (block, row) in zip(asked, itertools.product(range(2), range(3)), strict=True):
        first = 4 * (row * num_features + block * half)
        assert option == mmap.MADV_WILLNEED and start % mmap.PAGESIZE == 0
        assert start <= first < start + mmap.PAGESIZE and start + length == first + 4 * half


@pytest.mark.parametrize("num_train", [40, 6])  # more images than features, and fewer
def test_kernel_coordinates_have_the_inner_products_of_normalized_features(num_train):
    short, outside, train, test = both_ways(num_train)
    np.testing.assert_allclose(short @ short.T, train @ train.T, atol=2e-4)
    np.testing.assert_allclose(outside @ short.T, test @ train.T, atol=2e-4)


def test_kernel_coordinates_give_the_same_classifier():
    short, outside, train, test = both_ways(6)
    direct, kernel = (linear_models.fit(x, TARGETS[:6], 0.01, loss="svm", tolerance=1e-8) for x in (train, short))
    theirs = linear_models.scores(direct, test)
    np.testing.assert_allclose(linear_models.scores(kernel, outside), theirs, atol=5e-3 * np.abs(theirs).max())


def both_ways(num_train):
    """Coordinates by the Gram matrix, and normalised features."""
    gram, chosen = linear_models.gram_matrix(FEATURES), np.arange(num_train)
    coordinates = linear_models.kernel_coordinates(gram[chosen][:, chosen], gram[40:][:, chosen])
    return *coordinates, *linear_models.normalized(FEATURES[chosen], FEATURES[40:])


def test_identical_images_have_coordinates_too():
    gram = np.ones((3, 3), np.float32)
    train, test = linear_models.kernel_coordinates(gram, gram[:1])
    np.testing.assert_allclose(train, 0.01 * np.eye(3), rtol=1e-6)
    assert not test.any()


def test_test_images_come_in_blocks_and_their_coordinates_are_the_closed_form():
    """L^-1 k by a general solver, all at once."""
    features = np.random.default_rng(3).normal(size=(30, 9))
    gram = (features @ features.T).astype(np.float32)
    train, test = gram[:20, :20], gram[20:, :20]
    lower, outside = linear_models.kernel_coordinates(train, test, rows=4)
    centred = features - features[:20].mean(axis=0)
    inner = centred @ centred[:20].T
    scale = np.trace(inner[:20]) / 20
    expected = np.linalg.cholesky(inner[:20] / scale + 1e-4 * np.eye(20))
    np.testing.assert_allclose(lower, expected, atol=2e-4)
    np.testing.assert_allclose(outside, np.linalg.solve(expected, inner[20:].T / scale).T, atol=2e-4)
    assert lower.dtype == outside.dtype == np.float32 and lower.flags.c_contiguous
    np.testing.assert_array_equal(np.triu(lower, 1), 0)


def test_arguments_stay_as_they_are_and_one_matrix_of_float64_is_made():
    """Of n training and n test images: 8 n^2 bytes of float64 beside the results, 4 n^2 each; rows need little."""
    num = 400
    features = np.random.default_rng(4).normal(size=(2 * num, 20)).astype(np.float32)
    train, test = features[:num] @ features[:num].T, features[num:] @ features[:num].T
    kept = train.copy(), test.copy()
    linear_models.kernel_coordinates(train, test, rows=16)
    tracemalloc.start()
    linear_models.kernel_coordinates(train, test, rows=16)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 18.5 * num**2
    np.testing.assert_array_equal(train, kept[0])
    np.testing.assert_array_equal(test, kept[1])


@pytest.mark.parametrize("spoilt", [np.diag([1.0, np.nan, 1.0]), np.diag([1.0, -1.0, 1.0]), np.full((3, 3), np.inf)])
def test_what_is_no_matrix_of_inner_products_is_refused(spoilt):
    with np.errstate(invalid="ignore"), pytest.raises(ValueError, match="train: inner products of finite features"):
        linear_models.kernel_coordinates(spoilt.astype(np.float32), np.ones((1, 3), np.float32))


def test_test_images_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="test: inner products of finite features are needed"):
        linear_models.kernel_coordinates(np.eye(3, dtype=np.float32), np.full((1, 3), np.nan, np.float32))
