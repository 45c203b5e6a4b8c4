"""Results of each round of recorded-episode learning: evaluations, modes kept, and the summary."""

import json

import numpy as np

from ..configs.train import TrainConfig
from ..diversity.atlas import ModeAtlas
from ..metrics.modes import entropy_ratio
from ..rollout.environments import make_runner, runner_in
from ..rollout.modes import load_atlas
from ..utils.files import write_text
from ..utils.run_folder import ROUNDS, SUMMARY
from .evaluator import Outcome
from .monitor import DiversityMonitor
from .records import Records
from .stages import Stages


class RoundEvaluator:
    """Plays the base and the policy of every round; what was played already is not played again."""

    def __init__(self, config: TrainConfig, stages: Stages, records: Records) -> None:
        self.config, self.stages, self.records = config, stages, records
        n_envs = min(config.eval.batch_size, config.eval.n_episodes)
        self.tester = make_runner(config.env, stages.base, n_envs, config.rollout.use_async_envs)
        self.monitor = DiversityMonitor(config, stages.base, records)
        self.outcome = Outcome(config, self.tester, stages.base, self.monitor, records)

    def begin(self) -> ModeAtlas | None:
        """Play the base, unless a resumed run has; returns the atlas that names modes."""
        if not self._evaluated(0):
            self.outcome.begin_deployed()
        elif (self.monitor.folder / "atlas.json").is_file():
            self.monitor.atlas = load_atlas(self.monitor.folder, self.config.env.type, self.config.atlas.key)
        return self.monitor.atlas

    def _evaluated(self, number: int) -> bool:
        return any(line["iteration"] == number for line in self.records.read("eval"))

    def evaluate(self, number: int) -> None:
        """Play the policy of a round as it lies on disk; the last one makes the summary."""
        last = number == self.config.algorithm.n_rounds
        if not last and not self._evaluated(number):
            self.outcome.tester = runner_in(self.tester.env, self.config.env, self.stages.newest(number + 1))
            self.outcome.during(number, self.stages.env_steps(number))
        if last and not (self._evaluated(number) and (self.config.output_dir / SUMMARY).is_file()):
            self.records.forget(lambda line: line["kind"] == "eval" and line["iteration"] == number)
            self.outcome.tester = self.tester
            self.outcome.finish(number, self.stages.env_steps(number), self._seconds())
            self._add_rounds()
        if not any(line["iteration"] == number and "step" not in line for line in self.records.read("train")):
            self._watch(number)

    def _watch(self, number: int) -> None:
        """Say and write down what a round did to modes, beside the base."""
        lines = {line["iteration"]: line for line in self.records.read("eval")}
        evaluations = [lines[i] for i in range(number + 1)]
        metrics = self.monitor.after_round(evaluations, self.stages.newest(number + 1), self.stages.decisions)
        self.records.write("train", number, self.stages.env_steps(number), metrics)
        self.monitor.draw(number)

    def _seconds(self) -> float:
        files = (self.config.output_dir / ROUNDS).glob("*/seconds.json")
        return sum(sum(json.loads(file.read_text()).values()) for file in files)

    def _add_rounds(self) -> None:
        """Put what each round reached into the summary, beside the base."""
        file, rounds = self.config.output_dir / SUMMARY, []
        evaluations = {line["iteration"]: line for line in self.records.read("eval")}
        summary = json.loads(file.read_text())
        evaluations[0] |= summary["base"]  # as it was played for the report
        base = evaluations[0].get("mode_counts")
        for number, line in sorted(evaluations.items()):
            entry = {key: line[key] for key in ("success", "success_ci", "modes", "entropy") if key in line}
            if base and number:
                try:
                    ratio = entropy_ratio(np.array(line["mode_counts"]), np.array(base))
                    entry |= {"entropy_ratio": ratio.ratio, "entropy_ratio_ci": [ratio.low, ratio.high]}
                except ValueError as error:  # too few successes, or a base with one mode
                    entry["entropy_ratio"] = str(error)
            rounds.append({"round": number, **entry})
        summary["rounds"] = rounds
        write_text(file, json.dumps(summary, indent=2) + "\n")
