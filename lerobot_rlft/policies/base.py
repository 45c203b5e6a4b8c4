"""`DenoisingPolicy`: the one view that algorithms have of a policy, whatever its family. Plain torch.

A family is one file with one subclass, registered under LeRobot's policy type.
Shapes: B batch, K denoising steps, H horizon, D action dim.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from ..chains.chain import Chain, Kernel, sample_chain
from ..chains.flow import FlowSDEKernel, HybridKernel, NoiseHead
from .refused import REFUSED

STD_FLOOR = 0.1
ADAPTER = "lora_"  # in the name of an adapter's weights, as peft calls them
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
        reason = REFUSED.get(policy_type, "has no denoising chain that this version can fine-tune with DPPO")
        raise ValueError(
            f"policy.type={policy_type!r} {reason}. Known: {', '.join(sorted(ADAPTERS))}. One file adds a "
            "family (docs/extending.md); load its package with --policy.discover_packages_path=PACKAGE"
        )
    return ADAPTERS[policy_type]


@dataclass(frozen=True)
class Exploration:
    """The sampler of collection, where a family leaves a choice. The deployed sampler does not depend on it.

    Attributes:
        eta: noise of a DDIM sampler, 0 to 1 (the policy's own has 0). A DDPM sampler ignores it because its
            posterior variance fixes the noise.
        flow_noise: of a flow policy, "sde" (`FlowSDEKernel`) or "head" (`NoiseHead`).
        noise_level: of "sde", 0 to 1.5; 0 is the policy's own sampler.
        noise_std_range: of "head", smallest and largest std.
        hybrid: one random step of each chain adds noise, the others do not (`HybridKernel`).
    """

    eta: float = 1.0
    flow_noise: str = "sde"
    noise_level: float = 0.5
    noise_std_range: tuple[float, float] = (0.08, 0.16)
    hybrid: bool = False


class DenoisingPolicy(ABC):
    """Wraps a pretrained policy as a Markov chain over action chunks.

    Observations enter as the environment gives them: LeRobot keys, each (B, n_obs_steps, ...), states
    float32, images uint8 channels first. `encode` normalises them with the policy's own preprocessor.

    Attributes:
        module: the pretrained policy; what is trained and saved.
        preprocessor, postprocessor: its own LeRobot pipelines.
        kernel: Gaussian transitions of the sampler used for exploration.
        noise_head: where the noise of exploration is learned: features and noise time -> std. Training-only.
        n_obs_steps, horizon, n_action_steps: of the policy, in environment steps.
        action_dim: of the chain; a family may pad the environment's, `executed` cuts it to those.
        task: the instruction, of a family that `reads_language`.
        trains_encoder: what `algorithm.train_encoder=null` means.
        optional_inputs: input features that an environment need not have.
        guided: whether the deployed sampler adds guidance that the chain does not have.
        encode_batch: decisions encoded at once where no gradient is needed.
        ratio_tolerance: by how much the first ratio may miss 1: what the network's precision leaves open.
        peft: LeRobot's wrapper of `module` where adapters are trained in it, see `lora.py`.
    """

    # Where in `module` the last linear layer of the network's time embedding is, to which conditioning adds;
    # None: the family cannot be conditioned.
    condition_path: ClassVar[str | None] = None
    # Where the network is that is called once for each denoising step, its tensors batch first; None: there
    # is no guidance, which asks it twice in one call.
    network_path: ClassVar[str | None] = None

    module: nn.Module
    preprocessor: Any
    postprocessor: Any
    kernel: Kernel
    noise_head: NoiseHead | None = None
    task: str = ""
    reads_language: bool = False
    trains_encoder: bool = True
    optional_inputs: Collection[str] = ()
    guided: bool = False
    encode_batch: int = 1024
    ratio_tolerance: float = 1e-4
    peft: Any = None
    n_obs_steps: int
    horizon: int
    n_action_steps: int
    action_dim: int

    @abstractmethod
    def encode(self, obs: dict[str, Tensor]) -> Tensor:
        """Normalise and encode observations into all that the network needs to know of them, (B, C).

        One tensor whatever a family keeps (a cache of keys and values is flattened into it), so that
        algorithms can store it, take rows of it and hand it back.
        """

    def example_condition(self, batch: int) -> Tensor:
        """A condition (batch, C) of blank observations, without processors, to count memory with.

        Raises:
            ValueError: the family has an encoder and does not say how to run it.
        """
        if self.encoder is not None:
            raise ValueError(
                f"{type(self).__name__} does not say what its encoder takes: memory is not known"
            )
        return torch.zeros(batch, self.feature_dim, device=next(self.module.parameters()).device)

    @abstractmethod
    def predict(self, x: Tensor, timestep: Tensor, condition: Tensor) -> Tensor:
        """Network output (B, H, D) for noisy chunks x (B, H, D) at timestep (B,)."""

    @abstractmethod
    def executed(self, x: Tensor) -> Tensor:
        """Cut (B, H, ...) to the part of the chunk that the environment gets, (B, n_action_steps, ...).

        Of (B, H, D) also to the environment's own action dims.
        """

    @abstractmethod
    def deployed_chunk(self, condition: Tensor) -> Tensor:
        """A chunk (B, H, D) from the policy's *own* sampler, as stock LeRobot runs it."""

    def to_action(self, chunk: Tensor) -> Tensor:
        """Unnormalise the executed part of a chunk into environment actions, (B, n_action_steps, D)."""
        return self.postprocessor(self.executed(chunk))

    def save_pretrained(self, folder: Any) -> None:
        """Write policy and processors as an ordinary LeRobot checkpoint."""
        for part in (self.exported(), self.preprocessor, self.postprocessor):
            part.save_pretrained(folder)

    def draw(self, count: int, deployed: bool = True) -> Tensor | None:
        """Commands for as many episodes that begin, (count,) long; None where nothing is commanded.

        Args:
            deployed: False where the episodes are training's.
        """
        return None

    def deployed_odds(self) -> Tensor | None:
        """Deployed share over that in training of each mode, (M,); None where nothing is commanded."""
        return None

    def command(self, shares: list[float]) -> None:
        """Draw commands with these probabilities from now on; only called where `commanded` wrapped it."""
        raise NotImplementedError

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
        return self.normal(x, k, condition, self.predict(x, self.kernel.timesteps[k], condition))

    def normal(self, x: Tensor, k: Tensor, condition: Tensor, prediction: Tensor) -> Normal:
        """`transition` where the network's output (B, H, D) is known already."""
        normal = self.kernel.transition(x, k, prediction)
        if self.noise_head is None:
            return normal
        std = self.noise_head(self.features(condition), self.kernel.noise_time[k])
        return Normal(normal.mean, std, validate_args=False)

    @property
    def std_floor(self) -> float:
        """The least floor under which every step of exploration has a density: 0 where all add noise by
        themselves, else DPPO's on state tasks.
        """
        noisy = self.noise_head is not None or bool((self.kernel.std > 0).all())
        return 0.0 if noisy else STD_FLOOR

    def use_flow(
        self, num_steps: int, exploration: Exploration, noise_at_one: bool = True, sigma_min: float = 0.0
    ) -> None:
        """Set `kernel` and `noise_head` of a flow policy; called at the end of an adapter's constructor.

        Args:
            num_steps: K, Euler steps of the policy's own sampler.
            noise_at_one, sigma_min: see `FlowSDEKernel`.

        Raises:
            ValueError: see `FlowSDEKernel` and `NoiseHead`.
        """
        has_head, device = exploration.flow_noise == "head", next(self.module.parameters()).device
        kernel = HybridKernel if exploration.hybrid else FlowSDEKernel
        noise_level = 0.0 if has_head else exploration.noise_level
        self.kernel = kernel(num_steps, noise_level, noise_at_one, sigma_min).to(device)
        if has_head:
            chunk = (self.horizon, self.action_dim)
            self.noise_head = NoiseHead(self.feature_dim, chunk, exploration.noise_std_range).to(device)

    @torch.no_grad()
    def sample(self, condition: Tensor, sampling_floor: float, log_prob_floor: float) -> Chain:
        """Draw exploratory chains (see `sample_chain`) with exactly K network calls."""
        noise = torch.randn(len(condition), self.horizon, self.action_dim, device=condition.device)
        stochastic = self.kernel.stochastic(len(condition))

        def transition(x: Tensor, k: Tensor) -> Normal:
            if stochastic is None:
                return self.transition(x, k, condition)
            prediction = self.predict(x, self.kernel.timesteps[k], condition)
            normal = self.normal(x, k, condition, prediction)
            without = self.kernel.deterministic(x, k, prediction)
            mean = normal.mean.where(stochastic.gather(1, k[:, None])[:, :, None], without)
            return Normal(mean, normal.stddev, validate_args=False)

        return sample_chain(
            transition,
            noise,
            self.kernel.num_steps,
            self.executed,
            sampling_floor,
            log_prob_floor,
            stochastic,
        )

    @classmethod
    def assume_features(cls, config: Any) -> None:
        """Fill the features of a LeRobot policy config that has none, to count memory with.

        Raises:
            ValueError: nothing can be assumed.
        """
        raise ValueError(
            f"the sizes of policy.type={config.type} depend on its observations: give --env.type=..."
        )

    @property
    def encoder(self) -> nn.Module | None:
        """The part of `module` that `encode` computes with; None when it has no weights (state policies)."""
        return None

    @property
    @abstractmethod
    def feature_dim(self) -> int:
        """F, the size of `features`."""

    def encode_all(self, obs: dict[str, Tensor], count: int) -> Tensor:
        """`encode` of `count` decisions, `encode_batch` at once, (count, C)."""
        rows = (slice(i, i + self.encode_batch) for i in range(0, count, self.encode_batch))
        return torch.cat([self.encode({k: v[part] for k, v in obs.items()}) for part in rows])

    def features(self, condition: Tensor) -> Tensor:
        """Features of a condition for critics and classifiers, (B, F); the condition itself by default."""
        return condition

    @property
    def expert_dim(self) -> int:
        """F, the size of `expert_features`.

        Raises:
            ValueError: the family has no action expert.
        """
        raise ValueError(
            f"algorithm.critic_features=expert does not fit {type(self).__name__}, it has no action expert: "
            "choose shared or own"
        )

    def expert_features(self, condition: Tensor) -> Tensor:
        """Features that the action expert of a vision-language-action policy makes of a condition, (B, F)."""
        raise NotImplementedError

    def copy_encoder(self) -> "DenoisingPolicy":
        """An independent copy that can `encode` and nothing else. Only called where `encoder` is not None."""
        raise NotImplementedError(f"{type(self).__name__} has an encoder and does not copy it")

    def frozen_copy(self) -> "DenoisingPolicy":
        """The policy as it is now, without gradient; weights that are frozen already are shared."""
        twin = copy.copy(self)
        memo: dict[int, Any] = {id(p): p for p in self.module.parameters() if not p.requires_grad}
        twin.module = copy.deepcopy(self.module, memo).requires_grad_(False)
        if self.noise_head is not None:
            twin.noise_head = copy.deepcopy(self.noise_head).requires_grad_(False)
        return twin

    def freeze(self, train_encoder: bool | None) -> None:
        """Choose what is trained: the adapters if there are any, else the denoising network and, if
        `train_encoder`, the encoder; null is the family's own choice."""
        if self.peft is not None:
            self.module.requires_grad_(False)
            for name, parameter in self.module.named_parameters():
                parameter.requires_grad_(ADAPTER in name)
            return
        self.module.requires_grad_(True)
        if self.encoder is not None:
            self.encoder.requires_grad_(self.encoder_trained(train_encoder))
        for parameter in self.idle_parameters():
            parameter.requires_grad_(False)

    def encoder_trained(self, train_encoder: bool | None) -> bool:
        """Whether the encoder's weights change in training with this option."""
        if self.encoder is None:
            return False
        if self.peft is not None:
            return any(ADAPTER in name for name, _ in self.encoder.named_parameters())
        return self.trains_encoder if train_encoder is None else train_encoder

    def idle_parameters(self) -> Iterator[nn.Parameter]:
        """Weights that no action depends on, for example of a language head; they are never trained."""
        return iter(())

    def adapters(self) -> dict[str, Tensor]:
        """Weights that a checkpoint holds only merged into others, by name."""
        return {name: p.data for name, p in self.module.named_parameters() if ADAPTER in name}

    def exported(self) -> Any:
        """`module` as it is published: adapters merged into the weights they adapt, in a copy."""
        return self.module if self.peft is None else copy.deepcopy(self.peft).merge_and_unload()

    def trainable_parameters(self) -> Iterator[nn.Parameter]:
        head = self.noise_head.parameters() if self.noise_head is not None else ()
        return (p for p in (*self.module.parameters(), *head) if p.requires_grad)
