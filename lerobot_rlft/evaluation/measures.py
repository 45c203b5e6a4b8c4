"""All offline metrics of mode diversity of a tuned policy beside its base, as `diversity.json` keeps them.

A metric that the episodes cannot carry is None, and `notes` says why.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..diversity.paths import path_features
from ..diversity.probe import Probe, deployed_chunks, encode
from ..metrics.chain_kl import chain_kl_rows
from ..metrics.keys import BLOCKED, MOST_ATTEMPTS
from ..metrics.modes import (
    bootstrap_interval,
    claim_refusal,
    conditional_entropy,
    effective_modes,
    entropy,
    entropy_ratio,
    min_retention,
    modes_covered,
    nats,
    success_at_n,
    success_at_n_interval,
)
from ..metrics.points import bandwidth_of, one_sample, shuffled
from ..metrics.registry import METRICS
from ..metrics.spread import manifold_dimension, nearest_neighbour_entropy, vendi_score
from ..metrics.two_sample import classifier_accuracy, energy_distance, mmd, nearest_neighbours
from ..policies.base import DenoisingPolicy
from ..rollout.episodes import Episodes, Rollout

ATTEMPTS = (1, 4, MOST_ATTEMPTS)
CHAIN_DECISIONS = 512  # decisions on which the KL is computed
MAX_SAMPLES = 1000  # paths in metrics that look at all pairs; more are subsampled


class Metrics(dict[str, Any]):
    """Values, and notes about those that could not be computed."""

    def __init__(self) -> None:
        super().__init__(notes={})

    @contextmanager
    def needs(self, *names: str) -> Iterator[None]:
        """Set each metric that the block cannot compute to None, and note the reason."""
        try:
            yield
        except ValueError as error:
            for name in names:
                self[name] = None
                self["notes"][name] = str(error)


def measure_modes(m: Metrics, tuned: np.ndarray | None, base: np.ndarray | None) -> None:
    """Add the metrics of counts of successes (M,) in each mode; none where no modes are known."""
    names = (
        "entropy", "entropy_plugin", "entropy_ratio", "modes_covered", "effective_modes", "min_retention",
    )  # fmt: skip
    if tuned is None or base is None:
        with m.needs(*names):
            raise ValueError("the environment names no modes and an atlas could not be fitted")
        m["claim_refusal"] = "No claim about modes: no modes are known."
        return
    m["claim_refusal"] = "No claim about modes: they cannot be counted."  # unless the next line can
    with m.needs():
        m["claim_refusal"] = claim_refusal(tuned, base)
    unit = math.log(max(2, len(base)))
    for prefix, counts in (("", tuned), ("base_", base)):
        m[prefix + "mode_counts"] = counts.tolist()
        m[prefix + "modes_covered"] = modes_covered(counts)
        with m.needs(*(prefix + name for name in ("entropy", "entropy_plugin", "effective_modes"))):
            effective = effective_modes(counts)  # refuses no successes
            low, high = bootstrap_interval(counts)
            m[prefix + "entropy"] = entropy(counts)
            m[prefix + "entropy_ci"] = [low / unit, min(1.0, high / unit)]
            m[prefix + "entropy_plugin"] = float(nats(counts, miller_madow=False)) / unit
            m[prefix + "effective_modes"] = effective
            m[prefix + "effective_modes_ci"] = [math.exp(low), min(float(len(counts)), math.exp(high))]
    with m.needs("entropy_ratio"):
        ratio = entropy_ratio(tuned, base)
        m["entropy_ratio"], m["entropy_ratio_ci"] = ratio.ratio, [ratio.low, ratio.high]
        m["entropy_ratio_samples"] = ratio.successes
    with m.needs("min_retention", "min_retention_mode"):
        retention = min_retention(tuned, base)
        m["min_retention"], m["min_retention_ci"] = retention.ratio, [retention.low, retention.high]
        m["min_retention_mode"] = retention.mode


def measure_registered(m: Metrics, tuned: dict[str, Any], base: dict[str, Any]) -> None:
    """All metrics of `metrics.registry`.

    Args:
        tuned, base: what each key of `READS` stands for; None where it is not known. Metrics that read what
            is not there are left out.
    """
    for name, metric in METRICS.items():
        if metric.reads not in tuned:
            continue
        with m.needs(name):
            sides = tuned[metric.reads], base[metric.reads]
            if any(side is None for side in sides):
                raise ValueError("the environment names no modes and an atlas could not be fitted")
            value = metric.compute(*sides)
            if isinstance(value, tuple):
                value, (low, high) = value
                m[f"{name}_ci"] = [low, high]
            m[name] = value


def measure_paths(m: Metrics, tuned: Episodes, base: Episodes, key: str) -> None:
    """Distances between successful paths: one feature vector for each episode."""
    names = ("coverage", "recall", "vendi", "energy_distance", "mmd", "classifier_accuracy", "path_entropy")
    if key not in tuned.states:
        with m.needs(*names):
            raise ValueError(f"the environment gives no {key}, so episodes have no path")
        return
    with m.needs(*names, "base_vendi", "base_path_entropy"):
        paths = [side.states[key][side.success] for side in (tuned, base)]
        if min(map(len, paths)) < 2:
            counts = " and ".join(str(len(path)) for path in paths)
            raise ValueError(f"{counts} successes (tuned and base): at least 2 of each are needed")
        a, b = (torch.as_tensor(rows) for rows in path_features(paths))
        if max(len(a), len(b)) > MAX_SAMPLES:
            m["notes"]["paths"] = f"metrics on paths use {MAX_SAMPLES} of {len(a)} and {len(b)} successes"
        halves = shuffled(b, 0).split((len(b) + 1) // 2)
        width = bandwidth_of(one_sample("base", b, MAX_SAMPLES, 0), None)
        with m.needs("coverage", "recall"):
            near = nearest_neighbours(a, b)
            m["coverage"], m["coverage_control"] = near.coverage, near.control_coverage
            m["recall"], m["recall_control"] = near.recall, near.control_recall
            m["coverage_samples"] = m["recall_samples"] = near.samples
        for prefix, rows in (("", a), ("base_", b)):
            n = min(len(a), len(b), MAX_SAMPLES)
            with m.needs(prefix + "vendi"):
                m[prefix + "vendi"], m["vendi_samples"] = vendi_score(rows, width, n)
            with m.needs(prefix + "path_entropy"):
                varies = (b.std(0) > 0) & (a.std(0) > 0)
                value = nearest_neighbour_entropy(rows[:, varies], max_samples=n)
                m[prefix + "path_entropy"], m["path_entropy_samples"] = value
        for name, compute in (
            ("energy_distance", lambda x, y: energy_distance(x, y, max_samples=MAX_SAMPLES)),
            ("mmd", lambda x, y: mmd(x, y, width, MAX_SAMPLES)),
        ):
            with m.needs(name):
                m[name], m[f"{name}_samples"] = compute(a, b)
                m[f"{name}_control"], _ = compute(*halves)
        with m.needs("classifier_accuracy"):
            test = classifier_accuracy(a, b)
            m["classifier_accuracy"], m["classifier_accuracy_ci"] = test.accuracy, [test.low, test.high]
            m["classifier_accuracy_samples"] = test.samples
            m["classifier_accuracy_control"] = classifier_accuracy(*halves).accuracy


def measure_chains(
    m: Metrics, tuned: DenoisingPolicy, base: DenoisingPolicy, chains: dict[str, Rollout], floor: float
) -> dict[str, np.ndarray]:
    """KL of the denoising chains in both directions.

    Args:
        chains: "reverse": episodes of the tuned policy, "forward": of the base.

    Returns:
        for each direction (T, K) nats, the mean over decision t of the episodes.
    """
    maps = {}
    for direction, (sampler, other) in {"reverse": (tuned, base), "forward": (base, tuned)}.items():
        data = chains[direction]
        rows = torch.linspace(0, len(data.t) - 1, min(len(data.t), CHAIN_DECISIONS)).long()
        kl = _chain_kl(sampler, other, data, rows, floor)  # (rows, K)
        m[f"kl_{direction}"] = float(kl.sum(1).mean())
        m[f"kl_{direction}_by_step"] = kl.mean(0).tolist()
        m[f"kl_{direction}_samples"] = len(rows)
        t = data.t[rows]
        maps[direction] = torch.stack([kl[t == i].mean(0) for i in t.unique()]).numpy()
    return maps


@torch.no_grad()
def _chain_kl(
    sampler: DenoisingPolicy, other: DenoisingPolicy, data: Rollout, rows: Tensor, floor: float
) -> Tensor:
    obs = {key: value[rows] for key, value in data.obs.items()}
    with torch.random.fork_rng():  # a commanded policy draws where nothing was commanded
        torch.manual_seed(0)
        one, two = sampler.encode(obs), other.encode(obs)
    return chain_kl_rows(
        lambda x, k: sampler.transition(x, k, one),
        lambda x, k: other.transition(x, k, two),
        data.chain.x[rows],
        sampler.executed,
        floor,
    ).cpu()


def measure_probe(m: Metrics, probe: Probe | None, tuned: DenoisingPolicy, no_probe: str = "") -> None:
    """Chunks at branching states.

    Args:
        no_probe: why `probe` is None.
    """
    names = ("chunk_spread", "peaks", "off_manifold")
    if probe is None:
        with m.needs(*names, "manifold_dimension"):
            raise ValueError(no_probe)
        return
    with m.needs(*names):
        reading = probe.measure(tuned)
        for name in (*names, "base_peaks"):
            m[name] = getattr(reading, name)
    for prefix, policy in (("", tuned), ("base_", probe.base)):
        with m.needs(prefix + "manifold_dimension"):
            m[prefix + "manifold_dimension"] = float(np.median(_manifold_dimensions(policy, probe)))


@torch.no_grad()
def _manifold_dimensions(policy: DenoisingPolicy, probe: Probe) -> list[int]:
    """Near one chunk of the deployed sampler at each probe state, from 4 noised copies for each dimension."""
    condition = encode(policy, probe.obs)
    chunks = deployed_chunks(policy, condition, 1, probe.seed)[:, 0]  # (P, H, D)
    features = chunks[0].numel()
    generator, out = torch.Generator().manual_seed(probe.seed), []
    for i in range(len(chunks)):
        x0 = chunks[i : i + 1].expand(4 * features, -1, -1)
        noise = torch.randn(x0.shape, generator=generator).to(x0.device)
        k = torch.zeros(len(x0), dtype=torch.long, device=x0.device)  # the least noisy step
        x, _ = policy.kernel.noised(x0, k, noise)
        prediction = policy.predict(x, policy.kernel.timesteps[k], condition[i : i + 1].expand(len(x0), -1))
        out.append(manifold_dimension(policy.kernel.score(x, k, prediction).flatten(1)))
    return out


def measure_conditional(m: Metrics, prefix: str, mode_counts: np.ndarray | None) -> None:
    """Entropy at a fixed initial state from counts (S, M)."""
    with m.needs(prefix + "conditional_entropy"):
        if mode_counts is None:
            raise ValueError("no modes are known, there are several tasks, or n_initial_states is 0")
        m[prefix + "conditional_entropy"], m[prefix + "initial_states"] = conditional_entropy(mode_counts)


def measure_blocked(m: Metrics, tuned: dict[str, int], base: dict[str, int], attempts: int) -> None:
    """Success at n attempts with one way blocked, mean over ways, and the way whose loss costs most.

    Nothing where nothing can be blocked.

    Args:
        tuned, base: way -> successes of `attempts` attempts.
    """
    m["n_attempts"] = attempts if tuned else 0
    m["blocked"] = {way: {"tuned": tuned[way], "base": base[way]} for way in tuned}
    mean, worst = f"{BLOCKED}_mean", f"{BLOCKED}_worst"
    for prefix, successes in (("", tuned), ("base_", base)):
        with m.needs(*(prefix + name for name in ("success_at", mean, worst, f"{worst}_way"))):
            if not tuned:
                raise ValueError("the environment cannot block a way")
            counts = np.array(list(successes.values()))
            at = {n: success_at_n(counts, attempts, n) for n in ATTEMPTS}
            within = {n: list(success_at_n_interval(counts, attempts, n)) for n in ATTEMPTS}
            m[prefix + "success_at"] = {str(n): value for n, value in at.items()}
            m[prefix + "success_at_ci"] = {str(n): value for n, value in within.items()}
            m[prefix + mean], m[f"{prefix}{mean}_ci"] = at[MOST_ATTEMPTS], within[MOST_ATTEMPTS]
            way = min(successes, key=lambda way: successes[way])
            alone = np.array([successes[way]])
            m[prefix + worst] = success_at_n(alone, attempts, MOST_ATTEMPTS)
            m[f"{prefix}{worst}_ci"] = list(success_at_n_interval(alone, attempts, MOST_ATTEMPTS))
            m[f"{prefix}{worst}_way"] = way
