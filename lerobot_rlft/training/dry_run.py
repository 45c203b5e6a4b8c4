"""One tiny iteration, which shows what a run would take and writes nothing."""

import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import torch

from ..configs.train import TrainConfig
from ..utils.run_folder import CONFIG_NAME, METRICS, SUMMARY
from .estimate import duration, measure_play, run_time, timed, update_seconds
from .footprint import footprint, on_meta, size_text, stored_decision

if TYPE_CHECKING:
    from .trainer import Trainer

DRY_RUN_ENVS, DRY_RUN_DECISIONS = 2, 2


def dry_run(trainer: "Trainer") -> None:
    """Print sizes; then collect and update once, in `DRY_RUN_ENVS` environments for a few decisions, and
    print what that gave, the memory that it took, and how long the run would take.
    """
    runner, policy = trainer.runner, trainer.policy
    print(sizes(trainer), flush=True)
    if runner is None:
        data, _ = trainer.collector.collect(0)
        metrics = trainer.algorithm.update(data)
        step = timed(lambda: trainer.algorithm.update(trainer.collector.collect(1)[0]))
        steps = trainer.config.iterations - trainer.iteration
        time = (
            f"time        {duration(step)} a gradient step on this machine, {duration(steps * step)} for "
            f"{steps:,}; evaluations come on top"
        )
    else:
        max_steps = runner.max_steps
        runner.max_steps = min(max_steps, DRY_RUN_DECISIONS * policy.n_action_steps)
        results: list = []
        collect = timed(lambda: results.append(trainer.collector.collect(0, DRY_RUN_ENVS)[0]))
        (data,) = results
        update = timed(lambda: results.append(trainer.algorithm.update(data)))
        metrics = results[1]
        play = measure_play(trainer, data, collect, max_steps)
        time = run_time(trainer, play, update_seconds(trainer, data, update, decisions(trainer, max_steps)))
    numbers = ", ".join(f"{key} {value:.4g}" for key, value in metrics.items() if not isinstance(value, list))
    print(f"update      {numbers}")
    print(f"{time}\n{peak_memory()}{would_write(trainer.config)}; this was a dry run, nothing was written")
    trainer.close()


def decisions(trainer: "Trainer", max_steps: int) -> int:
    """Most decisions of an iteration."""
    return -(-max_steps // trainer.policy.n_action_steps) * trainer.config.rollout.n_episodes


def sizes(trainer: "Trainer") -> str:
    """Sizes of policy, chain, iteration, dataset and memory, as lines of text."""
    config, policy = trainer.config, trainer.policy
    parameters = list(policy.module.parameters())
    num_trainable = sum(p.numel() for p in parameters if p.requires_grad)
    num_frozen = sum(p.numel() for p in parameters) - num_trainable
    lines = [
        f"policy      {config.policy.type}: {num_trainable:,} trainable and {num_frozen:,} frozen parameters",
        f"chain       {policy.kernel.num_steps} denoising steps ({type(policy.kernel).__name__}), chunks of "
        f"{policy.horizon} actions, {policy.n_action_steps} executed",
    ]
    if trainer.runner is not None:
        episodes, max_steps = config.rollout.n_episodes, trainer.runner.max_steps
        lines.append(
            f"iteration   {episodes} episodes in {config.rollout.n_envs} environments, at most "
            f"{max_steps * episodes:,} env steps and {decisions(trainer, max_steps):,} decisions"
        )
    if trainer.batches is not None:
        batches = trainer.batches
        lines.append(f"dataset     {len(batches.dataset):,} frames, {len(batches.starts):,} windows")
    return "\n".join([*lines, memory(trainer)])


def memory(trainer: "Trainer") -> str:
    """Memory of an update, without libraries and environments, as lines of text."""
    policy = trainer.policy
    trainable = 4 * sum(p.numel() for p in policy.trainable_parameters())  # float32, as each moment
    parts = {
        "weights": sum(t.nbytes for t in (*policy.module.parameters(), *policy.module.buffers())),
        "the base's copy": trainable if trainer.base is not None else 0,  # what is frozen is shared
        "gradients": trainable,
        "Adam": (3 if trainer.algorithm.amsgrad else 2) * trainable,
    }
    if trainer.runner is not None:
        count = decisions(trainer, trainer.runner.max_steps)
        parts["observations and chains of an iteration"] = count * stored_decision(policy)
        minibatches = trainer.algorithm.minibatches(count)
        if minibatches is not None:
            encoder = policy.encoder
            train_encoder = encoder is not None and any(p.requires_grad for p in encoder.parameters())
            for build in (lambda: on_meta(policy), lambda: policy):  # a wrapped network may keep weights
                with suppress(ValueError, RuntimeError):
                    usage = footprint(build(), minibatches[0], train_encoder)
                    parts[f"activations of a minibatch of {minibatches[0]}"] = usage.activations
                    parts["encoded observations"] = count * usage.condition
                    break
    summary = ", ".join(f"{name} {size_text(size)}" for name, size in parts.items() if size)
    has_activations = any("activations" in name for name in parts)
    return (
        f"memory      {size_text(sum(parts.values()))} at most, beside libraries and environments:\n"
        f"            {summary}" + ("" if has_activations else "; activations are not counted")
    )


def peak_memory() -> str:
    """A line with the most memory that this process took so far; empty where the system does not tell."""
    peaks = []
    with suppress(ImportError):  # on Windows
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        peaks.append(f"{size_text(peak)}, libraries and environments included")
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        peaks.append(f"{size_text(torch.cuda.max_memory_allocated())} on the accelerator")
    return f"peak        of this dry run: {', '.join(peaks)}\n" if peaks else ""


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
