"""`DenoisingPolicy`: the one view that algorithms have of a policy, whatever its family. Plain torch.

A family is one file with one subclass, registered under LeRobot's policy type. Shapes: B batch, K denoising
steps, H horizon, D action dim.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from ..chains import Chain, Kernel, sample_chain

ADAPTERS: dict[str, type["DenoisingPolicy"]] = {}


def register(policy_type: str) -> Callable[[type["DenoisingPolicy"]], type["DenoisingPolicy"]]:
    """Class decorator: this adapter serves policies whose LeRobot type is `policy_type`."""

    def add(cls: type["DenoisingPolicy"]) -> type["DenoisingPolicy"]:
        ADAPTERS[policy_type] = cls
        return cls

    return add


def adapter_class(policy_type: str) -> type["DenoisingPolicy"]:
    """Look up the adapter of a policy type.

    Raises:
        ValueError: none is registered; the message lists those that are.
    """
    if policy_type not in ADAPTERS:
        raise ValueError(
            f"policy.type={policy_type!r} has no denoising chain that this version can fine-tune with DPPO. "
            f"Known: {', '.join(sorted(ADAPTERS))}"
        )
    return ADAPTERS[policy_type]


class DenoisingPolicy(ABC):
    """Wraps a pretrained policy as a Markov chain over action chunks.

    Observations enter as the environment gives them: LeRobot keys, each (B, n_obs_steps, ...), states
    float32, images uint8 channels first. `encode` normalises them with the policy's own preprocessor.

    Attributes:
        module: the pretrained policy; what is trained and saved.
        kernel: Gaussian transitions of the sampler used for exploration.
        n_obs_steps, horizon, n_action_steps, action_dim: of the policy, in environment steps and action dims.
    """

    # Where in `module` the last linear layer of the network's time embedding is, to which advantage
    # conditioning adds; None: the family cannot be conditioned.
    condition_path: ClassVar[str | None] = None
    # Where the network is that is called once for each denoising step, its tensors batch first; None: there
    # is no guidance, which asks it twice in one call.
    network_path: ClassVar[str | None] = None

    module: nn.Module
    kernel: Kernel
    n_obs_steps: int
    horizon: int
    n_action_steps: int
    action_dim: int

    @abstractmethod
    def encode(self, obs: dict[str, Tensor]) -> Tensor:
        """Normalise and encode observations into the network's condition, (B, C)."""

    @abstractmethod
    def predict(self, x: Tensor, timestep: Tensor, condition: Tensor) -> Tensor:
        """Network output (B, H, D) for noisy chunks x (B, H, D) at timestep (B,)."""

    @abstractmethod
    def executed(self, x: Tensor) -> Tensor:
        """Cut (B, H, ...) to the part of the chunk that the environment gets, (B, n_action_steps, ...)."""

    @abstractmethod
    def deployed_chunk(self, condition: Tensor) -> Tensor:
        """A chunk (B, H, D) from the policy's *own* sampler, as stock LeRobot runs it."""

    @abstractmethod
    def to_action(self, chunk: Tensor) -> Tensor:
        """Unnormalise the executed part of a chunk into environment actions, (B, n_action_steps, D)."""

    @abstractmethod
    def save_pretrained(self, folder: Any) -> None:
        """Write policy and processors as an ordinary LeRobot checkpoint."""

    @property
    def condition_layer(self) -> nn.Linear:
        """The layer that an advantage embedding is added to, and folded into (`conditioning`).

        Raises:
            ValueError: the family has none.
        """
        if self.condition_path is None:
            raise ValueError(f"{type(self).__name__} has no layer that could be told an advantage")
        return self.module.get_submodule(self.condition_path)  # type: ignore[return-value]

    def transition(self, x: Tensor, k: Tensor, condition: Tensor) -> Normal:
        """p(x_k | x_{k+1} = x, condition), shape (B, H, D); k (B,) long, K-1 noisiest ... 0 last."""
        return self.kernel.transition(x, k, self.predict(x, self.kernel.timesteps[k], condition))

    @torch.no_grad()
    def sample(self, condition: Tensor, sampling_floor: float, log_prob_floor: float) -> Chain:
        """Draw exploratory chains (see `sample_chain`) with exactly K network calls."""
        noise = torch.randn(len(condition), self.horizon, self.action_dim, device=condition.device)
        return sample_chain(
            lambda x, k: self.transition(x, k, condition),
            noise,
            self.kernel.num_steps,
            self.executed,
            sampling_floor,
            log_prob_floor,
        )

    @property
    @abstractmethod
    def encoder(self) -> nn.Module | None:
        """The part of `module` that `encode` computes with; None when it has no weights (state policies)."""

    @property
    @abstractmethod
    def condition_dim(self) -> int:
        """C, the size of the condition."""

    @abstractmethod
    def copy_encoder(self) -> "DenoisingPolicy":
        """An independent copy that can `encode` and nothing else. Only called where `encoder` is not None."""

    def frozen_copy(self) -> "DenoisingPolicy":
        """The policy as it is now, in weights of its own without gradient."""
        twin = copy.copy(self)
        twin.module = copy.deepcopy(self.module).requires_grad_(False)
        return twin

    def freeze(self, train_encoder: bool) -> None:
        """Choose what is trained: the denoising network, and the encoder if `train_encoder`."""
        self.module.requires_grad_(True)
        if self.encoder is not None:
            self.encoder.requires_grad_(train_encoder)

    def trainable_parameters(self) -> Iterator[nn.Parameter]:
        return (p for p in self.module.parameters() if p.requires_grad)
