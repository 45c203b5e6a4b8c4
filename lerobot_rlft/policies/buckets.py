"""Time of flow policies that count from noise to data in whole buckets, as GR00T does."""

import torch

from ..chains.flow import FlowSDEKernel


def count_in_buckets(kernel: FlowSDEKernel, buckets: int) -> None:
    """Make the network times of `kernel` whole numbers, and its steps all alike, as such samplers have them.

    Args:
        kernel: counts from noise (`noise_at_one=False`).
        buckets: of the time from 0 to 1.
    """
    steps, device = kernel.num_steps, kernel.timesteps.device
    times = [int(step / steps * buckets) for step in range(steps)]
    kernel.timesteps = torch.tensor(times, device=device).flip(0)
    kernel.step = torch.full((steps,), 1.0 / steps, device=device)
