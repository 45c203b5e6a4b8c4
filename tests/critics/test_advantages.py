"""Advantages and schedules against numbers computed by hand."""

import math

import numpy as np
import pytest
import torch

from lerobot_rlft.critics.advantages import RewardScaler, clip_schedule, denoising_discount, gae

# Two episodes: three decisions up to a time limit, and two that end by themselves; 7 and 9 are garbage.
REWARD = torch.tensor([[1.0, 1.0], [2.0, 1.0], [3.0, 7.0]])
VALUE = torch.tensor([[0.5, 2.0], [1.0, 4.0], [1.5, 9.0]])
FINAL_VALUE = torch.tensor([4.0, 100.0])
TERMINATED = torch.tensor([False, True])
VALID = torch.tensor([[True, True], [True, True], [True, False]])


@pytest.mark.parametrize(
    "gae_lambda, advantage",
    [
        # deltas, discounted by gamma = .5: 1 + .5 - .5, 2 + .75 - 1, 3 + .5 * 4 - 1.5 | 1 + 2 - 2, 1 + 0 - 4
        (0.0, [[1.0, 1.0], [1.75, -3.0], [3.5, 0.0]]),
        # A1 = 1.75 + .25 * 3.5, A0 = 1 + .25 * 2.625 | A0 = 1 - .25 * 3
        (0.5, [[1.65625, 0.25], [2.625, -3.0], [3.5, 0.0]]),
        # discounted rewards and bootstrap less the value: 1 + 1 + .75 + .5 - .5, ... | 1 + .5 - 2, 1 - 4
        (1.0, [[2.75, -0.5], [3.5, -3.0], [3.5, 0.0]]),
    ],
)
def test_gae_by_hand(gae_lambda, advantage):
    found, target = gae(REWARD, VALUE, FINAL_VALUE, TERMINATED, VALID, gamma=0.5, gae_lambda=gae_lambda)
    torch.testing.assert_close(found, torch.tensor(advantage))
    torch.testing.assert_close(target, (torch.tensor(advantage) + VALUE) * VALID)


def test_only_a_time_limit_bootstraps():
    ended, _ = gae(REWARD, VALUE, FINAL_VALUE, torch.tensor([True, True]), VALID, 0.5, 0.0)
    assert ended[2, 0] == 3 - 1.5
    cut, _ = gae(REWARD, VALUE, FINAL_VALUE, torch.tensor([True, False]), VALID, 0.5, 0.0)
    assert cut[1, 1] == 1 + 0.5 * 100 - 4


def test_what_follows_an_episode_does_not_leak_into_it():
    other_reward, other_value = REWARD.clone(), VALUE.clone()
    other_reward[2, 1], other_value[2, 1] = -1e6, 1e6
    one = gae(REWARD, VALUE, FINAL_VALUE, TERMINATED, VALID, 0.9, 0.9)
    other = gae(other_reward, other_value, FINAL_VALUE, TERMINATED, VALID, 0.9, 0.9)
    torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_reward_scaler_has_the_variance_of_all_returns_so_far():
    rng, scaler, seen = np.random.default_rng(0), RewardScaler(0.8), []
    for longest in (4, 1, 6):
        reward = rng.normal(3, 2, (longest, 5)).astype(np.float32)
        length = rng.integers(1, longest + 1, 5)
        valid = np.arange(longest)[:, None] < length
        for episode in range(5):
            running = 0.0
            for r in reward[: length[episode], episode]:
                running = 0.8 * running + r
                seen.append(running)
        # The prior is worth 1e-4 returns of mean 0 and variance 1.
        total = len(seen) + 1e-4
        mean = sum(seen) / total
        variance = (1e-4 * (1 + mean**2) + sum((x - mean) ** 2 for x in seen)) / total
        scaled = scaler(torch.from_numpy(reward), torch.from_numpy(valid))
        np.testing.assert_allclose(scaled.numpy(), reward / math.sqrt(variance + 1e-8), rtol=1e-5)
        assert scaler.mean == pytest.approx(mean, rel=1e-5)


def test_reward_scaler_goes_on_from_its_state():
    torch.manual_seed(0)
    batches = [torch.randn(4, 3) for _ in range(3)]
    valid = torch.ones(4, 3, dtype=torch.bool)
    one, other = RewardScaler(0.9), RewardScaler(0.9)
    one(batches[0], valid)
    one(batches[1], valid)
    other.load_state_dict(one.state_dict())
    assert torch.equal(other(batches[2], valid), one(batches[2], valid))


def test_denoising_discount_is_smallest_at_the_noisiest_step():
    assert denoising_discount(4, 0.5).tolist() == [1, 0.5, 0.25, 0.125]
    assert denoising_discount(1, 0.5).tolist() == [1]


@pytest.mark.parametrize(
    "num_finetuned, rate, expected",
    [
        # s = 1, 1/2, 0: .01 + .09 * (e^1.5 - 1) / (e^3 - 1) in the middle
        (3, 3.0, [0.1, 0.01 + 0.09 * 3.4816891 / 19.0855369, 0.01]),
        (5, 0.0, [0.1, 0.0775, 0.055, 0.0325, 0.01]),
        (2, 1.0, [0.1, 0.01]),
        (1, 3.0, [0.1]),
        (1, 0.0, [0.1]),
    ],
)
def test_clip_schedule_by_hand(num_finetuned, rate, expected):
    assert clip_schedule(num_finetuned, 0.1, 0.01, rate).tolist() == pytest.approx(expected, abs=1e-7)
