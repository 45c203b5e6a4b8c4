"""Console text of a run: progress, and the conclusion after it."""

import math
import sys
import time
from typing import Any

import numpy as np
from tqdm import tqdm

from ..configs.train import TrainConfig
from ..evaluation.paired import success_change
from ..metrics.modes import entropy_ratio

LINE_SECONDS = 10.0


def conclusion(summary: dict[str, Any]) -> str:
    """The end of a run in plain words: success and modes before and after.

    Args:
        summary: `env_steps`, and `tuned` and optionally `base` as `Evaluation.to_dict` gives them, and with
            `base`, where it is known, `gained`: episodes that the tuned policy solved and the base did not.
    """
    tuned, base = summary["tuned"], summary.get("base")
    if base is None:
        text = f"Success of the checkpoint on disk: {_percent(tuned)} of {tuned['n_episodes']} episodes."
        if "modes" in tuned:
            text += (
                f" It uses {tuned['modes']} of {tuned['num_modes']} modes (entropy {tuned['entropy']:.3f})."
            )
        return text
    change = _change(base, tuned, summary.get("gained"))
    verdict = f"Success {change}" if change else "No difference in success can be told"
    text = (
        f"{verdict}: {_percent(base)} before, {_percent(tuned)} after {summary['env_steps']:,} "
        f"environment steps ({tuned['n_episodes']} episodes each, 95 % intervals, same seeds)."
    )
    if "modes" in tuned and "modes" in base:
        counts = zip(tuned["mode_counts"], base["mode_counts"], strict=True)
        num_common = sum(t > 0 and b > 0 for t, b in counts)
        text += (
            f"\nOf the {base['modes']} ways to succeed that the base knew, the tuned policy uses "
            f"{num_common} (mode entropy {base['entropy']:.3f} before, {tuned['entropy']:.3f} after; "
            f"1 is uniform over {tuned['num_modes']})."
        )
        at_a_price = change == "rose" and num_common < base["modes"] and _less_diverse(base, tuned)
        if at_a_price and "guard" not in summary:
            text += " Success was paid for with ways of solving the task."
        if guard := summary.get("guard"):
            low, high = guard.get("ratio_ci", (None, None))
            interval = f" [{low:.2f}, {high:.2f}]" if low is not None else ""
            text += (
                f"\nGuard: {guard['ratio']:.2f}{interval} of the base's {guard['metric'].replace('_', ' ')} "
                f"is kept (floor {guard['floor']}). Exported is the checkpoint of iteration "
                f"{guard['iteration']}; on the front of success and diversity (front.png) are "
                f"{len(guard['front'])} of the evaluated ones."
            )
    else:
        text += f"\nMean max reward: {base['max_reward']:.3f} before, {tuned['max_reward']:.3f} after."
    return text


def _change(base: dict[str, Any], tuned: dict[str, Any], gained: int | None) -> str | None:
    """rose, fell, or None where no difference can be told."""
    episodes = tuned["n_episodes"]
    return success_change(*(round(side["success"] * episodes) for side in (base, tuned)), episodes, gained)


def _less_diverse(base: dict[str, Any], tuned: dict[str, Any]) -> bool:
    """Whether the 95 % interval of the success entropy ratio lies below 1."""
    try:
        return entropy_ratio(np.array(tuned["mode_counts"]), np.array(base["mode_counts"])).high < 1
    except ValueError:  # too few successes for an interval
        return False


def _percent(evaluation: dict[str, Any]) -> str:
    low, high = evaluation["success_ci"]
    return f"{100 * evaluation['success']:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


class Progress(tqdm):
    """The bar of a run: what the newest iteration reached, and what is being done.

    Where the output is no terminal it is a line for an iteration, and at most one in `LINE_SECONDS`.
    """

    def __init__(self, config: TrainConfig, iteration: int) -> None:
        super().__init__(
            total=config.iterations,
            initial=iteration,
            unit="it",
            desc=config.job_name,
            smoothing=0.1,
            disable=None,
        )
        self.job_name, self.iteration, self.iterations = config.job_name, iteration, config.iterations
        self.said = -math.inf  # when the newest line was
        self.status = ""
        self.has_phases = config.algorithm.consumes == "rollouts"  # a gradient step is too short for them

    def show(self, phase: str) -> None:
        if self.has_phases:
            self.set_postfix_str(f"{self.status} {phase}".strip())

    def summarize(self, metrics: dict[str, Any], progress: str, modes: str, rate: float | None) -> None:
        """Take what the newest iteration reached.

        Args:
            progress: of the algorithm.
            modes: of the monitor.
            rate: environment steps a second; None for an algorithm that learns from a dataset.
        """
        parts = [progress]
        if rate is not None:
            success = f"success {metrics['success']:.2f} {modes}".rstrip()
            parts = [success, f"return {metrics['return']:.2f}", progress, f"{rate:.0f} steps/s"]
        self.status = " ".join(filter(None, parts))

    def advance(self) -> None:
        self.set_postfix_str(self.status, refresh=False)
        self.update()
        self.iteration += 1
        is_due = time.monotonic() - self.said >= LINE_SECONDS or self.iteration == self.iterations
        if self.disable and is_due:
            self.said = time.monotonic()
            line = f"{self.job_name}: iteration {self.iteration} of {self.iterations} {self.status}".rstrip()
            print(line, file=sys.stderr, flush=True)
