"""Commands: the mode an episode shall end in, drawn before it begins and told to the network throughout.

A policy that decides anew at every chunk which way to go is torn between ways, and RL on it selects ways
before it learns to go them. A commanded policy is told. Which modes are used, and how often, is then a matter
of what is asked for, out of reach of any gradient; RL is left with the question how well each is done.

The network learns what a command means in hindsight, by cloning successes of the base while it is told the
modes that they ended in (hindsight relabelling arXiv:1707.01495, goals by supervised learning
arXiv:1912.06088, commands arXiv:1912.02875). The base is unchanged where nothing is commanded.
Plain torch. Shapes: B batch, E episodes, D decisions, M modes.
"""

import torch
from torch import Tensor

COMMAND = "rlft.command"  # among observations, (B, 1) long; -1 where nothing is commanded
UNCOMMANDED = -1
MAX_MODES = 64
TARGETS = ("successful", "attempted", "uniform")


def draw_commands(shares: Tensor, count: int, practice: float = 0.0) -> Tensor:
    """(count,) long, modes drawn with probabilities `shares` (M,) or, the part `practice` of them, with equal
    probabilities of all that have a share.
    """
    return torch.multinomial(practised(shares, practice), count, replacement=True)


def practised(shares: Tensor, practice: float) -> Tensor:
    """Probabilities (M,) with which `draw_commands` draws."""
    modes = (shares > 0).float()
    return (1 - practice) * shares / shares.sum() + practice * modes / modes.sum()


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
    counts = torch.bincount(attempt[success & (attempt >= 0)], minlength=num_modes).float()
    if not counts.any():
        raise ValueError(
            "algorithm.commands learns from successes of the base in known modes, and there are none: raise "
            "--rollout.n_reference, or hold modes otherwise (--algorithm.commands.enable=false)"
        )
    if target == "uniform":
        counts = (counts > 0).float()
    elif target == "attempted":
        counts = (counts > 0) * torch.bincount(attempt[attempt >= 0], minlength=num_modes)
    return counts / counts.sum()


def episode_commands(command: Tensor, episode: Tensor, count: int) -> Tensor:
    """(E,) from those of decisions (D, 1)."""
    out = torch.full((count,), UNCOMMANDED)
    out[episode] = command[:, 0].cpu()
    return out
