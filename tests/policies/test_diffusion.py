"""The adapter of `diffusion` against stock LeRobot."""

import copy
import json

import pytest
import torch
from families import ENVIRONMENT_STATE, IMAGES, STATE, diffusion, experience, observations
from lerobot.policies import make_pre_post_processors
from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
from lerobot.processor import NormalizerProcessorStep

from lerobot_rlft.algorithms.dppo import DPPO, DPPOConfig
from lerobot_rlft.chains.chain import DDIMKernel, DDPMKernel
from lerobot_rlft.policies.base import adapter_class
from lerobot_rlft.utils.errors import UserError


def test_the_unet_is_called_once_for_each_step():
    policy, calls = diffusion(num_inference_steps=5), []
    policy.module.diffusion.unet.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        policy.sample(policy.encode(observations(policy, 3)), 0.1, 0.1)
    assert len(calls) == 5


def test_the_kernel_is_that_of_the_config():
    ddpm = diffusion(clip_sample_range=0.5).kernel
    assert (type(ddpm), ddpm.num_steps, ddpm.clip_range) == (DDPMKernel, 10, 0.5)
    ddim = diffusion(noise_scheduler_type="DDIM", num_inference_steps=5, clip_sample=False).kernel
    assert (type(ddim), ddim.timesteps.tolist(), ddim.clip_range) == (DDIMKernel, [0, 2, 4, 6, 8], None)


def test_the_executed_part_starts_at_the_current_observation():
    chunk = torch.arange(8.0).view(1, 8, 1)
    assert diffusion().executed(chunk).flatten().tolist() == [1, 2, 3, 4]
    assert diffusion(n_obs_steps=1).executed(chunk).flatten().tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("steps", [0, 11])
def test_a_chain_longer_than_the_training_schedule_is_refused(steps):
    with pytest.raises(
        UserError, match=rf"policy.num_inference_steps={steps} .*1 to policy.num_train_timesteps=10"
    ):
        diffusion(num_inference_steps=steps)


def test_unknown_families_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"policy.type='act'.*Known: .*diffusion"):
        adapter_class("act")
    with pytest.raises(ValueError, match=r"'evo1' starts .* uniform noise.*Known: .*diffusion.*xvla"):
        adapter_class("evo1")


@pytest.mark.parametrize(
    "inputs, encoder_per_camera", [(ENVIRONMENT_STATE, False), (IMAGES, False), (IMAGES, True)]
)
def test_a_saved_policy_acts_the_same_in_stock_lerobot(inputs, encoder_per_camera, tmp_path):
    """Frame by frame through stock `select_action`, against the adapter's chunk for the stacked history."""
    policy = diffusion(inputs, use_separate_rgb_encoder_per_camera=encoder_per_camera, num_inference_steps=4)
    policy.save_pretrained(tmp_path)
    stock = DiffusionPolicy.from_pretrained(tmp_path)
    preprocess, postprocess = make_pre_post_processors(stock.config, str(tmp_path))
    obs = observations(policy, 3)
    frames = [
        {key: v[:, i].float() / 255 if v.dtype == torch.uint8 else v[:, i] for key, v in obs.items()}
        for i in range(policy.n_obs_steps)
    ]
    # One decision on the first frame alone, and three more actions of its chunk, end with the second frame.
    for frame in (*[frames[0]] * 4, frames[1]):
        torch.manual_seed(3)
        action = postprocess(stock.select_action(preprocess(frame)))
    torch.manual_seed(3)
    mine = policy.to_action(policy.deployed_chunk(policy.encode(obs)))
    torch.testing.assert_close(mine[:, 0], action, rtol=0, atol=1e-5)


def test_observations_are_normalised_with_the_policys_statistics():
    policy = diffusion()
    obs = observations(policy, 2)
    steps = [step for step in policy.preprocessor.steps if isinstance(step, NormalizerProcessorStep)]
    low, high = (torch.as_tensor(steps[0].stats["observation.state"][name]) for name in ("min", "max"))
    expected = 2 * (obs["observation.state"] - low) / (high - low) - 1
    found = policy.encode(obs).view(2, 2, -1)[..., :4]  # (B, S, state first)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_saving_keeps_the_sampler_that_was_tuned(tmp_path):
    diffusion(noise_scheduler_type="DDIM").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["num_inference_steps"], config["noise_scheduler_type"]) == (10, "DDIM")


def test_random_crops_in_train_mode_are_caught_by_the_first_ratio():
    policy = diffusion(STATE | {"observation.image": IMAGES["observation.images.top"]}, crop_shape=(32, 40))
    algorithm = DPPO(DPPOConfig(), policy, copy.deepcopy(policy))
    data = experience(policy)
    policy.module.train()
    with pytest.raises(RuntimeError, match=r"must be 1 .*train mode .*random crops"):
        algorithm.update(data)


def test_the_adapter_puts_its_policy_in_eval_mode():
    assert not any(module.training for module in diffusion(IMAGES).module.modules())
