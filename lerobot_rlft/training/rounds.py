"""The chain of stages: each leaves plain files, and what is there is not made again.

In the folder of the run, for every round 001, 002, ...:

    rounds/001/rollouts/     collect: a LeRobotDataset of episodes that the newest policy played
    rounds/001/value/        value: weights and calibration (`critics/return_value.py`)
    rounds/001/advantages/   advantages: a table of frames for each dataset (`datasets/label_table.py`)
    rounds/001/refit/        state of a refit that is not finished
    rounds/001/guided/       refit: the conditioned policy as rlft_guided, its weight still to be chosen
    rounds/001/seconds.json  what each stage took
    checkpoints/000001/      refit: the policy as it is deployed, an ordinary checkpoint

`metrics.jsonl` is that of `records`, its `iteration` a round: train lines with `step` are of the refit, one
without is what the deployed policy of the round shows (`DiversityMonitor.after_round`).

To have a stage made again, delete what it left; to correct labels, change label or weight in the table.
"""

import json
import time

import numpy as np
from lerobot.utils.constants import PRETRAINED_MODEL_DIR
from lerobot.utils.random_utils import set_seed
from tqdm import tqdm

from ..algorithms.refit import STAGES
from ..configs.train import TrainConfig
from ..datasets.recorded import check_alike, check_outcomes
from ..policies.loading import load_policy
from ..utils.files import make_folder, write_text
from ..utils.run_folder import ROUNDS
from ..utils.signals import sigterm_as_interrupt
from .refit import check_form
from .round_evaluator import RoundEvaluator
from .run import Run
from .stages import Stages


class Rounds(Run):
    """Fine-tunes a policy on recorded episodes; every input is checked before anything is written.

    Args:
        config: resolved, or that of the run that is resumed.

    Raises:
        UserError: an input is unusable.
    """

    def __init__(self, config: TrainConfig) -> None:
        super().__init__(config)
        self.algorithm = config.algorithm
        self.base = load_policy(config.policy, config.policy.pretrained_path, trust=config.trust_remote_code)
        self.base.module.requires_grad_(False)
        check_form(self.algorithm, self.base)
        self.stages = Stages(config, self.base, self.records)
        self.collects = config.env is not None if self.algorithm.collect is None else self.algorithm.collect
        datasets = self.stages.datasets(0)
        if datasets:
            check_alike(datasets, config.policy)
        if not self.collects and self.algorithm.stage != "collect":
            check_outcomes(datasets)
        self.evaluator = RoundEvaluator(config, self.stages, self.records) if config.env is not None else None
        if self.evaluator is not None:
            self.runners.append(self.evaluator.tester)

    # The chain

    def _train(self) -> None:
        with sigterm_as_interrupt():
            self._begin()
            self._go_through()

    def _go_through(self) -> None:
        only, rounds = self.algorithm.stage, range(1, self.algorithm.n_rounds + 1)
        for number in rounds:
            if only != "all" and self._finished(number, only):
                if self.evaluator is not None:  # an interrupted evaluation is made up for
                    self.evaluator.evaluate(number)
                continue
            for stage in self._wanted(number, only):
                if self.stages.result(stage, number).is_dir():
                    if only != "all":
                        print(f"round {number}, {stage}: there already, {self.stages.result(stage, number)}")
                    continue
                self._run(stage, number)
            if self.stages.result("refit", number).is_dir():
                if self.evaluator is not None:
                    self.evaluator.evaluate(number)
                else:
                    print(f"Checkpoint: {self.stages.result('refit', number) / PRETRAINED_MODEL_DIR}")
            if only != "all":
                return
        if only != "all":
            print(
                f"all {self.algorithm.n_rounds} rounds are finished: raise --algorithm.n_rounds, or delete "
                f"what stage={only} left ({self.stages.result(only, number)}) to have it made again"
            )

    def _finished(self, number: int, only: str) -> bool:
        """Whether a round has its policy and what the stage `only` leaves, if it is one of its stages."""
        stages = {"refit", only} & set(self._wanted(number, "all"))
        return all(self.stages.result(stage, number).is_dir() for stage in stages)

    def _wanted(self, number: int, only: str) -> list[str]:
        if only != "all":
            return [only]
        exclusions = {"collect"} if not self.collects else set()
        if not self.algorithm.needs_value:
            exclusions.add("value")
        return [stage for stage in STAGES if stage not in exclusions]

    def _run(self, stage: str, number: int) -> None:
        seed = np.random.SeedSequence((self.config.seed, number, STAGES.index(stage)))
        set_seed(int(seed.generate_state(1)[0]))
        start = time.perf_counter()
        tqdm.write(f"round {number} of {self.algorithm.n_rounds}, {stage}")
        self.stages.run(stage, number)
        file = self.stages.folder(number) / "seconds.json"
        seconds = json.loads(file.read_text()) if file.is_file() else {}
        write_text(file, json.dumps(seconds | {stage: round(time.perf_counter() - start, 1)}) + "\n")

    def _begin(self) -> None:
        self.records.forget(lambda line: False)  # only what is no whole line
        self.begin_folder(self.records.size, exist_ok=True)
        make_folder(self.config.output_dir / ROUNDS)
        self.stages.settle()
        if self.evaluator is not None:
            self.stages.atlas = self.stages.atlas or self.evaluator.begin()

    def kept(self) -> str:
        return "stopped, finished stages are kept"

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
