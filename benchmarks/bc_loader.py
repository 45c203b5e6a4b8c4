"""Samples per second of the in-memory loader against stock, on one synthetic state-only dataset.

    OMP_NUM_THREADS=1 python -m benchmarks.bc_loader

96 episodes of 90 frames, observation.state 4, observation.environment_state 9, action 2, diffusion windows
(n_obs_steps 2, horizon 8), batch 256, stock DataLoader with num_workers=0. Both give equal batches
(tests/test_data.py).
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from lerobot.datasets import EpisodeAwareSampler, LeRobotDataset
from lerobot.datasets.factory import resolve_delta_timestamps
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
from torch.utils.data import DataLoader

from lerobot_rlft.data import make_loader

REPO_ID = "local/bc_loader"
EPISODES, FRAMES, BATCH_SIZE = 96, 90, 256
SHAPES = {"observation.state": 4, "observation.environment_state": 9, "action": 2}


def write_dataset(root: Path) -> None:
    """Write the synthetic dataset under `root`, which must not exist."""
    features = {key: {"dtype": "float32", "shape": (n,), "names": None} for key, n in SHAPES.items()}
    dataset = LeRobotDataset.create(REPO_ID, fps=28, features=features, root=root, use_videos=False)
    rng = np.random.default_rng(0)
    for _ in range(EPISODES):
        for _ in range(FRAMES):
            frame = {key: rng.standard_normal(n).astype(np.float32) for key, n in SHAPES.items()}
            dataset.add_frame({**frame, "task": "synthetic"})
        dataset.save_episode()
    dataset.finalize()


def samples_per_second(batches: Iterator[dict], num_batches: int) -> float:
    """Rate over `num_batches` batches, after one that warms up."""
    next(batches)
    start = time.perf_counter()
    samples = sum(len(next(batches)["action"]) for _ in range(num_batches))
    return samples / (time.perf_counter() - start)


def run() -> list[tuple[str, str]]:
    """Measure both loaders on the same data. Returns (name, value) rows: two rates and their ratio."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "dataset"
        write_dataset(root)
        config = DiffusionConfig(n_obs_steps=2, horizon=8, n_action_steps=4, device="cpu", push_to_hub=False)
        ours = make_loader(REPO_ID, config, root=root, batch_size=BATCH_SIZE)
        meta = ours.dataset.meta
        stock = LeRobotDataset(REPO_ID, root, delta_timestamps=resolve_delta_timestamps(config, meta))
        sampler = EpisodeAwareSampler(
            meta.episodes["dataset_from_index"],
            meta.episodes["dataset_to_index"],
            drop_n_last_frames=config.drop_n_last_frames,
            shuffle=True,
        )
        stock_rate = samples_per_second(iter(DataLoader(stock, BATCH_SIZE, sampler=sampler)), 4)
        our_rate = samples_per_second(ours, 500)
    return [
        ("stock DataLoader, num_workers=0", f"{stock_rate:,.0f} samples/s"),
        ("lerobot_rlft.data", f"{our_rate:,.0f} samples/s"),
        ("ratio", f"{our_rate / stock_rate:,.0f}x"),
    ]


if __name__ == "__main__":
    for name, value in run():
        print(f"{name:34}{value:>24}")
