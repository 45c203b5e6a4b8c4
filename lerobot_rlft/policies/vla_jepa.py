"""Adapter for LeRobot's `vla_jepa` policy (arXiv:2602.10098)."""

import re
from collections.abc import Iterator
from typing import Any

import torch
from lerobot.utils.constants import OBS_STATE
from torch import Tensor, nn
from torch.nn.functional import interpolate

from .base import Exploration, register
from .buckets import count_in_buckets
from .tokens import Tokens, TokensAdapter, TokensShape
from .vla import VLAAdapter


@register("vla_jepa")
class VLAJEPAAdapter(TokensAdapter):
    """Qwen3-VL reads images and instruction, a diffusion transformer the hidden states of its action tokens.

    The world model is trained by LeRobot alone: no action depends on it.
    """

    condition_path = "model.action_model.model.timestep_encoder.timestep_embedder.linear_2"
    prompt_keys = ()  # the model writes the prompt
    guided = False

    def _shape(self) -> TokensShape:
        config = self.module.config
        state_dim = config.state_dim if OBS_STATE in config.input_features else 0
        return TokensShape(state_dim, self._qwen.config.text_config.hidden_size)

    def _action_dim(self) -> int:
        return self.module.config.action_dim

    def _num_steps(self) -> int:
        return self.module.config.num_inference_timesteps

    def _use_sampler(self, exploration: Exploration) -> None:
        self.use_flow(self._num_steps(), exploration, noise_at_one=False)
        count_in_buckets(self.kernel, self.module.config.action_num_timestep_buckets)

    def _read(self, batch: dict[str, Any]) -> Tokens:
        inputs = self.module._prepare_model_inputs(batch, training=False)
        images, size = inputs["images"], self.module.config.resize_images_to
        if size is not None:
            images = [[interpolate(i[None], size=tuple(size), mode="area")[0] for i in row] for row in images]
        hidden, _ = self.module.model._encode_qwen(images, inputs["instructions"], need_action_tokens=False)
        hidden = hidden.float()
        state = inputs["state"][:, 0] if self.shape.state_dim else hidden[:, 0, :0]
        return Tokens(state, hidden)

    def _velocity(self, tokens: Tokens, x: Tensor, timestep: Tensor) -> Tensor:
        head = self.module.model.action_model
        sequence = head._build_inputs(tokens.hidden, x, self._state(tokens), timestep)
        output = head.model(hidden_states=sequence, encoder_hidden_states=tokens.hidden, timestep=timestep)
        return head.action_decoder(output[:, -self.horizon :])

    def _state(self, tokens: Tokens) -> Tensor | None:
        return tokens.state[:, None] if self.shape.state_dim else None

    @torch.no_grad()
    def deployed_chunk(self, condition: Tensor) -> Tensor:
        tokens = Tokens.unflatten(condition, self.shape)
        return self.module.model.action_model.predict_action(tokens.hidden, self._state(tokens))

    @classmethod
    def assume_features(cls, config: Any) -> None:
        super(VLAAdapter, cls).assume_features(config)

    def example_condition(self, batch: int) -> Tensor:
        return super(VLAAdapter, self).example_condition(batch)  # the prompt is made on the CPU

    @property
    def _qwen(self) -> nn.Module:
        return self.module.model.qwen.model

    @property
    def encoder(self) -> nn.Module:
        return self.module.model.qwen

    def _expert(self) -> list[nn.Module]:
        return [part for part in self.module.model.children() if part is not self.encoder]

    def _language_model(self) -> tuple[str, nn.Module]:
        return r"\.language_model", self._qwen.model.language_model

    def idle_parameters(self) -> Iterator[nn.Parameter]:
        # The action tokens are taken before the last norm.
        idle = r"model\.video_|lm_head|\.language_model\.norm\."
        return (p for key, p in self.module.named_parameters() if re.search(idle, key))

    def _output(self) -> nn.Module:
        return self.module.model.action_model.action_decoder

    def _dtype(self) -> torch.dtype:
        return torch.bfloat16  # Qwen runs under autocast
