"""Two samples: by hand, in known cases and against independent libraries."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from prdc import compute_prdc
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import PredefinedSplit, cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from lerobot_rlft.metrics.points import shuffled
from lerobot_rlft.metrics.spread import mean_pairwise_distance
from lerobot_rlft.metrics.two_sample import (
    classifier_accuracy,
    coverage_and_recall,
    energy_distance,
    mmd,
    nearest_neighbours,
)


def normal(n, features, seed=0, shift=0.0):
    return np.random.default_rng(seed).standard_normal((n, features)) + shift


def test_coverage_and_recall_by_hand():
    # Reference radii with k = 1: 1, 1, 8. Sample radii: .5, .5, 19.
    reference = torch.tensor([[0.0], [1], [9]], dtype=torch.float64)
    samples = torch.tensor([[0.0], [0.5], [19.5]], dtype=torch.float64)
    # 0 and 1 have a sample nearer than 1, 9 has none nearer than 8 (.5 is 8.5 away).
    # 0 lies within .5 of 0; 1 lies at .5 of .5, not nearer; but 19 around 19.5 reaches from .5, so 1 and 9.
    assert coverage_and_recall(reference, samples, 1) == (pytest.approx(2 / 3), 1)
    assert coverage_and_recall(reference, samples[:2], 1) == (pytest.approx(2 / 3), pytest.approx(1 / 3))


@pytest.mark.parametrize("k", [1, 5])
def test_coverage_and_recall_agree_with_prdc(k, capsys):
    reference, samples = normal(80, 3), normal(70, 3, seed=1, shift=0.8)
    expected = compute_prdc(reference, samples, nearest_k=k)
    found = coverage_and_recall(torch.tensor(reference), torch.tensor(samples), k)
    assert found == (pytest.approx(expected["coverage"]), pytest.approx(expected["recall"]))


def test_neighbours_show_a_lost_mode_and_the_control_does_not():
    base = normal(400, 2)
    base[::2, 0] += 20
    tuned = normal(300, 2, seed=1)  # kept one of two modes
    found = nearest_neighbours(tuned, base)
    assert found.samples == 200
    assert 0.9 < found.control_coverage < 1 and 0.9 < found.control_recall < 1  # other samples, not the same
    assert 0.4 < found.coverage < 0.6 and 0.4 < found.recall < 0.6
    same = nearest_neighbours(base, base[::-1].copy(), max_samples=100)
    assert same.samples == 100 and same.recall == pytest.approx(same.control_recall, abs=0.1)


def test_energy_distance_by_hand_and_scipy():
    # Across: 2, 4, 1, 3, mean 2.5; within: 1 and 2.
    assert energy_distance(np.array([0.0, 1]), np.array([2.0, 4])) == (pytest.approx(2), 2)
    a, b = normal(60, 1), normal(60, 1, seed=1, shift=0.7)
    # scipy keeps the pairs of a sample with itself and takes the root.
    with_self = (mean_pairwise_distance(a).value + mean_pairwise_distance(b).value) / 60
    scipys = scipy.stats.energy_distance(a[:, 0], b[:, 0]) ** 2
    assert energy_distance(a, b).value + with_self == pytest.approx(scipys)


def test_mmd_by_hand_and_sklearn():
    # Width 1: within e^-.5 each (distance 1), across distances 0, 1, 1, 0.
    s = math.exp(-0.5)
    pair = np.array([0.0, 1])
    assert mmd(pair, pair, bandwidth=1) == (pytest.approx(2 * s - 2 * (2 + 2 * s) / 4), 2)
    a, b = normal(50, 3), normal(50, 3, seed=1, shift=0.5)
    kernel = rbf_kernel(np.vstack([a, b]), gamma=1 / (2 * 1.3**2))
    off = ~np.eye(50, dtype=bool)
    expected = kernel[:50, :50][off].mean() + kernel[50:, 50:][off].mean() - 2 * kernel[:50, 50:].mean()
    assert mmd(a, b, bandwidth=1.3).value == pytest.approx(expected)


@pytest.mark.parametrize("distance", [energy_distance, mmd])
def test_distances_are_zero_on_average_for_equal_distributions(distance):
    same = [distance(normal(40, 2, 2 * i), normal(40, 2, 2 * i + 1)).value for i in range(200)]
    assert abs(np.mean(same)) < 3 * np.std(same) / math.sqrt(200)
    assert min(same) < 0
    assert distance(normal(40, 2), normal(40, 2, 1, shift=1)).value > max(same)


def test_classifier_tells_what_differs():
    same = classifier_accuracy(normal(300, 2), normal(300, 2, seed=1))
    assert same.low < 0.5 < same.high and same.samples == 300
    apart = classifier_accuracy(normal(30, 2), normal(30, 2, seed=1, shift=20))
    assert (apart.accuracy, apart.high) == (1, pytest.approx(1))
    assert classifier_accuracy(np.zeros((10, 2)), np.zeros((10, 2))).accuracy == 0.5
    # Two unit Gaussians 2 apart: the best classifier reaches Phi(1).
    assert classifier_accuracy(normal(1000, 1), normal(1000, 1, seed=1, shift=2)).accuracy == pytest.approx(
        scipy.stats.norm.cdf(1), abs=0.025
    )


@pytest.mark.parametrize("shift", [0, 1, 2])
def test_the_interval_of_the_classifier_covers_its_mean(shift):
    told = [classifier_accuracy(normal(60, 2, i), normal(60, 2, 999 - i, shift)) for i in range(200)]
    mean = np.mean([each.accuracy for each in told])
    assert np.mean([each.low <= mean <= each.high for each in told]) >= 0.92
    # Of 2 N independent votes it would be too narrow.
    assert np.std([each.accuracy for each in told]) > 1.05 * np.sqrt(mean * (1 - mean) / 120)


def test_classifier_agrees_with_sklearn():
    a, b = normal(50, 3), normal(50, 3, seed=1, shift=0.6)
    points = np.vstack([shuffled(torch.tensor(a), 0), shuffled(torch.tensor(b), 1)])
    scores = cross_val_score(
        KNeighborsClassifier(7),  # the root of 80 is 8.9, and 8 is even
        points,
        np.repeat((0, 1), 50),
        cv=PredefinedSplit(np.tile(np.arange(50) % 5, 2)),
    )
    assert classifier_accuracy(a, b).accuracy == pytest.approx(scores.mean())


def test_both_sides_are_cut_to_the_same_number():
    a, b = normal(90, 2), normal(40, 2, seed=1)
    assert mmd(a, b).samples == energy_distance(b, a).samples == classifier_accuracy(a, b).samples == 40
    assert mmd(a, b, max_samples=15).samples == 15
    assert mmd(a, b) == mmd(a, b) != mmd(a, b, seed=3)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: mmd(normal(5, 2), normal(5, 3)), "tuned has 2 features and base 3"),
        (lambda: mmd(normal(1, 2), normal(5, 2)), r"tuned has shape \(1, 2\)"),
        (lambda: mmd(normal(5, 2), np.full((5, 2), np.inf)), "base holds NaN or infinity in 5 of 5"),
        (lambda: mmd(np.ones((4, 1)), np.ones((4, 1))), "give `bandwidth`"),
        (lambda: energy_distance(normal(5, 2), normal(5, 2), max_samples=1), "max_samples=1 is too few"),
        (lambda: nearest_neighbours(normal(9, 2), normal(3, 2)), r"base has shape \(3, 2\): give at least 4"),
        (lambda: nearest_neighbours(normal(9, 2), normal(10, 2)), "k=5 must lie between 1 and 4"),
        (lambda: nearest_neighbours(normal(9, 2), normal(10, 3), k=1), "2 features and base 3"),
        (lambda: classifier_accuracy(normal(9, 2), normal(9, 2), folds=1), "folds=1"),
        (lambda: classifier_accuracy(normal(4, 2), normal(9, 2)), "tuned has shape .* at least 5 rows"),
    ],
)
def test_bad_samples_name_the_argument_and_the_fix(call, message):
    with pytest.raises(ValueError, match=message):
        call()
