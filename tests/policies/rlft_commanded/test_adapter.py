"""`rlft_commanded`: as the policy inside where nothing is commanded, one command for each episode."""

import pytest
import torch
from draccus.utils import ParsingError
from families import VARIANTS, diffusion, observations
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import get_policy_class, make_pre_post_processors

from lerobot_rlft.chains.chain import step_log_prob
from lerobot_rlft.policies.base import Exploration, adapter_class
from lerobot_rlft.policies.loading import load_pretrained
from lerobot_rlft.policies.rlft_commanded.adapter import commanded
from lerobot_rlft.policies.rlft_commanded.commands import COMMAND, MAX_MODES

COMMANDABLE = [name for name in VARIANTS if not name.startswith("diffusion, DDIM")]


@pytest.fixture(params=COMMANDABLE)
def inner(request):
    policy = VARIANTS[request.param]()
    if adapter_class(policy.module.config.type).condition_path is None:
        pytest.skip("has no layer that could be told")
    return policy


def told(policy, shares=(0.5, 0.5), size=0.5):
    """A commanded policy whose commands mean something."""
    policy.command(list(shares))
    with torch.no_grad():
        policy.module.commands.weight[:] = size * torch.randn(policy.module.commands.weight.shape)
    return policy


def test_it_acts_as_the_policy_inside_until_something_is_commanded(inner):
    policy, obs = commanded(inner, Exploration()), observations(inner, 4)
    assert policy.draw(4) is None
    chunks = []
    for p, o in ((inner, obs), (policy, obs), (policy, obs | {COMMAND: torch.full((4, 1), -1)})):
        torch.manual_seed(3)
        with torch.no_grad():
            chunks.append(p.deployed_chunk(p.encode(o)))
    assert torch.equal(chunks[0], chunks[1]) and torch.equal(chunks[0], chunks[2])


def test_each_row_is_told_its_own_command(inner):
    policy = told(commanded(inner, Exploration()))
    obs = {key: value[:1].expand(3, *value.shape[1:]) for key, value in observations(inner, 1).items()}
    with torch.no_grad():
        condition = policy.encode(obs | {COMMAND: torch.tensor([[0], [1], [0]])})
        x = torch.randn(1, policy.horizon, policy.action_dim).expand(3, -1, -1)
        out = policy.predict(x, policy.kernel.timesteps[-1].expand(3), condition)
    assert torch.allclose(out[0], out[2], atol=1e-6)
    assert (out[0] - out[1]).abs().max() > 1e-4
    features = policy.features(condition)
    assert features.shape == (3, policy.feature_dim)
    assert features[:, -MAX_MODES:].argmax(1).tolist() == [0, 1, 0]
    assert features[:, -MAX_MODES:].sum(1).tolist() == [1, 1, 1]


def test_sampling_and_replay_agree_and_the_commands_are_trained(inner):
    policy = told(commanded(inner, Exploration()))
    policy.freeze(None)
    obs = observations(inner, 6) | {COMMAND: policy.draw(6)[:, None]}
    floor = max(policy.std_floor, 0.1)
    condition = policy.encode(obs)
    chain = policy.sample(condition.detach(), floor, floor)
    steps = policy.kernel.num_steps
    rows, k = torch.arange(6).repeat_interleave(steps), torch.arange(steps).repeat(6)
    normal = policy.transition(chain.x[rows, k + 1], k, condition[rows])
    log_prob = step_log_prob(normal, chain.x[rows, k], policy.executed, floor)
    ratio = (log_prob - chain.log_prob[rows, k]).exp()
    assert (ratio - 1).abs().max() <= max(1e-4, policy.ratio_tolerance)
    log_prob.sum().backward()
    assert policy.module.commands.weight.grad.any()


def test_a_frozen_copy_stays_as_it_was():
    policy = told(commanded(diffusion(), Exploration()))
    obs = observations(policy, 3) | {COMMAND: torch.tensor([[0], [1], [-1]])}
    twin = policy.frozen_copy()
    with torch.no_grad():
        condition = policy.encode(obs)
        x, t = torch.randn(3, policy.horizon, policy.action_dim), policy.kernel.timesteps[[1, 1, 1]]
        before = policy.predict(x, t, condition)
        assert torch.equal(twin.predict(x, t, condition), before)
        for parameter in policy.module.parameters():
            parameter += 0.1
        assert torch.equal(twin.predict(x, t, condition), before)
    assert not any(p.requires_grad for p in twin.module.parameters())


def test_a_saved_and_reloaded_policy_acts_the_same(tmp_path):
    policy = told(commanded(diffusion(n_obs_steps=1), Exploration()), (0.25, 0.0, 0.75))
    policy.save_pretrained(tmp_path)
    again = load_pretrained(PreTrainedConfig.from_pretrained(tmp_path), tmp_path, Exploration())
    assert again.shares == [0.25, 0.0, 0.75]
    obs = observations(policy, 3) | {COMMAND: torch.tensor([[0], [2], [2]])}
    actions = []
    for p in (policy, again):
        torch.manual_seed(7)
        with torch.no_grad():
            actions.append(p.to_action(p.deployed_chunk(p.encode(obs))))
    assert torch.equal(*actions)


def stock(folder, **overrides):
    """The policy as stock LeRobot loads it."""
    config = PreTrainedConfig.from_pretrained(
        folder, cli_overrides=[f"--{key}={value}" for key, value in overrides.items()]
    )
    policy = get_policy_class(config.type).from_pretrained(folder, config=config)
    return policy.eval(), *make_pre_post_processors(config, folder)


def frames(policy, batch, seed=1):
    return {key: value[:, 0] for key, value in observations(policy, batch, seed).items()}


def test_stock_keeps_a_command_for_an_episode_and_draws_anew_for_the_next(tmp_path):
    policy = told(commanded(diffusion(n_obs_steps=1), Exploration()))
    policy.save_pretrained(tmp_path)
    module, preprocess, _ = stock(tmp_path)
    seen = set()
    for episode in range(8):
        torch.manual_seed(episode)
        module.reset()
        told_now = []
        for step in range(2 * policy.n_action_steps):
            module.select_action(preprocess(frames(policy, 3, seed=step)))
            told_now.append(tuple(module._command.tolist()))
        assert len(set(told_now)) == 1
        seen.add(told_now[0])
    assert len(seen) > 1


def test_a_mode_can_be_asked_for(tmp_path):
    told(commanded(diffusion(n_obs_steps=1), Exploration()), (0.5, 0.0, 0.5)).save_pretrained(tmp_path)
    module, _, _ = stock(tmp_path, mode=2)
    assert module.draw(5).tolist() == [2] * 5
    with pytest.raises(ParsingError) as error:
        stock(tmp_path, mode=1)
    assert "policy.mode=1 is no mode of this policy, choose one of [0, 2]" in str(error.value.__cause__)
