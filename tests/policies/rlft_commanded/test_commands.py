"""Commands: shares, drawing, hindsight."""

import copy
import math

import pytest
import torch
from families import diffusion, experience, observations

from lerobot_rlft.algorithms.nft import NFT, NFTConfig
from lerobot_rlft.diversity import probe
from lerobot_rlft.policies.base import Exploration
from lerobot_rlft.policies.rlft_commanded.adapter import commanded
from lerobot_rlft.policies.rlft_commanded.commands import (
    COMMAND,
    MAX_MODES,
    deployed_odds,
    draw_commands,
    episode_commands,
    target_shares,
)
from lerobot_rlft.regularizers.mode_commands import CommandConfig, fit_commands
from lerobot_rlft.regularizers.rehearsal import RehearsalConfig
from lerobot_rlft.rollout.episodes import Rollout

ATTEMPT = torch.tensor([0, 0, 0, 2, 2, 1, 1, -1])
SUCCESS = torch.tensor([True, True, True, True, False, False, False, True])


@pytest.mark.parametrize(
    ("target", "shares"),
    [
        ("successful", [3 / 4, 0, 1 / 4, 0]),
        ("attempted", [3 / 5, 0, 2 / 5, 0]),  # mode 1 was attempted and never reached: nothing to learn from
        ("uniform", [1 / 2, 0, 1 / 2, 0]),
    ],
)
def test_what_is_asked_for(target, shares):
    assert torch.allclose(target_shares(target, ATTEMPT, SUCCESS, 4), torch.tensor(shares))


def test_what_cannot_be_asked_for():
    with pytest.raises(ValueError, match="knows up to 64 modes and there are 65"):
        target_shares("successful", ATTEMPT, SUCCESS, MAX_MODES + 1)
    with pytest.raises(
        ValueError, match="learns from successes of the base in known modes, and there are none"
    ):
        target_shares("successful", torch.tensor([-1, 1]), torch.tensor([True, False]), 2)


def test_commands_are_drawn_by_their_shares():
    torch.manual_seed(0)
    count = torch.bincount(draw_commands(torch.tensor([0.5, 0.0, 0.25, 0.25]), 4000), minlength=4)
    assert count[1] == 0
    error = (count / 4000 - torch.tensor([0.5, 0.0, 0.25, 0.25])).abs().max()
    assert error < 4 * math.sqrt(0.25 / 4000)


def test_rare_modes_are_practised_and_unknown_ones_are_not():
    torch.manual_seed(0)
    count = torch.bincount(draw_commands(torch.tensor([0.9, 0.0, 0.1]), 4000, practice=0.5), minlength=3)
    assert count[1] == 0
    # Of the half that is practice, half are of each mode: 0.5 * 0.1 + 0.5 * 0.5
    assert abs(count[2] / 4000 - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 4000)


def test_practised_modes_count_for_what_they_are_deployed():
    # Drawn in training with .7, 0, .3, deployed with .9, 0, .1.
    odds = deployed_odds(torch.tensor([0.9, 0.0, 0.1]), 0.5)
    assert torch.allclose(odds, torch.tensor([0.9 / 0.7, 0.0, 0.1 / 0.3]))
    assert torch.equal(deployed_odds(torch.tensor([0.9, 0.1]), 0.0), torch.ones(2))
    policy = told_policy()
    assert policy.deployed_odds() is None
    policy.command([0.9, 0.0, 0.1])
    policy.practice = 0.5
    assert torch.equal(policy.deployed_odds(), odds)
    policy.module.config.mode = 2  # asked for in training, too
    assert policy.deployed_odds() is None


def test_the_command_of_an_episode_is_that_of_its_decisions():
    command, episode = torch.tensor([[3], [1], [3], [1], [3]]), torch.tensor([0, 2, 0, 2, 0])
    assert episode_commands(command, episode, 3).tolist() == [3, -1, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "best"}, r"commands.target='best' is unknown, choose successful, attempted, uniform"),
        ({"practice": 1.5}, "commands.practice=1.5 is out of range, choose 0 to 1"),
        ({"steps": 0}, "commands.steps=0 must be at least 1"),
        ({"batch_size": 0}, "commands.batch_size=0 must be at least 1"),
        ({"lr": 0.0}, r"commands.lr=0.0 must be a number > 0"),
        ({"ema_decay": 1.0}, r"commands.ema_decay=1.0 is out of range"),
    ],
)
def test_unusable_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        CommandConfig(**options)


def told_policy(**fields):
    return commanded(diffusion(n_obs_steps=1, **fields), Exploration())


@torch.no_grad()
def told(policy, obs, command):
    return policy.encode(obs | {COMMAND: command[:, None]})


def test_a_loss_that_is_not_finite_changes_no_weight():
    policy = told_policy()
    policy.freeze(None)
    command, before = torch.zeros(2, dtype=torch.long), copy.deepcopy(policy.module.state_dict())
    condition = told(policy, observations(policy, 2), command) * torch.nan
    chunks = torch.zeros(2, policy.horizon, policy.action_dim)
    with pytest.raises(
        FloatingPointError, match=r"algorithm.commands is nan: lower algorithm.commands.lr=0.0001"
    ):
        fit_commands(CommandConfig(steps=1), policy, condition, chunks, command, torch.Tensor.backward)
    assert all(torch.equal(before[name], value) for name, value in policy.module.state_dict().items())


def test_the_first_step_is_as_long_as_the_rate_of_the_policys_preset():
    """The first step of AdamW moves a weight with a gradient by the learning rate; the average weighs it by
    1 - ema_decay = 1.
    """
    steps = {}
    for lr in (None, 3e-3):
        policy = told_policy(optimizer_lr=2e-5)
        policy.freeze(None)
        before = copy.deepcopy(policy.module.state_dict())
        command = torch.arange(4) % 2
        chunks = torch.ones(4, policy.horizon, policy.action_dim)
        condition = told(policy, observations(policy, 4), command)
        config = CommandConfig(steps=1, lr=lr, ema_decay=0.0)
        fit_commands(config, policy, condition, chunks, command, torch.Tensor.backward)
        after = policy.module.state_dict()
        steps[lr] = max((after[name] - before[name]).abs().max().item() for name in before)
    assert steps[None] == pytest.approx(2e-5, rel=0.05)
    assert steps[3e-3] == pytest.approx(3e-3, rel=0.05)


def test_hindsight_teaches_what_commands_mean():
    """Two constant chunks, told apart by nothing but their command."""
    policy = told_policy(seed=1, prediction_type="sample")
    policy.freeze(None)
    obs, command = observations(policy, 32), torch.arange(32) % 2
    chunks = (0.8 - 1.6 * command)[:, None, None].expand(-1, policy.horizon, policy.action_dim)

    def error(asked):
        k = torch.full((32,), policy.kernel.num_steps - 1)  # the noise says next to nothing of the chunk
        x, target = policy.kernel.noised(chunks, k, torch.randn_like(chunks))
        with torch.no_grad():
            condition = policy.encode(obs | {COMMAND: asked[:, None]})
            prediction = policy.predict(x, policy.kernel.timesteps[k], condition)
        return (prediction - target).square().mean().item()

    torch.manual_seed(0)
    assert error(command) == pytest.approx(error(1 - command), rel=0.2)
    config = CommandConfig(steps=60, batch_size=32, lr=1e-2, ema_decay=0.5)
    fit_commands(config, policy, told(policy, obs, command), chunks, command, torch.Tensor.backward)
    assert error(command) < 0.7 * error(1 - command)


def test_every_mode_is_learnt_alike():
    """One decision of the rare mode weighs as much as all of the other."""
    policy, drawn = told_policy(), []
    policy.freeze(None)
    obs, command = observations(policy, 10), torch.tensor([0] * 9 + [1])
    chunks = command[:, None, None].float().expand(-1, policy.horizon, policy.action_dim)
    noised = policy.kernel.noised
    policy.kernel.noised = lambda x0, k, noise: (drawn.append(x0.mean()), noised(x0, k, noise))[1]
    config, condition = CommandConfig(steps=20, batch_size=100), told(policy, obs, command)
    fit_commands(config, policy, condition, chunks, command, torch.Tensor.backward)
    share = torch.stack(drawn).mean()
    assert (share - 0.5).abs() < 4 * math.sqrt(0.25 / 2000)


@pytest.fixture
def dppo():
    def make(policy, regularizers=None, **options):
        base = policy.frozen_copy()
        fields = {"minibatch_size": 16, "critic_hidden_dims": (8,)} | options
        commands = CommandConfig(enable=True, steps=2, batch_size=4)
        return NFT(
            NFTConfig(commands=commands, scale_reward=False, **fields),
            policy,
            base,
            regularizers=regularizers,
        )

    return make


def episodes(policy, attempt, success):
    data = experience(policy, episodes=len(attempt))
    data.attempt, data.reward = torch.tensor(attempt), data.reward.abs()
    type(data).success = property(lambda self: torch.tensor(success))
    return data


@pytest.fixture(autouse=True)
def own_success(monkeypatch):
    monkeypatch.setattr(Rollout, "success", Rollout.success)


def test_the_first_iteration_knows_its_commands(dppo):
    policy = told_policy()
    algorithm = dppo(policy)
    assert algorithm.needs_reference and policy.draw(3) is None
    before = copy.deepcopy(policy.module.state_dict())
    algorithm.begin(episodes(policy, [0, 2, 2, 1], [True, True, False, False]), 3)
    assert policy.shares == [0.5, 0.0, 0.5]
    assert set(policy.draw(64).tolist()) == {0, 2}
    moved = (policy.module.commands.weight != before["commands.weight"]).any(1)
    assert moved.nonzero()[:, 0].tolist() == [0, 2]


def test_only_the_commanded_way_is_paid(dppo):
    policy = told_policy()
    algorithm = dppo(policy)
    algorithm.begin(episodes(policy, [0, 1, 0, 1], [True] * 4), 2)
    data = episodes(policy, [0, 1, 1, 0], [True] * 4)
    data.obs[COMMAND] = torch.tensor([0, 1, 0, 1])[data.episode][:, None]
    data.final_obs[COMMAND] = torch.tensor([[0], [1], [0], [1]])
    data.reward = torch.tensor([[0.0] * 4, [1.0] * 4])
    seen = []
    advantages = algorithm._advantages
    algorithm._advantages = lambda data, reward, features: (
        seen.append(reward.clone()),
        advantages(data, reward, features),
    )[1]
    metrics = algorithm.update(data)
    assert seen[0].tolist() == [[0.0] * 4, [1.0, 1.0, 0.0, 0.0]]
    assert metrics["obeyed"] == 0.5


def test_what_is_rehearsed_is_told_what_it_did(dppo):
    policy = told_policy()
    rehearsal = RehearsalConfig(source="recent", batch_size=4).build(policy, policy)
    algorithm = dppo(policy, {"rehearsal": rehearsal})
    algorithm.begin(episodes(policy, [0, 1, 0, 1], [True, True, False, True]), 2)
    assert sorted(rehearsal.obs[COMMAND][:, 0].tolist()) == [0, 0, 1, 1, 1, 1]
    assert torch.equal(rehearsal.obs[COMMAND][:, 0], rehearsal.mode)
    data = episodes(policy, [1, 1, 0, 0], [True] * 4)
    data.obs[COMMAND] = torch.ones(8, 1, dtype=torch.long)
    data.final_obs[COMMAND] = torch.ones(4, 1, dtype=torch.long)
    assert algorithm.update(data)["rehearsal_loss"] > 0
    assert len(rehearsal.obs[COMMAND]) == 14
    # all were told mode 1; two went the other way, and show how to go that one
    assert torch.equal(rehearsal.obs[COMMAND][:, 0], rehearsal.mode)


def test_rewards_that_pay_for_disobedience_are_refused(dppo):
    """A disobedient episode earns 0; at -1 a step that would be more than any obedient one earns."""
    policy = told_policy()
    data = episodes(policy, [0, 1, 0, 1], [True] * 4)
    data.reward = torch.full_like(data.reward, -1.0)
    with pytest.raises(ValueError, match=r"rewards below zero \(-1\).*--rollout.reward=success"):
        dppo(policy).begin(data, 2)
    assert policy.draw(1) is None


def test_what_is_told_its_mode_draws_nothing():
    policy = told_policy()
    policy.command([0.5, 0.5])
    obs = experience(policy, episodes=2).obs
    told = obs | {COMMAND: torch.zeros(len(next(iter(obs.values()))), 1, dtype=torch.long)}
    state = torch.get_rng_state()
    policy.encode(told)
    assert torch.equal(torch.get_rng_state(), state)
    probe.encode(policy, {key: value for key, value in told.items() if key != COMMAND})  # draws, apart
    assert torch.equal(torch.get_rng_state(), state)


def test_without_modes_nothing_can_be_commanded(dppo):
    policy = told_policy()
    with pytest.raises(ValueError, match=r"algorithm\.commands needs modes"):
        dppo(policy).begin(episodes(policy, [0, 1], [True, True]), None)
