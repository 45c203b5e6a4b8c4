"""Back to the best checkpoint when the deployed policy has become worse than it was."""

from typing import Any

import numpy as np
from lerobot.common.train_utils import get_step_checkpoint_dir
from lerobot.utils.constants import PRETRAINED_MODEL_DIR
from lerobot.utils.random_utils import get_rng_state, set_rng_state
from tqdm import tqdm

from ..algorithms.base import Algorithm
from ..configs.pretrained import load_policy_config
from ..configs.train import TrainConfig
from ..diversity.guard import retained
from ..policies.base import DenoisingPolicy
from ..policies.loading import load_policy
from ..rollout.evaluation import Evaluation
from .checkpoint import load_state

SLOWER = 0.5  # of the learning rate, at every return


class Rollback:
    """Watches the evaluations of a run.

    It keeps the most successful one whose checkpoint is on disk. Where a later one is worse beyond doubt, its
    95 % interval below that of the best, weights and optimizers become those of the best again and the steps
    smaller. Counters, seeds and the random state go on, so that it is not the same run again.

    Args:
        config: of the run.
        policy: that is trained.
        algorithm: that trains it.
    """

    def __init__(self, config: TrainConfig, policy: DenoisingPolicy, algorithm: Algorithm) -> None:
        self.config, self.policy, self.algorithm = config, policy, algorithm
        self.base: Evaluation | None = None
        self.best: dict[str, Any] = {}  # iteration, success and its interval; empty before the first
        self.scale = 1.0  # of the learning rate

    @property
    def enabled(self) -> bool:
        return self.config.rollback and self.config.algorithm.consumes == "rollouts"

    def begin(self, base: Evaluation) -> None:
        """Take the base's evaluation; its checkpoint is that of iteration 0."""
        self.base, self.best = base, self._seen(0, base)

    def watch(self, iteration: int, result: Evaluation) -> bool:
        """Go back if need be; returns whether this one is the best so far, so that it is to be saved."""
        if not self.best:
            return False
        if result.success_ci[1] < self.best["low"]:
            self._return(iteration, result)
            return False
        if result.success <= self.best["success"] or not self._keeps_modes(result):
            return False
        self.best = self._seen(iteration, result)
        return True

    def _return(self, iteration: int, result: Evaluation) -> None:
        config, best = self.config, self.best
        checkpoint = get_step_checkpoint_dir(config.output_dir, config.iterations, best["iteration"])
        low, high = result.success_ci
        fell = (
            f"iteration {iteration}: success fell to {result.success:.3f} [{low:.3f}, {high:.3f}] from "
            f"{best['success']:.3f} [{best['low']:.3f}, {best['high']:.3f}] at iteration {best['iteration']}"
        )
        if not checkpoint.is_dir():  # deleted, or the run was downloaded, which brings the last one alone
            tqdm.write(f"{fell}, whose checkpoint is not here: the run goes on")
            return
        random_state = get_rng_state()
        if config.peft is None:  # else what is trained is part of the algorithm's state
            folder, trust = checkpoint / PRETRAINED_MODEL_DIR, config.trust_remote_code
            policy_config = load_policy_config(str(folder), [f"--device={config.policy.device}"], trust=trust)
            good = load_policy(policy_config, folder, config.algorithm.exploration, trust)
            self.policy.module.load_state_dict(good.module.state_dict())
        self.algorithm.load_state_dict(load_state(checkpoint)["algorithm"])
        set_rng_state(random_state)
        self.scale *= SLOWER
        self.algorithm.scale_lr(self.scale)
        tqdm.write(
            f"{fell}: back to that checkpoint, with {self.scale:g} x the learning rate (--rollback=false "
            "goes on regardless)"
        )

    def _keeps_modes(self, result: Evaluation) -> bool:
        """Whether it respects the floor of the guard; without one everything does."""
        guard, base = self.config.guard, self.base.mode_counts if self.base else None
        if not guard.enable or not base or np.count_nonzero(base) < 2:
            return True
        return retained(guard.metric, np.array(result.mode_counts), np.array(base)) >= guard.floor

    def _seen(self, iteration: int, result: Evaluation) -> dict[str, Any]:
        low, high = result.success_ci
        return {"iteration": iteration, "success": result.success, "low": low, "high": high}

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "scale": self.scale, "base": self.base and self.base.to_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` gave."""
        self.base = Evaluation(**state["base"]) if state["base"] else None
        self.best, self.scale = state["best"], state["scale"]
        self.algorithm.scale_lr(self.scale)
