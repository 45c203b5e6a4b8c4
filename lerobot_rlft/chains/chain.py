"""Denoising chains as Markov chains of Gaussians: kernels, sampling and log-probabilities.

A chain starts at `x_K ~ N(0, I)` and ends in the action chunk `x_0`. Step `k` in `K-1 ... 0` draws
`x_k ~ transition(x_{k+1}, k)`; `k = K-1` is the noisiest step and `k = 0` the last, so `k` also indexes what
comes out. Sampling and re-evaluation use the same `transition`, which is what makes the first PPO ratio
exactly 1.
Shapes: B batch, K denoising steps, H horizon, D action dim.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Normal

PREDICTION_TYPES = ("epsilon", "sample")
# DPPO (arXiv:2409.00588) clips exploration noise, and elementwise log-probabilities from below. Its upper
# clip of 2 would leave likely actions without gradient where stds are below .05, and is left out.
NOISE_CLIP = 3.0
LEAST_LOG_PROB = -5.0


@dataclass
class Chain:
    """A sampled chain.

    Attributes:
        x: (B, K+1, H, D); `x[:, k]` is the state after step `k`, `x[:, K]` the initial noise and `x[:, 0]`
            the chunk.
        log_prob: (B, K); `log_prob[:, k]` belongs to the transition from `x[:, k+1]` to `x[:, k]`.
        stochastic: (B, K) bool, the steps that drew noise; only they have a log-probability. None = all.
    """

    x: Tensor
    log_prob: Tensor
    stochastic: Tensor | None = None

    @classmethod
    def cat(cls, chains: "list[Chain]") -> "Chain":
        """Chains of the same kernel below each other."""
        masks = [chain.stochastic for chain in chains if chain.stochastic is not None]
        return cls(
            torch.cat([chain.x for chain in chains]) if chains else torch.zeros(0),
            torch.cat([chain.log_prob for chain in chains]) if chains else torch.zeros(0),
            torch.cat(masks) if masks else None,
        )

    def pairs(self, steps: int) -> tuple[Tensor, Tensor]:
        """Row and step of all stochastic steps k < `steps`, (P,) each, in the order of rows."""
        if self.stochastic is None:
            is_noisy = torch.ones_like(self.log_prob, dtype=torch.bool)
        else:
            is_noisy = self.stochastic
        rows, k = is_noisy[:, :steps].nonzero().T
        return rows, k


class Kernel(ABC):
    """The Gaussian transitions of one sampler.

    Attributes:
        timesteps: (K,) network time of step `k`, ascending in noise: `timesteps[0]` belongs to the last step.
        noise_time: (K,) the same as a share of the training schedule, in (0, 1].
        std: (K,) of the noise that a step adds by itself.
    """

    timesteps: Tensor
    noise_time: Tensor

    std: Tensor

    @property
    def num_steps(self) -> int:
        return len(self.timesteps)

    def stochastic(self, batch: int) -> Tensor | None:
        """Draw which steps of `batch` new chains add noise, (batch, K) bool; None = those with a std > 0."""
        return None

    def deterministic(self, x: Tensor, k: Tensor, prediction: Tensor) -> Tensor:
        """End of a step without noise, (B, H, D); only asked of kernels that draw `stochastic`."""
        raise NotImplementedError

    @abstractmethod
    def transition(self, x: Tensor, k: Tensor, prediction: Tensor) -> Normal:
        """p(x_k | x_{k+1}).

        Args:
            x: (B, H, D) the noisier state `x_{k+1}`.
            k: (B,) long, the step of each row.
            prediction: (B, H, D) network output at `timesteps[k]`.

        Returns:
            A Normal of shape (B, H, D); its std may be 0 where the sampler adds no noise.
        """

    @abstractmethod
    def noised(self, x0: Tensor, k: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The forward process: what step `k` would be given for the chunk `x0`, and what it should predict.

        Args:
            x0: (B, H, D) clean chunks.
            k: (B,) long.
            noise: (B, H, D) standard normal.

        Returns:
            the noisy chunk and the network output that would be perfect, each (B, H, D).
        """

    @abstractmethod
    def score(self, x: Tensor, k: Tensor, prediction: Tensor) -> Tensor:
        """Gradient of the log-density of noisy chunks x (B, H, D), from the network's output at step k."""

    def to(self, device: torch.device | str) -> "Kernel":
        """Move all tensors in place."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, value.to(device))
        return self


class NoiseScheduleKernel(Kernel):
    """Common part of DDPM and DDIM: the noise schedule and the prediction of `x_0`.

    Args:
        alphas_cumprod: (T,) cumulative product of the training schedule.
        timesteps: (K,) the sampler's timesteps in visiting order, noisiest first; beyond the last is x_0.
        prediction_type: `epsilon` or `sample`, what the network predicts.
        clip_range: bound on |x_0| or None.

    Raises:
        ValueError: unknown prediction type.
    """

    def __init__(
        self,
        alphas_cumprod: Tensor,
        timesteps: Tensor,
        prediction_type: str = "epsilon",
        clip_range: float | None = 1.0,
    ) -> None:
        if prediction_type not in PREDICTION_TYPES:
            raise ValueError(
                f"prediction_type={prediction_type!r} is unknown, choose one of {PREDICTION_TYPES}"
            )
        self.timesteps = timesteps.long().flip(0)
        self.prediction_type, self.clip_range = prediction_type, clip_range
        self.noise_time = (self.timesteps + 1) / len(alphas_cumprod)
        self.alpha = alphas_cumprod[self.timesteps]  # (K,)
        self.alpha_previous = torch.cat(
            [torch.ones_like(self.alpha[:1]), self.alpha[:-1]]
        )  # 1: x_0 has no noise
        beta, beta_previous = 1 - self.alpha, 1 - self.alpha_previous
        self.posterior_variance = beta_previous / beta * (1 - self.alpha / self.alpha_previous)  # DDPM eq. 7

    def noised(self, x0: Tensor, k: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        alpha = self.alpha[k][:, None, None]
        return alpha.sqrt() * x0 + (1 - alpha).sqrt() * noise, (
            noise if self.prediction_type == "epsilon" else x0
        )

    def score(self, x: Tensor, k: Tensor, prediction: Tensor) -> Tensor:
        _, noise = self.denoised(x, k, prediction)
        return -noise / (1 - self.alpha[k]).sqrt()[:, None, None]

    def denoised(self, x: Tensor, k: Tensor, prediction: Tensor) -> tuple[Tensor, Tensor]:
        """The (clipped) estimate of x_0 and the unclipped noise estimate, each (B, H, D)."""
        alpha = self.alpha[k][:, None, None]
        if self.prediction_type == "epsilon":
            noise, x0 = prediction, (x - (1 - alpha).sqrt() * prediction) / alpha.sqrt()
        else:
            noise, x0 = (x - alpha.sqrt() * prediction) / (1 - alpha).sqrt(), prediction
        if self.clip_range is not None:
            x0 = x0.clamp(-self.clip_range, self.clip_range)
        return x0, noise


class DDPMKernel(NoiseScheduleKernel):
    """Ancestral sampling, equations 6 and 7 of arXiv:2006.11239; the last step's variance is 0."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        alpha_step = self.alpha / self.alpha_previous
        beta, beta_previous = 1 - self.alpha, 1 - self.alpha_previous
        self.weight_x0 = self.alpha_previous.sqrt() * (1 - alpha_step) / beta  # (K,)
        self.weight_x = alpha_step.sqrt() * beta_previous / beta
        self.std = self.posterior_variance.sqrt()

    def transition(self, x: Tensor, k: Tensor, prediction: Tensor) -> Normal:
        x0, _ = self.denoised(x, k, prediction)
        return gaussian(
            self.weight_x0[k][:, None, None] * x0 + self.weight_x[k][:, None, None] * x, self.std[k]
        )


class DDIMKernel(NoiseScheduleKernel):
    """Equations 12 and 16 of arXiv:2010.02502. `eta` 0 is deterministic, 1 has the variance of DDPM."""

    def __init__(self, *args: Any, eta: float = 0.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.std = eta * self.posterior_variance.sqrt()  # (K,)
        self.weight_x0 = self.alpha_previous.sqrt()
        self.weight_noise = (1 - self.alpha_previous - self.std**2).clamp(min=0).sqrt()

    def transition(self, x: Tensor, k: Tensor, prediction: Tensor) -> Normal:
        x0, noise = self.denoised(x, k, prediction)
        mean = self.weight_x0[k][:, None, None] * x0 + self.weight_noise[k][:, None, None] * noise
        return gaussian(mean, self.std[k])


def gaussian(mean: Tensor, std: Tensor) -> Normal:
    """Normal with one std (B,) for each row of mean (B, H, D); a std of 0 is allowed."""
    return Normal(mean, std[:, None, None].expand_as(mean), validate_args=False)


def with_std_floor(normal: Normal, floor: float) -> Normal:
    """The same mean with std at least `floor`, DPPO's exploration and log-prob floors."""
    return Normal(normal.mean, normal.stddev.clamp(min=floor), validate_args=False)


def step_log_prob(
    normal: Normal, x_next: Tensor, executed: Callable[[Tensor], Tensor], floor: float
) -> Tensor:
    """Log-probability of a step, reduced to one number for each row.

    DPPO's reduction (arXiv:2409.00588, public code): std at least `floor`, elementwise at least -5, only
    the executed part of the chunk, *mean* over (H_exec, D). Clip ranges and KL targets are in these units.
    The clamp is made for stds of .1; without a floor, where stds are the sampler's own and may be smaller,
    it would cut the gradient of every likely action, so there is none.

    Args:
        normal: of shape (B, H, D).
        x_next: (B, H, D).
        executed: cuts (B, H, ...) to the part of the chunk that is sent to the environment.
        floor: smallest std; 0 where all stds are positive.

    Returns:
        (B,)
    """
    log_prob = with_std_floor(normal, floor).log_prob(x_next)
    if floor > 0:
        log_prob = log_prob.clamp(min=LEAST_LOG_PROB)
    return executed(log_prob).flatten(1).mean(1)


def sample_chain(
    transition: Callable[[Tensor, Tensor], Normal],
    noise: Tensor,
    num_steps: int,
    executed: Callable[[Tensor], Tensor],
    sampling_floor: float = 0.0,
    log_prob_floor: float = 0.1,
    stochastic: Tensor | None = None,
) -> Chain:
    """Run the whole chain with exactly `num_steps` calls of `transition`.

    Args:
        transition: (x (B, H, D), k (B,)) -> Normal over the next state.
        noise: (B, H, D) initial state x_K.
        num_steps: K.
        executed: see `step_log_prob`.
        sampling_floor: smallest std of the noise that is added, also at the last step. Exploration (> 0)
            clips the standard normal draws to +-`NOISE_CLIP`; 0 draws exactly what diffusers' schedulers
            draw.
        log_prob_floor: see `step_log_prob`.
        stochastic: (B, K) bool, the steps that add noise and get a log-probability; None = all.
    """
    clip = NOISE_CLIP if sampling_floor > 0 else math.inf
    x, log_probs = [noise], []
    for k in reversed(range(num_steps)):
        normal = transition(x[-1], torch.full((len(noise),), k, device=noise.device))
        std = normal.stddev.clamp(min=sampling_floor)
        if stochastic is not None:
            std = std * stochastic[:, k, None, None]
        draw = torch.zeros_like(noise)
        if bool((std > 0).any()):  # a noise-free step draws nothing, like diffusers, so that seeds agree
            draw = torch.randn_like(noise).clamp(-clip, clip)
        x.append(normal.mean + std * draw)
        log_prob = step_log_prob(normal, x[-1], executed, log_prob_floor)
        log_probs.append(log_prob if stochastic is None else log_prob.where(stochastic[:, k], 0))
    return Chain(torch.stack(x[::-1], 1), torch.stack(log_probs[::-1], 1), stochastic)


def kl_divergence(p: Normal, q: Normal, executed: Callable[[Tensor], Tensor], floor: float) -> Tensor:
    """KL(p || q) of one step in nats, (B,); only of the executed part of the chunk, stds at least `floor`."""
    return (
        executed(torch.distributions.kl_divergence(with_std_floor(p, floor), with_std_floor(q, floor)))
        .flatten(1)
        .sum(1)
    )
