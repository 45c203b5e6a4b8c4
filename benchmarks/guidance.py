"""What a guidance weight other than 1 costs: acting told and untold in one network call, beside acting once.

    OMP_NUM_THREADS=1 python -m benchmarks.guidance

The committed base of Avoiding-Lite, conditioned; 1 robot as when deployed, and more as in evaluations. Both
sides take turns, and the ratio is that of each pair.
"""

from functools import partial
from pathlib import Path
from statistics import median

import torch

import lerobot_rlft.plugin  # noqa: F401  registers policies
from benchmarks.prefix import seconds
from lerobot_rlft.configs.pretrained import load_policy_config
from lerobot_rlft.policies.conditioning import AdvantageEmbedding
from lerobot_rlft.policies.loading import load_policy
from lerobot_rlft.policies.rlft_guided.adapter import guided

BASE = Path(__file__).parents[1] / "recipes/avoiding_base"
BATCHES, REPEATS = (1, 8, 48), 40


def run() -> list[tuple[str, str]]:
    """(name, value) rows."""
    policy = load_policy(load_policy_config(str(BASE), ["--device=cpu"]), BASE)
    embedding = AdvantageEmbedding(policy.condition_layer)
    once, twice = (guided(policy, embedding, weight) for weight in (1.0, 2.0))
    rows = []
    with torch.no_grad():
        for batch in BATCHES:
            condition = once.example_condition(batch)
            pairs = []
            for _ in range(REPEATS):
                work = [partial(acting.deployed_chunk, condition) for acting in (twice, once)]
                pairs.append(tuple(map(seconds, work)))
            ratio = median(a / b for a, b in pairs[2:])
            rows.append((f"guided / unguided chunk, {batch} at once", f"{ratio:.2f}"))
    return rows


if __name__ == "__main__":
    for name, value in run():
        print(f"{name:52} {value}")
