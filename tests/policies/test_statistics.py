"""Statistics that do not serve are named, and those of a dataset take their place."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from old_layouts import WEIGHTS, edit_statistics, load, statistics, with_buffers, with_prefix
from recorded_data import record
from safetensors.torch import load_file, save_file
from tiny import save_policy

from lerobot_rlft.policies.base import DenoisingPolicy
from lerobot_rlft.policies.processing import normalise_observations
from lerobot_rlft.policies.statistics import is_buffer, statistics_from, statistics_in
from lerobot_rlft.training.checkpoint import write_config
from lerobot_rlft.utils.errors import UserError


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data") / "recorded"
    record(root, (6, 7))
    return root


def test_old_names_are_read_by_the_keys_of_the_features():
    tensors = {
        "normalize_inputs.buffer_observation_environment_state.min": torch.tensor([1.0]),
        "unnormalize_outputs.buffer_action.max": torch.tensor([2.0]),
        "normalize_inputs.so100-red_buffer_observation_state.mean": torch.tensor([3.0]),
        "unet.weight": torch.tensor([4.0]),
    }
    assert [is_buffer(name) for name in tensors] == [True, True, True, False]
    assert statistics_in(tensors, ["observation.environment_state", "observation.state", "action"]) == {
        "observation.environment_state": {"min": torch.tensor([1.0])},
        "action": {"max": torch.tensor([2.0])},
        "so100-red.observation_state": {"mean": torch.tensor([3.0])},
    }


def rename(tensors, old: str, new: str) -> None:
    for name in [name for name in tensors if name.startswith(old)]:
        tensors[name.replace(old, new, 1)] = tensors.pop(name)


def put(tensors, key: str, value: list[float]) -> None:
    if key in tensors:
        tensors[key] = torch.tensor(value)


@pytest.mark.parametrize(
    "change, answer",
    [
        (lambda t: rename(t, "action", "so100.buffer.action"),
         r"none for action, but for .*so100.buffer.action"),
        (lambda t: rename(t, "action.min", "action.mean"),
         r"action lacks min, which MIN_MAX needs, and has max, mean"),
        (lambda t: put(t, "action.max", [1.0] * 7),
         r"action.max has 7 numbers and the policy's action 2, .*another robot"),
        (lambda t: put(t, "observation.state.min", [0.0] * 9),
         r"observation.state.min has 9 numbers and .* 4"),
        (lambda t: put(t, "action.min", [float("inf")] * 2), r"action.min is inf: they were never set"),
        (lambda t: put(t, "action.min", [0.02, 0.0]), r"action.min is not below action.max"),
        (lambda t: put(t, "action.min", t["action.max"].tolist()), r"action.min is not below action.max"),
    ],
)  # fmt: skip
def test_statistics_that_do_not_serve_are_named(change, answer, base_policy, tmp_path):
    place = shutil.copytree(base_policy, tmp_path / "copy")
    edit_statistics(place, change)
    with pytest.raises(UserError, match=rf"unusable statistics: .*{answer}.*--policy.stats_from=DATASET"):
        load(place)


def test_statistics_of_another_environment_are_told_when_it_is_seen(base_policy):
    policy = load(base_policy)
    obs = {"observation.state": torch.zeros(2, 2, 7), "observation.environment_state": torch.zeros(2, 2, 9)}
    with pytest.raises(
        UserError, match=r"observation.state.max has 4 numbers and the environment's .* 7: .*"
    ):
        normalise_observations(obs, policy.preprocessor)


def test_quantiles_that_were_never_computed_are_named(tmp_path):
    modes = {"STATE": "QUANTILES", "ACTION": "MIN_MAX"}
    place = save_policy(tmp_path / "quantiles", normalization_mapping=modes)
    with pytest.raises(UserError, match=r"observation.state lacks q01 and q99, which QUANTILES needs"):
        load(place)


def test_a_number_that_never_changed_is_no_mistake(base_policy, tmp_path):
    place = shutil.copytree(base_policy, tmp_path / "copy")
    edit_statistics(place, lambda t: put(t, "action.min", [0.01, -0.01]))
    assert load(place)


def limits(policy: DenoisingPolicy, folder: Path) -> dict[str, torch.Tensor]:
    policy.save_pretrained(folder)
    return statistics(folder)


def test_those_of_a_dataset_take_their_place(base_policy, dataset, tmp_path):
    policy = load(with_prefix(base_policy, tmp_path / "prefixed"), f"--stats_from={dataset}")
    saved = limits(policy, tmp_path / "saved")
    assert (saved["action.min"] >= -0.01).all() and (saved["action.max"] <= 0.01).all()
    chunk = torch.tensor([[[-1.0, 1.0]] * 4])
    expected = torch.stack([saved["action.min"][0], saved["action.max"][1]])
    torch.testing.assert_close(policy.to_action(chunk)[0, 0], expected)
    assert limits(load(tmp_path / "saved"), tmp_path / "again").keys() == saved.keys()


def test_a_policy_without_any_is_given_those_of_a_dataset(base_policy, dataset, tmp_path):
    bare = with_buffers(base_policy, tmp_path / "bare")
    save_file({n: t for n, t in load_file(bare / WEIGHTS).items() if not is_buffer(n)}, bare / WEIGHTS)
    saved = limits(load(bare, f"--stats_from={dataset}"), tmp_path / "saved")
    assert (saved["action.max"] <= 0.01).all()


def test_quantiles_that_an_older_dataset_lacks_are_computed(tmp_path):
    place = save_policy(
        tmp_path / "quantiles", normalization_mapping={"STATE": "QUANTILES", "ACTION": "MIN_MAX"}
    )
    older = tmp_path / "older"
    record(older, (60, 70))
    file = older / "meta/stats.json"
    stats = json.loads(file.read_text())
    expected = stats["observation.state"].pop("q01")
    file.write_text(json.dumps(stats))
    saved = limits(load(place, f"--stats_from={older}"), tmp_path / "saved")
    torch.testing.assert_close(saved["observation.state.q01"], torch.tensor(expected), rtol=0, atol=5e-4)


def test_a_dataset_that_does_not_serve_is_named(base_policy, tmp_path):
    record(tmp_path / "other", (6,), state=7)
    with pytest.raises(
        UserError, match=r"--policy.stats_from=.*other has unusable.* 7 numbers .*Choose the dataset"
    ):
        load(base_policy, f"--stats_from={tmp_path / 'other'}")


def test_what_is_no_dataset_is_told(base_policy, tmp_path):
    with pytest.raises(UserError, match=r"--policy.stats_from=.*nothing is no LeRobot dataset"):
        load(base_policy, f"--stats_from={tmp_path / 'nothing'}")


def test_a_run_remembers_the_dataset(base_policy, dataset, tmp_path, read_command):
    config = read_command(
        f"--policy.path={base_policy}", f"--policy.stats_from={dataset}", "--env.type=avoiding",
        "--algorithm.type=dppo", f"--output_dir={tmp_path / 'run'}",
    )  # fmt: skip
    assert statistics_from(config.policy) == str(dataset)
    write_config(config, tmp_path / "saved.yaml")
    assert yaml.safe_load((tmp_path / "saved.yaml").read_text())["stats_from"] == str(dataset)
    again = read_command(f"--config_path={tmp_path / 'saved.yaml'}", f"--output_dir={tmp_path / 'run'}")
    assert statistics_from(again.policy) == str(dataset)
