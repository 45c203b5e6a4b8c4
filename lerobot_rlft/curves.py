"""Success and modes of several runs in one picture, from their metrics.jsonl."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from matplotlib import pyplot as plt

from .config import CONFIG_NAME
from .diversity.tracker import ModeTracker
from .errors import UserError
from .pictures import save
from .records import METRICS


@dataclass
class Curve:
    """One run. Shapes: I iterations.

    Attributes:
        group: the run's name without its seed; runs of one group share a colour.
        env_steps, success, effective_modes: (I,) of the exploratory episodes; modes of the newest 480.
        num_modes: of the environment or the atlas.
    """

    group: str
    env_steps: np.ndarray
    success: np.ndarray
    effective_modes: np.ndarray
    num_modes: int


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
            f"{run} counted no modes in its first iteration: choose a run whose {METRICS} has mode_counts"
        )
    tracker = ModeTracker(base[0]["mode_counts"], base[0]["n_episodes"])
    modes = []
    for line in train:
        modes.append(tracker.update(line["mode_counts"], episodes).get("effective_modes", np.nan))
    return Curve(
        group=re.sub(r"_\d+$", "", run.name),
        env_steps=np.array([line["env_steps"] for line in train]),
        success=np.array([line["success"] for line in train]),
        effective_modes=np.array(modes),
        num_modes=len(base[0]["mode_counts"]),
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
