"""Tiny datasets of recorded episodes, written by LeRobot's own writer."""

from pathlib import Path

import numpy as np

from lerobot_rlft.datasets.configuration import EpisodeData
from lerobot_rlft.datasets.recorded import Recorded, read_recorded
from lerobot_rlft.datasets.writer import write_dataset

STATE, ENVIRONMENT = "observation.state", "observation.environment_state"
BOOL = {"dtype": "bool", "shape": (1,), "names": None}


def record(
    root: Path,
    lengths: tuple[int, ...],
    *,
    repo_id: str = "local/recorded",
    fps: int = 28,
    state: int = 4,
    seed: int = 0,
    **per_frame,
) -> EpisodeData:
    """Write episodes of random numbers for the `base_policy` of conftest.

    Args:
        state: size of observation.state.
        per_frame: name, "_" for ".", -> one value for each episode; True in `next_success` and `next_done`
            is at the last frame only, everything else at all frames. A list holds a value for each frame.
    """
    random = np.random.default_rng(seed)
    kinds = {bool: "bool", int: "int64", float: "float32"}
    features = {
        key: {"dtype": "float32", "shape": (size,), "names": None}
        for key, size in ((STATE, state), (ENVIRONMENT, 9), ("action", 2))
    }
    names = {name.replace("next_", "next."): values for name, values in per_frame.items()}
    for name, values in names.items():
        first = values[0][0] if isinstance(values[0], list) else values[0]
        features[name] = {"dtype": kinds[type(first)], "shape": (1,), "names": None}
    episodes = []
    for i, length in enumerate(lengths):
        columns = {
            key: random.uniform(-0.01, 0.01, (length, *features[key]["shape"])).astype(np.float32)
            for key in (STATE, ENVIRONMENT, "action")
        }
        for name, values in names.items():
            value = np.array(values[i]) if isinstance(values[i], list) else np.full(length, values[i])
            if name in ("next.success", "next.done") and not isinstance(values[i], list):
                value &= np.arange(length) == length - 1
            columns[name] = value.astype(features[name]["dtype"])[:, None]
        episodes.append(columns)
    write_dataset(root, repo_id, fps, "task", features, episodes, progress=False)
    return EpisodeData(repo_id=repo_id, root=root)


def read(data: EpisodeData, policy, name: str = "data", demonstration: bool = False, **options) -> Recorded:
    return read_recorded(name, data, policy, demonstration=demonstration, key=STATE, **options)
