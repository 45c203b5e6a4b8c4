"""Grasps against hand-computed numbers, in LeRobot, and under the runner."""

import numpy as np
import pytest
from tiny import save_policy

from lerobot_rlft.envs.grasps.configuration_grasps import GraspsEnvConfig
from lerobot_rlft.envs.grasps.grasps import GraspsVectorEnv

# .7 (cos, sin) of 90, 162, 234, 306 and 18 degrees
POINTS = [(0, 0.7), (-0.66574, 0.21631), (-0.41145, -0.56631), (0.41145, -0.56631), (0.66574, 0.21631)]


def outcome(actions, **kwargs):
    """Reward, success and mode of one step of a copy for each action."""
    env = GraspsVectorEnv(len(actions), **kwargs)
    env.reset()
    _, reward, terminated, truncated, info = env.step(np.array(actions))
    assert terminated.all() and not truncated.any()
    final = info["final_info"]
    for key in ("is_success", "mode"):
        assert (info[key] == final[key]).all() and info[f"_{key}"].all() and final[f"_{key}"].all()
    return reward.tolist(), final["is_success"].tolist(), final["mode"].tolist()


def test_the_first_grasp_pays_a_little_more():
    np.testing.assert_allclose(GraspsVectorEnv(1).points, POINTS, atol=1e-5)
    assert outcome(POINTS) == ([1.01, 1, 1, 1, 1], [True] * 5, [0, 1, 2, 3, 4])
    assert outcome(POINTS, best_reward=3.0)[0] == [3, 1, 1, 1, 1]


def test_a_grasp_reaches_as_far_as_its_tolerance():
    for tolerance in (0.15, 0.05):
        inside, outside = tolerance - 1e-6, tolerance + 1e-6
        actions = [(0, 0.7 + inside), (inside, 0.7), (0, 0.7 - outside), (-outside, 0.7), (0, 0)]
        reward, success, mode = outcome(actions, tolerance=tolerance)
        assert reward == [1.01, 1.01, 0, 0, 0] and success == [True, True, False, False, False]
        assert mode == [0, 0, -1, -1, -1]


def test_another_number_of_grasps():
    assert outcome([(0, 0.7), (0, -0.7), (0.7, 0)], n_grasps=2) == (
        [1.01, 1, 0],
        [True, True, False],
        [0, 1, -1],
    )
    assert GraspsVectorEnv(3, n_grasps=2).call("num_modes") == (2, 2, 2)


@pytest.mark.parametrize("closed", range(5))
def test_a_blocked_grasp_misses_and_is_not_shown(closed):
    reward, success, mode = outcome(POINTS, blocked_grasp=closed)
    others = [i != closed for i in range(5)]
    assert success == others and mode == [i if i != closed else -1 for i in range(5)]
    assert reward == [pay * open_ for pay, open_ in zip([1.01, 1, 1, 1, 1], others, strict=True)]
    seen, usual = (
        GraspsVectorEnv(1, blocked_grasp=which).reset()[0]["environment_state"] for which in (closed, None)
    )
    assert (seen == usual).all()


def test_the_last_observation_shows_where_the_gripper_went_and_the_next_episode_the_start():
    env = GraspsVectorEnv(2)
    obs, info = env.reset(seed=[3, 4])
    assert env.observation_space.contains(obs) and info["mode"].tolist() == [-1, -1]
    assert not obs["agent_pos"].any() and not info["is_success"].any()
    for _ in range(2):
        obs, *_, info = env.step(np.array([(0.25, -0.5), (7, -7)]))
        assert not obs["agent_pos"].any()
        assert [o["agent_pos"].tolist() for o in info["final_obs"]] == [[0.25, -0.5], [1, -1]]
        assert info["_final_obs"].all() and info["_final_info"].all()
    with pytest.raises(ValueError, match=r"shape \(2,\), give \(2, 2\)"):
        env.step(np.zeros(2))


def test_frames_show_the_gripper_and_a_closed_grasp():
    env = GraspsVectorEnv(2, render_size=64)
    (frame, twin), (walled,) = env.render(), GraspsVectorEnv(1, blocked_grasp=0, render_size=64).render()
    assert frame.shape == (64, 64, 3) and frame.dtype == np.uint8 and (frame == twin).all()
    rows, columns = np.nonzero((frame == (40, 90, 180)).all(-1))
    assert abs(rows.mean() - 32) < 1 and abs(columns.mean() - 32) < 1
    changed = np.nonzero((frame != walled).any(-1))[0]
    assert changed.size and changed.max() < 20  # grasp 0 is at the top


def test_paths_for_pictures_lead_to_the_clipped_position():
    path = GraspsVectorEnv(1).action_path(np.zeros(2), np.array([[(0.5, 2.0)], [(-3.0, 0.0)]]))
    assert path.tolist() == [[[0, 0], [0.5, 1]], [[0, 0], [-1, 0]]]


@pytest.mark.parametrize(
    "field, value, fix",
    [
        ("n_grasps", 1, "at least 2"),
        ("tolerance", 0.0, "above 0"),
        ("tolerance", 0.42, r"at most 0\.411: beyond that env\.n_grasps=5"),
        ("best_reward", 0.0, "above 0"),
        ("best_reward", float("nan"), "above 0"),
        ("blocked_grasp", 5, "0 to 4 or null"),
        ("blocked_grasp", -1, "0 to 4 or null"),
        ("render_size", 8, "at least 16"),
    ],
)
def test_config_errors_name_field_value_and_fix(field, value, fix):
    with pytest.raises(ValueError, match=rf"env\.{field}={value!r}.*{fix}"):
        GraspsEnvConfig(**{field: value})


def test_the_config_closes_every_grasp_in_turn():
    blocked = GraspsEnvConfig(n_grasps=3, tolerance=0.2).blocked()
    assert list(blocked) == ["grasp 0", "grasp 1", "grasp 2"]
    assert [env.blocked_grasp for env in blocked.values()] == [0, 1, 2]
    assert all(env.n_grasps == 3 and env.tolerance == 0.2 for env in blocked.values())


def test_lerobot_makes_the_env_from_its_config():
    from lerobot.envs.factory import make_env, make_env_config
    from lerobot.envs.utils import env_to_policy_features, preprocess_observation

    fields = {"n_grasps": 4, "tolerance": 0.1, "best_reward": 1.5, "blocked_grasp": 2, "render_size": 32}
    cfg = make_env_config("grasps", task="go", **fields)
    env = make_env(cfg, n_envs=3, use_async_envs=True)["grasps"][0]
    assert (env.num_envs, env.num_modes, env.tolerance, env.blocked_grasp) == (3, 4, 0.1, 2)
    assert env.payment.tolist() == [1.5, 1, 1, 1] and env.render_size == 32 and env.task == "go"
    assert env.call("_max_episode_steps") == (1, 1, 1)
    obs = preprocess_observation(env.reset()[0])
    features = {name: feature.shape for name, feature in env_to_policy_features(cfg).items()}
    shapes = {name: tuple(value.shape[1:]) for name, value in obs.items()}
    assert features == shapes | {"action": env.single_action_space.shape}


def test_the_runner_records_the_way_to_the_grasp(tmp_path):
    from lerobot_rlft.policies.loading import load_policy
    from lerobot_rlft.rollout.environments import make_runner
    from lerobot_rlft.rollout.evaluation import play, summarise
    from lerobot_rlft.training.setup import load_policy_config

    sizes = {"observation.state": 2, "observation.environment_state": 2}
    base = save_policy(tmp_path / "base", sizes, reach=1.0, n_obs_steps=1, horizon=2, n_action_steps=1)
    runner = make_runner(
        GraspsEnvConfig(tolerance=0.4), load_policy(load_policy_config(str(base), []), base), 40
    )
    episodes = play(runner, 40, seed=0)
    path = episodes.states["observation.state"]  # (40, 2, 2)
    assert path.shape == (40, 2, 2) and not path[:, 0].any() and (episodes.length == 1).all()
    distance = np.linalg.norm(path[:, 1, None] - np.array(POINTS), axis=-1)
    assert (episodes.success == (distance.min(1) < 0.4)).all()
    assert (episodes.mode == np.where(episodes.success, distance.argmin(1), -1)).all()
    evaluation, _ = summarise(runner.env, episodes)
    assert evaluation.num_modes == 5 and sum(evaluation.mode_counts) == episodes.success.sum() > 0
