"""The text form, through LeRobot's own pipelines."""

import json

import pytest
import torch
from lerobot.processor import (
    AddBatchDimensionProcessorStep,
    NewLineTaskProcessorStep,
    PolicyProcessorPipeline,
)
from lerobot.processor.converters import batch_to_transition, transition_to_batch

from lerobot_rlft.policies.advantage_prompt import AdvantagePromptStep, prompts, reads_language, told
from lerobot_rlft.policies.conditioning import NEGATIVE, POSITIVE, UNKNOWN


def pipeline(*steps):
    return PolicyProcessorPipeline(
        list(steps),
        name="policy_preprocessor",
        to_transition=batch_to_transition,
        to_output=transition_to_batch,
    )


def task_of(processor, task):
    return processor({"observation.state": torch.zeros(4), "task": task})["task"]


def test_the_label_follows_the_task():
    tasks = ["pick the cube", "pick the cube\n", "open it"]
    assert prompts(tasks, [POSITIVE, NEGATIVE, UNKNOWN]) == [
        "pick the cube\nAdvantage: positive", "pick the cube\nAdvantage: negative", "open it"
    ]  # fmt: skip


def test_a_saved_pipeline_tells_wherever_it_is_loaded(tmp_path):
    processor = pipeline(AddBatchDimensionProcessorStep(), NewLineTaskProcessorStep())
    told(processor)
    told(processor)  # again: it is there once
    assert [type(step).__name__ for step in processor.steps].count("AdvantagePromptStep") == 1
    assert task_of(processor, "go") == ["go\nAdvantage: positive\n"]
    assert task_of(processor, ["go", "stop"]) == ["go\nAdvantage: positive\n", "stop\nAdvantage: positive\n"]
    processor.save_pretrained(tmp_path)
    again = PolicyProcessorPipeline.from_pretrained(
        tmp_path,
        config_filename="policy_preprocessor.json",
        to_transition=batch_to_transition,
        to_output=transition_to_batch,
    )
    assert task_of(again, "go") == ["go\nAdvantage: positive\n"]
    saved = json.loads((tmp_path / "policy_preprocessor.json").read_text())["steps"][0]
    assert saved == {
        "class": "lerobot_rlft.policies.advantage_prompt.AdvantagePromptStep", "config": {"label": "positive"}
    }  # fmt: skip


def test_without_a_task_there_is_nothing_to_add():
    out = pipeline(AdvantagePromptStep())({"observation.state": torch.zeros(4)})
    assert "task" not in out or out["task"] is None


def test_an_unknown_label():
    with pytest.raises(ValueError, match="label='good' is unknown, choose negative, positive, unknown"):
        AdvantagePromptStep("good")


def test_only_a_tokenizer_reads_language():
    class SomeTokenizerStep(AdvantagePromptStep): ...

    assert not reads_language(pipeline(AdvantagePromptStep(), NewLineTaskProcessorStep()))
    assert reads_language(pipeline(SomeTokenizerStep()))
