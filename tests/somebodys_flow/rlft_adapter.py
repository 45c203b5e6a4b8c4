"""How `mlp_flow` is a chain of Gaussian steps."""

import torch

from lerobot_rlft.policies.base import DenoisingPolicy, register
from lerobot_rlft.policies.processing import normalise_observations


@register("mlp_flow")
class MLPFlowAdapter(DenoisingPolicy):
    def __init__(self, policy, preprocessor, postprocessor, exploration):
        self.module, self.preprocessor, self.postprocessor = policy.eval(), preprocessor, postprocessor
        config = policy.config
        self.n_obs_steps = 1
        self.horizon, self.n_action_steps = config.chunk_size, config.n_action_steps
        self.action_dim = config.action_feature.shape[0]
        # Here time 0 is noise and 1 data; openpi's way is noise_at_one=True.
        self.use_flow(config.num_steps, exploration, noise_at_one=False)

    def encode(self, obs):
        """Observations (B, n_obs_steps, ...) -> all that the network needs to know of them, (B, C)."""
        return normalise_observations(obs, self.preprocessor)["observation.state"][:, -1]

    @property
    def feature_dim(self):
        """C, what the critic reads."""
        return self.module.config.robot_state_feature.shape[0]

    def predict(self, x, timestep, condition):
        """The velocity (B, H, D) at noisy chunks x (B, H, D) and the network's own time (B,)."""
        return self.module.velocity(condition, x, timestep)

    def executed(self, x):
        """The part of a chunk (B, H, ...) that the environment gets."""
        return x[:, : self.n_action_steps]

    @torch.no_grad()
    def deployed_chunk(self, condition):
        """A chunk (B, H, D) by the policy's own sampler."""
        return self.module.sample(condition)
