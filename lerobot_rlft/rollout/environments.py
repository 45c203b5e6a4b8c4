"""Environments that fit a policy, and the policy acting in them."""

import io
import multiprocessing
import re
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress

import gymnasium as gym
from lerobot.envs import EnvConfig, make_env, make_env_pre_post_processors, preprocess_observation
from lerobot.utils.constants import ACTION, OBS_PREFIX

from ..policies.base import DenoisingPolicy
from ..utils.errors import UserError, one_line
from .contract import check_contract
from .runner import EpisodeRunner

GRAPHICS = re.compile(r"\b(EGL|OpenGL|GLFW|OSMesa|DISPLAY)\b|eglQuery|gladLoad", re.IGNORECASE)


def make_runner(
    env: EnvConfig, policy: DenoisingPolicy, n_envs: int, asynchronous: bool = False
) -> EpisodeRunner:
    """`n_envs` environments and the policy that acts in them.

    Args:
        asynchronous: one process for each environment.

    Raises:
        UserError, EnvironmentFailure: see `make_environments`; or they do not fit the policy.
    """
    envs = make_environments(env, n_envs, asynchronous)
    runner = runner_in(envs, env, policy)
    check_features(env, runner)
    return runner


def make_environments(env: EnvConfig, n_envs: int, asynchronous: bool = False) -> gym.vector.VectorEnv:
    """`n_envs` environments that keep the contract.

    Raises:
        UserError: they cannot be built, have several tasks, or do not keep the contract.
        EnvironmentFailure: they raise at the first reset or step.
    """
    if asynchronous:
        # Else each process takes seconds to import LeRobot, and gymnasium knows no environment in it by name.
        multiprocessing.set_forkserver_preload(["lerobot.envs", type(env).__module__, env.package_name])
    with _ignored_by_children(signal.SIGINT, signal.SIGHUP):
        try:
            with redirect_stdout(io.StringIO()):  # LeRobot prints which package it imports
                suites = make_env(env, n_envs, asynchronous)
        except Exception as error:  # a simulator may raise anything, where no display is for example
            raise UserError(f"env.type={env.type} cannot be built: {_explained(error)}") from error
        tasks = [task for suite in suites.values() for task in suite.values()]
        if len(tasks) != 1:
            raise UserError(f"env.type={env.type} has {len(tasks)} tasks: choose one with --env.task=...")
        try:
            check_contract(tasks[0], env.type)
        except BaseException:
            with suppress(Exception):  # a process that has raised
                tasks[0].close()
            raise
    return tasks[0]


def _explained(error: Exception) -> str:
    """The error, its place in the code, and the remedy of its most common cause."""
    if isinstance(error, (ImportError, ValueError, OSError, gym.error.Error)):
        return str(error)  # they say it in words
    *_, frame = traceback.extract_tb(error.__traceback__)
    message = f"{one_line(error)} ({frame.filename}, line {frame.lineno})"
    if GRAPHICS.search(message):
        message += ". Without a display, tell MuJoCo how to draw: MUJOCO_GL=egl or osmesa before the command"
    return message


def runner_in(envs: gym.vector.VectorEnv, env: EnvConfig, policy: DenoisingPolicy) -> EpisodeRunner:
    """The policy in environments that exist, built from `env`; it is told their task.

    Raises:
        UserError: the policy reads language, and the environments do not name one task.
    """
    if policy.reads_language:
        policy.task = task_of(envs, env)
    return EpisodeRunner(envs, policy, *make_env_pre_post_processors(env, policy.module.config))


def task_of(envs: gym.vector.VectorEnv, env: EnvConfig) -> str:
    """The instruction that all environments share.

    Raises:
        UserError: they have none, or several.
    """
    for name in ("task_description", "task"):
        try:
            tasks = set(envs.call(name))
        except (AttributeError, NotImplementedError):
            continue
        if len(tasks) > 1:
            raise UserError(
                f"env.type={env.type} has several instructions ({'; '.join(sorted(tasks))}), the policy is "
                "told one for all copies: choose a single task with --env.task=..."
            )
        if task := tasks.pop():
            return str(task)
    raise UserError(
        f"the policy reads an instruction and env.type={env.type} gives none: the environment needs an "
        "attribute task_description or task with the sentence"
    )


def check_features(env: EnvConfig, runner: EpisodeRunner) -> None:
    """Compare what the policy expects with what the environment gives.

    The environment itself is asked: LeRobot's env configs may declare other image sizes than the environment
    returns (pusht: 384 and 96).

    Raises:
        UserError: names every feature that is missing or has another shape.
    """
    space, policy = runner.env.single_observation_space, runner.policy.module.config
    sample = _batched(space.sample())
    obs = runner.env_preprocessor(preprocess_observation(sample))
    shapes = {key: tuple(value.shape[1:]) for key, value in obs.items() if key.startswith(OBS_PREFIX)}
    shapes[ACTION] = runner.env.single_action_space.shape
    problems = [
        f"{key} is {shapes.get(key, 'missing')} instead of {tuple(feature.shape)}"
        for key, feature in {**(policy.input_features or {}), **(policy.output_features or {})}.items()
        if key not in runner.policy.optional_inputs and shapes.get(key) != tuple(feature.shape)
    ]
    if problems:
        features = ", ".join(f"{key} {shape}" for key, shape in shapes.items())
        raise UserError(
            f"policy and env.type={env.type} do not fit: {'; '.join(problems)}. The environment "
            f"offers {features}. Choose the environment (or its obs_type) that the policy was trained for"
        )


def _batched(value):  # type: ignore[no-untyped-def]
    """A (nested) observation with a batch dimension of 1."""
    return {k: _batched(v) for k, v in value.items()} if isinstance(value, dict) else value[None]


@contextmanager
def _ignored_by_children(*numbers: signal.Signals) -> Iterator[None]:
    """Processes started meanwhile ignore the signals.

    Ctrl-C in a terminal, and its end, reach all, and only the trainer may act.
    """
    old = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
