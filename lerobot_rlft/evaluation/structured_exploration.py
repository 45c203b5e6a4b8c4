"""Exploration of a base along the expert manifold: its denoising noise beside Gaussian noise of equal size.

Three arms, each at several floors, the smallest std of the exploratory sampler (`DenoisingPolicy.sample`):
    denoising: chunks of that sampler, x ~ p_explore.
    gaussian_mean: mu + sqrt(v) eps, with mu the mean chunk of the deployed sampler and v = E[(x - mu)^2]:
        the mean action with as much noise as `denoising` has around it, element by element.
    gaussian_sample: a chunk of the deployed sampler + sqrt(w) eps, w = max(0, Var p_explore -
        Var p_deployed): the noise that exploration adds, without its structure. It tells whether
        `gaussian_mean` suffers from its noise or from its centre: the mean of several modes is in none.
Their moments are estimated anew at every decision from M chunks of either sampler. The deployed sampler
alone, `base`, is what all are compared with.

Shapes: E episodes, P states, M samples, B batch, C condition, H horizon, D action dim.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from lerobot.utils.constants import OBS_STATE
from torch import Tensor
from torch.distributions import Normal
from tqdm import tqdm

from ..chains.chain import with_std_floor
from ..diversity.paths import path_features
from ..diversity.probe import deployed_chunks, residuals
from ..metrics.spread import residual_ratio
from ..metrics.two_sample import nearest_neighbours
from ..policies.base import DenoisingPolicy
from ..rollout.episodes import Episodes
from ..rollout.evaluation import play_chunks, summarise
from ..rollout.runner import EpisodeRunner
from ..utils.errors import UserError

STATES = 256  # P: states of the base at which residual and noise are measured, one chunk of an arm at each
LOG_PROB_FLOOR = 0.1  # any: log-probabilities are not read here
LEAST_SUCCESSES = 20  # fewer say nothing about coverage with 5 neighbours

Act = Callable[[Tensor], Tensor]  # condition (B, C) -> chunk (B, H, D)


class Moments(NamedTuple):
    """Moments at each condition, (B, H, D): `mean` mu of deployed chunks; `around_mean` v, `added` w."""

    mean: Tensor
    around_mean: Tensor
    added: Tensor


def moments(chunks: Tensor, last_step: Normal) -> Moments:
    """Estimates from M >= 2 chunks of either sampler.

    Args:
        chunks: (B, M, H, D), as deployed.
        last_step: (B, M, H, D) what exploratory chunks are drawn from; the noise of this step enters with its
            exact variance instead of one draw of it.
    """
    mean = chunks.mean(1)
    noise = last_step.variance.mean(1)
    return Moments(
        mean=mean,
        around_mean=(last_step.mean - mean[:, None]).square().mean(1) + noise,
        added=(last_step.mean.var(1) + noise - chunks.var(1)).clamp(min=0),
    )


@torch.no_grad()
def estimate_moments(policy: DenoisingPolicy, condition: Tensor, floor: float, samples: int) -> Moments:
    """`moments` from `samples` chunks of either sampler at each condition (B, C).

    Both start from the same noise. Two independent estimates would differ where nothing is added, and as
    only what is below 0 is cut, `added` would come out too large.
    """
    seed = int(torch.randint(2**31, ()))
    chunks = deployed_chunks(policy, condition, samples, seed)
    many = condition.repeat_interleave(samples, 0)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        chain = policy.sample(many, floor, LOG_PROB_FLOOR)
    last = torch.zeros(len(many), dtype=torch.long, device=many.device)
    step = with_std_floor(policy.transition(chain.x[:, 1], last, many), floor)
    shape = chunks.shape
    return moments(chunks, Normal(step.mean.view(shape), step.stddev.view(shape)))


def explore(policy: DenoisingPolicy, condition: Tensor, floor: float) -> Tensor:
    return policy.sample(condition, floor, LOG_PROB_FLOOR).x[:, 0]


def denoising(policy: DenoisingPolicy, floor: float, samples: int) -> Act:
    return lambda condition: explore(policy, condition, floor)


def gaussian_mean(policy: DenoisingPolicy, floor: float, samples: int) -> Act:
    def act(condition: Tensor) -> Tensor:
        estimate = estimate_moments(policy, condition, floor, samples)
        return estimate.mean + estimate.around_mean.sqrt() * torch.randn_like(estimate.mean)

    return act


def gaussian_sample(policy: DenoisingPolicy, floor: float, samples: int) -> Act:
    def act(condition: Tensor) -> Tensor:
        variance = estimate_moments(policy, condition, floor, samples).added
        return policy.deployed_chunk(condition) + variance.sqrt() * torch.randn_like(variance)

    return act


ARMS = {"denoising": denoising, "gaussian_mean": gaussian_mean, "gaussian_sample": gaussian_sample}


@dataclass
class Reference:
    """The base at states that it visited.

    Attributes:
        condition: (P, C).
        mean: (P, H, D) mean of its deployed chunks.
        residual: (P,) of its denoiser on one deployed chunk.
        successes: (E, L+1, S) `observation.state` along its successful episodes.
    """

    condition: Tensor
    mean: Tensor
    residual: Tensor
    successes: np.ndarray


def measure(
    runner: EpisodeRunner, floors: list[float], n_episodes: int, samples: int, seed: int
) -> dict[str, Any]:
    """Play every arm at every floor, and twice as many episodes of the base.

    Args:
        runner: with the base; its environment gives `observation.state`.
        floors: each > 0.
        n_episodes: E of each arm. All arms play the same ones, and none of those of the base.
        samples: M.
        seed: of episodes and noise. The global random state stays as it was.

    Returns:
        `base` and `arms`, see `measure_arm`; each arm with its `arm`, `floor` and what `neighbours` returns.

    Raises:
        UserError: the base never succeeds.
    """
    policy = runner.policy
    conditions: list[Tensor] = []

    def base(condition: Tensor) -> Tensor:
        conditions.append(condition)
        return policy.deployed_chunk(condition)

    plan = [(arm, floor) for floor in floors for arm in ARMS]
    with tqdm(total=1 + len(plan), unit="arm", disable=None, desc="base") as bar:
        episodes = play_chunks(runner, base, 2 * n_episodes, seed)
        if not episodes.success.any():
            raise UserError(
                f"the base has no success in {2 * n_episodes} episodes (n_episodes={n_episodes}, for the "
                "base twice): choose a policy that sometimes solves the task, or raise --n_episodes"
            )
        reference = refer(policy, torch.cat(conditions), episodes, samples, seed)
        of_base = measure_arm(runner, policy.deployed_chunk, episodes, reference, seed)
        bar.update()
        arms = []
        for arm, floor in plan:
            bar.set_description(f"{arm} {floor:g}")
            act = ARMS[arm](policy, floor, samples)
            episodes = play_chunks(runner, act, n_episodes, seed + 2 * n_episodes)
            numbers = measure_arm(runner, act, episodes, reference, seed)
            arms.append({"arm": arm, "floor": floor, **numbers, **neighbours(episodes, reference.successes)})
            bar.update()
    return {"base": of_base, "arms": arms}


def refer(policy: DenoisingPolicy, visits: Tensor, episodes: Episodes, samples: int, seed: int) -> Reference:
    """The reference at `STATES` of the conditions `visits` (N, C), or at all of fewer."""
    rows = torch.randperm(len(visits), generator=torch.Generator().manual_seed(seed))[:STATES]
    condition = visits[rows.to(visits.device)]
    chunks = deployed_chunks(policy, condition, samples + 1, seed)
    return Reference(
        condition=condition,
        mean=chunks[:, 1:].mean(1),
        residual=residuals(policy, condition, chunks[:, :1], seed + 2),
        successes=episodes.states[OBS_STATE][episodes.success],
    )


def measure_arm(
    runner: EpisodeRunner, act: Act, episodes: Episodes, reference: Reference, seed: int
) -> dict[str, Any]:
    """Outcome of an arm's episodes, and its chunks at the states of the reference.

    Returns:
        the fields of `evaluation.Evaluation`;
        off_manifold, off_manifold_ci: residual of the base's denoiser on the arm's chunks relative to the
            base's own, same noise (`spread.residual_ratio`), with `ratio_interval`; near 1 for the base.
        noise_rms, noise_rms_ci: root mean square of a - mu over the executed elements, in normalised action
            units, with the bootstrap interval.
    """
    policy = runner.policy
    with torch.random.fork_rng():
        torch.manual_seed(seed + 1)
        chunk = act(reference.condition)
    residual = residuals(policy, reference.condition, chunk[:, None], seed + 2)
    away = policy.executed((chunk - reference.mean).square()).flatten(1).mean(1).cpu().numpy()  # (P,)
    low, high = ratio_interval(away, np.ones_like(away))
    outcome, _ = summarise(runner.env, episodes)
    return {
        **outcome.to_dict(),
        "off_manifold": residual_ratio(residual, reference.residual),
        "off_manifold_ci": ratio_interval(residual.cpu().numpy(), reference.residual.cpu().numpy()),
        "noise_rms": math.sqrt(away.mean()),
        "noise_rms_ci": (math.sqrt(low), math.sqrt(high)),
    }


def ratio_interval(
    values: np.ndarray, base_values: np.ndarray, resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile bootstrap (Efron 1979) of mean(values) / mean(base_values), pairs (P,) kept."""
    rows = np.random.default_rng(seed).integers(len(values), size=(resamples, len(values)))
    low, high = np.quantile(values[rows].mean(1) / base_values[rows].mean(1), (0.025, 0.975))
    return float(low), float(high)


def neighbours(episodes: Episodes, base_successes: np.ndarray) -> dict[str, Any]:
    """Coverage and recall of the base's successful paths (`two_sample.nearest_neighbours`), and controls.

    Args:
        base_successes: see `Reference`.

    Returns:
        coverage, recall, control_coverage, control_recall; paths: N, episodes compared on each side;
        no_coverage: None, or in words why the others are None.
    """
    keys = ("coverage", "recall", "control_coverage", "control_recall", "paths")
    successes = episodes.states[OBS_STATE][episodes.success]
    for whose, count in (("the arm", len(successes)), ("a half of the base", len(base_successes) // 2)):
        if count < LEAST_SUCCESSES:
            reason = f"{whose} has {count} successes, {LEAST_SUCCESSES} are needed"
            return dict.fromkeys(keys) | {"no_coverage": reason}
    shares = nearest_neighbours(*path_features([successes, base_successes]))
    return dict(zip(keys, shares, strict=True)) | {"no_coverage": None}


# What it says
