"""Labels that recorded episodes carry: outcomes, modes, tasks, corrections.

Shapes: F frames of a dataset, E episodes, S state dims.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lerobot.configs import PreTrainedConfig
from lerobot.utils.constants import ACTION, DONE, REWARD, SUCCESS

from ..diversity.atlas import ModeAtlas
from ..diversity.attempts import Attempts
from ..metrics.points import join_paths
from ..utils.errors import UserError
from .configuration import INTERVENTION, MODE, EpisodeData
from .loader import BatchLoader, make_loader
from .windows import Windows, finite_columns

LOADING_BATCH = 256


@dataclass
class Recorded:
    """A dataset of whole episodes.

    Attributes:
        name: for files and messages.
        loader: its windows, cut for the policy.
        demonstration: whether all of it was demonstrated.
        index, episode_index, frame_index: (F,) of the dataset.
        episode: (F,) int, 0..E-1.
        task: (F,) str.
        reward: (F,); None where none was recorded.
        intervention: (F,) bool.
        success: (E,) 1, 0, NaN unknown.
        mode: (E,) int, -1 unknown; see `name_attempts`.
        paths: (E, L+1, S) for the atlas, NaN after an episode's end; None without that observation.
        fingerprint: of the dataset's actions and episodes.
    """

    name: str
    loader: BatchLoader
    demonstration: bool
    index: np.ndarray
    episode_index: np.ndarray
    frame_index: np.ndarray
    episode: np.ndarray
    task: np.ndarray
    reward: np.ndarray | None
    intervention: np.ndarray
    success: np.ndarray
    mode: np.ndarray
    paths: np.ndarray | None
    fingerprint: str

    @property
    def windows(self) -> Windows:
        return self.loader.dataset

    @property
    def forced(self) -> np.ndarray:
        """(F,) bool: frames that are positive by origin."""
        return np.full(len(self.index), self.demonstration) | self.intervention


def read_recorded(
    name: str,
    data: EpisodeData,
    policy: PreTrainedConfig,
    *,
    demonstration: bool,
    key: str,
    atlas: ModeAtlas | None = None,
    seed: int = 0,
    num_workers: int = 0,
) -> Recorded:
    """Open a dataset and read off what became of its episodes.

    Args:
        demonstration: its episodes succeeded unless it says otherwise.
        key: observation whose paths tell modes apart.
        atlas: names modes where the dataset has no `mode`.

    Raises:
        ValueError, OSError: see `make_loader`.
        UserError: `successes` does not fit the dataset.
    """
    loader = make_loader(
        data.repo_id,
        policy,
        root=data.root,
        episodes=data.episodes,
        batch_size=LOADING_BATCH,
        seed=seed,
        num_workers=num_workers,
    )
    columns = {k: v.numpy() for k, v in finite_columns(loader.dataset.source).items()}
    episode_index = columns["episode_index"]
    numbers, episode = np.unique(episode_index, return_inverse=True)
    tasks = loader.dataset.meta.tasks.index.to_numpy()
    paths = None
    if key in columns:
        paths = join_paths([columns[key][episode == e][None] for e in range(len(numbers))])
    mode = np.full(len(numbers), -1)
    if MODE in columns:
        mode[episode] = columns[MODE].reshape(-1)
    elif atlas is not None and paths is not None:
        mode = atlas.assign(paths)
    frames = len(episode)
    return Recorded(
        name=name,
        loader=loader,
        demonstration=demonstration,
        index=columns["index"],
        episode_index=episode_index,
        frame_index=columns["frame_index"],
        episode=episode,
        task=tasks[columns["task_index"]],
        reward=columns[REWARD].reshape(-1).astype(float) if REWARD in columns else None,
        intervention=columns[INTERVENTION].reshape(-1).astype(bool)
        if INTERVENTION in columns
        else np.zeros(frames, bool),
        success=_success(data, columns, episode, numbers, demonstration),
        mode=mode,
        paths=paths,
        fingerprint=fingerprint(columns),
    )


def _success(
    data: EpisodeData,
    columns: dict[str, np.ndarray],
    episode: np.ndarray,
    numbers: np.ndarray,
    demonstration: bool,
) -> np.ndarray:
    """(E,) 1, 0 or NaN: from a list, next.success, or next.reward, in this order.

    An episode of a dataset that has next.done, and has it nowhere, was cut off: nobody knows how it ended.
    """
    count = len(numbers)
    if data.successes is not None:
        if unknown := sorted(set(data.successes) - set(numbers.tolist())):
            raise UserError(
                f"algorithm.data: successes={unknown} are no episodes of {data.repo_id!r}, which has "
                f"{numbers.min()} to {numbers.max()} here"
            )
        return np.isin(numbers, data.successes).astype(float)
    if SUCCESS in columns:
        is_success = columns[SUCCESS].reshape(-1) > 0
    elif REWARD in columns and not demonstration:
        reward, least = columns[REWARD].reshape(-1), data.success_reward
        is_success = reward > 0 if least is None else reward >= least
    else:
        return np.full(count, 1.0 if demonstration else np.nan)
    success = _any(is_success, episode, count).astype(float)
    if DONE in columns:
        has_end = _any(columns[DONE].reshape(-1) > 0, episode, count)
        success[~has_end & (success == 0)] = np.nan
    return success


def _any(flags: np.ndarray, episode: np.ndarray, count: int) -> np.ndarray:
    return np.bincount(episode[flags], minlength=count) > 0


def fingerprint(columns: dict[str, np.ndarray]) -> str:
    """16 hexadecimal digits that tell a dataset from another one: its actions, episode by episode."""
    digest = hashlib.sha256()
    for key in ("episode_index", "index", ACTION):
        digest.update(np.ascontiguousarray(columns[key]).tobytes())
    return digest.hexdigest()[:16]


def check_alike(datasets: Sequence[Recorded], policy: PreTrainedConfig) -> None:
    """Raise a UserError unless all datasets run at the same rate and have features of the same shapes."""
    first, *others = datasets
    keys = {ACTION, *(policy.input_features or {})} & first.windows.meta.features.keys()
    for other in others:
        if other.windows.meta.fps != first.windows.meta.fps:
            raise UserError(
                f"datasets differ in fps: {first.windows.meta.fps} in {first.name}, {other.windows.meta.fps} "
                f"in {other.name}: resample one of them, a chunk of actions would mean other times"
            )
        for key in sorted(keys):
            shapes: list[Any] = [
                tuple(d.windows.meta.features[key]["shape"]) if key in d.windows.meta.features else "missing"
                for d in (first, other)
            ]
            if shapes[0] != shapes[1]:
                raise UserError(
                    f"datasets differ in {key}: {shapes[0]} in {first.name}, {shapes[1]} in {other.name}: "
                    "use datasets of one robot or environment"
                )


def check_outcomes(datasets: Sequence[Recorded], say: Callable[[str], None] = lambda text: None) -> None:
    """Say what can be learned from the outcomes that there are.

    Raises:
        UserError: no episode has a known outcome, and nothing was corrected.
    """
    rollouts = [d for d in datasets if not d.demonstration]
    for d in rollouts:
        if unknown := int(np.isnan(d.success).sum()):
            say(
                f"warning: {unknown} of {len(d.success)} episodes of {d.name} have no known end or outcome; "
                "their frames are learned from without a label"
            )
    success = np.concatenate([d.success for d in rollouts] or [np.zeros(0)])
    outcomes = success[~np.isnan(success)]
    if not len(outcomes) and not any(d.intervention.any() for d in rollouts):
        where = ", ".join(d.name for d in rollouts) or "the demonstrations alone"
        raise UserError(
            f"nothing says which episodes succeeded ({where}): record next.success or next.reward, list them "
            "(--algorithm.data='[{repo_id: ..., successes: [0, 2]}]'), or give an environment to collect in"
        )
    if len(outcomes) and outcomes.all():
        say(
            "warning: all recorded episodes succeeded. label=episode_success calls all of them positive, "
            "which is behaviour cloning; the quantiles still tell faster from slower ones"
        )
    elif len(outcomes) and not outcomes.any():
        say(
            "warning: all recorded episodes failed. With label=episode_success only demonstrations and "
            "corrections are positive; the quantiles call a part of the failures positive: prefer the first"
        )


def name_attempts(datasets: Sequence[Recorded]) -> None:
    """Give episodes without a mode that of the nearest success, see `diversity.attempts`; in place."""
    with_paths = [d for d in datasets if d.paths is not None]
    if not with_paths:
        return
    paths = join_paths([d.paths for d in with_paths if d.paths is not None])
    mode = np.concatenate([d.mode for d in with_paths])
    success = np.concatenate([d.success for d in with_paths]) > 0
    has_mode = success & (mode >= 0)
    if not has_mode.any():
        return
    modes = Attempts(paths[has_mode], mode[has_mode]).name(paths, mode, success)
    for d, part in zip(
        with_paths, np.split(modes, np.cumsum([len(d.mode) for d in with_paths])[:-1]), strict=True
    ):
        d.mode = part


def data_name(data: EpisodeData) -> str:
    """A dataset's name as a file name."""
    return data.repo_id.replace("/", "__")


def demonstrations_of(repo_id: str, root: Path | None, episodes: list[int] | None) -> EpisodeData:
    """The dataset of demonstrations like any other."""
    return EpisodeData(repo_id=repo_id, root=root, episodes=episodes)
