"""Scripted demonstrations of Grasps: every grasp is tried equally often, by an unsteady hand."""

import math
from pathlib import Path

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.utils.constants import ACTION, DONE, OBS_ENV_STATE, OBS_STATE, REWARD, SUCCESS

from ...datasets.writer import labelled_features, write_dataset
from .grasps import TASK, GraspsVectorEnv

FPS = 1
FEATURES = labelled_features(state=2, environment_state=2, action=2)


def write_demonstrations(
    root: Path,
    repo_id: str,
    episodes_per_mode: int = 40,
    noise: float = 0.1,
    seed: int = 0,
    progress: bool = True,
) -> LeRobotDataset:
    """Record `episodes_per_mode` attempts at each of the five grasps, one frame each.

    Misses are kept: a policy that clones them has something left to learn.

    Args:
        root: directory to create; it appears only once it is complete.
        repo_id: name of the dataset, `user/name`.
        episodes_per_mode: at least 1.
        noise: standard deviation of the Gaussian noise on both coordinates of a grasp.
        seed: of the noise.
        progress: show a progress bar.

    Returns:
        The written dataset, opened for reading; `mode` is the grasp that succeeded, -1 in a miss.

    Raises:
        FileExistsError: `root` exists.
        ValueError: a number is out of its range.
    """
    if episodes_per_mode < 1 or not 0 <= noise < math.inf or seed < 0:  # NaN compares false
        raise ValueError(
            f"episodes_per_mode={episodes_per_mode} must be at least 1, "
            f"noise={noise} finite and not negative, seed={seed} not negative"
        )
    num_modes = GraspsVectorEnv(1).num_modes
    env = GraspsVectorEnv(num_modes * episodes_per_mode)
    aims = np.repeat(env.points, episodes_per_mode, axis=0)
    actions = aims + np.random.default_rng(seed).normal(0, noise, aims.shape)
    actions = np.clip(actions, -1, 1).astype(np.float32)
    obs, _ = env.reset()
    _, reward, _, _, info = env.step(actions)
    columns = {
        OBS_STATE: obs["agent_pos"],
        OBS_ENV_STATE: obs["environment_state"],
        ACTION: actions,
        REWARD: reward.astype(np.float32)[:, None],
        SUCCESS: info["final_info"]["is_success"][:, None],
        DONE: np.ones((len(aims), 1), bool),
        "mode": info["final_info"]["mode"][:, None],
    }
    episodes = ({name: rows[i : i + 1] for name, rows in columns.items()} for i in range(len(aims)))
    return write_dataset(root, repo_id, FPS, TASK, FEATURES, episodes, len(aims), progress)
