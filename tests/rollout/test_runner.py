"""Whole episodes of an environment of which every number is known, chunk by chunk."""

import os
import signal

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from lerobot.envs import make_env_pre_post_processors, preprocess_observation
from lerobot.utils.constants import OBS_STATE
from toy import LENGTHS, MAX_STEPS, toy_envs
from toy_policy import CHUNK, HISTORY, ToyPolicy, runner_in

from lerobot_rlft.configs.train import load_policy_config
from lerobot_rlft.envs.avoiding.configuration_avoiding import AvoidingEnvConfig
from lerobot_rlft.policies.loading import load_policy
from lerobot_rlft.rollout.environments import make_runner
from lerobot_rlft.rollout.episodes import Episodes
from lerobot_rlft.rollout.runner import EpisodeRunner
from lerobot_rlft.utils.errors import EnvironmentFailure

BOTH_MODES = pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])


def collect(runner, n_episodes, seeds, **options):
    return runner.collect(
        n_episodes, seeds, lambda condition: runner.policy.sample(condition, 0.1, 0.1), **options
    )


def expected_history(seed: int, t: int) -> torch.Tensor:
    """`observation.state` (S, 2) after step t: LeRobot fills the history with the first observation."""
    return torch.tensor([[seed, max(t - 1, 0)], [seed, t]], dtype=torch.float32)


def images_of(states: torch.Tensor) -> torch.Tensor:
    return (10 * states[..., 0] + states[..., 1]).to(torch.uint8)


@BOTH_MODES
def test_every_decision_of_every_episode(mode):
    data = collect(runner_in(toy_envs(4, mode)), 4, np.arange(4))
    decisions = [(seed, k) for k in range(3) for seed in range(4) if CHUNK * k < LENGTHS[seed]]
    assert list(zip(data.episode.tolist(), data.t.tolist(), strict=True)) == decisions
    for row, (seed, k) in enumerate(decisions):
        seen = data.obs["observation.state"][row]
        assert torch.equal(seen, expected_history(seed, CHUNK * k))
        # What was decided is kept beside what was seen.
        assert torch.equal(data.chain.x[row, 0, 0], seen[-1]) and data.chain.log_prob[row] == seed
    assert data.obs["observation.image"].dtype == torch.uint8
    assert data.obs["observation.image"].shape == (len(decisions), HISTORY, 3, 4, 4)
    assert torch.equal(data.obs["observation.image"][:, :, 0, 0, 0], images_of(data.obs["observation.state"]))
    # Rewards 1, 2, ... summed over chunks of 3; episodes of 2, 3, 7 and 5 steps.
    assert data.reward.tolist() == [[1 + 2, 6, 6, 6], [0, 0, 15, 4 + 5], [0, 0, 7, 0]]
    assert data.valid.tolist() == [[True] * 4, [False, False, True, True], [False, False, True, False]]
    assert data.grid(torch.arange(1.0, 8)).tolist() == [[1, 2, 3, 4], [0, 0, 5, 6], [0, 0, 7, 0]]


def test_what_is_learned_from_may_differ_from_what_is_reported():
    runner = runner_in(toy_envs(4, rewards=(-1, 2, 1, 3, 3, 5, 4)))
    data = collect(runner, 4, np.arange(4), reward="best", success_bonus=10)
    # The best so far, 0 at first, grows by 2 | 3 | 0 in chunks of 3; episodes 0 and 2 end with success.
    assert data.reward.tolist() == [[2 + 10, 2, 2, 2], [0, 0, 3, 1], [0, 0, 0 + 10, 0]]
    assert data.episodes.total_reward.tolist() == [1, 2, 17, 8]
    assert data.episodes.max_reward.tolist() == [2, 2, 5, 3]
    assert data.terminated.tolist() == [True, False, True, False]
    data = collect(runner, 4, np.arange(4), reward="success", time_limit="failure")
    assert data.terminated.all()
    assert data.reward.tolist() == [[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]]


@BOTH_MODES
def test_outcomes_and_final_observations(mode):
    data = collect(runner_in(toy_envs(4, mode)), 4, np.arange(4))
    outcome = data.episodes
    assert outcome.length.tolist() == list(LENGTHS) and data.env_steps == sum(LENGTHS)
    assert outcome.success.tolist() == data.terminated.tolist() == [True, False, True, False]
    assert outcome.total_reward.tolist() == [n * (n + 1) / 2 for n in LENGTHS]
    assert outcome.max_reward.tolist() == list(LENGTHS)
    assert outcome.mode is None
    states = torch.stack([expected_history(seed, n) for seed, n in enumerate(LENGTHS)])
    assert torch.equal(data.final_obs["observation.state"], states)
    assert data.final_obs["observation.image"].dtype == torch.uint8
    assert torch.equal(data.final_obs["observation.image"][:, :, 0, 0, 0], images_of(states))


@BOTH_MODES
def test_only_running_episodes_are_sent_through_the_network(mode):
    runner = runner_in(toy_envs(4, mode))
    collect(runner, 4, np.arange(4))
    assert runner.policy.batches == [4, 2, 1]


def test_actions_reach_their_environments_in_order():
    env = toy_envs(4)
    sent, step = [], env.step
    env.step = lambda action: sent.append(action.copy()) or step(action)
    collect(runner_in(env), 4, np.arange(4))
    for t, action in enumerate(sent):
        for seed in range(4):
            if t < LENGTHS[seed]:
                assert action[seed].tolist() == [seed + 100 * (t % CHUNK), t - t % CHUNK + 100 * (t % CHUNK)]
    assert len(sent) == max(LENGTHS)


def test_rounds_side_by_side_are_one_wide_round():
    wide = collect(runner_in(toy_envs(4)), 4, np.arange(4))
    # Two rounds, the first of them shorter (at most 3 steps against 7).
    merged = collect(runner_in(toy_envs(2)), 4, np.arange(4))
    for name in ("reward", "valid", "terminated"):
        assert torch.equal(getattr(merged, name), getattr(wide, name)), name
    assert np.array_equal(
        merged.episodes.states.pop(OBS_STATE), wide.episodes.states.pop(OBS_STATE), equal_nan=True
    )
    for name, column in vars(wide.episodes).items():
        assert np.array_equal(getattr(merged.episodes, name), column), name
    order = torch.argsort(merged.t * 4 + merged.episode)  # rounds come one after the other
    assert torch.equal(merged.t[order], wide.t) and torch.equal(merged.episode[order], wide.episode)
    assert torch.equal(merged.chain.x[order], wide.chain.x)
    assert torch.equal(merged.chain.log_prob[order], wide.chain.log_prob)
    for key, value in wide.obs.items():
        assert torch.equal(merged.obs[key][order], value)
        assert torch.equal(merged.final_obs[key], wide.final_obs[key])


@BOTH_MODES
def test_evaluation_records_states_up_to_the_end(mode):
    runner = runner_in(toy_envs(2, mode))
    # Three rounds of two for five episodes; the sixth is not counted.
    episodes = runner.evaluate(5, np.array([2, 3, 0, 1, 3]), runner.deployed)
    assert episodes.length.tolist() == [7, 5, 2, 3, 5]
    assert episodes.states[OBS_STATE].shape == (5, max(LENGTHS) + 1, 2)
    for seed, states in zip([2, 3, 0, 1, 3], episodes.states[OBS_STATE], strict=True):
        path = [[seed, t] for t in range(LENGTHS[seed] + 1)]
        assert states[: len(path)].tolist() == path
        assert np.isnan(states[len(path) :]).all()


def test_a_limit_that_the_environment_does_not_keep_itself():
    runner = runner_in(toy_envs(4))
    runner.max_steps = 4
    data = collect(runner, 4, np.arange(4))
    assert data.episodes.length.tolist() == [2, 3, 4, 4]
    assert data.terminated.tolist() == [True, False, False, False]
    assert data.reward.tolist() == [[3, 6, 6, 6], [0, 0, 4, 4]]
    assert torch.equal(data.final_obs["observation.state"][2], expected_history(2, 4))
    assert MAX_STEPS > 4


@pytest.mark.parametrize(
    "options, message",
    [
        ({"fail_at": 3}, r"raised RuntimeError in step 3: the simulator crashed"),
        ({"fail_at": 3, "bad": "reward"}, r"returned reward nan \(env 1, step 3 of its episode\)"),
        # Observation 3 is both the last one of episode 1 and what the next decisions are taken on.
        ({"fail_at": 3, "bad": "observation"}, r"NaN or inf in observation.state"),
    ],
)
def test_a_broken_environment(options, message):
    runner = runner_in(toy_envs(4, **options))
    with pytest.raises(EnvironmentFailure, match=message):
        collect(runner, 4, np.arange(4))


@pytest.mark.parametrize("bad", ["reward", "observation"])
def test_nan_after_the_end_of_an_episode_is_nobodys_concern(bad):
    env = toy_envs(2, fail_at=1, bad=bad, fail_from=20)  # seeds from 20 up are those of autoresets
    data = collect(runner_in(env), 2, np.array([0, 2]))
    assert data.episodes.total_reward.tolist() == [3, 28]
    assert env.envs[0].seed > 20  # it did get there, and beyond


def test_a_broken_policy_is_not_blamed_on_the_environment():
    runner = runner_in(toy_envs(2))
    runner.policy.to_action = lambda chunk: chunk * torch.nan
    with pytest.raises(FloatingPointError, match="policy's actions are NaN"):
        collect(runner, 2, np.arange(2))


@pytest.mark.slow
def test_processes_give_the_same_and_leave_ctrl_c_to_the_trainer(dppo_config, monkeypatch):
    """Ctrl-C in a terminal reaches the environments' processes, too."""
    made = []

    def create_envs(self, n_envs, use_async_envs=False):
        made.append(toy_envs(n_envs, asynchronous=use_async_envs))
        return {"toy": {0: made[-1]}}

    config = dppo_config()
    monkeypatch.setattr(AvoidingEnvConfig, "create_envs", create_envs)
    monkeypatch.setattr("lerobot_rlft.rollout.environments.check_features", lambda *args: None)
    monkeypatch.setattr("multiprocessing.set_forkserver_preload", lambda modules: None)  # takes seconds
    runner = make_runner(config.env, ToyPolicy(), 4, asynchronous=True)
    try:
        for process in made[-1].processes:
            os.kill(process.pid, signal.SIGINT)
        data = collect(runner, 4, np.arange(4))
    finally:
        made[-1].close()
    one_process = collect(runner_in(toy_envs(4)), 4, np.arange(4))
    assert torch.equal(data.reward, one_process.reward)
    assert torch.equal(data.final_obs["observation.image"], one_process.final_obs["observation.image"])
    assert torch.equal(data.chain.x, one_process.chain.x)


def test_history_and_actions_are_those_of_the_stock_policy(base_policy):
    """Over whole episodes, LeRobot's own queues and `select_action` lead to the same actions, bit for bit."""
    config, env_config = load_policy_config(str(base_policy), []), AvoidingEnvConfig(episode_length=8)
    policy = load_policy(config, base_policy)
    env = env_config.create_envs(3)["avoiding"][0]
    sent, step = [], env.step
    env.step = lambda action: sent.append(action.copy()) or step(action)
    runner = EpisodeRunner(env, policy, *make_env_pre_post_processors(env_config, config))
    torch.manual_seed(7)
    episodes = runner.evaluate(3, np.arange(3), runner.deployed)
    assert episodes.length.tolist() == [8, 8, 8]  # two whole chunks and a part of the third

    stock = policy.module
    stock.reset()
    torch.manual_seed(7)
    observation, _ = env.reset(seed=[0, 1, 2])
    for action in sent:
        own = policy.postprocessor(
            stock.select_action(policy.preprocessor(preprocess_observation(observation)))
        )
        assert np.array_equal(own.numpy(), action)
        observation, *_ = step(own.numpy())


def test_episodes_of_different_lengths_are_joined():
    def part(steps: int, mode) -> Episodes:
        column = np.zeros(1)
        return Episodes(column, mode, column, column, column, {OBS_STATE: np.zeros((1, steps, 2))})

    whole = Episodes.concatenate([part(2, np.array([3])), part(4, np.array([5]))])
    assert whole.mode.tolist() == [3, 5]
    states = whole.states[OBS_STATE]
    assert states.shape == (2, 4, 2) and np.isnan(states[0, 2:]).all()
    assert whole[1:].mode.tolist() == [5] and whole[1:].states[OBS_STATE].shape == (1, 4, 2)
    assert Episodes.concatenate([part(2, None), part(2, None)]).mode is None
    # A round in which the environment named no mode does not take those of the others away.
    for parts, modes in (([None, [5]], [-1, 5]), ([[3], None], [3, -1])):
        columns = [part(2, mode and np.array(mode)) for mode in parts]
        assert Episodes.concatenate(columns).mode.tolist() == modes
