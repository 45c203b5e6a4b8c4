"""The success / diversity front of a guarded run: which of its checkpoints is exported."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lerobot.utils.constants import CHECKPOINTS_DIR

from ..diversity.guard import retained
from ..plots.run import save
from ..utils.files import replacing
from ..utils.pictures import pyplot
from ..utils.run_folder import BEST_CHECKPOINT_LINK


@dataclass(frozen=True)
class Point:
    """An evaluation of the deployed sampler whose checkpoint is on disk.

    Attributes:
        success: rate.
        success_low: lower limit of its 95 % interval.
        ratio: of the guard's metric, tuned / base.
        checkpoint: its folder.
    """

    iteration: int
    success: float
    ratio: float
    checkpoint: Path
    success_low: float


def points(lines: list[dict[str, Any]], metric: str, run_dir: Path) -> list[Point]:
    """All evaluations of a run that can still be loaded, in order; none where that of the base, which they
    are compared with, shows fewer than two modes.

    Args:
        lines: those of `kind` eval in metrics.jsonl.
        metric: of the guard.
        run_dir: folder of the run.
    """
    evaluations = [line for line in lines if line["sampler"] == "deployed" and "mode_counts" in line]
    base = next((line for line in evaluations if line["iteration"] == 0), None)
    if base is None or np.count_nonzero(base["mode_counts"]) < 2:
        return []
    folders = {
        int(folder.name): folder
        for folder in (run_dir / CHECKPOINTS_DIR).iterdir()
        if folder.name.isdigit() and not folder.is_symlink()
    }
    return [
        Point(
            line["iteration"],
            line["success"],
            retained(metric, np.array(line["mode_counts"]), np.array(base["mode_counts"])),
            folders[line["iteration"]],
            line["success_ci"][0],
        )
        for line in evaluations
        if line["iteration"] in folders and not line.get("reloaded")
    ]


def front(all_points: list[Point]) -> list[Point]:
    """Those that no other one beats in both, by falling ratio."""
    return sorted(
        (
            p
            for p in all_points
            if not any(
                q.success >= p.success and q.ratio >= p.ratio and (q.success, q.ratio) != (p.success, p.ratio)
                for q in all_points
            )
        ),
        key=lambda p: -p.ratio,
    )


def best(all_points: list[Point], floor: float) -> Point | None:
    """The latest of the points that respect the floor and that their evaluation does not tell from the most
    successful one, whose interval it is in: the highest of many noisy readings owes its place to luck, the
    latest has learnt longest. None where none respects the floor.
    """
    candidates = [p for p in all_points if p.ratio >= floor]
    if not candidates:
        return None
    least = max(candidates, key=lambda p: p.success).success_low
    return max((p for p in candidates if p.success >= least), key=lambda p: p.iteration)


def draw_front(path: Path, all_points: list[Point], floor: float, metric: str, point: Point) -> None:
    """Success over retained diversity: all evaluations in order, the front, the floor, what is exported."""
    figure, axis = pyplot().subplots(figsize=(5.4, 4.4), layout="constrained")
    axis.plot([p.ratio for p in all_points], [p.success for p in all_points], color="0.75", lw=1, zorder=1)
    axis.scatter(
        [p.ratio for p in all_points],
        [p.success for p in all_points],
        c=[p.iteration for p in all_points],
        cmap="viridis",
        s=22,
        zorder=3,
        label="evaluation",
    )
    edge = front(all_points)
    axis.plot([p.ratio for p in edge], [p.success for p in edge], color="tab:orange", lw=1.2, label="front")
    axis.axvline(floor, color="tab:red", lw=1, ls="--", label=f"floor {floor:g}")
    axis.scatter(
        point.ratio, point.success, marker="*", s=220, color="tab:orange", zorder=2, label="exported"
    )
    for p in edge:
        axis.annotate(
            str(p.iteration), (p.ratio, p.success), fontsize=7, xytext=(3, 3), textcoords="offset points"
        )
    axis.set_xlabel(f"{metric.replace('_', ' ')} of successes, tuned / base")
    axis.set_ylabel("success (deployed)")
    axis.xaxis.set_major_locator(pyplot().MaxNLocator(7))
    axis.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=4, fontsize=8)  # within the axes it would hide points
    save(figure, path)


def link_best(point: Point) -> Path:
    """Let `checkpoints/best` point to a checkpoint; returns the link."""
    link = point.checkpoint.parent / BEST_CHECKPOINT_LINK
    with replacing(link) as partial:
        partial.symlink_to(point.checkpoint.name)
    return link
