"""The loss on chunks noised anew, against the two implicit policies that it is derived from."""

import pytest
import torch
from constant import Constant, make_step, rollout

from lerobot_rlft.algorithms.nft import ForwardObjective, NFTConfig


@pytest.fixture
def made():
    """Makes an objective that has begun on three decisions; its policy was then moved from 1 to 1.5."""

    def make(advantage=(1.0, -2.0, 0.5), **fields):
        policy = Constant(1.0)
        objective = ForwardObjective(NFTConfig(**{"tail_coef": 0.0} | fields), policy, 3)
        torch.manual_seed(0)
        data = rollout([1, 1, 1], [True] * 3, chunks=torch.randn(3, 3, 2))
        condition = policy.encode(data.obs)
        objective.begin(data.chain, condition, torch.tensor(advantage))
        with torch.no_grad():
            policy.module["value"].fill_(1.5)
        return objective, data

    return make


def step_at(objective, data, rows, k):
    x = objective.noisy(rows, k)
    step = make_step(objective.policy, Constant(), k.tolist(), x=x)
    timestep = objective.policy.kernel.timesteps[k]
    step.prediction = objective.policy.predict(x, timestep, objective.policy.encode(data.obs)[rows])
    return step


@pytest.mark.parametrize("beta", [1.0, 0.3])
def test_it_is_the_loss_of_the_two_implicit_policies(beta, made):
    """DiffusionNFT, arXiv:2509.16117: r |v+ - v|^2 + (1 - r) |v- - v|^2, v+ and v- = v_old +- beta d."""
    objective, data = made(proximal_coef=beta, gamma_denoising=0.5)
    rows, k = torch.tensor([0, 1, 2, 1]), torch.tensor([0, 1, 2, 2])
    step = step_at(objective, data, rows, k)
    loss, log = objective.loss(step, rows, first=True)

    advantage = torch.tensor([1.0, -2.0, 0.5])
    a = advantage / (2 * advantage.std(unbiased=False))
    a = (a - a.mean())[rows] * 0.5**k
    r = (1 + a) / 2
    target = data.chain.x[rows, 0][:, :2]  # a policy that predicts the clean chunk; two actions are executed
    old = (1.0 + rows.float())[:, None, None].expand_as(target)  # the mean of the observation is the row
    d = torch.full_like(target, 0.5)
    positive, negative = old + beta * d, old - beta * d
    squares = [(v - target).square().flatten(1).mean(1) for v in (positive, negative, old)]
    by_hand = ((r * squares[0] + (1 - r) * squares[1] - squares[2]) / beta).mean()
    assert loss.item() == pytest.approx(by_hand.item(), abs=1e-5)
    assert log == {"moved": pytest.approx(0.25)}


def test_the_weight_is_the_advantage_in_units_of_twice_its_std():
    objective = ForwardObjective(NFTConfig(), Constant(), 3)
    data = rollout([1] * 4, [True] * 4)
    advantage = torch.tensor([3.0, -1.0, -1.0, -1.0])  # mean 0, std sqrt(3)
    objective.begin(data.chain, torch.zeros(4, 2), advantage)
    assert objective.weight.tolist() == pytest.approx([3 / 12**0.5, *[-1 / 12**0.5] * 3])
    objective.begin(data.chain, torch.zeros(4, 2), torch.tensor([900.0] + [0.0] * 3))
    # 1.15 is cut to 1, and then the mean is 0 again
    assert objective.weight.tolist() == pytest.approx([0.75, -0.25, -0.25, -0.25])
    objective.begin(data.chain, torch.zeros(4, 2), torch.tensor([0.4, -0.4, 0.0, 0.0]))
    assert objective.weight.tolist() == pytest.approx([0.2, -0.2, 0, 0])  # not blown up: at least 2 x 1
    objective.begin(data.chain, torch.zeros(4, 2), torch.zeros(4))
    assert objective.weight.tolist() == [0, 0, 0, 0]


def test_gradients_point_to_good_chunks_and_away_from_bad_ones(made):
    objective, data = made(advantage=(1.0, -1.0, 0.0), proximal_coef=0.0, advantage_std_floor=0.0)
    for row, sign in ((0, 1), (1, -1), (2, 0)):
        rows, k = torch.tensor([row]), torch.tensor([0])
        objective.policy.module["value"].grad = None
        objective.loss(step_at(objective, data, rows, k), rows, first=False)[0].backward()
        chunk = data.chain.x[row, 0, :2].mean().item()
        # a = +-.61: 2 a (old - chunk), old is 1 + the observation
        pull = 2 * sign * (1 / (2 * (2 / 3) ** 0.5)) * (1 + row - chunk)
        assert objective.policy.module["value"].grad.item() == pytest.approx(pull, rel=1e-4, abs=1e-7)


def test_the_proximal_term_pulls_back_to_the_weights_that_collected(made):
    objective, data = made(advantage=(0.0, 0.0, 0.0), proximal_coef=2.0)
    rows, k = torch.tensor([0, 1]), torch.tensor([0, 2])
    loss, _ = objective.loss(step_at(objective, data, rows, k), rows, first=False)
    loss.backward()
    assert loss.item() == pytest.approx(2 * 0.25)
    assert objective.policy.module["value"].grad.item() == pytest.approx(2 * 2 * 0.5)
    assert objective.old.module["value"].grad is None
    objective.begin(data.chain, objective.condition, torch.zeros(3))  # the next iteration
    assert objective.loss(step_at(objective, data, rows, k), rows, first=True)[0].item() == 0


def test_executed_chunks_are_noised_as_the_kernel_does_with_fresh_noise(made):
    objective, data = made()
    rows, k = torch.tensor([0] * 4000), torch.tensor([0, 1, 2, 2] * 1000)
    x = objective.noisy(rows, k)
    alpha = objective.policy.kernel.alpha[k][:, None, None]
    noise = (x - alpha.sqrt() * data.chain.x[rows, 0]) / (1 - alpha).sqrt()
    assert abs(noise.mean().item()) < 0.05 and noise.std().item() == pytest.approx(1, abs=0.05)
    torch.testing.assert_close(objective.target, data.chain.x[rows, 0])
    assert not torch.equal(objective.noisy(rows, k), x)
