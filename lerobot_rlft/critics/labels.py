"""Returns, advantages and labels of recorded episodes (RECAP, arXiv:2511.14759). Pure functions.

Shapes: F frames of all episodes, those of an episode adjacent; E episodes. `episode` (F,) int says which
episode, 0..E-1, a frame belongs to.
"""

import numpy as np

from ..policies.conditioning import NEGATIVE, POSITIVE, UNKNOWN

LABELINGS = ("quantile", "per_mode_quantile", "episode_success")


def steps_left(episode: np.ndarray) -> np.ndarray:
    """(F,) int, frames that follow in the same episode; 0 at its last one."""
    last = np.flatnonzero(np.append(episode[1:] != episode[:-1], True))
    return last[np.searchsorted(last, np.arange(len(episode)))] - np.arange(len(episode))


def step_rewards(
    episode: np.ndarray, success: np.ndarray, task: np.ndarray, fail_cost: float | None
) -> np.ndarray:
    """Rewards (F,) whose sum over an episode lies in [-1, 0]: time, and the price of failing.

    -1 for each step, 0 for the one that ends with success, -C for the one that ends with failure, all divided
    by the task's longest episode plus C. The paper divides by the longest episode alone, which leaves the
    range as soon as C > 0 and makes all failures equal once it is clipped. A long failure has a lower return
    than a short one.

    Args:
        success: (E,) bool.
        task: (F,) int, constant over an episode.
        fail_cost: C in steps; None is the task's longest episode, so that the slowest success is still worth
            more than the fastest failure.
    """
    countdown = steps_left(episode)
    reward = np.full(len(episode), -1.0)
    ends = countdown == 0
    for name in np.unique(task):
        of_task = task == name
        longest = countdown[of_task].max() + 1
        cost = longest if fail_cost is None else fail_cost
        reward[of_task & ends] = np.where(success[episode[of_task & ends]], 0.0, -cost)
        reward[of_task] /= longest + cost
    return reward


def scaled_rewards(
    episode: np.ndarray, reward: np.ndarray, task: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The environment's rewards (F,) in units in which the returns of a task span [-1, 0].

    Returns:
        the rewards, and the value (F,) of an episode that is over: what a return of 0 becomes.
    """
    total = returns(episode, reward, np.zeros(len(reward)))
    ratio, over = np.zeros(len(reward)), np.zeros(len(reward))
    for name in np.unique(task):
        of_task = task == name
        low, high = min(0.0, total[of_task].min()), max(0.0, total[of_task].max())
        unit = high - low if high > low else 1.0
        ratio[of_task], over[of_task] = reward[of_task] / unit, -high / unit
    return ratio, over


def returns(episode: np.ndarray, reward: np.ndarray, over: np.ndarray) -> np.ndarray:
    """Undiscounted sum (F,) of the rewards from each frame to the end of its episode, plus `over` (F,)."""
    after = np.cumsum(reward[::-1])[::-1]  # also over the episodes behind
    end = np.arange(len(episode)) + steps_left(episode)
    return after - after[end] + reward[end] + over


def advantages(
    episode: np.ndarray, reward: np.ndarray, over: np.ndarray, value: np.ndarray, n_steps: int | None
) -> np.ndarray:
    """A_t = r_t + ... + r_{t+n-1} + V_{t+n} - V_t, (F,); an episode that ends before has no bootstrap.

    Args:
        over: (F,) value of an episode that is over.
        value: (F,) V of each frame.
        n_steps: n; None looks to the end of the episode.
    """
    total = returns(episode, reward, over)
    if n_steps is None:
        return total - value
    frame = np.arange(len(episode))
    later = np.minimum(frame + n_steps, len(episode) - 1)
    ends = steps_left(episode) < n_steps
    lookahead = total - total[later] + value[later]
    return np.where(ends, total, lookahead) - value


def label_frames(
    labeling: str,
    *,
    advantage: np.ndarray,
    success: np.ndarray,
    task: np.ndarray,
    mode: np.ndarray,
    forced: np.ndarray,
    positive_fraction: float,
) -> np.ndarray:
    """The label of each frame, (F,) int of `conditioning.LABELS`.

    "quantile": positive where A exceeds the quantile of its task above which `positive_fraction` of its
    frames lie; "per_mode_quantile": the same inside each mode of a task, so that none is dropped for being
    slightly worse than another; "episode_success": all frames of an episode that succeeded. Frames whose
    episode has no known outcome are unknown.

    Args:
        advantage: (F,), NaN where unknown; not read by "episode_success".
        success: (F,) of the frame's episode: 1, 0, NaN unknown.
        task: (F,) int.
        mode: (F,) int of the frame's episode, read by "per_mode_quantile"; -1 is a mode like others.
        forced: (F,) bool, demonstrations and interventions: positive whatever else is known, and not counted
            in quantiles.
        positive_fraction: in (0, 1).

    Raises:
        ValueError: `labeling` is unknown, or the fraction out of range.
    """
    if labeling not in LABELINGS:
        raise ValueError(f"algorithm.label={labeling!r} is unknown, choose {', '.join(LABELINGS)}")
    if not 0 < positive_fraction < 1:
        raise ValueError(
            f"algorithm.positive_fraction={positive_fraction} is out of range, choose a number in (0, 1)"
        )
    label = np.full(len(advantage), UNKNOWN)
    if labeling == "episode_success":
        has_outcome = ~np.isnan(success)
        label[has_outcome] = np.where(success[has_outcome] > 0, POSITIVE, NEGATIVE)
    else:
        group = task if labeling == "quantile" else np.stack([task, mode], 1)
        group = np.unique(group, axis=0, return_inverse=True)[1].reshape(-1)
        has_advantage = ~np.isnan(advantage) & ~forced
        for name in np.unique(group[has_advantage]):
            rows = np.flatnonzero(has_advantage & (group == name))
            threshold = np.quantile(advantage[rows], 1 - positive_fraction)
            label[rows] = np.where(advantage[rows] > threshold, POSITIVE, NEGATIVE)
    label[forced] = POSITIVE
    return label
