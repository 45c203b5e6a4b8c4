"""Cost of watching modes: the online monitor against the iteration of recipes/avoiding_dppo.yaml.

OMP_NUM_THREADS=1 python -m benchmarks.monitor
"""

from pathlib import Path

import numpy as np
from lerobot.envs import make_env_pre_post_processors

from benchmarks.iteration import seconds
from lerobot_rlft.algorithms.dppo import DPPO, DPPOConfig
from lerobot_rlft.configs.train import TrainConfig, load_policy_config
from lerobot_rlft.diversity.probe import Probe
from lerobot_rlft.diversity.tracker import ModeTracker
from lerobot_rlft.envs.avoiding.avoiding import NUM_MODES
from lerobot_rlft.envs.avoiding.configuration_avoiding import AvoidingEnvConfig
from lerobot_rlft.metrics.modes import mode_counts
from lerobot_rlft.policies.loading import load_policy
from lerobot_rlft.rollout.runner import EpisodeRunner

BASE = Path(__file__).parents[1] / "recipes" / "avoiding_base"
EPISODES, REPEATS, FLOOR = 100, 5, 0.1


def run() -> list[tuple[str, str]]:
    """(name, value) rows."""
    config, env = load_policy_config(str(BASE), ["--device=cpu"]), AvoidingEnvConfig()
    policy, base = load_policy(config, BASE), load_policy(config, BASE)
    runner = EpisodeRunner(
        env.create_envs(EPISODES)["avoiding"][0], policy, *make_env_pre_post_processors(env, config)
    )
    algorithm = DPPO(DPPOConfig(), policy, base)
    data = runner.collect(EPISODES, np.arange(EPISODES), algorithm.explore)
    probe = Probe.choose(base, data.obs, data.t, FLOOR)
    tracker = ModeTracker([10] * NUM_MODES, 300)

    def iteration() -> None:
        nonlocal data
        data = runner.collect(EPISODES, np.arange(EPISODES), algorithm.explore)
        algorithm.update(data)

    def track() -> None:
        tracker.update(mode_counts(data.episodes.mode, data.episodes.success, NUM_MODES), EPISODES)
        tracker.alarm()

    iteration()
    times = [
        (seconds(iteration), seconds(track), seconds(lambda: probe.measure(policy))) for _ in range(REPEATS)
    ]
    whole, tracked, probed = np.median(times, 0)
    every = TrainConfig.probe_freq
    share = (tracked + probed / every) / whole
    return [(f"watching modes, probe every {every} iterations / iteration", f"{100 * share:.2f} %")]


if __name__ == "__main__":
    for name, value in run():
        print(f"{name:52} {value}")
