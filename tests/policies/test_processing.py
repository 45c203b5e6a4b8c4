"""Instructions of several tasks: each row is told its own."""

import pytest
import torch

from lerobot_rlft.policies.processing import TASK, normalise_observations, task_numbers


def told(obs, task):
    """The instructions that a preprocessor was handed."""
    handed = []

    def preprocessor(batch):
        handed.extend(batch["task"])
        assert TASK not in batch
        return batch

    out = normalise_observations(obs, preprocessor, task)
    assert list(out) == ["observation.state"] and out["observation.state"].shape == (3, 2, 4)
    return handed


def test_each_row_is_told_its_own_task():
    obs = {TASK: torch.tensor([[1], [0], [1]]), "observation.state": torch.zeros(3, 2, 4)}
    assert told(obs, ("push", "pull")) == ["pull"] * 2 + ["push"] * 2 + ["pull"] * 2


def test_one_task_is_told_to_all():
    assert told({"observation.state": torch.zeros(3, 2, 4)}, "push") == ["push"] * 6


def test_numbers_of_instructions():
    assert task_numbers(("push", "pull"), {"task": ["pull", "push"]})[TASK].tolist() == [[1], [0]]
    assert task_numbers("push", {}) == {}
    with pytest.raises(ValueError, match="the instruction 'lift' is of none of the tasks: push; pull"):
        task_numbers(("push", "pull"), {"task": ["push", "lift"]})
