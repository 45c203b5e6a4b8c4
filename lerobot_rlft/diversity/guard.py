"""The diversity guard: a floor under a measure of diversity, held by dual ascent on what holds diversity.

Maximise success subject to ratio >= floor. Its Lagrange multiplier is the strength s of everything that
holds diversity: the coefficients of all regularizers and tau of the mode balance are multiplied by s, which
begins at 1, what the configuration says, and after each iteration

    s <- clip(s + rate (floor - ratio), least, most)

By default it only adds (least = 1): a mode that is gone because nothing held it while all was well does not
come back by itself.

The ratio is read off decaying counts of successes, so that a step answers to many episodes and not to the
luck of one iteration: an on/off controller on single batches oscillates.

Shapes: M modes.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..metrics.modes import bootstrap_interval, nats

EPISODES = 960  # that the decaying counts remember
METRICS = ("entropy", "effective_modes", "smallest_share")
# A decaying count below half a success is what is left of old ones. Taken for a mode that is seen it would
# add to the Miller-Madow correction as much as any other: 23 gone modes beside 60 successes would read .06.
LEAST_COUNT = 0.5
KNOWN_SHARE = 0.02  # smallest_share looks at modes that had more than this share of the base's successes


@dataclass
class GuardConfig:
    """Hold the base's mode diversity: --guard.enable=true alone is the recommended combination.

    Raises:
        ValueError: a field is out of its range.
    """

    # Whether to hold the mode diversity of the base during training.
    enable: bool = False
    # Diversity that is held, as a ratio of the tuned policy to its base: "entropy" of the modes of successes,
    # "effective_modes", the exponential of that entropy, or "smallest_share", the smallest ratio of shares
    # over the modes with more than 0.02 of the base's successes.
    metric: str = "entropy"
    # Smallest allowed ratio, above 0 and at most 1.
    floor: float = 0.95
    # Change of the guard's strength in an iteration, for each unit by which the ratio is below the floor. The
    # strength multiplies balance and regularizers; it does not act on commands.
    rate: float = 4.0
    # Smallest strength of the guard; 1 leaves coefficients as they are configured.
    least: float = 1.0
    # Largest strength of the guard.
    most: float = 4.0

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise ValueError(f"guard.metric={self.metric!r} is unknown, choose {', '.join(METRICS)}")
        if not 0 < self.floor <= 1:
            raise ValueError(f"guard.floor={self.floor} is out of range, choose a ratio in (0, 1]")
        if not self.rate > 0:
            raise ValueError(f"guard.rate={self.rate} must be positive")
        if not 0 <= self.least <= 1 <= self.most:
            raise ValueError(
                f"guard.least={self.least} and guard.most={self.most} must enclose 1: 0 <= least <= 1 <= most"
            )


class DiversityGuard:
    """The controller of one run.

    Args:
        config: see there.
        base_counts: (M,) successes of the base in each mode.
        commanded: modes are held by commands alone, and a strength has nothing to move.

    Raises:
        ValueError: the base has fewer than two modes: there is nothing to hold.
    """

    def __init__(self, config: GuardConfig, base_counts: np.ndarray, commanded: bool = False) -> None:
        self.config, self.base_counts, self.commanded = config, np.asarray(base_counts, float), commanded
        modes = int((self.base_counts > 0).sum())
        if modes < 2:
            raise ValueError(
                f"guard.enable=true, but the base's successes use {modes} mode{'s' * (modes == 0)}: there is "
                "nothing to hold, switch the guard off, or play more episodes (--rollout.n_reference)"
            )
        self.strength = 1.0
        self.counts = np.zeros(len(self.base_counts))
        self.episodes = 0.0
        self._below = self._capped = False

    def update(self, counts: np.ndarray, episodes: int) -> dict[str, Any]:
        """Read an iteration and move the strength.

        Args:
            counts: (M,) its successes in each mode.
            episodes: all of it.

        Returns:
            `guard_ratio`, `guard_strength` (not of a commanded policy), and `alarm`, words when the floor is
            passed or the strength at its end.
        """
        keep = max(0.0, 1 - episodes / EPISODES)
        self.counts = keep * self.counts + counts
        self.episodes = keep * self.episodes + episodes
        out: dict[str, Any] = {} if self.commanded else {"guard_strength": self.strength}
        if self.counts.sum() < 2:
            return out
        ratio = out["guard_ratio"] = retained(self.config.metric, self.counts, self.base_counts)
        target = self.strength
        if not self.commanded:
            target += self.config.rate * (self.config.floor - ratio)
            out["guard_strength"] = self.strength = float(
                np.clip(target, self.config.least, self.config.most)
            )
        if message := self._words(ratio, target):
            out["alarm"] = message
        return out

    def _words(self, ratio: float, target: float) -> str | None:
        """Said once for each time that the reading passes the floor, or the strength reaches its cap."""
        name = self.config.metric.replace("_", " ")
        message = None
        noise, whole = math.inf, np.round(self.counts)
        if whole.any():  # old successes of many modes may have faded to less than half a one each
            low, high = bootstrap_interval(whole)
            noise = (high - low) / 2 / float(nats(self.base_counts))  # half of it, as a ratio of entropies
        if not self._below and ratio < self.config.floor - noise:
            self._below = True
            way_out = f"strength {self.strength:.2f} and rising"
            if self.commanded:
                way_out = (
                    "some commanded modes are done less well; raise --algorithm.commands.practice or lower "
                    "--algorithm.actor_lr"
                )
            message = (
                f"guard: {name} of successes fell to {ratio:.2f} of the base, below the floor "
                f"{self.config.floor}; {way_out}"
            )
        elif self._below and ratio >= self.config.floor:
            self._below = False
            message = f"guard: {name} is back at {ratio:.2f} of the base"
        if target > self.config.most and not self._capped:
            self._capped = True
            message = (
                f"guard: strength is at its cap {self.config.most} and {name} still is {ratio:.2f} of the "
                "base; the run goes on. Raise --rollout.n_episodes, lower --algorithm.actor_lr, or accept a "
                "lower --guard.floor"
            )
        elif target < self.config.most:
            self._capped = False
        return message

    def state_dict(self) -> dict[str, Any]:
        return {
            "base_counts": self.base_counts.tolist(),
            "strength": self.strength,
            "counts": self.counts.tolist(),
            "episodes": self.episodes,
            "below": self._below,
            "capped": self._capped,
        }

    @classmethod
    def from_state(
        cls, config: GuardConfig, state: dict[str, Any], commanded: bool = False
    ) -> "DiversityGuard":
        """The guard that `state_dict` describes."""
        guard = cls(config, np.array(state["base_counts"]), commanded)
        guard.strength, guard.episodes = state["strength"], state["episodes"]
        guard.counts = np.array(state["counts"])
        guard._below, guard._capped = state["below"], state["capped"]
        return guard


def retained(metric: str, counts: np.ndarray, base_counts: np.ndarray) -> float:
    """Share of the base's diversity that is left, tuned / base.

    Args:
        metric: one of `METRICS`.
        counts, base_counts: (M,) successes in each mode; decaying counts may be fractional.

    Returns:
        0 where nothing succeeded, and for the entropy where one mode is left.
    """
    if counts.sum() <= 0:
        return 0.0
    remainder = np.where(counts >= LEAST_COUNT, counts, 0)
    if remainder.any():  # of very many modes each may have less
        counts = remainder
    if metric == "entropy":
        return float(nats(counts) / nats(base_counts))
    if metric == "effective_modes":
        return math.exp(nats(counts) - nats(base_counts))
    base = base_counts / base_counts.sum()
    is_mode = base > (KNOWN_SHARE if base.max() > KNOWN_SHARE else 0)  # of very many modes all are rare
    return float((counts[is_mode] / counts.sum() / base[is_mode]).min())
