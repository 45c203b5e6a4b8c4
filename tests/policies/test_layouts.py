"""Policies in the layouts that lie on the Hub load and act as in today's."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import vlas
from lerobot.configs.default import PeftConfig
from old_layouts import WEIGHTS, adapted, edit, sharded, with_buffers, with_shapes
from safetensors.torch import load_file, save_file
from tiny import OBSERVATIONS, save_policy

from lerobot_rlft.configs.eval import EvalPipelineConfig
from lerobot_rlft.configs.pretrained import load_policy_config
from lerobot_rlft.envs.grasps.configuration_grasps import GraspsEnvConfig
from lerobot_rlft.evaluation.comparison import compare
from lerobot_rlft.policies import weights
from lerobot_rlft.policies.base import DenoisingPolicy
from lerobot_rlft.policies.loading import load_policy
from lerobot_rlft.policies.lora import add_adapters
from lerobot_rlft.utils.errors import StorageFailure, UserError

ROOT = Path(__file__).parents[2]


def load(place: Path, *options: str) -> DenoisingPolicy:
    return load_policy(load_policy_config(str(place), list(options)), place)


def act(policy: DenoisingPolicy) -> torch.Tensor:
    """Actions for two states, with the same noise each time."""
    torch.manual_seed(3)
    obs = {key: torch.rand(2, 2, size) for key, size in OBSERVATIONS.items()}
    with torch.no_grad():
        return policy.to_action(policy.deployed_chunk(policy.encode(obs)))


def assert_alike(policy: DenoisingPolicy, other: DenoisingPolicy) -> None:
    """The same weights, and bit for bit the same actions."""
    for (name, own), (other_name, theirs) in zip(
        policy.module.state_dict().items(), other.module.state_dict().items(), strict=True
    ):
        assert name == other_name and torch.equal(own, theirs)
    assert torch.equal(act(policy), act(other))


# Statistics inside the weights


def test_statistics_inside_the_weights_are_found_and_told(base_policy, tmp_path, capsys):
    old = with_buffers(base_policy, tmp_path / "old")
    policy = load(old)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: ") and "statistics inside the weights" in line
    assert_alike(policy, load(base_policy))
    assert policy.executed(act(policy)).std() > 0


def test_an_old_policy_is_saved_in_todays_layout(base_policy, tmp_path, capsys):
    load(with_buffers(base_policy, tmp_path / "old")).save_pretrained(tmp_path / "new")
    capsys.readouterr()
    policy = load(tmp_path / "new")
    assert capsys.readouterr().err == ""
    assert_alike(policy, load(base_policy))
    assert load_file(tmp_path / "new" / WEIGHTS).keys() == load_file(base_policy / WEIGHTS).keys()


def test_an_old_policy_is_as_good_as_the_new_one(tmp_path):
    """Its success is the same, of the same episodes, and no nat lies between the two."""
    new = ROOT / "recipes/grasps_base"
    old = with_buffers(new, tmp_path / "old")
    policy, base = (load_policy_config(str(place), ["--device=cpu"]) for place in (old, new))
    config = EvalPipelineConfig(
        policy, base=base, env=GraspsEnvConfig(),
        n_episodes=40, n_attempts=0, output_dir=tmp_path / "report",
    )  # fmt: skip
    comparison = compare(config)
    (episodes,) = (side.episodes for side in comparison.tuned.values())
    assert episodes.success.any() and (episodes.success == comparison.base.episodes.success).all()
    (kl,) = comparison.kl.values()
    assert (kl["reverse"] == 0).all() and (kl["forward"] == 0).all()


def test_keys_with_underscores_are_told_apart(tmp_path):
    """LeRobot's own migration reads observation.environment_state as observation.environment.state."""
    modes = dict.fromkeys(("STATE", "ENV", "ACTION"), "MIN_MAX")
    new = save_policy(tmp_path / "new", normalization_mapping=modes)
    old = with_buffers(new, tmp_path / "old")
    names = load_file(old / WEIGHTS).keys()
    assert "normalize_inputs.buffer_observation_environment_state.min" in names
    assert_alike(load(old), load(new))
    # Old configs may lack the type, as they normalised by key.
    edit(old / "config.json", normalization_mapping={"STATE": "MIN_MAX", "ACTION": "MIN_MAX"})
    assert_alike(load(old), load(new))


def test_statistics_beside_processors_are_left_out(base_policy, tmp_path, capsys):
    both = with_buffers(base_policy, tmp_path / "both", processors=True)
    policy = load(both)
    (line,) = capsys.readouterr().err.splitlines()
    assert "those of its processors are used" in line
    assert_alike(policy, load(base_policy))


def test_without_processors_and_statistics_the_way_is_named(base_policy, tmp_path):
    bare = with_buffers(base_policy, tmp_path / "bare")
    shutil.copy(base_policy / WEIGHTS, bare / WEIGHTS)
    with pytest.raises(UserError, match=r"lacks policy_preprocessor.json.*no statistics.*stats_from=DATASET"):
        load(bare)
    config = load_policy_config(str(base_policy), [])
    with pytest.raises(UserError, match=r"lacks policy_preprocessor.json.*no statistics"):
        load_policy(config, bare)


# Configs


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


# Weights


def test_weights_in_several_files(base_policy, tmp_path):
    place = sharded(base_policy, tmp_path / "sharded")
    assert len(list(place.glob("model-*.safetensors"))) > 1
    assert_alike(load(place), load(base_policy))


def test_without_room_for_the_copy_the_way_is_named(base_policy, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights, "save_file", full)
    with pytest.raises(StorageFailure, match=r"0.0 GB.*No space left on device.*TMPDIR"):
        load(sharded(base_policy, tmp_path / "sharded"))


def test_an_index_names_files_beside_it_alone(base_policy, tmp_path):
    place = sharded(base_policy, tmp_path / "sharded")
    edit(place / f"{WEIGHTS}.index.json", weight_map={"a": "../copy/model.safetensors"})
    with pytest.raises(UserError, match=r"whose weight_map does not name .safetensors files beside it"):
        load(place)


def test_a_missing_file_of_an_index_is_named(base_policy, tmp_path):
    place = sharded(base_policy, tmp_path / "sharded")
    file = min(place.glob("model-*.safetensors"))
    file.unlink()
    with pytest.raises(UserError, match=file.name):
        load(place)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_weights_are_loaded_in_the_type_of_the_policy(dtype, base_policy, tmp_path):
    place = shutil.copytree(base_policy, tmp_path / "narrow")
    narrow = {name: tensor.to(dtype) for name, tensor in load_file(place / WEIGHTS).items()}
    save_file(narrow, place / WEIGHTS)
    state = load(place).module.state_dict()
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    assert all(torch.equal(state[name], tensor.float()) for name, tensor in narrow.items())


def test_names_of_compiled_modules_are_plain(base_policy, tmp_path):
    place = shutil.copytree(base_policy, tmp_path / "compiled")
    tensors = load_file(place / WEIGHTS)
    save_file({n.replace("unet.", "unet._orig_mod."): t for n, t in tensors.items()}, place / WEIGHTS)
    assert_alike(load(place), load(base_policy))


def test_weights_of_another_family_are_told(base_policy, tmp_path):
    place = shutil.copytree(base_policy, tmp_path / "other")
    save_file({"model.vlm.weight": torch.zeros(2), "model.vlm.bias": torch.zeros(2)}, place / WEIGHTS)
    with pytest.raises(UserError, match=r"another family: they hold .*vlm.*policy.type=diffusion has .*unet"):
        load(place)


@pytest.mark.parametrize(
    "file, answer",
    [
        ("README.md", r"lacks model.safetensors.*: give the folder of one"),
        ("dcp/__0_0.distcp", r"dcp/__0_0.distcp, a shard of a distributed checkpoint.*lerobot-convert-dcp"),
        ("model.bin", r"a pickle.*is refused"),
    ],
)
def test_without_weights_that_can_be_read_the_reason_is_told(file, answer, base_policy, tmp_path):
    place = shutil.copytree(base_policy, tmp_path / "none")
    (place / WEIGHTS).unlink()
    (place / file).parent.mkdir(exist_ok=True)
    (place / file).write_text("")
    with pytest.raises(UserError, match=answer):
        load(place)


def test_trusted_pickles_may_hold_statistics(base_policy, tmp_path):
    place = with_buffers(base_policy, tmp_path / "pickled")
    torch.save(load_file(place / WEIGHTS), place / "model.bin")
    (place / WEIGHTS).unlink()
    policy = load_policy(load_policy_config(str(place), [], trust=True), place, trust=True)
    assert_alike(policy, load(base_policy))


# Adapters


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
