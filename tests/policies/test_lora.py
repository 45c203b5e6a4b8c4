"""Low-rank adapters by LeRobot's `wrap_with_peft`."""

import copy
from dataclasses import asdict

import pytest
import torch
import vlas
from families import diffusion, experience, observations, vla
from lerobot.configs import PreTrainedConfig
from lerobot.configs.default import PeftConfig

from lerobot_rlft.algorithms.dppo import DPPO, DPPOConfig
from lerobot_rlft.policies.base import Exploration
from lerobot_rlft.policies.loading import load_pretrained
from lerobot_rlft.policies.lora import add_adapters
from lerobot_rlft.utils.errors import UserError


def adapted(policy, **options):
    vlas.needs("peft")
    add_adapters(policy, asdict(PeftConfig(**({"r": 4, "lora_alpha": 8} | options))))
    return policy


def act(policy):
    torch.manual_seed(3)
    with torch.no_grad():
        return policy.to_action(policy.deployed_chunk(policy.encode(observations(policy, 2))))


def tune(policy):
    policy.freeze(None)
    base = policy.frozen_copy()
    config = DPPOConfig(update_epochs=2, minibatch_size=16, actor_lr=1e-2, max_step_kl=None)
    metrics = DPPO(config, policy, base).update(experience(policy))
    assert metrics["first_ratio_error"] <= 1e-4
    return base


def test_adapters_alone_are_trained():
    policy = adapted(vla("pi0", noise_level=0.5))
    before = copy.deepcopy(policy.module.state_dict())
    base = tune(policy)
    moved = {k for k, v in policy.module.state_dict().items() if not torch.equal(v, before[k])}
    assert moved and all("lora_" in name for name in moved)
    assert {p.data_ptr() for p in policy.module.parameters()} & {
        p.data_ptr() for p in base.module.parameters()
    }


def test_new_adapters_change_nothing():
    before = act(vla("pi0"))
    torch.testing.assert_close(act(adapted(vla("pi0"))), before, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["pi0", "pi05", "smolvla"])
def test_a_checkpoint_has_them_merged(kind, tmp_path):
    policy = adapted(vla(kind, noise_level=0.5))
    names = vla(kind).module.state_dict().keys()
    tune(policy)
    policy.save_pretrained(tmp_path)
    config = PreTrainedConfig.from_pretrained(tmp_path)
    assert not config.use_peft
    again = load_pretrained(config, tmp_path, Exploration())
    again.task = policy.task
    assert again.module.state_dict().keys() == names
    torch.testing.assert_close(act(again), act(policy), rtol=0, atol=1e-4)
    assert (act(again) - act(vla(kind))).abs().max() > 1e-3
    assert any("lora_" in name for name in policy.module.state_dict())  # and training goes on with them apart


def test_targets_that_match_nothing_are_refused():
    with pytest.raises(UserError, match=r"peft.target_modules=\['no_such'\] does not fit policy.type=pi0"):
        adapted(vla("pi0"), target_modules=["no_such"])


def test_a_policy_without_default_targets_is_told_to_name_some():
    with pytest.raises(UserError, match=r"peft.target_modules=None does not fit .*name its layers"):
        adapted(diffusion())


@pytest.mark.parametrize(
    "options, answer",
    [
        ({"method_type": "MISS"}, "peft.method_type=MISS cannot be merged .*choose LORA"),
        ({"full_training_modules": ["state_proj"]}, "peft.full_training_modules=.*leave it out"),
    ],
)
def test_what_could_not_be_merged_is_refused(options, answer):
    with pytest.raises(UserError, match=answer):
        add_adapters(diffusion(), asdict(PeftConfig(**options)))
