"""The mode of a finished episode from its executed path, without labels.

Modes are clusters of the base's paths, each resampled to `POINTS` points and clustered by HDBSCAN. A new
episode belongs to the cluster of the nearest reference path, if that is near enough, or far nearer than any
other cluster (a tuned policy goes its way otherwise than the base did). Clusters are found on
points at equal times, because points at equal arc lengths split large modes (Avoiding-Lite, 632 successes, 16
random splits: worst held-out Rand index .83, and .97 on equal times). New episodes are compared at equal arc
lengths, because one that goes the same way at another speed, or rests on it, is of the same mode.
Shapes: E episodes, L steps, S observation dims, P points, F = P * dims features, M modes.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.utils.constants import OBS_ENV_STATE, OBS_STATE
from safetensors.numpy import load_file, save_file
from sklearn.cluster import HDBSCAN

from ..metrics.points import distances, pair_distances
from ..utils.errors import UserError
from ..utils.files import make_folder, replacing, write_text

POINTS = 32
MOST_REFERENCES = 1500  # paths that are clustered; of more, a random subset with a fixed seed
MIN_CLUSTER_SIZE = (4, 8)  # default: a hundredth of the paths, within these bounds
# How far a mode reaches: this times the distance within which a reference has a tenth of its mode, for all
# but the loneliest twentieth. Unlike the distance to the nearest neighbour, it does not shrink with more
# episodes: of the same four ways from 60, 240, 960 and 1,500 episodes it is the same to 6 %.
REACH, SHARE, MOST = 1.5, 0.1, 0.95
# Beyond its reach a path still goes the nearest way where that is at most so many times as far as the second
# nearest, and as the mode is wide.
NEARER, WIDER = 0.5, 1.5
LEAST_REACH = 0.01  # root mean square over the points, in units of the ranges: the same path, even of twins
JSON, TENSORS = "atlas.json", "atlas.safetensors"


@dataclass
class AtlasConfig:
    """Modes where the environment names none: the paths of the base's successes are
    clustered (`diversity/atlas.py`)."""

    # Folder of an atlas that another run fitted; null = fit one to the episodes of the base.
    path: Path | None = None
    # Observation whose path is clustered: observation.state or observation.environment_state.
    key: str = OBS_STATE
    # Dimensions of the observation that make up the path, for example [0, 1]; null = all that vary. Leave out
    # those that hold noise: each dimension counts as much as any other.
    dims: list[int] | None = None
    # Fewest episodes that make a mode; null = chosen by the number of episodes.
    min_cluster_size: int | None = None

    def __post_init__(self) -> None:
        if self.key not in (OBS_STATE, OBS_ENV_STATE):
            raise ValueError(f"atlas.key={self.key!r} is no path, choose {OBS_STATE} or {OBS_ENV_STATE}")
        if self.dims is not None and (not self.dims or min(self.dims) < 0):
            raise ValueError(f"atlas.dims={self.dims} must hold numbers from 0 up, or be null")
        if self.min_cluster_size is not None and self.min_cluster_size < 2:
            raise ValueError(f"atlas.min_cluster_size={self.min_cluster_size} must be at least 2, or null")


@dataclass(frozen=True, eq=False)
class ModeAtlas:
    """Modes of one environment, numbered by size, the largest first.

    Attributes:
        env, key: environment type and observation that the paths belong to.
        num_dims: S of the states it was fitted on.
        dims: those of the S dims that make up a path.
        scale: (dims,) their ranges over the fitted episodes; distances and arc lengths are in these units.
        references: (R, F) clustered paths, in units of `scale`.
        labels: (R,) their modes.
        reach: (M,) distance up to which a path belongs to a mode whatever else is near.
        unknown_share: of the fitted paths, those that belong to no mode.
    """

    env: str
    key: str
    num_dims: int
    dims: tuple[int, ...]
    scale: np.ndarray
    references: np.ndarray
    labels: np.ndarray
    reach: np.ndarray
    unknown_share: float

    @classmethod
    def fit(
        cls,
        states: np.ndarray,
        dims: Sequence[int] | None = None,
        *,
        env: str,
        key: str,
        min_cluster_size: int | None = None,
    ) -> "ModeAtlas":
        """Cluster paths. Where HDBSCAN finds no cluster, all paths are one mode.

        Args:
            states: (E, L+1, S), NaN after an episode's end.
            dims: of S that make up a path; None = all that vary.
            env, key: environment type and observation, for `check`.
            min_cluster_size: fewest paths that make a mode; None = a hundredth of them, 4 to 8.

        Raises:
            UserError: fewer than 2 episodes, nothing varies, NaN within an episode, unknown dims.
        """
        if min_cluster_size is not None and min_cluster_size < 2:
            raise UserError(f"atlas.min_cluster_size={min_cluster_size} must be at least 2, or null")
        if states.ndim != 3 or len(states) < 2:
            raise UserError(
                f"an atlas is fitted on at least 2 episodes, there are {len(states)}: play more episodes"
            )
        columns = _choose_dims(states, dims, key)
        scale = _ranges(states)[list(columns)]
        if not (scale > 0).all():
            constants = [columns[i] for i in np.flatnonzero(scale == 0)]
            raise UserError(
                f"{key} is constant in dims {constants} of all {len(states)} episodes: an atlas needs paths "
                "that vary, choose others with atlas.dims"
            )
        paths = states[..., list(columns)] / scale
        if len(paths) > MOST_REFERENCES:
            paths = np.random.default_rng(0).permutation(paths)[:MOST_REFERENCES]
        features: np.ndarray = resample(paths).reshape(len(paths), -1)
        low, high = MIN_CLUSTER_SIZE
        size = min_cluster_size or max(low, min(high, len(features) // 100))
        labels = np.zeros(len(features), np.int64)
        if size <= len(features):
            by_time = resample(paths, equal_times=True).reshape(len(paths), -1)
            labels = HDBSCAN(min_cluster_size=size, allow_single_cluster=True, copy=True).fit_predict(by_time)
        if (labels < 0).all():
            labels = np.zeros(len(features), np.int64)
        order = np.argsort(-np.bincount(labels[labels >= 0]), kind="stable")
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        in_mode = labels >= 0
        references, modes = features[in_mode], rank[labels[in_mode]]
        widest = np.array([_reach(references[modes == mode]) for mode in range(len(order))])
        reach = np.maximum(REACH * widest, LEAST_REACH * features.shape[1] ** 0.5)
        atlas = cls(
            env, key, states.shape[2], columns, scale, references.astype(np.float32), modes, reach, 0.0
        )
        unknown_share = float((atlas._nearest(features.astype(np.float32)) < 0).mean())
        return cls(**(vars(atlas) | {"unknown_share": unknown_share}))

    @property
    def num_modes(self) -> int:
        return len(self.reach)

    def features(self, states: np.ndarray) -> np.ndarray:
        """(E, L+1, S) -> resampled paths in units of `scale`, (E, F) float32.

        Raises:
            UserError: another number of dims, NaN within an episode.
        """
        self.check(self.env, self.key, states.shape[2])
        paths = resample(states[..., list(self.dims)] / self.scale)
        return paths.reshape(len(paths), -1).astype(np.float32)

    def assign(self, states: np.ndarray, task: np.ndarray | None = None) -> np.ndarray:
        """The mode of each episode, (E,) int64; -1 where it goes no way that the atlas knows.

        Args:
            states: (E, L+1, S) with any L; failures too.
            task: of each episode, for atlases of several tasks (`SuiteAtlas`); this one has one.
        """
        return self._nearest(self.features(states)) if len(states) else np.zeros(0, np.int64)

    def _nearest(self, features: np.ndarray) -> np.ndarray:
        apart, modes = _distances(features, self.references), range(self.num_modes)
        apart = np.stack([apart[:, self.labels == mode].min(1) for mode in modes], 1)  # (E, M)
        mode, nearest = apart.argmin(1), apart.min(1)
        in_reach = nearest <= self.reach[mode]
        if self.num_modes > 1 and not in_reach.all():
            width = np.array([_width(self.references[self.labels == mode]) for mode in modes])
            second = np.partition(apart, 1, axis=1)[:, 1]
            in_reach |= (nearest <= NEARER * second) & (nearest <= WIDER * width[mode])
        return np.where(in_reach, mode, -1)

    def representative(self, mode: int) -> np.ndarray:
        """The path nearest on average to the others of its mode, (P, dims) in units of the observation."""
        members = self.references[self.labels == mode]
        return members[_distances(members, members).mean(1).argmin()].reshape(POINTS, -1) * self.scale

    def check(self, env: str, key: str, num_dims: int | None = None) -> None:
        """Raise a UserError unless the atlas belongs to this environment and observation."""
        for name, mine, theirs in (("env.type", self.env, env), ("atlas.key", self.key, key)):
            if mine != theirs:
                raise UserError(
                    f"the atlas is of {name}={mine}, not of {theirs}: fit one here (atlas.path=null), or "
                    f"give one that was fitted for {theirs}"
                )
        if num_dims not in (None, self.num_dims):
            raise UserError(
                f"the atlas was fitted on {self.key} of {self.num_dims} numbers, here it has {num_dims}: fit "
                "one here (atlas.path=null)"
            )

    def save(self, folder: Path) -> None:
        """Write atlas.json and atlas.safetensors."""
        make_folder(folder)
        arrays = {
            name: np.ascontiguousarray(v) for name, v in vars(self).items() if isinstance(v, np.ndarray)
        }
        plain = {name: v for name, v in vars(self).items() if name not in arrays}
        with replacing(folder / TENSORS) as partial:
            save_file(arrays, partial)
        write_text(folder / JSON, json.dumps(plain | {"num_modes": self.num_modes}, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "ModeAtlas":
        """Read what `save` wrote.

        Raises:
            UserError: it is missing or damaged.
        """
        try:
            plain = json.loads((folder / JSON).read_text())
            plain.pop("num_modes")
            values: dict[str, Any] = plain | load_file(folder / TENSORS) | {"dims": tuple(plain["dims"])}
            return cls(**values)
        except Exception as error:  # others may have written it
            raise UserError(
                f"{folder} holds no whole mode atlas ({type(error).__name__}: {error}): give the diversity/ "
                "folder of a run, or atlas.path=null to fit one"
            ) from error


def path_features(groups: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Resampled paths of several groups of episodes in common units, one row (F,) for each episode.

    Args:
        groups: each (E_i, L_i+1, S), NaN after an episode's end; together at least one episode.

    Returns:
        (E_i, P * S) float64; each dim in units of its range over all groups.

    Raises:
        UserError: NaN within an episode.
    """
    scale = _ranges(np.concatenate([group.reshape(1, -1, group.shape[-1]) for group in groups], axis=1))
    return [resample(group / np.where(scale > 0, scale, 1)).reshape(len(group), -1) for group in groups]


def resample(states: np.ndarray, points: int = POINTS, equal_times: bool = False) -> np.ndarray:
    """Each path at `points` points of equal arc length, or time, (E, L+1, dims) -> (E, points, dims) float64.

    A path that never moves stays where it is.

    Raises:
        UserError: NaN within an episode, or infinity.
    """
    valid = ~np.isnan(states).all(-1)  # (E, L+1)
    length = valid.sum(1)
    within = np.arange(states.shape[1]) < length[:, None]
    gaps = (~np.isfinite(states) & within[..., None]).any((1, 2)) | (valid != within).any(1) | (length == 0)
    if gaps.any():
        raise UserError(
            f"the paths of episodes {np.flatnonzero(gaps)[:5].tolist()} hold NaN or infinity before their "
            "end: fix the environment's observations"
        )
    out = np.empty((len(states), points, states.shape[2]))
    for i, steps in enumerate(length):
        path = states[i, :steps].astype(np.float64)
        step = np.ones(steps - 1) if equal_times else np.linalg.norm(np.diff(path, axis=0), axis=1)
        arc = np.concatenate([[0], step.cumsum()])
        at = np.linspace(0, arc[-1], points)
        for dim in range(path.shape[1]):
            out[i, :, dim] = np.interp(at, arc, path[:, dim])
    return out


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return distances(torch.as_tensor(a).double(), torch.as_tensor(b).double()).numpy()


def _reach(members: np.ndarray) -> float:
    """Distance within which a path (n, F) of a mode has `SHARE` of the others, at quantile `MOST` of them."""
    if len(members) < 2:
        return 0.0
    apart = np.sort(_distances(members, members), axis=1)  # the path itself is the first
    return float(np.quantile(apart[:, max(1, round(SHARE * (len(members) - 1)))], MOST))


def _width(members: np.ndarray) -> float:
    """Distance of two paths (n, F) of a mode, at quantile `MOST` of all pairs; 0 of one path."""
    if len(members) < 2:
        return 0.0
    return float(np.quantile(pair_distances(torch.as_tensor(members).double()).numpy(), MOST))


def _ranges(states: np.ndarray) -> np.ndarray:
    """(S,) range of each dim over all steps of (E, L+1, S); 0 where a dim is never a number."""
    steps = states.reshape(-1, states.shape[-1]).astype(np.float64)
    finite = np.isfinite(steps)
    low, high = np.where(finite, steps, np.inf).min(0), np.where(finite, steps, -np.inf).max(0)
    return np.where(high > low, high - low, 0.0)


def _choose_dims(states: np.ndarray, dims: Sequence[int] | None, key: str) -> tuple[int, ...]:
    size = states.shape[2]
    if dims is None:
        varies = np.flatnonzero(_ranges(states) > 0)
        if not len(varies):
            raise UserError(f"{key} is constant in all steps of all episodes: there are no paths to cluster")
        return tuple(int(i) for i in varies)
    wrong = [i for i in dims if not 0 <= i < size]
    if wrong or not dims:
        raise UserError(
            f"atlas.dims={list(dims)} does not fit {key} of {size} numbers: choose from 0 to {size - 1}"
        )
    return tuple(dims)
