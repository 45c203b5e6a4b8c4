"""Modes of several tasks where their environments name none: an atlas of each task."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..utils.errors import UserError
from ..utils.files import replacing
from .atlas import JSON, ModeAtlas


@dataclass(frozen=True, eq=False)
class SuiteAtlas:
    """Mode m of task t of T is number m T + t, of `T * (most modes of a task)`, as environments number them.

    Attributes:
        tasks: their names, or the sentences that recorded episodes carry.
        atlases: of each task; None where it has too few episodes or no path that varies.
        key: observation that the paths belong to.
    """

    tasks: tuple[str, ...]
    atlases: tuple[ModeAtlas | None, ...]
    key: str

    @classmethod
    def fit(
        cls,
        fit: Callable[[np.ndarray], ModeAtlas],
        tasks: Sequence[str],
        states: np.ndarray,
        task: np.ndarray,
        key: str,
    ) -> "SuiteAtlas":
        """Cluster the paths of each task by themselves.

        Args:
            fit: makes the atlas of one task from its paths (E_t, L+1, S).
            states: (E, L+1, S), NaN after an episode's end.
            task: (E,) int.

        Raises:
            UserError: no task has paths that can be clustered.
        """
        atlases: list[ModeAtlas | None] = []
        reason = ""
        for t in range(len(tasks)):
            try:
                atlases.append(fit(states[task == t]))
            except UserError as error:
                atlases.append(None)
                reason = f"{error} (task {tasks[t]})"
        if not any(atlases):
            raise UserError(reason)
        return cls(tuple(tasks), tuple(atlases), key)

    @property
    def num_modes(self) -> int:
        return len(self.tasks) * max(atlas.num_modes for atlas in self.atlases if atlas is not None)

    @property
    def unknown_share(self) -> float:
        """Mean over tasks of the share of paths that belong to no mode."""
        return float(np.mean([atlas.unknown_share for atlas in self.atlases if atlas is not None]))

    def assign(self, states: np.ndarray, task: np.ndarray | None = None) -> np.ndarray:
        """The mode of each episode, (E,) int64; -1 where it goes no way that the atlas of its task knows.

        Args:
            states: (E, L+1, S) with any L; failures too.
            task: (E,) int, the number of the task, or str, its sentence.
        """
        if task is None:
            raise ValueError("an atlas of several tasks must be told the tasks of the episodes")
        numbers = task
        if task.dtype.kind not in "iu":
            numbers = np.array([self.tasks.index(name) if name in self.tasks else -1 for name in task], int)
        out = np.full(len(states), -1)
        for t, atlas in enumerate(self.atlases):
            rows = np.flatnonzero(numbers == t)
            if atlas is not None and len(rows):
                modes = atlas.assign(states[rows])
                out[rows] = np.where(modes >= 0, modes * len(self.tasks) + t, -1)
        return out

    def check(self, env: str, key: str, num_dims: int | None = None) -> None:
        """Raise a UserError unless the atlases belong to this environment and observation."""
        for atlas in self.atlases:
            if atlas is not None:
                atlas.check(env, key, num_dims)

    def save(self, folder: Path) -> None:
        """Write atlas.json, and a folder for each task."""
        for t, atlas in enumerate(self.atlases):
            if atlas is not None:
                atlas.save(folder / f"task_{t:03d}")
        known = [atlas is not None for atlas in self.atlases]
        content = {"key": self.key, "tasks": self.tasks, "known": known, "num_modes": self.num_modes}
        with replacing(folder / JSON) as partial:
            partial.write_text(json.dumps(content, indent=2) + "\n")


Atlas = ModeAtlas | SuiteAtlas


def load_any(folder: Path) -> Atlas:
    """Read the atlas of one task, or of several.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        content = json.loads((folder / JSON).read_text())
        tasks, known, key = content["tasks"], content["known"], content["key"]
    except (OSError, ValueError, KeyError, TypeError):
        return ModeAtlas.load(folder)  # which says what is wrong
    atlases = [
        ModeAtlas.load(folder / f"task_{t:03d}") if is_known else None for t, is_known in enumerate(known)
    ]
    return SuiteAtlas(tuple(tasks), tuple(atlases), key)
