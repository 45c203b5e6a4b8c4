"""The chain of stages: each leaves plain files, and what is there is not made again.

In the folder of the run, for every round 001, 002, ...:

    rounds/001/rollouts/     collect: a LeRobotDataset of episodes that the newest policy played
    rounds/001/value/        value: weights and calibration (`recap/value.py`)
    rounds/001/advantages/   advantages: a table of frames for each dataset (`recap/sidecar.py`)
    rounds/001/refit/        state of a refit that is not finished
    rounds/001/guided/       refit: the conditioned policy as rlft_guided, its weight still to be chosen
    rounds/001/seconds.json  what each stage took
    checkpoints/000001/      refit: the policy as it is deployed, an ordinary checkpoint

`metrics.jsonl` is that of `trainer`, its `iteration` a round: train lines with `step` are of the refit, one
without is what the deployed policy of the round shows (`DiversityMonitor.after_round`).

To have a stage made again, delete what it left; to correct labels, change label or weight in the table.
"""

import json
import signal
import time

import numpy as np
from lerobot.utils.constants import PRETRAINED_MODEL_DIR
from lerobot.utils.random_utils import set_seed
from tqdm import tqdm

from ..algorithms.refit import STAGES
from ..configs.train import TrainConfig
from ..datasets.recorded import check_alike, check_outcomes
from ..metrics.modes import entropy_ratio
from ..policies.loading import load_policy
from ..rollout.environments import make_runner, runner_in
from ..rollout.modes import load_atlas
from ..utils.errors import EnvironmentFailure, UserError, one_line
from ..utils.files import replacing
from ..utils.run_folder import CONFIG_NAME, ROUNDS, SUMMARY
from ..utils.signals import Interrupted
from .checkpoint import remove_partial, write_config
from .evaluator import Outcome
from .monitor import DiversityMonitor
from .records import Records
from .refit import check_form
from .setup import check_wandb
from .stages import Stages


class Rounds:
    """Fine-tunes a policy on recorded episodes; every input is checked before anything is written.

    Args:
        config: resolved, or that of the run that is resumed.

    Raises:
        UserError: an input is unusable.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config, self.algorithm = config, config.algorithm
        check_wandb(config)
        self.records = Records(config)
        self.base = load_policy(config.policy, config.policy.pretrained_path, trust=config.trust_remote_code)
        self.base.module.requires_grad_(False)
        check_form(self.algorithm, self.base)
        self.stages = Stages(config, self.base, self.records)
        self.collects = config.env is not None if self.algorithm.collect is None else self.algorithm.collect
        given = self.stages.datasets(0)
        if given:
            check_alike(given, config.policy)
        if not self.collects and self.algorithm.stage != "collect":
            check_outcomes(given)
        self.tester = self.monitor = None
        if config.env is not None:
            eval_ = config.eval
            n_envs = min(eval_.batch_size, eval_.n_episodes)
            self.tester = make_runner(config.env, self.base, n_envs, config.rollout.use_async_envs)
            self.monitor = DiversityMonitor(config, self.base, self.records)
        self.outcome = Outcome(config, self.tester, self.base, self.monitor, self.records)

    # The chain

    def train(self) -> None:
        """Run the stages that are asked for and not done.

        Raises:
            Interrupted: after Ctrl-C or SIGTERM.
            UserError: an input of a stage is missing or unusable.
            EnvironmentFailure, FloatingPointError: the run cannot go on.
        """
        old = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            self._begin_run()
            self._train()
        except KeyboardInterrupt:
            raise Interrupted(f"stopped, finished stages are kept. {self._way_on()}") from None
        except (EnvironmentFailure, FloatingPointError) as error:
            raise type(error)(f"{error}. {self._way_on()}") from error
        finally:
            signal.signal(signal.SIGTERM, old)
            self.close()

    def _train(self) -> None:
        asked, rounds = self.algorithm.stage, range(1, self.algorithm.n_rounds + 1)
        for number in rounds:
            if asked != "all" and self._finished(number, asked):
                if self.tester is not None:  # an interrupted evaluation is made up for
                    self._evaluate(number)
                continue
            for stage in self._wanted(number, asked):
                if self.stages.result(stage, number).is_dir():
                    if asked != "all":
                        print(f"round {number}, {stage}: there already, {self.stages.result(stage, number)}")
                    continue
                self._run(stage, number)
            if self.stages.result("refit", number).is_dir():
                self._evaluate(number)
            if asked != "all":
                return
        if asked != "all":
            print(
                f"all {self.algorithm.n_rounds} rounds are finished: raise --algorithm.n_rounds, or delete "
                f"what stage={asked} left ({self.stages.result(asked, number)}) to have it made again"
            )

    def _finished(self, number: int, asked: str) -> bool:
        """Whether a round has its policy and what the stage `asked` leaves, if it is one of its stages."""
        needed = {"refit", asked} & set(self._wanted(number, "all"))
        return all(self.stages.result(stage, number).is_dir() for stage in needed)

    def _wanted(self, number: int, asked: str) -> list[str]:
        if asked != "all":
            return [asked]
        skipped = {"collect"} if not self.collects else set()
        if not self.algorithm.needs_value:
            skipped.add("value")
        return [stage for stage in STAGES if stage not in skipped]

    def _run(self, stage: str, number: int) -> None:
        seed = np.random.SeedSequence((self.config.seed, number, STAGES.index(stage)))
        set_seed(int(seed.generate_state(1)[0]))
        start = time.perf_counter()
        tqdm.write(f"round {number} of {self.algorithm.n_rounds}, {stage}")
        self.stages.run(stage, number)
        file = self.stages.folder(number) / "seconds.json"
        seconds = json.loads(file.read_text()) if file.is_file() else {}
        with replacing(file) as partial:
            partial.write_text(json.dumps(seconds | {stage: round(time.perf_counter() - start, 1)}) + "\n")

    # What is shown

    def _begin_run(self) -> None:
        config = self.config
        try:
            (config.output_dir / ROUNDS).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"--output_dir={config.output_dir} cannot be made ({one_line(error)}): choose another"
            ) from error
        remove_partial(config.output_dir)
        self.records.forget(lambda line: False)
        self.records.begin(self.records.size)
        write_config(config, config.output_dir / CONFIG_NAME)
        if self.monitor is None:
            return
        if self._evaluated(0):
            if (self.monitor.folder / "atlas.json").is_file():
                self.monitor.atlas = load_atlas(self.monitor.folder, config.env.type, config.atlas.key)
        else:
            self.outcome.begin_deployed()
        self.stages.atlas = self.stages.atlas or self.monitor.atlas

    def _evaluated(self, number: int) -> bool:
        return any(line["iteration"] == number for line in self.records.read("eval"))

    def _evaluate(self, number: int) -> None:
        """Play the policy of a round as it lies on disk; the last one makes the summary."""
        last = number == self.algorithm.n_rounds
        if self.tester is None:
            print(f"Checkpoint: {self.stages.result('refit', number) / PRETRAINED_MODEL_DIR}")
            return
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
        found = self.monitor.after_round(evaluations, self.stages.newest(number + 1), self.stages.decisions)
        self.records.write("train", number, self.stages.env_steps(number), found)
        self.monitor.draw(number)

    def _seconds(self) -> float:
        files = (self.config.output_dir / ROUNDS).glob("*/seconds.json")
        return sum(sum(json.loads(file.read_text()).values()) for file in files)

    def _add_rounds(self) -> None:
        """Put what each round reached into the summary, beside the base."""
        file, rounds = self.config.output_dir / SUMMARY, []
        evaluations = {line["iteration"]: line for line in self.records.read("eval")}
        base = evaluations[0].get("mode_counts")
        for number, line in sorted(evaluations.items()):
            shown = {key: line[key] for key in ("success", "success_ci", "modes", "entropy") if key in line}
            if base and number:
                try:
                    ratio = entropy_ratio(np.array(line["mode_counts"]), np.array(base))
                    shown |= {"entropy_ratio": ratio.ratio, "entropy_ratio_ci": [ratio.low, ratio.high]}
                except ValueError as error:  # too few successes, or a base with one mode
                    shown["entropy_ratio"] = str(error)
            rounds.append({"round": number, **shown})
        summary = json.loads(file.read_text()) | {"rounds": rounds}
        with replacing(file) as partial:
            partial.write_text(json.dumps(summary, indent=2) + "\n")

    def _way_on(self) -> str:
        return f"Continue with\n  lerobot-rlft-train --resume={self.config.output_dir}"

    def dry_run(self) -> None:
        """Say what there is and what would be made; writes nothing."""
        datasets = self.stages.datasets(0)
        for d in datasets:
            print(
                f"{d.name}: {len(d.success)} episodes, {int((d.success > 0).sum())} of them successes, "
                f"{len(d.index):,} frames"
            )
        for stage in self._wanted(1, self.algorithm.stage):
            print(f"would write {self.stages.result(stage, 1)}")
        print("this was a dry run, nothing was written")
        self.close()

    def close(self) -> None:
        """Close the environments."""
        if self.tester is not None:
            self.tester.env.close()
