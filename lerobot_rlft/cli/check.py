"""`lerobot-rlft-check`: a check that an environment can be used, and for what."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lerobot import policies  # noqa: F401  registers --policy.type
from lerobot.configs import PreTrainedConfig
from lerobot.envs import EnvConfig

from ..configs.train import pretrained_config
from ..utils.errors import UserError
from . import run_command

if TYPE_CHECKING:
    from ..rollout.inspection import Inspection


@dataclass
class CheckConfig:
    """Check that an environment keeps the contract, play a few episodes, and say what works in it.

    lerobot-rlft-check --env.type=avoiding
    lerobot-rlft-check --env.type=pusht --n_episodes=50
    lerobot-rlft-check --env.type=avoiding --policy.path=recipes/avoiding_base

    Exits with 0 if it can be used. Nothing is written.
    """

    # Environment to check, for example --env.type=avoiding.
    env: EnvConfig | None = None
    # Policy to play with, which must fit: --policy.path=HUB_ID_OR_FOLDER; null = random actions.
    policy: PreTrainedConfig | None = None
    # Number of episodes to play.
    n_episodes: int = 8
    # Environments that run side by side.
    batch_size: int = 8
    # Whether each environment runs in a process of its own.
    use_async_envs: bool = False
    # First random seed of the episodes: episode i is reset with seed + i.
    seed: int = 1000
    # Whether to also load a checkpoint that can run code of its author: pickled weights, and processor steps
    # that are not LeRobot's.
    trust_remote_code: bool = False

    @classmethod
    def __get_path_fields__(cls) -> list[str]:
        """Fields that `--<field>.path` may fill, for LeRobot's parser."""
        return ["policy"]

    def resolve(self) -> None:
        """Load the policy's config and check the fields.

        Raises:
            UserError: something is missing, unknown or out of range.
        """
        self.policy = pretrained_config("policy", self.trust_remote_code) or self.policy
        if self.policy is not None and self.policy.pretrained_path is None:
            raise UserError("a policy of random weights shows nothing: give --policy.path=HUB_ID_OR_FOLDER")
        if self.env is None:
            choices = ", ".join(sorted(EnvConfig.get_known_choices()))
            raise UserError(f"no environment: give --env.type=..., one of {choices}")
        for name, least in (("n_episodes", 1), ("batch_size", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise UserError(f"{name}={getattr(self, name)} must be at least {least}")


def main() -> None:
    run_command(CheckConfig, run)


def run(config: CheckConfig) -> None:
    """Play and print what was seen.

    Raises:
        UserError, EnvironmentFailure, FloatingPointError: to be shown without a traceback.
    """
    from ..policies.loading import load_policy  # after --help, which needs no models
    from ..rollout.inspection import inspect

    policy = None
    if config.policy is not None:
        path, trust = config.policy.pretrained_path, config.trust_remote_code
        policy = load_policy(config.policy, path, trust=trust)
        policy.module.requires_grad_(False)
    inspection = inspect(
        config.env,
        policy,
        config.n_episodes,
        min(config.batch_size, config.n_episodes),
        config.seed,
        config.use_async_envs,
    )
    who = "random actions" if policy is None else str(config.policy.pretrained_path)
    rows = [*facts(inspection, who), ("", ""), *features(inspection, hasattr(config.env, "blocked"))]
    width = max(len(name) for name, _ in rows)
    print(f"env.type={config.env.type} can be used.\n")
    print("\n".join(f"{name:<{width}}  {text}".rstrip() for name, text in rows))


def facts(inspection: "Inspection", who: str) -> list[tuple[str, str]]:
    """Facts about the environment, as label and value.

    Args:
        who: acted.
    """
    episodes, space = inspection.episodes, inspection.actions
    count, successes = len(episodes.success), int(episodes.success.sum())
    low, high = space.low.min(), space.high.max()
    actions = f"{space.shape}, {low:g} to {high:g}"
    if inspection.outside:
        actions += (
            f"; {100 * inspection.outside:.0f} % of those played lie outside and are sent as they are, "
            "as under lerobot-eval: the environment must clip them"
        )
    starts = "different seeds, different starts" if inspection.starts_vary else "every episode starts alike"
    if inspection.repeats is False:
        starts = "a seed does NOT give the same start again: reset ignores it"
    modes = f'{inspection.num_modes}, named in info["mode"]'
    if inspection.num_modes is None:
        modes = f'none named in these episodes, {successes} of which succeeded (info["mode"], num_modes)'
    frame = f"frames of {inspection.frame}, {duration(inspection.frame_seconds)} for {inspection.n_envs}"
    rate = inspection.steps_per_second
    return [
        ("observations", ", ".join(f"{key} {shape}" for key, shape in inspection.observations.items())),
        ("actions", actions),
        ("instruction", inspection.task or "none"),
        ("episodes", f"at most {inspection.max_steps} steps; {starts}"),
        ("success", f"{successes} of {count} episodes of {who}"),
        ("modes", modes),
        ("paths", ", ".join(episodes.states) or "none: no agent_pos, no environment_state"),
        ("rendering", frame if inspection.frame else inspection.no_frame),
        (
            "speed",
            f"{rate:,.0f} steps/s by {who} in {inspection.n_envs} environments: 1,000 steps in "
            f"{duration(1000 / rate)}, 1,000 episodes of this length in "
            f"{duration(1000 * episodes.length.mean() / rate)}",
        ),
    ]


def features(inspection: "Inspection", blocks: bool) -> list[tuple[str, str]]:
    """Parts of this package that work here, and the missing requirement of those that do not.

    Args:
        blocks: the environment can close ways of solving its task.
    """
    paths = bool(inspection.episodes.states)
    if inspection.num_modes is not None:
        modes = "yes, by the environment's modes"
    elif paths:
        modes = "yes, by an atlas of the paths of the base's successes (--atlas.key, --atlas.dims)"
    else:
        modes = 'no: give info["mode"] and num_modes, or agent_pos, whose paths can be clustered'
    pairs = "yes" if inspection.repeats is not False else "no: let reset(seed=...) decide the start"
    language = "yes" if inspection.task else "no: give an attribute task_description"
    return [
        ("fine-tuning, evaluation", "yes"),
        ("same starts for all policies", pairs),
        ("guard, balance, commands, mode metrics", modes),
        ("path metrics, lerobot-rlft-explore", "yes" if paths else "no: give agent_pos"),
        ("success with ways blocked", "yes" if blocks else "no: give the configuration a method blocked()"),
        ("videos", "yes" if inspection.frame else "no: give render, or set n_videos=0"),
        ("policies that read language", language),
    ]


def duration(seconds: float) -> str:
    """Two digits and a unit that suits them."""
    for unit, size in (("h", 3600.0), ("min", 60.0), ("s", 1.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds:.1f} s" if seconds >= 0.1 else f"{1000 * seconds:.2g} ms"
