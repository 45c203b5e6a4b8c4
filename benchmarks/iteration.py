"""Cost of a DPPO iteration: against the bare network calls it makes, and as environments and chain grow.

    OMP_NUM_THREADS=1 python -m benchmarks.iteration

Avoiding-Lite, the U-Net of recipes/avoiding_base.yaml with random weights, episodes cut to 48 steps so that
every episode has 6 decisions. The bare time replays the very same network calls (batch sizes, with or without
backward) on random inputs, and nothing else.
"""

import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs import make_env_pre_post_processors
from lerobot.policies import make_pre_post_processors
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy

from lerobot_rlft.algorithms.dppo import DPPO, DPPOConfig
from lerobot_rlft.envs.avoiding.avoiding import AvoidingVectorEnv
from lerobot_rlft.envs.avoiding.configuration_avoiding import AvoidingEnvConfig
from lerobot_rlft.policies.base import Exploration
from lerobot_rlft.policies.diffusion import DiffusionAdapter
from lerobot_rlft.rollout.episodes import Rollout
from lerobot_rlft.rollout.runner import EpisodeRunner

STATS = {
    "observation.state": {"min": [0.2, -0.3, 0.2, -0.3], "max": [0.8, 0.4, 0.8, 0.4]},
    "action": {"min": [-0.01, -0.01], "max": [0.01, 0.01]},
}

REPEATS = 7  # of which the median counts


def make_policy(num_steps: int, **options: Any) -> DiffusionAdapter:
    """The policy of the Avoiding recipe with random weights; `options` are of its config."""
    inputs = {
        "observation.state": PolicyFeature(FeatureType.STATE, (4,)),
        "observation.environment_state": PolicyFeature(FeatureType.ENV, (9,)),
    }
    config = DiffusionConfig(**{
        "n_obs_steps": 1, "horizon": 8, "n_action_steps": 8, "down_dims": (64,), "kernel_size": 3,
        "diffusion_step_embed_dim": 32, "num_train_timesteps": num_steps, "input_features": inputs,
        "output_features": {"action": PolicyFeature(FeatureType.ACTION, (2,))}, "device": "cpu",
    } | options)  # fmt: skip
    torch.manual_seed(0)
    stats = {key: {k: torch.tensor(v) for k, v in s.items()} for key, s in STATS.items()}
    return DiffusionAdapter(
        DiffusionPolicy(config), *make_pre_post_processors(config, dataset_stats=stats), Exploration()
    )


def make_runner(policy: DiffusionAdapter, n_envs: int) -> EpisodeRunner:
    config = AvoidingEnvConfig(episode_length=48)
    env = config.create_envs(n_envs)["avoiding"][0]
    return EpisodeRunner(env, policy, *make_env_pre_post_processors(config, policy.module.config))


@contextmanager
def recorded_calls(policy: DiffusionAdapter):  # type: ignore[no-untyped-def]
    """A list that collects (batch size, whether gradients are wanted) of every network call."""
    calls: list[tuple[int, bool]] = []
    unet = policy.module.diffusion.unet
    hook = unet.register_forward_pre_hook(
        lambda _, args: calls.append((len(args[0]), torch.is_grad_enabled()))
    )
    try:
        yield calls
    finally:
        hook.remove()


def replay(policy: DiffusionAdapter, calls: list[tuple[int, bool]]) -> None:
    """The network calls alone; those with gradients with their backward pass."""
    unet = policy.module.diffusion.unet
    for batch, gradient in calls:
        x = torch.randn(batch, policy.horizon, policy.action_dim)
        timestep, condition = torch.zeros(batch, dtype=torch.long), torch.randn(batch, policy.feature_dim)
        with torch.set_grad_enabled(gradient):
            out = unet(x, timestep, global_cond=condition)
        if gradient:
            out.square().mean().backward()


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def iteration(n_envs: int, num_steps: int) -> tuple[Callable[[], Rollout], DPPO, EpisodeRunner]:
    """Collect and update, ready to be timed; every repetition has the same work to do."""
    policy, base = make_policy(num_steps), make_policy(num_steps)
    runner = make_runner(policy, n_envs)
    # Steps too small to change what the policy does: with other actions episodes would have other lengths.
    algorithm = DPPO(DPPOConfig(actor_lr=1e-12), policy, base)

    def collect() -> Rollout:
        torch.manual_seed(0)
        return runner.collect(n_envs, np.arange(n_envs), algorithm.explore)

    return collect, algorithm, runner


def env_speed() -> float:
    """Steps per second of 50 environments under random upward actions, best of 3."""
    env = AvoidingVectorEnv(50)
    env.reset()
    actions = np.random.default_rng(0).uniform([-0.01, 0], 0.01, (100, 50, 2))
    return max(
        50 * 2000 / seconds(lambda: [env.step(actions[i % 100]) for i in range(2000)]) for _ in range(3)
    )


def run() -> list[tuple[str, str]]:
    """(name, value) rows."""
    rows = [("env steps/s of Avoiding-Lite alone, 50 envs", f"{env_speed():,.0f}")]
    collect, algorithm, runner = iteration(50, 10)
    algorithm.update(collect())  # warm up
    with recorded_calls(runner.policy) as calls:
        data = collect()
        collecting = len(calls)
        algorithm.update(data)
    parts: dict[str, list[float]] = {"whole": [], "bare": [], "collect": [], "bare collect": []}
    for _ in range(REPEATS):  # alternating, so that a busy machine hits all of them
        parts["whole"].append(seconds(lambda: algorithm.update(collect())))
        parts["bare"].append(seconds(lambda: replay(runner.policy, calls)))
        parts["collect"].append(seconds(collect))
        parts["bare collect"].append(seconds(lambda: replay(runner.policy, calls[:collecting])))
    whole, bare, collect_time, bare_collect = (np.median(times) for times in parts.values())
    rates = f"{data.env_steps / collect_time:,.0f}; {data.env_steps / whole:,.0f}"
    rows.append(("iteration / bare network calls, 50 envs, K = 10", f"{whole / bare:.3f}"))
    rows.append(("collecting / bare network calls", f"{collect_time / bare_collect:.3f}"))
    rows.append(("env steps/s collecting; collecting and updating", rates))
    for name, cases in (("envs", [(10, 10), (50, 10), (200, 10)]), ("K", [(50, 5), (50, 10), (50, 20)])):
        times = []
        for n_envs, num_steps in cases:
            collect, algorithm, _ = iteration(n_envs, num_steps)
            algorithm.update(collect())
            times.append(np.median([seconds(lambda c=collect, a=algorithm: a.update(c())) for _ in range(3)]))
        sizes = [n if name == "envs" else k for n, k in cases]
        relative = [t / times[0] * sizes[0] / size for t, size in zip(times, sizes, strict=True)]
        text = ", ".join(f"{size}: {r:.2f}" for size, r in zip(sizes, relative, strict=True))
        rows.append((f"iteration time per {name} (1 = linear in the first)", text))
    return rows


if __name__ == "__main__":
    for name, value in run():
        print(f"{name:52} {value}")
