"""Stages of a round, with the files each reads and leaves; `rounds` chains them and chooses the folders."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from httpx import HTTPError
from lerobot.common.train_utils import get_step_checkpoint_dir
from lerobot.datasets.io_utils import load_info
from lerobot.utils.constants import CHECKPOINTS_DIR, PRETRAINED_MODEL_DIR
from torch import Tensor
from tqdm import tqdm

from ..algorithms.refit import Scores
from ..configs.train import TrainConfig, load_policy_config
from ..critics.labels import advantages
from ..critics.return_value import Value, fit_value, load_value, observations, predict_all, save_value
from ..datasets.configuration import EpisodeData
from ..datasets.label_table import read_sidecar, write_sidecar
from ..datasets.mixing import make_mixed
from ..datasets.recorded import Recorded, check_alike, check_outcomes, data_name, name_attempts, read_recorded
from ..diversity.atlas import ModeAtlas
from ..diversity.probe import CANDIDATES
from ..policies.base import DenoisingPolicy
from ..policies.conditioning import NEGATIVE, POSITIVE, UNKNOWN
from ..policies.loading import load_policy
from ..rollout.environments import make_runner
from ..rollout.recorder import write_rollouts
from ..utils.errors import UserError
from ..utils.files import make_folder, remove, replacing
from ..utils.run_folder import ROUNDS
from .checkpoint import link_last, save_checkpoint
from .records import Records
from .refit import Refit
from .returns import frame_returns

DEMONSTRATIONS = "demonstrations"


def round_name(number: int) -> str:
    """The name of the dataset that a round collects."""
    return f"round_{number:03}"


class Stages:
    """The stages of one run.

    Args:
        config: of the run.
        base: its frozen pretrained policy.
        records: where the lines of a refit go.

    Raises:
        UserError: `atlas.path` holds no atlas.
    """

    def __init__(self, config: TrainConfig, base: DenoisingPolicy, records: Records) -> None:
        self.config, self.algorithm, self.base, self.records = config, config.algorithm, base, records
        # Names the modes of episodes that come without; of the run, once it has one.
        self.atlas: ModeAtlas | None = config.atlas.path and ModeAtlas.load(config.atlas.path)

    def run(self, stage: str, number: int) -> None:
        """Run one stage of round `number`, 1 for the first.

        Raises:
            UserError: an input is missing or unusable.
            EnvironmentFailure, FloatingPointError: it cannot go on.
        """
        make_folder(self.folder(number))
        stages: dict[str, Callable[[int], None]] = {
            "collect": self._collect,
            "value": self._fit_value,
            "advantages": self._label,
            "refit": self._refit,
        }
        stages[stage](number)

    def folder(self, number: int) -> Path:
        """The folder in which the stages of a round leave their files."""
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
        policy = self.newest(number)
        rollout = config.rollout
        runner = make_runner(config.env, policy, rollout.n_envs, rollout.use_async_envs)
        try:
            _, episodes = write_rollouts(
                runner,
                self.result("collect", number),
                f"local/{round_name(number)}",
                rollout.n_episodes,
                int(np.random.SeedSequence((config.seed, number)).generate_state(1)[0]) // 2,
                fps=config.env.fps,
                task=config.env.task or "",
                atlas=self.atlas,
            )
        finally:
            runner.close()
        tqdm.write(f"  success {episodes.success.mean():.3f} of {len(episodes.success)} episodes")

    def _fit_value(self, number: int) -> None:
        datasets, bar = (
            self._checked(number),
            tqdm(total=self.algorithm.value.steps, desc="value", unit="step", disable=None),
        )
        value = self._value(datasets)
        if self.algorithm.needs_modes and not self._num_modes(datasets):
            tqdm.write(
                "  the value is not told modes: failures have none without recorded paths (--atlas.key)"
            )
        _, total, _ = frame_returns(self.algorithm, datasets)
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
            f"  on {numbers['episodes']} held-out episodes: explained variance "
            f"{numbers['explained_variance']:.2f}, calibration error {numbers['calibration_error']:.3f}"
        )

    def _label(self, number: int) -> None:
        algorithm, folder = self.algorithm, self.result("value", number)
        if algorithm.needs_value and not folder.is_dir():
            raise UserError(f"there is no value in {folder}: run --algorithm.stage=value first")
        datasets = self._checked(number, tqdm.write)
        reward, total, over = frame_returns(self.algorithm, datasets)
        values = [np.full(len(d.index), np.nan) for d in datasets]
        if folder.is_dir():
            value = self._value(datasets)
            load_value(folder, value, self._how(datasets))
            values = predict_all(value, datasets)
        parts = [
            np.where(np.isnan(t), np.nan, advantages(d.episode, r, o, v, algorithm.n_step))
            for d, r, t, o, v in zip(datasets, reward, total, over, values, strict=True)
        ]
        scores = Scores(
            advantage=np.concatenate(parts),
            success=np.concatenate([d.success[d.episode] for d in datasets]),
            task=np.unique(np.concatenate([d.task for d in datasets]), return_inverse=True)[1],
            mode=np.concatenate([d.mode[d.episode] for d in datasets]),
            forced=np.concatenate([d.forced for d in datasets]),
        )
        if algorithm.needs_modes and (scores.mode[~scores.forced] < 0).all():
            raise UserError(
                "algorithm.label=per_mode_quantile needs modes, and neither datasets (a column mode) nor an "
                "atlas name any: choose what to cluster (--atlas.key, --atlas.path), or label=quantile"
            )
        ends = np.cumsum([len(d.index) for d in datasets])[:-1]
        labels, weights = np.split(algorithm.labels(scores), ends), np.split(algorithm.weights(scores), ends)
        with replacing(self.result("advantages", number)) as partial:
            for i, d in enumerate(datasets):
                columns = {
                    "return": total[i],
                    "value": values[i],
                    "advantage": parts[i],
                    "label": labels[i],
                    "weight": weights[i],
                }
                write_sidecar(partial / f"{d.name}.parquet", d, columns)
                share = [float((labels[i] == label).mean()) for label in (POSITIVE, NEGATIVE, UNKNOWN)]
                tqdm.write(
                    f"  {d.name}: {share[0]:.0%} of {len(d.index):,} frames positive, {share[1]:.0%} "
                    f"negative, {share[2]:.0%} unknown"
                )

    def _refit(self, number: int) -> None:
        config, algorithm = self.config, self.algorithm
        folder = self.result("advantages", number)
        if not folder.is_dir():
            raise UserError(f"there are no advantages in {folder}: run --algorithm.stage=advantages first")
        datasets, env_steps = self._checked(number), self.env_steps(number)
        labels, weights = zip(*(read_sidecar(folder / f"{d.name}.parquet", d) for d in datasets), strict=True)
        seed = int(np.random.SeedSequence((config.seed, number)).generate_state(1)[0])
        loader = make_mixed(
            datasets, labels, weights, config.policy, algorithm.batch_size, algorithm.base_fraction, seed
        )
        refit = Refit(config)
        state = self._unfinished(number)
        refit.resume(loader, state)
        # And what an earlier refit of this round came to.
        self.records.forget(
            lambda line: line["iteration"] == number and line.get("step", math.inf) > refit.step
        )
        with tqdm(
            total=config.iterations, initial=refit.step, desc="refit", unit="step", disable=None
        ) as bar:

            def on_step(step: int, metrics: dict[str, float]) -> None:
                bar.update()
                if config.log_freq and step % config.log_freq == 0:
                    bar.set_postfix_str(f"loss {metrics['loss']:.4f}", refresh=False)
                    self.records.write("train", number, env_steps, {"step": step, **metrics})

            refit.train(loader, state, on_step)
        refit.export_guided(self.folder(number) / "guided")
        checkpoint = save_checkpoint(config, number, refit.export, {"round": number})
        remove(state)
        self.records.saved(checkpoint)

    def settle(self) -> None:
        """Make up for what a kill kept a refit from that had written its checkpoint."""
        checkpoints = self.config.output_dir / CHECKPOINTS_DIR
        numbers = sorted(int(folder.name) for folder in checkpoints.glob("*") if folder.name.isdigit())
        for number in numbers:
            remove(self._unfinished(number))
        if numbers:
            link_last(self.result("refit", numbers[-1]))

    def _unfinished(self, number: int) -> Path:
        """The folder with the state of a refit that is not finished."""
        return self.folder(number) / "refit"

    # What they read

    def datasets(self, number: int) -> list[Recorded]:
        """Demonstrations, what was given, and what was collected up to a round."""
        config, algorithm = self.config, self.algorithm
        sources = [(data_name(d), d, False) for d in algorithm.data]
        for earlier in range(1, number + 1):
            root = self.result("collect", earlier)
            if root.is_dir():
                name = round_name(earlier)
                sources.append((name, EpisodeData(repo_id=f"local/{name}", root=root), False))
        if config.dataset.repo_id:
            d = config.dataset
            sources.insert(0, (DEMONSTRATIONS, EpisodeData(d.repo_id, d.root, d.episodes), True))
        names = [name for name, _, _ in sources]
        if duplicates := sorted({name for name in names if names.count(name) > 1}):
            raise UserError(f"algorithm.data: repo_id={duplicates[0]} is given twice: give different names")
        datasets = []
        for name, data, demonstration in sources:
            try:
                datasets.append(
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
        return datasets

    def _checked(self, number: int, say: Callable[[str], None] = lambda text: None) -> list[Recorded]:
        """The datasets of a round, with all modes that can be named; `say` is told of their oddities."""
        datasets = self.datasets(number)
        if not datasets:
            raise UserError(
                "there are no episodes yet: run --algorithm.stage=collect first, or give datasets"
            )
        check_alike(datasets, self.config.policy)
        check_outcomes(datasets, say)
        name_attempts(datasets)
        return datasets

    def _value(self, datasets: list[Recorded]) -> Value:
        try:
            return Value(self.algorithm.value, self.base, self._num_modes(datasets))
        except ValueError as error:
            raise UserError(str(error)) from error

    def _num_modes(self, datasets: list[Recorded]) -> int:
        """Number of modes that a value is told, 0 where labels do not ask for modes, or where failures have
        none: to have no mode would tell it that an episode fails.
        """
        if not self.algorithm.needs_modes or any(((d.mode < 0) & (d.success == 0)).any() for d in datasets):
            return 0
        return 1 + max(int(d.mode.max(initial=-1)) for d in datasets)

    def _how(self, datasets: list[Recorded]) -> dict[str, Any]:
        algorithm = self.algorithm
        return {
            "input": algorithm.value.input,
            "hidden_dims": algorithm.value.hidden_dims,
            "returns": algorithm.returns,
            "fail_cost": algorithm.fail_cost,
            "num_modes": self._num_modes(datasets),
            "datasets": {d.name: d.fingerprint for d in datasets},
        }

    def newest(self, number: int) -> DenoisingPolicy:
        """The policy of the round before; the base in the first."""
        if number == 1:
            return self.base
        folder = self.result("refit", number - 1) / PRETRAINED_MODEL_DIR
        policy = load_policy(
            load_policy_config(str(folder), [f"--device={self.config.policy.device}"]), folder
        )
        policy.task = self.base.task
        return policy

    def decisions(self) -> tuple[dict[str, Tensor], Tensor]:
        """Observations of recorded frames, of the base's own if there are any, and which decision of its
        episode each would be.
        """
        data = min(self.datasets(1), key=lambda d: (d.name != round_name(1), d.demonstration))
        rows = torch.linspace(0, len(data.windows) - 1, min(CANDIDATES, len(data.windows))).long()
        obs = observations(data.windows.batch(rows), self.base)
        return obs, torch.from_numpy(data.frame_index[rows.numpy()]) // self.base.n_action_steps

    def env_steps(self, number: int) -> int:
        """Environment steps collected up to a round."""
        roots = [self.result("collect", i) for i in range(1, number + 1)]
        return sum(load_info(root).total_frames for root in roots if root.is_dir())
