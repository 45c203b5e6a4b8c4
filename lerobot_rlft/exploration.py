"""Does denoising explore along the expert manifold, and does Gaussian noise leave it? Measured on a base.

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
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lerobot.utils.constants import OBS_STATE
from matplotlib import pyplot as plt
from torch import Tensor
from torch.distributions import Normal
from tqdm import tqdm

from .chains import Chain, with_std_floor
from .diversity.atlas import path_features
from .diversity.probe import deployed_chunks, residuals
from .diversity.spread import residual_ratio
from .diversity.two_sample import nearest_neighbours
from .errors import UserError
from .evaluation import LOG_PROB_FLOOR, Evaluation, name_modes
from .pictures import save
from .policies.base import DenoisingPolicy
from .rollout import EpisodeRunner, Episodes

STATES = 256  # P: states of the base at which residual and noise are measured, one chunk of an arm at each
LEAST_SUCCESSES = 20  # fewer say nothing about coverage with 5 neighbours
MEASURES = ("success", "off_manifold")
STYLES = {
    "denoising": ("tab:blue", "o"),
    "gaussian_mean": ("tab:red", "s"),
    "gaussian_sample": ("tab:orange", "^"),
}

Act = Callable[[Tensor], Tensor]  # condition (B, C) -> chunk (B, H, D)


class Moments(NamedTuple):
    """For each condition, (B, H, D): `mean` mu of deployed chunks; `around_mean` v and `added` w as above."""

    mean: Tensor
    around_mean: Tensor
    added: Tensor


def moments(deployed: Tensor, last_step: Normal) -> Moments:
    """Estimates from M >= 2 chunks of either sampler.

    Args:
        deployed: (B, M, H, D) chunks.
        last_step: (B, M, H, D) what exploratory chunks are drawn from; the noise of this step enters with its
            exact variance instead of one draw of it.
    """
    mean = deployed.mean(1)
    noise = last_step.variance.mean(1)
    return Moments(
        mean=mean,
        around_mean=(last_step.mean - mean[:, None]).square().mean(1) + noise,
        added=(last_step.mean.var(1) + noise - deployed.var(1)).clamp(min=0),
    )


@torch.no_grad()
def estimate_moments(policy: DenoisingPolicy, condition: Tensor, floor: float, samples: int) -> Moments:
    """`moments` from `samples` chunks of either sampler at each condition (B, C).

    Both start from the same noise. Two independent estimates would differ where nothing is added, and as
    only what is below 0 is cut, `added` would come out too large.
    """
    seed = int(torch.randint(2**31, ()))
    deployed = deployed_chunks(policy, condition, samples, seed)
    many = condition.repeat_interleave(samples, 0)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        chain = policy.sample(many, floor, LOG_PROB_FLOOR)
    last = torch.zeros(len(many), dtype=torch.long, device=many.device)
    step = with_std_floor(policy.transition(chain.x[:, 1], last, many), floor)
    shape = deployed.shape
    return moments(deployed, Normal(step.mean.view(shape), step.stddev.view(shape)))


def explore(policy: DenoisingPolicy, condition: Tensor, floor: float) -> Tensor:
    return policy.sample(condition, floor, LOG_PROB_FLOOR).x[:, 0]


def denoising(policy: DenoisingPolicy, floor: float, samples: int) -> Act:
    return lambda condition: explore(policy, condition, floor)


def gaussian_mean(policy: DenoisingPolicy, floor: float, samples: int) -> Act:
    def act(condition: Tensor) -> Tensor:
        found = estimate_moments(policy, condition, floor, samples)
        return found.mean + found.around_mean.sqrt() * torch.randn_like(found.mean)

    return act


def gaussian_sample(policy: DenoisingPolicy, floor: float, samples: int) -> Act:
    def act(condition: Tensor) -> Tensor:
        added = estimate_moments(policy, condition, floor, samples).added
        return policy.deployed_chunk(condition) + added.sqrt() * torch.randn_like(added)

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
    visited: list[Tensor] = []

    def base(condition: Tensor) -> Tensor:
        visited.append(condition)
        return policy.deployed_chunk(condition)

    plan = [(arm, floor) for floor in floors for arm in ARMS]
    with tqdm(total=1 + len(plan), unit="arm", desc="base") as bar:
        episodes = play(runner, base, 2 * n_episodes, seed)
        if not episodes.success.any():
            raise UserError(
                f"the base has no success in {2 * n_episodes} episodes (n_episodes={n_episodes}, for the "
                "base twice): choose a policy that sometimes solves the task, or raise --n_episodes"
            )
        reference = refer(policy, torch.cat(visited), episodes, samples, seed)
        of_base = measure_arm(runner, policy.deployed_chunk, episodes, reference, seed)
        bar.update()
        arms = []
        for arm, floor in plan:
            bar.set_description(f"{arm} {floor:g}")
            act = ARMS[arm](policy, floor, samples)
            episodes = play(runner, act, n_episodes, seed + 2 * n_episodes)
            found = measure_arm(runner, act, episodes, reference, seed)
            arms.append({"arm": arm, "floor": floor, **found, **neighbours(episodes, reference.successes)})
            bar.update()
    return {"base": of_base, "arms": arms}


def play(runner: EpisodeRunner, act: Act, n_episodes: int, seed: int) -> Episodes:
    """Episodes on seeds `seed, seed + 1, ...`."""

    def decide(condition: Tensor) -> Chain:
        chunk = act(condition)
        return Chain(chunk[:, None], chunk.new_zeros(len(chunk), 0))

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return runner.evaluate(n_episodes, seed + np.arange(n_episodes), decide)


def refer(policy: DenoisingPolicy, visited: Tensor, episodes: Episodes, samples: int, seed: int) -> Reference:
    """The reference at `STATES` of the `visited` conditions (N, C), or at all of fewer."""
    rows = torch.randperm(len(visited), generator=torch.Generator().manual_seed(seed))[:STATES]
    condition = visited[rows.to(visited.device)]
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
    named, num_modes = name_modes(runner.env, episodes, None)
    return {
        **Evaluation.of(named, num_modes).to_dict(),
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
    found = nearest_neighbours(*path_features([successes, base_successes]))
    return dict(zip(keys, found, strict=True)) | {"no_coverage": None}


# What it says


def below(arm: dict[str, Any], other: dict[str, Any], value: str) -> bool:
    """Whether the 95 % interval of `value` lies wholly below that of the other arm."""
    return bool(arm[f"{value}_ci"][1] < other[f"{value}_ci"][0])


def compare(arms: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """At how many floors `denoising` clearly differs from each Gaussian arm, and from both of them.

    Returns:
        arm or "both" -> nearer, farther (off_manifold), better, worse (success).
    """
    floors = sorted({arm["floor"] for arm in arms})
    at = {(arm["arm"], arm["floor"]): arm for arm in arms}
    rivals = {name: [name] for name in ARMS if name != "denoising"}
    rivals["both"] = list(rivals)

    def count(names: list[str], clearly: Callable[[dict, dict], bool]) -> int:
        return sum(all(clearly(at["denoising", f], at[name, f]) for name in names) for f in floors)

    return {
        key: {
            "nearer": count(names, lambda a, b: below(a, b, "off_manifold")),
            "farther": count(names, lambda a, b: below(b, a, "off_manifold")),
            "better": count(names, lambda a, b: below(b, a, "success")),
            "worse": count(names, lambda a, b: below(a, b, "success")),
        }
        for key, names in rivals.items()
    }


def headline(arms: list[dict[str, Any]]) -> str:
    """The measurement in one sentence."""
    against, of = compare(arms), len({arm["floor"] for arm in arms})
    return (
        "Denoising explores nearer to the base's manifold than Gaussian noise around its mean action at "
        f"{against['gaussian_mean']['nearer']} of {of} noise sizes,\nand than Gaussian noise on a sampled "
        f"action at {against['gaussian_sample']['nearer']} of {of}"
    )


def table(base: dict[str, Any], arms: list[dict[str, Any]]) -> str:
    """A line for the base and for each arm at each floor."""
    head = f"{'':<16} floor  success               modes  coverage (control)  residual              noise"
    rows = [head, f"{'base':<16} {'':<6} {_numbers(base, '')}"]
    for arm in arms:
        coverage = arm["no_coverage"] and "too few"
        coverage = coverage or f"{arm['coverage']:.3f} ({arm['control_coverage']:.3f})"
        rows.append(f"{arm['arm']:<16} {arm['floor']:<6g} {_numbers(arm, coverage)}")
    return "\n".join(rows)


def _numbers(arm: dict[str, Any], coverage: str) -> str:
    success, residual = ("{:.3f} [{:.3f}, {:.3f}]".format(arm[k], *arm[f"{k}_ci"]) for k in MEASURES)
    modes = str(arm.get("modes", "-"))
    return f"{success}  {modes:<5}  {coverage:<18}  {residual}  {arm['noise_rms']:.3f}"


def conclusion(base: dict[str, Any], arms: list[dict[str, Any]]) -> str:
    """The measurement in plain words, a verdict on the claim last."""
    explored = [arm for arm in arms if arm["arm"] == "denoising"]
    against, of = compare(arms), len(explored)
    left = sum(below(base, arm, "off_manifold") for arm in explored)
    most = max(arm["off_manifold"] for arm in explored)
    lines = [
        f"Denoising's chunks lie further off the base's manifold than the base's own at {left} of {of} "
        f"floors; their residual is at most {most:.2f} times as large."
    ]
    for name in ("gaussian_mean", "gaussian_sample"):
        found = against[name]
        lines.append(
            f"Against {name}, denoising is nearer to the manifold at {found['nearer']} of {of} floors and "
            f"farther at {found['farther']}; it succeeds more often at {found['better']} and less often at "
            f"{found['worse']}."
        )
    if against["gaussian_mean"]["nearer"] == of and against["gaussian_sample"]["nearer"] == 0:
        lines.append(
            "So it is the mean of the base's chunks that lies off the manifold; on a sampled chunk, Gaussian "
            "noise of equal size does no worse than denoising."
        )
    both = against["both"]["nearer"]
    verdict = "holds" if both == of else "fails" if both == 0 else "holds in part"
    lines.append(
        f"The claim that denoising explores along the expert manifold and Gaussian noise leaves it {verdict} "
        f"here: denoising is nearer to it than both Gaussian arms at {both} of {of} floors. (Each time: 95 % "
        "intervals that do not overlap.)"
    )
    return "\n".join(lines)


def draw(path: Path, base: dict[str, Any], arms: list[dict[str, Any]]) -> None:
    """Success, coverage and off-manifold residual over the floors, a line for each arm."""
    figure, axes = plt.subplots(1, 3, figsize=(12.5, 4.2))
    floors = sorted({arm["floor"] for arm in arms})
    at = {(arm["arm"], arm["floor"]): arm for arm in arms}

    def column(name: str, key: str) -> list[float]:
        return [math.nan if at[name, f][key] is None else at[name, f][key] for f in floors]

    for name in ARMS:
        colour, marker = STYLES[name]
        style = {"color": colour, "marker": marker, "ms": 5, "label": name}
        for axis, key in zip(axes[::2], MEASURES, strict=True):
            low, high = np.array(column(name, f"{key}_ci")).T
            axis.plot(floors, column(name, key), **style)
            axis.fill_between(floors, low, high, color=colour, alpha=0.15, lw=0)
        axes[1].plot(floors, column(name, "coverage"), **style)
        axes[1].plot(floors, column(name, "control_coverage"), color=colour, ls="--", lw=1)
    axes[0].axhline(base["success"], color="0.3", ls="--", lw=1, label="base")
    axes[1].plot([], [], color="0.3", ls="--", lw=1, label="control: other base\nsuccesses, as many")
    axes[2].axhline(base["off_manifold"], color="0.3", ls="--", lw=1, label="base")
    titles = ("success", "coverage of the base's successful paths", "off-manifold residual / base")
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("exploration floor (std)")
        axis.set_xticks(floors, [f"{f:g}" for f in floors])
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    for axis in axes[:2]:
        axis.set_ylim(-0.02, 1.02)
    axes[2].set_yscale("log")
    for formatted in (axes[2].yaxis.set_major_formatter, axes[2].yaxis.set_minor_formatter):
        formatted("{x:g}")
    figure.suptitle(headline(arms) + ".", fontsize=11)
    figure.tight_layout()
    save(figure, path)
