"""What collecting costs a vision-language-action policy beside acting, and what its prefix takes in memory.

    OMP_NUM_THREADS=1 python -m benchmarks.prefix

Tiny pi0, 10 denoising steps, 8 decisions at once. Both sides preprocess the same observations; they take
turns, and the ratio is that of each pair.
"""

import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import torch

from lerobot_rlft.policies.prefix import Prefix

BATCH, REPEATS = 8, 30


def run() -> list[tuple[str, str]]:
    """(name, value) rows."""
    if find_spec("transformers") is None:
        return [("collecting a chunk / acting, tiny pi0", "skipped, transformers is not installed")]
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from families import observations, vla

    policy = vla("pi0", noise_level=0.5, num_inference_steps=10, chunk_size=10, n_action_steps=5)
    obs = observations(policy, BATCH)
    frame = {k: v[:, 0].float() / 255 if v.dtype == torch.uint8 else v[:, 0] for k, v in obs.items()}
    frame["task"] = [policy.task] * BATCH

    def collect() -> None:
        policy.sample(policy.encode(obs), 0.1, 0.1)

    def act() -> None:
        policy.module.predict_action_chunk(policy.preprocessor(dict(frame)))

    with torch.no_grad():
        collect(), act()
        pairs = [(seconds(collect), seconds(act)) for _ in range(REPEATS)]
        condition = policy.encode(obs)
    prefix = Prefix.unflatten(condition, policy.shape)
    mine, stock = (median(times) for times in zip(*pairs, strict=True))
    return [
        ("collecting a chunk / acting, tiny pi0", f"{median(a / b for a, b in pairs):.2f}"),
        ("collecting, acting, 8 chunks of tiny pi0", f"{1e3 * mine:.1f}, {1e3 * stock:.1f} ms"),
        (
            "encoded prefix of a decision, tiny pi0",
            f"{condition[0].nbytes:,} bytes for {prefix.mask.shape[1]} tokens",
        ),
    ]


def seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    for name, value in run():
        print(f"{name:52} {value}")
