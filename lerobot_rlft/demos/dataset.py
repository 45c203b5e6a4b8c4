"""Writing demonstrations as a LeRobotDataset, whole or not at all."""

import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset


def write_dataset(
    root: Path, repo_id: str, fps: int, task: str, episodes: Iterable[dict[str, np.ndarray]]
) -> None:
    """Write state-only episodes as a LeRobotDataset that stock `lerobot-train` reads.

    Args:
        root: folder to create; it must not exist. It appears only when all episodes are written.
        repo_id: `user/name`, recorded nowhere but in the library's own bookkeeping.
        fps: control steps per second.
        task: the sentence that describes the task.
        episodes: one dict of feature name -> array (T, ...) for each episode, equal names and shapes in all.

    Raises:
        FileExistsError: `root` exists.
    """
    if root.exists():
        raise FileExistsError(f"--root={root} exists: choose another folder or delete this one")
    partial = root.with_name(f".{root.name}.{uuid.uuid4().hex[:8]}.partial")
    dataset = None
    try:
        for columns in episodes:
            if dataset is None:
                features = {
                    name: {"dtype": str(column.dtype), "shape": column.shape[1:], "names": None}
                    for name, column in columns.items()
                }
                dataset = LeRobotDataset.create(repo_id, fps, features, root=partial, use_videos=False)
            for frame in range(len(columns["action"])):
                dataset.add_frame({name: column[frame] for name, column in columns.items()} | {"task": task})
            dataset.save_episode()
        assert dataset is not None, "no episodes"
        dataset.finalize()
        partial.rename(root)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
