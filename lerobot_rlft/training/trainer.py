"""The loop of a run that learns iteration by iteration: collect, update, watch, evaluate, save."""

import time
from typing import Any

import torch

from .. import algorithms  # noqa: F401  registers the algorithms
from ..configs.train import TrainConfig
from ..hub.push import push_finished
from ..rollout.environments import make_runner
from ..utils.errors import UserError
from ..utils.signals import Interrupted, stop_on_signal
from .checkpoint import last_checkpoint, way_on
from .collector import Collector
from .console import Progress
from .dry_run import DRY_RUN_ENVS, dry_run
from .evaluator import Outcome
from .monitor import DiversityMonitor
from .rollback import Rollback
from .run import Run
from .setup import fingerprint, make_accelerator, make_algorithm, make_base, make_batches, make_policy
from .training_state import load_training, save_training


class Trainer(Run):
    """Fine-tunes one policy with an algorithm that consumes rollouts or batches; see `Run`."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__(config)
        self.accelerator = make_accelerator(config)
        self.iteration, self.seconds, self.log_bytes = 0, 0.0, 0
        # TF32 would make sampling and re-evaluation differ by more than the ratio check allows.
        torch.backends.cudnn.allow_tf32 = False
        checkpoint = last_checkpoint(config.resume) if config.resume else None
        self.batches = make_batches(config)
        self.policy = make_policy(config, checkpoint, self.batches)
        self.runner = self.base = self.monitor = None
        if config.algorithm.consumes == "rollouts":
            self.runner = self._open(config.rollout.n_envs)
            self.base = make_base(config, self.policy)
        count = min(config.eval.batch_size, config.eval.n_episodes)
        self.tester = self._open(count) if config.env is not None else None
        self.algorithm = make_algorithm(config, self.policy, self.base, self.accelerator.backward)
        if self.base is not None:
            self.monitor = DiversityMonitor(config, self.base, self.records, self.algorithm)
        self.collector = Collector(config, self.algorithm, self.runner, self.batches)
        self.outcome = Outcome(config, self.tester, self.base, self.monitor, self.records)
        self.rollback = Rollback(config, self.policy, self.algorithm)
        self.base_hash = fingerprint(self.base) if self.base is not None else ""
        if checkpoint is not None:
            load_training(self, checkpoint)

    def _open(self, n_envs: int) -> Any:
        n_envs = DRY_RUN_ENVS if self.config.dry_run else n_envs
        runner = make_runner(self.config.env, self.policy, n_envs, self.config.rollout.use_async_envs)
        self.runners.append(runner)
        return runner

    def _train(self) -> None:
        config = self.config
        self.begin_folder(self.log_bytes, exist_ok=config.resume is not None)
        self.bar = Progress(config, self.iteration)
        with self.bar, stop_on_signal() as signals:
            if config.resume is None and self.runner is not None:
                self._begin()
            while self.iteration < config.iterations:
                self._iterate()
                last = self.iteration == config.iterations
                # Guard and rollback choose among evaluated checkpoints: the last is one, too.
                selects = config.guard.enable or bool(self.rollback.best)
                evaluate = self.tester and (selects if last else self._due(config.eval_freq))
                must_save = self._evaluate() if evaluate else False
                if last or signals or must_save or self._due(config.save_freq):
                    save_training(self)
                if signals:
                    raise Interrupted
        self.phase = "final evaluation"
        self.outcome.finish(self.iteration, self.env_steps, self.seconds)
        if config.push_to_hub:
            self.phase = "push"
            push_finished(config)

    def _begin(self) -> None:
        """Evaluate the base, and let it play the episodes that the algorithm holds on to."""
        self.phase = "evaluation of the base"
        self.bar.show("evaluating the base")
        base_result = self.outcome.begin(self.policy, self.algorithm.explore)
        if self.algorithm.needs_reference:
            self.phase = "reference episodes of the base"
            self.bar.show("playing reference episodes")
            data = self.collector.reference()
            self.bar.show("learning from reference episodes")
            num_modes = self.monitor.begin_reference(self.runner.env, data, self.policy.deployed_odds())
            try:
                self.algorithm.begin(data, num_modes)
            except ValueError as error:
                raise UserError(str(error)) from error
        if self.rollback.enabled:
            self.rollback.begin(base_result)
            save_training(self)

    def _evaluate(self) -> bool:
        """Evaluate the policy as deployed; returns whether a checkpoint of it is wanted."""
        self.bar.show("evaluating")
        with self.algorithm.deployed_weights():
            result = self.outcome.during(self.iteration, self.env_steps)
        return self.rollback.watch(self.iteration, result) or self.config.guard.enable

    def _iterate(self) -> None:
        self.phase = f"iteration {self.iteration + 1}"
        start, steps_before = time.perf_counter(), self.env_steps
        self.bar.show("collecting")
        data, metrics = self.collector.collect(self.iteration)
        if self.monitor is not None:
            self.monitor.name(self.runner.env, data)
        self.bar.show("updating")
        metrics |= self.algorithm.update(data)
        self.iteration += 1
        if self.monitor is not None:
            metrics |= self.monitor.iteration(self.iteration, self.runner.env, data, self.policy)
            if self.monitor.probes(self.iteration):
                self.bar.show("probing")
                metrics |= self.monitor.compare(self.iteration, data, self.policy)
            self.algorithm.hold(self.monitor.strength)
        seconds = time.perf_counter() - start
        self.seconds += seconds
        self._log(metrics, seconds, self.env_steps - steps_before)
        self.bar.advance()

    @property
    def env_steps(self) -> int:
        return self.collector.env_steps

    def _due(self, every: int) -> bool:
        return every > 0 and self.iteration % every == 0

    def _log(self, metrics: dict[str, Any], seconds: float, steps: int) -> None:
        modes = self.monitor.status(metrics) if self.monitor else ""
        rate = steps / seconds if self.runner else None
        self.bar.summarize(metrics, self.algorithm.progress(metrics), modes, rate)
        if self._due(self.config.log_freq) or (self.config.log_freq and "alarm" in metrics):
            values = {"seconds": round(seconds, 3), **metrics}
            self.records.write("train", self.iteration, self.env_steps, values)

    def kept(self) -> str:
        return f"stopped after iteration {self.iteration}"

    def way_on(self) -> str:
        return way_on(self.config.output_dir, self.resume_command)

    def dry_run(self) -> None:
        dry_run(self)
