"""The advantage in words, for policies that read language: "Advantage: positive" after the task.

Not registered by name: LeRobot's pipelines then save the path of the class, and find it wherever this package
is installed without importing it at start-up.
"""

from dataclasses import dataclass
from typing import Any

from lerobot.configs import PipelineFeatureType, PolicyFeature
from lerobot.processor import PolicyProcessorPipeline, ProcessorStep
from lerobot.processor.pipeline import ComplementaryDataProcessorStep

from .conditioning import LABELS, POSITIVE, UNKNOWN

TASK = "task"


@dataclass
class AdvantagePromptStep(ComplementaryDataProcessorStep):
    """Adds one label to every task, so that the policy is told it wherever it acts.

    Args:
        label: one of `LABELS`.

    Raises:
        ValueError: the label is unknown.
    """

    label: str = LABELS[POSITIVE]

    def __post_init__(self) -> None:
        if self.label not in LABELS:
            raise ValueError(f"label={self.label!r} is unknown, choose {', '.join(LABELS)}")

    def complementary_data(self, complementary_data: dict[str, Any]) -> dict[str, Any]:
        task = complementary_data.get(TASK)
        if task is None:
            return complementary_data
        tasks = [task] if isinstance(task, str) else list(task)
        texts = prompts(tasks, [LABELS.index(self.label)] * len(tasks))
        return {**complementary_data, TASK: texts[0] if isinstance(task, str) else texts}

    def get_config(self) -> dict[str, Any]:
        return {"label": self.label}

    def transform_features(
        self, features: dict[PipelineFeatureType, dict[str, PolicyFeature]]
    ) -> dict[PipelineFeatureType, dict[str, PolicyFeature]]:
        return features


def prompts(tasks: list[str], labels: list[int]) -> list[str]:
    """Tasks with their labels; an unknown one leaves the task as it is."""
    return [
        task if label == UNKNOWN else f"{task.rstrip()}\nAdvantage: {LABELS[label]}"
        for task, label in zip(tasks, labels, strict=True)
    ]


def reads_language(preprocessor: PolicyProcessorPipeline) -> bool:
    """Whether a step of the pipeline tokenizes the task."""
    return any("token" in type(step).__name__.lower() for step in preprocessor.steps)


def told(preprocessor: PolicyProcessorPipeline, label: int = POSITIVE) -> None:
    """Put the step in front of a pipeline, in place; one that is there already is replaced."""
    others: list[ProcessorStep] = [s for s in preprocessor.steps if not isinstance(s, AdvantagePromptStep)]
    preprocessor.steps = [AdvantagePromptStep(LABELS[label]), *others]
