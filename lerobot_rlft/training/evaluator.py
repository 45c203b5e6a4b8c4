"""Evaluations, pictures and videos of a run's base and its tuned policy, and the summary."""

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
from lerobot.utils.constants import PRETRAINED_MODEL_DIR
from torch import Tensor
from tqdm import tqdm

from ..chains.chain import Chain
from ..configs.packages import stock_flags
from ..configs.pretrained import load_policy_config, needs_plugin
from ..configs.train import TrainConfig
from ..diversity.guard import retained
from ..envs.options import eval_command
from ..metrics.modes import entropy_ratio
from ..plots.run import draw_learning_curve, draw_trajectories, is_planar
from ..policies.base import DenoisingPolicy
from ..policies.loading import load_policy
from ..rollout.environments import make_runner, runner_in
from ..rollout.episodes import Episodes
from ..rollout.evaluation import Evaluation, play, play_chunks, summarise
from ..rollout.film import film
from ..rollout.runner import EpisodeRunner
from ..utils.files import write_text
from ..utils.run_folder import SUMMARY
from .checkpoint import last_checkpoint
from .console import conclusion
from .monitor import DiversityMonitor
from .records import Records
from .selection import Point, best, draw_front, front, link_best, points

# From the seeds of the report to those of evaluations in between, which choose what is exported: the highest
# of many readings owes something to luck, and the report is not to repeat it.
DURING = 500_000


def warn_of_reward(reward: str, episodes: Episodes) -> None:
    """Say so where the base's failures earn more than its successes: RL would learn to fail."""
    success = episodes.success
    if reward != "env" or success.all() or not success.any():
        return
    of_success, of_failure = episodes.total_reward[success].mean(), episodes.total_reward[~success].mean()
    if of_failure > of_success:
        tqdm.write(
            f"warning: failures of the base earn more than its successes ({of_failure:.3g} and "
            f"{of_success:.3g} a mean episode), and more reward is what is learned: give "
            "--rollout.reward=success, or =best where the reward is a level"
        )


class Outcome:
    """Evaluates one run.

    Args:
        config: of the run.
        tester: the trained policy in the environments of evaluations; None for a run without environment.
        base: the frozen pretrained policy; None for a run that starts from scratch.
        monitor: of a run with a base.
        records: where results go.
    """

    def __init__(
        self,
        config: TrainConfig,
        tester: EpisodeRunner | None,
        base: DenoisingPolicy | None,
        monitor: DiversityMonitor | None,
        records: Records,
    ) -> None:
        self.config, self.tester, self.base = config, tester, base
        self.monitor, self.records = monitor, records
        self._base_outcome: tuple[Evaluation, Episodes] | None = None
        self._no_videos = False

    def begin(self, policy: DenoisingPolicy, explore: Callable[[Tensor], Chain]) -> Evaluation:
        """Before the first iteration: the base as deployed, which is returned, and as it explores."""
        base_result = self.begin_deployed()
        eval_ = self.config.eval
        episodes = play_chunks(
            self.tester, lambda condition: explore(condition).x[:, 0], eval_.n_episodes_during, eval_.seed
        )
        result, _ = self._report("base, exploratory sampler", "exploratory", 0, 0, episodes)
        self.monitor.track(result)
        warn_of_reward(self.config.rollout.reward, episodes)
        self._film(policy, "base")
        return base_result

    def begin_deployed(self) -> Evaluation:
        """The base as deployed."""
        episodes = play(self.tester, self.config.eval.n_episodes, self.config.eval.seed)
        self.monitor.begin(self.tester.env, episodes)
        self._base_outcome = self._report("base, deployed sampler", "deployed", 0, 0, episodes)
        return self._base_outcome[0]

    def during(self, iteration: int, env_steps: int) -> Evaluation:
        """Evaluate the trained policy as deployed, between iterations, on seeds that no report uses."""
        eval_ = self.config.eval
        episodes = play(self.tester, eval_.n_episodes_during, eval_.seed + DURING)
        who = f"iteration {iteration}, deployed sampler"
        result, _ = self._report(who, "deployed", iteration, env_steps, episodes)
        if self.monitor is not None:
            self.monitor.draw(iteration)
        return result

    def finish(self, iteration: int, env_steps: int, seconds: float) -> None:
        """Evaluate the last checkpoint as a user will load it, and say what became of the policy."""
        config = self.config
        checkpoint = last_checkpoint(config.output_dir)
        point = self._choose() if config.guard.enable else None
        if point is not None:
            iteration, checkpoint = point.iteration, link_best(point)
        folder = checkpoint / PRETRAINED_MODEL_DIR
        if self.tester is None:
            print(f"\nCheckpoint: {folder}")
            return
        tuned = load_policy(load_policy_config(str(folder), [f"--device={config.policy.device}"]), folder)
        result, episodes = self._compare(tuned)
        # A resumed run plays the base anew: the options of the report may be others than when it began.
        before = self._base_outcome or (self._compare(self.base) if self.base is not None else None)
        self.records.write(
            "eval", iteration, env_steps, {"sampler": "deployed", "reloaded": True, **result.to_dict()}
        )
        summary: dict[str, Any] = {
            "policy": str(folder),
            "env_steps": env_steps,
            "seconds": round(seconds, 1),
            "seed": config.eval.seed,
        }
        summary["tuned"] = result.to_dict()
        if before is not None:
            summary["base"] = before[0].to_dict()
        if point is not None and "base" in summary:
            summary["guard"] = self._verdict(point, summary)
        write_text(config.output_dir / SUMMARY, json.dumps(summary, indent=2) + "\n")
        panels = [("tuned", episodes, result)]
        gained = None
        if before is not None:
            panels.insert(0, ("base", before[1], before[0]))
            gained = int((episodes.success & ~before[1].success).sum())
        self._draw(iteration, panels)
        print("\n" + conclusion(summary | {"gained": gained}))
        print(f"\nPictures: {config.output_dir / 'pictures'}")
        ours = " (this plugin installed)" if needs_plugin(tuned.module.config.type) else ""
        command = eval_command(folder, config.env, stock_flags(config.packages))
        print(f"\nRun it with stock LeRobot{ours}:\n  {command}")
        self._film(tuned, "tuned")

    def _choose(self) -> Point | None:
        """The checkpoint to export: the most successful one that respects the floor, else the most diverse.

        Draws the front. None where the evaluation of the base shows no modes to compare with.
        """
        guard, run_dir = self.config.guard, self.config.output_dir
        candidates = points(self.records.read("eval"), guard.metric, run_dir)
        if not candidates:
            tqdm.write(
                "warning: guard: the base's successes in its evaluation show fewer than two modes, so that "
                "checkpoints cannot be compared; exported is the last one. Raise --eval.n_episodes"
            )
            return None
        point = best(candidates, guard.floor)
        if point is None:
            point = max(candidates, key=lambda p: (p.ratio, p.success))
            tqdm.write(
                f"guard: no checkpoint keeps {guard.floor} of the base's {guard.metric.replace('_', ' ')}, "
                f"exported is the most diverse ({point.ratio:.2f}). Raise --rollout.n_episodes, lower "
                "--algorithm.actor_lr, or accept a lower --guard.floor"
            )
        draw_front(run_dir / "pictures" / "front.png", candidates, guard.floor, guard.metric, point)
        self.records.picture("front", run_dir / "pictures" / "front.png", point.iteration)
        return point

    def _verdict(self, point: Point, summary: dict[str, Any]) -> dict[str, Any]:
        """The guard's verdict, measured on the exported checkpoint."""
        guard = self.config.guard
        counts = [np.array(summary[side]["mode_counts"]) for side in ("tuned", "base")]
        out = {"metric": guard.metric, "floor": guard.floor, "iteration": point.iteration}
        out["ratio"] = retained(guard.metric, *counts)
        if guard.metric == "entropy":
            with suppress(ValueError):  # too few successes for an interval
                ratio = entropy_ratio(*counts)
                out["ratio"], out["ratio_ci"] = ratio.ratio, [ratio.low, ratio.high]
        candidates = points(self.records.read("eval"), guard.metric, self.config.output_dir)
        out["front"] = [
            {"iteration": p.iteration, "success": p.success, "ratio": p.ratio} for p in front(candidates)
        ]
        return out

    def _report(
        self, who: str, sampler: str, iteration: int, env_steps: int, episodes: Episodes
    ) -> tuple[Evaluation, Episodes]:
        """Name modes, summarise and write down."""
        result, episodes = self._summary(episodes)
        self.records.write("eval", iteration, env_steps, {"sampler": sampler, **result.to_dict()})
        tqdm.write(f"{who}: {result.sentence()}")
        return result, episodes

    def _summary(self, episodes: Episodes) -> tuple[Evaluation, Episodes]:
        return summarise(self.tester.env, episodes, self.monitor.atlas if self.monitor is not None else None)

    def _compare(self, policy: DenoisingPolicy) -> tuple[Evaluation, Episodes]:
        """The first and the last evaluation: same episodes for every policy."""
        runner = runner_in(self.tester.env, self.config.env, policy)
        return self._summary(play(runner, self.config.eval.n_episodes, self.config.eval.seed))

    def _draw(self, iteration: int, panels: list[tuple[str, Episodes, Evaluation]]) -> None:
        pictures, env = self.config.output_dir / "pictures", self.tester.env
        if is_planar(panels[0][1], env):
            draw_trajectories(pictures / "trajectories.png", panels, env)
        records = [line for line in self.records.read("eval") if line["sampler"] == "deployed"]
        draw_learning_curve(pictures / "learning_curve.png", records)
        if self.monitor is not None:
            self.monitor.draw(iteration)

    def _film(self, policy: DenoisingPolicy, name: str) -> None:
        """Videos are extras: an environment that cannot be rendered costs them, not the run."""
        config = self.config
        if not config.eval.n_videos or self._no_videos:
            return
        try:
            runner = make_runner(config.env, policy, config.eval.n_videos, config.rollout.use_async_envs)
            try:
                film(runner, config.eval.seed, config.output_dir / "videos" / f"{name}.mp4")
            finally:
                runner.close()
        except Exception as error:
            self._no_videos = True
            tqdm.write(
                f"warning: no videos, the environment could not be filmed ({type(error).__name__}: {error}): "
                "fix its render, or ask for none with --eval.n_videos=0"
            )
