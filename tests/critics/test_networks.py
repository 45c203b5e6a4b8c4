"""The value network and its measure of fit, by hand."""

import math

import pytest
import torch
from torch import nn

from lerobot_rlft.critics.networks import ValueMLP, explained_variance


def test_value_mlp_by_hand():
    critic = ValueMLP(4, (1,))
    with torch.no_grad():
        for parameter, value in zip(critic.parameters(), (0.5, 0.1, 2.0, -1.0), strict=True):
            parameter.fill_(value)
    # (B, S, C) is flattened: .5 * (1 + 2 + 3 + 4) + .1, then Mish, then 2 y - 1
    hidden = 5.1 * math.tanh(math.log1p(math.exp(5.1)))
    found = critic(torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]]]))
    at_zero = 0.1 * math.tanh(math.log1p(math.exp(0.1)))
    assert found.tolist() == pytest.approx([2 * hidden - 1, 2 * at_zero - 1], abs=1e-5)


def test_value_mlp_has_the_widths_that_were_asked_for():
    linear = [layer for layer in ValueMLP(7, (5, 3)).modules() if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [(7, 5), (5, 3), (3, 1)]


@pytest.mark.parametrize(
    "value, expected",
    [
        ([1.0, 2.0, 3.0], 1.0),
        ([2.0, 2.0, 2.0], 0.0),
        ([11.0, 12.0, 13.0], 1.0),  # a constant error is not seen
        ([3.0, 2.0, 1.0], -3.0),  # errors -2, 0, 2 have variance 4, the target has 1
    ],
)
def test_explained_variance_by_hand(value, expected):
    assert explained_variance(torch.tensor(value), torch.tensor([1.0, 2.0, 3.0])) == pytest.approx(expected)


@pytest.mark.parametrize("target", [[2.0, 2.0, 2.0], [2.0]])
def test_explained_variance_of_a_constant_is_zero(target):
    assert explained_variance(torch.zeros(len(target)), torch.tensor(target)) == 0
