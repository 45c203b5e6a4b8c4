"""Every iteration, and the reference episodes, have starts of their own."""

from itertools import combinations

import pytest

from lerobot_rlft.training.collector import iteration_seeds, reference_seeds


@pytest.mark.parametrize("seed", [0, 1000])
def test_no_two_of_the_streams_share_a_start(seed):
    sequences = [reference_seeds(seed), *(iteration_seeds(seed, i) for i in range(5))]
    streams = [set(sequence.generate_state(500).tolist()) for sequence in sequences]
    assert all(len(stream) == 500 for stream in streams)
    assert not any(a & b for a, b in combinations(streams, 2))


def test_another_seed_has_other_starts():
    first, second = (set(reference_seeds(seed).generate_state(500).tolist()) for seed in (0, 1))
    assert not first & second
