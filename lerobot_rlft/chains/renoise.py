"""The chain of networks that predict the clean chunk and noise it anew for the next step. Plain torch."""

import math

import torch
from torch import Tensor
from torch.distributions import Normal

from .chain import Kernel, gaussian


class RenoisingKernel(Kernel):
    """On the path x_t = (1 - t) a + t n between chunk a (t = 0) and noise n (t = 1), the step from t to t' is

        x' = (1 - t') a + t' (sqrt(1 - eta^2) n_hat + eta n),  n_hat = (x - (1 - t) a) / t

    with a the network's prediction at t = (k + 1) / K, t' = k / K, and n new noise. eta = 0 is the Euler step
    of the flow. The last step adds no noise: t' = 0.

    Args:
        num_steps: K.
        eta: share of the noise that is new, 0 to 1.

    Raises:
        ValueError: no steps, or eta is out of its range.
    """

    def __init__(self, num_steps: int, eta: float = 1.0) -> None:
        if num_steps < 1:
            raise ValueError(f"the sampler has {num_steps} denoising steps, choose at least 1")
        if not 0 <= eta <= 1:
            raise ValueError(f"eta={eta} is out of range, choose 0 (no new noise) to 1 (new noise alone)")
        self.timesteps = torch.tensor([(k + 1) / num_steps for k in range(num_steps)])
        self.noise_time = self.timesteps.clone()
        self.next_time = torch.tensor([k / num_steps for k in range(num_steps)])
        self.std = eta * self.next_time
        self.remembered = math.sqrt(1 - eta**2)

    def transition(self, x: Tensor, k: Tensor, prediction: Tensor) -> Normal:
        chunk, time = prediction.float(), self.next_time[k][:, None, None]
        return gaussian((1 - time) * chunk + time * self.remembered * self.noise(x, k, chunk), self.std[k])

    def noise(self, x: Tensor, k: Tensor, prediction: Tensor) -> Tensor:
        """The noise n that the network sees in x, (B, H, D)."""
        time = self.noise_time[k][:, None, None]
        return (x.float() - (1 - time) * prediction.float()) / time

    def noised(self, x0: Tensor, k: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        time = self.noise_time[k][:, None, None]
        return (1 - time) * x0 + time * noise, x0

    def score(self, x: Tensor, k: Tensor, prediction: Tensor) -> Tensor:
        return -self.noise(x, k, prediction) / self.noise_time[k][:, None, None]
