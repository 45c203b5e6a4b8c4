"""The pictures that only the report has, with one colour for each policy."""

from pathlib import Path
from typing import Any

import numpy as np
from lerobot.utils.constants import OBS_STATE
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgba

from ..configs.eval import BASE
from ..diversity.probe import Probe, deployed_chunks, encode
from ..plots.run import BASE_COLOUR, policy_colours, save
from .comparison import Side
from .measures import ATTEMPTS
from .tables import columns

FAN_CHUNKS = 64
MARKERS = "osv^PXp"  # by policy; see-through and of different shapes, so that none hides another


def draw_success_and_diversity(path: Path, m: dict[str, Any], floor: float | None) -> None:
    """One point for each policy: success, and entropy of its modes relative to the base's, with intervals.

    Args:
        m: content of diversity.json; policies without a ratio are left out.
        floor: share of the base's entropy that was to be kept, a line; None draws none.
    """
    figure, axis = plt.subplots(figsize=(6.4, 4.6), layout="constrained")
    points = {name: side for name, side in columns(m).items() if side.get("entropy_ratio") is not None}
    low, high = m["base_success_ci"]
    bars = [[m["base_success"] - low], [high - m["base_success"]]]
    axis.errorbar(m["base_success"], 1, xerr=bars, fmt="D", color=BASE_COLOUR, label=BASE, capsize=3)
    colours = policy_colours(list(columns(m)), points)
    for i, ((name, side), colour) in enumerate(zip(points.items(), colours, strict=True)):
        x, y = side["success"], side["entropy_ratio"]
        face = "none" if side["claim_refusal"] else to_rgba(colour, 0.35)
        (x_low, x_high), (y_low, y_high) = side["success_ci"], side["entropy_ratio_ci"]
        axis.errorbar(
            x, y, xerr=[[x - x_low], [x_high - x]], yerr=[[y - y_low], [y_high - y]], capsize=3,
            fmt=MARKERS[i % len(MARKERS)], markersize=8, color=colour, markerfacecolor=face, label=name,
        )  # fmt: skip
    if floor is not None:
        axis.axhline(floor, color="0.3", ls="--", lw=1, label=f"floor {floor:g}")
    axis.set_xlabel("success (deployed sampler)")
    axis.set_ylabel("success entropy ratio to the base")
    axis.set_ylim(bottom=-0.03)
    axis.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=3, fontsize=8)
    save(figure, path)


def draw_fans(path: Path, probe: Probe, sides: list[Side]) -> None:
    """Executed chunks at each probe state, as paths of the first two action dimensions; a row for each side.

    Args:
        sides: the base first.
    """
    states = len(probe.condition)
    figure, axes = plt.subplots(
        len(sides), states, figsize=(2.6 * states, 2.5 * len(sides) + 0.4), squeeze=False
    )
    env, names = sides[0].runner.env, [side.title for side in sides[1:]]
    for row, side, colour in zip(axes, sides, (BASE_COLOUR, *policy_colours(names)), strict=True):
        chunks = deployed_chunks(side.policy, encode(side.policy, probe.obs), FAN_CHUNKS, probe.seed)
        for i, axis in enumerate(row):
            actions = side.policy.to_action(chunks[i]).cpu().numpy()  # (N, n_action_steps, D)
            if hasattr(env, "action_path") and OBS_STATE in probe.obs:
                lines = env.action_path(probe.obs[OBS_STATE][i, -1].cpu().numpy(), actions)
            else:
                lines = actions[..., :2]
            for line in lines:
                x, y = line.T if line.shape[1] > 1 else (np.arange(len(line)), line[:, 0])
                axis.plot(x, y, color=colour, lw=0.8, alpha=0.5)
            axis.set_title(f"{side.title}, state {i + 1}", fontsize=9)
            axis.tick_params(labelsize=6)
    for column in axes.T:
        limits = [(axis.get_xlim(), axis.get_ylim()) for axis in column]
        for axis in column:
            axis.set_xlim(min(x[0] for x, _ in limits), max(x[1] for x, _ in limits))
            axis.set_ylim(min(y[0] for _, y in limits), max(y[1] for _, y in limits))
    figure.tight_layout()
    save(figure, path)


def draw_kl_maps(path: Path, maps: dict[str, dict[str, np.ndarray]]) -> None:
    """Heat maps (T, K) of both directions, a row for each policy, on one colour scale."""
    figure, axes = plt.subplots(
        len(maps), 2, figsize=(9, 0.4 + 2.8 * len(maps)), squeeze=False, layout="constrained"
    )
    most = max(float(kl.max()) for pair in maps.values() for kl in pair.values())
    for row, (name, pair) in zip(axes, maps.items(), strict=True):
        titles = {
            "reverse": f"KL({name} || base), chains of {name}",
            "forward": f"KL(base || {name}), chains of base",
        }
        for axis, (direction, kl) in zip(row, pair.items(), strict=True):
            image = axis.imshow(kl.T, aspect="auto", origin="lower", cmap="magma", vmin=0, vmax=most or 1)
            axis.set_yticks([0, kl.shape[1] - 1], ["last", "noisiest"])
            axis.xaxis.get_major_locator().set_params(integer=True)
            axis.set_title(titles[direction], fontsize=9)
    for axis in axes[-1]:
        axis.set_xlabel("decision of the episode")
    figure.colorbar(image, ax=axes, label="nats")
    save(figure, path)


def draw_blocked(path: Path, m: dict[str, Any]) -> None:
    """Success at n attempts, and the share of single attempts that succeed with each way blocked.

    Args:
        m: content of diversity.json.
    """
    sides = columns(m)
    size = (8 + len(sides), 3.6)
    figure, (left, right) = plt.subplots(1, 2, figsize=size, width_ratios=(1, 2), layout="constrained")
    bars = [(BASE, m, "base_", "base"), *((name, side, "", "tuned") for name, side in sides.items())]
    width = 0.8 / len(bars)
    for i, ((name, side, prefix, key), colour) in enumerate(
        zip(bars, (BASE_COLOUR, *policy_colours(list(sides))), strict=True)
    ):
        shift = (i + 0.5) * width - 0.4
        values = np.array([side[prefix + "success_at"][str(n)] for n in ATTEMPTS])
        low, high = np.array([side[prefix + "success_at_ci"][str(n)] for n in ATTEMPTS]).T
        error = np.clip([values - low, high - values], 0, None)
        left.bar(np.arange(len(ATTEMPTS)) + shift, values, width, yerr=error, color=colour, label=name)
        rates = [way[key] / side["n_attempts"] for way in side["blocked"].values()]
        right.bar(np.arange(len(rates)) + shift, rates, width, color=colour)
    left.set_xticks(range(len(ATTEMPTS)), [str(n) for n in ATTEMPTS], fontsize=8)
    left.set_xlabel("attempts")
    left.set_ylabel("success")
    right.set_xticks(range(len(m["blocked"])), list(m["blocked"]), fontsize=8, rotation=30)
    right.set_title("single attempts, by blocked way", fontsize=9)
    for axis in (left, right):
        axis.set_ylim(0, 1.02)
    figure.legend(fontsize=8, loc="outside upper left", ncols=len(bars))
    save(figure, path)
