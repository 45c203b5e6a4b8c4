"""The measurement of `structured_exploration`, in words and as a picture."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from ..plots.run import save
from ..utils.tables import plain_table

MEASURES = ("success", "off_manifold")
STYLES = {
    "denoising": ("tab:blue", "o"),
    "gaussian_mean": ("tab:red", "s"),
    "gaussian_sample": ("tab:orange", "^"),
}


def below(arm: dict[str, Any], other: dict[str, Any], value: str) -> bool:
    """Whether the 95 % interval of `value` lies wholly below that of the other arm."""
    return bool(arm[f"{value}_ci"][1] < other[f"{value}_ci"][0])


def compare(arms: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Number of floors at which `denoising` clearly differs from each Gaussian arm, and from both.

    Returns:
        arm or "both" -> nearer, farther (off_manifold), better, worse (success).
    """
    floors = sorted({arm["floor"] for arm in arms})
    at = {(arm["arm"], arm["floor"]): arm for arm in arms}
    rivals = {name: [name] for name in STYLES if name != "denoising"}
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
    rows = [["", "floor", "success", "modes", "coverage (control)", "residual", "noise"]]
    rows.append(["base", "", *_numbers(base, "")])
    for arm in arms:
        coverage = arm["no_coverage"] and "too few"
        coverage = coverage or f"{arm['coverage']:.3f} ({arm['control_coverage']:.3f})"
        rows.append([arm["arm"], f"{arm['floor']:g}", *_numbers(arm, coverage)])
    return plain_table(rows)


def _numbers(arm: dict[str, Any], coverage: str) -> list[str]:
    success, residual = ("{:.3f} [{:.3f}, {:.3f}]".format(arm[k], *arm[f"{k}_ci"]) for k in MEASURES)
    return [success, str(arm.get("modes", "-")), coverage, residual, f"{arm['noise_rms']:.3f}"]


def conclusion(base: dict[str, Any], arms: list[dict[str, Any]]) -> str:
    """The measurement in plain words, a verdict on the claim last."""
    denoising_arms = [arm for arm in arms if arm["arm"] == "denoising"]
    against, of = compare(arms), len(denoising_arms)
    further = sum(below(base, arm, "off_manifold") for arm in denoising_arms)
    most = max(arm["off_manifold"] for arm in denoising_arms)
    lines = [
        f"Denoising's chunks lie further off the base's manifold than the base's own at {further} of {of} "
        f"floors; their residual is at most {most:.2f} times as large."
    ]
    for name in ("gaussian_mean", "gaussian_sample"):
        counts = against[name]
        lines.append(
            f"Against {name}, denoising is nearer to the manifold at {counts['nearer']} of {of} floors and "
            f"farther at {counts['farther']}; it succeeds more often at {counts['better']} and less often at "
            f"{counts['worse']}."
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

    for name in STYLES:
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
    for set_formatter in (axes[2].yaxis.set_major_formatter, axes[2].yaxis.set_minor_formatter):
        set_formatter("{x:g}")
    figure.suptitle(headline(arms) + ".", fontsize=11)
    figure.tight_layout()
    save(figure, path)
