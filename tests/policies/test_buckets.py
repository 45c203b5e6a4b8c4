"""Time in whole buckets."""

import torch

from lerobot_rlft.chains.flow import FlowSDEKernel
from lerobot_rlft.policies.buckets import count_in_buckets


def test_times_are_rounded_down_and_steps_alike():
    kernel = FlowSDEKernel(3, noise_at_one=False)
    count_in_buckets(kernel, 1000)
    assert kernel.timesteps.tolist() == [666, 333, 0]  # the last step first
    assert kernel.step.tolist() == [torch.tensor(1 / 3).item()] * 3
    assert kernel.timesteps.dtype == torch.long
