"""The tasks of a suite side by side: success and modes of base and tuned policy in each, and on average."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..metrics.modes import entropy_ratio

HEAD = ("task", "success of the base", "success", "modes of the base", "modes", "entropy ratio")
NOTHING = "-"
Tasks = dict[str, dict[str, Any]]


def measure_tasks(m: dict[str, Any], tuned: Tasks | None, base: Tasks | None) -> None:
    """Add what was measured in each task to `m`, content of diversity.json; nothing of one task.

    Args:
        tuned, base: name of the task -> its `Evaluation.to_dict`.
    """
    if tuned is None:
        return
    for prefix, tasks in (("", tuned), ("base_", base)):
        if tasks is not None:
            m[f"{prefix}tasks"] = tasks
            m[f"{prefix}task_success"] = mean_of(tasks, "success")
            m[f"{prefix}task_entropy"] = mean_of(tasks, "entropy")
    if base is not None:
        ratios = [_entropy_ratio(tuned[name], base.get(name)) for name in tuned]
        computed = [ratio for ratio in ratios if ratio is not None]
        m["task_entropy_ratio"] = float(np.mean(computed)) if computed else None


def mean_of(tasks: Tasks, key: str) -> float | None:
    """Mean over tasks; where it is about modes, over those with a success."""
    values = [task[key] for task in tasks.values() if key in task and (key == "success" or task["success"])]
    return float(np.mean(values)) if values else None


def _entropy_ratio(tuned: dict[str, Any], base: dict[str, Any] | None) -> float | None:
    try:
        return entropy_ratio(*(np.array((side or {})["mode_counts"]) for side in (tuned, base))).ratio
    except (KeyError, ValueError):  # no modes, or too few successes
        return None


def task_rows(m: dict[str, Any]) -> list[list[str]]:
    """A line for each task and one for their mean, in the columns of `HEAD`; empty where there is one task.

    Args:
        m: content of diversity.json.
    """
    tuned: Tasks = m.get("tasks") or {}
    base: Tasks = m.get("base_tasks") or {}
    rows = [
        [
            name,
            _success(base.get(name)),
            _success(tuned[name]),
            _modes(base.get(name)),
            _modes(tuned[name]),
            _short(_entropy_ratio(tuned[name], base.get(name))),
        ]
        for name in tuned
    ]
    if rows:
        mean = [_short(m.get(key)) for key in ("base_task_success", "task_success")]
        rows.append(["mean of the tasks", *mean, NOTHING, NOTHING, _short(m.get("task_entropy_ratio"))])
    return rows


def _success(task: dict[str, Any] | None) -> str:
    if task is None:
        return NOTHING
    low, high = task["success_ci"]
    return f"{task['success']:.3f} [{low:.3f}, {high:.3f}] of {task['n_episodes']}"


def _modes(task: dict[str, Any] | None) -> str:
    return NOTHING if task is None or "modes" not in task else f"{task['modes']} of {task['num_modes']}"


def _short(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3f}"


def with_head(m: dict[str, Any]) -> list[Sequence[str]]:
    """`task_rows` below their head; empty where there is one task."""
    rows = task_rows(m)
    return [HEAD, *rows] if rows else []
