"""Flow-matching policies as Markov chains of Gaussians: kernels and the learned noise. Plain torch.

Everything is written in the share of noise t, 1 is noise and 0 data: x_t = (1 - t) a + t n for a chunk a and
noise n, K steps of size d = 1 / K; step `k` goes from t = (k + 1) / K to k / K. A network may count time that
way (openpi: pi0, pi05, smolvla; its velocity is n - a) or the other (multi_task_dit: t' = 1 - t, velocity
a - n). Shapes: B batch, K denoising steps, H horizon, D action dim, F features.
"""

import math

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from .chain import Kernel, gaussian

MAX_NOISE_LEVEL = 1.5  # beyond, the drift of the first steps overshoots and chains blow up


class FlowSDEKernel(Kernel):
    """Flow-SDE (arXiv:2510.25889, the step of Flow-GRPO arXiv:2505.05470): Euler-Maruyama of an SDE that has
    the marginals of the policy's ODE as K grows.

        sigma_t = a sqrt(t / (1 - t)),  at t = 1 with (K-1)/K in the denominator
        mean = x - d (v + sigma_t^2 / 2 * n_hat / t),  std = sigma_t sqrt(d)

    v is the velocity n - a and n_hat = x + (1 - t) v the noise in x, so that -n_hat / t is the score. With
    a = 0 each step is LeRobot's Euler step, to the last bit.

    Args:
        num_steps: K.
        noise_level: a.
        noise_at_one: the network's time is t, as in openpi; else 1 - t.
        sigma_min: noise left at t = 0 of the path the network was trained on: t + (1 - t) sigma_min is the
            factor of n, and the velocity (1 - sigma_min) n - a.

    Raises:
        ValueError: no steps, or a noise level out of its range.
    """

    def __init__(
        self, num_steps: int, noise_level: float = 0.0, noise_at_one: bool = True, sigma_min: float = 0.0
    ) -> None:
        if num_steps < 1:
            raise ValueError(f"the flow has {num_steps} integration steps, choose at least 1")
        check_noise_level(noise_level)
        if noise_at_one:  # the floats of `euler_integrate`
            step = torch.full((num_steps,), -1.0 / num_steps)
            times = torch.tensor([1.0 + i * (-1.0 / num_steps) for i in range(num_steps)])
        else:  # those of multi_task_dit
            grid = torch.linspace(0, 1, num_steps + 1)
            times, step = grid[:-1], grid[1:] - grid[:-1]
        self.timesteps, self.step = times.flip(0), step.flip(0)  # (K,)
        self.noise_time = torch.arange(1, num_steps + 1) / num_steps  # t
        # Velocities of networks that count from noise to data point the other way.
        self.sign = 1.0 if noise_at_one else -1.0
        self.sigma_min = sigma_min
        self.noise_scale = self.noise_time + (1 - self.noise_time) * sigma_min  # of n in x
        rest = 1 - self.noise_time.clamp(max=(num_steps - 1) / num_steps)
        self.sigma = noise_level * (self.noise_time / rest).sqrt()
        self.std = self.sigma * math.sqrt(1 / num_steps)

    def transition(self, x: Tensor, k: Tensor, prediction: Tensor) -> Normal:
        # The step towards data is along -d of n - a, or +d of a - n: `step` carries the sign of both.
        noise = self.noise(x, k, prediction)
        drift = (self.sigma[k].square() / (2 * self.noise_scale[k]))[:, None, None] * noise
        return gaussian(self._step(x, k, prediction.float() + self.sign * drift), self.std[k])

    def deterministic(self, x: Tensor, k: Tensor, prediction: Tensor) -> Tensor:
        return self._step(x, k, prediction.float())

    def _step(self, x: Tensor, k: Tensor, velocity: Tensor) -> Tensor:
        return x.float() + self.step[k][:, None, None] * velocity

    def noise(self, x: Tensor, k: Tensor, prediction: Tensor) -> Tensor:
        """The noise n that the network sees in x, (B, H, D)."""
        return x.float() + (1 - self.noise_time[k])[:, None, None] * (self.sign * prediction.float())

    def noised(self, x0: Tensor, k: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        x = (1 - self.noise_time[k])[:, None, None] * x0 + self.noise_scale[k][:, None, None] * noise
        return x, self.sign * ((1 - self.sigma_min) * noise - x0)

    def score(self, x: Tensor, k: Tensor, prediction: Tensor) -> Tensor:
        return -self.noise(x, k, prediction) / self.noise_scale[k][:, None, None]


class HybridKernel(FlowSDEKernel):
    """One stochastic step in each chain, at random; the others follow the ODE (arXiv:2510.25889).

    Only the stochastic step has a log-probability, so an update costs 1 / K of the whole chain's. A late one
    never re-weighs modes: by then the chain has chosen.
    """

    def stochastic(self, batch: int) -> Tensor:
        step = torch.randint(self.num_steps, (batch, 1), device=self.timesteps.device)
        return step == torch.arange(self.num_steps, device=self.timesteps.device)


class NoiseHead(nn.Module):
    """Learned noise: the std of each step from features and time (Flow-Noise, ReinFlow arXiv:2505.22094).

    log std^2 is bounded by a tanh between its values at `std_range`; it starts in the middle. Used for
    exploration alone and dropped at deployment.

    Args:
        feature_dim: F.
        chunk: (H, D).
        std_range: smallest and largest std.

    Raises:
        ValueError: the range is empty, or holds no positive stds.
    """

    def __init__(
        self, feature_dim: int, chunk: tuple[int, int], std_range: tuple[float, float], hidden: int = 64
    ) -> None:
        super().__init__()
        check_std_range(std_range)
        self.chunk, self.std_range = chunk, std_range
        low, high = (2 * math.log(std) for std in std_range)
        self.middle, self.reach = (low + high) / 2, (high - low) / 2
        self.net = nn.Sequential(
            nn.Linear(feature_dim + 1, hidden), nn.Mish(), nn.Linear(hidden, math.prod(chunk))
        )
        last = self.net[-1]
        # The base keeps its first head; with this one any two are alike before they are trained.
        nn.init.zeros_(last.weight)  # type: ignore[arg-type]
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor, noise_time: Tensor) -> Tensor:
        """(B, F), (B,) -> std (B, H, D)"""
        out = self.net(torch.cat([features.float(), noise_time[:, None]], 1))
        return (0.5 * (self.middle + self.reach * out.tanh())).exp().unflatten(1, self.chunk)


def check_noise_level(noise_level: float) -> None:
    """Raise a ValueError unless it is in [0, 1.5]."""
    if not 0 <= noise_level <= MAX_NOISE_LEVEL:
        raise ValueError(
            f"noise_level={noise_level} is out of range, choose 0 to {MAX_NOISE_LEVEL}, for example 0.5: "
            "with more the SDE explodes"
        )


def check_std_range(std_range: tuple[float, float]) -> None:
    """Raise a ValueError unless 0 < smallest < largest."""
    low, high = std_range
    if not 0 < low < high:
        raise ValueError(
            f"noise_std_range={list(std_range)} is no range of stds, choose two numbers > 0, the smaller "
            "first, for example [0.08, 0.16]"
        )
