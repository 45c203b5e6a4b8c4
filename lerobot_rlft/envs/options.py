"""Options of an environment as a user would type them."""

import json
import shlex
from dataclasses import fields
from pathlib import Path

from lerobot.envs import EnvConfig


def env_options(env: EnvConfig) -> dict[str, bool | int | float | str]:
    """The plain fields of an environment that are not its type's own choice."""
    default = type(env)()
    return {
        field.name: value
        for field in fields(env)
        if isinstance(value := getattr(env, field.name), (bool, int, float, str))
        and value != getattr(default, field.name)
    }


def eval_command(
    folder: Path | str, env: EnvConfig, packages: str = "", rename_map: dict[str, str] | None = None
) -> str:
    """The stock command that evaluates a checkpoint in the environment as it was configured.

    Args:
        packages: the options that load what registers it, see `configs.packages`.
        rename_map: environment's name -> policy's name of observations; stock LeRobot forgets the one that a
            checkpoint was saved with.
    """
    options = "".join(
        f" --env.{name}={shlex.quote(json.dumps(value) if isinstance(value, bool) else str(value))}"
        for name, value in env_options(env).items()
    )
    if rename_map:
        options += f" --rename_map={shlex.quote(json.dumps(rename_map))}"
    return (
        f"lerobot-eval{packages} --policy.path={shlex.quote(str(folder))} --env.type={env.type}{options} "
        "--eval.n_episodes=50 --eval.batch_size=50 --eval.use_async_envs=false"
    )
