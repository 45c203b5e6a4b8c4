"""Cost of holding modes: a guarded iteration beside the same without what holds, and beside plain DPPO.

OMP_NUM_THREADS=1 python -m benchmarks.guard
"""

from pathlib import Path

import numpy as np
import torch
from lerobot.envs import make_env_pre_post_processors

from benchmarks.iteration import seconds
from lerobot_rlft.algorithms.dppo import DPPO, DPPOConfig
from lerobot_rlft.algorithms.nft import NFT, NFTConfig
from lerobot_rlft.configs.train import load_policy_config
from lerobot_rlft.diversity.attempts import Attempts
from lerobot_rlft.diversity.guard import DiversityGuard, GuardConfig
from lerobot_rlft.envs.avoiding.avoiding import NUM_MODES
from lerobot_rlft.envs.avoiding.configuration_avoiding import AvoidingEnvConfig
from lerobot_rlft.metrics.modes import mode_counts
from lerobot_rlft.policies.base import Exploration
from lerobot_rlft.policies.loading import load_policy
from lerobot_rlft.policies.rlft_commanded.adapter import commanded
from lerobot_rlft.regularizers.mode_commands import CommandConfig
from lerobot_rlft.rollout.runner import EpisodeRunner

BASE = Path(__file__).parents[1] / "recipes" / "avoiding_base"
EPISODES, REPEATS, KEY = 200, 5, "observation.state"


def run() -> list[tuple[str, str]]:
    """(name, value) rows."""
    plain, bare, held = (iteration_of(kind) for kind in ("plain", "bare", "held"))
    # One after the other in each round, so that a busy machine slows all alike.
    times = np.median([(seconds(plain), seconds(bare), seconds(held)) for _ in range(REPEATS)], 0)
    return [
        ("guarded iteration / the same without what holds modes", f"{times[2] / times[1]:.3f}"),
        ("guarded iteration / plain DPPO iteration", f"{times[2] / times[0]:.3f}"),
    ]


def iteration_of(kind: str):  # type: ignore[no-untyped-def]
    """Collection and update of 200 episodes, as `plain` DPPO, `bare` NFT, or `held`."""
    config, env = load_policy_config(str(BASE), ["--device=cpu"]), AvoidingEnvConfig()
    policy, base = load_policy(config, BASE), load_policy(config, BASE)
    if kind == "held":
        policy, base = (commanded(p, Exploration()) for p in (policy, base))
    runner = EpisodeRunner(
        env.create_envs(EPISODES)["avoiding"][0], policy, *make_env_pre_post_processors(env, config)
    )
    options = DPPOConfig() if kind == "plain" else NFTConfig()
    options.commands = CommandConfig(enable=kind == "held", steps=300)
    algorithm = (DPPO if kind == "plain" else NFT)(options, policy, base)
    weights = {name: value.clone() for name, value in policy.module.state_dict().items()}

    def collect():  # type: ignore[no-untyped-def]
        # Always the base's episodes: a policy that drifts would change the work.
        policy.module.load_state_dict(weights)
        return runner.collect(EPISODES, np.arange(EPISODES), algorithm.explore)

    attempts = guard = None
    if kind == "held":
        reference = collect()
        episodes = reference.episodes
        attempts = Attempts(episodes.states[KEY][episodes.success], episodes.mode[episodes.success])
        guard = DiversityGuard(
            GuardConfig(enable=True), mode_counts(episodes.mode, episodes.success, NUM_MODES)
        )
        reference.attempt = torch.from_numpy(
            attempts.name(episodes.states[KEY], episodes.mode, episodes.success)
        )
        algorithm.begin(reference, NUM_MODES)
        weights |= {name: value.clone() for name, value in policy.module.state_dict().items()}

    def iteration() -> None:
        data = collect()
        episodes = data.episodes
        if attempts is not None and guard is not None:
            data.attempt = torch.from_numpy(
                attempts.name(episodes.states[KEY], episodes.mode, episodes.success)
            )
            guard.update(mode_counts(episodes.mode, episodes.success, NUM_MODES), EPISODES)
            algorithm.hold(guard.strength)
        algorithm.update(data)

    iteration()
    return iteration


if __name__ == "__main__":
    for name, value in run():
        print(f"{name:56} {value}")
