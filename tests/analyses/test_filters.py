"""First-layer filters: gratings fall in their band, dots on a grid are aliased, one strong filter dominates."""

import numpy as np
import pytest

import zfjax
from zfjax.analyses import filters

RNG = np.random.default_rng(0)


def grating(fy, fx, size=64, phase=0.3, colour=(1.0, 1.0, 1.0)):
    """One filter [size, size, 3, 1]: a cosine of (fy, fx) cycles per pixel."""
    y, x = np.mgrid[:size, :size]
    return (np.cos(2 * np.pi * (fy * y + fx * x) + phase)[..., None] * np.array(colour))[..., None]


def of_rms(*values):
    """Filters [4, 4, 3, N] with these RMS."""
    kernel = RNG.normal(size=(4, 4, 3, len(values)))
    return kernel / np.sqrt(np.mean(kernel**2, axis=(0, 1, 2))) * np.array(values)


def pictures_of(kernel):
    return np.moveaxis(kernel, -1, 0)


def test_dominance_is_the_strongest_filter_against_the_median_and_against_all():
    result = filters.dominance(of_rms(1, 1, 3, 1, 1).astype(np.float32))
    assert result.largest_over_median == pytest.approx(3, rel=1e-5)
    assert result.energy_share == pytest.approx(9 / 13, rel=1e-5)
    assert filters.dominance(of_rms(2, 2, 2, 2).astype(np.float32)) == pytest.approx((1, 1 / 4), rel=1e-5)


def test_renormalisation_ends_dominance():
    kernel = of_rms(0.2, 0.3, 5.0, 0.12).astype(np.float32)
    assert filters.dominance(kernel).largest_over_median == pytest.approx(20, rel=1e-5)
    clipped = zfjax.renormalize({"conv1": {"kernel": kernel}})["conv1"]["kernel"]
    assert filters.dominance(clipped) == pytest.approx((1, 1 / 4), rel=1e-5)


def test_dead_by_weight_is_below_a_twentieth_of_the_median():
    kernel = of_rms(1, 0.04, 0.06, 1, 7, 0, 1).astype(np.float32)
    assert filters.weak(kernel).tolist() == [False, True, False, False, False, True, False]
    assert filters.weak(100 * kernel, below=0.07).tolist() == [False, True, True, False, False, True, False]


def test_a_gratings_energy_lies_in_its_ring():
    kernel = np.concatenate([grating(0, 12 / 64), grating(9 / 64, 12 / 64), grating(0, 0), grating(0, 0) * 0], axis=-1)
    spectrum = filters.radial_spectrum(kernel)
    np.testing.assert_allclose(spectrum.frequencies[[0, 12, 15]], [0, 12 / 64, 15 / 64])
    expected = np.zeros_like(spectrum.energy)
    expected[0, 12] = expected[1, 15] = expected[2, 0] = 1
    np.testing.assert_allclose(spectrum.energy, expected, atol=1e-12)


def test_bands_meet_at_the_limits_of_stride_4_and_stride_2():
    oblique = [grating(5 / 64, 6 / 64), grating(11 / 64, -11 / 64)]  # 7.8 / 64 and 15.6 / 64 cycles per pixel
    kernel = np.concatenate([grating(f / 64, 0) for f in (0, 7, 8, 15, 16, 31)] + oblique, axis=-1)
    result = filters.band_energy(kernel)
    np.testing.assert_allclose(result["low"], [1, 1, 0, 0, 0, 0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(result["middle"], [0, 0, 1, 1, 0, 0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(result["high"], [0, 0, 0, 0, 1, 1, 0, 0], atol=1e-12)


def test_two_gratings_share_the_energy_by_their_squares_whatever_their_colours():
    mixed = grating(0, 4 / 64, colour=(3, 0, 0)) + grating(20 / 64, 0, colour=(0, 0, 1))
    result = filters.band_energy(mixed)
    assert (result["low"][0], result["middle"][0], result["high"][0]) == pytest.approx((0.9, 0, 0.1))


@pytest.mark.parametrize("size", [7, 11])
def test_small_filters_of_both_nets_peak_where_their_grating_lies(size):
    frequencies = np.array([0.17, 0.2, 0.3])
    kernel = np.concatenate([grating(0, f, size) for f in frequencies], axis=-1)
    np.testing.assert_allclose(filters.peak_frequency(kernel), frequencies, atol=1.5 / 64)
    result = filters.band_energy(kernel)
    assert result["middle"][0] > 0.6 and result["middle"][1] > 0.6 and result["high"][2] > 0.7


def test_a_frame_of_zeros_changes_no_spectrum():
    kernel = RNG.normal(size=(7, 7, 3, 5))
    framed = np.pad(kernel, ((2, 2), (2, 2), (0, 0), (0, 0)))
    np.testing.assert_allclose(filters.radial_spectrum(framed).energy, filters.radial_spectrum(kernel).energy)
    np.testing.assert_allclose(filters.peak_frequency(framed), filters.peak_frequency(kernel))


def test_a_picture_larger_than_the_transform_has_the_same_rings():
    spectrum = filters.radial_spectrum(grating(0, 12 / 64, size=128))
    np.testing.assert_allclose(spectrum.energy[0, 12], 1)
    assert filters.aliased_energy(grating(0, 12 / 64, size=128), 4) == pytest.approx(1)


def test_energy_beyond_half_the_grids_frequency_is_aliased():
    filter_of_blocks = np.kron((np.add.outer(np.arange(16), np.arange(16)) % 2) * 2.0 - 1, np.ones((4, 4)))
    fundamental = 1 / (8 * np.sin(np.pi / 8) ** 2)  # share of a square wave of 4 + 4 pixels, in each direction
    result = filters.aliased_energy(filter_of_blocks[:, :, None, None], 4)
    assert result == pytest.approx(1 - fundamental**2) and result > 0.25
    smooth = sum(grating(fy / 64, fx / 64) for fy, fx in [(1, 2), (0, 5), (7, 8), (8, -8)])
    np.testing.assert_allclose(filters.aliased_energy(smooth, 4), 0, atol=1e-12)


def test_the_limit_follows_the_stride_in_either_direction():
    for picture in (grating(0, 10 / 64), grating(10 / 64, 0), grating(-10 / 64, 3 / 64)):
        result = [filters.aliased_energy(picture, stride)[0] for stride in (1, 2, 3, 4, 8)]
        np.testing.assert_allclose(result, [0, 0, 0, 1, 1], atol=1e-12)  # 10/64 lies between 1/8 and 1/6
    assert filters.aliased_energy(np.zeros((8, 8, 3, 2)), 4).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: filters.dominance(np.ones((7, 7, 3))), r"kernel of shape \(7, 7, 3\): height, width, input maps"),
        (lambda: filters.radial_spectrum(np.ones((7, 7))), r"kernel of shape \(7, 7\): height, width, input maps"),
        (lambda: filters.dominance(of_rms(0, 0, 1)), r"kernel of shape \(4, 4, 3, 3\): at least half of its filters"),
        (lambda: filters.aliased_energy(np.ones((8, 8, 3, 1)), 0), "stride=0: at least 1 pixel"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(("side", "stride"), [(7, 2), (11, 4)])
def test_white_noise_is_aliased_by_its_stride_alone(side, stride):
    noise = np.random.default_rng(0).normal(size=(side, side, 3, 400))
    expected = filters.aliased_by_noise(stride)
    assert filters.aliased_energy(noise, stride).mean() == pytest.approx(expected, abs=0.005)
    inside = (2 * (64 // (2 * stride)) + 1) / 64  # of 64 frequencies in each direction
    assert expected == pytest.approx(1 - inside**2)
