"""The config.json of older versions of LeRobot."""

import json
import shutil

import pytest
import torch
import vlas
from old_layouts import WEIGHTS, assert_alike, edit, load, with_buffers, with_shapes
from safetensors.torch import save_file
from tiny import save_policy

from lerobot_rlft.configs.pretrained import load_policy_config
from lerobot_rlft.utils.errors import UserError


def test_removed_fields_are_dropped_and_named(base_policy, tmp_path, capsys):
    old = with_buffers(base_policy, tmp_path / "old", mlp_hidden_dim=1024, use_rabc=False)
    policy = load(old)
    line = capsys.readouterr().err.splitlines()[-1]
    assert "dropped: mlp_hidden_dim=1024, use_rabc=False" in line
    assert_alike(policy, load(base_policy))


def test_a_misspelt_option_is_no_removed_field(base_policy):
    with pytest.raises(UserError, match=r"--policy.horison is unknown.*horizon"):
        load_policy_config(str(base_policy), ["--horison=4"])


def test_renamed_fields_keep_their_values(tmp_path, capsys):
    vlas.prepare_pi("pi0")
    content = {"type": "pi0", "num_steps": 7, "proj_width": 1024, "device": "cpu"}
    (tmp_path / "config.json").write_text(json.dumps(content))
    save_file({"normalize_inputs.buffer_observation_state.mean": torch.zeros(3)}, tmp_path / WEIGHTS)
    assert load_policy_config(str(tmp_path), []).num_inference_steps == 7
    assert "dropped: proj_width=1024" in capsys.readouterr().err


def test_a_config_with_shapes_and_no_type(tmp_path):
    modes = dict.fromkeys(("STATE", "ENV", "ACTION"), "MIN_MAX")
    new = save_policy(tmp_path / "new", normalization_mapping=modes)
    old = with_shapes(new, tmp_path / "old")
    policy = load(old)
    assert policy.module.config.input_features == load(new).module.config.input_features
    assert_alike(policy, load(new))
    modes = {"observation.state": "mean_std", "observation.velocity_state": "min_max"}
    edit(old / "config.json", input_normalization_modes=modes)
    with pytest.raises(UserError, match="normalises its features of type STATE in several ways"):
        load(old)
    config = json.loads((old / "config.json").read_text())
    del config["down_dims"]
    (old / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="without type, from before 2025: add the type"):
        load(old)


def test_an_empty_config_is_explained(base_policy, tmp_path):
    broken = shutil.copytree(base_policy, tmp_path / "broken")
    (broken / "config.json").write_text("")
    with pytest.raises(UserError, match=r"empty config.json.*migrate_policy_normalization.*as it is"):
        load(broken)
