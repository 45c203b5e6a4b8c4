"""The chain of stages: each leaves plain files, and what is there is not made again.

In the folder of the run, for every round 001, 002, ...:

    rounds/001/rollouts/     collect: a LeRobotDataset of episodes that the newest policy played
    rounds/001/value/        value: weights and calibration (`recap/value.py`)
    rounds/001/advantages/   advantages: a table of frames for each dataset (`recap/sidecar.py`)
    rounds/001/refit/        state of a refit that is not finished
    rounds/001/guided/       refit: the conditioned policy as rlft_guided, its weight still to be chosen
    rounds/001/seconds.json  what each stage took
    checkpoints/000001/      refit: the policy as it is deployed, an ordinary checkpoint

To have a stage made again, delete what it left; to correct labels, change label or weight in the table.
"""

import json
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from httpx import HTTPError
from lerobot.common.train_utils import get_step_checkpoint_dir
from lerobot.datasets import LeRobotDatasetMetadata
from lerobot.utils.constants import PRETRAINED_MODEL_DIR
from lerobot.utils.random_utils import set_seed
from tqdm import tqdm

from ..algorithms.refit import STAGES, EpisodeData, Scores
from ..build import check_wandb, load_policy, make_runner, runner_in
from ..checkpoint import remove_partial, save_checkpoint, write_config
from ..conditioning import NEGATIVE, POSITIVE, UNKNOWN
from ..config import CONFIG_NAME, ROUNDS, TrainConfig, load_policy_config
from ..diversity.atlas import ModeAtlas
from ..diversity.metrics import entropy_ratio
from ..errors import EnvironmentFailure, UserError, one_line
from ..files import replacing
from ..monitor import DiversityMonitor, load_atlas
from ..outcome import Outcome
from ..policies.base import DenoisingPolicy
from ..records import Records
from ..report import SUMMARY
from ..rollout_dataset import write_rollouts
from ..trainer import Interrupted
from .labels import advantages, returns, scaled_rewards, step_rewards
from .mixing import make_mixed
from .recorded import Recorded, check_alike, check_outcomes, data_name, name_attempts, read_recorded
from .refit import Refit, make_embedding
from .sidecar import read_sidecar, write_sidecar
from .value import Value, fit_value, load_value, predict_all, save_value

DEMONSTRATIONS = "demonstrations"


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
        self.base = load_policy(config.policy, config.policy.pretrained_path)
        make_embedding(self.algorithm, self.base)  # refuses what does not fit
        self.base = load_policy(config.policy, config.policy.pretrained_path)
        self.collects = config.env is not None if self.algorithm.collect is None else self.algorithm.collect
        self.tester = self.collector = self.monitor = None
        self.atlas: ModeAtlas | None = config.atlas.path and ModeAtlas.load(config.atlas.path)
        given = self._datasets(0)
        if given:
            check_alike(given, config.policy)
        if not self.collects and self.algorithm.stage != "collect":
            check_outcomes(given, lambda text: None)
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
            if self.result("refit", number).is_dir() and asked != "all":
                continue
            for stage in self._wanted(number, asked):
                if self.result(stage, number).is_dir():
                    if asked != "all":
                        print(f"round {number}, {stage}: there already, {self.result(stage, number)}")
                    continue
                self._run(stage, number)
            if self.result("refit", number).is_dir():
                self._evaluate(number)
            if asked != "all":
                return
        if asked != "all":
            print(f"all {self.algorithm.n_rounds} rounds are finished: raise --algorithm.n_rounds")

    def _wanted(self, number: int, asked: str) -> list[str]:
        if asked != "all":
            return [asked]
        skipped = {"collect"} if not self.collects else set()
        if not self.algorithm.needs_value:
            skipped.add("value")
        return [stage for stage in STAGES if stage not in skipped]

    def _run(self, stage: str, number: int) -> None:
        set_seed(
            int(np.random.SeedSequence((self.config.seed, number, STAGES.index(stage))).generate_state(1)[0])
        )
        start, folder = time.perf_counter(), self.folder(number)
        folder.mkdir(parents=True, exist_ok=True)
        stages: dict[str, Callable[[int], None]] = {
            "collect": self._collect,
            "value": self._fit_value,
            "advantages": self._label,
            "refit": self._refit,
        }
        tqdm.write(f"round {number} of {self.algorithm.n_rounds}, {stage}")
        stages[stage](number)
        file = folder / "seconds.json"
        seconds = json.loads(file.read_text()) if file.is_file() else {}
        with replacing(file) as partial:
            partial.write_text(json.dumps(seconds | {stage: round(time.perf_counter() - start, 1)}) + "\n")

    def folder(self, number: int) -> Path:
        """Where the stages of a round leave their files."""
        return self.config.output_dir / ROUNDS / f"{number:03}"

    def result(self, stage: str, number: int) -> Path:
        """The folder that shows that a stage is finished."""
        if stage == "refit":
            return get_step_checkpoint_dir(self.config.output_dir, self.config.iterations, number)
        return self.folder(number) / ("rollouts" if stage == "collect" else stage)

    # The stages

    def _collect(self, number: int) -> None:
        config = self.config
        if config.env is None:
            raise UserError("algorithm.stage=collect needs an environment: give --env.type=...")
        policy = self._newest(number)
        rollout = config.rollout
        runner = make_runner(config.env, policy, rollout.n_envs, rollout.use_async_envs)
        try:
            _, episodes = write_rollouts(
                runner,
                self.result("collect", number),
                f"local/round_{number:03}",
                rollout.n_episodes,
                int(np.random.SeedSequence((config.seed, number)).generate_state(1)[0]) // 2,
                fps=config.env.fps,
                task=config.env.task or "",
                atlas=self.atlas,
            )
        finally:
            runner.env.close()
        tqdm.write(f"  success {episodes.success.mean():.3f} of {len(episodes.success)} episodes")

    def _fit_value(self, number: int) -> None:
        datasets, bar = (
            self._checked(number),
            tqdm(total=self.algorithm.value.steps, desc="value", unit="step"),
        )
        value = self._value()
        _, total, _ = self._returns(datasets)
        with bar:

            def on_step(step: int, loss: float) -> None:
                bar.update()
                if step % 100 == 0:
                    bar.set_postfix_str(f"loss {loss:.3f}")

            try:
                numbers = fit_value(value, datasets, total, self.config.seed, on_step)
            except ValueError as error:
                raise UserError(f"algorithm.value: {error}") from error
        save_value(self.result("value", number), value, self._how(datasets), numbers)
        tqdm.write(
            f"  on {numbers['episodes']} held-out episodes: explained variance {numbers['explained_variance']:.2f}, "
            f"calibration error {numbers['calibration_error']:.3f}"
        )

    def _label(self, number: int) -> None:
        datasets, algorithm = self._checked(number), self.algorithm
        folder = self.result("value", number)
        reward, total, over = self._returns(datasets)
        values = [np.full(len(d.index), np.nan) for d in datasets]
        if folder.is_dir():
            value = self._value()
            load_value(folder, value, self._how(datasets))
            values = predict_all(value, datasets)
        elif algorithm.needs_value:
            raise UserError(f"there is no value in {folder}: run --algorithm.stage=value first")
        found = [
            np.where(np.isnan(t), np.nan, advantages(d.episode, r, o, v, algorithm.n_step))
            for d, r, t, o, v in zip(datasets, reward, total, over, values, strict=True)
        ]
        scores = Scores(
            advantage=np.concatenate(found),
            success=np.concatenate([d.success[d.episode] for d in datasets]),
            task=np.unique(np.concatenate([d.task for d in datasets]), return_inverse=True)[1],
            mode=np.concatenate([d.mode[d.episode] for d in datasets]),
            forced=np.concatenate([d.forced for d in datasets]),
        )
        if algorithm.needs_modes and (scores.mode[~scores.forced] < 0).all():
            raise UserError(
                "algorithm.label=per_mode_quantile needs modes, and neither datasets (a column mode) nor an atlas "
                "name any: choose what to cluster (--atlas.key, --atlas.dims, --atlas.path), or label=quantile"
            )
        ends = np.cumsum([len(d.index) for d in datasets])[:-1]
        labels, weights = np.split(algorithm.labels(scores), ends), np.split(algorithm.weights(scores), ends)
        out = self.result("advantages", number)
        partial = out.with_name(f".partial.{out.name}")
        shutil.rmtree(partial, ignore_errors=True)
        for i, d in enumerate(datasets):
            columns = {
                "return": total[i],
                "value": values[i],
                "advantage": found[i],
                "label": labels[i],
                "weight": weights[i],
            }
            write_sidecar(partial / f"{d.name}.parquet", d, columns)
            share = [float((labels[i] == label).mean()) for label in (POSITIVE, NEGATIVE, UNKNOWN)]
            tqdm.write(
                f"  {d.name}: {share[0]:.0%} of {len(d.index):,} frames positive, {share[1]:.0%} negative, "
                f"{share[2]:.0%} unknown"
            )
        partial.rename(out)

    def _refit(self, number: int) -> None:
        config, algorithm = self.config, self.algorithm
        datasets = self._checked(number)
        folder = self.result("advantages", number)
        if not folder.is_dir():
            raise UserError(f"there are no advantages in {folder}: run --algorithm.stage=advantages first")
        labels, weights = zip(*(read_sidecar(folder / f"{d.name}.parquet", d) for d in datasets), strict=True)
        seed = int(np.random.SeedSequence((config.seed, number)).generate_state(1)[0])
        loader = make_mixed(
            datasets, labels, weights, config.policy, algorithm.batch_size, algorithm.base_fraction, seed
        )
        refit = Refit(config)
        state = self.folder(number) / "refit"
        refit.resume(loader, state)
        self.records.forget(
            lambda line: line["kind"] == "train" and line["iteration"] == number and line["step"] > refit.step
        )
        with tqdm(total=config.iterations, initial=refit.step, desc="refit", unit="step") as bar:

            def on_step(step: int, metrics: dict[str, float]) -> None:
                bar.update()
                if config.log_freq and step % config.log_freq == 0:
                    bar.set_postfix_str(f"loss {metrics['loss']:.4f}", refresh=False)
                    self.records.write("train", number, self.env_steps(number), {"step": step, **metrics})

            refit.train(loader, state, on_step)
        conditioned = self.folder(number) / "guided"
        partial = conditioned.with_name(f".partial.{conditioned.name}")
        for left in (partial, conditioned):
            shutil.rmtree(left, ignore_errors=True)
        refit.export_guided(partial)
        if partial.is_dir():
            partial.rename(conditioned)
        saved = save_checkpoint(config, number, refit.export, {"round": number})
        shutil.rmtree(state, ignore_errors=True)
        self.records.saved(saved)

    # What they read

    def _datasets(self, number: int) -> list[Recorded]:
        """Demonstrations, what was given, and what was collected up to a round."""
        config, algorithm = self.config, self.algorithm
        sources = [(data_name(d), d, False) for d in algorithm.data]
        for earlier in range(1, number + 1):
            root = self.result("collect", earlier)
            if root.is_dir():
                name = f"round_{earlier:03}"
                sources.append((name, EpisodeData(repo_id=f"local/{name}", root=root), False))
        if config.dataset.repo_id:
            d = config.dataset
            sources.insert(0, (DEMONSTRATIONS, EpisodeData(d.repo_id, d.root, d.episodes), True))
        names = [name for name, _, _ in sources]
        if doubled := sorted({name for name in names if names.count(name) > 1}):
            raise UserError(f"algorithm.data: repo_id={doubled[0]} is given twice: give different names")
        found = []
        for name, data, demonstration in sources:
            try:
                found.append(
                    read_recorded(
                        name,
                        data,
                        config.policy,
                        demonstration=demonstration,
                        key=config.atlas.key,
                        atlas=self.atlas,
                        seed=config.seed,
                        num_workers=algorithm.num_workers,
                    )
                )
            except UserError:
                raise
            except (ValueError, OSError, HTTPError) as error:
                where = "dataset" if demonstration else "algorithm.data"
                raise UserError(f"{where}: {error}") from error
        return found

    def _checked(self, number: int) -> list[Recorded]:
        """The datasets of a round, with all modes that can be named."""
        datasets = self._datasets(number)
        if not datasets:
            raise UserError(
                "there are no episodes yet: run --algorithm.stage=collect first, or give datasets"
            )
        check_alike(datasets, self.config.policy)
        check_outcomes(datasets, tqdm.write)
        name_attempts(datasets)
        return datasets

    def _returns(
        self, datasets: list[Recorded]
    ) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
        """Rewards, returns (NaN where the outcome is unknown) and value of the end, (F,) of each dataset."""
        offsets = np.cumsum([0] + [len(d.success) for d in datasets])
        episode = np.concatenate([d.episode + o for d, o in zip(datasets, offsets, strict=False)])
        task = np.concatenate([d.task for d in datasets])
        success = np.concatenate([d.success for d in datasets])
        if self.algorithm.returns == "steps":
            reward = step_rewards(episode, success > 0, task, self.algorithm.fail_cost)
            over = np.zeros(len(reward))
            unknown = np.isnan(success[episode])
        else:
            if lacking := [d.name for d in datasets if d.reward is None]:
                raise UserError(
                    f"algorithm.returns=reward needs next.reward, which {lacking[0]} lacks: use steps"
                )
            reward, over = scaled_rewards(
                episode, np.concatenate([d.reward for d in datasets if d.reward is not None]), task
            )
            unknown = np.zeros(len(reward), bool)
        total = np.where(unknown, np.nan, returns(episode, reward, over))
        ends = np.cumsum([len(d.index) for d in datasets])[:-1]
        return np.split(reward, ends), np.split(total, ends), np.split(over, ends)

    def _value(self) -> Value:
        try:
            return Value(self.algorithm.value, self.base)
        except ValueError as error:
            raise UserError(str(error)) from error

    def _how(self, datasets: list[Recorded]) -> dict[str, Any]:
        algorithm = self.algorithm
        return {
            "input": algorithm.value.input,
            "hidden_dims": algorithm.value.hidden_dims,
            "returns": algorithm.returns,
            "fail_cost": algorithm.fail_cost,
            "datasets": {d.name: d.fingerprint for d in datasets},
        }

    def _newest(self, number: int) -> DenoisingPolicy:
        """The policy of the round before; the base in the first."""
        if number == 1:
            return self.base
        folder = self.result("refit", number - 1) / PRETRAINED_MODEL_DIR
        return load_policy(load_policy_config(str(folder), [f"--device={self.config.policy.device}"]), folder)

    # What is shown

    def env_steps(self, number: int) -> int:
        """Environment steps collected up to a round."""
        roots = [self.result("collect", i) for i in range(1, number + 1)]
        return sum(
            LeRobotDatasetMetadata(f"local/{root.parent.name}", root).total_frames
            for root in roots
            if root.is_dir()
        )

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
        self.atlas = self.atlas or self.monitor.atlas

    def _evaluated(self, number: int) -> bool:
        return any(line["iteration"] == number for line in self.records.read("eval"))

    def _evaluate(self, number: int) -> None:
        """Play the policy of a round as it lies on disk; the last one makes the summary."""
        last = number == self.algorithm.n_rounds
        if self.tester is None:
            print(f"Checkpoint: {self.result('refit', number) / PRETRAINED_MODEL_DIR}")
            return
        if not last and not self._evaluated(number):
            self.outcome.tester = runner_in(self.tester.env, self.config.env, self._newest(number + 1))
            self.outcome.during(number, self.env_steps(number))
        if last and not (self._evaluated(number) and (self.config.output_dir / SUMMARY).is_file()):
            self.records.forget(lambda line: line["kind"] == "eval" and line["iteration"] == number)
            self.outcome.tester = self.tester
            self.outcome.finish(number, self.env_steps(number), self._seconds())
            self._add_rounds()

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
        datasets = self._datasets(0)
        for d in datasets:
            print(
                f"{d.name}: {len(d.success)} episodes, {len(d.index):,} frames, {int((d.success > 0).sum())} succeed"
            )
        for stage in self._wanted(1, self.algorithm.stage):
            print(f"would write {self.result(stage, 1)}")
        print("this was a dry run, nothing was written")
        self.close()

    def close(self) -> None:
        """Close the environments."""
        if self.tester is not None:
            self.tester.env.close()
