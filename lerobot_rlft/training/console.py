"""Console text of a run: sizes before, progress, conclusion after."""

import math
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from ..configs.train import TrainConfig
from ..datasets.loader import BatchLoader
from ..evaluation.paired import success_change
from ..metrics.modes import entropy_ratio
from ..policies.base import DenoisingPolicy
from ..rollout.episodes import Rollout
from ..utils.run_folder import CONFIG_NAME, METRICS, SUMMARY

if TYPE_CHECKING:
    from .trainer import Trainer

LINE_SECONDS = 10.0
ADAM_BYTES = 12  # gradient and two moments of a float32


def conclusion(summary: dict[str, Any]) -> str:
    """What became of the policy, in plain words.

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
    said = f"Success {change}" if change else "No difference in success can be told"
    text = (
        f"{said}: {_percent(base)} before, {_percent(tuned)} after {summary['env_steps']:,} "
        f"environment steps ({tuned['n_episodes']} episodes each, 95 % intervals, same seeds)."
    )
    if "modes" in tuned and "modes" in base:
        counts = zip(tuned["mode_counts"], base["mode_counts"], strict=True)
        kept = sum(t > 0 and b > 0 for t, b in counts)
        text += (
            f"\nOf the {base['modes']} ways to succeed that the base knew, the tuned policy uses "
            f"{kept} (mode entropy {base['entropy']:.3f} before, {tuned['entropy']:.3f} after; "
            f"1 is uniform over {tuned['num_modes']})."
        )
        paid = change == "rose" and kept < base["modes"] and _less_diverse(base, tuned)
        if paid and "guard" not in summary:
            text += " Success was paid for with ways of solving the task."
        if guard := summary.get("guard"):
            low, high = guard.get("ratio_ci", (None, None))
            interval = f" [{low:.2f}, {high:.2f}]" if low is not None else ""
            text += (
                f"\nGuard: {guard['ratio']:.2f}{interval} of the base's {guard['metric'].replace('_', ' ')} "
                f"is kept (floor {guard['floor']}). Exported is the checkpoint of iteration "
                f"{guard['iteration']}, {len(guard['front'])} are on the front."
            )
    else:
        text += f"\nMean max reward: {base['max_reward']:.3f} before, {tuned['max_reward']:.3f} after."
    return text


def _change(base: dict[str, Any], tuned: dict[str, Any], gained: int | None) -> str | None:
    """rose, fell, or None; also where the two did not play as many episodes, so not the same seeds."""
    episodes = tuned["n_episodes"]
    if base["n_episodes"] != episodes:
        return None
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


def sizes(
    config: TrainConfig,
    policy: DenoisingPolicy,
    max_steps: int,
    data: Rollout | None,
    batches: BatchLoader | None,
) -> str:
    """What a user wants to know before a long run.

    Args:
        max_steps: the longest episode, in environment steps.
        data: a tiny rollout, for the size of a decision; None for an algorithm that learns from a dataset.
        batches: of the dataset, for such an algorithm.
    """
    parameters = list(policy.module.parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    frozen = sum(p.numel() for p in parameters) - trained
    lines = [
        f"policy      {config.policy.type}: {trained:,} trainable and {frozen:,} frozen parameters",
        f"chain       {policy.kernel.num_steps} denoising steps ({type(policy.kernel).__name__}), chunks of "
        f"{policy.horizon} actions, {policy.n_action_steps} executed",
    ]
    memory = f"{ADAM_BYTES * trained / 2**20:.1f} MiB for gradients and Adam"
    if data is not None:
        stored = (*data.obs.values(), data.chain.x, data.chain.log_prob)
        decision = sum(tensor[:1].numel() * tensor.element_size() for tensor in stored)
        episodes = config.rollout.n_episodes
        most = -(-max_steps // policy.n_action_steps) * episodes
        lines.append(
            f"iteration   {episodes} episodes in {config.rollout.n_envs} environments, at most "
            f"{max_steps * episodes:,} env steps and {most:,} decisions"
        )
        most_memory = most * decision / 2**20
        memory += f"; {decision:,} bytes for a stored decision, at most {most_memory:.1f} MiB an iteration"
    if batches is not None:
        lines.append(f"dataset     {len(batches.dataset):,} frames, {len(batches.starts):,} windows")
    lines.append(f"memory      {memory}")
    return "\n".join(lines)


def would_write(config: TrainConfig) -> str:
    """Where a run puts what."""
    every = f"every {config.save_freq} of" if config.save_freq else "after"
    what = [
        CONFIG_NAME,
        METRICS,
        f"checkpoints/ {every} {config.iterations} iterations",
    ]
    if config.env is not None:
        what += [SUMMARY, "pictures/"] + (["videos/"] if config.eval.n_videos else [])
    if config.tracked_by == "wandb":
        what.append("wandb/")
    return f"would write {config.output_dir}/: {', '.join(what)}"


def show_dry_run(trainer: "Trainer", max_steps: int, data: Any, metrics: dict[str, Any]) -> None:
    """Print the sizes of a run and what one tiny iteration gave.

    Args:
        max_steps: of an episode.
        data, metrics: of that iteration.
    """
    rollout = data if trainer.runner else None
    print(sizes(trainer.config, trainer.policy, max_steps, rollout, trainer.batches))
    numbers = ", ".join(f"{key} {value:.4g}" for key, value in metrics.items() if not isinstance(value, list))
    print(f"update      {numbers}")
    print(f"{would_write(trainer.config)}; this was a dry run, nothing was written")


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
        shown = [progress]
        if rate is not None:
            success = f"success {metrics['success']:.2f} {modes}".rstrip()
            shown = [success, f"return {metrics['return']:.2f}", progress, f"{rate:.0f} steps/s"]
        self.status = " ".join(filter(None, shown))

    def advance(self) -> None:
        self.set_postfix_str(self.status, refresh=False)
        self.update()
        self.iteration += 1
        due = time.monotonic() - self.said >= LINE_SECONDS or self.iteration == self.iterations
        if self.disable and due:
            self.said = time.monotonic()
            line = f"{self.job_name}: {self.iteration} of {self.iterations} {self.status}".rstrip()
            print(line, file=sys.stderr, flush=True)
