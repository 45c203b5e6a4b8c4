"""Modes of the episodes that a run collects: how many are left, and words when something is wrong.

Shapes: M modes.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..metrics.modes import bootstrap_interval, effective_modes, jensen_shannon

WINDOW_EPISODES = 480  # a reading covers the newest iterations with at least so many episodes together
ALARM_STEP = 0.1  # words at .9 of the base's effective modes and at every further tenth that is lost
# What to do about a loss of modes, by what happened to success meanwhile.
ADVICE = {
    "fell": "lower --algorithm.actor_lr",
    "flat": "raise --rollout.n_episodes or lower --algorithm.actor_lr",
    "rose": "an earlier checkpoint keeps more, a smaller --algorithm.finetuned_steps slows the loss",
}
ADVICE_TO_ROUNDS = {
    "fell": "raise --algorithm.base_fraction or lower --policy.optimizer_lr",
    "flat": "raise --rollout.n_episodes or --algorithm.base_fraction",
    "rose": "an earlier round keeps more, and so does a larger --algorithm.base_fraction",
}
FALL = 0.15  # words at a success rate so much, and four standard errors, below the best one
FLAT = 0.03  # a smaller change of the success rate counts as flat, and so does one within two standard errors


class ModeTracker:
    """Effective modes of the newest exploratory episodes beside those of the exploring base.

    Args:
        base_counts: (M,) successes of the exploring base in each mode.
        base_episodes: episodes they come from.
        base_successes: of them; None = those in a known mode.

    Raises:
        ValueError: the base has no success in any mode.
    """

    def __init__(
        self, base_counts: Sequence[float], base_episodes: int, base_successes: int | None = None
    ) -> None:
        self.base_counts, self.base_episodes = np.asarray(base_counts), base_episodes
        self.base_effective = effective_modes(self.base_counts)
        self.base_low, _ = bootstrap_interval(self.base_counts)  # nats
        # (episodes, successes, successes in each mode) of an iteration
        self.window: list[tuple[int, int, list[float]]] = []
        self.alarm_level = 1 - ALARM_STEP
        if base_successes is None:
            base_successes = int(self.base_counts.sum())
        self.alarm_success = self.best_success = min(base_successes, base_episodes) / base_episodes

    def update(
        self, counts: Sequence[float], episodes: int, successes: int | None = None
    ) -> dict[str, float]:
        """Add an iteration.

        Args:
            counts: (M,) successes in each mode, which may be weighted.
            episodes: all of the iteration.
            successes: of them; None = those in a known mode. Weighted, they may exceed the episodes, which
                then count as all.

        Returns:
            `effective_modes` and `js_to_base` (bits) of the window; nothing while it holds no success.
        """
        if successes is None:
            successes = round(sum(counts))
        self.window.append((episodes, min(successes, episodes), [float(c) for c in counts]))
        while sum(e for e, *_ in self.window[1:]) >= WINDOW_EPISODES:
            self.window.pop(0)
        total = self.counts
        if not total.sum():
            return {}
        return {
            "effective_modes": effective_modes(total),
            "js_to_base": jensen_shannon(total, self.base_counts),
        }

    @property
    def counts(self) -> np.ndarray:
        """(M,) successes of the window in each mode, to whole ones."""
        return np.rint(np.sum([counts for *_, counts in self.window], 0)).astype(int)

    def alarm(self, advice: dict[str, str] = ADVICE) -> str | None:
        """A sentence when another tenth of the base's effective modes is gone for sure, or when success
        falls, else None.

        For sure: the 95 % interval of the window, moved up by the base's own uncertainty, lies below it.
        """
        episodes = sum(e for e, *_ in self.window)
        success = sum(s for _, s, _ in self.window) / episodes
        message = self._lost_modes(success, episodes, advice)
        best, error = self.best_success, math.sqrt(success * (1 - success) / episodes)
        fell = best - success > max(FALL, 4 * error)
        self.best_success = success if fell else max(best, success)
        if message or not fell:
            return message
        return (
            f"success fell ({100 * best:.0f} % to {100 * success:.0f} %): the policy is breaking; "
            f"{advice['fell']}, and go on from an earlier checkpoint"
        )

    def _lost_modes(self, success: float, episodes: int, advice: dict[str, str]) -> str | None:
        total = self.counts
        if not total.sum():
            return None
        now = effective_modes(total)
        share = now / self.base_effective
        most = math.exp(bootstrap_interval(total)[1] - self.base_low)
        if most > self.alarm_level:
            return None
        before = self.alarm_success
        while most <= self.alarm_level:
            self.alarm_level -= ALARM_STEP
        self.alarm_success = success
        flat = max(FLAT, 2 * math.sqrt(success * (1 - success) / episodes))
        numbers = f"({now:.1f} of {self.base_effective:.1f})"
        fall = f"effective modes fell to {100 * share:.0f} % of the base {numbers}"
        span = f"({100 * before:.0f} % to {100 * success:.0f} %)"
        change = total / total.sum() - self.base_counts / self.base_counts.sum()
        if success < before - flat:
            return f"{fall} and success fell {span}: the policy is breaking; {advice['fell']}"
        if success <= before + flat:
            return (
                f"{fall} while success is flat {span}: drift, equally good modes are lost to noise; "
                f"{advice['flat']}"
            )
        return (
            f"{fall} while success rose {span}: selection, mode {int(change.argmax())} gained most and mode "
            f"{int(change.argmin())} lost most; {advice['rose']}"
        )

    def state_dict(self) -> dict[str, Any]:
        return {
            "base_counts": self.base_counts.tolist(),
            "base_episodes": self.base_episodes,
            "window": [list(entry) for entry in self.window],
            "alarm_level": self.alarm_level,
            "alarm_success": self.alarm_success,
            "best_success": self.best_success,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "ModeTracker":
        """The tracker that `state_dict` describes."""
        tracker = cls(state["base_counts"], state["base_episodes"])
        # Weights were not normalised once: a window of then may hold more successes than episodes.
        tracker.window = [(e, min(s, e), counts) for e, s, counts in state["window"]]
        tracker.alarm_level, tracker.alarm_success = state["alarm_level"], min(1.0, state["alarm_success"])
        tracker.best_success = min(1.0, state.get("best_success", tracker.best_success))
        return tracker
