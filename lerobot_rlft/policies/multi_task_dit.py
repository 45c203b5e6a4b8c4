"""Adapter for LeRobot's `multi_task_dit` policy, with its diffusion and its flow objective."""

import copy
from collections.abc import Iterator
from pathlib import Path

import torch
from lerobot.policies.multi_task_dit.modeling_multi_task_dit import MultiTaskDiTPolicy
from lerobot.processor import PolicyProcessorPipeline
from lerobot.utils.constants import OBS_IMAGES, OBS_LANGUAGE_ATTENTION_MASK, OBS_LANGUAGE_TOKENS
from torch import Tensor, nn

from ..utils.errors import UserError
from .base import DenoisingPolicy, Exploration, register
from .processing import normalise_observations
from .schedule import schedule_kernel


@register("multi_task_dit")
class MultiTaskDiTAdapter(DenoisingPolicy):
    """One transformer call for each denoising step; images, state and the instruction are encoded once.

    The encoder is the vision tower and the projection of the text; LeRobot itself never trains the text
    tower.

    Args:
        policy: the pretrained policy. It is put in eval mode: its dropout and random crops in train mode
            would make the ratio of the first PPO minibatch differ from 1.
        preprocessor, postprocessor: the policy's own LeRobot pipelines.
        exploration: see there.

    Raises:
        UserError: the flow is integrated by another method than Euler's, or the number of denoising steps is
            out of range.
    """

    reads_language = True
    condition_path = "noise_predictor.time_mlp.3"
    network_path = "noise_predictor"

    def __init__(
        self,
        policy: MultiTaskDiTPolicy,
        preprocessor: PolicyProcessorPipeline,
        postprocessor: PolicyProcessorPipeline,
        exploration: Exploration,
    ) -> None:
        self.module, self.preprocessor, self.postprocessor = policy.eval(), preprocessor, postprocessor
        config = policy.config
        self.n_obs_steps, self.horizon = config.n_obs_steps, config.horizon
        self.n_action_steps = config.n_action_steps
        self.action_dim = config.action_feature.shape[0]
        if config.is_diffusion:
            self.kernel = schedule_kernel(config, policy.objective, exploration)
        elif config.integration_method != "euler":
            raise UserError(
                f"policy.integration_method={config.integration_method} has no chain of Gaussian steps, it "
                "asks the network several times for each: choose --policy.integration_method=euler"
            )
        else:
            self.use_flow(config.num_integration_steps, exploration, False, config.sigma_min)

    def encode(self, obs: dict[str, Tensor]) -> Tensor:
        batch = normalise_observations(obs, self.preprocessor, self.task)
        for key in (OBS_LANGUAGE_TOKENS, OBS_LANGUAGE_ATTENTION_MASK):
            if key not in batch:
                raise UserError(
                    f"the policy's inputs lack {key}: keep the tokenizer in policy_preprocessor.json"
                )
            batch[key] = batch[key][:, -1]  # the instruction is the same at all steps
        cameras = self.module.config.image_features
        if cameras:
            batch[OBS_IMAGES] = torch.stack([batch[key] for key in cameras], dim=-4)
        return self.module.observation_encoder.encode(batch)

    def predict(self, x: Tensor, timestep: Tensor, condition: Tensor) -> Tensor:
        return self.module.noise_predictor(x, timestep, conditioning_vec=condition)

    def executed(self, x: Tensor) -> Tensor:
        start = self.n_obs_steps - 1
        return x[:, start : start + self.n_action_steps]

    @property
    def encoder(self) -> nn.Module:
        return self.module.observation_encoder

    @property
    def feature_dim(self) -> int:
        return self.module.observation_encoder.conditioning_dim

    def idle_parameters(self) -> Iterator[nn.Parameter]:
        # LeRobot runs the text tower without gradient, and takes the vision tower's token before the last
        # norm.
        parts = ("text_encoder.text_encoder.", ".post_layernorm.")
        parameters = self.module.observation_encoder.named_parameters()
        return (p for name, p in parameters if any(part in name for part in parts))

    def copy_encoder(self) -> "MultiTaskDiTAdapter":
        twin = copy.copy(self)
        # The memo entry leaves the transformer out of the copy.
        twin.module = copy.deepcopy(self.module, {id(self.module.noise_predictor): nn.Identity()})
        return twin

    @torch.no_grad()
    def deployed_chunk(self, condition: Tensor) -> Tensor:
        return self.module.objective.conditional_sample(
            self.module.noise_predictor, len(condition), condition
        )

    def save_pretrained(self, folder: Path) -> None:
        if self.module.config.is_diffusion:  # else a stock loader would fall back to all T steps
            self.module.config.num_inference_steps = self.kernel.num_steps
        super().save_pretrained(folder)
