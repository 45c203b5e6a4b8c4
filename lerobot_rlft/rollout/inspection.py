"""A first look at an environment: plays a few episodes and says what it gives.

Without a policy, actions are drawn uniformly from the action space.
"""

import time
from contextlib import suppress
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from lerobot.envs import EnvConfig, make_env_pre_post_processors, preprocess_observation
from lerobot.envs.utils import NEW_ROLLOUT_OPTION
from lerobot.utils.constants import ACTION, OBS_PREFIX
from torch import Tensor

from ..policies.base import DenoisingPolicy
from ..utils.errors import UserError, one_line
from .contract import blame_environment, process_errors_unsaid
from .environments import check_features, make_environments, runner_in, task_of
from .episodes import Episodes
from .evaluation import name_modes, play
from .runner import EpisodeRunner


@dataclass
class Inspection:
    """Facts that a few episodes showed about an environment.

    Attributes:
        observations: LeRobot key -> shape of one environment's.
        actions: their space.
        task: the sentence for policies that read language; None where there is none.
        n_envs: environments side by side.
        max_steps: of an episode.
        repeats: whether a seed gives the same start again; None where no vectors show it.
        starts_vary: whether different seeds give different starts.
        episodes: played, with their modes.
        num_modes: None where the environment named none in these episodes.
        outside: share of actions outside the action space.
        seconds: that playing took.
        frame: shape of a rendered frame; None where it cannot be rendered, and `no_frame` says why.
        frame_seconds: that rendering a frame of every environment takes.
    """

    observations: dict[str, tuple[int, ...]]
    actions: gym.spaces.Box
    task: str | None
    n_envs: int
    max_steps: int
    repeats: bool | None
    starts_vary: bool
    episodes: Episodes
    num_modes: int | None
    outside: float
    seconds: float
    frame: tuple[int, ...] | None
    no_frame: str
    frame_seconds: float

    @property
    def steps_per_second(self) -> float:
        return int(self.episodes.length.sum()) / self.seconds


class RandomActions:
    """Stands where a policy would; one action at a time."""

    module, n_obs_steps, n_action_steps = SimpleNamespace(config=None), 1, 1

    def __init__(self, space: gym.spaces.Box, seed: int) -> None:
        self.space = space
        space.seed(seed)

    def draw(self, count: int, deployed: bool) -> None:
        """No commands."""

    def encode(self, obs: dict[str, Tensor]) -> Tensor:
        return torch.zeros(len(next(iter(obs.values()))), 1)

    def deployed_chunk(self, condition: Tensor) -> Tensor:
        actions = np.stack([self.space.sample() for _ in range(len(condition))])
        return torch.from_numpy(actions)[:, None]

    def to_action(self, chunk: Tensor) -> Tensor:
        return chunk


class Watched:
    """Counts the actions that leave the action space on their way to the environment."""

    def __init__(self, postprocessor: Any, space: gym.spaces.Box) -> None:
        self.postprocessor, self.space, self.count, self.outside = postprocessor, space, 0, 0

    def __call__(self, transition: dict[str, Tensor]) -> dict[str, Tensor]:
        out = self.postprocessor(transition)
        action = out[ACTION].detach().cpu().numpy()
        beyond = (action < self.space.low) | (action > self.space.high)
        self.count, self.outside = self.count + beyond[..., 0].size, self.outside + int(beyond.any(-1).sum())
        return out


def inspect(
    env: EnvConfig,
    policy: DenoisingPolicy | None,
    n_episodes: int,
    n_envs: int,
    seed: int,
    asynchronous: bool = False,
) -> Inspection:
    """Build the environment, check its contract, play and look.

    Raises:
        UserError, EnvironmentFailure, FloatingPointError: it cannot be used, or not with this policy.
    """
    envs = make_environments(env, n_envs, asynchronous)
    try:
        if policy is None:
            actor = RandomActions(envs.single_action_space, seed)
            runner = EpisodeRunner(envs, actor, *make_env_pre_post_processors(env, None))
        else:
            runner = runner_in(envs, env, policy)
            check_features(env, runner)
        return _look(env, runner, n_episodes, seed)
    finally:
        with suppress(Exception):  # a process that has raised
            envs.close()


def _look(env: EnvConfig, runner: EpisodeRunner, n_episodes: int, seed: int) -> Inspection:
    envs, space = runner.env, runner.env.single_action_space
    runner.env_postprocessor = watch = Watched(runner.env_postprocessor, space)
    raw = _reset(envs, seed)
    batch = runner.env_preprocessor(preprocess_observation(raw))
    first, again = runner.vectors(raw), runner.vectors(_reset(envs, seed))
    begun = time.perf_counter()
    episodes = play(runner, n_episodes, seed)
    seconds = time.perf_counter() - begun
    episodes, num_modes = name_modes(envs, episodes, None)
    frame, no_frame, frame_seconds = _render(envs)
    try:
        with process_errors_unsaid():
            task = task_of(envs, env)  # the last question: a process that has no answer ends
    except UserError:
        task = None
    return Inspection(
        observations={k: tuple(v.shape[1:]) for k, v in batch.items() if k.startswith(OBS_PREFIX)},
        actions=space,
        task=task,
        n_envs=envs.num_envs,
        max_steps=runner.max_steps,
        repeats=all(np.array_equal(again[key], first[key], equal_nan=True) for key in first)
        if first
        else None,
        starts_vary=not first or any((value != value[0]).any() for value in first.values()),
        episodes=episodes,
        num_modes=num_modes,
        outside=watch.outside / watch.count,
        seconds=seconds,
        frame=frame,
        no_frame=no_frame,
        frame_seconds=frame_seconds,
    )


def _reset(envs: gym.vector.VectorEnv, seed: int) -> dict[str, Any]:
    with blame_environment("reset"):
        seeds = [seed + i for i in range(envs.num_envs)]
        return envs.reset(seed=seeds, options={NEW_ROLLOUT_OPTION: True})[0]


def _render(envs: gym.vector.VectorEnv) -> tuple[tuple[int, ...] | None, str, float]:
    """Shape of a frame, why there is none, and the seconds that one of every environment takes."""
    begun = time.perf_counter()
    try:
        frame = envs.call("render")[0]
    except Exception as error:  # whatever a renderer may raise
        return None, one_line(error), 0.0
    seconds, shape = time.perf_counter() - begun, getattr(frame, "shape", ())
    if len(shape) != 3 or shape[2] != 3 or frame.dtype != np.uint8:
        kind = "nothing" if frame is None else f"{type(frame).__name__} {shape or ''}".strip()
        return None, f"render gives {kind} instead of a uint8 image (height, width, 3)", 0.0
    return shape, "", seconds
