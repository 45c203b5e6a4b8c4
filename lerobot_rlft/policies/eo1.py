"""Adapter for LeRobot's `eo1` policy (arXiv:2508.21112)."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .base import register
from .prefix import Prefix, PrefixShape, masked_mean
from .prompt import prompt_inputs
from .vla import VLAAdapter


@register("eo1")
class EO1Adapter(VLAAdapter):
    """One Qwen2.5-VL reads the prompt and denoises the actions, which are tokens at its end; the state is a
    token of the prompt.

    Where the encoder is frozen, that is the whole transformer: the projections of actions and time are what
    is left to train. Adapters in it (`peft`) or `algorithm.train_encoder=true` train it, too.
    """

    condition_path = "model.action_time_mlp_out"
    guided = False
    prompt_keys = ("input_ids", "attention_mask", "pixel_values", "image_grid_thw", "mm_token_type_ids")

    def _shape(self) -> PrefixShape:
        text = self._qwen.config.text_config
        heads, size = text.num_key_value_heads, text.hidden_size // text.num_attention_heads
        # What the expert reads beside the cache is the position of the first action.
        return PrefixShape(1, text.hidden_size, text.num_hidden_layers, heads, size)

    def _num_steps(self) -> int:
        return self.module.config.num_denoise_steps

    def _inputs(self, obs: dict[str, Tensor]) -> dict[str, Any]:
        return prompt_inputs(obs, self.preprocessor, self.task)

    def _read(self, batch: dict[str, Any]) -> Prefix:
        model, ids = self.module.model, batch["input_ids"]
        tokens = {key: batch[key] for key in ("state_token_id", "action_token_id")}
        embeddings = model.embed_prefix(ids, self.module.prepare_state(batch["observation.state"]), **tokens)
        # All rows have the same task and their images the same sizes.
        start = int((ids[0] == tokens["action_token_id"]).nonzero()[0])
        types, mask = batch["mm_token_type_ids"], batch["attention_mask"]
        images = {key: batch[key] for key in ("image_grid_thw",)}
        positions, _ = self._qwen.get_rope_index(ids, attention_mask=mask, mm_token_type_ids=types, **images)
        output = self._qwen(
            input_ids=ids[:, :start],
            attention_mask=mask[:, :start],
            position_ids=positions[..., :start],
            inputs_embeds=embeddings[:, :start],
            pixel_values=batch["pixel_values"],
            mm_token_type_ids=types[:, :start],
            use_cache=True,
            **images,
        )
        seen = mask[:, :start].bool()
        layers = [(keys, values) for keys, values, *_ in output.past_key_values]
        return Prefix(
            positions[0, :, start, None].float(), masked_mean(output.last_hidden_state, seen), seen, layers
        )

    def _velocity(self, prefix: Prefix, x: Tensor, timestep: Tensor) -> Tensor:
        from transformers import DynamicCache  # comes with the extra eo1

        model, steps = self.module.model, torch.arange(self.horizon, device=x.device)
        embeddings = model.embed_suffix(timestep, x).to(model.get_input_embeddings().weight.dtype)
        output = self._qwen(
            attention_mask=torch.cat([prefix.mask, prefix.mask.new_ones(x.shape[:2])], 1).long(),
            past_key_values=DynamicCache([(keys, values, None) for keys, values in prefix.cache]),
            inputs_embeds=embeddings,
            position_ids=(prefix.state.long() + steps).expand(3, -1, -1),
            use_cache=True,
        )
        with model.flow_head_autocast_context():
            hidden = output.last_hidden_state.to(model.action_out_proj.dtype)
            return model.action_out_proj(hidden).to(x.dtype)

    def example_condition(self, batch: int) -> Tensor:
        return super(VLAAdapter, self).example_condition(batch)  # blank images give no prompt

    @property
    def _qwen(self) -> nn.Module:
        return self.module.model.vlm_backbone.model

    @property
    def encoder(self) -> nn.Module:
        return nn.ModuleList([self.module.model.vlm_backbone, self.module.model.state_proj])

    def _expert(self) -> list[nn.Module]:
        model = self.module.model
        return [part for part in model.children() if part not in (model.vlm_backbone, model.state_proj)]

    def _language_model(self) -> tuple[str, nn.Module]:
        return r"\.language_model", self._qwen.language_model

    def idle_parameters(self) -> Iterator[nn.Parameter]:
        return (p for name, p in self.module.named_parameters() if name.endswith("lm_head.weight"))

    @property
    def feature_dim(self) -> int:
        return self.shape.width

    def features(self, condition: Tensor) -> Tensor:
        return Prefix.unflatten(condition, self.shape).summary.float()

    def _dtype(self) -> torch.dtype:
        return self.module.model.vlm_backbone.dtype
