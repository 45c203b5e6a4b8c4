"""The loop: collect, update, evaluate, save.

`metrics.jsonl` in the folder of the run has one JSON object on each line. All lines have `kind`, `iteration`
and `env_steps` (taken for training so far); the rest depends on `kind`:

train, every `log_freq` iterations, and with every alarm:
    seconds: of collection and update; the only number that differs between two equal runs.
    success, return, max_reward: rate and means over the exploratory episodes (rollouts only).
    mode_counts: successes in each mode; effective_modes, js_to_base (bits): of the newest 480 episodes or
    more beside the exploring base (`diversity/tracker.py`); guard_ratio, guard_strength, of a guarded run
    (`diversity/guard.py`); alarm: words, when modes are being lost.
    every `probe_freq` iterations chunk_spread, peaks, base_peaks, off_manifold, kl_forward
    (`diversity/probe.py`).
    what `Algorithm.update` returned: for dppo policy_loss, value_loss, kl_to_base, kl_by_step (from the last
    denoising step to the noisiest), clip_fraction and others,
    for bc loss, grad_norm and lr.
eval, before the first iteration (dppo), every `eval_freq` iterations, and at the end:
    sampler: "deployed", the policy's own as users run it, or "exploratory", with the noise of collection.
    reloaded: true for the last line, of the checkpoint as it was read back from disk.
    the fields of `evaluation.Evaluation`; those about modes only where the environment names modes.
"""

import shlex
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from lerobot.utils.random_utils import set_seed
from tqdm import tqdm

from .. import algorithms  # noqa: F401  registers the algorithms
from ..configs.train import TrainConfig
from ..hub.client import check_login
from ..hub.push import push_checkpoint, push_finished
from ..rollout.environments import make_runner
from ..rollout.episodes import Rollout
from ..rollout.evaluation import Evaluation
from ..utils.errors import EnvironmentFailure, RatioError, UserError
from ..utils.run_folder import CONFIG_NAME
from ..utils.signals import Interrupted, stop_on_signal
from .checkpoint import (
    forget_revision,
    last_checkpoint,
    load_state,
    remove_partial,
    save_checkpoint,
    write_config,
)
from .console import sizes, would_write
from .evaluator import Outcome
from .monitor import DiversityMonitor
from .records import Records
from .setup import check_wandb, fingerprint, make_algorithm, make_base, make_batches, make_policy

DRY_RUN_ENVS, DRY_RUN_DECISIONS = 2, 2


class Trainer:
    """Fine-tunes one policy; everything is built, and every input checked, before anything is written.

    Args:
        config: resolved (`TrainConfig.resolve`), or read from a checkpoint when it resumes.

    Raises:
        UserError: an input is unusable.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        check_wandb(config)
        if config.push_to_hub or config.save_checkpoint_to_hub:
            check_login(config.repo_id)
        # Not left to ACCELERATE_MIXED_PRECISION: it would scale losses that nothing unscales.
        self.accelerator = Accelerator(cpu=config.policy.device == "cpu", mixed_precision="no")
        if self.accelerator.num_processes > 1:
            raise UserError(
                f"started as {self.accelerator.num_processes} processes: several processes are not supported "
                "yet, launch one"
            )
        self.iteration, self.env_steps, self.seconds = 0, 0, 0.0
        self.records = Records(config)
        self._status, self._phase, self._records_size = "", "", 0
        set_seed(config.seed)
        # Sampling and re-evaluation use other batch sizes; TF32 would let their results differ by more than
        # the ratio check allows.
        torch.backends.cudnn.allow_tf32 = False
        checkpoint = last_checkpoint(config.resume) if config.resume else None
        self.batches = make_batches(config)
        self.policy = make_policy(config, checkpoint, self.batches)
        n_envs = (config.rollout.n_envs, min(config.eval.batch_size, config.eval.n_episodes))
        if config.dry_run:
            n_envs = (DRY_RUN_ENVS, DRY_RUN_ENVS)
        self.runner = self.tester = None
        self.base = self.monitor = None
        if config.algorithm.consumes == "rollouts":
            self.runner = make_runner(config.env, self.policy, n_envs[0], config.rollout.use_async_envs)
            self.base = make_base(config, self.policy)
            self.monitor = DiversityMonitor(config, self.base, self.records)
        if config.env is not None:
            self.tester = make_runner(config.env, self.policy, n_envs[1], config.rollout.use_async_envs)
        self.algorithm = make_algorithm(config, self.policy, self.base, self.accelerator.backward)
        self.outcome = Outcome(config, self.tester, self.base, self.monitor, self.records)
        self._base_hash = fingerprint(self.base) if self.base is not None else ""
        if checkpoint is not None:
            self._load(checkpoint)

    # The loop

    def train(self) -> None:
        """Run all iterations, then evaluate the checkpoint as it lies on disk and write the summary.

        Raises:
            Interrupted: after Ctrl-C or SIGTERM.
            UserError: the folder of the run cannot be made, or wandb does not start.
            EnvironmentFailure, FloatingPointError, RatioError: the run cannot go on; the message says where
                it stopped and how to continue.
        """
        try:
            self._train()
        except (Interrupted, KeyboardInterrupt):
            raise Interrupted(f"stopped after iteration {self.iteration}. {self._way_on()}") from None
        except (EnvironmentFailure, FloatingPointError, RatioError) as error:
            raise type(error)(f"{self._phase}: {error}. {self._way_on()}") from error
        finally:
            self.close()

    def _train(self) -> None:
        config = self.config
        self._begin_run()
        bar = tqdm(
            total=config.iterations, initial=self.iteration, unit="it", desc=config.job_name, smoothing=0.1
        )
        with bar, stop_on_signal() as stopped:
            if self.iteration == 0 and self.runner is not None:
                self._phase = "evaluation of the base"
                self.outcome.begin(self.policy)
                self._begin_algorithm(bar)
            while self.iteration < config.iterations:
                self._phase = f"iteration {self.iteration + 1}"
                start, steps_before = time.perf_counter(), self.env_steps
                self._show(bar, "collecting")
                data, metrics = self._collect()
                self._show(bar, "updating")
                metrics |= self.algorithm.update(data)
                self.iteration += 1
                if self.monitor is not None:
                    metrics |= self.monitor.iteration(self.iteration, self.runner.env, data, self.policy)
                    if self.monitor.guard is not None:
                        self.algorithm.hold(self.monitor.guard.strength)
                seconds = time.perf_counter() - start
                self.seconds += seconds
                self._log_training(metrics, seconds, self.env_steps - steps_before)
                bar.set_postfix_str(self._status, refresh=False)
                bar.update()
                last = self.iteration == config.iterations
                # The guard chooses among evaluated checkpoints, so the last one is evaluated, too.
                guarded = config.guard.enable
                evaluate = self.tester and self._due(config.eval_freq) and (guarded or not last)
                if evaluate or (guarded and last):
                    with self.algorithm.deployed_weights():
                        self.outcome.during(self.iteration, self.env_steps)
                if last or stopped or (guarded and evaluate) or self._due(config.save_freq):
                    self._save()
                if stopped:
                    raise Interrupted
        self._phase = "final evaluation"
        self.outcome.finish(self.iteration, self.env_steps, self.seconds)
        if config.push_to_hub:
            self._phase = "push"
            push_finished(config)

    def _due(self, every: int) -> bool:
        return every > 0 and self.iteration % every == 0

    def _begin_algorithm(self, bar: tqdm) -> None:
        """Let the base play the episodes that the algorithm holds on to."""
        if self.runner is None or not self.algorithm.needs_reference:
            return
        self._phase = "reference episodes of the base"
        self._show(bar, "reference")
        rollout = self.config.rollout
        count = -(-rollout.n_reference // rollout.n_envs) * rollout.n_envs
        data = self._play(count, spawn=(self.config.seed, 0, 0))
        num_modes = self.monitor.begin_reference(self.runner.env, data, self.policy.deployed_odds())
        try:
            self.algorithm.begin(data, num_modes)
        except ValueError as error:
            raise UserError(str(error)) from error

    def _show(self, bar: tqdm, phase: str) -> None:
        if self.runner is not None:  # a gradient step is too short to have phases
            bar.set_postfix_str(f"{self._status} {phase}".strip())

    def _way_on(self) -> str:
        """How to continue a run that stopped."""
        config = self.config
        try:
            saved = last_checkpoint(config.output_dir)
        except UserError:
            return f"No checkpoint was written yet: delete {config.output_dir} and start again"
        return (
            f"The checkpoint of iteration {int(saved.name)} is whole; continue with\n"
            f"  lerobot-rlft-train --resume={shlex.quote(str(config.output_dir))}"
        )

    def dry_run(self) -> None:
        """One tiny iteration on everything that was built; prints sizes and writes nothing."""
        config, policy = self.config, self.policy
        max_steps = self.runner.max_steps if self.runner else 0
        if self.runner is not None:
            self.runner.max_steps = min(max_steps, DRY_RUN_DECISIONS * policy.n_action_steps)
        data, _ = self._collect()
        print(sizes(config, policy, max_steps, data if self.runner else None, self.batches))
        metrics = self.algorithm.update(data)
        print(
            "update      " + ", ".join(f"{k} {v:.4g}" for k, v in metrics.items() if not isinstance(v, list))
        )
        print(f"{would_write(config)}; this was a dry run, nothing was written")
        self.close()

    def _collect(self) -> tuple[Any, dict[str, float]]:
        if self.runner is None:
            return next(self.batches), {}
        count = DRY_RUN_ENVS if self.config.dry_run else self.config.rollout.n_episodes
        data = self._play(count, spawn=(self.config.seed, self.iteration))
        if not self.config.dry_run:
            self.monitor.name(self.runner.env, data)
        outcome = Evaluation.of(data.episodes, num_modes=None)
        return data, {
            "success": outcome.success,
            "return": outcome.total_reward,
            "max_reward": outcome.max_reward,
        }

    def _play(self, count: int, spawn: tuple[int, ...]) -> Rollout:
        """Collect whole episodes and count their steps."""
        algorithm, rollout = self.config.algorithm, self.config.rollout
        data = self.runner.collect(
            count,
            np.random.SeedSequence(spawn).generate_state(count),
            algorithm.min_sampling_std,
            algorithm.min_log_prob_std,
            rollout.reward,
            rollout.success_bonus,
            rollout.time_limit,
        )
        self.env_steps += data.env_steps
        return data

    # Keeping

    def _begin_run(self) -> None:
        config = self.config
        try:
            config.output_dir.mkdir(parents=True, exist_ok=config.resume is not None)
        except FileExistsError as error:
            raise UserError(
                f"--output_dir={config.output_dir} exists, another program made it meanwhile: choose "
                "another folder"
            ) from error
        except OSError as error:
            raise UserError(
                f"--output_dir={config.output_dir} cannot be made ({error}): choose another"
            ) from error
        remove_partial(config.output_dir)
        self.records.begin(self._records_size)
        write_config(config, config.output_dir / CONFIG_NAME)

    def close(self) -> None:
        """Close the environments, whose processes would outlive the trainer."""
        for runner in (self.runner, self.tester):
            if runner is not None:
                runner.env.close()

    def _save(self) -> None:
        state = {
            "algorithm": self.algorithm.state_dict(),
            "iteration": self.iteration,
            "env_steps": self.env_steps,
            "seconds": self.seconds,
            "metrics_bytes": self.records.size,
            "base_hash": self._base_hash,
            "wandb_run_id": self.config.wandb.run_id,
        }
        if self.batches is not None:
            state["loader"] = self.batches.state_dict()
        if self.monitor is not None:
            state["monitor"] = self.monitor.state_dict()
        checkpoint = save_checkpoint(self.config, self.iteration, self._export, state)
        self.records.saved(checkpoint)
        if self.config.save_checkpoint_to_hub:
            push_checkpoint(self.config, checkpoint)

    def _export(self, folder: Path) -> None:
        # Only here: the training state above refers to the weights in place.
        with self.algorithm.deployed_weights():
            self.policy.save_pretrained(folder)
        forget_revision(folder)

    def _load(self, checkpoint: Path) -> None:
        config, state = self.config, load_state(checkpoint)
        if state["iteration"] > config.iterations:
            raise UserError(
                f"iterations={config.iterations}, but --resume={config.resume} is already at iteration "
                f"{state['iteration']}: give at least as many"
            )
        if state.get("base_hash", self._base_hash) != self._base_hash:
            raise UserError(
                f"the base policy at {config.policy.pretrained_path} is not the one this run began with: "
                "put that back, or name its place with --policy.pretrained_path=FOLDER"
            )
        try:
            self.algorithm.load_state_dict(state["algorithm"])
            if self.batches is not None:
                self.batches.load_state_dict(state["loader"])
            if self.monitor is not None:
                self.monitor.load_state_dict(state["monitor"])
                if self.monitor.guard is None:  # switched off by the resume: back to what is configured
                    self.algorithm.hold(1.0)
        except UserError:
            raise
        except (KeyError, ValueError, RuntimeError) as error:
            raise UserError(
                f"--resume: the training state in {checkpoint} does not fit the configuration ({error}): "
                "resume without changing options that shape the algorithm"
            ) from error
        self.iteration, self.env_steps = state["iteration"], state["env_steps"]
        self.seconds, self._records_size = state["seconds"], state["metrics_bytes"]
        config.wandb.run_id = config.wandb.run_id or state.get("wandb_run_id")

    def _log_training(self, metrics: dict[str, Any], seconds: float, steps: int) -> None:
        if self.runner:
            self._status = (
                f"success {metrics['success']:.2f} {self.monitor.status(metrics)} "
                f"return {metrics['return']:.2f} "
                f"KL {metrics['kl_to_base']:.2g} clip {metrics.get('clip_fraction', 0.0):.2f} "
                f"{steps / seconds:.0f} steps/s"
            )
        else:
            self._status = f"loss {metrics['loss']:.4f}"
        if self._due(self.config.log_freq) or (self.config.log_freq and "alarm" in metrics):
            values = {"seconds": round(seconds, 3), **metrics}
            self.records.write("train", self.iteration, self.env_steps, values)
