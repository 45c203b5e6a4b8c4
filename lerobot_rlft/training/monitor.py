"""Mode diversity of a run while it trains: the atlas, the modes collected, the probe, pictures and alarms.

In the folder of the run: `diversity/atlas.json` with `atlas.safetensors` where the environment names no
modes, `diversity/probe.safetensors`, the observations of the probe states, and, where failures are held to
the modes they attempted, `diversity/attempts.safetensors`, paths of the base's successes.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from httpx import HTTPError
from torch import Tensor
from tqdm import tqdm

from ..algorithms.base import Algorithm
from ..configs.train import TrainConfig
from ..datasets.windows import episode_paths
from ..diversity.atlas import ModeAtlas
from ..diversity.attempts import Attempts
from ..diversity.guard import DiversityGuard
from ..diversity.probe import Probe, probe_size
from ..diversity.suite_atlas import Atlas
from ..diversity.tracker import ADVICE_TO_ROUNDS, ModeTracker
from ..metrics.modes import effective_counts, mode_counts
from ..plots.run import draw_atlas, draw_kl, draw_mode_shares, padded
from ..policies.base import DenoisingPolicy
from ..policies.rlft_commanded.commands import COMMAND, episode_commands
from ..rollout.episodes import Episodes, Rollout
from ..rollout.evaluation import Evaluation, name_modes
from ..rollout.modes import first_atlas, load_atlas, settle_atlas
from ..rollout.suite import sentences, tasks_of
from ..utils.errors import UserError
from ..utils.files import make_folder
from ..utils.run_folder import DIVERSITY
from .records import Records

PROBE, ATTEMPTS = "probe.safetensors", "attempts.safetensors"


class DiversityMonitor:
    """Watches one fine-tuning run.

    Args:
        config: of the run.
        base: its frozen pretrained policy.
        records: where pictures go, beside the folder of the run.
        algorithm: which samples, and holds modes; None for rounds on a dataset.

    Raises:
        UserError: `atlas.path` holds no atlas of this environment, or `dataset` no demonstrations.
    """

    def __init__(
        self,
        config: TrainConfig,
        base: DenoisingPolicy,
        records: Records,
        algorithm: Algorithm | None = None,
    ) -> None:
        self.config, self.base, self.records = config, base, records
        self.adjustable = algorithm is not None and algorithm.adjustable
        self.holders = algorithm.holders if algorithm is not None else []
        floor = algorithm and algorithm.floor
        self.floor = base.std_floor if floor is None else floor  # smallest std of log-probabilities
        self.atlas: Atlas | None = None
        self.tracker: ModeTracker | None = None
        self.probe: Probe | None = None
        self.attempts: Attempts | None = None
        self.guard: DiversityGuard | None = None
        self.demonstrations: list[np.ndarray] = []  # paths (E, L+1, S)
        if config.dataset.repo_id and config.resume is None:
            try:
                dataset = config.dataset
                self.demonstrations = [episode_paths(dataset.repo_id, dataset.root, config.atlas.key)]
            except (ValueError, OSError, HTTPError) as error:
                raise UserError(f"dataset: {error}") from error
        if config.resume is None:
            self.atlas = first_atlas(config.atlas, config.env.type, base, config.policy)

    @property
    def strength(self) -> float:
        """Factor of the guard on the weights of all that holds modes; 1 without a guard."""
        return 1.0 if self.guard is None else self.guard.strength

    @property
    def folder(self) -> Path:
        return self.config.output_dir / DIVERSITY

    def begin(self, env: gym.vector.VectorEnv, deployed: Episodes) -> None:
        """Settle what names modes by the base's episodes, see `settle_atlas`, and save an atlas."""
        config = self.config
        make_folder(self.folder)
        options, source, tasks = config.atlas, config.policy, sentences(self.base, tasks_of(env))
        self.atlas, sentence = settle_atlas(
            options, config.env.type, self.base, source, self.atlas, self.demonstrations, deployed, tasks
        )
        if sentence:
            tqdm.write(sentence)
        if self.atlas is not None:
            self.atlas.save(self.folder)
            if isinstance(self.atlas, ModeAtlas):
                draw_atlas(self.config.output_dir / "pictures" / "atlas.png", self.atlas, env)

    def track(self, result: Evaluation) -> None:
        """Take the exploring base's episodes as what later iterations are compared with."""
        if not sum(result.mode_counts or ()):
            tqdm.write(
                "warning: modes are not tracked, the base had no success in a known mode while it explored"
            )
            return
        self.tracker = ModeTracker(
            result.mode_counts, result.n_episodes, round(result.success * result.n_episodes)
        )

    def begin_reference(
        self, env: gym.vector.VectorEnv, reference: Rollout, odds: Tensor | None = None
    ) -> int | None:
        """Take many episodes of the base, as it collects, as what failures and shares are held to.

        Names the modes of `reference`. Returns M, None where nothing names modes.

        Args:
            odds: (M,) of a base that is commanded already, see `DenoisingPolicy.deployed_odds`.

        Raises:
            UserError: a guard is asked for and there are no modes to hold.
        """
        num_modes = self._name(env, reference)
        episodes, key = reference.episodes, self.config.atlas.key
        if num_modes is None:
            if self.config.guard.enable:
                raise UserError(
                    "guard.enable=true needs modes, and neither the environment nor an atlas names any: "
                    "choose what to cluster (--atlas.key, --atlas.dims), or switch the guard off"
                )
            return None
        weight = deployed_weight(reference, odds)
        counts = effective_counts(episodes.mode, episodes.success, num_modes, weight)
        counts = np.rint(counts).astype(int)
        if counts.sum():
            self.tracker = ModeTracker(counts, len(episodes.success), successes(episodes, weight))
        if self.config.guard.enable:
            tqdm.write(f"guard: modes are held by {', '.join(self.holders)}")
            try:
                self.guard = DiversityGuard(self.config.guard, counts, not self.adjustable)
            except ValueError as error:
                raise UserError(str(error)) from error
        in_mode = episodes.success & (episodes.mode >= 0)
        if key in episodes.states and in_mode.any():
            self.attempts = Attempts(episodes.states[key][in_mode], episodes.mode[in_mode])
            self.attempts.save(self.folder / ATTEMPTS)
        self._name_attempts(env, reference)
        return num_modes

    def name(self, env: gym.vector.VectorEnv, data: Rollout) -> int | None:
        """Give episodes their modes, and failures the modes they attempted. Returns M."""
        num_modes = self._name(env, data)
        if num_modes is not None:
            self._name_attempts(env, data)
        return num_modes

    def _name_attempts(self, env: gym.vector.VectorEnv, data: Rollout) -> None:
        modes, key = data.episodes.mode, self.config.atlas.key
        if self.attempts is not None:
            states, task = data.episodes.states[key], data.episodes.task
            num_tasks = 1 if task is None else len(tasks_of(env))
            modes = self.attempts.name(states, modes, data.episodes.success, task, num_tasks)
        data.attempt = torch.from_numpy(modes).long()

    def _name(self, env: gym.vector.VectorEnv, data: Rollout) -> int | None:
        data.episodes, num_modes = name_modes(env, data.episodes, self.atlas)
        return num_modes

    def iteration(
        self, number: int, env: gym.vector.VectorEnv, data: Rollout, policy: DenoisingPolicy
    ) -> dict[str, Any]:
        """Metrics of one iteration, for its line in metrics.jsonl.

        Args:
            number: of the iteration, from 1.
            data: what was collected, its modes named.
            policy: after the update.
        """
        out: dict[str, Any] = {}
        alarms = []
        episodes = data.episodes
        if data.attempt is not None:
            num_modes = self.atlas.num_modes if self.atlas else int(env.call("num_modes")[0])
            weight = deployed_weight(data, policy.deployed_odds())
            counts = mode_counts(episodes.mode, episodes.success, num_modes, weight)
            out["mode_counts"] = np.round(counts, 3).tolist()
            worth = effective_counts(episodes.mode, episodes.success, num_modes, weight)
            if self.tracker is not None:
                out |= self.tracker.update(worth, len(episodes.success), successes(episodes, weight))
                alarms.append(self.tracker.alarm())
            if self.guard is not None:
                out |= self.guard.update(worth, len(episodes.success))
                alarms.append(out.pop("alarm", None))
        if message := " ".join(filter(None, alarms)):
            tqdm.write(f"iteration {number}: {message}")
            out["alarm"] = message
        return out

    def probes(self, number: int) -> bool:
        """Whether base and policy are compared at the probe states after this iteration."""
        every = self.config.probe_freq
        return bool(every) and (number % every == 0 or number == 1)

    def compare(self, number: int, data: Rollout, policy: DenoisingPolicy) -> dict[str, Any]:
        """Metrics of the probe after an iteration for which `probes` is true, for its line in metrics.jsonl.

        Args:
            number: 1 for the first iteration, whose episodes are still the base's.
            data: what was collected.
            policy: after the update.
        """
        return self._compare(policy, (data.obs, data.t) if number == 1 else None)

    def after_round(
        self,
        evaluations: list[dict[str, Any]],
        policy: DenoisingPolicy,
        decisions: Callable[[], tuple[dict[str, Tensor], Tensor]],
    ) -> dict[str, Any]:
        """Metrics of a round of refits, for its line in metrics.jsonl. Each round is a policy of its own, and
        read by itself.

        Args:
            evaluations: lines of the deployed base and of the rounds up to this one, in order.
            policy: of this round.
            decisions: gives observations of recorded decisions and which of its episode each is, see
                `Probe.choose`; called once in a run.
        """
        out: dict[str, Any] = {}
        base, *rounds = evaluations
        of_base = base.get("mode_counts", [])
        if sum(of_base):
            self.tracker = ModeTracker(
                of_base, base["n_episodes"], round(base["success"] * base["n_episodes"])
            )
            alarm = None
            for line in rounds:
                # An environment that names modes of successes only names none where there is no success.
                counts, episodes = line.get("mode_counts", [0] * len(of_base)), line["n_episodes"]
                self.tracker.window.clear()
                metrics = self.tracker.update(counts, episodes, round(line["success"] * episodes))
                out = {"mode_counts": counts, **metrics}
                alarm = self.tracker.alarm(ADVICE_TO_ROUNDS)
            if alarm:
                tqdm.write(f"round {evaluations[-1]['iteration']}: {alarm}")
                out["alarm"] = alarm
        if self.config.probe_freq:
            if (self.folder / PROBE).is_file() and self.probe is None:
                self._load_probe()
            out |= self._compare(policy, decisions() if self.probe is None else None)
        return out

    def _compare(
        self, policy: DenoisingPolicy, decisions: tuple[dict[str, Tensor], Tensor] | None
    ) -> dict[str, Any]:
        """Base and policy at the probe states, which are chosen among `decisions` of the base if given."""
        try:
            if decisions is not None:
                size = probe_size(self.base)
                self.probe = Probe.choose(self.base, *decisions, self.floor, size, self.config.seed)
                self.probe.save(self.folder / PROBE)
            return vars(self.probe.measure(policy)) if self.probe is not None else {}
        except ValueError as error:  # a base that always acts the same, or chunks of a single number
            self.probe = None
            tqdm.write(f"warning: base and tuned policy are not compared at branching states, {error}")
            return {}

    def _load_probe(self) -> None:
        size = probe_size(self.base)
        self.probe = Probe.load(self.folder / PROBE, self.base, self.floor, size, self.config.seed)

    def status(self, metrics: dict[str, Any]) -> str:
        """Text of the progress line."""
        if "effective_modes" not in metrics:
            return ""
        guard = f" guard {metrics['guard_ratio']:.2f}" if "guard_ratio" in metrics else ""
        return f"modes {metrics['effective_modes']:.1f}/{len(self.tracker.base_counts)}{guard}"

    def draw(self, iteration: int) -> None:
        """Mode shares beside the base's, and the KL to the base over denoising steps and iterations."""
        pictures = self.config.output_dir / "pictures"
        if self.tracker is not None and self.tracker.window and self.tracker.counts.sum():
            draw_mode_shares(pictures / "modes.png", self.tracker.base_counts, {"tuned": self.tracker.counts})
            self.records.picture("modes", pictures / "modes.png", iteration)
        lines = [line for line in self.records.read("train") if "kl_by_step" in line]
        if lines:
            draw_kl(
                pictures / "kl.png",
                [line["iteration"] for line in lines],
                padded([line["kl_by_step"] for line in lines]),
            )
            self.records.picture("kl", pictures / "kl.png", iteration)

    def state_dict(self) -> dict[str, Any]:
        return {
            "tracker": self.tracker and self.tracker.state_dict(),
            "guard": self.guard and self.guard.state_dict(),
            "attempts": self.attempts is not None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue a run; atlas and probe are read from its folder.

        Raises:
            UserError: one of them is missing or damaged.
        """
        if state["tracker"] is not None:
            self.tracker = ModeTracker.from_state(state["tracker"])
        if self.config.guard.enable and state["guard"] is None:
            raise ValueError("the guard needs the base's episodes, which this run has not played")
        if self.config.guard.enable:
            self.guard = DiversityGuard.from_state(self.config.guard, state["guard"], not self.adjustable)
        if state["attempts"]:
            self.attempts = Attempts.load(self.folder / ATTEMPTS)
        if (self.folder / "atlas.json").is_file():
            self.atlas = load_atlas(self.folder, self.config.env.type, self.config.atlas.key)
        if (self.folder / PROBE).is_file():
            self._load_probe()


def deployed_weight(data: Rollout, odds: Tensor | None) -> np.ndarray | None:
    """(E,) what each episode counts for as one of the deployed policy, if commands were drawn otherwise.

    Self-normalised importance weights: their mean over the episodes is 1, so that no share of them exceeds 1
    whatever commands chance drew.

    Args:
        odds: (M,), see `DenoisingPolicy.deployed_odds`.
    """
    if odds is None or COMMAND not in data.obs:
        return None
    command = episode_commands(data.obs[COMMAND], data.episode, len(data.episodes.success))
    weight = odds[command].double().numpy()
    total = weight.sum()
    return weight * len(weight) / total if total else weight


def successes(episodes: Episodes, weight: np.ndarray | None) -> int:
    """Successes, as many as `deployed_weight` makes of them."""
    return round(float(episodes.success.sum() if weight is None else weight[episodes.success].sum()))
