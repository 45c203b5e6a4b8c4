"""A policy whose actions tell what it was shown."""

import torch
from torch import nn

from lerobot_rlft.chains.chain import Chain
from lerobot_rlft.policies.base import DenoisingPolicy
from lerobot_rlft.rollout.runner import EpisodeRunner

# Observations that the policy sees, and actions of its chunks.
HISTORY, CHUNK = 2, 3


class ToyPolicy(DenoisingPolicy):
    """Action j of a chunk is (seed, step) + 100 j of the newest observation; what it was shown is kept."""

    module, kernel, encoder, feature_dim = nn.Identity(), None, None, 2
    module.config = None
    n_obs_steps, horizon, n_action_steps, action_dim = HISTORY, CHUNK, CHUNK, 2

    def __init__(self):
        self.batches = []

    def encode(self, obs):
        self.batches.append(len(obs["observation.state"]))
        return obs["observation.state"][:, -1]

    def sample(self, condition, sampling_floor, log_prob_floor):
        x = torch.zeros(len(condition), 2, CHUNK, 2)
        x[:, 0] = condition[:, None] + 100 * torch.arange(CHUNK)[:, None]
        return Chain(x, condition[:, :1])

    def deployed_chunk(self, condition):
        return self.sample(condition, 0, 0).x[:, 0]

    def to_action(self, chunk):
        return chunk

    def predict(self, x, timestep, condition): ...
    def executed(self, x): ...
    def save_pretrained(self, folder): ...
    def copy_encoder(self): ...


def identity(value):
    return value


def runner_in(env) -> EpisodeRunner:
    return EpisodeRunner(env, ToyPolicy(), identity, identity)
