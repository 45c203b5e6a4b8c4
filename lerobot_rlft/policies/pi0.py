"""Adapter for LeRobot's `pi0` policy (arXiv:2410.24164)."""

import torch
from lerobot.policies.common.vla_utils import make_att_2d_masks, prepare_attention_masks_4d
from lerobot.utils.constants import OBS_LANGUAGE_ATTENTION_MASK, OBS_LANGUAGE_TOKENS
from torch import Tensor, nn

from ..utils.errors import UserError
from .base import register
from .prefix import Prefix, PrefixShape, masked_mean
from .vla import VLAAdapter


@register("pi0")
class PI0Adapter(VLAAdapter):
    """PaliGemma reads images and language; the state is a token of the action expert."""

    condition_path = "model.action_time_mlp_out"

    def __init__(self, policy, preprocessor, postprocessor, exploration) -> None:
        if policy.config.use_relative_actions:
            raise UserError(
                "policy.use_relative_actions=true is not supported: its actions depend on the state that the "
                "preprocessor saw last, not on the chunk alone. Choose a policy of absolute actions"
            )
        super().__init__(policy, preprocessor, postprocessor, exploration)

    def _shape(self) -> PrefixShape:
        text = self.encoder.config.text_config
        return PrefixShape(
            self._state_dim(),
            text.hidden_size,
            text.num_hidden_layers,
            text.num_key_value_heads,
            text.head_dim,
        )

    def _state_dim(self) -> int:
        return self.module.config.max_state_dim

    def _num_steps(self) -> int:
        return self.module.config.num_inference_steps

    def _read(self, batch: dict[str, Tensor]) -> Prefix:
        model = self.module.model
        images, image_masks = self.module._preprocess_images(batch)
        tokens, token_mask = batch[OBS_LANGUAGE_TOKENS], batch[OBS_LANGUAGE_ATTENTION_MASK]
        embeddings, mask, attention = model.embed_prefix(images, image_masks, tokens, token_mask)
        self.encoder.model.language_model.config._attn_implementation = "eager"
        (hidden, _), cache = model.paligemma_with_expert.forward(
            attention_mask=prepare_attention_masks_4d(make_att_2d_masks(mask, attention)),
            position_ids=torch.cumsum(mask, dim=1) - 1,
            past_key_values=None,
            inputs_embeds=[embeddings, None],
            use_cache=True,
        )
        layers = [(keys, values) for keys, values, *_ in cache]
        return Prefix(self._state(batch), masked_mean(hidden, mask), mask, layers)

    def _state(self, batch: dict[str, Tensor]) -> Tensor:
        return self.module.prepare_state(batch)

    def _velocity(self, prefix: Prefix, x: Tensor, timestep: Tensor) -> Tensor:
        return self.module.model.denoise_step(prefix.state, prefix.mask, _layers(prefix), x, timestep)

    @property
    def encoder(self) -> nn.Module:
        return self.module.model.paligemma_with_expert.paligemma

    def _expert(self) -> list[nn.Module]:
        model = self.module.model
        heads = [part for part in model.children() if part is not model.paligemma_with_expert]
        return [model.paligemma_with_expert.gemma_expert, *heads]

    def _language_model(self) -> tuple[str, nn.Module]:
        return r"\.language_model", self.encoder.model.language_model


def _layers(prefix: Prefix) -> list[tuple[Tensor, Tensor, None]]:
    """The layers that LeRobot's `denoise_step` clones into a cache of its own (no sliding windows)."""
    return [(keys, values, None) for keys, values in prefix.cache]
