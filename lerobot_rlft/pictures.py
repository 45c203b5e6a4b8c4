"""Pictures of a run: trajectories coloured by mode, and the learning curve."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from .evaluation import Evaluation
from .files import replacing
from .rollout import Episodes

MAX_PATHS = 240  # drawn in one panel
POSITION_DIMS = [-2, -1]  # of observation.state: the agent's position in planar tasks


def is_planar(episodes: Episodes, env: Any) -> bool:
    """Whether the recorded states can be drawn as paths in a plane."""
    states = episodes.states
    return states is not None and (hasattr(env, "draw_map") or states.shape[-1] == len(POSITION_DIMS))


def draw_trajectories(path: Path, panels: list[tuple[str, Episodes, Evaluation]], env: Any) -> None:
    """One panel for each policy: paths of its episodes, successes coloured by mode, failures grey.

    Args:
        panels: (title, episodes, their evaluation); `is_planar` holds for the episodes.
        env: a vector env; its `draw_map(axes)` draws the scene where it has one.
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(5.2 * len(panels), 5.6), squeeze=False)
    for axis, (title, episodes, evaluation) in zip(axes[0], panels, strict=True):
        _draw_paths(axis, episodes)
        if hasattr(env, "draw_map"):
            env.draw_map(axis)
        low, high = evaluation.success_ci
        lines = [title, f"success {evaluation.success:.3f} [{low:.3f}, {high:.3f}]"]
        if evaluation.modes is not None:
            lines.append(
                f"{evaluation.modes} of {evaluation.num_modes} modes, entropy {evaluation.entropy:.2f}"
            )
        axis.set_title("\n".join(lines), fontsize=11)
        axis.set_aspect("equal")
        axis.set_xticks([])
        axis.set_yticks([])
    figure.tight_layout()
    save(figure, path)


def _draw_paths(axis: Axes, episodes: Episodes) -> None:
    assert episodes.states is not None
    colours = plt.get_cmap("gist_ncar")
    most = int(episodes.mode.max()) + 1 if episodes.mode is not None else 1
    for i in range(min(MAX_PATHS, len(episodes.success))):
        mode = int(episodes.mode[i]) if episodes.mode is not None else 0
        colour = colours(0.05 + 0.9 * mode / max(most, 1)) if episodes.success[i] and mode >= 0 else "0.8"
        x, y = episodes.states[i][:, POSITION_DIMS].T
        axis.plot(x, y, color=colour, lw=0.8, alpha=0.7, zorder=2 if episodes.success[i] else 1)


def draw_learning_curve(path: Path, records: list[dict[str, Any]]) -> None:
    """Success of the deployed sampler with its interval, and modes, over environment steps.

    Args:
        records: lines of metrics.jsonl with `kind == "eval"`, at least one.
    """
    steps = np.array([r["env_steps"] for r in records])
    figure, axis = plt.subplots(figsize=(6, 3.6))
    axis.plot(steps, [r["success"] for r in records], marker="o", ms=3, label="success (deployed)")
    low, high = np.array([r["success_ci"] for r in records]).T
    axis.fill_between(steps, low, high, alpha=0.2)
    if "modes" in records[0]:
        axis.plot(
            steps,
            [r["modes"] / r["num_modes"] for r in records],
            marker="s",
            ms=3,
            label="share of modes seen",
        )
        axis.plot(
            steps, [r["entropy"] for r in records], marker="^", ms=3, label="mode entropy (1 = uniform)"
        )
    else:
        axis.plot(steps, [r["max_reward"] for r in records], marker="s", ms=3, label="mean max reward")
    axis.set_xlabel("environment steps")
    axis.set_ylim(-0.02, 1.02)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    figure.tight_layout()
    save(figure, path)


def save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=110)
    plt.close(figure)
