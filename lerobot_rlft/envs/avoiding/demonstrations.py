"""Scripted demonstrations of Avoiding-Lite: equally many successful episodes in each of the 24 modes."""

import math
from pathlib import Path

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.utils.constants import ACTION, DONE, OBS_ENV_STATE, OBS_STATE, REWARD, SUCCESS

from ...datasets.writer import labelled_features, write_dataset
from .avoiding import GAPS, LEVEL_Y, MAX_DELTA, NUM_MODES, TASK, AvoidingVectorEnv, mode_gaps

FPS = 28
FEATURES = labelled_features(state=4, environment_state=len(GAPS), action=2)
SPEED = 0.0095  # metres per step along the path
# Where a path crosses the levels: gap centres, on the outer gaps moved a little towards the middle.
CROSSING_X = ((0.41, 0.59), (0.34, 0.5, 0.66), (0.275, 0.425, 0.575, 0.725))
STRAIGHT = 0.025  # a level is crossed straight upwards, from this far below to this far above it
TRIES_PER_EPISODE = 200


def record_episode(
    env: AvoidingVectorEnv, mode: int, noise: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Drive a one-copy env through `mode`, again until an attempt succeeds in it.

    Args:
        env: `num_envs == 1`, reward `binary`.
        mode: 0..23.
        noise: standard deviation of the Gaussian noise on every action component, metres.

    Returns:
        agent_pos (T, 4) before each action and the executed action (T, 2), float32.

    Raises:
        ValueError: no attempt of `TRIES_PER_EPISODE` succeeded; the noise is too large.
    """
    for _ in range(TRIES_PER_EPISODE):
        shift = rng.uniform(-0.01, 0.01, 3)
        crossings = [
            np.array([CROSSING_X[level][gap] + shift[level], LEVEL_Y[level]])
            for level, gap in enumerate(mode_gaps(mode))
        ]
        waypoints = [crossing + np.array([0, dy]) for crossing in crossings for dy in (-STRAIGHT, STRAIGHT)]
        waypoints.append(crossings[-1] + np.array([0, 0.15]))
        obs, _ = env.reset()
        states, actions, next_point = [], [], 0
        while True:
            position = obs["agent_pos"][0, 2:]
            while (
                np.linalg.norm(waypoints[next_point] - position) < 1.5 * SPEED
                and next_point < len(waypoints) - 1
            ):
                next_point += 1
            direction = waypoints[next_point] - position
            action = SPEED * direction / np.linalg.norm(direction) + rng.normal(0, noise, 2)
            action = np.clip(action, -MAX_DELTA, MAX_DELTA).astype(np.float32)
            states.append(obs["agent_pos"][0])
            actions.append(action)
            obs, _, terminated, truncated, info = env.step(action[None])
            if terminated[0] or truncated[0]:
                break
        if info["is_success"][0] and info["mode"][0] == mode:
            return np.stack(states), np.stack(actions)
    raise ValueError(
        f"noise={noise}: no success in mode {mode} in {TRIES_PER_EPISODE} attempts; "
        "use less noise (0.003 works)"
    )


def write_demonstrations(
    root: Path,
    repo_id: str,
    episodes_per_mode: int = 4,
    noise: float = 0.003,
    seed: int = 0,
    lag: float = 0.25,
    progress: bool = True,
) -> LeRobotDataset:
    """Record `episodes_per_mode` successful episodes of every mode, 24 times as many in all.

    Args:
        root: directory to create; it appears only once it is complete.
        repo_id: name of the dataset, `user/name`.
        episodes_per_mode: at least 1.
        noise: standard deviation of the Gaussian noise on every action component, metres.
        seed: of the paths and the noise.
        lag: of the env, see `AvoidingVectorEnv`.
        progress: show a progress bar.

    Returns:
        The written dataset, opened for reading.

    Raises:
        FileExistsError: `root` exists.
        ValueError: a number is out of its range, or the noise is too large to succeed.
    """
    if episodes_per_mode < 1 or not 0 <= noise < math.inf or seed < 0:  # NaN compares false
        raise ValueError(
            f"episodes_per_mode={episodes_per_mode} must be at least 1, "
            f"noise={noise} finite and not negative, seed={seed} not negative"
        )
    env, rng = AvoidingVectorEnv(1, lag=lag), np.random.default_rng(seed)
    modes = np.repeat(np.arange(NUM_MODES), episodes_per_mode)
    columns = (_columns(mode, *record_episode(env, int(mode), noise, rng)) for mode in modes)
    return write_dataset(root, repo_id, FPS, TASK, FEATURES, columns, len(modes), progress)


def _columns(mode: int, state: np.ndarray, action: np.ndarray) -> dict[str, np.ndarray]:
    last = (np.arange(len(state)) == len(state) - 1)[:, None]
    return {
        OBS_STATE: state,
        OBS_ENV_STATE: np.zeros((len(state), len(GAPS)), np.float32),
        ACTION: action,
        REWARD: last.astype(np.float32),
        SUCCESS: last,
        DONE: last,
        "mode": np.full((len(state), 1), mode, np.int64),
    }
