"""Policies in the layouts that lie on the Hub load and act as in today's."""

import shutil
from functools import partial
from pathlib import Path

import families
import pytest
import torch
from old_layouts import WEIGHTS, act, assert_alike, edit, load, sharded, with_buffers
from safetensors.torch import load_file, save_file
from tiny import save_policy

from lerobot_rlft.configs.eval import EvalPipelineConfig
from lerobot_rlft.configs.pretrained import load_policy_config
from lerobot_rlft.envs.grasps.configuration_grasps import GraspsEnvConfig
from lerobot_rlft.evaluation.comparison import compare
from lerobot_rlft.policies import weights
from lerobot_rlft.policies.loading import load_policy
from lerobot_rlft.utils.errors import StorageFailure, UserError

ROOT = Path(__file__).parents[2]


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


@pytest.mark.parametrize(
    "make",
    [
        partial(families.diffusion, families.IMAGES, crop_shape=(40, 40)),
        partial(families.vla, "pi0"),
        partial(families.vla, "smolvla"),
    ],
    ids=["diffusion", "pi0", "smolvla"],
)
def test_old_policies_with_cameras(make, tmp_path):
    policy = make()
    policy.save_pretrained(tmp_path / "new")
    old = load(with_buffers(tmp_path / "new", tmp_path / "old"))
    new = load(tmp_path / "new")
    obs = families.observations(policy, 2)
    actions = []
    for other in (old, new):
        other.task = policy.task
        torch.manual_seed(3)
        with torch.no_grad():
            actions.append(other.to_action(other.deployed_chunk(other.encode(obs))))
    assert torch.equal(*actions)


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
