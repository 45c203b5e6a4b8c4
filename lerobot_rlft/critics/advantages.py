"""Advantages over chunk decisions. Shapes: T decisions of an episode, N episodes side by side; entries after
an episode's end are marked by `valid` and carry no information."""

import torch
from torch import Tensor


def gae(
    reward: Tensor,
    value: Tensor,
    final_value: Tensor,
    terminated: Tensor,
    valid: Tensor,
    gamma: float,
    gae_lambda: float,
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (arXiv:1506.02438, eq. 16) over whole episodes.

    Args:
        reward: (T, N) summed over the executed chunk.
        value: (T, N) value of the observation that each decision saw.
        final_value: (N,) value of the observation after the last decision. It is the bootstrap where a time
            limit cut the episode and is ignored where the episode terminated.
        terminated: (N,) bool, whether the episode ended by itself.
        valid: (T, N) bool, a run of True from 0 to each episode's last decision.
        gamma: discount for each decision.
        gae_lambda: 0 is one-step TD, 1 Monte Carlo.

    Returns:
        advantage and return (the value target), each (T, N), 0 where not valid.
    """
    steps = len(reward)
    last = torch.cat([valid[1:], torch.zeros_like(valid[:1])]) != valid  # (T, N) True at each last decision
    bootstrap = torch.where(terminated, torch.zeros_like(final_value), final_value)
    advantage, carry = torch.zeros_like(reward), torch.zeros_like(final_value)
    for t in reversed(range(steps)):
        next_value = torch.where(last[t], bootstrap, value[min(t + 1, steps - 1)])
        delta = reward[t] + gamma * next_value - value[t]
        carry = (delta + gamma * gae_lambda * carry) * valid[
            t
        ]  # 0 when an episode's last decision is reached
        advantage[t] = carry
    return advantage, (advantage + value) * valid


class RewardScaler:
    """Divides rewards by the running standard deviation of the discounted return.

    The statistic is that of the returns-so-far `R_t = gamma R_{t-1} + r_t` of all decisions ever seen (the
    reward half of the usual VecNormalize), merged batch by batch with Chan's parallel variance.

    Args:
        gamma: discount for each decision.
    """

    def __init__(self, gamma: float) -> None:
        self.gamma = gamma
        self.mean, self.variance, self.count = 0.0, 1.0, 1e-4

    def __call__(self, reward: Tensor, valid: Tensor) -> Tensor:
        """Update the statistic with one batch of whole episodes and return the scaled reward, both (T, N)."""
        running, returns = torch.zeros_like(reward[0]), []
        for r in reward:
            running = self.gamma * running + r
            returns.append(running)
        batch = torch.stack(returns)[valid].double()
        mean, variance, count = batch.mean().item(), batch.var(unbiased=False).item(), len(batch)
        total, delta = self.count + count, mean - self.mean
        self.variance = (
            self.variance * self.count + variance * count + delta**2 * self.count * count / total
        ) / total
        self.mean += delta * count / total
        self.count = total
        return reward / self.std

    @property
    def std(self) -> float:
        return (self.variance + 1e-8) ** 0.5

    def state_dict(self) -> dict[str, float]:
        return {"mean": self.mean, "variance": self.variance, "count": self.count}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.mean, self.variance, self.count = state["mean"], state["variance"], state["count"]


def denoising_discount(num_finetuned: int, gamma_denoising: float) -> Tensor:
    """(K',) weight of step `k`: gamma ** k.

    DPPO, arXiv:2409.00588, section 4.3, writes gamma ** (K'-1-i) with i = K'-1-k counted from the noisiest:
    the noisier a step, the less it is held responsible.
    """
    return gamma_denoising ** torch.arange(num_finetuned, dtype=torch.float32)


def clip_schedule(num_finetuned: int, coef: float, base: float, rate: float) -> Tensor:
    """(K',) PPO clip range of step `k`: `coef` at the last, `base` at the noisiest, exponential in between.

    `eps_i = base + (coef - base) (exp(rate s) - 1) / (exp(rate) - 1)`, s = i / (K'-1), i = K'-1-k, as in
    DPPO's public code (arXiv:2409.00588). A chain of one step (0/0 there) has `coef`; rate 0 is the linear
    limit.
    """
    if num_finetuned == 1:
        return torch.tensor([coef])
    s = torch.arange(num_finetuned - 1, -1, -1, dtype=torch.float32) / (num_finetuned - 1)
    share = s if rate == 0 else torch.expm1(rate * s) / torch.expm1(torch.tensor(rate))
    return base + (coef - base) * share
