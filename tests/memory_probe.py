"""Peak memory of updates of DPPO, each in a process of its own: prints the estimate and what was measured.

python memory_probe.py FAMILY,WIDTH,MINIBATCH ...
"""

import os
import sys
from pathlib import Path

from families import diffusion, experience, vla

from lerobot_rlft.algorithms.dppo import DPPO, DPPOConfig
from lerobot_rlft.configs.train import TrainConfig
from lerobot_rlft.policies.base import DenoisingPolicy
from lerobot_rlft.training.footprint import footprint, without_weights


def build(family: str, width: int) -> DenoisingPolicy:
    if family == "diffusion":
        return diffusion(down_dims=(width, 2 * width), num_train_timesteps=4, horizon=16)
    return vla(family, noise_level=0.5, chunk_size=width)


def main(family: str, width: int, minibatch: int) -> None:
    warm(family)
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    policy = build(family, width)
    policy.freeze(None)
    config = DPPOConfig(update_epochs=1, minibatch_size=minibatch)
    algorithm = DPPO(config, policy, policy.frozen_copy())
    episodes, decisions = minibatch // 8, 4
    algorithm.update(experience(policy, episodes, decisions))
    measured = status("VmHWM") - before
    told = footprint(without_weights(TrainConfig(config, policy.module.config)), minibatch, None)
    print(told.update + episodes * decisions * told.condition, measured)


def warm(family: str) -> None:
    """What an update of any size takes once: code, threads, small caches."""
    policy = build(family, 8)
    policy.freeze(None)
    config = DPPOConfig(update_epochs=1, minibatch_size=16)
    DPPO(config, policy, policy.frozen_copy()).update(experience(policy))


def status(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    for case in sys.argv[1:]:
        if (child := os.fork()) == 0:  # what one left in the allocator would count for the next
            family, *sizes = case.split(",")
            main(family, *map(int, sizes))
            sys.exit()
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
            sys.exit(1)
