"""Episodes played in an environment as a LeRobotDataset, written by LeRobot's own writer.

One frame for each environment step: the observation before the action in LeRobot's keys, the `action` as sent
to the environment, and what came of it: `next.reward` of the environment, `next.done` at the last frame of an
episode, `next.success` there if it succeeded, `mode` (the episode's, at every frame; -1 unknown) and
`intervention` (false: nobody took over; LeRobot's DAgger strategy marks corrections with true).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.datasets import LeRobotDataset
from lerobot.utils.constants import ACTION, DONE, REWARD, SUCCESS

from ..datasets.configuration import INTERVENTION, MODE
from ..datasets.writer import write_dataset
from ..diversity.atlas import ModeAtlas
from .episodes import Episodes
from .evaluation import name_modes
from .runner import EpisodeRunner

PER_FRAME = {REWARD: "float32", DONE: "bool", SUCCESS: "bool", MODE: "int64", INTERVENTION: "bool"}


def write_rollouts(
    runner: EpisodeRunner,
    root: Path,
    repo_id: str,
    n_episodes: int,
    seed: int,
    *,
    fps: int,
    task: str = "",
    atlas: ModeAtlas | None = None,
    progress: bool = True,
) -> tuple[LeRobotDataset, Episodes]:
    """Play episodes on seeds `seed, seed + 1, ...` and write them; the global random state is left alone.

    Args:
        runner: its policy plays, by its own, deployed sampler; images are kept as PNG, vectors as float32.
        root: folder to create; it appears only once it is complete.
        repo_id: name of the dataset, `user/name`.
        fps: control steps per second.
        task: the sentence that describes the task.
        atlas: names modes where the environment does not.

    Returns:
        The dataset, opened for reading, and its episodes, modes named.

    Raises:
        FileExistsError: `root` exists.
        EnvironmentFailure, FloatingPointError: see `EpisodeRunner.collect`; nothing is left behind.
    """
    history: list[Episodes] = []
    rounds = _named_rounds(runner, n_episodes, seed, atlas, history)
    first = next(rounds)
    dataset = write_dataset(
        root, repo_id, fps, task, _features(first), _chained(first, rounds), n_episodes, progress
    )
    return dataset, Episodes.concatenate(history)


def _named_rounds(
    runner: EpisodeRunner,
    n_episodes: int,
    seed: int,
    atlas: ModeAtlas | None,
    history: list[Episodes],
) -> Iterator[dict[str, np.ndarray]]:
    """The columns of each episode, feature name -> (L, *shape); finished rounds are added to `history`."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for episodes, frames in runner.record(n_episodes, seed + np.arange(n_episodes), runner.deployed):
            episodes, _ = name_modes(runner.env, episodes, atlas)
            history.append(episodes)
            for i, length in enumerate(episodes.length):
                obs, action, reward = frames.columns(i, length)
                last = np.arange(length) == length - 1
                mode = -1 if episodes.mode is None else episodes.mode[i]
                columns = {key: _stored(value) for key, value in obs.items()} | {ACTION: action}
                per_frame = {
                    REWARD: reward,
                    DONE: last,
                    SUCCESS: last & episodes.success[i],
                    MODE: np.full(length, mode),
                    INTERVENTION: np.zeros(length, bool),
                }
                yield columns | {key: per_frame[key].astype(PER_FRAME[key])[:, None] for key in PER_FRAME}


def _chained(
    first: dict[str, np.ndarray], others: Iterator[dict[str, np.ndarray]]
) -> Iterator[dict[str, np.ndarray]]:
    yield first
    yield from others


def _stored(value: np.ndarray) -> np.ndarray:
    """Images (L, C, H, W) with channels last, as LeRobot's writer wants them; vectors as float32."""
    return value.transpose(0, 2, 3, 1) if value.ndim == 4 else value.astype(np.float32)


def _features(columns: dict[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """LeRobot's feature descriptions of an episode's columns."""
    return {
        key: {"dtype": "image", "shape": value.shape[1:], "names": ["height", "width", "channels"]}
        if value.ndim == 4
        else {"dtype": str(value.dtype), "shape": value.shape[1:], "names": None}
        for key, value in columns.items()
    }
