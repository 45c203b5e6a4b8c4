"""Checks of an environment, once, before anything is played; docs/own_environment.md lists them.

An `EnvironmentFailure` is what breaks the contract later, in the middle of an episode.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Real
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from lerobot.envs.utils import NEW_ROLLOUT_OPTION

from ..utils.errors import EnvironmentFailure, UserError
from .workers import how_it_died

SUCCESS, MODE, MAX_STEPS, NUM_MODES = "is_success", "mode", "_max_episode_steps", "num_modes"
NUMBERS = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
NO_SUCCESS = (
    f"the environment never says whether an episode succeeded: put info[{SUCCESS!r}], true or false, into "
    "what each step returns, at the top level"
)


def check_contract(envs: gym.vector.VectorEnv, name: str) -> None:
    """Check what environments declare, then a reset and as many steps as it takes until they name success.

    Steps take the middle of the action space. That is one step where success is in every info.

    Args:
        name: of the environment's type.

    Raises:
        UserError: they do not keep the contract; the message names all that is wrong.
        EnvironmentFailure: they raise.
    """
    problems = [
        *_observation_problems(envs.single_observation_space),
        *_action_problems(envs.single_action_space),
        *_length_problems(envs),
    ] or list(_play_problems(envs))
    if problems:
        raise UserError(
            f"env.type={name} cannot be used: {'; '.join(problems)}. What an environment must give: "
            "docs/own_environment.md"
        )


def _observation_problems(space: gym.Space, name: str = "") -> Iterator[str]:
    if isinstance(space, spaces.Dict):
        for key, inner in space.items():
            yield from _observation_problems(inner, f"{name}/{key}".lstrip("/"))
    elif not name:
        yield (
            f"it gives bare arrays {space}: choose an obs_type with named observations, for example "
            "--env.obs_type=pixels_agent_pos, or make the observation space a Dict"
        )
    elif not isinstance(space, NUMBERS):
        yield (
            f"observation {name} is {type(space).__name__}: give numbers or images; a sentence belongs into "
            "the attribute task_description"
        )
    elif name.split("/")[0] == "pixels":
        yield from _image_problems(name, space.shape, space.dtype)


def _image_problems(name: str, shape: tuple[int, ...], dtype: np.dtype) -> Iterator[str]:
    if dtype != np.uint8:
        yield f"image {name} is {dtype}: give uint8, 0 to 255"
    if len(shape) != 3 or shape[2] >= min(shape[:2]):
        yield f"image {name} is {shape}: give (height, width, channels)"


def _action_problems(space: gym.Space) -> Iterator[str]:
    if not isinstance(space, spaces.Box) or not np.issubdtype(space.dtype, np.floating):
        yield f"its actions are {space}: give a Box of floats, a policy sends numbers that are no choices"
    elif len(space.shape) != 1:
        yield f"its actions have shape {space.shape}: give one row of numbers"


def _length_problems(envs: gym.vector.VectorEnv) -> Iterator[str]:
    try:
        with process_errors_unsaid():
            steps = envs.call(MAX_STEPS)[0]
    except Exception:  # also of another process
        steps = None
    if not isinstance(steps, (int, np.integer)) or steps < 1:
        problem = "it has no" if steps is None else f"{steps!r} is no"
        yield (
            f"{problem} attribute {MAX_STEPS}, the most steps of an episode, a whole number: gymnasium sets "
            "it where an environment is registered with max_episode_steps"
        )


def _play_problems(envs: gym.vector.VectorEnv) -> Iterator[str]:
    with blame_environment("reset"):
        seeds = list(range(envs.num_envs))
        raw, _ = envs.reset(seed=seeds, options={NEW_ROLLOUT_OPTION: True})
    if problems := list(shape_problems(raw, envs.single_observation_space)):
        yield from problems
        return
    action = np.tile(middle(envs.single_action_space), (envs.num_envs, 1))
    for step in range(envs.call(MAX_STEPS)[0]):
        with blame_environment(f"step {step + 1}"):
            raw, _, terminated, truncated, info = envs.step(action)
        if problems := list(shape_problems(raw, envs.single_observation_space)):
            yield from problems
            return
        done = terminated | truncated
        # Of a copy that autoresets, `info` belongs to the next episode.
        pairs = [(info, ~done), (info["final_info"], done)] if "final_info" in info else [(info, done | True)]
        for outcome, whose in pairs:
            if SUCCESS in outcome and (outcome.get(f"_{SUCCESS}", whose) & whose).any():
                yield from _outcome_problems(envs, outcome)
                return
        if done.any():
            break
    yield NO_SUCCESS


def _outcome_problems(envs: gym.vector.VectorEnv, info: dict[str, Any]) -> Iterator[str]:
    """Success, and modes where they are named, have the right kind."""
    for value in np.atleast_1d(info[SUCCESS]):
        if not (value is None or isinstance(value, (bool, np.bool_, Real))):
            yield f"info[{SUCCESS!r}] is {value!r}: give true or false"
            return
    if MODE in info:
        try:
            for i in np.flatnonzero(info.get(f"_{MODE}", np.ones(envs.num_envs, bool))):
                mode_number(info[MODE][i])
            number_of_modes(envs)
        except (EnvironmentFailure, UserError) as error:
            yield str(error)


def middle(space: spaces.Box) -> np.ndarray:
    """The middle of a Box, 0 in dimensions without both limits."""
    finite = np.isfinite(space.low) & np.isfinite(space.high)
    low, high = np.where(finite, space.low, 0), np.where(finite, space.high, 0)
    return (low + (high - low) / 2).astype(space.dtype)


def shape_problems(raw: dict[str, Any], space: spaces.Dict, name: str = "") -> Iterator[str]:
    """Observations of N environments that are missing, or not shaped as the space of one says."""
    for key, inner in space.items():
        path, value = f"{name}/{key}".lstrip("/"), raw.get(key)
        if isinstance(inner, spaces.Dict) and isinstance(value, dict):
            yield from shape_problems(value, inner, path)
        elif (shape := getattr(value, "shape", ())[1:]) != inner.shape:
            problem = "is missing" if value is None else f"has shape {shape}"
            yield f"observation {path} {problem}, the observation space says {inner.shape}: keep to it always"
        elif path.split("/")[0] == "pixels":
            yield from _image_problems(path, shape, value.dtype)


def mode_number(value: Any) -> int:
    """The mode in `info["mode"]` of one environment, -1 for none.

    Raises:
        EnvironmentFailure: it is no whole number from -1 up.
    """
    if not (isinstance(value, Real) and value >= -1 and value % 1 == 0):
        raise EnvironmentFailure(
            f"info[{MODE!r}] is {value!r}: give the mode's number, 0 to {NUM_MODES} - 1, or -1 for none"
        )
    return int(value)


def number_of_modes(envs: gym.vector.VectorEnv) -> int:
    """Number of modes of environments that name modes.

    Asking a process for something it does not have ends it: only those that name modes may be asked.

    Raises:
        UserError: they do not say.
    """
    try:
        count = envs.call(NUM_MODES)[0]
    except AttributeError as error:
        raise UserError(
            f"the environment names modes in info[{MODE!r}] but not how many there are: give it an attribute "
            f"{NUM_MODES}"
        ) from error
    if not isinstance(count, (int, np.integer)) or count < 1:
        raise UserError(f"the environment's {NUM_MODES} is {count!r}: give a whole number above 0")
    return int(count)


def check_modes(mode: np.ndarray, num_modes: int) -> None:
    """Raise an EnvironmentFailure if one of the modes (E,) is none of `num_modes`."""
    if mode.size and mode.max() >= num_modes:
        raise EnvironmentFailure(
            f"info[{MODE!r}] is {mode.max()} and the environment's {NUM_MODES} is {num_modes}: number the "
            f"modes 0 to {num_modes - 1}"
        )


@contextmanager
def blame_environment(where: str, env: gym.vector.VectorEnv | None = None) -> Iterator[None]:
    """Turn what environments raise into an EnvironmentFailure, which names a process of `env` that died."""
    try:
        yield
    except Exception as error:
        if env is not None and (reason := how_it_died(env)):
            raise EnvironmentFailure(f"{reason}, in {where}") from error
        message = f"the environment raised {type(error).__name__} in {where}: {error}"
        if isinstance(error, ValueError) and ("shape" in str(error) or "broadcast" in str(error)):
            message += " (do observations keep the shapes of the observation space?)"
        raise EnvironmentFailure(message) from error


@contextmanager
def process_errors_unsaid() -> Iterator[None]:
    """Keep back the tracebacks of processes that gymnasium warns of: the error that it raises is enough."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield
