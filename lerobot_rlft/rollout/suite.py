"""The environments of several tasks as one vector environment."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Real
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector.utils import batch_space

from ..policies.base import DenoisingPolicy
from ..utils.errors import UserError
from .contract import MODE, NUM_MODES, TaskFailure, number_of_modes, shape_problems
from .workers import asynchronous, close_env, how_it_died

Place = Callable[[gym.vector.VectorEnv, list[int]], None]


class SuiteVectorEnv(gym.vector.VectorEnv):
    """C copies of each of T tasks side by side: copy j is of task j mod T, so that any T episodes in a row
    are one of each.

    Modes are those of a task: mode m of task t is number m T + t of `T * (most modes of a task)`.

    Args:
        vectors: C environments of each task, by the name of the task; with the same spaces.
        place: is called with the environments of a task and the seeds of their episodes before each reset,
            where a seed alone does not choose the initial state.
    """

    spec = None

    def __init__(self, vectors: dict[str, gym.vector.VectorEnv], place: Place | None = None) -> None:
        self.tasks, self.vectors, self.place = tuple(vectors), tuple(vectors.values()), place
        first = self.vectors[0]
        self.num_envs = sum(vector.num_envs for vector in self.vectors)
        self.task_of = np.arange(self.num_envs) % len(self.tasks)  # (N,)
        self.slots = [np.flatnonzero(self.task_of == t) for t in range(len(self.tasks))]
        self.metadata = first.metadata
        self.single_observation_space = first.single_observation_space
        self.single_action_space = first.single_action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._names_modes = [False] * len(self.tasks)
        self._num_modes = 0  # most of a task

    def reset(self, *, seed: Sequence[int] | None = None, options: dict[str, Any] | None = None):
        """Reset all; `seed` has one number for each copy."""
        seeds = [None if seed is None else [int(seed[i]) for i in slots] for slots in self.slots]
        if self.place is not None and seed is not None:
            for vector, own in zip(self.vectors, seeds, strict=True):
                self.place(vector, own)
        arguments = [{"seed": own, "options": options} for own in seeds]
        parts = self._each("reset", arguments)
        return self._side_by_side([raw for raw, _ in parts]), self._infos([info for _, info in parts])

    def step(self, actions: np.ndarray):
        arguments = [{"actions": actions[slots]} for slots in self.slots]
        raw, *numbers, infos = zip(*self._each("step", arguments), strict=True)
        return self._side_by_side(raw), *map(self._side_by_side, numbers), self._infos(infos)

    def _each(self, verb: str, arguments: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
        """What `verb` returns for each task; those with processes of their own work at the same time."""
        workers = [asynchronous(vector) for vector in self.vectors]
        for t, worker in enumerate(workers):
            if worker is not None:
                with self._blame(t):
                    getattr(worker, f"{verb}_async")(**arguments[t])
        results = []
        for t, (vector, worker) in enumerate(zip(self.vectors, workers, strict=True)):
            with self._blame(t):
                if worker is not None:
                    result = getattr(worker, f"{verb}_wait")()
                elif verb == "step":
                    result = vector.step(arguments[t]["actions"])
                else:
                    result = vector.reset(**arguments[t])
                if problems := list(shape_problems(result[0], self.single_observation_space)):
                    raise ValueError("; ".join(problems))
            results.append(result)
        return results

    @contextmanager
    def _blame(self, task: int) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise TaskFailure(self.tasks[task], how_it_died(self.vectors[task])) from error

    def _side_by_side(self, parts: Sequence[Any]) -> Any:
        """Arrays (C, ...) of each task, or dicts of them, in the order of the copies, (N, ...)."""
        if isinstance(parts[0], dict):
            return {key: self._side_by_side([part[key] for part in parts]) for key in parts[0]}
        out = np.empty((self.num_envs, *parts[0].shape[1:]), parts[0].dtype)
        for slots, part in zip(self.slots, parts, strict=True):
            out[slots] = part
        return out

    def _infos(self, infos: Sequence[dict[str, Any]]) -> dict[str, Any]:
        for t, info in enumerate(infos):
            self._names_modes[t] |= MODE in info or MODE in info.get("final_info", {})
        merged = _merged(list(zip(self.slots, infos, strict=True)), self.num_envs)
        for outcome in (merged, merged.get("final_info", {})):
            if MODE in outcome:
                outcome[MODE] = np.array(
                    [
                        mode * len(self.tasks) + t if isinstance(mode, Real) and mode >= 0 else mode
                        for mode, t in zip(outcome[MODE], self.task_of, strict=True)
                    ]
                )
        return merged

    @property
    def num_modes(self) -> int:
        """Numbers that modes may have, see above.

        Raises:
            UserError: a task names modes and does not say how many there are.
        """
        counts = [
            number_of_modes(vector)  # asking a process for something it does not have ends it
            for vector, names in zip(self.vectors, self._names_modes, strict=True)
            if names
        ]
        self._num_modes = max([self._num_modes, *counts])
        return self._num_modes * len(self.tasks)

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """The attribute, or the method's result, once for each copy."""
        if name == NUM_MODES:
            return (self.num_modes,) * self.num_envs
        out: list[Any] = [None] * self.num_envs
        for slots, vector in zip(self.slots, self.vectors, strict=True):
            for i, value in zip(slots, vector.call(name, *args, **kwargs), strict=True):
                out[i] = value
        return tuple(out)

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """The attribute, once for each copy."""
        return self.call(name)

    def close_extras(self, **kwargs: Any) -> None:
        for vector in self.vectors:
            close_env(vector)


def _merged(parts: list[tuple[np.ndarray, dict[str, Any]]], count: int) -> dict[str, Any]:
    """Info dicts of some of `count` environments, as gymnasium gives them, as one of all.

    Args:
        parts: which environments a dict belongs to, and the dict.
    """
    out: dict[str, Any] = {}
    names = {key: None for _, info in parts for key in info}
    for key in names:
        if key.startswith("_") and key[1:] in names:
            continue  # a mask
        owners = [(slots, info) for slots, info in parts if key in info]
        mask = np.zeros(count, bool)
        for slots, info in owners:
            mask[slots] = info.get(f"_{key}", True)
        if all(isinstance(info[key], dict) for _, info in owners):
            out[key] = _merged([(slots, info[key]) for slots, info in owners], count)
        else:
            out[key] = _scattered([(slots, np.asarray(info[key])) for slots, info in owners], count)
        out[f"_{key}"] = mask
    return out


def _scattered(parts: list[tuple[np.ndarray, np.ndarray]], count: int) -> np.ndarray:
    """Arrays of some environments as one of all; 0, or None among objects, where there is none."""
    kinds = {(array.shape[1:], array.dtype) for _, array in parts}
    if len(kinds) > 1:
        out = np.full(count, None)
        for slots, array in parts:
            for i, value in zip(slots, array, strict=True):
                out[i] = value
        return out
    ((shape, kind),) = kinds
    out = np.full(count, None) if kind.hasobject else np.zeros((count, *shape), kind)
    for slots, array in parts:
        out[slots] = array
    return out


def tasks_of(env: gym.vector.VectorEnv) -> tuple[str, ...]:
    """Names of the tasks where there are several, else nothing."""
    return env.tasks if isinstance(env, SuiteVectorEnv) and len(env.tasks) > 1 else ()


def sentences(policy: DenoisingPolicy, tasks: tuple[str, ...]) -> tuple[str, ...]:
    """Of several tasks the instructions that a policy reads, or else their names; else nothing."""
    return policy.task if tasks and policy.reads_language and isinstance(policy.task, tuple) else tasks


def check_dealt(tasks: Sequence[str], n_envs: int) -> None:
    """Raise a UserError unless as many of `rollout.n_envs` environments can be of each task."""
    if tasks and n_envs % len(tasks):
        count = len(tasks)
        nearest = max(1, round(n_envs / count)) * count
        raise UserError(
            f"rollout.n_envs={n_envs} cannot be dealt evenly to {count} tasks ({tasks[0]} to {tasks[-1]}): "
            f"give --rollout.n_envs={nearest}, and a multiple of it as --rollout.n_episodes, or other tasks"
        )


def check_episodes(tasks: Sequence[str], option: str, n_episodes: int) -> None:
    """Raise a UserError unless there is an episode for each task."""
    if n_episodes < len(tasks):
        raise UserError(
            f"{option}={n_episodes} leaves some of {len(tasks)} tasks out: give a multiple of {len(tasks)}"
        )
