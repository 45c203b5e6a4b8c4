"""Writing demonstrations as a LeRobotDataset, whole or not at all."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from datasets import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.utils.constants import ACTION, DONE, OBS_ENV_STATE, OBS_STATE, REWARD, SUCCESS
from tqdm import tqdm

from ..utils.files import make_folder, replacing


def labelled_features(state: int, environment_state: int, action: int) -> dict[str, dict[str, Any]]:
    """LeRobot's feature descriptions of episodes whose mode is known; the arguments are sizes of vectors."""
    return {
        name: {"dtype": dtype, "shape": (size,), "names": None}
        for name, dtype, size in (
            (OBS_STATE, "float32", state),
            (OBS_ENV_STATE, "float32", environment_state),
            (ACTION, "float32", action),
            (REWARD, "float32", 1),
            (SUCCESS, "bool", 1),
            (DONE, "bool", 1),
            ("mode", "int64", 1),
        )
    }


def write_dataset(
    root: Path,
    repo_id: str,
    fps: int,
    task: str,
    features: dict[str, dict[str, Any]],
    episodes: Iterable[dict[str, np.ndarray]],
    total: int | None = None,
    progress: bool = True,
) -> LeRobotDataset:
    """Write state-only episodes as a LeRobotDataset that stock `lerobot-train` reads.

    Args:
        root: folder to create; it appears only once it is complete.
        repo_id: name of the dataset, `user/name`.
        fps: control steps per second.
        task: the sentence that describes the task.
        features: LeRobot's feature descriptions.
        episodes: for each episode its columns, feature name -> (T, *shape).
        total: number of episodes, for the progress bar.
        progress: show a progress bar.

    Returns:
        The written dataset, opened for reading.

    Raises:
        FileExistsError: `root` exists.
        ValueError: a column holds NaN or infinity; nothing is left behind.
        StorageFailure: it cannot be written; nothing is left behind.
    """
    root = Path(root)
    if root.exists():
        raise FileExistsError(f"root={root} exists; delete it or choose another directory")
    make_folder(root.parent)
    with replacing(root, exist_ok=False) as partial:
        dataset = LeRobotDataset.create(repo_id, fps, features, root=partial, use_videos=False)
        no_bars = are_progress_bars_disabled()
        disable_progress_bars()  # LeRobot's writer would draw one per episode
        try:
            for columns in tqdm(episodes, desc="episodes", total=total, disable=not progress):
                _check_finite(columns)
                for frame in zip(*columns.values(), strict=True):
                    dataset.add_frame({**dict(zip(columns, frame, strict=True)), "task": task})
                dataset.save_episode()
        finally:
            # Also after an error: LeRobot else flushes when the object is collected, after the clean-up.
            dataset.finalize()
            if not no_bars:
                enable_progress_bars()
    return LeRobotDataset(repo_id, root=root)


def _check_finite(columns: dict[str, np.ndarray]) -> None:
    """Raise a ValueError that names the columns with NaN or infinity: its statistics would be NaN, too."""
    names = [name for name, values in columns.items() if not np.isfinite(values).all()]
    if names:
        raise ValueError(f"an episode holds NaN or infinity in {', '.join(names)}: nothing is written")
