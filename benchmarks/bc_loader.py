"""Samples per second of behaviour cloning against stock `lerobot-train`, on the Avoiding demonstrations.

    OMP_NUM_THREADS=1 python -m benchmarks.bc_loader

96 episodes, batch 256, the policy of recipes/avoiding_base.yaml, stock DataLoader with num_workers=0.
"training" is loading, preprocessing and the gradient step; both paths give equal batches
(tests/datasets/test_windows.py).
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from lerobot.datasets import EpisodeAwareSampler, LeRobotDataset
from lerobot.datasets.factory import resolve_delta_timestamps
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
from torch.utils.data import DataLoader

from lerobot_rlft.algorithms.bc import BC, BCConfig
from lerobot_rlft.datasets.loader import make_loader
from lerobot_rlft.envs.avoiding.demonstrations import write_demonstrations
from lerobot_rlft.policies.base import Exploration
from lerobot_rlft.policies.loading import make_fresh

REPO_ID, BATCH_SIZE = "local/bc_loader", 256


def samples_per_second(
    batches: Iterator[dict], num_batches: int, update: Callable[[dict], object] = lambda batch: None
) -> float:
    """Rate over `num_batches` batches, after one that warms up."""
    update(next(batches))
    start, samples = time.perf_counter(), 0
    for _ in range(num_batches):
        batch = next(batches)
        samples += len(batch["action"])
        update(batch)
    return samples / (time.perf_counter() - start)


def run() -> list[tuple[str, str]]:
    """Measure both paths on the same data; (name, value) rows."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "dataset"
        write_demonstrations(root, REPO_ID, progress=False)
        config = DiffusionConfig(
            n_obs_steps=1, horizon=8, n_action_steps=8, drop_n_last_frames=0, down_dims=(64,), kernel_size=3,
            diffusion_step_embed_dim=32, num_train_timesteps=10, device="cpu", push_to_hub=False,
        )  # fmt: skip
        ours = make_loader(REPO_ID, config, root=root, batch_size=BATCH_SIZE)
        meta = ours.dataset.meta
        stock_dataset = LeRobotDataset(REPO_ID, root, delta_timestamps=resolve_delta_timestamps(config, meta))
        sampler = EpisodeAwareSampler(
            meta.episodes["dataset_from_index"], meta.episodes["dataset_to_index"], shuffle=True
        )
        stock = DataLoader(stock_dataset, BATCH_SIZE, sampler=sampler)
        policy = make_fresh(config, meta, Exploration())
        optimizer = config.get_optimizer_preset().build(policy.module.get_optim_params())
        update = BC(
            BCConfig(batch_size=BATCH_SIZE), policy.module, policy.preprocessor, optimizer, None
        ).update
        loading = samples_per_second(iter(stock), 3), samples_per_second(ours, 300)
        training = samples_per_second(iter(stock), 3, update), samples_per_second(ours, 20, update)
    return [
        (f"bc {name}: stock, ours, ratio", f"{a:,.0f} {b:,.0f} samples/s, {b / a:,.1f}x")
        for name, (a, b) in (("loading", loading), ("training", training))
    ]


if __name__ == "__main__":
    for name, value in run():
        print(f"{name:40} {value}")
