"""Endless batches of windows, in the order that stock `lerobot-train` draws them, and resumable."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.datasets import LeRobotDataset, LeRobotDatasetMetadata
from lerobot.datasets.factory import resolve_delta_timestamps
from lerobot.utils.constants import ACTION, IMAGENET_STATS
from torch import Tensor

from .root import check_root
from .windows import (
    Batch,
    ChunkDataset,
    DecodedDataset,
    Windows,
    check_episodes,
    is_tabular,
    start_indices,
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
    check_root(root)
    meta = LeRobotDatasetMetadata(repo_id, root)
    check_episodes(episodes, meta)
    _check_features(policy_config, meta)
    deltas = resolve_delta_timestamps(policy_config, meta)
    dataset = LeRobotDataset(repo_id, root, episodes=episodes, delta_timestamps=deltas)
    for key in set(meta.camera_keys) - set(meta.depth_keys):
        dataset.meta.stats[key] |= {name: torch.tensor(value) for name, value in IMAGENET_STATS.items()}
    windows = ChunkDataset(dataset, deltas) if is_tabular(meta) else DecodedDataset(dataset, num_workers)
    return BatchLoader(windows, start_indices(dataset, policy_config), batch_size, seed)


def _check_features(policy_config: PreTrainedConfig, meta: LeRobotDatasetMetadata) -> None:
    keys = {ACTION, *(policy_config.input_features or {}), *(policy_config.output_features or {})}
    cameras = policy_config.image_features.keys()
    if cameras & meta.features.keys():
        keys -= cameras  # as in stock, a policy may declare more cameras than a dataset has
    if missing := keys - meta.features.keys():
        raise ValueError(
            f"policy {policy_config.type!r} needs {sorted(missing)}, which dataset {meta.repo_id!r} lacks; "
            f"it has {sorted(meta.features)}: record it, or take it out of policy.input_features"
        )
