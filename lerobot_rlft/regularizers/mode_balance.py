"""Mode-balanced advantages: improve every mode, move none of them. Plain torch.

Plain policy gradients move probability between modes for two reasons that have nothing to do with how well a
mode could be done: a mode that the base does less well loses (selection), and shares counted on few episodes
are noise (drift). Here the advantage of a decision is

    A'(t) = A(t) - mean of A(t) over the episodes that attempt the same mode      (centring)
            + restoring advantage of B_m,  B_m = -tau log(p_now(m) / p_target(m))  (restoring force)

The mode of a decision is known only when its episode has ended. The bonus B_m is therefore treated as a
terminal reward, and a small classifier q(m | s), trained on the attempted modes of what was collected, gives
its value sum_m q(m | s) B_m: only decisions that choose a mode feel the force, and a change of B needs no new
critic.

Shapes: D decisions, T decisions of the longest episode, E episodes, M modes, F features of the critic.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from ..critics.advantages import gae
from ..critics.networks import MLP
from .base import Experience, Regularizer, success_value

TARGETS = ("attempted", "successful", "uniform")
SHARE_DECAY = 0.5  # of the shares of older iterations
MOST_BONUS = 1.0  # |B_m| at most: a rare mode's few episodes must not outweigh all others


@dataclass
class BalanceConfig:
    """Mode-balanced advantages; they need modes, from the environment or the atlas.

    Raises:
        ValueError: a field is out of its range.
    """

    # Whether to centre advantages among the episodes that attempt the same mode.
    center: bool = False
    # Strength of the bonus that restores the shares of modes; 0 = none.
    tau: float = 0.0
    # Shares to restore: "attempted", those that the base attempted, "successful", those of its successes, or
    # "uniform", equal ones for all modes that the base knows.
    target: str = "attempted"

    def __post_init__(self) -> None:
        if not self.tau >= 0:
            raise ValueError(f"algorithm.balance.tau={self.tau} must not be negative")
        if self.target not in TARGETS:
            raise ValueError(
                f"algorithm.balance.target={self.target!r} is unknown, choose {', '.join(TARGETS)}"
            )

    @property
    def enabled(self) -> bool:
        return self.center or self.tau > 0


class ModeBalance(Regularizer):
    """Shares, centring and restoring force of one run.

    Args:
        config: see there.
        feature_dim: F.
        hidden_dims: of the mode classifier.
        lr: its learning rate.
        lam: lambda of GAE.
    """

    def __init__(
        self,
        config: BalanceConfig,
        feature_dim: int,
        hidden_dims: tuple[int, ...],
        lr: float,
        device: torch.device,
        lam: float,
    ) -> None:
        self.config, self.lam, self.log = config, lam, {}
        self.sizes, self.lr, self.device = (feature_dim, hidden_dims), lr, device
        self.success_value = 1.0  # what a success earns, the unit of the bonus

    def make(self, num_modes: int) -> None:
        """Make room for M modes, and an untrained classifier of them."""
        self.num_modes = num_modes
        self.classifier = MLP(*self.sizes, num_modes).to(self.device)
        parameters = self.classifier.parameters()
        self.optimizer = torch.optim.AdamW(parameters, lr=self.lr, weight_decay=0.0, fused=True)
        # (M,) shares to restore, 0 for modes that the base does not know
        self.target = torch.zeros(num_modes)
        self.shares = torch.zeros(num_modes)  # (M,) decaying mean of the attempted shares
        self.bonus = torch.zeros(num_modes)  # (M,) B_m

    def begin(self, reference: Experience, num_modes: int | None) -> None:
        """Take the shares of the base's episodes as target, and what its successes earn as unit.

        Raises:
            ValueError: there are no modes, or the base knows one only.
        """
        if num_modes is None or reference.attempt is None:
            raise ValueError(
                "algorithm.balance needs modes, and neither the environment nor an atlas names any: choose "
                "what to cluster (--atlas.key, --atlas.dims), or switch guard and algorithm.balance off"
            )
        self.make(num_modes)
        self.aim(reference.attempt, reference.success)
        self.attempt = reference.attempt[reference.episode].to(self.device)
        self.success_value = success_value(reference)

    def aim(self, attempt: Tensor, success: Tensor) -> None:
        """Set the shares to restore.

        Args:
            attempt: (E,) long, -1 where unknown.
            success: (E,) bool.

        Raises:
            ValueError: the base knows fewer than two modes, so there is nothing to balance.
        """
        attempts, successes = (counts(attempt[rows], self.num_modes) for rows in (attempt >= 0, success))
        target = {
            "attempted": attempts,
            "successful": successes,
            "uniform": (successes > 0).float(),
        }[self.config.target]
        if (target > 0).sum() < 2:
            raise ValueError(
                f"the base uses {int((target > 0).sum())} mode, there is no diversity to hold: switch guard "
                "and algorithm.balance off, or give more episodes or another atlas "
                "(--atlas.min_cluster_size)"
            )
        self.target = target / target.sum()
        self.shares = self.target.clone()

    def observe(self, data: Experience) -> None:
        no_mode = torch.full_like(data.success, -1, dtype=torch.long)
        attempt = no_mode if data.attempt is None else data.attempt
        self.attempt = attempt[data.episode].to(self.device)
        self.count(attempt)
        self.log = {"bonus_max": self.bonus.max().item(), "bonus_min": self.bonus.min().item()}

    def count(self, attempt: Tensor) -> None:
        """Count an iteration's attempts (E,) and set the bonus.

        Pseudo-counts at the target shares, one for each mode, keep modes finite that no episode reached.
        """
        num_attempts = counts(attempt, self.num_modes)
        total = num_attempts.sum().clamp(min=1)
        if num_attempts.any():
            self.shares = SHARE_DECAY * self.shares + (1 - SHARE_DECAY) * num_attempts / total
        episodes = total * (1 + SHARE_DECAY) / (1 - SHARE_DECAY)  # as many weigh like the decaying mean
        smooth = (self.shares * episodes + self.target * self.num_modes) / (episodes + self.num_modes)
        in_target = self.target > 0
        ratio = torch.where(in_target, smooth / self.target.clamp(min=1e-9), torch.ones_like(smooth))
        tau = self.config.tau * self.coef
        self.bonus = (-tau * ratio.log()).clamp(-MOST_BONUS, MOST_BONUS)

    def predict(self, features: Tensor) -> Tensor:
        """(D, M) probabilities of the modes that each decision's episode may attempt."""
        return self.classifier(features).softmax(-1)

    def learn(self, features: Tensor, rows: Tensor) -> dict[str, float]:
        """A step of the classifier. Without a restoring force nothing asks it, and it is left alone."""
        return {"mode_loss": self.step(features, self.attempt[rows])}

    def step(self, features: Tensor, attempt: Tensor) -> float:
        """One gradient step of the classifier on decisions whose mode (B,) is known; returns its loss."""
        has_mode = attempt >= 0
        if self.config.tau == 0 or not has_mode.any():
            return 0.0
        loss = cross_entropy(self.classifier(features[has_mode]), attempt[has_mode])
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def advantage(self, advantage: Tensor, data: Experience, features: Tensor, reward_scale: float) -> Tensor:
        if data.attempt is None:
            return advantage
        with torch.no_grad():
            expected = data.grid(self.predict(features).cpu() @ self.bonus)
        unit = self.success_value / reward_scale
        return self(advantage / unit, data.valid, data.attempt, expected) * unit

    def __call__(self, advantage: Tensor, valid: Tensor, attempt: Tensor, expected: Tensor) -> Tensor:
        """Balanced advantages, in units of what a success earns.

        Args:
            advantage: (T, E).
            valid: (T, E) bool.
            attempt: (E,) long, -1 where unknown: such episodes are not centred and get no bonus.
            expected: (T, E) the bonus that is expected at each decision, sum_m q(m | s) B_m.

        Returns:
            (T, E)
        """
        out = centred(advantage, valid, attempt, self.num_modes) if self.config.center else advantage
        if self.config.tau == 0:
            return out
        has_mode = attempt >= 0
        final = torch.zeros_like(advantage)
        last = valid.long().sum(0) - 1
        bonus = torch.where(has_mode, self.bonus[attempt.clamp(min=0)], 0.0)
        final[last, torch.arange(len(attempt))] = bonus
        over = torch.ones_like(has_mode)
        force, _ = gae(final, expected, torch.zeros_like(bonus), over, valid, 1.0, self.lam)
        return out + force * has_mode

    def state_dict(self) -> dict[str, Any]:
        return {
            "num_modes": self.num_modes,
            "success_value": self.success_value,
            "classifier": self.classifier.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "target": self.target,
            "shares": self.shares,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        with torch.random.fork_rng(devices=[]):  # the random state is that of the checkpoint already
            self.make(state["num_modes"])
        self.success_value = state["success_value"]
        self.classifier.load_state_dict(state["classifier"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.target, self.shares = state["target"], state["shares"]


def counts(attempt: Tensor, num_modes: int) -> Tensor:
    """(M,) episodes of each mode; unknown ones, -1, are left out."""
    return torch.bincount(attempt[attempt >= 0], minlength=num_modes).float()


def centred(advantage: Tensor, valid: Tensor, attempt: Tensor, num_modes: int) -> Tensor:
    """Advantages (T, E) minus the mean at the same decision index of the episodes that attempt the same mode.

    The mean is taken over this batch, not predicted: a mode's advantages then sum to 0 exactly, so that
    neither its success rate nor the luck of its few episodes moves its share. The only episode of a mode
    teaches nothing, which is all that one sample can say about doing a mode better or worse.
    """
    group = one_hot(torch.where(attempt >= 0, attempt, num_modes), num_modes + 1).float()  # (E, M+1)
    count = valid.float() @ group  # (T, M+1)
    mean = (advantage * valid) @ group / count.clamp(min=1)
    mean[:, num_modes] = 0.0  # no mode
    return (advantage - mean @ group.T) * valid
