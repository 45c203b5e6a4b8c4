import math

import pytest
import torch
from constant import EXECUTED, FLOOR, Constant, learned_noise, make_step, rollout

from lerobot_rlft.regularizers.entropy import EntropyConfig, particle_entropy


def build(**fields):
    return EntropyConfig(**fields).build(Constant(), Constant())


def reward(regularizer, data):
    return regularizer.reward(data, lambda: iter(()))


def test_novelty_by_hand():
    regularizer = build(decay=0.5, pseudo_count=1.0)
    regularizer.begin(rollout([1] * 6, [True] * 5 + [False], [0, 0, 0, 1, -1, 1]), None)
    assert regularizer.shares == {0: 0.75, 1: 0.25}
    data = rollout([1, 3, 2, 1, 2], [True, True, True, False, True], [0, 0, 7, 7, -1])
    regularizer.observe(data)
    assert regularizer.shares == pytest.approx({0: 17 / 24, 1: 1 / 8, 7: 1 / 6})
    # n = 3, M = 3, c = 1: p(0) = (17 / 8 + 1) / 6 twice, p(7) = 1.5 / 6 once
    # a failure and a success in no known mode get nothing
    b = [-math.log(25 / 48), -math.log(25 / 48), -math.log(1 / 4)]
    mean = sum(b) / 3
    expected = torch.zeros(3, 5)
    expected[0, 0], expected[2, 1], expected[1, 2] = (value - mean for value in b)
    torch.testing.assert_close(reward(regularizer, data), expected)
    assert regularizer.loss(make_step(Constant(), Constant())) is None


def test_novelty_pays_rarity_and_not_success():
    regularizer = build()
    regularizer.begin(rollout([1, 1], [True, True], [0, 1]), None)
    one_mode = rollout([1, 1], [True, True], [0, 0])
    regularizer.observe(one_mode)
    assert reward(regularizer, one_mode).abs().max() < 1e-6
    regularizer.observe(failed := rollout([1], [False], [0]))
    assert reward(regularizer, failed).tolist() == [[0]]
    # mode 1 decays and stays finite
    for _ in range(200):
        regularizer.observe(one_mode)
    both = reward(regularizer, rollout([1, 1], [True, True], [0, 1]))[0]
    # n = 2, s = (1, 0), M = 2, c = 1: p = 3/4, 1/4
    assert both.tolist() == pytest.approx([-math.log(3) / 2, math.log(3) / 2], abs=1e-4)


def test_the_first_successes_count_in_full_and_none_change_nothing():
    regularizer = build()
    regularizer.begin(rollout([1], [False], [0]), None)
    regularizer.observe(rollout([1, 1], [True, False], [4, 2]))
    regularizer.observe(rollout([1, 1], [False, True], [4, -1]))
    assert regularizer.shares == {4: 1}


def test_novelty_needs_modes():
    with pytest.raises(
        ValueError, match=r"on='novelty' of regularizer entropy .*choose chunks: nothing names"
    ):
        build().begin(rollout([1], [True]), None)


def test_the_shares_survive_a_resume():
    first = build()
    first.begin(rollout([1] * 3, [True] * 3, [0, 3, 0]), None)
    second = build()
    second.load_state_dict(first.state_dict())
    data = rollout([1] * 3, [True] * 3, [3, 0, 5])
    for regularizer in (first, second):
        regularizer.observe(data)
    assert second.shares == first.shares == pytest.approx({0: 0.6, 3: 1 / 3, 5: 1 / 15})
    assert torch.equal(reward(first, data), reward(second, data))


def test_particle_entropy_by_hand():
    # t = 0: points at 0, 1, 3; t = 1: one alone; t = 2: two, fewer than the second neighbour needs
    chunks = torch.tensor([[0.0], [1.0], [3.0], [9.0], [5.0], [7.0]])
    t = torch.tensor([0, 0, 0, 1, 2, 2])
    nearest = torch.tensor([1.0, 1.0, 2.0]).log1p()
    second = torch.tensor([3.0, 2.0, 3.0]).log1p()
    for k, bonus in ((1, nearest), (2, second)):
        expected = torch.cat([bonus - bonus.mean(), torch.zeros(3)])
        torch.testing.assert_close(particle_entropy(chunks, t, k), expected)


def test_only_executed_chunks_count():
    chunks = torch.zeros(4, 3, 2)
    chunks[:, 2] = torch.arange(4.0)[:, None]  # not executed
    data = rollout([2, 1, 1], [True, False, True], chunks=chunks)
    regularizer = build(on="chunks", neighbours=1)
    assert reward(regularizer, data).abs().max() == 0
    data.chain.x[0, 0, :2] = 1.0  # distance to the others sqrt(4)
    bonus = torch.tensor([2.0, 0.0, 0.0]).log1p()
    expected = torch.zeros(2, 3)
    expected[0] = bonus - bonus.mean()
    torch.testing.assert_close(reward(regularizer, data), expected)


def test_a_noise_head_is_needed_for_its_entropy():
    with pytest.raises(ValueError, match=r"on='noise_head' .*choose novelty or chunks: .*constant"):
        build(on="noise_head")


def test_entropy_of_learned_noise_by_hand():
    policy = Constant()
    policy.noise_head, std = learned_noise((0.0, 2.0, 2.0))
    regularizer = EntropyConfig(on="noise_head").build(policy, Constant())
    loss = regularizer.loss(make_step(policy, Constant(), [0, 1]))
    entropy = [EXECUTED * (0.5 * math.log(2 * math.pi * math.e) + math.log(std)) for std in (FLOOR, 2.0)]
    assert loss.item() == pytest.approx(-sum(entropy) / 2, rel=1e-5)
    loss.backward()
    # d entropy / d std = EXECUTED / std above the floor, half of it in the mean of two pairs
    assert std.grad.tolist() == pytest.approx([0, -EXECUTED / 2 / 2, 0])
    assert reward(regularizer, rollout([1], [True])) is None


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"on": "actions"}, "on='actions' of regularizer entropy .*choose novelty, chunks or noise_head"),
        ({"decay": 1.0}, r"decay=1.0 .*choose a number in \[0, 1\)"),
        ({"pseudo_count": 0.0}, "pseudo_count=0.0 .*choose a number > 0"),
        ({"neighbours": 0}, "neighbours=0 .*choose at least 1"),
    ],
)
def test_options_out_of_range_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        EntropyConfig(**fields)
