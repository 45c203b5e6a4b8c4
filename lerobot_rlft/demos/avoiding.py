"""Scripted demonstrations of Avoiding-Lite: the same number of successful episodes in each of the 24 modes."""

from collections.abc import Iterator

import numpy as np

from ..envs.avoiding import GAPS, LEVEL_Y, MAX_DELTA, NUM_MODES, AvoidingVectorEnv, mode_gaps

SPEED = 0.0095  # metres per step along the path
# Where a path crosses the levels: gap centres, moved a little towards the middle of the board on the outer gaps.
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
        waypoints = [(*crossing, 0, dy) for crossing in crossings for dy in (-STRAIGHT, STRAIGHT)]
        waypoints.append(crossings[-1] + (0, 0.15))
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
        f"noise={noise}: no success in mode {mode} in {TRIES_PER_EPISODE} attempts; use less noise (0.005 works)"
    )


def episodes(episodes_per_mode: int, noise: float, seed: int, lag: float) -> Iterator[dict[str, np.ndarray]]:
    """Yield demonstrations mode by mode, as columns for `write_dataset`.

    Args:
        episodes_per_mode: at least 1; the data set has 24 times as many.
        noise: see `record_episode`.
        seed: of the path jitter and the action noise.
        lag: of the env, see `AvoidingVectorEnv`.
    """
    env, rng = AvoidingVectorEnv(1, lag=lag), np.random.default_rng(seed)
    for mode in np.repeat(np.arange(NUM_MODES), episodes_per_mode):
        state, action = record_episode(env, int(mode), noise, rng)
        last = np.arange(len(state)) == len(state) - 1
        yield {
            "observation.state": state,
            "observation.environment_state": np.zeros((len(state), len(GAPS)), np.float32),
            "action": action,
            "next.reward": last[:, None].astype(np.float32),
            "next.success": last[:, None],
            "next.done": last[:, None],
            "mode": np.full((len(state), 1), mode, np.int64),
        }
