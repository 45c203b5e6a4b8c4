"""A policy whose every number can be computed by hand, minibatches and episodes of it."""

import copy

import numpy as np
import torch
from torch import nn

from lerobot_rlft.chains.chain import Chain, DDPMKernel
from lerobot_rlft.policies.base import DenoisingPolicy
from lerobot_rlft.regularizers.base import Step
from lerobot_rlft.rollout.episodes import Episodes, Rollout

FLOOR = 0.5
ALPHAS_CUMPROD = torch.tensor([0.9, 0.5, 0.1])
# DDPM, equation 7 of arXiv:2006.11239: weight of x_0 in the mean, and variance, of steps 0, 1, 2
WEIGHT_X0 = (1.0, 0.9**0.5 * (1 - 5 / 9) / 0.5, 0.5**0.5 * 0.8 / 0.9)
VARIANCE = (0.25, 0.25, 0.5 / 0.9 * 0.8)  # those of steps 0 and 1, 0 and .0889, are raised to FLOOR^2
EXECUTED = 4  # numbers of a chunk


class Constant(DenoisingPolicy):
    """Says that every number of the clean chunk is `value`, plus the mean of the observation."""

    n_obs_steps, horizon, n_action_steps, action_dim, feature_dim = 1, 3, 2, 2, 2

    def __init__(self, value: float = 0.0, encoder: bool = False) -> None:
        self.module = nn.ParameterDict({"value": nn.Parameter(torch.tensor(float(value)))})
        if encoder:
            self.module["unit"] = nn.Parameter(torch.ones(2))
        self.kernel = DDPMKernel(ALPHAS_CUMPROD, torch.arange(3).flip(0), "sample", clip_range=None)
        self.predicted, self.scale = 0, 1.0

    def encode(self, obs):
        state = obs["observation.state"][:, -1]
        return state * self.module["unit"] if "unit" in self.module else state

    def predict(self, x, timestep, condition):
        self.predicted += 1
        return (self.module["value"] + condition.mean(1))[:, None, None].expand_as(x)

    def executed(self, x):
        return x[:, :2]

    @property
    def encoder(self):
        return self.module if "unit" in self.module else None

    def copy_encoder(self):
        return copy.deepcopy(self)

    def deployed_chunk(self, condition):
        raise NotImplementedError

    def to_action(self, chunk):
        return self.scale * self.executed(chunk)

    def save_pretrained(self, folder):
        raise NotImplementedError


def learned_noise(by_step) -> tuple[nn.Module, nn.Parameter]:
    """A noise head with these stds at steps 0, 1 and 2, and its parameter."""
    head = nn.Module()
    head.std = nn.Parameter(torch.tensor(by_step))
    # `noise_time` is 1/3, 2/3, 1.
    head.forward = lambda features, noise_time: head.std[(3 * noise_time).round().long() - 1][
        :, None, None
    ].expand(-1, 3, 2)
    return head, head.std


def make_step(policy, base, k=(0, 1, 2), state=0.0, x=None) -> Step:
    """A minibatch of the denoising steps `k`, at observations that all are `state`."""
    k = torch.tensor(k)
    x = torch.zeros(len(k), 3, 2) if x is None else x
    obs = {"observation.state": torch.full((len(k), 1, 2), state)}
    condition = policy.encode(obs)
    prediction = policy.predict(x, policy.kernel.timesteps[k], condition)
    return Step(policy, base, x, k, condition, prediction, lambda other: other.encode(obs), FLOOR)


def rollout(lengths, success, attempt=None, chunks=None, obs=None) -> Rollout:
    """Episodes of these lengths; `chunks` and `obs` (D, ...) are in the order of t, then of the episode."""
    valid = torch.arange(max(lengths))[:, None] < torch.tensor(lengths)
    t, episode = valid.nonzero().T
    count = len(t)
    x = torch.zeros(count, 4, 3, 2)
    if chunks is not None:
        x[:, 0] = chunks
    state = torch.arange(float(count)).view(count, 1, 1).expand(count, 1, 2)
    return Rollout(
        obs={"observation.state": state} if obs is None else obs,
        chain=Chain(x, torch.zeros(count, 3)),
        t=t,
        episode=episode,
        reward=torch.zeros(valid.shape),
        valid=valid,
        terminated=torch.ones(len(lengths), dtype=torch.bool),
        final_obs={},
        episodes=Episodes(np.array(success), None, *np.zeros((2, len(lengths))), np.array(lengths)),
        attempt=None if attempt is None else torch.tensor(attempt),
    )
