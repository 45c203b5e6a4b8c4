"""Shares and weights of datasets in a batch."""

import numpy as np
import pytest
import torch
from recorded_data import read, record

from lerobot_rlft.configs.train import load_policy_config
from lerobot_rlft.datasets.mixing import make_mixed, resampled
from lerobot_rlft.policies.conditioning import LABEL
from lerobot_rlft.utils.errors import UserError


@pytest.fixture(scope="module")
def policy(base_policy):
    return load_policy_config(str(base_policy), [])


def test_resampling_by_weight():
    rows = torch.tensor([3, 5, 8, 9])
    weights = torch.zeros(10)
    weights[rows] = 1
    assert resampled(rows, weights, seed=0).tolist() == [3, 5, 8, 9], "equal weights change nothing"
    weights[8] = 0
    assert 8 not in resampled(rows, weights, 0) and len(resampled(rows, weights, 0)) == 4
    weights[[3, 5, 8, 9]] = torch.tensor([2.0, 1.0, 1.0, 0.0])
    assert resampled(rows, weights, 0).tolist() == [3, 3, 5, 8]
    counts = torch.stack(
        [
            torch.bincount(resampled(torch.arange(3), torch.tensor([0.5, 2.0, 0.5]), s), minlength=3)
            for s in range(200)
        ]
    ).float()
    assert counts.mean(0).tolist() == pytest.approx([0.5, 2, 0.5], abs=0.1)
    assert counts[:, 0].max() == 1 and set(counts[:, 1].tolist()) <= {1, 2, 3}


@pytest.fixture
def three(policy, tmp_path):
    demos = read(record(tmp_path / "d", (20,)), policy, demonstration=True)
    small, large = (read(record(tmp_path / str(n), (n,), seed=n), policy) for n in (10, 30))
    return [demos, small, large]


def mixed(datasets, policy, weights=None, fraction=0.5, labels=None):
    sizes = [len(d.index) for d in datasets]
    labels = labels or [np.full(size, i % 3) for i, size in enumerate(sizes)]
    weights = weights or [np.ones(size) for size in sizes]
    return make_mixed(datasets, labels, weights, policy, 16, fraction, seed=1)


def counts(loader):
    return torch.bincount(next(loader)[LABEL], minlength=3).tolist()


def test_the_share_of_demonstrations(three, policy):
    assert counts(mixed(three, policy)) == [8, 2, 6]
    assert counts(mixed(three, policy, fraction=0.75)) == [12, 1, 3]
    assert counts(mixed(three, policy, fraction=0.0)) == [0, 4, 12]
    assert counts(mixed(three[:1], policy)) == [16, 0, 0], "alone, they are all there is"
    assert counts(mixed(three[1:], policy, labels=[np.full(10, 1), np.full(30, 2)])) == [0, 4, 12]
    weights = [np.ones(20), np.full(10, 3.0), np.ones(30)]
    assert counts(mixed(three, policy, weights)) == [8, 4, 4]
    weights = [np.ones(20), np.zeros(10), np.ones(30)]
    assert counts(mixed(three, policy, weights)) == [8, 0, 8]
    with pytest.raises(UserError, match="no frame is left to learn from"):
        mixed(three, policy, [np.zeros(20), np.zeros(10), np.zeros(30)])


def test_a_label_stays_with_its_frame(three, policy):
    labels = [np.arange(20) % 3, np.zeros(10, int), np.zeros(30, int)]
    loader = mixed(three[:1], policy, labels=labels[:1])
    states = three[0].windows.columns["observation.state"]
    batch = next(loader)
    assert set(batch) == {
        "observation.state", "observation.state_is_pad", "observation.environment_state",
        "observation.environment_state_is_pad", "action", "action_is_pad", "task", LABEL,
    }  # fmt: skip
    for state, label in zip(batch["observation.state"][:, -1], batch[LABEL].tolist(), strict=True):
        (row,) = (states == state).all(1).nonzero()[:, 0].tolist()
        assert label == labels[0][row]
    assert batch["task"] == ["task"] * 16


def test_it_continues_where_it_was(three, policy):
    loader = mixed(three, policy)
    for _ in range(5):
        next(loader)
    state = loader.state_dict()
    expected = [next(loader)["action"] for _ in range(4)]
    again = mixed(three, policy)
    again.load_state_dict({int(k): v for k, v in state.items()})  # as a checkpoint gives it back
    assert all(torch.equal(next(again)["action"], action) for action in expected)
    with pytest.raises(ValueError, match="the state is of 1 datasets, there are 3"):
        again.load_state_dict({0: state["0"]})
