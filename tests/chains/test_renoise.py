"""The chain of networks that predict the clean chunk."""

import pytest
import torch

from lerobot_rlft.chains.flow import FlowSDEKernel
from lerobot_rlft.chains.renoise import RenoisingKernel


def full(value):
    return torch.full((1, 2, 1), value)


@pytest.mark.parametrize(
    "eta, mean, std",
    [
        (1.0, 0.5 * 4.0, 0.5),  # (1 - t') a and t'
        (0.0, 0.5 * 4.0 + 0.5 * 8.0, 0.0),  # n_hat = (7 - 0.25 * 4) / 0.75 = 8
        (0.6, 0.5 * 4.0 + 0.5 * 0.8 * 8.0, 0.3),
    ],
)
def test_a_step(eta, mean, std):
    kernel = RenoisingKernel(4, eta)
    normal = kernel.transition(full(7.0), torch.tensor([2]), full(4.0))  # from t = 0.75 to 0.5
    torch.testing.assert_close(normal.mean, full(mean))
    torch.testing.assert_close(normal.stddev, full(std))


def test_the_last_step_is_the_prediction():
    normal = RenoisingKernel(4).transition(full(7.0), torch.tensor([0]), full(4.0))
    assert torch.equal(normal.mean, full(4.0)) and torch.equal(normal.stddev, full(0.0))


def test_without_new_noise_a_step_is_that_of_the_flow():
    x, chunk = torch.randn(2, 4, 3, 2).unbind(0)
    k = torch.arange(4)
    kernel, flow = RenoisingKernel(4, 0.0), FlowSDEKernel(4)
    velocity = (x - chunk) / kernel.noise_time[k][:, None, None]
    expected = flow.deterministic(x, k, velocity)
    torch.testing.assert_close(kernel.transition(x, k, chunk).mean, expected)
    torch.testing.assert_close(kernel.score(x, k, chunk), flow.score(x, k, velocity))


def test_noised_chunks_hold_their_noise():
    x0, noise = torch.randn(2, 4, 3, 2).unbind(0)
    k = torch.arange(4)
    kernel = RenoisingKernel(4)
    x, target = kernel.noised(x0, k, noise)
    assert torch.equal(target, x0)
    torch.testing.assert_close(kernel.noise(x, k, target), noise)
    torch.testing.assert_close(x[3], noise[3])  # t = 1


@pytest.mark.parametrize("steps, eta, answer", [(0, 1.0, "0 denoising steps"), (4, 1.5, "eta=1.5 is out")])
def test_options_out_of_range(steps, eta, answer):
    with pytest.raises(ValueError, match=answer):
        RenoisingKernel(steps, eta)
