"""Episodes of a policy grouped by their initial state, and what is measured within a group.

Shapes: S initial states, M modes, E episodes of a group, L steps.
"""

from typing import Any

import gymnasium as gym
import numpy as np
from tqdm import tqdm

from ..configs.eval import EvalPipelineConfig
from ..diversity.paths import ranges, resample
from ..diversity.start_effect import LEAST_SPREAD
from ..diversity.suite_atlas import Atlas
from ..metrics.modes import mode_counts
from ..metrics.points import join_paths
from ..metrics.ways import ways_ratio
from ..rollout.episodes import Episodes
from ..rollout.evaluation import name_modes, play
from ..rollout.runner import EpisodeRunner
from .measures import Metrics

REPEATS = 16  # episodes of a group where all start alike, and groups are cut from them
POINTS = 16  # of a path, at equal times


def by_start(
    title: str, runner: EpisodeRunner, episodes: Episodes, modes: bool, config: EvalPipelineConfig
) -> list[Episodes]:
    """Groups of episodes from the same initial state; none if not asked for, of several tasks, or where
    nothing is measured in them.

    Where every episode starts alike, `episodes` are cut into groups.

    Args:
        episodes: of the policy, one from each seed.
        modes: whether their modes are known.
    """
    if not config.n_initial_states or runner.tasks or not (modes or config.atlas.key in episodes.states):
        return []
    if not starts_vary(episodes):
        return parts(episodes, min(REPEATS, len(episodes.success)))
    states = min(config.n_initial_states, config.n_episodes // 2)  # no more episodes than were asked for
    repeats = config.n_episodes // states
    if states < config.n_initial_states:
        tqdm.write(
            f"{title}: n_episodes={config.n_episodes} suffices for {states} initial states instead of "
            f"n_initial_states={config.n_initial_states}, two episodes each"
        )
    return parts(play(runner, states * repeats, config.seed, attempts=repeats), repeats)


def parts(episodes: Episodes, size: int) -> list[Episodes]:
    """Consecutive groups of `size` episodes; what is left over is left out."""
    return [episodes[i : i + size] for i in range(0, len(episodes.success) - size + 1, size)]


def starts_vary(episodes: Episodes) -> bool:
    """Whether the recorded vectors of the first step differ between episodes, or none are recorded."""
    return not episodes.states or any((v[:, 0] != v[0, 0]).any() for v in episodes.states.values())


def counts_by_state(groups: list[Episodes], env: gym.vector.VectorEnv, atlas: Atlas | None) -> np.ndarray:
    """(S, M) successes in each mode from each initial state."""
    named = [name_modes(env, group, atlas) for group in groups]
    return np.stack([mode_counts(group.mode, group.success, num_modes) for group, num_modes in named])


def measure_ways(m: Metrics, tuned: list[Episodes], base: list[Episodes], key: str) -> None:
    """Add the ways ratio, of the successes from each initial state.

    Args:
        tuned, base: groups from the same initial states, in the same order.
        key: observation whose paths are compared.
    """
    with m.needs("ways_ratio"):
        if not base or not tuned:
            raise ValueError("n_initial_states is 0, or the environment gives no paths")
        for group in base:
            _check_repeats(group.states[key], join_paths([part.states[key] for part in base]))
        ways = ways_ratio(*_features(tuned, base, key))
        m["ways_ratio"], m["ways_ratio_ci"] = ways.ratio, [ways.low, ways.high]
        m["ways_ratio_control"] = ways.control
        m["ways_ratio_control_ci"] = [ways.control_low, ways.control_high]
        m["ways_ratio_samples"] = ways.starts


def _check_repeats(group: np.ndarray, everything: np.ndarray) -> None:
    """Raise a ValueError unless the paths (E, L+1, S) of a group start alike, seen from all paths."""
    first = group[:, 0].astype(np.float64)
    if (np.ptp(first, axis=0) > LEAST_SPREAD * ranges(everything)).any():
        raise ValueError(
            "episodes on the same seed start differently, so that no start is repeated: let reset(seed=...) "
            "of the environment decide all that is random in it"
        )


def _features(*sides: Any) -> list[list[np.ndarray]]:
    """Paths of the successes of each group, as rows, for each policy; each dim in units of the base's spread.

    Args:
        sides: groups of the tuned policy and of the base, and the observation's key.
    """
    *policies, key = sides
    paths = [[group.states[key][group.success] for group in groups] for groups in policies]
    steps = np.concatenate([path.reshape(-1, path.shape[-1]) for path in paths[-1]]).astype(np.float64)
    unit = np.nanstd(steps, axis=0)
    dims = np.flatnonzero(unit > 0)
    return [
        [
            resample(path[..., dims] / unit[dims], POINTS, equal_times=True).reshape(len(path), -1)
            for path in groups
        ]
        for groups in paths
    ]
