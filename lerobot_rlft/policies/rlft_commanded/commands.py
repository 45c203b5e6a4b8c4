"""Commands: the mode an episode shall end in, drawn before it begins and told to the network throughout.

A policy that decides anew at every chunk which way to go is torn between ways, and RL on it selects ways
before it learns to go them. A commanded policy is told. Which modes are used, and how often, is then a matter
of what is asked for, out of reach of any gradient; RL is left with the question how well each is done.

The network learns what a command means in hindsight, by cloning successes of the base while it is told the
modes that they ended in (hindsight relabelling arXiv:1707.01495, goals by supervised learning
arXiv:1912.06088, commands arXiv:1912.02875). The base is unchanged where nothing is commanded.
Plain torch. Shapes: B batch, E episodes, D decisions, M modes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

COMMAND = "rlft.command"  # among observations, (B, 1) long; -1 where nothing is commanded
UNCOMMANDED = -1
MAX_MODES = 64
TARGETS = ("successful", "attempted", "uniform")


@dataclass
class CommandConfig:
    """Tell the policy in which mode to act (`commands.py`).

    Raises:
        ValueError: an option is unknown or out of range.
    """

    # Whether to tell the policy its mode; null = true with --guard.enable=true and --algorithm.type=nft,
    # where nothing else is chosen that holds modes.
    enable: bool | None = None
    # Frequencies with which modes are asked for: "successful", as often as the base succeeds in them,
    # "attempted", as often as it attempts them, or "uniform".
    target: str = "successful"
    # Share of the training episodes whose mode is drawn from all modes alike, so that rare ones are
    # practised, too; a deployed policy draws by target alone.
    practice: float = 0.5
    # Gradient steps in which the network learns the meaning of modes, from successes of the base.
    steps: int = 3000
    # Decisions in a batch of these steps.
    batch_size: int = 256
    # Learning rate of these steps.
    lr: float = 1e-3
    # Decay of the average of the weights over these steps; training continues from the average.
    ema_decay: float = 0.995

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise ValueError(
                f"algorithm.commands.target={self.target!r} is unknown, choose {', '.join(TARGETS)}"
            )
        if not 0 <= self.practice <= 1:
            raise ValueError(f"algorithm.commands.practice={self.practice} is out of range, choose 0 to 1")
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"algorithm.commands.{name}={getattr(self, name)} must be at least 1")
        if not self.lr > 0:
            raise ValueError(f"algorithm.commands.lr={self.lr} must be a number > 0, for example 1e-3")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(
                f"algorithm.commands.ema_decay={self.ema_decay} is out of range, choose a number in [0, 1)"
            )


def draw_commands(shares: Tensor, count: int, practice: float = 0.0) -> Tensor:
    """(count,) long, modes drawn with probabilities `shares` (M,) or, the part `practice` of them, with equal
    probabilities of all that have a share.
    """
    return torch.multinomial(practised(shares, practice), count, replacement=True)


def practised(shares: Tensor, practice: float) -> Tensor:
    """Probabilities (M,) with which `draw_commands` draws."""
    known = (shares > 0).float()
    return (1 - practice) * shares / shares.sum() + practice * known / known.sum()


def deployed_odds(shares: Tensor, practice: float) -> Tensor:
    """Ratio of the shares of each mode (M,), deployed to training; 0 for one never drawn."""
    probability = practised(shares, practice)
    return torch.where(probability > 0, shares / shares.sum() / probability, 0.0)


def target_shares(target: str, attempt: Tensor, success: Tensor, num_modes: int) -> Tensor:
    """Share with which each mode is to be asked for, (M,), of those in which the base ever succeeds.

    Args:
        target: one of `TARGETS`.
        attempt: (E,) long, modes that the base's episodes reached or were on the way to, -1 where unknown.
        success: (E,) bool.

    Raises:
        ValueError: there are more modes than `MAX_MODES`, or the base succeeds in none.
    """
    if num_modes > MAX_MODES:
        raise ValueError(
            f"algorithm.commands knows up to {MAX_MODES} modes and there are {num_modes}: merge some with a "
            "larger --atlas.min_cluster_size, or hold them otherwise (--algorithm.commands.enable=false)"
        )
    reached = torch.bincount(attempt[success & (attempt >= 0)], minlength=num_modes).float()
    if not reached.any():
        raise ValueError(
            "algorithm.commands learns from successes of the base in known modes, and there are none: raise "
            "--rollout.n_reference, or hold modes otherwise (--algorithm.commands.enable=false)"
        )
    if target == "uniform":
        reached = (reached > 0).float()
    elif target == "attempted":
        reached = (reached > 0) * torch.bincount(attempt[attempt >= 0], minlength=num_modes)
    return reached / reached.sum()


def episode_commands(command: Tensor, episode: Tensor, count: int) -> Tensor:
    """(E,) from those of decisions (D, 1)."""
    out = torch.full((count,), UNCOMMANDED)
    out[episode] = command[:, 0].cpu()
    return out
