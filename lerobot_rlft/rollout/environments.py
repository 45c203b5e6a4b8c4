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
from lerobot.envs.configs import LiberoEnv, RoboCasaEnv
from lerobot.utils.constants import ACTION, OBS_PREFIX
from tqdm import tqdm

from ..policies.base import DenoisingPolicy
from ..policies.renaming import not_given, rename_problems, renames_of
from ..policies.rlft_commanded.adapter import COMMANDED
from ..utils.errors import UserError, one_line
from .contract import check_contract
from .runner import EpisodeRunner
from .suite import Place, SuiteVectorEnv, tasks_of
from .workers import asynchronous as asynchronous_vector
from .workers import close_env

GRAPHICS = re.compile(r"\b(EGL|OpenGL|GLFW|OSMesa|DISPLAY)\b|eglQuery|gladLoad", re.IGNORECASE)


def make_runner(
    env: EnvConfig,
    policy: DenoisingPolicy,
    n_envs: int,
    asynchronous: bool = False,
    rename_map: dict[str, str] | None = None,
) -> EpisodeRunner:
    """`n_envs` environments and the policy that acts in them.

    Args:
        asynchronous: one process for each environment.
        rename_map: that was asked for, see `check_features`.

    Raises:
        UserError, EnvironmentFailure: see `make_environments`; or they do not fit the policy.
    """
    envs = make_environments(env, n_envs, asynchronous)
    runner = runner_in(envs, env, policy)
    check_features(env, runner, rename_map)
    return runner


def make_environments(env: EnvConfig, n_envs: int, asynchronous: bool = False) -> gym.vector.VectorEnv:
    """`n_envs` environments that keep the contract; of several tasks as many of each, and at least one.

    Raises:
        UserError: they cannot be built, do not keep the contract, or their tasks are not alike.
        EnvironmentFailure: they raise at the first reset or step.
    """
    if asynchronous:
        # Else each process takes seconds to import LeRobot, and gymnasium knows no environment in it by name.
        multiprocessing.set_forkserver_preload(["lerobot.envs", type(env).__module__, env.package_name])
    with _ignored_by_children(signal.SIGINT, signal.SIGHUP):
        copies, tasks = n_envs, {}
        if n_envs > 1 and type(env).create_envs is not EnvConfig.create_envs:
            tasks = _build(env, 1, asynchronous)  # tells how many tasks there are
            copies = max(1, n_envs // len(tasks))
        if copies > 1 or not tasks:
            _close(tasks)
            tasks = _build(env, copies, asynchronous)
        several = len(tasks) > 1
        try:
            for name, vector in tasks.items():
                check_contract(vector, env.type, name if several else "")
            _check_alike(env, tasks)
        except BaseException:
            _close(tasks)
            raise
    place = next((place for kind, place in PLACES.items() if isinstance(env, kind)), None)
    if not several and place is None:
        return next(iter(tasks.values()))
    if asynchronous and copies == 1 < n_envs:
        tqdm.write(
            f"warning: {n_envs} environments are one for each of {len(tasks)} tasks, which LeRobot keeps in "
            f"this process: use_async_envs=true takes {2 * len(tasks)} or more"
        )
    return SuiteVectorEnv(tasks, place)


def _build(env: EnvConfig, copies: int, asynchronous: bool) -> dict[str, gym.vector.VectorEnv]:
    """`copies` environments of each task, SUITE/TASK_ID -> vector environment."""
    try:
        with redirect_stdout(io.StringIO()):  # LeRobot prints which package it imports
            suites = make_env(env, copies, asynchronous)
    except Exception as error:  # a simulator may raise anything, where no display is for example
        raise UserError(f"env.type={env.type} cannot be built: {_explained(error)}") from error
    tasks = {f"{suite}/{number}": vector for suite, of in suites.items() for number, vector in of.items()}
    if not tasks:
        raise UserError(f"env.type={env.type} has no task: choose others with --env.task=...")
    return tasks


def _close(tasks: dict[str, gym.vector.VectorEnv]) -> None:
    for vector in tasks.values():
        with suppress(Exception):  # a process that has raised
            close_env(vector)


def _check_alike(env: EnvConfig, tasks: dict[str, gym.vector.VectorEnv]) -> None:
    """Raise a UserError unless all tasks have the same observations and actions."""
    (first, one), *others = tasks.items()
    for name, other in others:
        for what in ("single_observation_space", "single_action_space"):
            if getattr(one, what) != getattr(other, what):
                raise UserError(
                    f"env.type={env.type}: task {name} has {what} {getattr(other, what)}, task {first} "
                    f"{getattr(one, what)}: choose tasks that are alike with --env.task=..."
                )


def _place_libero(vector: gym.vector.VectorEnv, seeds: list[int]) -> None:
    """Begin episodes in the initial states that their seeds choose, as many as there are.

    LIBERO by itself counts resets: a state then depends on how often, and in how many copies, was played.
    """
    _set(vector, "init_state_id", seeds)


def _place_robocasa(vector: gym.vector.VectorEnv, seeds: list[int]) -> None:
    """Begin episodes from their seeds alone: RoboCasa by itself adds the number of the copy."""
    _set(vector, "episode_index", [0] * len(seeds))


def _set(vector: gym.vector.VectorEnv, name: str, values: list[int]) -> None:
    (asynchronous_vector(vector) or vector).set_attr(name, values)  # type: ignore[attr-defined]


# Environments whose initial states do not follow from a seed alone.
PLACES: dict[type[EnvConfig], Place] = {LiberoEnv: _place_libero, RoboCasaEnv: _place_robocasa}


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
    """The policy in environments that exist, built from `env`; it is told their tasks.

    Raises:
        UserError: the policy reads language, and an environment does not name one task; or it is told modes,
            of several tasks.
    """
    tasks = tasks_of(envs)
    if tasks and policy.module.config.type == COMMANDED:
        raise UserError(
            f"a policy that is told its mode knows those of one task, and env.type={env.type} has "
            f"{len(tasks)}: choose one, or give --algorithm.commands.enable=false"
        )
    if policy.reads_language:
        if tasks:
            pairs = zip(tasks, envs.vectors, strict=True)  # type: ignore[attr-defined]
            policy.task = tuple(task_of(vector, env, name) for name, vector in pairs)
        else:
            policy.task = task_of(envs, env)
    return EpisodeRunner(envs, policy, *make_env_pre_post_processors(env, policy.module.config))


def task_of(envs: gym.vector.VectorEnv, env: EnvConfig, name: str = "") -> str:
    """The instruction that all environments share.

    Args:
        name: of their task, where it is one of several.

    Raises:
        UserError: they have none, or several.
    """
    where = f"task {name} of env.type={env.type}" if name else f"env.type={env.type}"
    for attribute in ("task_description", "task"):
        try:
            instructions = set(envs.call(attribute))
        except (AttributeError, NotImplementedError):
            continue
        if len(instructions) > 1:
            raise UserError(
                f"{where} has several instructions ({'; '.join(sorted(instructions))}), the policy is "
                "told one for all copies: choose a single task with --env.task=..."
            )
        if instruction := instructions.pop():
            return str(instruction)
    raise UserError(
        f"the policy reads an instruction and {where} gives none: the environment needs an "
        "attribute task_description or task with the sentence"
    )


def check_features(env: EnvConfig, runner: EpisodeRunner, rename_map: dict[str, str] | None = None) -> None:
    """Compare what the policy expects with what the environment gives, renamed as the policy does.

    The environment itself is asked: LeRobot's env configs may declare other image sizes than the environment
    returns (pusht: 384 and 96).

    Args:
        rename_map: that was asked for, each of whose names must exist; one that a checkpoint brings along may
            have been for another environment.

    Raises:
        UserError: names every feature that is missing or has another shape.
    """
    space, policy = runner.env.single_observation_space, runner.policy.module.config
    sample = _batched(space.sample())
    obs = runner.env_preprocessor(preprocess_observation(sample))
    shapes = {key: tuple(value.shape[1:]) for key, value in obs.items() if key.startswith(OBS_PREFIX)}
    expected = {**(policy.input_features or {}), **(policy.output_features or {})}
    problems = rename_problems(rename_map or {}, shapes, expected)
    renames = renames_of(runner.policy)
    inputs = {renames.get(key, key): shape for key, shape in shapes.items()}
    inputs[ACTION] = shapes[ACTION] = runner.env.single_action_space.shape
    required = {key: f for key, f in expected.items() if key not in runner.policy.optional_inputs}
    missing = [key for key in required if key not in inputs]
    unfilled = not_given(missing, vars(policy).get("empty_cameras", 0))
    problems += [
        f"{key} is {inputs.get(key, 'missing')} instead of {tuple(feature.shape)}"
        for key, feature in required.items()
        if key in unfilled or (key in inputs and inputs[key] != tuple(feature.shape))
    ]
    if problems:
        features = ", ".join(f"{key} {shape}" for key, shape in shapes.items())
        raise UserError(
            f"policy and env.type={env.type} do not fit: {'; '.join(problems)}. The environment "
            f"offers {features}{f', renamed by {renames}' if renames else ''}. Choose the environment (or "
            "its obs_type) that the policy was trained for, or give its observations the policy's names with "
            "--rename_map='{ENVIRONMENT_NAME: POLICY_NAME}'"
        )
    if filled := [key for key in missing if key not in unfilled]:
        tqdm.write(f"no camera gives {', '.join(filled)}: filled with black (policy.empty_cameras)")


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
