"""Batches for behaviour cloning and offline RL: the windows of `lerobot-train`, cut from memory if they fit.

Stock LeRobot reads, converts and collates frame by frame, which for state-only data takes many times longer
than the network. `ChunkDataset` keeps such data as tensors and cuts a batch of windows by index. Windows,
padding flags, dtypes, admissible starts and their order for a seed are stock's: the batches are equal.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.datasets import EpisodeAwareSampler, LeRobotDataset, LeRobotDatasetMetadata
from lerobot.datasets.feature_utils import check_delta_timestamps, get_delta_indices
from lerobot.utils.collate import lerobot_collate_fn
from torch import Tensor
from torch.utils.data import DataLoader

from .root import check_root

# What stock batches hold as tensors already in the table; images are decoded, text has no tensor.
NOT_TABULAR = ("image", "video", "language", "string")

Batch = dict[str, Any]  # feature -> Tensor (B, ...), and "task" -> list of B strings


class Windows(Protocol):
    """Source of `BatchLoader`: windows addressed by the row of the frame they belong to."""

    meta: LeRobotDatasetMetadata
    source: LeRobotDataset

    def __len__(self) -> int: ...

    def batch(self, indices: Tensor) -> Batch: ...

    def batches(self, indices: Iterable[Tensor]) -> Iterator[Batch]: ...


class ChunkDataset:
    """A state-only dataset in memory; a batch equals stock's collated `[dataset[i] for i in indices]`.

    A feature with T offsets comes as (B, T, *shape) and brings `{feature}_is_pad` (B, T), true where the
    offset leaves the episode and the nearest frame of the episode stands in. All other features come as
    (B, *shape); a feature of shape (1,) loses that dimension, as in stock. `task` is a list of B strings.

    Args:
        dataset: an opened dataset without image, video or text features; its `episodes` are honoured.
        delta_timestamps: feature -> offsets in seconds, multiples of 1 / fps; None means single frames.

    Raises:
        ValueError: a feature is not tabular, unknown or holds NaN or inf, or an offset is off the frame grid.
    """

    def __init__(self, dataset: LeRobotDataset, delta_timestamps: dict[str, list[float]] | None):
        self.meta, self.source = dataset.meta, dataset
        if not is_tabular(self.meta):
            kinds = {key: feature["dtype"] for key, feature in self.meta.features.items()}
            raise ValueError(
                f"ChunkDataset holds no features of dtype {NOT_TABULAR}, use DecodedDataset: {kinds}"
            )
        delta_timestamps = delta_timestamps or {}
        self.columns = finite_columns(dataset)  # (F, *shape) each
        if unknown := delta_timestamps.keys() - self.columns.keys():
            raise ValueError(
                f"delta_timestamps has unknown {sorted(unknown)}, choose from {sorted(self.columns)}"
            )
        check_delta_timestamps(delta_timestamps, self.meta.fps, dataset.tolerance_s)
        self.offsets = {
            k: torch.tensor(v) for k, v in get_delta_indices(delta_timestamps, self.meta.fps).items()
        }
        self._tasks = self.meta.tasks.index.tolist()
        # With `episodes=` the rows are fewer than the frames on disk, but an episode's rows stay adjacent.
        episode, rows = self.columns["episode_index"], torch.arange(len(self))
        shift = rows - self.columns["index"]
        self._first = torch.tensor(self.meta.episodes["dataset_from_index"])[episode] + shift  # (F,)
        self._last = torch.tensor(self.meta.episodes["dataset_to_index"])[episode] + shift - 1  # (F,)

    def __len__(self) -> int:
        """Number of frames F in the selected episodes."""
        return len(self.columns["index"])

    def batch(self, indices: Tensor) -> Batch:
        """Cut the windows of the frames in rows `indices` (B,), int64, each in 0..F-1."""
        first, last = self._first[indices, None], self._last[indices, None]
        batch: Batch = {}
        for key, column in self.columns.items():
            if key in self.offsets:
                rows = indices[:, None] + self.offsets[key]  # (B, T)
                batch[key] = column[rows.clamp(first, last)]
                batch[f"{key}_is_pad"] = (rows < first) | (rows > last)
            else:
                batch[key] = column[indices]
        batch["task"] = [self._tasks[i] for i in batch["task_index"].tolist()]
        return batch

    def batches(self, indices: Iterable[Tensor]) -> Iterator[Batch]:
        """One batch for every item (B,) of `indices`."""
        return map(self.batch, indices)


class DecodedDataset:
    """A dataset with images, video or text behind the same interface, read by the stock DataLoader.

    Images come as float32 in 0..1, (B, C, H, W) or (B, T, C, H, W).

    Args:
        dataset: an opened dataset, its own `delta_timestamps` define the windows.
        num_workers: processes that decode ahead; 0 decodes in this process.

    Raises:
        ValueError: a tabular feature holds NaN or inf.
    """

    def __init__(self, dataset: LeRobotDataset, num_workers: int = 0):
        finite_columns(dataset)
        self.meta, self.source, self.num_workers = dataset.meta, dataset, num_workers

    def __len__(self) -> int:
        """Number of frames F in the selected episodes."""
        return len(self.source)

    def batch(self, indices: Tensor) -> Batch:
        """Decode the windows of the frames in rows `indices` (B,), int64, each in 0..F-1."""
        return lerobot_collate_fn([self.source[i] for i in indices.tolist()])

    def batches(self, indices: Iterable[Tensor]) -> Iterator[Batch]:
        """One batch for every item (B,) of `indices`, decoded ahead by the workers."""
        return iter(
            DataLoader(
                self.source,
                batch_sampler=(rows.tolist() for rows in indices),
                num_workers=self.num_workers,
                collate_fn=lerobot_collate_fn,
                # Video decoders do not survive a fork; stock spawns for the same reason.
                multiprocessing_context="spawn" if self.num_workers else None,
                # Without one, opening the loader draws from the global generator and resume would shift it.
                generator=torch.Generator(),
            )
        )


def episode_paths(repo_id: str, root: str | Path | None, key: str) -> np.ndarray:
    """The path of one feature along each episode of a dataset, (E, L+1, S), NaN after its end.

    Raises:
        FileNotFoundError: `root` holds no dataset.
        ValueError: the dataset has no such feature, or it holds NaN or inf.
    """
    check_root(root)
    dataset = LeRobotDataset(repo_id, root)
    columns = finite_columns(dataset)
    if key not in columns:
        raise ValueError(
            f"dataset {repo_id!r} has no feature {key!r} for the atlas, choose {sorted(columns)}"
        )
    starts, ends = (dataset.meta.episodes[f"dataset_{end}_index"] for end in ("from", "to"))
    paths = [columns[key][start:end].numpy() for start, end in zip(starts, ends, strict=True)]
    out = np.full((len(paths), max(map(len, paths)), paths[0].shape[-1]), np.nan, np.float32)
    for row, path in zip(out, paths, strict=True):
        row[: len(path)] = path
    return out


def is_tabular(meta: LeRobotDatasetMetadata) -> bool:
    """Whether all features are numbers, so that the dataset fits `ChunkDataset`."""
    return all(feature["dtype"] not in NOT_TABULAR for feature in meta.features.values())


def start_indices(dataset: LeRobotDataset, policy_config: PreTrainedConfig) -> Tensor:
    """Rows (S,) that stock training draws: all but the last `drop_n_last_frames` of each used episode.

    Raises:
        ValueError: no episode is long enough.
    """
    # Not every policy family declares it, and stock then drops nothing.
    drop = policy_config.drop_n_last_frames if hasattr(policy_config, "drop_n_last_frames") else 0
    episodes = dataset.meta.episodes
    try:
        sampler = EpisodeAwareSampler(
            episodes["dataset_from_index"],
            episodes["dataset_to_index"],
            episode_indices_to_use=dataset.episodes,
            drop_n_last_frames=drop,
            absolute_to_relative_idx=dataset.absolute_to_relative_idx,
        )
    except ValueError as error:
        selection = range(len(episodes)) if dataset.episodes is None else dataset.episodes
        raise ValueError(
            f"dataset {dataset.repo_id!r} has no admissible window: policy.drop_n_last_frames={drop}, the "
            f"longest selected episode has {max(episodes[i]['length'] for i in selection)} frames; lower "
            "drop_n_last_frames or use longer episodes"
        ) from error
    return torch.tensor(sampler.indices)


def finite_columns(dataset: LeRobotDataset) -> dict[str, Tensor]:
    """All tabular features of the selected episodes, (F, *shape) each; float32, int64 or bool as in stock.

    Raises:
        ValueError: a feature holds NaN or inf.
    """
    features = dataset.meta.features
    keys = [key for key in dataset.hf_dataset.column_names if features[key]["dtype"] not in NOT_TABULAR]
    columns = dataset.hf_dataset.with_format("torch", columns=keys)[:]
    for key, column in columns.items():
        finite = column.isfinite().reshape(len(column), -1).all(1)  # (F,)
        if not finite.all():
            row = int(finite.int().argmin())
            episode, frame = (int(columns[k][row]) for k in ("episode_index", "frame_index"))
            raise ValueError(
                f"feature {key!r} of dataset {dataset.repo_id!r} holds NaN or inf, first in episode "
                f"{episode} at frame {frame} ({column[row].tolist()}): "
                "repair the episode or leave it out with `episodes`"
            )
    return columns


def check_episodes(episodes: list[int] | None, meta: LeRobotDatasetMetadata) -> None:
    if episodes is None:
        return
    unknown = [episode for episode in episodes if episode not in range(meta.total_episodes)]
    if unknown or not episodes:
        raise ValueError(
            f"episodes={episodes} does not fit dataset {meta.repo_id!r}: choose from "
            f"0..{meta.total_episodes - 1}, or None for all"
        )
