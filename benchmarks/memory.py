"""Peak memory of a stored decision: how far the process grows while it collects, over the decisions it keeps.

    OMP_NUM_THREADS=1 python -m benchmarks.memory

Each case runs in a process of its own, since the peak of a process never falls: a first rollout warms up, a
larger one is measured. The U-Net is tiny; what is stored does not depend on it.
"""

import resource
import subprocess
import sys

import numpy as np
from lerobot.configs import FeatureType, PolicyFeature

from benchmarks.iteration import make_policy, make_runner
from lerobot_rlft.envs.avoiding.avoiding import AvoidingVectorEnv

ENVS = 100
CASES = {"state": 20, "image": 2}  # rounds of 6 decisions in each environment


class WithCamera(AvoidingVectorEnv):
    """Avoiding-Lite that also shows a 96 x 96 picture of itself."""

    def _observe(self) -> dict[str, np.ndarray]:
        return super()._observe() | {"pixels": np.stack(self.render())}


def measure(case: str) -> None:
    """Print bytes kept for a decision and bytes of peak growth for a decision."""
    options = {"down_dims": (8,)}
    if case == "image":
        options |= {
            "input_features": {
                "observation.state": PolicyFeature(FeatureType.STATE, (4,)),
                "observation.image": PolicyFeature(FeatureType.VISUAL, (3, 96, 96)),
            },
            "resize_shape": (64, 64),
            "pretrained_backbone_weights": None,
        }
    runner = make_runner(make_policy(10, **options), ENVS)
    if case == "image":
        runner.env = WithCamera(ENVS, max_episode_steps=48, render_size=96)

    def explore(condition):  # type: ignore[no-untyped-def]
        return runner.policy.sample(condition, 0.1, 0.1)

    warm = runner.collect(2 * ENVS, np.arange(2 * ENVS), explore)
    before = peak()
    episodes = CASES[case] * ENVS
    data = runner.collect(episodes, np.arange(episodes), explore)
    tensors = [*data.obs.values(), data.chain.x, data.chain.log_prob, data.t, data.episode]
    kept = sum(t.numel() * t.element_size() for t in tensors) // len(data.t)
    # The warm-up's own decisions are still alive, so all of the growth belongs to the new ones.
    print(kept, (peak() - before) // len(data.t), len(warm.t))


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run() -> list[tuple[str, str]]:
    """(name, value) rows."""
    rows = []
    for case in CASES:
        out = subprocess.run(
            [sys.executable, "-m", "benchmarks.memory", case], capture_output=True, text=True, check=True
        )
        kept, growth, _ = map(int, out.stdout.split()[-3:])
        rows.append((f"bytes kept, peak growth for a stored decision, {case}", f"{kept:,}, {growth:,}"))
    return rows


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(sys.argv[1])
    else:
        for name, value in run():
            print(f"{name:52} {value}")
