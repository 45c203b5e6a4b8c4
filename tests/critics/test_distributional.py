"""Values as distributions over 201 bins."""

import pytest
import torch

from lerobot_rlft.critics.distributional import NUM_BINS, DistributionalValue, bins, two_hot


def test_two_hot_targets_by_hand():
    target = two_hot(torch.tensor([-1.0, 0.0, -0.5, -0.0025, -0.99875, 3.0]))  # bins are .005 apart
    assert torch.allclose(target.sum(1), torch.ones(6))
    assert target[0].nonzero().tolist() == [[0]] and target[1].nonzero().tolist() == [[200]]
    assert target[2, 100] == pytest.approx(1, abs=1e-4)
    assert target[3, 199].item() == pytest.approx(0.5, abs=1e-4)
    assert target[4, :2].tolist() == pytest.approx([0.75, 0.25], abs=1e-4)
    assert target[5, 200] == 1, "beyond the range"
    assert torch.allclose(target[:5] @ bins(), torch.tensor([-1.0, 0.0, -0.5, -0.0025, -0.99875]), atol=1e-6)


def test_it_learns_a_mean():
    torch.manual_seed(0)
    value = DistributionalValue(1, (16,))
    x = torch.tensor([[0.0], [1.0]]).repeat(50, 1)
    y = torch.tensor([-0.8, -0.2]).repeat(50)
    y = y + 0.1 * torch.tensor([1.0, 1.0, -1.0, -1.0]).repeat(25)  # two outcomes on each side
    optimizer = torch.optim.Adam(value.parameters(), lr=1e-2)
    for _ in range(300):
        optimizer.zero_grad()
        value.loss(x, y).backward()
        optimizer.step()
    assert value.net(x).shape == (100, NUM_BINS)
    assert value(x[:2]).tolist() == pytest.approx([-0.8, -0.2], abs=0.02)
