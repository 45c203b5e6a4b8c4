import math

import pytest
import torch
from constant import EXECUTED, FLOOR, VARIANCE, WEIGHT_X0, Constant, learned_noise, make_step, rollout

from lerobot_rlft.regularizers.kl_base import KLBase, KLBaseConfig

# of two policies whose clean chunks differ by 2, |difference of means|^2 over the executed numbers
SQUARES = [EXECUTED * (2 * weight) ** 2 for weight in WEIGHT_X0]
EXACT = [square / (2 * variance) for square, variance in zip(SQUARES, VARIANCE, strict=True)]
EARLY = [square / 2 for square in SQUARES]


@pytest.mark.parametrize("weighting, by_hand", [("exact", EXACT), ("early", EARLY)])
def test_loss_by_hand(weighting, by_hand):
    policy, base = Constant(2.0), Constant()
    regularizer = KLBaseConfig(weighting=weighting).build(policy, base)
    for k in range(3):
        assert regularizer.loss(make_step(policy, base, [k])).item() == pytest.approx(by_hand[k], rel=1e-5)
    loss = regularizer.loss(make_step(policy, base))
    assert loss.item() == pytest.approx(sum(by_hand) / 3, rel=1e-5)
    loss.backward()
    assert policy.module["value"].grad.item() == pytest.approx(sum(by_hand) / 3, rel=1e-5)  # d(v^2 c)/dv at 2
    assert base.module["value"].grad is None
    assert regularizer.reward(rollout([1], [True]), lambda: iter(())) is None


class Noisy(Constant):
    """Learns its noise: std is `std` at every step."""

    def __init__(self, value, std):
        super().__init__(value)
        self.noise_head, _ = learned_noise((std, std, std))


@pytest.mark.parametrize(
    "direction, by_hand",
    [  # KL(N(2, 2) || N(0, 1)) and the other way round, of each executed number
        ("reverse", math.log(1 / 2) + (4 + 4) / 2 - 0.5),
        ("forward", math.log(2 / 1) + (1 + 4) / (2 * 4) - 0.5),
    ],
)
def test_direction_by_hand(direction, by_hand):
    policy, base = Noisy(2.0, 2.0), Noisy(0.0, 1.0)
    regularizer = KLBaseConfig(direction=direction).build(policy, base)
    loss = regularizer.loss(make_step(policy, base, [0]))
    assert loss.item() == pytest.approx(EXECUTED * by_hand, rel=1e-5)
    loss.backward()
    assert policy.module["value"].grad > 0


def visited(policy, base, data):
    """All steps of `data` without gradient, in two parts."""
    pairs = torch.tensor([(row, k) for row in range(len(data.t)) for k in range(3)])
    for rows, k in (pairs[:4].T, pairs[4:].T):
        with torch.no_grad():
            yield rows, make_step(policy, base, k.tolist(), x=data.chain.x[rows, k + 1])


@pytest.mark.parametrize("weighting", ["exact", "early"])
def test_return_by_hand(weighting):
    policy, base = Constant(2.0), Constant()
    regularizer = KLBaseConfig(place="return", weighting=weighting).build(policy, base)
    data = rollout([2, 1], [True, True])
    data.chain.x[:] = torch.randn(data.chain.x.shape, generator=torch.Generator().manual_seed(0))
    expected = torch.zeros(2, 2)
    for row, (t, e) in enumerate([(0, 0), (0, 1), (1, 0)]):
        for k in range(3):
            # log N(x; m, s) - log N(x; n, s) = (m - n) (x - (m + n) / 2) / s^2
            kernel, x = policy.kernel, data.chain.x[row, :, :2]
            mean, base_mean = (kernel.weight_x0[k] * v + kernel.weight_x[k] * x[k + 1] for v in (2, 0))
            ratio = ((mean - base_mean) * (x[k] - (mean + base_mean) / 2)).sum()
            expected[t, e] -= ratio / (1 if weighting == "early" else VARIANCE[k])
    reward = regularizer.reward(data, lambda: visited(policy, base, data))
    torch.testing.assert_close(reward, expected, rtol=1e-4, atol=1e-4)
    assert not reward.requires_grad
    assert base.predicted == 2  # once a part
    assert regularizer.loss(make_step(policy, base)) is None


def test_the_return_is_minus_the_kl_of_the_chain_on_average():
    policy, base = Constant(0.2), Constant()
    torch.manual_seed(0)
    chain = policy.sample(torch.zeros(20_000, 2), FLOOR, FLOOR)
    data = rollout([1] * 20_000, [True] * 20_000)
    data.chain = chain
    regularizer = KLBaseConfig(place="return").build(policy, base)
    reward = regularizer.reward(data, lambda: visited(policy, base, data))
    assert reward.shape == (1, 20_000)
    # values that differ by .2 instead of 2: a hundredth of EXACT
    assert reward.mean().item() == pytest.approx(-sum(EXACT) / 100, rel=0.05)


def test_the_return_holds_the_last_step():
    """Its score-function gradient is that of the KL; the closed form, which draws do not change, has none."""
    policy, base = Constant(0.5), Constant()
    torch.manual_seed(0)
    data = rollout([1] * 20_000, [True] * 20_000)
    with torch.no_grad():
        step = make_step(policy, base, [0] * 20_000)
        data.chain.x[:, 0] = step.normal.mean + FLOOR * torch.randn(20_000, 3, 2)
    regularizer = KLBaseConfig(place="return").build(policy, base)
    reward = regularizer.reward(data, lambda: iter([(torch.arange(20_000), step)]))[0]
    log_prob = torch.distributions.Normal(policy.module["value"], FLOOR).log_prob(data.chain.x[:, 0, :2])
    (reward * log_prob.flatten(1).sum(1)).mean().backward()
    # KL = EXECUTED v^2 / (2 FLOOR^2)
    assert policy.module["value"].grad.item() == pytest.approx(-EXECUTED * 0.5 / FLOOR**2, rel=0.05)


def test_nothing_to_say_at_the_base():
    policy, base = Constant(1.0), Constant(1.0)
    assert KLBaseConfig().build(policy, base).loss(make_step(policy, base)).item() == 0


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"place": "reward"}, r"place='reward' of regularizer kl_base .*choose loss or return"),
        ({"direction": "both"}, r"direction='both' .*choose reverse or forward"),
        ({"weighting": "late"}, r"weighting='late' .*choose exact or early"),
        (
            {"place": "return", "direction": "forward"},
            r"direction='forward' .*choose reverse with place=return",
        ),
    ],
)
def test_unknown_options_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        KLBaseConfig(**fields)


def test_a_direction_that_changes_nothing_is_refused():
    """With equal stds the KL is the same either way."""
    policy, base = Constant(2.0), Constant()
    config = KLBaseConfig(direction="forward")
    same = [KLBase(c).loss(make_step(policy, base)).item() for c in (config, KLBaseConfig())]
    assert same[0] == pytest.approx(same[1])
    with pytest.raises(
        ValueError, match=r"direction='forward' .*choose reverse: with the fixed noise .*rehearsal"
    ):
        config.build(policy, base)
