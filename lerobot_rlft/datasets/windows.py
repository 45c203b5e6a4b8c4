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
from lerobot.datasets.factory import resolve_delta_timestamps
from lerobot.datasets.feature_utils import check_delta_timestamps, get_delta_indices
from lerobot.utils.collate import lerobot_collate_fn
from lerobot.utils.constants import ACTION, IMAGENET_STATS
from torch import Tensor
from torch.utils.data import DataLoader

# What stock batches hold as tensors already in the table; images are decoded, text has no tensor.
NOT_TABULAR = ("image", "video", "language", "string")

Batch = dict[str, Any]  # feature -> Tensor (B, ...), and "task" -> list of B strings


class Windows(Protocol):
    """What `BatchLoader` draws from: windows addressed by the row of the frame they belong to."""

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


class BatchLoader:
    """Endless shuffled batches, a pure function of (seed, epoch, position) and so resumed exactly.

    Every epoch visits every start once, in the order of `lerobot-train` with that seed. As in stock the last
    batch of an epoch holds what is left, 1..batch_size windows: nothing is dropped, epochs do not mix.

    Args:
        dataset: where windows are cut from.
        starts: (S,) int64, rows of `dataset` that a batch may draw.
        batch_size: windows B per batch.
        seed: 0 or more; with the epoch it fixes the order.

    Raises:
        ValueError: `batch_size` is below 1 or `starts` is empty.
    """

    def __init__(self, dataset: Windows, starts: Tensor, batch_size: int, seed: int = 0):
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1 window")
        if not len(starts):
            raise ValueError("starts is empty, give at least one row of the dataset")
        self.dataset, self.starts, self.batch_size, self.seed = dataset, starts, batch_size, seed
        self.epoch = self.position = 0  # position: windows of this epoch already handed out
        self._batches: Iterator[Batch] | None = None

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._batches is None:
            self._batches = self.dataset.batches(self._indices(self.seed, self.epoch, self.position))
        batch = next(self._batches)
        # Counted here and not where indices are drawn: workers draw ahead of what was handed out.
        self.position += self.batch_size
        if self.position >= len(self.starts):
            self.epoch, self.position = self.epoch + 1, 0
        return batch

    def _indices(self, seed: int, epoch: int, position: int) -> Iterator[Tensor]:
        while True:
            # The recipe of stock's EpisodeAwareSampler, whose own iterator costs a Python step per frame.
            epoch_seed = int(np.random.SeedSequence([seed, epoch]).generate_state(1, dtype=np.uint64)[0])
            order = torch.randperm(len(self.starts), generator=torch.Generator().manual_seed(epoch_seed))
            yield from self.starts[order[position:]].split(self.batch_size)
            epoch, position = epoch + 1, 0

    def state_dict(self) -> dict[str, int]:
        """Plain ints; `position` counts windows and `num_starts` only guards against another dataset."""
        return {
            "seed": self.seed,
            "epoch": self.epoch,
            "position": self.position,
            "num_starts": len(self.starts),
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue where `state` was taken, with its seed.

        Raises:
            ValueError: the state belongs to a loader with another number of starts.
        """
        if state["num_starts"] != len(self.starts):
            raise ValueError(
                f"num_starts is {state['num_starts']} in the state and {len(self.starts)} in this loader: "
                "resume with the dataset, episodes and policy config of the saved run"
            )
        self.seed, self.epoch, self.position = state["seed"], state["epoch"], state["position"]
        self._batches = None


def make_loader(
    repo_id: str,
    policy_config: PreTrainedConfig,
    *,
    root: str | Path | None = None,
    episodes: list[int] | None = None,
    batch_size: int,
    seed: int = 0,
    num_workers: int = 0,
) -> BatchLoader:
    """Open a dataset as `lerobot-train` does and load its windows for a policy.

    `loader.dataset.meta` serves `make_policy` and `make_pre_post_processors`; its camera stats are those of
    ImageNet, as in stock.

    Args:
        repo_id: name of the dataset.
        policy_config: gives the windows (`*_delta_indices`), `drop_n_last_frames` and the features needed.
        root: folder of the dataset; None looks in the LeRobot cache, then on the Hub.
        episodes: the episodes to use; None uses all.
        batch_size: windows B per batch.
        seed: fixes the order.
        num_workers: processes that decode images; tabular data is cut from memory and starts none.

    Raises:
        FileNotFoundError: `root` holds no dataset.
        ValueError: `batch_size`, `episodes` or a feature does not fit, the data holds NaN or inf, or no
            window is left.
    """
    _check_root(root)
    meta = LeRobotDatasetMetadata(repo_id, root)
    _check_episodes(episodes, meta)
    _check_features(policy_config, meta)
    deltas = resolve_delta_timestamps(policy_config, meta)
    dataset = LeRobotDataset(repo_id, root, episodes=episodes, delta_timestamps=deltas)
    for key in set(meta.camera_keys) - set(meta.depth_keys):
        dataset.meta.stats[key] |= {name: torch.tensor(value) for name, value in IMAGENET_STATS.items()}
    windows = ChunkDataset(dataset, deltas) if is_tabular(meta) else DecodedDataset(dataset, num_workers)
    return BatchLoader(windows, start_indices(dataset, policy_config), batch_size, seed)


def episode_paths(repo_id: str, root: str | Path | None, key: str) -> np.ndarray:
    """The path of one feature along each episode of a dataset, (E, L+1, S), NaN after its end.

    Raises:
        FileNotFoundError: `root` holds no dataset.
        ValueError: the dataset has no such feature, or it holds NaN or inf.
    """
    _check_root(root)
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
        used = range(len(episodes)) if dataset.episodes is None else dataset.episodes
        raise ValueError(
            f"dataset {dataset.repo_id!r} has no admissible window: policy.drop_n_last_frames={drop}, the "
            f"longest selected episode has {max(episodes[i]['length'] for i in used)} frames; lower "
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


def _check_root(root: str | Path | None) -> None:
    if root is not None and not _is_dataset(Path(root)):
        folders = sorted(str(p) for p in Path(root).parent.glob("*") if _is_dataset(p))
        raise FileNotFoundError(
            f"dataset root={str(root)!r} holds no meta/info.json: give the folder of a LeRobot dataset, or "
            f"root=None for the cache and the Hub; datasets next to it: {folders}"
        )


def _is_dataset(folder: Path) -> bool:
    return (folder / "meta" / "info.json").is_file()


def _check_episodes(episodes: list[int] | None, meta: LeRobotDatasetMetadata) -> None:
    if episodes is None:
        return
    unknown = [episode for episode in episodes if episode not in range(meta.total_episodes)]
    if unknown or not episodes:
        raise ValueError(
            f"episodes={episodes} does not fit dataset {meta.repo_id!r}: choose from "
            f"0..{meta.total_episodes - 1}, or None for all"
        )


def _check_features(policy_config: PreTrainedConfig, meta: LeRobotDatasetMetadata) -> None:
    needed = {ACTION, *(policy_config.input_features or {}), *(policy_config.output_features or {})}
    cameras = policy_config.image_features.keys()
    if cameras & meta.features.keys():
        needed -= cameras  # as in stock, a policy may declare more cameras than a dataset has
    if missing := needed - meta.features.keys():
        raise ValueError(
            f"policy {policy_config.type!r} needs {sorted(missing)}, which dataset {meta.repo_id!r} lacks; "
            f"it has {sorted(meta.features)}: record it, or take it out of policy.input_features"
        )
