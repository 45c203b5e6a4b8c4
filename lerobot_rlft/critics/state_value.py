"""The critic of DPPO: the value of a decision, whatever its denoising steps. Plain torch.

Shapes: D decisions, C condition, F features.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..policies.base import DenoisingPolicy
from ..utils.optimization import descend
from .networks import ValueMLP


class Critic:
    """Network, optimizer, and what they read: the policy's features, or those of an encoder of their own.

    Args:
        policy: whose features are read.
        backward: backward pass of a loss.
        reads: "shared", the policy's features as they were when the iteration began; "own", those of a
            copy of its encoder that is trained here; "expert", those of a VLA's action expert.
        hidden_dims: of the network.
        lr: learning rate.
    """

    def __init__(
        self,
        policy: DenoisingPolicy,
        backward: Callable[[Tensor], None],
        reads: str,
        hidden_dims: tuple[int, ...],
        lr: float,
    ) -> None:
        self.backward, self.lr = backward, lr
        device = policy.kernel.timesteps.device
        own = reads == "own" and policy.encoder is not None
        self.twin = policy.copy_encoder() if own else None  # the policy with an encoder of the critic's own
        expert = reads == "expert"
        self.feature_dim = policy.expert_dim if expert else policy.feature_dim
        # (D, C) -> (D, F)
        self.features = policy.expert_features if expert else policy.features
        self.net = ValueMLP(self.feature_dim, hidden_dims).to(device)
        self.weights = nn.ModuleDict({"critic": self.net})
        if self.twin is not None and self.twin.encoder is not None:
            # Trained also where the policy's own is frozen.
            self.weights["encoder"] = self.twin.encoder.requires_grad_(True)
        self.optimizer = torch.optim.AdamW(self.weights.parameters(), lr=lr, weight_decay=0.0, fused=True)

    def step(self, obs: dict[str, Tensor], features: Tensor, rows: Tensor, target: Tensor) -> float:
        """One gradient step towards `target` (B,) at decisions `rows` (B,); returns the loss.

        Args:
            obs, features: of all D decisions.

        Raises:
            FloatingPointError: loss or gradient is NaN or inf, before weights change.
        """
        inputs = features[rows]
        if self.twin is not None:
            inputs = self.twin.features(self.twin.encode({k: v[rows.to(v.device)] for k, v in obs.items()}))
        loss = 0.5 * (self.net(inputs) - target).square().mean()
        advice = f"lower algorithm.critic_lr={self.lr}, or check the scale of the environment's rewards"
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
        self.optimizer.param_groups[0]["lr"] = self.lr
