"""Adapter for LeRobot's `groot` policy, GR00T N1.7 (arXiv:2503.14734)."""

import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from ..utils.errors import UserError
from .base import Exploration, register
from .buckets import count_in_buckets
from .tokens import Tokens, TokensAdapter, TokensShape
from .vla import VLAAdapter, require_keys


@register("groot")
class GrootAdapter(TokensAdapter):
    """Qwen3-VL reads images and instruction, a diffusion transformer its hidden states and the robot's state.

    The refinement of the hidden states in the action head (`vlln`, `vl_self_attention`) runs once for each
    decision and belongs to the encoder.
    """

    condition_path = "_groot_model.action_head.model.timestep_encoder.timestep_embedder.linear_2"
    prompt_keys = ("state", "embodiment_id", "input_ids", "attention_mask", "pixel_values", "image_grid_thw")
    guided = False

    def __init__(self, policy, preprocessor, postprocessor, exploration) -> None:
        relative = any(getattr(step, "use_relative_action", False) for step in postprocessor.steps)
        if policy.config.use_relative_actions or relative:
            raise UserError(
                "relative actions of groot are not supported: they depend on the state that the preprocessor "
                "saw last, not on the chunk alone. Choose a policy of absolute actions"
            )
        super().__init__(policy, preprocessor, postprocessor, exploration)
        self.n_action_steps = policy._action_queue_steps

    @property
    def _head(self) -> nn.Module:
        return self.module._groot_model.action_head

    def _shape(self) -> TokensShape:
        config = self.module._groot_model.config
        # The state and the number of the embodiment; which tokens are real, and which are a picture's.
        states = config.max_state_dim * config.state_history_length
        return TokensShape(states + 1, config.backbone_embedding_dim, 2)

    def _horizon(self) -> int:
        return self._head.action_horizon

    def _action_dim(self) -> int:
        return self._head.action_dim

    def _num_steps(self) -> int:
        return self._head.num_inference_timesteps

    def _use_sampler(self, exploration: Exploration) -> None:
        self.use_flow(self._num_steps(), exploration, noise_at_one=False)
        count_in_buckets(self.kernel, self._head.num_timestep_buckets)

    def _autocast(self) -> torch.autocast:
        device = next(self.module.parameters()).device.type
        return torch.autocast(device, torch.bfloat16, enabled=self.module.config.use_bf16)

    def _inputs(self, obs: dict[str, Tensor]) -> dict[str, Any]:
        names = next((s.rename_map for s in self.preprocessor.steps if hasattr(s, "rename_map")), {})
        require_keys(self.module.config.input_features, {names.get(key, key) for key in obs})
        return super()._inputs(obs)

    def _check_inputs(self, batch: dict[str, Any]) -> None:
        require_keys(self.prompt_keys, batch)  # the preprocessor takes the pictures away

    def _read(self, batch: dict[str, Any]) -> Tokens:
        model = self.module._groot_model
        inputs = self.module._filter_groot_inputs(batch, include_action=False)
        with self._autocast():
            backbone_inputs, action_inputs = model.prepare_input(inputs)
            read = self._head.process_backbone_output(model.backbone(backbone_inputs))
        state = action_inputs.state.flatten(1).float()
        embodiment = action_inputs.embodiment_id[:, None].float()
        marks = torch.stack([read.backbone_attention_mask, read.image_mask], 2)
        return Tokens(torch.cat([state, embodiment], 1), read.backbone_features, marks)

    def _velocity(self, tokens: Tokens, x: Tensor, timestep: Tensor) -> Tensor:
        head = self._head
        with self._autocast():
            state, embodiment, masks = self._parts(tokens)
            actions = head.action_encoder(x.to(tokens.hidden.dtype), timestep, embodiment)
            if head.config.add_pos_embed:
                actions = actions + head.position_embedding.weight[: self.horizon]
            output = head.model(
                hidden_states=torch.cat((state, actions), 1),
                encoder_hidden_states=tokens.hidden,
                timestep=timestep,
                **(vars(masks) if head.config.use_alternate_vl_dit else {}),
            )
            return head.action_decoder(output, embodiment)[:, -self.horizon :].float()

    def _parts(self, tokens: Tokens) -> tuple[Tensor, Tensor, SimpleNamespace]:
        """Embedded state, embodiment and masks, as the action head takes them."""
        attention, image = tokens.marks.unbind(2)
        embodiment = tokens.state[:, -1].long()
        state = self._head.state_encoder(tokens.state[:, None, :-1].to(tokens.hidden.dtype), embodiment)
        return state, embodiment, SimpleNamespace(image_mask=image, backbone_attention_mask=attention)

    @torch.no_grad()
    def deployed_chunk(self, condition: Tensor) -> Tensor:
        tokens = Tokens.unflatten(condition, self.shape)
        with self._autocast():
            state, embodiment, masks = self._parts(tokens)
            output = self._head.get_action_with_features(tokens.hidden, state, embodiment, masks, {})
        return output["action_pred"].float()

    @classmethod
    def assume_features(cls, config: Any) -> None:
        super(VLAAdapter, cls).assume_features(config)

    def example_condition(self, batch: int) -> Tensor:
        return super(VLAAdapter, self).example_condition(batch)

    @property
    def encoder(self) -> nn.Module:
        head = self._head
        return nn.ModuleList([self.module._groot_model.backbone, head.vlln, head.vl_self_attention])

    def _expert(self) -> list[nn.Module]:
        head = self._head
        return [part for part in head.children() if part not in (head.vlln, head.vl_self_attention)]

    def _language_model(self) -> tuple[str, nn.Module]:
        return r"\.language_model", self.module._groot_model.backbone.language_model

    def idle_parameters(self) -> Iterator[nn.Parameter]:
        # Hidden states are taken before the last norm.
        idle = r"lm_head|\.language_model\.norm\."
        return (p for key, p in self.module.named_parameters() if re.search(idle, key))

    def _output(self) -> nn.Module:
        return self._head.action_decoder

    @property
    def expert_dim(self) -> int:
        return self._head.hidden_size

    def _dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.module.config.use_bf16 else super()._dtype()
