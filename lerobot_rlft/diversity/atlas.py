"""The mode of a finished episode from its executed path, without labels.

Modes are clusters of the base's paths, each resampled to `POINTS` points and clustered by HDBSCAN. A new
episode belongs to the cluster of the nearest reference path, if that is near enough, or far nearer than any
other cluster (a tuned policy goes its way otherwise than the base did). Where starts vary, what the start
explains of a path is taken away first (`start_effect.py`). Clusters are found on
points at equal times, because points at equal arc lengths split large modes (Avoiding-Lite, 632 successes, 16
random splits: worst held-out Rand index .83, and .97 on equal times). New episodes are compared at equal arc
lengths, because one that goes the same way at another speed, or rests on it, is of the same mode.
Shapes: E episodes, L steps, S observation dims, P points, F = P * dims features, M modes.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.utils.constants import OBS_ENV_STATE, OBS_STATE
from safetensors.numpy import load_file, save_file
from sklearn.cluster import HDBSCAN
from sklearn.metrics import adjusted_rand_score

from ..metrics.points import distances, pair_distances
from ..utils.errors import UserError
from ..utils.files import make_folder, replacing, write_text
from .paths import POINTS, ranges, resample
from .start_effect import StartEffect, without_start

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
# Random halves agree on the modes of Avoiding-Lite to .62 and more from 120 successes on, and on clusters of
# random walks or of reaches to random goals, which have none, to .55 at most (docs/results/atlas.md).
LEAST_AGREEMENT, SPLITS = 0.6, 4
START = "start_"  # before the names of what is saved of the start's effect


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
    # Fewest episodes that make a mode; null = columns by the number of episodes.
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
        effect: of the start on paths, which is taken away from them; None where all start alike, and in
            atlases from before it was looked for.
        agreement: adjusted Rand index of the modes that random halves of the fitted episodes give to all of
            them, looking for as large ones or for half as large, whichever agree better. Below
            `LEAST_AGREEMENT` there is one mode. None where one cluster was found, and in atlases from before
            it was measured.
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
    effect: StartEffect | None = None
    agreement: float | None = None

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
        """Cluster paths. All are one mode where HDBSCAN finds no clusters, or others in random halves.

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
        scale = ranges(states)[list(columns)]
        if not (scale > 0).all():
            constants = [columns[i] for i in np.flatnonzero(scale == 0)]
            raise UserError(
                f"{key} is constant in dims {constants} of all {len(states)} episodes: an atlas needs paths "
                "that vary, choose others with atlas.dims"
            )
        units = ranges(states)
        if len(states) > MOST_REFERENCES:
            states = np.random.default_rng(0).permutation(states)[:MOST_REFERENCES]
        paths, starts = states[..., list(columns)] / scale, states[:, 0]
        features, effect = without_start(resample(paths).reshape(len(paths), -1), starts, units)
        timed, _ = without_start(resample(paths, equal_times=True).reshape(len(paths), -1), starts, units)

        def of(rows: Any, labels: np.ndarray) -> ModeAtlas:
            parts = env, key, states.shape[2], columns, scale
            return cls(*parts, *_modes(features[rows], labels), 0.0, effect)

        def sample(size: int, half: np.ndarray) -> np.ndarray:
            return of(half, cluster(timed[half], size))._nearest(features)

        low, high = MIN_CLUSTER_SIZE
        size = min_cluster_size or max(low, min(high, len(features) // 100))
        labels, agreement = cluster(timed, size), None
        if labels.max() > 0:
            # A mode may be too small to be found in a half, and half as large one may be a part of a mode.
            sizes = (size, (size + 1) // 2)
            agreement = max(_agreement(timed, partial(sample, n)) for n in sizes)
            if agreement < LEAST_AGREEMENT:
                labels = np.zeros_like(labels)
        atlas = of(slice(None), labels)
        unknown = float((atlas._nearest(features.astype(np.float32)) < 0).mean())
        return replace(atlas, unknown_share=unknown, agreement=agreement)

    @property
    def num_modes(self) -> int:
        return len(self.reach)

    def features(self, states: np.ndarray) -> np.ndarray:
        """(E, L+1, S) -> resampled paths in units of `scale`, less the effect of the start, (E, F) float32.

        Raises:
            UserError: another number of dims, NaN within an episode.
        """
        self.check(self.env, self.key, states.shape[2])
        paths = resample(states[..., list(self.dims)] / self.scale)
        rows = paths.reshape(len(paths), -1)
        return (rows if self.effect is None else self.effect.remove(states[:, 0], rows)).astype(np.float32)

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

    def same_as(self, other: "ModeAtlas") -> bool:
        """Whether both name modes alike."""
        (plain, arrays), (others, their) = self._content(), other._content()
        return (
            plain == others
            and arrays.keys() == their.keys()
            and all(np.array_equal(arrays[name], their[name]) for name in arrays)
        )

    def _content(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """What `save` writes as JSON and as safetensors."""
        arrays = {
            name: np.ascontiguousarray(v) for name, v in vars(self).items() if isinstance(v, np.ndarray)
        }
        plain = {name: v for name, v in vars(self).items() if name not in {*arrays, "effect"}}
        if self.effect is not None:
            arrays |= {START + name: np.ascontiguousarray(v) for name, v in vars(self.effect).items()}
        return plain | {"dims": list(self.dims)}, arrays

    def save(self, folder: Path) -> None:
        """Write atlas.json and atlas.safetensors."""
        make_folder(folder)
        plain, arrays = self._content()
        with replacing(folder / TENSORS) as file:
            save_file(arrays, file)
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
            arrays = load_file(folder / TENSORS)
            effect = {
                f.name: arrays.pop(START + f.name) for f in fields(StartEffect) if START + f.name in arrays
            }
            values: dict[str, Any] = plain | arrays | {"dims": tuple(plain["dims"])}
            return cls(**values, effect=StartEffect(**effect) if effect else None)
        except Exception as error:  # others may have written it
            raise UserError(
                f"{folder} holds no whole mode atlas ({type(error).__name__}: {error}): give the diversity/ "
                "folder of a run, or atlas.path=null to fit one"
            ) from error


def cluster(timed: np.ndarray, size: int) -> np.ndarray:
    """(E,) cluster of each path (E, F), -1 where it is in none; 0 for all where none has `size` paths."""
    labels = np.full(len(timed), -1)
    if size <= len(timed):
        labels = HDBSCAN(min_cluster_size=size, copy=True).fit_predict(timed)
    return labels if labels.max() >= 0 else np.zeros_like(labels)


def _modes(features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """References (R, F), their modes (R,), numbered by size, and the reach (M,) of each."""
    order = np.argsort(-np.bincount(labels[labels >= 0]), kind="stable")
    rank = np.argsort(order)
    references, modes = features[labels >= 0], rank[labels[labels >= 0]]
    widest = np.array([_reach(references[modes == mode]) for mode in range(len(order))])
    reach = np.maximum(REACH * widest, LEAST_REACH * features.shape[1] ** 0.5)
    return references.astype(np.float32), modes, reach


def _agreement(timed: np.ndarray, label: Callable[[np.ndarray], np.ndarray]) -> float:
    """Mean over splits of the adjusted Rand index of what two random halves say of all episodes.

    Args:
        timed: (E, F) paths, by which episodes are put in an order of their own: halves are the same whatever
            the order in which episodes come.
        label: episodes of a half -> (E,) modes that they give to all.
    """
    rng = np.random.default_rng(0)
    order = np.argsort(timed @ rng.standard_normal(timed.shape[1]))
    splits = [np.array_split(order[rng.permutation(len(order))], 2) for _ in range(SPLITS)]
    return float(np.mean([adjusted_rand_score(*map(label, halves)) for halves in splits]))


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


def _choose_dims(states: np.ndarray, dims: Sequence[int] | None, key: str) -> tuple[int, ...]:
    size = states.shape[2]
    if dims is None:
        varies = np.flatnonzero(ranges(states) > 0)
        if not len(varies):
            raise UserError(f"{key} is constant in all steps of all episodes: there are no paths to cluster")
        return tuple(int(i) for i in varies)
    wrong = [i for i in dims if not 0 <= i < size]
    if wrong or not dims:
        raise UserError(
            f"atlas.dims={list(dims)} does not fit {key} of {size} numbers: choose from 0 to {size - 1}"
        )
    return tuple(dims)
