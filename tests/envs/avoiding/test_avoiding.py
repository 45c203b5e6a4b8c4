"""Avoiding-Lite against hand-computed numbers, gymnasium's own vector env, and stock lerobot-eval."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from lerobot_rlft.envs.avoiding.avoiding import GAPS, NUM_MODES, REWARDS, AvoidingVectorEnv, mode_gaps

PILLARS = [  # x, y, radius as published with D3IL
    (0.5, -0.10, 0.03),
    (0.425, 0.08, 0.025),
    (0.575, 0.08, 0.025),
    (0.35, 0.26, 0.025),
    (0.5, 0.26, 0.025),
    (0.65, 0.26, 0.025),
]
START = (0.525, -0.28)
ALL_MODES = range(NUM_MODES)


def put(env: AvoidingVectorEnv, *points: tuple[float, float]):
    """Move copy i to points[i], at rest, and make one step there."""
    env._desired[:] = env._current[:] = points
    return env.step(np.zeros((env.num_envs, 2)))


def plan(mode: int) -> np.ndarray:
    """Actions (150, 2) that lead through the gaps of `mode` and on upwards, well clear of the pillars."""
    a, b, c = mode_gaps(mode)
    x1, x2, x3 = (0.42, 0.58)[a], (0.37, 0.5, 0.63)[b], (0.3, 0.425, 0.575, 0.7)[c]
    corners = [START, (x1, -0.15), (x1, -0.05), (x2, 0.03), (x2, 0.13), (x3, 0.21), (x3, 0.31)]
    actions = []
    for way in np.diff(corners, axis=0):
        pieces = int(np.ceil(np.abs(way).max() / 0.01 - 1e-9))
        actions += [way / pieces] * pieces
    return np.array(actions + [(0, 0.01)] * (150 - len(actions)))


def drive(env: AvoidingVectorEnv, modes=ALL_MODES) -> dict[str, np.ndarray]:
    """Run `plan(modes[i])` in copy i up to the end of its first episode."""
    plans = np.stack([plan(mode) for mode in modes], axis=1)  # (150, N, 2)
    end = {name: np.zeros(env.num_envs) for name in ("mode", "success", "return", "length", "terminated")}
    running = np.ones(env.num_envs, bool)
    env.reset()
    for t, actions in enumerate(plans):
        _, reward, terminated, truncated, info = env.step(actions)
        end["return"][running] += reward[running]
        now = running & (terminated | truncated)
        if now.any():
            end["mode"][now] = info["final_info"]["mode"][now]
            end["success"][now] = info["final_info"]["is_success"][now]
            end["length"][now], end["terminated"][now] = t + 1, terminated[now]
        running &= ~now
    assert not running.any()
    return end


def test_reset_observes_the_start_and_nothing_else_whatever_the_seed():
    env = AvoidingVectorEnv(2)
    for kwargs in ({}, {"seed": 3}, {"seed": [4, 5]}, {"options": {"lerobot_new_rollout": True}}):
        obs, info = env.reset(**kwargs)
        np.testing.assert_allclose(obs["agent_pos"], [[*START, *START]] * 2)
        assert obs["agent_pos"].dtype == obs["environment_state"].dtype == np.float32
        assert (obs["environment_state"] == np.zeros((2, 9))).all()
        assert info["mode"].tolist() == [-1, -1] and not info["is_success"].any()
        assert env.observation_space.contains(obs)


@pytest.mark.parametrize("x, y, radius", PILLARS)
def test_contact_is_nearer_than_pillar_plus_rod(x, y, radius):
    angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    for distance, contact in ((radius + 0.01 - 1e-6, True), (radius + 0.01 + 1e-6, False)):
        points = [(x + distance * np.cos(a), y + distance * np.sin(a)) for a in angles]
        _, reward, terminated, truncated, info = put(AvoidingVectorEnv(16), *points)
        assert (terminated == contact).all() and not truncated.any() and not reward.any()
        assert not info["is_success"].any()


def test_there_are_only_those_six_pillars():
    xs, ys = np.meshgrid(np.linspace(0.201, 0.799, 150), np.linspace(-0.399, 0.349, 150))
    points = np.stack([xs.ravel(), ys.ravel()], axis=1)
    terminated = put(AvoidingVectorEnv(len(points)), *points)[2]
    near = [np.hypot(points[:, 0] - x, points[:, 1] - y) < r + 0.01 for x, y, r in PILLARS]
    assert (terminated == np.any(near, axis=0)).all()


@pytest.mark.parametrize(
    "lag, first, second", [(0.0, 0.535, 0.545), (0.25, 0.5325, 0.541875), (0.5, 0.53, 0.5375)]
)
def test_the_current_position_follows_the_clipped_desired_one(lag, first, second):
    env = AvoidingVectorEnv(1, lag=lag)
    env.reset()
    obs = env.step(np.array([[0.01, 0.0]]))[0]["agent_pos"]
    np.testing.assert_allclose(obs, [[0.535, -0.28, first, -0.28]], rtol=1e-6)
    obs = env.step(np.array([[7.0, 0.0]]))[0]["agent_pos"]
    np.testing.assert_allclose(obs, [[0.545, -0.28, second, -0.28]], rtol=1e-6)
    desired_y = env.step(np.array([[0.0, -7.0]]))[0]["agent_pos"][0, 1]
    np.testing.assert_allclose(desired_y, -0.29, rtol=1e-6)


@pytest.mark.parametrize("lag", [0.0, 0.25, 0.5])
def test_every_mode_can_be_driven_and_is_named_by_its_gaps(lag):
    assert [mode_gaps(m) for m in ALL_MODES] == [
        (a, b, c) for a in range(2) for b in range(3) for c in range(4)
    ]
    end = drive(AvoidingVectorEnv(NUM_MODES, lag=lag))
    assert end["mode"].tolist() == list(ALL_MODES)
    assert end["success"].all() and end["terminated"].all() and (end["return"] == 1).all()


def test_levels_count_within_three_centimetres_and_the_third_once():
    env = AvoidingVectorEnv(1, lag=0)
    seen = []
    for point in (
        (0.6, -0.0701),  # first level, right: counts
        (0.4, -0.0699),  # just beyond it
        (0.3, 0.1099),  # second level, left: counts
        (0.5, 0.1101),  # just beyond it
        (0.6, 0.2599),  # not yet at the third
        (0.6, 0.2601),  # third gap of the third level: 12 + 0 + 2
        (0.74, 0.27),
    ):
        seen.append(put(env, point)[4]["mode"][0])
    assert seen == [-1, -1, -1, -1, -1, 14, 14]


@pytest.mark.parametrize(
    "point, ends",
    [
        ((0.1999, 0.0), True),
        ((0.2001, 0.0), False),
        ((0.8001, 0.0), True),
        ((0.7999, 0.0), False),
        ((0.5, -0.4001), True),
        ((0.5, -0.3999), False),
        ((0.1999, 0.36), True),  # beyond the finish line, but off the board
    ],
)
def test_leaving_the_board_fails(point, ends):
    _, reward, terminated, truncated, info = put(AvoidingVectorEnv(1), point)
    assert terminated[0] == ends and not truncated[0]
    assert reward[0] == 0 and not info["is_success"][0]


def test_crossing_the_line_is_success_and_standing_before_it_is_not():
    _, reward, terminated, _, info = put(AvoidingVectorEnv(2), (0.7, 0.3499), (0.7, 0.3501))
    assert reward.tolist() == [0, 1] and terminated.tolist() == [False, True]
    assert info["is_success"].tolist() == [False, True]
    assert info["final_info"]["is_success"].tolist() == [False, True]


def test_graded_pays_one_hundredth_more_for_each_mode():
    end = drive(AvoidingVectorEnv(NUM_MODES, reward="graded", graded_bonus=0.23))
    np.testing.assert_allclose(end["return"], [1 + 0.01 * m for m in ALL_MODES])
    default = drive(AvoidingVectorEnv(NUM_MODES, reward="graded"))
    assert default["return"][0] == 1 and default["return"][23] == pytest.approx(1.05)


def test_graded_pays_nothing_for_failure():
    _, reward, terminated, _, _ = put(AvoidingVectorEnv(1, reward="graded"), (0.5, -0.1))
    assert terminated[0] and reward[0] == 0


def test_dppo_m5_pays_each_step_beyond_the_line_and_runs_on():
    env = AvoidingVectorEnv(1, reward="dppo_m5", lag=0)
    assert put(env, (0.7, 0.345))[1][0] == 0
    rewards, success = [], []
    for dy in (0.01, 0.0, 0.01, -0.01, -0.01, -0.01, 0.01):
        _, reward, terminated, truncated, info = env.step(np.array([[0.0, dy]]))
        assert not terminated[0] and not truncated[0]
        rewards.append(reward[0])
        success.append(bool(info["is_success"][0]))
    assert rewards == [1, 1, 1, 1, 0, 0, 0]
    assert all(success)  # once reached, reached
    _, reward, terminated, _, info = put(env, (0.81, 0.4))
    assert terminated[0] and reward[0] == 0 and info["final_info"]["is_success"][0]


def test_dppo_m5_episodes_last_to_the_horizon():
    end = drive(AvoidingVectorEnv(NUM_MODES, reward="dppo_m5"))
    binary = drive(AvoidingVectorEnv(NUM_MODES))
    assert (end["length"] == 150).all() and not end["terminated"].any() and end["success"].all()
    assert end["return"].tolist() == (150 - binary["length"] + 1).tolist()
    assert end["mode"].tolist() == list(ALL_MODES)


@pytest.mark.parametrize("gap", range(9))
@pytest.mark.parametrize("show", [False, True])
def test_a_wall_stops_exactly_the_modes_through_its_gap(gap, show):
    env = AvoidingVectorEnv(NUM_MODES, reward="blocked", blocked_gap=gap, show_block=show)
    flags = np.zeros(9)
    flags[gap] = show
    assert (env.reset()[0]["environment_state"] == flags).all()
    assert (env.step(np.zeros((NUM_MODES, 2)))[0]["environment_state"] == flags).all()
    # The gaps are numbered 0-1 on the first, 2-4 on the second, 5-8 on the third level.
    through = [gap in (a, 2 + b, 5 + c) for a, b, c in map(mode_gaps, ALL_MODES)]
    assert sum(through) == {0: 12, 1: 12, 2: 8, 3: 8, 4: 8}.get(gap, 6)
    end = drive(env)
    assert end["success"].tolist() == [not t for t in through]
    assert end["return"].tolist() == [float(not t) for t in through]
    assert end["terminated"].all()


@pytest.mark.parametrize("gap", range(9))
def test_no_way_past_a_wall_beside_its_pillars(gap):
    """However it is approached, at full speed, the wall is met before its level is crossed."""
    y, left, right = GAPS[gap]
    xs = np.linspace(left, right, 101)
    for below in (0.05, 0.0512, 0.0549, 0.0599):
        env = AvoidingVectorEnv(101, reward="blocked", blocked_gap=gap, lag=0)
        env.reset()
        env._desired[:, 0] = env._current[:, 0] = xs
        env._desired[:, 1] = env._current[:, 1] = y - below
        ended = np.zeros(101, bool)
        for _ in range(8):
            ended |= env.step(np.tile([0.0, 0.01], (101, 1)))[2]
        assert ended.all()


def test_the_horizon_truncates():
    env = AvoidingVectorEnv(2, max_episode_steps=5)
    env.reset()
    for t in range(1, 12):
        _, _, terminated, truncated, info = env.step(np.zeros((2, 2)))
        assert not terminated.any() and (truncated == (t % 5 == 0)).all()
        assert ("final_info" in info) == (t % 5 == 0)


def test_an_end_on_the_last_step_is_no_truncation():
    env = AvoidingVectorEnv(2, max_episode_steps=1)
    _, reward, terminated, truncated, _ = put(env, (0.7, 0.36), (0.5, -0.1))
    assert terminated.all() and not truncated.any() and reward.tolist() == [1, 0]


class Single(gym.Env):
    """One copy behind gymnasium's single-env API."""

    def __init__(self, **kwargs):
        self.env = AvoidingVectorEnv(1, **kwargs)
        self.observation_space, self.action_space = (
            self.env.single_observation_space,
            self.env.single_action_space,
        )

    def reset(self, *, seed=None, options=None):
        obs, _ = self.env.reset()
        return {name: value[0] for name, value in obs.items()}, {"mode": -1, "is_success": False}

    def step(self, action):
        obs, reward, terminated, truncated, info = self.env.step(action[None])
        obs = info["final_obs"][0] if "final_obs" in info else {name: value[0] for name, value in obs.items()}
        info = {"mode": int(info["mode"][0]), "is_success": bool(info["is_success"][0])}
        return obs, float(reward[0]), bool(terminated[0]), bool(truncated[0]), info


def layout(tree):
    """Keys, nesting, dtypes and shapes."""
    if isinstance(tree, dict):
        return {key: layout(value) for key, value in tree.items()}
    return tree.dtype, tree.shape


@pytest.mark.parametrize("reward", REWARDS)
def test_n_copies_are_a_sync_vector_env_of_n_single_envs(reward):
    kwargs = {"reward": reward, "blocked_gap": 3, "show_block": True, "max_episode_steps": 90}
    ours = AvoidingVectorEnv(24, **kwargs)
    theirs = SyncVectorEnv([lambda: Single(**kwargs)] * 24, autoreset_mode=AutoresetMode.SAME_STEP)
    assert ours.observation_space == theirs.observation_space and ours.action_space == theirs.action_space
    assert ours.metadata["autoreset_mode"] == theirs.metadata["autoreset_mode"]
    (obs, info), (their_obs, their_info) = ours.reset(), theirs.reset()
    assert layout(info) == layout(their_info)

    rng = np.random.default_rng(0)
    plans = np.stack([plan(mode) for mode in ALL_MODES], axis=1)
    ends = {"failed": 0, "succeeded": 0, "truncated": 0}
    for t in range(250):
        actions = (plans[t % 100] + rng.normal(0, 0.004, (24, 2))).astype(np.float32)
        actions[:3] = 0  # these three run into the horizon
        obs, reward_, terminated, truncated, info = ours.step(actions)
        their_obs, their_reward, their_terminated, their_truncated, their_info = theirs.step(actions)
        for name in obs:
            assert (obs[name] == their_obs[name]).all()
        assert (reward_ == their_reward).all() and reward_.dtype == their_reward.dtype
        assert (terminated == their_terminated).all() and (truncated == their_truncated).all()
        assert layout(info) == layout(their_info)

        done = terminated | truncated
        for name in ("mode", "is_success"):
            assert (info[name] == their_info[name])[~done].all()
            assert info[f"_{name}"].all() and their_info[f"_{name}"].all()
        if done.any():
            for mask in ("_final_obs", "_final_info"):
                assert (info[mask] == done).all() and (their_info[mask] == done).all()
            for name in ("mode", "is_success"):
                final, their_final = info["final_info"], their_info["final_info"]
                assert (final[f"_{name}"] == done).all() and (their_final[f"_{name}"] == done).all()
                assert (final[name] == their_final[name])[done].all()
            for i, (final, their_final) in enumerate(
                zip(info["final_obs"], their_info["final_obs"], strict=True)
            ):
                assert (final is None) == (their_final is None) == (not done[i])
                if done[i]:
                    assert layout(final) == layout(their_final)
                    assert all((final[name] == their_final[name]).all() for name in final)
            ends["truncated"] += truncated.sum()
            ends["succeeded"] += info["final_info"]["is_success"].sum()
            ends["failed"] += (terminated & ~info["final_info"]["is_success"]).sum()
    assert min(ends.values()) > 0


def test_what_a_step_returns_is_not_overwritten_by_the_next():
    env = AvoidingVectorEnv(1, max_episode_steps=2)
    first, _ = env.reset()
    second, *_, info = env.step(np.array([[0.01, 0.01]]))
    kept = first["agent_pos"].copy(), second["agent_pos"].copy(), info["mode"].copy()
    info_end = env.step(np.array([[0.01, 0.01]]))[4]
    final = info_end["final_obs"][0]["agent_pos"].copy()
    env.step(np.array([[0.01, 0.01]]))
    assert (first["agent_pos"] == kept[0]).all() and (second["agent_pos"] == kept[1]).all()
    assert (info["mode"] == kept[2]).all() and (info_end["final_obs"][0]["agent_pos"] == final).all()


def test_frames_show_the_agent_upwards_and_the_wall():
    env = AvoidingVectorEnv(2, render_size=64)
    env.reset()
    start = env.render()
    assert len(start) == 2 and all(f.shape == (64, 64, 3) and f.dtype == np.uint8 for f in start)
    assert (start[0] == start[1]).all()
    rows = np.flatnonzero((start[0] == (40, 90, 180)).all(axis=-1).any(axis=1))
    assert rows.min() > 32  # the start is in the lower half
    env.step(np.array([[0.01, 0.01], [0.0, 0.0]]))
    moved = env.call("render")
    assert not (moved[0] == moved[1]).all() and (moved[1] == start[1]).all()
    walled = AvoidingVectorEnv(1, reward="blocked", render_size=64).render()[0]
    assert not (walled == start[0]).all()
    env.close()
    env.close()


def test_attributes_are_offered_as_by_a_sync_vector_env():
    env = AvoidingVectorEnv(3, max_episode_steps=7, task="go")
    assert env.call("_max_episode_steps") == (7, 7, 7)
    assert env.call("task") == env.get_attr("task_description") == ("go", "go", "go")
    with pytest.raises(AttributeError):
        env.get_attr("nothing_of_the_kind")


@pytest.mark.parametrize("shape", [(2,), (1, 2), (3, 2), (2, 3), (1, 2, 2)])
def test_actions_of_another_shape_are_refused(shape):
    env = AvoidingVectorEnv(2)
    env.reset()
    with pytest.raises(ValueError, match=r"give \(2, 2\)"):
        env.step(np.zeros(shape))


def test_an_unknown_reward_is_refused():
    with pytest.raises(ValueError, match=r"'sparse'.*binary, graded, dppo_m5, blocked"):
        AvoidingVectorEnv(1, reward="sparse")


@pytest.mark.parametrize(
    "field, value",
    [
        ("reward", "sparse"),
        ("blocked_gap", -1),
        ("blocked_gap", 9),
        ("lag", -0.1),
        ("lag", 0.51),
        ("episode_length", 0),
        ("graded_bonus", -0.05),
        ("render_size", 8),
    ],
)
def test_config_errors_name_field_and_value(field, value):
    from lerobot_rlft.envs.avoiding.configuration_avoiding import AvoidingEnvConfig

    with pytest.raises(ValueError, match=rf"env\.{field}={value!r}"):
        AvoidingEnvConfig(**{field: value})


def test_lerobot_makes_the_env_from_its_config():
    import lerobot_policy_rlft  # noqa: F401  registers the env type
    from lerobot.envs.factory import make_env, make_env_config
    from lerobot.envs.utils import (
        check_env_attributes_and_types,
        env_to_policy_features,
        preprocess_observation,
    )

    fields = {"reward": "blocked", "blocked_gap": 4, "show_block": True, "lag": 0.5, "episode_length": 9}
    cfg = make_env_config("avoiding", task="go", render_size=32, graded_bonus=0.1, **fields)
    envs = make_env(cfg, n_envs=3, use_async_envs=True)
    env = envs["avoiding"][0]
    assert list(envs) == ["avoiding"] and env.num_envs == 3
    assert (env.reward, env.lag, env.render_size, env.task) == ("blocked", 0.5, 32, "go")
    assert env.graded_bonus == 0.1 and env.call("_max_episode_steps") == (9, 9, 9)

    obs = preprocess_observation(env.reset()[0])
    shapes = {name: tuple(value.shape[1:]) for name, value in obs.items()}
    features = {name: feature.shape for name, feature in env_to_policy_features(cfg).items()}
    assert features == shapes | {"action": env.single_action_space.shape}
    assert obs["observation.environment_state"][0].tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env_attributes_and_types(env)


@pytest.mark.slow
def test_stock_lerobot_eval_runs_and_writes_its_video(tmp_path: Path):
    import torch
    from lerobot.envs.utils import env_to_policy_features
    from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
    from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
    from lerobot.policies.factory import make_pre_post_processors

    from lerobot_rlft.envs.avoiding.configuration_avoiding import AvoidingEnvConfig

    features = env_to_policy_features(AvoidingEnvConfig())
    action = {"action": features.pop("action")}
    config = DiffusionConfig(
        input_features=features,
        output_features=action,
        n_obs_steps=2,
        horizon=8,
        n_action_steps=4,
        down_dims=(8, 16),
        n_groups=4,
        num_train_timesteps=5,
        device="cpu",
    )
    stats = {
        name: {"min": -torch.ones(feature.shape), "max": torch.ones(feature.shape)}
        for name, feature in (features | action).items()
    }
    DiffusionPolicy(config).save_pretrained(tmp_path / "policy")
    for processor in make_pre_post_processors(config, dataset_stats=stats):
        processor.save_pretrained(tmp_path / "policy")

    command = [
        Path(sys.executable).with_name("lerobot-eval"),
        f"--policy.path={tmp_path / 'policy'}",
        "--policy.device=cpu",
        "--env.type=avoiding",
        "--env.episode_length=8",
        "--env.render_size=64",
        "--eval.n_episodes=2",
        "--eval.batch_size=2",
        f"--output_dir={tmp_path / 'out'}",
    ]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert "does not have 'task_description'" not in done.stderr

    overall = json.loads((tmp_path / "out" / "eval_info.json").read_text())["overall"]
    assert overall["n_episodes"] == 2 and overall["pc_success"] == 0
    videos = sorted((tmp_path / "out" / "videos").rglob("*.mp4"))
    assert len(videos) == 2 and all(video.stat().st_size > 0 for video in videos)
