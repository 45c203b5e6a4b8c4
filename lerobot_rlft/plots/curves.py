"""Success and modes of several runs in one picture, from their metrics.jsonl."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from matplotlib import patheffects
from matplotlib import pyplot as plt
from matplotlib.patches import Patch

from ..diversity.tracker import ModeTracker
from ..utils.errors import UserError
from ..utils.run_folder import CONFIG_NAME, METRICS
from .run import mode_colour, save

PANELS_IN_A_ROW = 4
NAMED_MODES = 10  # a legend of more says nothing


@dataclass
class Curve:
    """One run. Shapes: I iterations, M modes.

    Attributes:
        name: of its folder.
        group: the run's name without its seed; runs of one group share a colour.
        env_steps, success, effective_modes: (I,) of the exploratory episodes; modes of the newest 480.
        mode_counts: (I, M) successes in each mode, of the newest 480 episodes.
    """

    name: str
    group: str
    env_steps: np.ndarray
    success: np.ndarray
    effective_modes: np.ndarray
    mode_counts: np.ndarray

    @property
    def num_modes(self) -> int:
        """M, of the environment or the atlas."""
        return self.mode_counts.shape[1]


def read_curve(run: Path) -> Curve:
    """Read a run of `lerobot-rlft-train`; one that still goes on will do.

    Raises:
        UserError: it is none, or its modes were not counted.
    """
    try:
        lines = [json.loads(line) for line in (run / METRICS).read_text().splitlines()]
        episodes = yaml.safe_load((run / CONFIG_NAME).read_text())["rollout"]["n_episodes"]
    except (OSError, ValueError, KeyError, yaml.YAMLError) as error:
        raise UserError(
            f"{run} is not the folder of a run: {METRICS} or {CONFIG_NAME} is missing or damaged ({error})"
        ) from error
    train = [line for line in lines if line["kind"] == "train" and "mode_counts" in line]
    base = [line for line in lines if line.get("sampler") == "exploratory" and "mode_counts" in line]
    if not train or not base:
        raise UserError(
            f"{run} counted no modes of exploratory episodes: choose a run of dppo whose {METRICS} has "
            "mode_counts in its train lines"
        )
    tracker = ModeTracker(base[0]["mode_counts"], base[0]["n_episodes"])
    modes, counts = [], []
    for line in train:
        modes.append(tracker.update(line["mode_counts"], episodes).get("effective_modes", np.nan))
        counts.append(tracker.counts)
    return Curve(
        name=run.name,
        group=re.sub(r"_\d+$", "", run.name),
        env_steps=np.array([line["env_steps"] for line in train]),
        success=np.array([line["success"] for line in train]),
        effective_modes=np.array(modes),
        mode_counts=np.array(counts),
    )


def draw_curves(path: Path, curves: list[Curve]) -> None:
    """Two panels over environment steps: success, and effective modes; one colour for each group."""
    groups = list(dict.fromkeys(curve.group for curve in curves))
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8))
    for i, group in enumerate(groups):
        for j, curve in enumerate(c for c in curves if c.group == group):
            style = {"color": f"C{i}", "lw": 1.6, "alpha": 0.9, "label": group if j == 0 else None}
            left.plot(curve.env_steps, curve.success, **style)
            right.plot(curve.env_steps, curve.effective_modes, **style)
    left.set_ylabel("success (exploratory episodes)")
    left.set_ylim(-0.02, 1.02)
    right.set_ylabel(f"effective modes of {curves[0].num_modes}")
    right.set_ylim(0, None)
    for axis in (left, right):
        axis.set_xlabel("environment steps")
        axis.xaxis.set_major_formatter(lambda steps, _: f"{steps / 1000:g}k")
        axis.grid(alpha=0.3)
    right.legend(fontsize=8)
    figure.tight_layout()
    save(figure, path)


def draw_shares(path: Path, curves: list[Curve]) -> None:
    """A panel for each run: stacked shares of the modes among successes, with success as a line.

    Raises:
        UserError: the runs have different numbers of modes, and so no colours in common.
    """
    numbers = {curve.name: curve.num_modes for curve in curves}
    if len(set(numbers.values())) > 1:
        text = ", ".join(f"{name} has {number}" for name, number in numbers.items())
        raise UserError(f"the runs have different numbers of modes ({text}): draw their shares apart")
    colours = [mode_colour(mode, curves[0].num_modes) for mode in range(curves[0].num_modes)]
    columns = min(PANELS_IN_A_ROW, len(curves))
    rows = -(-len(curves) // columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(1 + 2.9 * columns, 0.5 + 2.6 * rows),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    halo = [patheffects.withStroke(linewidth=3.5, foreground="white")]
    for axis, curve in zip(axes.flat, curves, strict=False):
        shares = curve.mode_counts / np.maximum(curve.mode_counts.sum(1, keepdims=True), 1)
        axis.stackplot(curve.env_steps, shares.T, colors=colours, alpha=0.75, edgecolor="white", lw=0.5)
        (line,) = axis.plot(curve.env_steps, curve.success, color="0.1", lw=1.6, path_effects=halo)
        axis.set_title(curve.name, fontsize=10)
        axis.margins(x=0)
        axis.set_ylim(0, 1)
        axis.xaxis.set_major_formatter(lambda steps, _: f"{steps / 1000:g}k")
    for axis in axes.flat[len(curves) :]:
        axis.set_axis_off()
    figure.supxlabel("environment steps", fontsize=10)
    figure.supylabel("share of successes", fontsize=10)
    entries = {"success": line}
    if len(colours) <= NAMED_MODES:
        entries |= {f"mode {i}": Patch(color=colour, alpha=0.75) for i, colour in enumerate(colours)}
    figure.legend(
        entries.values(),
        entries.keys(),
        loc="outside upper center",
        ncols=len(entries),
        fontsize=8,
        frameon=False,
    )
    save(figure, path)
