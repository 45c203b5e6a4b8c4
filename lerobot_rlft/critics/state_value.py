"""The critic of DPPO: the value of a decision, whatever its denoising steps. Plain torch.

Shapes: D decisions, C condition, F features.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..algorithms.base import descend
from ..algorithms.configuration_dppo import DPPOConfig
from ..policies.base import DenoisingPolicy
from .networks import ValueMLP


class Critic:
    """Network, optimizer, and what they read: the policy's features, or those of an encoder of their own.

    Args:
        config: its fields `critic_*`.
        policy: whose features are read.
        backward: backward pass of a loss.
    """

    def __init__(
        self, config: DPPOConfig, policy: DenoisingPolicy, backward: Callable[[Tensor], None]
    ) -> None:
        self.config, self.backward = config, backward
        device = policy.kernel.timesteps.device
        own = config.critic_features == "own" and policy.encoder is not None
        self.twin = policy.copy_encoder() if own else None  # the policy with an encoder of the critic's own
        expert = config.critic_features == "expert"
        self.feature_dim = policy.expert_dim if expert else policy.feature_dim
        # (D, C) -> (D, F); "shared": the policy's features as they were when the iteration began.
        self.features = policy.expert_features if expert else policy.features
        self.net = ValueMLP(self.feature_dim, config.critic_hidden_dims).to(device)
        self.weights = nn.ModuleDict({"critic": self.net})
        if self.twin is not None and self.twin.encoder is not None:
            # Trained also where the policy's own is frozen.
            self.weights["encoder"] = self.twin.encoder.requires_grad_(True)
        self.optimizer = torch.optim.AdamW(
            self.weights.parameters(), lr=config.critic_lr, weight_decay=0.0, fused=True
        )

    def step(self, obs: dict[str, Tensor], features: Tensor, rows: Tensor, target: Tensor) -> float:
        """One gradient step towards `target` (B,) at decisions `rows` (B,); returns the loss.

        Args:
            obs, features: of all D decisions.

        Raises:
            FloatingPointError: loss or gradient is NaN or inf, before weights change.
        """
        read = features[rows]
        if self.twin is not None:
            read = self.twin.features(self.twin.encode({k: v[rows.to(v.device)] for k, v in obs.items()}))
        loss = 0.5 * (self.net(read) - target).square().mean()
        advice = (
            f"lower algorithm.critic_lr={self.config.critic_lr}, or check the scale of the environment's "
            "rewards"
        )
        descend(loss, self.optimizer, self.backward, None, "the critic of algorithm.type=dppo", advice)
        return loss.item()

    @torch.no_grad()
    def values(self, obs: dict[str, Tensor], features: Tensor) -> Tensor:
        """(D,)"""
        if self.twin is not None:
            features = self.twin.features(self.twin.encode_all(obs, len(features)))
        return self.net(features)

    def state_dict(self) -> dict[str, Any]:
        return {"weights": self.weights.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.weights.load_state_dict(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        # The rate of this configuration, not the one that was saved: a resume may want smaller steps.
        self.optimizer.param_groups[0]["lr"] = self.config.critic_lr
