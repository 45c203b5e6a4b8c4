"""Labelled batches from several datasets, in fixed shares."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.utils.constants import ACTION
from torch import Tensor

from ..policies.conditioning import LABEL
from ..utils.errors import UserError
from .loader import BatchLoader
from .recorded import Recorded
from .windows import Batch, Windows


class Labelled:
    """Windows with the label of their frame, `batch[LABEL]` (B,) long; nothing but what `keys` names is kept.

    Args:
        windows: of F frames.
        labels: (F,) int.
        keys: features of a batch that are kept, with their padding.
    """

    def __init__(self, windows: Windows, labels: np.ndarray, keys: Sequence[str]) -> None:
        self.meta, self.source = windows.meta, windows.source
        self.windows, self.labels = windows, torch.from_numpy(labels).long()
        self.keys = {*keys, *(f"{key}_is_pad" for key in keys), "task"}

    def __len__(self) -> int:
        return len(self.windows)

    def batch(self, indices: Tensor) -> Batch:
        return self._labelled(self.windows.batch(indices), indices)

    def batches(self, indices: Iterable[Tensor]) -> Iterator[Batch]:
        for_windows, for_labels = itertools.tee(indices)
        return map(self._labelled, self.windows.batches(for_windows), for_labels)

    def _labelled(self, batch: Batch, indices: Tensor) -> Batch:
        return {k: v for k, v in batch.items() if k in self.keys} | {LABEL: self.labels[indices]}


class MixedLoader:
    """Batches put together from several loaders, each of which keeps its own order and epochs."""

    def __init__(self, loaders: list[BatchLoader]) -> None:
        self.loaders = loaders

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        parts = [next(loader) for loader in self.loaders]
        keys = set.intersection(*(set(part) for part in parts))
        return {key: _joined([part[key] for part in parts]) for key in sorted(keys)}

    def state_dict(self) -> dict[str, Any]:
        return {str(i): loader.state_dict() for i, loader in enumerate(self.loaders)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises ValueError: the state belongs to other datasets."""
        if len(state) != len(self.loaders):
            raise ValueError(f"the state is of {len(state)} datasets, there are {len(self.loaders)}")
        for i, loader in enumerate(self.loaders):
            # A checkpoint gives digits back as ints.
            loader.load_state_dict(state[i] if i in state else state[str(i)])


def make_mixed(
    datasets: Sequence[Recorded],
    labels: Sequence[np.ndarray],
    weights: Sequence[np.ndarray],
    policy: PreTrainedConfig,
    batch_size: int,
    base_fraction: float,
    seed: int,
) -> MixedLoader:
    """Demonstrations make up `base_fraction` of a batch, the others share the rest by their weight.

    A frame is drawn as often as its weight says: the order of an epoch holds it weight / mean weight times,
    rounded at random. Without demonstrations, or without others, the batch is of the other kind.

    Args:
        labels, weights: (F,) for each dataset.

    Raises:
        UserError: nothing has a weight.
    """
    keys = [ACTION, *(policy.input_features or {})]
    starts = [
        resampled(d.loader.starts, torch.from_numpy(w), seed) for d, w in zip(datasets, weights, strict=True)
    ]
    shares = np.array([w[d.loader.starts.numpy()].sum() for d, w in zip(datasets, weights, strict=True)])
    base = np.array([d.demonstration for d in datasets])
    if not shares.sum():
        raise UserError(
            "no frame is left to learn from: every weight is 0, for example because no episode succeeded. "
            "Add demonstrations (--dataset.repo_id) or record successes"
        )
    if shares[base].sum() and shares[~base].sum():
        for kind, part in ((base, base_fraction), (~base, 1 - base_fraction)):
            shares[kind] *= part / shares[kind].sum()
    sizes = np.maximum(np.round(shares / shares.sum() * batch_size), shares > 0).astype(int)
    return MixedLoader(
        [
            BatchLoader(Labelled(d.windows, label, keys), rows, int(size), seed)
            for d, label, rows, size in zip(datasets, labels, starts, sizes, strict=True)
            if size
        ]
    )


def resampled(starts: Tensor, weights: Tensor, seed: int) -> Tensor:
    """Rows `starts` (S,), each floor or ceil of weight / mean weight times; equal weights change nothing.

    Args:
        weights: (F,) >= 0 of all rows.
    """
    weight = weights[starts].double()
    if not weight.sum():
        return starts[:0]
    # Systematic resampling: the counts have the right mean and differ from it by less than 1.
    edges = weight.cumsum(0) / weight.sum() * len(starts)
    offset = torch.rand(1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    below = (edges - offset).ceil().long().clamp(0, len(starts))
    below[-1] = len(starts)
    return starts.repeat_interleave(below.diff(prepend=below.new_zeros(1)))


def _joined(parts: list[Any]) -> Any:
    return torch.cat(parts) if isinstance(parts[0], Tensor) else list(itertools.chain(*parts))
