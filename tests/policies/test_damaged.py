"""Every file of a checkpoint, spoiled in every place: a sentence that names the checkpoint, or a policy."""

import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lerobot_rlft.configs.pretrained import load_policy_config
from lerobot_rlft.policies.loading import load_policy
from lerobot_rlft.utils.errors import UserError

VALUES = (None, "text", -7, 10**9, [], {})
BROKEN = (b"", b"{", bytes(range(128, 256)), b"[]", b"null", b"{}", b"[" * 100_000)
STATISTICS = {
    "policy_preprocessor_step_3_normalizer_processor.safetensors": "observation.state.min",
    "policy_postprocessor_step_0_unnormalizer_processor.safetensors": "action.max",
}


def load(folder: Path) -> str:
    """What is said where it cannot be loaded; empty where it can."""
    try:
        load_policy(load_policy_config(str(folder), []), folder)
    except UserError as error:
        return str(error)
    return ""


@pytest.fixture
def checkpoint(base_policy, tmp_path) -> Path:
    return shutil.copytree(base_policy, tmp_path / "checkpoint")


def spoiled(content: Any) -> Iterator[tuple[str, Any]]:
    """JSON content with one entry taken out, or with another value."""

    def places(node: Any, place: tuple) -> Iterator[tuple]:
        entries = (
            node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        )
        for key, inner in entries:
            yield (*place, key)
            yield from places(inner, (*place, key))

    for *above, last in places(content, ()):
        for value in (..., *VALUES):
            other = copy.deepcopy(content)
            holder = other
            for key in above:
                holder = holder[key]
            if value is ...:
                del holder[last]
            else:
                holder[last] = value
            yield f"{'.'.join(map(str, above))}.{last}: {value}", other


@pytest.mark.slow
@pytest.mark.parametrize("name", ["config.json", "policy_preprocessor.json", "policy_postprocessor.json"])
def test_every_entry_of_json(name, checkpoint, capsys):
    file = checkpoint / name
    answers = {}
    for what, content in spoiled(json.loads(file.read_text())):
        file.write_text(json.dumps(content))
        answers[what] = load(checkpoint)
    assert all(str(checkpoint) in answer or "policy." in answer for answer in answers.values() if answer)
    assert any(answers.values()) and not all(answers.values())


@pytest.mark.parametrize("name", ["config.json", "policy_preprocessor.json", "policy_postprocessor.json"])
def test_json_that_is_no_json_object(name, checkpoint):
    for content in BROKEN:
        (checkpoint / name).write_bytes(content)
        assert str(checkpoint) in load(checkpoint)


@pytest.mark.parametrize("name", ["model.safetensors", *STATISTICS])
def test_tensors_that_are_none(name, checkpoint):
    whole = (checkpoint / name).read_bytes()
    for content in (
        b"",
        whole[:-20],
        whole[: len(whole) // 2],
        b"\xff" * 300,
        b"\0" * 9,
        b"\xff" * 8 + whole[8:],
    ):
        (checkpoint / name).write_bytes(content)
        assert str(checkpoint) in load(checkpoint)


@pytest.mark.parametrize("name, key", STATISTICS.items())
@pytest.mark.parametrize("size", [0, 1_000, None])
def test_statistics_of_another_size(name, key, size, checkpoint):
    tensors = load_file(checkpoint / name)
    if size is None:
        del tensors[key]
    else:
        tensors[key] = torch.zeros(size)
    save_file(tensors, checkpoint / name)
    assert str(checkpoint) in load(checkpoint)


@pytest.mark.parametrize(
    "changes, answer",
    [
        ({"num_train_timesteps": 10**9}, r"policy\.num_train_timesteps=1000000000 .* choose 1 to 10000"),
        ({"horizon": 0}, r"policy\.horizon=0 .*choose 1 to"),
        ({"horizon": 10**9}, r"policy\.horizon=1000000000 .*choose 1 to"),
        ({"n_action_steps": 10**9}, r"policy\.n_action_steps=1000000000 .*choose 1 to"),
        ({"n_groups": -1}, r"policy\.n_groups=-1 .*choose 1 to"),
        ({"down_dims": []}, r"policy\.down_dims=\(\) .*choose 1 to"),
        ({"down_dims": [10**9]}, r"policy\.down_dims=\(1000000000,\) .*choose 1 to"),
        ({"spatial_softmax_num_keypoints": 10**9}, r"keypoints=1000000000 .*choose -1 to 1000000"),
        ({"output_features": {"action": {"type": "ACTION", "shape": []}}}, r"shape of action .* is \[\]"),
        ({"horizon": None}, r"config\.json: policy\.horizon=null is no value: give INT"),
        ({"type": ["diffusion"]}, r"a policy of type \['diffusion'\], did you"),
    ],
)
def test_a_size_is_told_before_anything_of_it_is_made(changes, answer, checkpoint):
    file = checkpoint / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(UserError, match=answer):
        load_policy(load_policy_config(str(checkpoint), []), checkpoint)
