"""Adapter for LeRobot's `smolvla` policy (arXiv:2506.01844)."""

import torch
from lerobot.policies.common.vla_utils import make_att_2d_masks
from lerobot.utils.constants import OBS_LANGUAGE_ATTENTION_MASK, OBS_LANGUAGE_TOKENS
from torch import Tensor, nn

from ..utils.errors import UserError
from .base import register
from .prefix import Prefix, PrefixShape, masked_mean
from .vla import VLAAdapter


@register("smolvla")
class SmolVLAAdapter(VLAAdapter):
    """SmolVLM reads images, language and state; the projection of the state is frozen or trained with it."""

    condition_path = "model.action_time_mlp_out"

    def __init__(self, policy, preprocessor, postprocessor, exploration) -> None:
        if policy.config.adapt_to_pi_aloha:
            raise UserError(
                "policy.adapt_to_pi_aloha=true is not supported: it turns joints between network and "
                "normalisation. Choose a policy that was trained without it"
            )
        super().__init__(policy, preprocessor, postprocessor, exploration)

    def _shape(self) -> PrefixShape:
        network = self.module.model.vlm_with_expert
        text = network.config.text_config
        return PrefixShape(
            0, text.hidden_size, network.num_vlm_layers, text.num_key_value_heads, text.head_dim
        )

    def _num_steps(self) -> int:
        return self.module.config.num_steps

    def _read(self, batch: dict[str, Tensor]) -> Prefix:
        model = self.module.model
        images, image_masks = self.module.prepare_images(batch)
        tokens, token_mask = batch[OBS_LANGUAGE_TOKENS], batch[OBS_LANGUAGE_ATTENTION_MASK]
        state = self.module.prepare_state(batch)
        embeddings, mask, attention = model.embed_prefix(images, image_masks, tokens, token_mask, state=state)
        (hidden, _), cache = model.vlm_with_expert.forward(
            attention_mask=make_att_2d_masks(mask, attention),
            position_ids=torch.cumsum(mask, dim=1) - 1,
            past_key_values=None,
            inputs_embeds=[embeddings, None],
            use_cache=True,
        )
        layers = [(keys, values) for keys, values, *_ in cache]
        return Prefix(state[:, :0].float(), masked_mean(hidden, mask), mask, layers)

    def _velocity(self, prefix: Prefix, x: Tensor, timestep: Tensor) -> Tensor:
        from transformers import DynamicCache  # comes with the extra smolvla

        # The expert's self-attention layers append to the cache they are given: each step gets its own.
        cache = DynamicCache([(keys, values, None) for keys, values in prefix.cache])
        return self.module.model.denoise_step(prefix.mask, cache, x, timestep)

    @property
    def encoder(self) -> nn.Module:
        model = self.module.model
        return nn.ModuleList([model.vlm_with_expert.vlm, model.state_proj])

    def _expert(self) -> list[nn.Module]:
        model = self.module.model
        heads = [part for part in model.children() if part not in (model.vlm_with_expert, model.state_proj)]
        return [model.vlm_with_expert.lm_expert, *heads]

    def _language_model(self) -> tuple[str, nn.Module]:
        return r"\.text_model", self.module.model.vlm_with_expert.get_vlm_model().text_model
