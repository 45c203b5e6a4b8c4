"""Success, its interval and modes; the same numbers every time, and those of stock LeRobot."""

import numpy as np
import pytest
import torch
from lerobot.envs import make_env_pre_post_processors
from lerobot.envs.configs import PushtEnv
from lerobot.scripts.lerobot_eval import eval_policy
from lerobot.utils.constants import OBS_STATE
from tiny import save_policy
from toy import toy_envs

from lerobot_rlft.configs.train import load_policy_config
from lerobot_rlft.envs.avoiding.configuration_avoiding import AvoidingEnvConfig
from lerobot_rlft.plots.run import draw_learning_curve, draw_trajectories, is_planar
from lerobot_rlft.policies.loading import load_policy
from lerobot_rlft.rollout.episodes import Episodes
from lerobot_rlft.rollout.evaluation import Evaluation, play, summarise
from lerobot_rlft.rollout.film import film
from lerobot_rlft.rollout.runner import EpisodeRunner
from lerobot_rlft.utils.errors import UserError


def evaluate(runner, *arguments):
    return summarise(runner.env, play(runner, *arguments))


def episodes_of(success, mode=None) -> Episodes:
    ones = np.ones(len(success))
    return Episodes(np.array(success), mode, 2 * ones, ones, 5 * ones)


def avoiding_runner(base_policy, n_envs: int) -> EpisodeRunner:
    config, env_config = load_policy_config(str(base_policy), []), AvoidingEnvConfig(episode_length=5)
    env = env_config.create_envs(n_envs)["avoiding"][0]
    return EpisodeRunner(
        env, load_policy(config, base_policy), *make_env_pre_post_processors(env_config, config)
    )


def test_an_evaluation_without_modes():
    result = Evaluation.of(episodes_of([True, False, True, True]), num_modes=24)
    assert result.success == 0.75
    # 95 % Wilson interval of 3 of 4.
    assert result.success_ci == pytest.approx((0.3006, 0.9544), abs=1e-4)
    assert (result.total_reward, result.max_reward, result.mean_length) == (2, 1, 5)
    assert "modes" not in result.to_dict()
    assert result.sentence() == "success 0.750 [0.301, 0.954] of 4 episodes, mean max reward 1.000"


def test_modes_are_counted_among_successes():
    mode = np.array([1, 1, 3, 2, -1])
    result = Evaluation.of(episodes_of([True, True, True, False, False], mode), num_modes=4)
    assert result.mode_counts == [0, 2, 0, 1]
    assert (result.modes, result.num_modes) == (2, 4)
    assert 0 < result.entropy < 1
    assert "2 of 4 modes" in result.sentence()


def test_numbers_repeat_and_the_global_random_state_stays(base_policy):
    runner = avoiding_runner(base_policy, 2)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, first_episodes = evaluate(runner, 3, 100)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second, second_episodes = evaluate(runner, 3, 100)
    assert first == second and first.n_episodes == 3
    assert np.array_equal(first_episodes.states[OBS_STATE], second_episodes.states[OBS_STATE])
    _, other_seed = evaluate(runner, 3, 101)
    assert not np.array_equal(other_seed.states[OBS_STATE], first_episodes.states[OBS_STATE])


def test_rewards_are_those_of_stock_lerobot_eval(tmp_path):
    folder = save_policy(
        tmp_path / "pusht", {"observation.state": 2, "observation.environment_state": 16}, reach=100.0
    )
    config = load_policy_config(str(folder), [])
    policy = load_policy(config, folder)
    env_config = PushtEnv(obs_type="environment_state_agent_pos", episode_length=8)
    env = env_config.create_envs(2)["pusht"][0]
    processors = make_env_pre_post_processors(env_config, config)
    _, episodes = evaluate(EpisodeRunner(env, policy, *processors), 4, 50)

    torch.manual_seed(50)
    stock = eval_policy(
        env, policy.module, *processors, policy.preprocessor, policy.postprocessor, 4, start_seed=50
    )
    env.close()
    lines = stock["per_episode"]
    assert len(lines) == 4
    assert [line["sum_reward"] for line in lines] == pytest.approx(episodes.total_reward.tolist(), rel=1e-6)
    assert [line["max_reward"] for line in lines] == pytest.approx(episodes.max_reward.tolist(), rel=1e-6)
    assert [line["success"] for line in lines] == episodes.success.tolist()


def test_videos_and_pictures_are_files(base_policy, tmp_path):
    runner = avoiding_runner(base_policy, 1)
    film(runner, 0, tmp_path / "base.mp4")
    assert (tmp_path / "base_0.mp4").stat().st_size > 1000
    result, episodes = evaluate(runner, 2, 0)
    assert is_planar(episodes, runner.env)
    draw_trajectories(tmp_path / "new/paths.png", [("base", episodes, result)], runner.env)
    lines = [{"env_steps": 0} | result.to_dict(), {"env_steps": 5} | result.to_dict()]
    draw_learning_curve(tmp_path / "new/curve.png", lines)
    draw_learning_curve(tmp_path / "new/other.png", [{k: v for k, v in lines[0].items() if k != "modes"}])
    names = ["curve.png", "other.png", "paths.png"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == names
    assert all((tmp_path / "new" / name).read_bytes().startswith(b"\x89PNG") for name in names)


def test_states_of_an_arm_are_no_path():
    episodes = episodes_of([True])
    assert not is_planar(episodes, object())
    episodes.states[OBS_STATE] = np.zeros((1, 3, 14))
    assert not is_planar(episodes, object())
    episodes.states[OBS_STATE] = np.zeros((1, 3, 2))
    assert is_planar(episodes, object())


def test_modes_without_a_number_of_modes():
    named = episodes_of([True, False])
    named.mode = np.array([0, 3])
    with pytest.raises(UserError, match=r"give it an attribute num_modes"):
        summarise(toy_envs(2), named)
