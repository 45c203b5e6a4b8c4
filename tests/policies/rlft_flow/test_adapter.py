"""The policy type `rlft_flow` as LeRobot sees it, and its adapter beside it."""

import copy

import pytest
import torch
from families import IMAGES, NOISY, STATE, experience, observations, rlft_flow
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies import make_pre_post_processors
from lerobot.policies.factory import get_policy_class

from lerobot_rlft.algorithms.dppo import DPPO, DPPOConfig
from lerobot_rlft.chains.flow import HybridKernel
from lerobot_rlft.policies.rlft_flow.configuration_rlft_flow import RLFTFlowConfig


def test_the_loss_by_hand(monkeypatch):
    module = rlft_flow(STATE, n_obs_steps=1).module
    seen = {}

    def velocity(x, time, condition):
        seen.update(x=x, time=time)
        return torch.zeros_like(x)

    monkeypatch.setattr(module, "velocity", velocity)
    batch = {"action": torch.randn(6, 8, 2), "observation.state": torch.randn(6, 1, 4)}
    action = batch["action"]
    torch.manual_seed(0)
    loss, _ = module(batch)
    torch.manual_seed(0)
    noise, time = torch.randn(6, 8, 2), torch.rand(6)
    assert torch.equal(seen["time"], time)
    t = time[:, None, None]
    torch.testing.assert_close(seen["x"], (1 - t) * action + t * noise)
    torch.testing.assert_close(loss, (noise - action).square().mean())


def test_a_saved_policy_acts_the_same_in_stock_lerobot(tmp_path):
    policy = rlft_flow()
    policy.save_pretrained(tmp_path)
    stock = get_policy_class("rlft_flow").from_pretrained(tmp_path)
    preprocess, postprocess = make_pre_post_processors(stock.config, str(tmp_path))
    first, second = (observations(policy, 1, seed) for seed in (1, 2))
    history = {key: torch.cat([first[key][:, -1:], second[key][:, -1:]], 1) for key in first}
    torch.manual_seed(7)
    with torch.no_grad():
        expected = policy.to_action(policy.deployed_chunk(policy.encode(history)))
    # One step back: what stock LeRobot has in its queue when it decides.
    stock.reset()
    stock._queues["observation.state"].append(
        preprocess({k: v[:, -1] for k, v in first.items()})["observation.state"]
    )
    stock._queues["observation.environment_state"].append(
        preprocess({k: v[:, -1] for k, v in first.items()})["observation.environment_state"]
    )
    torch.manual_seed(7)
    now = {k: v[:, -1] for k, v in second.items()}
    actions = [postprocess(stock.select_action(preprocess(now))) for _ in range(policy.n_action_steps)]
    torch.testing.assert_close(torch.stack(actions, 1), expected, rtol=0, atol=1e-6)


def test_noise_may_be_given():
    policy = rlft_flow()
    condition, noise = policy.encode(observations(policy, 2)), torch.randn(2, 8, 2)
    batch = {
        key: torch.randn(2, 2, size)
        for key, size in (("observation.state", 4), ("observation.environment_state", 3))
    }
    again = [policy.module.predict_action_chunk(batch, noise) for _ in range(2)]
    assert torch.equal(*again) and again[0].shape == (2, 4, 2)
    assert torch.equal(policy.module.sample(condition, noise), policy.module.sample(condition, noise))


def test_an_update_of_hybrid_chains_asks_about_one_step_of_each(monkeypatch):
    policy = rlft_flow(explore=NOISY | {"hybrid": True})
    assert isinstance(policy.kernel, HybridKernel)
    data, base = experience(policy), copy.deepcopy(policy)
    base.module.requires_grad_(False)
    rows = []
    predict = policy.predict

    def counted(x, timestep, condition):
        if torch.is_grad_enabled():
            rows.append(len(x))
        return predict(x, timestep, condition)

    monkeypatch.setattr(policy, "predict", counted)
    metrics = DPPO(DPPOConfig(update_epochs=1, hybrid=True), policy, base).update(data)
    assert sum(rows) == len(data.chain.x) == 8
    assert metrics["first_ratio_error"] <= 1e-4


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"num_inference_steps": 0}, "num_inference_steps=0 must be at least 1"),
        ({"horizon": 6, "down_dims": (8, 8)}, r"horizon=6 must be a multiple of 4, 2 for each of down_dims"),
    ],
)
def test_options_that_do_not_fit_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        RLFTFlowConfig(device="cpu", **fields)


@pytest.mark.parametrize("inputs", [IMAGES, {"observation.other": (FeatureType.STATE, (4,))}])
def test_other_inputs_than_vectors_are_refused(inputs):
    config = RLFTFlowConfig(
        device="cpu", input_features={key: PolicyFeature(*feature) for key, feature in inputs.items()}
    )
    with pytest.raises(ValueError, match=r"reads observation.state and .*the inputs are"):
        config.validate_features()
