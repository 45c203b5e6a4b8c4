"""What one stochastic step in each chain saves of an update.

    OMP_NUM_THREADS=1 python -m benchmarks.flow

DPPO on the flow policy of recipes/avoiding_flow_base, 10 Euler steps, the episodes of one iteration of
recipes/avoiding_flow_dppo.yaml cut to 48 steps; whole chains and hybrid ones take turns.
"""

import statistics
import time
from pathlib import Path

import lerobot_policy_rlft  # noqa: F401  registers rlft_flow
import numpy as np
from lerobot.envs import make_env_pre_post_processors

from lerobot_rlft.algorithms.dppo import DPPO, DPPOConfig
from lerobot_rlft.configs.train import load_policy_config
from lerobot_rlft.envs.avoiding.configuration_avoiding import AvoidingEnvConfig
from lerobot_rlft.policies.loading import load_policy
from lerobot_rlft.rollout.runner import EpisodeRunner

BASE = Path(__file__).parents[1] / "recipes/avoiding_flow_base"
EPISODES, REPEATS = 100, 5


def prepare(hybrid: bool):  # type: ignore[no-untyped-def]
    """An update of a fresh algorithm on experience that is collected here."""
    env = AvoidingEnvConfig(episode_length=48)
    config = load_policy_config(str(BASE), [])
    options = DPPOConfig(hybrid=hybrid)
    policy = load_policy(config, BASE, options.exploration)
    algorithm = DPPO(options, policy, policy.frozen_copy())
    runner = EpisodeRunner(
        env.create_envs(EPISODES)["avoiding"][0], policy, *make_env_pre_post_processors(env, config)
    )
    weights = {name: value.clone() for name, value in policy.module.state_dict().items()}

    def update() -> float:
        policy.module.load_state_dict(weights)  # the first ratio is checked, and the work stays the same
        data = runner.collect(EPISODES, np.arange(EPISODES), algorithm.explore)
        start = time.perf_counter()
        algorithm.update(data)
        return time.perf_counter() - start

    return update


def run() -> list[tuple[str, str]]:
    whole, hybrid = prepare(False), prepare(True)
    pairs = [(whole(), hybrid()) for _ in range(REPEATS)]
    ratio = statistics.median(b / a for a, b in pairs)
    seconds = [statistics.median(times) for times in zip(*pairs, strict=True)]
    return [
        ("flow update, whole chains / hybrid (s)", f"{seconds[0]:.2f} / {seconds[1]:.2f}"),
        ("flow update, hybrid / whole chains", f"{ratio:.2f}"),
    ]


if __name__ == "__main__":
    for name, value in run():
        print(f"{name:52} {value}")
