"""Spread of one sample: by hand, in known cases and against independent libraries."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from scipy.special import digamma
from sklearn.metrics.pairwise import rbf_kernel
from vendi_score import vendi

from lerobot_rlft.metrics.spread import (
    manifold_dimension,
    mean_pairwise_distance,
    nearest_neighbour_entropy,
    num_peaks,
    residual_ratio,
    spread_ratio,
    vendi_score,
)

TRIANGLE = np.array([[0.0, 0], [3, 0], [0, 4]])  # sides 3, 4, 5


def normal(n, features, seed=0):
    return np.random.default_rng(seed).standard_normal((n, features))


def peaks_at(centres, n, features, distance, seed=0):
    """n samples around `centres` corners of a simplex, `distance` standard deviations from each other."""
    points = normal(n, features, seed)
    corner = np.random.default_rng(seed + 1).integers(centres, size=n)
    points[np.arange(n), corner] += distance / math.sqrt(2)
    return points


def test_mean_pairwise_distance_by_hand_and_scipy():
    assert mean_pairwise_distance(TRIANGLE) == (pytest.approx(4), 3)
    chunks = normal(30, 12).reshape(30, 4, 3)
    assert mean_pairwise_distance(torch.tensor(chunks)).value == pytest.approx(
        pdist(chunks.reshape(30, 12)).mean()
    )


def test_at_most_max_samples_are_used_and_the_draw_repeats():
    points = normal(50, 2)
    state = torch.get_rng_state()
    used = mean_pairwise_distance(points, max_samples=10)
    assert used.samples == 10
    assert used == mean_pairwise_distance(points, max_samples=10)
    assert used != mean_pairwise_distance(points, max_samples=10, seed=1)
    assert torch.equal(torch.get_rng_state(), state)


def test_spread_ratio_by_hand():
    base = np.stack([TRIANGLE, 2 * TRIANGLE])[:, :, None]  # means 4 and 8
    tuned = np.stack([TRIANGLE, 0 * TRIANGLE])[:, :, None] / 2  # means 2 and 0
    assert spread_ratio(tuned, base) == (pytest.approx(2 / 12), 3)


@pytest.mark.parametrize("centres", [1, 2, 5])
@pytest.mark.parametrize("features", [2, 64])
def test_peaks_are_counted(centres, features):
    if features == 2 and centres == 5:
        angle = 2 * np.pi * np.random.default_rng(0).integers(5, size=200) / 5
        points = 8 * np.stack([np.cos(angle), np.sin(angle)], 1) + normal(200, 2)
    else:
        points = peaks_at(centres, 200, features, 10)
    assert num_peaks(points) == (centres, 200)


def test_no_peak_is_invented():
    angle = np.random.default_rng(0).random(128) * 2 * np.pi
    ring = np.stack([np.cos(angle), np.sin(angle)], 1) + 0.1 * normal(128, 2)
    heavy = normal(128, 16) / np.sqrt(np.random.default_rng(1).chisquare(3, (128, 1)) / 3)
    for points in (ring, heavy, np.zeros((30, 4)), *(normal(128, 3, seed) for seed in range(5))):
        assert num_peaks(points).value == 1


def test_a_few_far_samples_are_no_peak():
    points = normal(100, 4)
    points[:6] += 30
    assert num_peaks(points).value == 1
    points[6:12] += 30  # twelve are
    assert num_peaks(points).value == 2


def test_close_peaks_in_many_dimensions_are_not_merged():
    assert num_peaks(peaks_at(5, 256, 64, 8.5)).value == 5


def test_a_nearly_deterministic_policy_with_two_choices_has_two_peaks():
    choice = np.arange(64)[:, None] % 2
    assert num_peaks(np.hstack([choice, -choice, choice]).astype(float)).value == 2


def test_residual_ratio_by_hand():
    assert residual_ratio(np.array([2.0, 4]), np.array([1.0, 1])) == 3
    assert residual_ratio(np.array([[1.0, 2], [3, 6]]), np.array([2.0, 1, 3])) == pytest.approx(1.5)


def test_vendi_score_counts_distinct_samples():
    far = 100 * np.eye(7)
    assert vendi_score(far, bandwidth=1).value == pytest.approx(7)
    assert vendi_score(np.repeat(far, 3, 0), bandwidth=1).value == pytest.approx(7)
    assert vendi_score(np.zeros((5, 2)), bandwidth=1).value == pytest.approx(1)
    # Two samples with similarity s: eigenvalues (1 +- s) / 2.
    s = math.exp(-0.5)
    expected = math.exp(-sum(v * math.log(v) for v in ((1 + s) / 2, (1 - s) / 2)))
    assert vendi_score(np.array([[0.0], [1.0]])).value == pytest.approx(expected)


def test_vendi_score_agrees_with_the_authors_library():
    points = normal(39, 5)  # an odd number of pairs, so that the median is one of them
    expected = vendi.score_K(rbf_kernel(points, gamma=1 / (2 * 1.7**2)))
    assert vendi_score(points, bandwidth=1.7) == (pytest.approx(expected), 39)
    at_median = vendi.score_K(rbf_kernel(points, gamma=1 / (2 * np.median(pdist(points)) ** 2)))
    assert vendi_score(points).value == pytest.approx(at_median)


def test_nearest_neighbour_entropy_by_hand():
    # Second neighbours of 0, 1, 3 are at 3, 2, 3; a ball in one dimension has volume 2.
    expected = digamma(3) - digamma(2) + math.log(2) + math.log(3 * 2 * 3) / 3
    assert nearest_neighbour_entropy(np.array([[0.0], [1], [3]]), k=2).value == pytest.approx(expected)
    # In the plane a ball has volume pi: triangle 3, 4, 5 with first neighbours at 3, 3, 4.
    expected = digamma(3) - digamma(1) + math.log(math.pi) + 2 / 3 * math.log(36)
    assert nearest_neighbour_entropy(TRIANGLE, k=1).value == pytest.approx(expected)


@pytest.mark.parametrize("features", [1, 2, 3])
def test_nearest_neighbour_entropy_of_a_gaussian(features):
    estimate = nearest_neighbour_entropy(3 * normal(2000, features), max_samples=2000)
    exact = features * (0.5 * math.log(2 * math.pi * math.e) + math.log(3))
    assert estimate == (pytest.approx(exact, abs=0.08), 2000)


def test_manifold_dimension_by_hand():
    # Drops of 1, 3, .9: the largest is the second, so 4 - 2; the largest quotient would be the third.
    assert manifold_dimension(np.diag([5, 4, 1, 0.1])) == 2


@pytest.mark.parametrize("dimension", [1, 3, 7])
def test_manifold_dimension_of_a_plane(dimension):
    # Scores of a plane at noise sigma are -(normal part) / sigma^2; a network adds a small error everywhere.
    noised = 0.01 * normal(32, 8)
    noised[:, :dimension] *= 0
    rotation = np.linalg.qr(normal(8, 8, seed=1))[0]
    assert manifold_dimension((-noised / 0.01**2 + normal(32, 8, seed=2)) @ rotation) == dimension


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: mean_pairwise_distance(np.zeros((1, 3))), r"points has shape \(1, 3\): give at least 2"),
        (lambda: mean_pairwise_distance(np.zeros((3, 0))), "give at least 2 rows"),
        (lambda: mean_pairwise_distance(np.array([[1.0], [np.nan]])), "points holds NaN .* 1 of 2 rows"),
        (lambda: mean_pairwise_distance(TRIANGLE, max_samples=1), "max_samples=1 is too few"),
        (
            lambda: spread_ratio(np.zeros((2, 3, 1)), np.zeros((2, 4, 1))),
            r"\(2, 3, 1\) and base_chunks \(2, 4",
        ),
        (lambda: spread_ratio(np.full((1, 2, 1), np.nan), np.zeros((1, 2, 1))), "chunks holds NaN"),
        (lambda: spread_ratio(np.ones((2, 3, 1)), np.ones((2, 3, 1))), "no spread to keep"),
        (lambda: num_peaks(normal(19, 2)), "at least 20 rows"),
        (lambda: num_peaks(normal(30, 1)), "one feature: give whole chunks"),
        (lambda: residual_ratio(np.array([1.0, -1]), np.ones(2)), "residuals holds -1: give squared"),
        (lambda: residual_ratio(np.ones(2), np.zeros(2)), "base_residuals are all 0"),
        (lambda: vendi_score(np.ones((4, 2))), "give `bandwidth`"),
        (lambda: vendi_score(TRIANGLE, bandwidth=0), "bandwidth=0 must be positive"),
        (lambda: nearest_neighbour_entropy(TRIANGLE, k=3), "k=3 must lie between 1 and 2"),
        (
            lambda: nearest_neighbour_entropy(np.array([[0.0, 1], [0, 2], [0, 4]]), k=1),
            r"features \[0\]: drop",
        ),
        (lambda: nearest_neighbour_entropy(np.array([[0.0], [0], [1]]), k=1), "more than k=1 identical rows"),
        (lambda: manifold_dimension(normal(3, 4)), "3 rows of 4 features: draw at least 16"),
        (lambda: manifold_dimension(normal(3, 1)), "1 feature"),
        (lambda: manifold_dimension(np.zeros((4, 2))), "scores are all 0"),
    ],
)
def test_bad_samples_name_the_argument_and_the_fix(call, message):
    with pytest.raises(ValueError, match=message):
        call()
