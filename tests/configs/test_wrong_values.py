"""Values of the wrong type, for every option: a sentence that names it, or a config."""

from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lerobot_rlft.configs.eval import EvalPipelineConfig
from lerobot_rlft.configs.options import groups
from lerobot_rlft.configs.parser import build
from lerobot_rlft.configs.push import PushConfig
from lerobot_rlft.configs.train import TrainConfig
from lerobot_rlft.utils.errors import UserError

CHOSEN = {
    "train": (
        TrainConfig,
        {"algorithm": {"type": "dppo"}, "env": {"type": "avoiding"}, "policy": {"type": "diffusion"}},
    ),
    "train, rounds": (
        TrainConfig,
        {"algorithm": {"type": "recap"}, "env": {"type": "pusht"}, "policy": {"type": "rlft_flow"}},
    ),
    "eval": (EvalPipelineConfig, {"env": {"type": "grasps"}, "policy": {"type": "diffusion"}}),
    "push": (PushConfig, {}),
}
# As they are written on the command line.
VALUES = st.one_of(
    st.sampled_from(
        ["null", "true", "", "[]", "{}", "[1, 2, 3]", "[[1]]", "{a: {b: c}}", "{1: 2}", "{type: x}"]
    ),
    st.sampled_from([".nan", "-.inf", "1e9", "9" * 30, "-1", "0", "1.5", "2026-01-01"]),
    st.sampled_from(["[a", "'", "&a *a", "*x", "- a", "? [a]", "!!python/object:os.system x", "\0"]),
    st.text(max_size=8),
)


@cache
def names(command):
    return [option.name for group in groups(*CHOSEN[command]) for option in group.options]


@pytest.mark.parametrize("command", CHOSEN)
@settings(max_examples=200)
@given(data=st.data(), value=VALUES)
def test_a_value_of_another_type(command, data, value):
    config_class, content = CHOSEN[command]
    name = data.draw(st.sampled_from(names(command)))
    try:
        config = build(config_class, content, {name: value})
    except UserError as error:
        assert name.rpartition(".")[2] in str(error)
        return
    if config_class is TrainConfig and config.policy is not None:
        config.policy.pretrained_path = Path("somewhere")
        try:
            config.check()
        except UserError as error:
            assert "Error" not in str(error), "a library's words"


@pytest.mark.parametrize(
    "option, value, answer",
    [
        ("iterations", "null", "--iterations=null is no value: give INT, or leave it out"),
        ("algorithm.clip_range", "[1]", r"--algorithm.clip_range=\[1\] is no single value: give NUMBER"),
        ("policy.n_action_steps", "null", "--policy.n_action_steps=null is no value: give INT"),
        ("algorithm.type", "[]", r"--algorithm.type=\[\] is unknown, known: "),
        ("output_dir", "{a: 1}", "--output_dir={a: 1} is no single value: give PATH"),
    ],
)
def test_what_is_said_of_null_and_lists(option, value, answer):
    config_class, content = CHOSEN["train"]
    with pytest.raises(UserError, match=answer):
        build(config_class, content, {option: value})


def test_null_stays_a_value_where_the_default_is_null():
    config_class, content = CHOSEN["train"]
    given = {"output_dir": "null", "policy.num_inference_steps": "null", "eval.n_videos": "0"}
    assert build(config_class, content, given).output_dir is None
