"""Annealing: the rule that stands for the paper's hand, and the cosine."""

import dataclasses
import math

import pytest

from zfjax.training import Annealing, Recipe, anneal, replanned

PLATEAU = Recipe(learning_rate=0.01, patience=3)
COSINE = Recipe(learning_rate=0.01, annealing="cosine", num_epochs=8)


def rates(errors, recipe=PLATEAU):
    """The learning rate after each epoch with these validation errors."""
    annealing, seen = Annealing.start(recipe), []
    for error in errors:
        annealing = anneal(annealing, error, recipe)
        seen.append(annealing.learning_rate)
    return seen


def test_the_rate_drops_tenfold_after_as_many_epochs_without_progress_as_patience_and_not_before():
    assert rates([0.5, 0.5, 0.6, 0.5]) == pytest.approx([0.01, 0.01, 0.01, 0.001])


def test_progress_starts_the_waiting_anew():
    assert rates([0.5, 0.5, 0.5, 0.4, 0.4, 0.4]) == [0.01] * 6
    assert rates([0.5, 0.5, 0.5, 0.4, 0.4, 0.4, 0.4])[-1] == pytest.approx(0.001)


@pytest.mark.parametrize(("gain", "counts"), [(0.0011, True), (0.0009, False)])
def test_only_a_tenth_of_a_percentage_point_is_progress(gain, counts):
    assert (rates([0.5, 0.5, 0.5, 0.5 - gain])[-1] == 0.01) == counts


def test_small_gains_add_up_to_progress():
    assert rates([0.5, 0.4996, 0.4992, 0.4988, 0.4988]) == [0.01] * 5


def test_after_a_drop_the_best_error_counts_anew():
    annealing = Annealing(0.01, epoch=4, best_error=0.3, epochs_since_best=2)
    dropped = anneal(annealing, 0.4, PLATEAU)
    assert dropped == Annealing(dropped.learning_rate, epoch=5, best_error=math.inf, epochs_since_best=0)
    assert dropped.learning_rate == pytest.approx(0.001)
    assert anneal(dropped, 0.39, PLATEAU).best_error == 0.39


def test_the_rate_never_falls_below_a_thousandth_of_the_first():
    seen = rates([0.5] * 40)
    assert min(seen) == seen[-1] == pytest.approx(1e-5)
    assert sorted(set(seen), reverse=True) == pytest.approx([1e-2, 1e-3, 1e-4, 1e-5])


def test_an_error_that_is_not_a_number_is_no_progress():
    assert rates([math.nan] * 3)[-1] == pytest.approx(0.001)


def test_the_cosine_falls_from_the_rate_through_its_half_to_zero_whatever_the_error():
    seen = rates([0.5] * 8, COSINE)
    assert Annealing.start(COSINE).learning_rate == 0.01
    assert seen == rates([0.1 * k for k in range(8)], COSINE)
    assert seen[3] == pytest.approx(0.005) and seen[7] == pytest.approx(0, abs=1e-18)
    assert seen == sorted(seen, reverse=True)


def test_annealing_is_a_function_of_what_a_checkpoint_holds():
    errors = [0.5, 0.5, 0.48, 0.49, 0.49, 0.49, 0.3]
    annealing = Annealing.start(PLATEAU)
    for error in errors:
        annealing = anneal(Annealing(**dataclasses.asdict(annealing)), error, PLATEAU)
    assert annealing.learning_rate == rates(errors)[-1] and annealing.epoch == len(errors)


def test_the_cosine_goes_on_from_a_rate_given_by_hand():
    halfway = Annealing(0.02, epoch=4)
    assert anneal(halfway, 0.5, COSINE).learning_rate == pytest.approx(0.02 * (1 + math.cos(math.pi * 5 / 8)))


def test_a_cosine_of_more_epochs_goes_on_where_that_curve_stands_by_now():
    longer = dataclasses.replace(COSINE, num_epochs=12)
    annealing = longer_annealing = Annealing.start(COSINE)
    for _ in range(7):
        annealing, longer_annealing = anneal(annealing, 0.5, COSINE), anneal(longer_annealing, 0.5, longer)
    planned = replanned(annealing, COSINE, 12)
    assert planned == dataclasses.replace(annealing, learning_rate=planned.learning_rate)
    assert planned.learning_rate == pytest.approx(longer_annealing.learning_rate)
    assert replanned(annealing, COSINE, 8) == annealing and replanned(annealing, PLATEAU, 100) == annealing


def test_a_cosine_that_came_to_its_end_goes_on_along_the_longer_one():
    annealing, longer = Annealing.start(COSINE), Annealing.start(COSINE)
    for _ in range(8):
        annealing = anneal(annealing, 0.5, COSINE)
        longer = anneal(longer, 0.5, dataclasses.replace(COSINE, num_epochs=12))
    assert annealing.learning_rate == 0
    assert replanned(annealing, COSINE, 12).learning_rate == pytest.approx(longer.learning_rate)
