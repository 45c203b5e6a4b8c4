"""Base of pi0, pi05 and smolvla: a vision-language model reads the prefix (images, language, for most the
state) once for each decision, an action expert denoises the chunk with its keys and values.

They count time as openpi does, t = 1 noise, t = 0 data, and are integrated by LeRobot's `euler_integrate`.
"""

import copy
import re
from abc import abstractmethod
from collections.abc import Collection, Iterator
from typing import Any, ClassVar

import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies.common.flow_matching import euler_integrate
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.processor import PolicyProcessorPipeline
from lerobot.utils.constants import (
    ACTION,
    OBS_IMAGES,
    OBS_LANGUAGE_ATTENTION_MASK,
    OBS_LANGUAGE_TOKENS,
    OBS_STATE,
)
from torch import Tensor, nn

from ..utils.errors import UserError
from .base import DenoisingPolicy, Exploration
from .prefix import Prefix, PrefixShape
from .processing import normalise_observations

BFLOAT16_RATIO_TOLERANCE = 0.05  # the same row in batches of two sizes differs in its last, 8th bit


class VLAAdapter(DenoisingPolicy):
    """Chunks have the padded action dims that the expert works in; `executed` cuts them and the chunk's tail.

    The vision-language model is frozen unless `algorithm.train_encoder=true`, and then read again for each
    minibatch. Critics read `features`: the mean token of the prefix, and the state where it is not among the
    tokens (pi0).

    Args:
        policy: the pretrained policy, put in eval mode.
        preprocessor, postprocessor: the policy's own LeRobot pipelines.
        exploration: see there.

    Raises:
        UserError: an option of the policy that its chunk cannot be tuned with.
    """

    trains_encoder = False
    reads_language = True
    encode_batch = 16
    prompt_keys: ClassVar[Collection[str]] = (OBS_LANGUAGE_TOKENS,)  # inputs that the preprocessor adds

    def __init__(
        self,
        policy: PreTrainedPolicy,
        preprocessor: PolicyProcessorPipeline,
        postprocessor: PolicyProcessorPipeline,
        exploration: Exploration,
    ) -> None:
        self.module, self.preprocessor, self.postprocessor = policy.eval(), preprocessor, postprocessor
        config = policy.config
        self.n_obs_steps, self.horizon, self.n_action_steps = 1, self._horizon(), config.n_action_steps
        self.action_dim = self._action_dim()
        self.shape = self._shape()
        if self._dtype() == torch.bfloat16:
            self.ratio_tolerance = BFLOAT16_RATIO_TOLERANCE
        try:
            self._use_sampler(exploration)
        except ValueError as error:
            raise UserError(str(error)) from error

    @classmethod
    def assume_features(cls, config) -> None:
        """Those of pi0_base: 3 cameras, all state and action dims."""
        camera = PolicyFeature(FeatureType.VISUAL, (3, 224, 224))
        config.input_features = {f"{OBS_IMAGES}.camera{i}": camera for i in range(3)} | {
            OBS_STATE: PolicyFeature(FeatureType.STATE, (config.max_state_dim,))
        }
        config.output_features = {ACTION: PolicyFeature(FeatureType.ACTION, (config.max_action_dim,))}

    # What a family is made of

    @abstractmethod
    def _shape(self) -> PrefixShape:
        """Sizes of the prefix."""

    @abstractmethod
    def _num_steps(self) -> int:
        """K of the policy's own sampler."""

    def _horizon(self) -> int:
        """H of the chain."""
        return self.module.config.chunk_size

    def _action_dim(self) -> int:
        """D of the chain."""
        return self.module.config.max_action_dim

    def _use_sampler(self, exploration: Exploration) -> None:
        """Set `kernel` and `noise_head`: the flow of openpi, from noise at t = 1."""
        self.use_flow(self._num_steps(), exploration)

    def _output(self) -> nn.Module:
        """The layers that read actions off the expert's last hidden states."""
        return self.module.model.action_out_proj

    @abstractmethod
    def _read(self, batch: dict[str, Tensor]) -> Prefix:
        """Run the vision-language model on a normalised batch, as `sample_actions` does."""

    @abstractmethod
    def _velocity(self, prefix: Prefix, x: Tensor, timestep: Tensor) -> Tensor:
        """The expert's velocity (B, H, D) with LeRobot's `denoise_step`; leaves the prefix as it is."""

    @abstractmethod
    def _expert(self) -> list[nn.Module]:
        """The parts of the network that `_read` does without."""

    @abstractmethod
    def _language_model(self) -> tuple[str, nn.Module]:
        """Name pattern and module of the decoder whose keys and values the expert reads."""

    # The contract

    def encode(self, obs: dict[str, Tensor]) -> Tensor:
        batch = self._inputs(obs)
        self._check_inputs(batch)
        return self._read(batch).flatten()

    def _inputs(self, obs: dict[str, Tensor]) -> dict[str, Any]:
        """The policy's inputs, (B, ...), that its preprocessor makes of observations (B, 1, ...)."""
        batch = normalise_observations(obs, self.preprocessor, self.task)
        return {key: value[:, -1] for key, value in batch.items()}  # n_obs_steps is 1

    def _check_inputs(self, batch: dict[str, Any]) -> None:
        """Raise a UserError that names what is missing; LeRobot fills missing cameras with black."""
        keys = {*self.module.config.input_features, *self.prompt_keys} - self.optional_inputs
        require_keys(keys, batch)

    @property
    def optional_inputs(self) -> set[str]:
        return {key for key in self.module.config.input_features if "empty_camera_" in key}

    def example_condition(self, batch: int) -> Tensor:
        config, device = self.module.config, next(self.module.parameters()).device
        inputs = {k: torch.zeros(batch, *f.shape, device=device) for k, f in config.input_features.items()}
        tokens = torch.zeros(batch, config.tokenizer_max_length, dtype=torch.long, device=device)
        inputs |= {OBS_LANGUAGE_TOKENS: tokens, OBS_LANGUAGE_ATTENTION_MASK: tokens == 0}
        return self._read(inputs).flatten()

    def predict(self, x: Tensor, timestep: Tensor, condition: Tensor) -> Tensor:
        return self._velocity(Prefix.unflatten(condition, self.shape), x, timestep)

    def executed(self, x: Tensor) -> Tensor:
        steps = x[:, : self.n_action_steps]
        return steps[..., : self.module.config.output_features[ACTION].shape[0]] if x.ndim > 2 else steps

    @torch.no_grad()
    def deployed_chunk(self, condition: Tensor) -> Tensor:
        shape = (len(condition), self.horizon, self.action_dim)
        noise = self.module.model.sample_noise(shape, condition.device)
        return euler_integrate(lambda x, t: self.predict(x, t, condition), noise, self.kernel.num_steps)

    @property
    def guided(self) -> bool:
        rtc = self.module.config.rtc_config
        return rtc is not None and rtc.enabled

    @property
    def feature_dim(self) -> int:
        return self.shape.width + self.shape.state_dim

    def features(self, condition: Tensor) -> Tensor:
        prefix = Prefix.unflatten(condition, self.shape)
        return torch.cat([prefix.summary.float(), prefix.state], 1)

    @property
    def expert_dim(self) -> int:
        return next(part for part in self._output().modules() if isinstance(part, nn.Linear)).in_features

    def expert_features(self, condition: Tensor) -> Tensor:
        """Mean over the chunk of what the expert sends to its last layer at the first step, where x = 0."""
        captures: list[Tensor] = []
        hook = self._output().register_forward_pre_hook(lambda _, inputs: captures.append(inputs[0]))
        try:
            x = torch.zeros(len(condition), self.horizon, self.action_dim, device=condition.device)
            self.predict(x, self.kernel.timesteps[-1:].expand(len(condition)), condition)
        finally:
            hook.remove()
        return captures[0][:, -self.horizon :].float().mean(1)

    def copy_encoder(self) -> "VLAAdapter":
        twin = copy.copy(self)
        # The memo entries leave the expert's weights out of the copy; smolvla still looks at its layers.
        expert = [parameter for part in self._expert() for parameter in part.parameters()]
        twin.module = copy.deepcopy(self.module, {id(p): nn.Parameter(torch.empty(0)) for p in expert})
        return twin

    def idle_parameters(self) -> Iterator[nn.Parameter]:
        name, decoder = self._language_model()
        last = rf"{name}\.layers\.{len(decoder.layers) - 1}\."
        # The expert reads keys and values of the last layer, nothing that comes after them.
        idle = rf"lm_head|{name}\.norm\.|{last}(mlp|post_attention_layernorm|self_attn\.[qo]_proj)\."
        return (p for key, p in self.module.named_parameters() if re.search(idle, key))

    def _dtype(self) -> torch.dtype:
        """Dtype of the expert's matrices; norms may be float32 in a bfloat16 network."""
        return next(p.dtype for part in self._expert() for p in part.parameters() if p.ndim > 1)


def require_keys(keys: Collection[str], batch: Collection[str]) -> None:
    """Raise a UserError that names what is missing.

    Args:
        keys: of the policy's inputs.
        batch: the keys that there are.
    """
    missing = sorted({*keys} - {*batch})
    if missing:
        raise UserError(
            f"the policy's inputs lack {', '.join(missing)}; there are {', '.join(sorted(batch))}. Give the "
            "environment's cameras the policy's names (env.features_map), and keep the tokenizer in "
            "policy_preprocessor.json"
        )
