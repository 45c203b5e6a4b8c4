"""Low-rank adapters that were published apart are merged into their base."""

import json
from pathlib import Path

import pytest
import torch
import vlas
from lerobot.configs.default import PeftConfig
from old_layouts import WEIGHTS, act, adapted, assert_alike, edit, load
from safetensors.torch import load_file, save_file

from lerobot_rlft.policies.lora import add_adapters
from lerobot_rlft.utils.errors import UserError


@pytest.fixture
def adapters(base_policy, tmp_path) -> Path:
    """Of `base_policy`, with weights that change the actions."""
    vlas.needs("peft")
    place = adapted(base_policy, tmp_path / "adapters")
    file = place / "adapter_model.safetensors"
    torch.manual_seed(1)
    save_file({name: torch.randn_like(tensor) for name, tensor in load_file(file).items()}, file)
    return place


def test_adapters_are_merged_into_their_base(adapters, base_policy, capsys):
    assert not (adapters / WEIGHTS).exists()
    assert json.loads((adapters / "config.json").read_text())["use_peft"]
    policy, base = load(adapters), load(base_policy)
    assert not policy.module.config.use_peft and capsys.readouterr().err == ""
    stored = load_file(adapters / "adapter_model.safetensors")
    changed = [
        name
        for name, tensor in policy.module.state_dict().items()
        if not torch.equal(tensor, base.module.state_dict()[name])
    ]
    assert changed == [f"diffusion.unet.diffusion_step_encoder.{i}.weight" for i in (1, 3)]
    low, high = (stored[f"base_model.model.{changed[0][:-7]}.lora_{side}.weight"] for side in "BA")
    scale = json.loads((adapters / "adapter_config.json").read_text())["lora_alpha"] / 2
    merged = base.module.state_dict()[changed[0]] + scale * low @ high
    torch.testing.assert_close(policy.module.state_dict()[changed[0]], merged)


def test_merged_adapters_are_trained_on_with_all_weights_or_with_new_adapters(adapters, base_policy):
    policy, base = load(adapters), load(base_policy)
    assert [(name, weight.requires_grad) for name, weight in policy.module.named_parameters()] == [
        (name, weight.requires_grad) for name, weight in base.module.named_parameters()
    ]
    assert not policy.module.training
    before = act(policy)
    add_adapters(policy, vars(PeftConfig(target_modules=["diffusion_step_encoder.1"], r=2)))
    assert sum("lora_A" in name for name in policy.module.state_dict()) == 1  # wrapped once
    torch.testing.assert_close(act(policy), before)


def test_merged_adapters_are_saved_as_an_ordinary_policy(adapters, tmp_path):
    policy = load(adapters)
    policy.save_pretrained(tmp_path / "whole")
    assert_alike(load(tmp_path / "whole"), policy)


def test_adapters_without_processors_have_those_of_their_base(adapters):
    expected = load(adapters)
    for file in adapters.glob("policy_*"):
        file.unlink()
    assert_alike(load(adapters), expected)


@pytest.mark.parametrize(
    "base, answer",
    [(None, "names no base_model_name_or_path"), ("/nowhere/base", "adapters of /nowhere/base, .*no folder")],
)
def test_adapters_whose_base_is_not_found_are_told(base, answer, adapters):
    edit(adapters / "adapter_config.json", base_model_name_or_path=base)
    with pytest.raises(UserError, match=answer):
        load(adapters)


def test_adapters_of_adapters_are_told(adapters):
    edit(adapters / "adapter_config.json", base_model_name_or_path=str(adapters))
    with pytest.raises(UserError, match="which holds adapters, too"):
        load(adapters)


def test_narrow_adapters_are_merged(adapters, base_policy):
    file = adapters / "adapter_model.safetensors"
    save_file({name: tensor.to(torch.bfloat16) for name, tensor in load_file(file).items()}, file)
    policy = load(adapters)
    assert {tensor.dtype for tensor in policy.module.state_dict().values()} == {torch.float32}
    assert not torch.equal(act(policy), act(load(base_policy)))


def test_adapters_of_another_policy_are_told(adapters):
    file = adapters / "adapter_model.safetensors"
    save_file({f"{name}x": tensor for name, tensor in load_file(file).items()}, file)
    with pytest.raises(UserError, match=r"adapters of .* do not fit policy.type=diffusion"):
        load(adapters)


@pytest.mark.parametrize(
    "fields",
    [
        {"megatron_config": {"a": 1}, "megatron_core": "os"},
        {"init_lora_weights": "pissa"},
        {"peft_type": "XLORA", "adapters": {"a": "user/other"}},
    ],
)
def test_adapters_that_import_or_fetch_more_are_refused(fields, adapters):
    edit(adapters / "adapter_config.json", **fields)
    with pytest.raises(UserError, match=rf"adapter_config.json .* has {next(iter(fields))}=.* is refused"):
        load(adapters)


def test_use_peft_without_adapters_is_left_out(base_policy, capsys):
    """LeRobot looks for adapters in the base then."""
    policy = load(base_policy, "--use_peft=true")
    assert "use_peft=true is left out" in capsys.readouterr().err
    assert_alike(policy, load(base_policy))
