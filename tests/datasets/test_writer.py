"""Numbers that are none are refused before a dataset exists."""

import math

import numpy as np
import pytest

from lerobot_rlft.datasets.writer import labelled_features, write_dataset
from lerobot_rlft.envs.avoiding import demonstrations as avoiding
from lerobot_rlft.envs.grasps import demonstrations as grasps


@pytest.mark.parametrize("task", [avoiding, grasps])
@pytest.mark.parametrize("noise", [math.nan, math.inf])
def test_noise_that_is_no_number_writes_no_demonstrations(tmp_path, task, noise):
    with pytest.raises(ValueError, match=f"noise={noise} finite"):
        task.write_demonstrations(tmp_path / "data", "local/x", 1, noise=noise, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_lag_that_is_no_number_writes_no_demonstrations(tmp_path):
    with pytest.raises(ValueError, match="lag=nan is out of range"):
        avoiding.write_demonstrations(tmp_path / "data", "local/x", 1, lag=math.nan, progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_no_dataset_holds_what_is_not_finite(tmp_path, bad):
    columns = {
        "observation.state": np.zeros((3, 2), np.float32),
        "observation.environment_state": np.zeros((3, 1), np.float32),
        "action": np.array([[0, 0], [0, bad], [0, 0]], np.float32),
        "next.reward": np.zeros((3, 1), np.float32),
        "next.success": np.zeros((3, 1), bool),
        "next.done": np.zeros((3, 1), bool),
        "mode": np.zeros((3, 1), np.int64),
    }
    features = labelled_features(state=2, environment_state=1, action=2)
    with pytest.raises(ValueError, match="NaN or infinity in action: nothing is written"):
        write_dataset(tmp_path / "data", "local/x", 10, "a task", features, [columns], progress=False)
    assert list(tmp_path.iterdir()) == []
