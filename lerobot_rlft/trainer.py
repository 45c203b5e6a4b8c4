"""The loop: collect, update, evaluate, save."""

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from accelerate import Accelerator
from lerobot.common.wandb_utils import WandBLogger
from lerobot.envs import EnvConfig, make_env, make_env_pre_post_processors
from lerobot.utils.constants import PRETRAINED_MODEL_DIR
from lerobot.utils.random_utils import set_seed
from tqdm import tqdm

from . import algorithms  # noqa: F401  registers the algorithms
from .algorithms.bc import BC, BCConfig
from .algorithms.dppo import DPPO, DPPOConfig
from .checkpoint import last_checkpoint, load_state, save_checkpoint, write_config
from .config import CONFIG_NAME, TrainConfig
from .data import make_loader
from .errors import UserError
from .evaluation import Evaluation, evaluate, film
from .pictures import draw_learning_curve, draw_trajectories
from .policies.base import DenoisingPolicy
from .policies.loading import load_pretrained, make_fresh
from .rollout import EpisodeRunner, Episodes

METRICS = "metrics.jsonl"
SUMMARY = "summary.json"
POSITION_DIMS = (-2, -1)  # of observation.state, drawn in pictures: the agent's position in the planar tasks


class Interrupted(Exception):
    """The user asked to stop and the run is saved."""


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
        self.accelerator = Accelerator(cpu=config.policy.device == "cpu")
        self.iteration, self.env_steps, self.seconds = 0, 0, 0.0
        set_seed(config.seed)
        checkpoint = last_checkpoint(config.resume) if config.resume else None
        self.loader = self._make_loader()
        self.policy = self._make_policy(checkpoint)
        self.runner = (
            self._make_runner(config.rollout.n_envs) if config.algorithm.consumes == "rollouts" else None
        )
        self.algorithm = self._make_algorithm()
        self.tester = None
        if config.env is not None:
            self.tester = self._make_runner(min(config.eval.batch_size, config.eval.n_episodes))
        if checkpoint is not None:
            self._load(checkpoint)

    # The loop

    def train(self) -> None:
        """Run all iterations, then evaluate the checkpoint as it lies on disk and write the summary.

        Raises:
            Interrupted: after Ctrl-C, once the run is saved.
        """
        self._begin_run()
        config = self.config
        bar = tqdm(
            total=config.iterations, initial=self.iteration, unit="it", desc=config.job_name, smoothing=0.1
        )
        with bar, self._stop_on_signal() as stopped:
            if self.iteration == 0 and config.algorithm.consumes == "rollouts":
                self._evaluate_base()
            while self.iteration < config.iterations:
                start = time.perf_counter()
                self._show(bar, "collecting")
                data, metrics = self._collect()
                self._show(bar, "updating")
                metrics |= self.algorithm.update(data)
                self.iteration += 1
                self.seconds += time.perf_counter() - start
                self._log_training(metrics, time.perf_counter() - start)
                bar.set_postfix_str(self._status, refresh=False)
                bar.update()
                last = self.iteration == config.iterations
                if self.tester and not last and config.eval_freq and self.iteration % config.eval_freq == 0:
                    self._evaluate("deployed", config.eval.n_episodes_during)
                if last or stopped or (config.save_freq and self.iteration % config.save_freq == 0):
                    self._save()
                if stopped and not last:
                    raise Interrupted
        self._finish()

    def _show(self, bar: tqdm, phase: str) -> None:
        if self.runner is not None:  # a gradient step is too short to have phases
            bar.set_postfix_str(f"{self._status} {phase}".strip())

    def dry_run(self) -> None:
        """One tiny iteration on everything that was built, and the sizes a user wants to know before a long run."""
        config, policy = self.config, self.policy
        module = policy.module
        trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
        frozen = sum(p.numel() for p in module.parameters()) - trained
        print(f"policy      {config.policy.type}: {trained:,} trainable and {frozen:,} frozen parameters")
        print(f"chain       {policy.kernel.num_steps} denoising steps ({type(policy.kernel).__name__}), chunks of "
              f"{policy.horizon} actions, {policy.n_action_steps} executed")  # fmt: skip
        if self.runner is not None:
            data, _ = self._collect()
            decision = sum(v[:1].numel() * v.element_size() for v in data.obs.values()) + sum(
                v[:1].numel() * v.element_size() for v in (data.chain.x, data.chain.log_prob)
            )
            most = -(-self.runner.max_steps // policy.n_action_steps) * config.rollout.n_episodes
            steps = config.rollout.n_episodes * self.runner.max_steps
            print(f"iteration   {config.rollout.n_episodes} episodes in {config.rollout.n_envs} environments, at most "
                  f"{steps:,} env steps and {most:,} decisions")  # fmt: skip
            print(f"memory      {decision:,} bytes for a stored decision, at most {most * decision / 2**20:.1f} MiB an "
                  f"iteration; {12 * trained / 2**20:.1f} MiB for gradients and Adam")  # fmt: skip
        else:
            data, _ = self._collect()
            print(f"dataset     {len(self.loader.dataset):,} frames, {len(self.loader.starts):,} windows")
        metrics = self.algorithm.update(data)
        print("update      " + ", ".join(f"{k} {v:.4g}" for k, v in metrics.items()))
        print(f"would write {config.output_dir}/: {METRICS}, {SUMMARY}, {CONFIG_NAME}, checkpoints/ every "
              f"{config.save_freq} of {config.iterations} iterations, pictures, videos; dry run, nothing was written")  # fmt: skip

    def _collect(self) -> tuple[Any, dict[str, float]]:
        if self.runner is None:
            return next(self.loader), {}
        rollout = self.config.rollout
        seeds = np.random.SeedSequence([self.config.seed, self.iteration]).generate_state(rollout.n_episodes)
        data = self.runner.collect(
            rollout.n_episodes,
            seeds,
            self.config.algorithm.min_sampling_std,
            self.config.algorithm.min_log_prob_std,
        )
        self.env_steps += data.env_steps
        outcome = Evaluation.of(data.episodes, num_modes=None)
        return data, {
            "success": outcome.success,
            "return": outcome.total_reward,
            "max_reward": outcome.max_reward,
        }

    # Evaluation

    def _evaluate_base(self) -> None:
        """Before the first iteration: the base as deployed, and as it explores."""
        config = self.config
        self._evaluate("deployed", config.eval.n_episodes)
        self._evaluate("exploratory", config.eval.n_episodes_during, config.algorithm.min_sampling_std)
        self._film(self.policy, "base")

    def _evaluate(self, sampler: str, n_episodes: int, sampling_floor: float | None = None) -> Episodes:
        with self.algorithm.deployed_weights():
            result, episodes = evaluate(self.tester, n_episodes, self.config.eval.seed, sampling_floor)
        self._record({"kind": "eval", "sampler": sampler, **result.to_dict()})
        who = "base" if self.iteration == 0 else f"iteration {self.iteration}"
        tqdm.write(f"{who}, {sampler} sampler: {result.sentence()}")
        return episodes

    def _finish(self) -> None:
        """Evaluate the last checkpoint as a user will load it, and say what became of the policy."""
        config = self.config
        folder = last_checkpoint(config.output_dir) / PRETRAINED_MODEL_DIR
        if self.tester is None:
            print(f"\nCheckpoint: {folder}")
            return
        tuned = self._reloaded(folder)
        tuned_episodes = self._compare(tuned)
        base_line = next((r for r in self._records("eval") if r["iteration"] == 0), None)
        summary = {"policy": str(folder), "env_steps": self.env_steps, "seconds": round(self.seconds, 1)}
        tuned_result = tuned_episodes[0]
        summary["tuned"] = tuned_result.to_dict()
        if base_line is not None:
            summary["base"] = {k: v for k, v in base_line.items() if k in tuned_result.to_dict()}
        _write_json(config.output_dir / SUMMARY, summary)
        self._film(tuned, "tuned")
        self._draw(tuned_episodes)
        print("\n" + conclusion(summary))
        print(f"\nRun it with stock LeRobot:\n  {eval_command(folder, config.env)}")

    def _compare(self, tuned: DenoisingPolicy) -> tuple[Evaluation, Episodes]:
        runner = self._runner_for(tuned, self.tester.env)
        result, episodes = evaluate(runner, self.config.eval.n_episodes, self.config.eval.seed)
        self._record({"kind": "eval", "sampler": "deployed", "reloaded": True, **result.to_dict()})
        return result, episodes

    def _draw(self, tuned: tuple[Evaluation, Episodes]) -> None:
        config, env = self.config, self.tester.env
        panels = [("tuned", tuned[1], tuned[0])]
        if isinstance(self.algorithm, DPPO):
            base_runner = self._runner_for(self.algorithm.base, env)
            base_result, base_episodes = evaluate(base_runner, config.eval.n_episodes, config.eval.seed)
            panels.insert(0, ("base", base_episodes, base_result))
        if tuned[1].states is not None:
            draw_trajectories(config.output_dir / "pictures/trajectories.png", panels, env, POSITION_DIMS)
        records = [r for r in self._records("eval") if r["sampler"] == "deployed"]
        draw_learning_curve(config.output_dir / "pictures/learning_curve.png", records)

    def _film(self, policy: DenoisingPolicy, name: str) -> None:
        config = self.config
        if config.eval.n_videos:
            runner = self._make_runner(config.eval.n_videos, policy)
            film(runner, config.eval.seed, config.output_dir / "videos" / f"{name}.mp4")
            runner.env.close()

    # Building

    def _make_loader(self):  # type: ignore[no-untyped-def]
        config = self.config
        if config.algorithm.consumes != "batch":
            return None
        try:
            return make_loader(
                config.dataset.repo_id,
                config.policy,
                root=config.dataset.root,
                episodes=config.dataset.episodes,
                batch_size=config.algorithm.batch_size,
                seed=config.seed,
                num_workers=config.algorithm.num_workers,
            )
        except (ValueError, FileNotFoundError) as error:
            raise UserError(f"dataset: {error}") from error

    def _make_policy(self, checkpoint: Path | None) -> DenoisingPolicy:
        config = self.config
        eta = config.algorithm.eta if isinstance(config.algorithm, DPPOConfig) else 0.0
        path = checkpoint / PRETRAINED_MODEL_DIR if checkpoint else config.policy.pretrained_path
        if path is None:
            return make_fresh(config.policy, self.loader.dataset.meta, eta)
        return load_pretrained(config.policy, path, eta)

    def _make_algorithm(self) -> BC | DPPO:
        config, backward = self.config.algorithm, self.accelerator.backward
        if isinstance(config, BCConfig):
            preset = self.config.policy
            module = self.policy.module
            optimizer = preset.get_optimizer_preset().build(module.get_optim_params())
            schedule = preset.get_scheduler_preset()
            scheduler = schedule and schedule.build(optimizer, self.config.iterations)
            return BC(config, module, self.policy.preprocessor, optimizer, scheduler, backward)
        base_config = deepcopy(self.config.policy)
        if self.config.resume:  # the policy is the checkpoint's, the base is still the pretrained one
            base = load_pretrained(base_config, self.config.policy.pretrained_path, config.eta)
        else:
            base = deepcopy(self.policy)
        base.module.requires_grad_(False)
        try:
            return DPPO(config, self.policy, base, backward)
        except ValueError as error:
            raise UserError(str(error)) from error

    def _make_runner(self, n_envs: int, policy: DenoisingPolicy | None = None) -> EpisodeRunner:
        envs = make_env(self.config.env, n_envs, self.config.rollout.use_async_envs)
        vector = [env for tasks in envs.values() for env in tasks.values()]
        if len(vector) != 1:
            raise UserError(
                f"env.type={self.config.env.type} has {len(vector)} tasks: choose one with --env.task=..."
            )
        return self._runner_for(policy or self.policy, vector[0])

    def _runner_for(self, policy: DenoisingPolicy, env: gym.vector.VectorEnv) -> EpisodeRunner:
        return EpisodeRunner(env, policy, *make_env_pre_post_processors(self.config.env, self.config.policy))

    def _reloaded(self, folder: Path) -> DenoisingPolicy:
        config = type(self.config.policy).from_pretrained(folder)
        config.device = self.config.policy.device
        return load_pretrained(config, folder, eta=1.0)

    # Keeping

    def _begin_run(self) -> None:
        config = self.config
        config.output_dir.mkdir(parents=True, exist_ok=True)
        write_config(config, config.output_dir / CONFIG_NAME)
        self.wandb = WandBLogger(config) if config.wandb.enable else None

    def _save(self) -> None:
        state = {
            "algorithm": self.algorithm.state_dict(),
            "iteration": self.iteration,
            "env_steps": self.env_steps,
            "seconds": self.seconds,
            "metrics_bytes": self._metrics.stat().st_size,
        }
        if self.loader is not None:
            state["loader"] = self.loader.state_dict()
        with self.algorithm.deployed_weights():
            folder = save_checkpoint(self.config, self.iteration, self.policy.save_pretrained, state)
        if self.wandb:
            self.wandb.log_policy(folder)

    def _load(self, checkpoint: Path) -> None:
        state = load_state(checkpoint)
        self.algorithm.load_state_dict(state["algorithm"])
        if self.loader is not None:
            self.loader.load_state_dict(state["loader"])
        self.iteration, self.env_steps, self.seconds = (
            state["iteration"],
            state["env_steps"],
            state["seconds"],
        )
        if self._metrics.is_file():  # lines written after the checkpoint are about to be written again
            kept = self._metrics.read_bytes()[: state["metrics_bytes"]]
            partial = self._metrics.with_name(f".{METRICS}.partial")
            partial.write_bytes(kept)
            partial.replace(self._metrics)

    @property
    def _metrics(self) -> Path:
        return self.config.output_dir / METRICS

    def _log_training(self, metrics: dict[str, float], seconds: float) -> None:
        if self.runner:
            self._status = (
                f"success {metrics['success']:.2f} return {metrics['return']:.2f} KL {metrics['kl_to_base']:.2g} "
                f"clip {metrics.get('clip_fraction', 0.0):.2f}"
            )
        else:
            self._status = f"loss {metrics['loss']:.4f}"
        every = self.config.log_freq
        if every and self.iteration % every == 0:
            self._record({"kind": "train", "seconds": round(seconds, 3), **metrics})

    def _record(self, values: dict[str, Any]) -> None:
        line = {"kind": values["kind"], "iteration": self.iteration, "env_steps": self.env_steps} | values
        with self._metrics.open("a") as file:
            file.write(json.dumps(line) + "\n")
        if self.wandb:
            mode, sampler = values["kind"], values.get("sampler", "")
            prefix = f"{sampler}_" if sampler else ""
            scalars = {f"{prefix}{k}": v for k, v in line.items() if isinstance(v, (int, float))}
            self.wandb.log_dict(scalars, step=self.iteration, mode=mode)

    def _records(self, kind: str) -> list[dict[str, Any]]:
        lines = map(json.loads, self._metrics.read_text().splitlines())
        return [line for line in lines if line["kind"] == kind]

    _status = ""

    @contextmanager
    def _stop_on_signal(self) -> Iterator[list[int]]:
        """A list that fills on Ctrl-C or SIGTERM; the second Ctrl-C stops at once."""
        received: list[int] = []

        def on_signal(number: int, _frame: Any) -> None:
            received.append(number)
            signal.signal(number, signal.default_int_handler)
            tqdm.write(
                "stopping after this iteration; press Ctrl-C again to stop at once (back to the last checkpoint)"
            )

        old = {s: signal.signal(s, on_signal) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield received
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)


def check_wandb(config: TrainConfig) -> None:
    """Raise a UserError if wandb is to run online and nobody is logged in."""
    if not config.wandb.enable or config.wandb.mode in ("offline", "disabled"):
        return
    import wandb

    if wandb.api.api_key is None:
        raise UserError(
            "wandb.enable=true but nobody is logged in: run `wandb login`, or use --wandb.mode=offline or "
            "--wandb.enable=false"
        )


def eval_command(folder: Path, env: EnvConfig) -> str:
    """The stock command that evaluates a checkpoint."""
    options = "".join(
        f" --env.{name}={getattr(env, name)}"
        for name in ("task", "obs_type", "reward")
        if name in vars(env) and getattr(env, name) != getattr(type(env)(), name)
    )
    return (
        f"lerobot-eval --policy.path={folder} --env.type={env.type}{options} --eval.n_episodes=50 --eval.batch_size=50 "
        "--eval.use_async_envs=false"
    )


def conclusion(summary: dict[str, Any]) -> str:
    """What became of the policy, in plain words."""
    tuned, base = summary["tuned"], summary.get("base")
    low, high = tuned["success_ci"]
    after = f"{100 * tuned['success']:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
    if base is None:
        text = f"Success of the checkpoint on disk: {after} of {tuned['n_episodes']} episodes."
        if "modes" in tuned:
            text += (
                f" It uses {tuned['modes']} of {tuned['num_modes']} modes (entropy {tuned['entropy']:.3f})."
            )
        return text
    low, high = base["success_ci"]
    before = f"{100 * base['success']:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
    verb = "rose" if tuned["success"] > base["success"] else "did not rise"
    text = (
        f"Success {verb}: {before} before, {after} after {summary['env_steps']:,} environment steps "
        f"({tuned['n_episodes']} episodes each, 95 % intervals, same seeds)."
    )
    if "modes" in tuned:
        text += (
            f"\nOf the {base['modes']} ways to succeed that the base knew, the tuned policy uses {tuned['modes']} "
            f"(mode entropy {base['entropy']:.3f} before, {tuned['entropy']:.3f} after; 1 is uniform over "
            f"{tuned['num_modes']})."
        )
        if tuned["modes"] < base["modes"]:
            text += " RL paid for success with ways of solving the task."
    else:
        text += f"\nMean max reward: {base['max_reward']:.3f} before, {tuned['max_reward']:.3f} after."
    return text


def _write_json(path: Path, value: dict[str, Any]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(value, indent=2) + "\n")
    partial.replace(path)
