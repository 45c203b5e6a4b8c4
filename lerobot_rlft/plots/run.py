"""Pictures of a run: trajectories coloured by mode, and the learning curve."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from lerobot.utils.constants import OBS_STATE

from ..diversity.atlas import ModeAtlas
from ..rollout.episodes import Episodes
from ..rollout.evaluation import Evaluation
from ..utils.files import make_folder, replacing
from ..utils.pictures import pyplot

MAX_PATHS = 240  # drawn in one panel
MOST_BESIDE = 4  # panels in one row
BASE_COLOUR = "0.65"
POLICY_COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:purple", "tab:brown", "tab:pink", "tab:cyan")
POSITION_DIMS = [-2, -1]  # of observation.state: the agent's position in planar tasks


def is_planar(episodes: Episodes, env: Any) -> bool:
    """Whether the recorded states can be drawn as paths in a plane."""
    states = episodes.states.get(OBS_STATE)
    return states is not None and (hasattr(env, "draw_map") or states.shape[-1] == len(POSITION_DIMS))


def draw_trajectories(path: Path, panels: list[tuple[str, Episodes, Evaluation]], env: Any) -> None:
    """One panel for each policy: paths of its episodes, successes coloured by mode, failures grey.

    Args:
        panels: (title, episodes, their evaluation); `is_planar` holds for the episodes.
        env: a vector env; its `draw_map(axes)` draws the scene where it has one.
    """
    beside = min(len(panels), MOST_BESIDE)
    down = -(-len(panels) // beside)
    size, font = (5.2, 11) if beside <= 2 else (3.7, 10)
    figure, axes = pyplot().subplots(
        down, beside, figsize=(size * beside, (size + 0.4) * down), squeeze=False
    )
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    for axis, (title, episodes, evaluation) in zip(axes.flat, panels, strict=False):
        _draw_paths(axis, episodes, evaluation.num_modes or 1)
        if hasattr(env, "draw_map"):
            env.draw_map(axis)
        low, high = evaluation.success_ci
        lines = [title, f"success {evaluation.success:.3f} [{low:.3f}, {high:.3f}]"]
        if evaluation.modes is not None:
            lines.append(
                f"{evaluation.modes} of {evaluation.num_modes} modes, entropy {evaluation.entropy:.2f}"
            )
        axis.set_title("\n".join(lines), fontsize=font)
        axis.set_aspect("equal")
        axis.set_xticks([])
        axis.set_yticks([])
    figure.tight_layout()
    save(figure, path)


def _draw_paths(axis: Any, episodes: Episodes, num_modes: int) -> None:
    for i in range(min(MAX_PATHS, len(episodes.success))):
        mode = int(episodes.mode[i]) if episodes.mode is not None else 0
        colour = mode_colour(mode, num_modes) if episodes.success[i] and mode >= 0 else "0.8"
        x, y = episodes.states[OBS_STATE][i][:, POSITION_DIMS].T
        axis.plot(x, y, color=colour, lw=0.8, alpha=0.7, zorder=2 if episodes.success[i] else 1)


def draw_learning_curve(path: Path, records: list[dict[str, Any]]) -> None:
    """Success of the deployed sampler with its interval, and modes, over environment steps.

    Args:
        records: lines of metrics.jsonl with `kind == "eval"`, at least one.
    """
    steps = np.array([r["env_steps"] for r in records])
    figure, axis = pyplot().subplots(figsize=(6, 3.6))
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


def draw_mode_shares(path: Path, base_counts: np.ndarray, counts: dict[str, np.ndarray]) -> None:
    """Share of each mode among successes, base beside tuned; a row for each policy.

    Args:
        base_counts: (M,), not all 0.
        counts: title -> (M,), not all 0.
    """
    figure, axes = pyplot().subplots(
        len(counts), figsize=(6.4, 0.9 + 1.9 * len(counts)), sharex=True, sharey=True, squeeze=False
    )
    places = np.arange(len(base_counts))
    for axis, (title, tuned), colour in zip(
        axes[:, 0], counts.items(), policy_colours(list(counts)), strict=True
    ):
        axis.bar(places - 0.2, base_counts / base_counts.sum(), 0.4, color=BASE_COLOUR, label="base")
        axis.bar(places + 0.2, tuned / tuned.sum(), 0.4, color=colour, label=title)
        axis.set_ylabel("share of successes" if len(counts) == 1 else "share")
        axis.set_xticks(places, places, fontsize=7)
        axis.legend(fontsize=8)
    axes[-1, 0].set_xlabel("mode")
    figure.tight_layout()
    save(figure, path)


def draw_kl(path: Path, iterations: list[int], kl: np.ndarray) -> None:
    """Heat map of the KL to the base.

    Args:
        iterations: (I,) what stands below the columns.
        kl: (I, K) nats of each denoising step, the last step first.
    """
    figure, axis = pyplot().subplots(figsize=(6, 3))
    image = axis.imshow(kl.T, aspect="auto", origin="lower", cmap="magma", interpolation="nearest")
    ticks = np.unique(np.linspace(0, len(iterations) - 1, min(len(iterations), 8)).astype(int))
    axis.set_xticks(ticks, [iterations[i] for i in ticks])
    axis.set_yticks([0, kl.shape[1] - 1], ["last", "noisiest"])
    axis.set_xlabel("iteration")
    axis.set_ylabel("denoising step")
    figure.colorbar(image, label="KL to the base, nats")
    figure.tight_layout()
    save(figure, path)


def draw_atlas(path: Path, atlas: ModeAtlas, env: Any) -> None:
    """A typical path of each mode; over the first two dimensions, or over time where there is one."""
    figure, axis = pyplot().subplots(figsize=(5.2, 5.6))
    for mode in range(atlas.num_modes):
        line = atlas.representative(mode)  # (P, dims)
        x, y = (line[:, 0], line[:, 1]) if line.shape[1] > 1 else (np.arange(len(line)), line[:, 0])
        axis.plot(x, y, color=mode_colour(mode, atlas.num_modes), lw=1.5)
        axis.annotate(str(mode), (x[-1], y[-1]), fontsize=7)
    if hasattr(env, "draw_map") and atlas.key == OBS_STATE:
        env.draw_map(axis)
    axis.set_title(
        f"{atlas.num_modes} modes, {100 * atlas.unknown_share:.0f} % of paths in none", fontsize=10
    )
    figure.tight_layout()
    save(figure, path)


def mode_colour(mode: int, num_modes: int) -> Any:
    return pyplot().get_cmap("gist_ncar")(0.05 + 0.9 * mode / max(num_modes, 1))


def policy_colours(names: list[str], selection: Iterable[str] | None = None) -> list[str]:
    """A colour for each policy of the `selection`, None for all.

    Args:
        names: all of them, the main one last; it gets the first colour.
    """
    colours = {name: POLICY_COLOURS[(i + 1) % len(POLICY_COLOURS)] for i, name in enumerate(names[:-1])}
    colours[names[-1]] = POLICY_COLOURS[0]
    return [colours[name] for name in (names if selection is None else selection)]


def save(figure: Any, path: Path) -> None:
    make_folder(path.parent)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=110)
    pyplot().close(figure)
