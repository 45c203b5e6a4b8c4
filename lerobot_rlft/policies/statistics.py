"""Statistics that normalise observations and actions: inside old weights, in processors, of a dataset."""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from httpx import HTTPError
from huggingface_hub.errors import HFValidationError
from lerobot.configs import FeatureType, NormalizationMode, PolicyFeature, PreTrainedConfig
from lerobot.datasets import LeRobotDataset, LeRobotDatasetMetadata
from lerobot.datasets.compute_stats import get_feature_stats
from lerobot.processor import NormalizerProcessorStep, PolicyProcessorPipeline, UnnormalizerProcessorStep
from lerobot.utils.constants import ACTION
from torch import Tensor

from ..utils.errors import UserError, one_line

# As LeRobot before 0.4 named them, with the dataset in front of "buffer" where there were several.
BUFFER = re.compile(r"(?:normalize_inputs|normalize_targets|unnormalize_outputs)\.(.*?)_?buffer_(.+)\.(\w+)")
NEEDED = {
    NormalizationMode.MEAN_STD: ("mean", "std"),
    NormalizationMode.MIN_MAX: ("min", "max"),
    NormalizationMode.QUANTILES: ("q01", "q99"),
    NormalizationMode.QUANTILE10: ("q10", "q90"),
}
STATS_FROM = "stats_from"
Statistics = dict[str, dict[str, Any]]


def set_statistics_from(config: PreTrainedConfig, dataset: str | None) -> None:
    """Let the statistics of a dataset, unless it is None, take the place of the checkpoint's."""
    vars(config)[STATS_FROM] = dataset  # no field of LeRobot's config, and not saved with the policy


def statistics_from(config: PreTrainedConfig) -> str | None:
    """The dataset that takes the place of the checkpoint's statistics."""
    return vars(config).get(STATS_FROM)


def is_buffer(name: str) -> bool:
    """Whether a tensor among the weights is a statistic."""
    return BUFFER.fullmatch(name) is not None


def statistics_in(tensors: Mapping[str, Tensor], features: Iterable[str]) -> Statistics:
    """The statistics among old weights, by the key of their feature and their name ("mean", "max", ...).

    Old names have underscores for the dots of a key; those of no feature keep them, with their dataset.
    """
    keys = {key.replace(".", "_"): key for key in features}
    out: Statistics = {}
    for name, tensor in tensors.items():
        if match := BUFFER.fullmatch(name):
            dataset, written, statistic = match.groups()
            key = f"{dataset}.{written}" if dataset else keys.get(written, written)
            out.setdefault(key, {})[statistic] = tensor.float()
    return out


def complete_modes(config: PreTrainedConfig, statistics: Statistics) -> None:
    """Add the way to normalise to a config that lacks it for a type of features with statistics.

    Old LeRobot wrote statistics only for what it normalised.
    """
    features = (config.input_features or {}) | (config.output_features or {})
    for key, feature in features.items():
        modes = [mode for mode, names in NEEDED.items() if set(names) <= statistics.get(key, {}).keys()]
        if modes and feature.type.value not in config.normalization_mapping:
            config.normalization_mapping[feature.type.value] = modes[0]


def dataset_statistics(config: PreTrainedConfig, dataset: str) -> Statistics:
    """The statistics of a LeRobot dataset; those that older ones lack, the quantiles, from its frames.

    Args:
        config: says what is normalised, and how.
        dataset: its folder, or its id on the Hub.

    Raises:
        UserError: it cannot be read.
    """
    root = Path(dataset) if Path(dataset).is_dir() else None
    repo_id = root.resolve().name if root else dataset
    try:
        meta = LeRobotDatasetMetadata(repo_id, root=root)
        statistics = {key: dict(of_feature) for key, of_feature in (meta.stats or {}).items()}
        lacking = [
            key for key in _of_vectors(config) if _missing(config, key, statistics) and key in meta.features
        ]
        if lacking:
            frames = LeRobotDataset(repo_id, root=root, download_videos=False).hf_dataset.with_format("numpy")
            for key in lacking:
                computed = get_feature_stats(np.stack(frames[key]), axis=0, keepdims=False)
                statistics[key] = computed | statistics.get(key, {})
    except (OSError, HTTPError, ValueError, KeyError, HFValidationError) as error:
        raise UserError(
            f"--policy.{STATS_FROM}={dataset} is no LeRobot dataset here or on the Hub ({one_line(error)}): "
            "give the folder or the id of the dataset that the policy was trained on"
        ) from error
    return statistics


def check_statistics(
    option: str, config: PreTrainedConfig, processors: Iterable[PolicyProcessorPipeline], dataset: str | None
) -> None:
    """Raise a UserError unless all that the config normalises has statistics that can.

    LeRobot leaves a feature without statistics as it is, without a word. A processor without any is of a
    policy that was trained so, and nothing is said.

    Args:
        option: of the command line that named the policy.
        dataset: whose statistics the processors have; None of those of the checkpoint.
    """
    mending = f"Take those of the dataset that it was trained on, with --policy.{STATS_FROM}=DATASET"
    if dataset is not None:
        option, mending = (
            f"--policy.{STATS_FROM}={dataset}",
            "Choose the dataset that the policy was trained on",
        )
    for processor in processors:
        for step in processor.steps:
            if not isinstance(step, NormalizerProcessorStep | UnnormalizerProcessorStep):
                continue
            statistics: Statistics = {}
            for name, tensor in step.state_dict().items():
                key, _, statistic = name.rpartition(".")
                statistics.setdefault(key, {})[statistic] = tensor
            of_actions = isinstance(step, UnnormalizerProcessorStep)
            features = {
                key: feature
                for key, feature in step.features.items()
                if feature.type == FeatureType.ACTION or not of_actions
            }
            padded = "max_state_dim" in vars(config)  # its states may be shorter than it says
            if statistics and (reasons := list(_mistakes(statistics, features, step.norm_map, padded))):
                raise UserError(f"{option} has unusable statistics: {'; '.join(reasons[:3])}. {mending}")


def _of_vectors(config: PreTrainedConfig) -> list[str]:
    """Keys of the features that are no images."""
    features = (config.input_features or {}) | (config.output_features or {})
    return [key for key, feature in features.items() if feature.type != FeatureType.VISUAL]


def _missing(config: PreTrainedConfig, key: str, statistics: Statistics) -> bool:
    """Whether a feature lacks a statistic that its normalisation needs."""
    feature = ((config.input_features or {}) | (config.output_features or {}))[key]
    mode = config.normalization_mapping.get(feature.type.value, NormalizationMode.IDENTITY)
    return not set(NEEDED.get(mode, ())) <= statistics.get(key, {}).keys()


def _mistakes(
    statistics: Statistics,
    features: dict[str, PolicyFeature],
    modes: dict[FeatureType, NormalizationMode],
    padded: bool,
) -> Iterator[str]:
    """A clause for each feature whose statistics do not serve."""
    for key, feature in features.items():
        mode = modes.get(feature.type, NormalizationMode.IDENTITY)
        if mode not in NEEDED:
            continue
        own = statistics.get(key, {})
        missing = [name for name in NEEDED[mode] if name not in own]
        if not own:
            yield f"none for {key}, but for {', '.join(sorted(statistics))}"
        elif missing:
            needed = f"{' and '.join(missing)}, which {mode.value} needs"
            yield f"{key} lacks {needed}, and has {', '.join(sorted(own))}"
        else:
            yield from _unusable(key, feature, padded, {name: own[name] for name in NEEDED[mode]})


def _unusable(key: str, feature: PolicyFeature, padded: bool, limits: dict[str, Tensor]) -> Iterator[str]:
    """A clause if the two statistics of a feature are of another size, or mean nothing."""
    shape = tuple(feature.shape)
    for name, value in limits.items():
        fits = value.numel() == 1 or _broadcasts(tuple(value.shape), shape)
        if not fits and not (padded and feature.type == FeatureType.STATE):
            sizes = f"{value.numel()} numbers and the policy's {key} {'x'.join(map(str, shape))}"
            yield f"{key}.{name} has {sizes}, it is of another robot or environment"
            return
        if not value.isfinite().all():
            yield f"{key}.{name} is {value.flatten().tolist()[0]:g}: they were never set"
            return
    first, second = limits.items()
    if second[0] == "std":
        if (second[1] < 0).any() or (key == ACTION and not second[1].any()):
            yield f"{key}.std is {second[1].flatten().tolist()}"
    elif (first[1] > second[1]).any() or (key == ACTION and torch.equal(first[1], second[1])):
        yield f"{key}.{first[0]} is not below {key}.{second[0]}, {second[1].flatten().tolist()}"


def _broadcasts(value: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    try:
        return torch.broadcast_shapes(value, shape) == shape
    except RuntimeError:
        return False
