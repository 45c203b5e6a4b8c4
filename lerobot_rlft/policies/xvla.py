"""Adapter for LeRobot's `xvla` policy (arXiv:2510.10274)."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..chains.renoise import RenoisingKernel
from ..utils.errors import UserError
from .base import Exploration, register
from .tokens import Tokens, TokensAdapter, TokensShape


@register("xvla")
class XVLAAdapter(TokensAdapter):
    """Florence-2 reads images and instruction, a transformer with soft prompts predicts the clean chunk.

    LeRobot's sampler mixes each prediction with the noise of its start, which a Markov chain has forgotten:
    exploration draws new noise instead (`RenoisingKernel`), which has the same marginals, and the policy is
    deployed with the stock sampler. Chunks are as the network predicts them, grippers before their sigmoid.
    """

    condition_path = "model.transformer.vlm_proj"
    guided = False

    def __init__(self, policy, preprocessor, postprocessor, exploration) -> None:
        if policy.config.use_hetero_proj:
            self.condition_path = None  # type: ignore[misc]  # a projection for each embodiment
        space = policy.model.action_space
        self._executed_dim = space.postprocess(torch.zeros(1, 1, policy.model.dim_action)).shape[-1]
        super().__init__(policy, preprocessor, postprocessor, exploration)

    def _shape(self) -> TokensShape:
        # Proprioception and the number of the embodiment.
        width = self.module.model.vlm.config.vision_config.projection_dim
        return TokensShape(self.module.model.dim_proprio + 1, width)

    def _action_dim(self) -> int:
        return self.module.model.dim_action

    def _num_steps(self) -> int:
        return max(1, self.module.config.num_denoising_steps)

    def _use_sampler(self, exploration: Exploration) -> None:
        self.kernel = RenoisingKernel(self._num_steps(), exploration.eta).to(self.module.config.device)

    def _read(self, batch: dict[str, Any]) -> Tokens:
        model = self.module.model
        inputs = self.module._build_model_inputs(batch)
        if inputs["input_ids"].shape[1] != self.module.config.tokenizer_max_length:
            raise UserError(
                f"the instruction has {inputs['input_ids'].shape[1]} tokens, not "
                f"policy.tokenizer_max_length={self.module.config.tokenizer_max_length}: choose "
                "policy.pad_language_to=max_length"
            )
        images = inputs["image_input"].to(model._get_target_dtype())
        read = model.forward_vlm(inputs["input_ids"], images, inputs["image_mask"])
        state = torch.cat([inputs["proprio"].float(), inputs["domain_id"][:, None].float()], 1)
        return Tokens(state, torch.cat([read["vlm_features"], read["aux_visual_inputs"]], 1))

    def _velocity(self, tokens: Tokens, x: Tensor, timestep: Tensor) -> Tensor:
        model, dtype = self.module.model, self.module.model._get_target_dtype()
        proprio, domain = tokens.state[:, :-1].to(dtype), tokens.state[:, -1].long()
        # The first picture stands before the instruction, the others are apart.
        views, text = self.module.config.num_image_views, self.module.config.tokenizer_max_length
        first = (tokens.hidden.shape[1] - text) // views + text
        proprio, noisy = model.action_space.preprocess(proprio, x.to(dtype))
        chunk = model.transformer(
            domain_id=domain,
            vlm_features=tokens.hidden[:, :first],
            aux_visual_inputs=tokens.hidden[:, first:],
            action_with_noise=noisy,
            proprio=proprio,
            t=timestep.to(dtype),
        )
        return chunk.float()

    @torch.no_grad()
    def deployed_chunk(self, condition: Tensor) -> Tensor:
        dtype = self.module.model._get_target_dtype()
        shape = (len(condition), self.horizon, self.action_dim)
        noise = torch.randn(shape, device=condition.device, dtype=dtype)
        chunk = torch.zeros_like(noise)
        for time in self.kernel.timesteps.to(dtype).flip(0):
            x = noise * time + chunk * (1 - time)
            chunk = self.predict(x, time.expand(len(condition)), condition).to(dtype)
        return chunk.float()

    def executed(self, x: Tensor) -> Tensor:
        cut = x[:, : self.n_action_steps]
        return cut[..., : self._executed_dim] if x.ndim > 2 else cut

    def to_action(self, chunk: Tensor) -> Tensor:
        space = self.module.model.action_space
        return self.postprocessor(space.postprocess(self.executed(chunk).clone()))

    @property
    def encoder(self) -> nn.Module:
        return self.module.model.vlm

    def _expert(self) -> list[nn.Module]:
        return [self.module.model.transformer]

    def _language_model(self) -> tuple[str, nn.Module]:
        return r"\.language_model\.encoder", self.encoder.language_model.encoder

    def idle_parameters(self) -> Iterator[nn.Parameter]:
        return iter(())

    def _output(self) -> nn.Module:
        return self.module.model.transformer.action_decoder

    @property
    def expert_dim(self) -> int:
        return self._output().input_size
