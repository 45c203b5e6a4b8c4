"""Loading of LeRobot checkpoints as a `DenoisingPolicy`."""

import io
from contextlib import redirect_stdout
from pathlib import Path

import torch
from httpx import HTTPError
from huggingface_hub.errors import EntryNotFoundError
from lerobot.configs import PreTrainedConfig
from lerobot.datasets import LeRobotDatasetMetadata
from lerobot.policies import PreTrainedPolicy, make_policy, make_pre_post_processors
from lerobot.policies.factory import get_policy_class
from lerobot.processor import PolicyProcessorPipeline, hotswap_stats
from lerobot.processor.pipeline import ProcessorMigrationError
from safetensors import SafetensorError

from ..utils.errors import UserError, one_line
from . import load_adapters
from .base import DenoisingPolicy, Exploration, adapter_class
from .layouts import PretrainedFiles, check_processed, find_files
from .lora import merge_adapters
from .pretrained_files import WEIGHTS, pinned
from .statistics import (
    check_statistics,
    complete_modes,
    dataset_statistics,
    statistics_from,
    statistics_in,
)
from .weights import check_loaded, in_todays_layout, misfit, read


def load_pretrained(
    config: PreTrainedConfig, path: str | Path, exploration: Exploration, trust: bool = False
) -> DenoisingPolicy:
    """Load weights and processors from a folder or the Hub.

    Args:
        config: the policy's config, with the overrides of this run.
        path: Hub id or folder with model.safetensors and the two processors.
        exploration: see there.
        trust: read pickled weights where there are no others, and run processor steps that are not LeRobot's.

    Raises:
        UserError: unknown policy type, or the checkpoint is missing, corrupt, not safe, or does not fit its
            config.
    """
    load_adapters()
    try:
        adapter = adapter_class(config.type)
    except ValueError as error:
        raise UserError(str(error)) from error
    option = f"--policy.path={path}"
    try:
        # Here, and not only where options are read: checkpoints are named by configs and runs, too.
        files = find_files(option, str(path), pinned(str(path), config.pretrained_revision), trust)
        module = load_module(config, files)
        preprocessor, postprocessor = load_processors(option, config, files)
    except UserError:
        raise
    except (OSError, EntryNotFoundError, HTTPError, SafetensorError, RuntimeError, ValueError) as error:
        raise UserError(
            f"{path} is not a whole checkpoint that fits its config.json "
            f"({one_line(error)}): download or save it again"
        ) from error
    return adapter(module, preprocessor, postprocessor, exploration)


def load_module(config: PreTrainedConfig, files: PretrainedFiles) -> PreTrainedPolicy:
    """The policy itself, on its device; adapters are merged into the policy that they belong to.

    Raises:
        UserError: the weights do not fit the config; see `load_pretrained` for the other errors.
    """
    config.use_peft = False  # adapters are told by their files, and merged
    if files.base is not None:
        return merge_adapters(load_module(config, files.base), files.weights.parent)
    policy_class = get_policy_class(config.type)
    with in_todays_layout(files.weights) as folder:
        try:
            module = policy_class.from_pretrained(str(folder), config=config, strict=True)
            check_loaded(module, folder / WEIGHTS)
        except (RuntimeError, ValueError) as error:
            if not (reason := misfit(config, folder / WEIGHTS)):
                raise
            raise UserError(
                f"{files.path} is not a whole checkpoint that fits its config.json ({reason}): leave options "
                "out that change the network, or take config.json and weights from the same checkpoint"
            ) from error
    return module


def load_processors(
    option: str, config: PreTrainedConfig, files: PretrainedFiles
) -> tuple[PolicyProcessorPipeline, PolicyProcessorPipeline]:
    """Pre- and postprocessor, of old weights made from the statistics inside them.

    Raises:
        UserError: there are no usable statistics; see `load_pretrained` for the other errors.
    """
    source = files.processed
    dataset = statistics_from(config) if files.path == str(config.pretrained_path) else None
    check_processed(option, files, dataset)
    if source.processors is None:
        features = (config.input_features or {}) | (config.output_features or {})
        statistics = statistics_in(read(source.weights, source.buffers), features)
        if dataset is not None:
            statistics = dataset_statistics(config, dataset)
        complete_modes(config, statistics)
        processors = make_pre_post_processors(config, dataset_stats=statistics)
    else:
        device = {"device_processor": {"device": config.device}}
        processors = make_pre_post_processors(
            config, source.path, source.revision, preprocessor_overrides=device
        )
        if dataset is not None:
            statistics = dataset_statistics(config, dataset)
            processors = tuple(hotswap_stats(processor, statistics) for processor in processors)
    check_statistics(option, config, processors, dataset)
    return processors


def make_fresh(
    config: PreTrainedConfig, meta: LeRobotDatasetMetadata, exploration: Exploration
) -> DenoisingPolicy:
    """A policy with random weights, its features and normalisation from a dataset.

    Raises:
        UserError: unknown policy type, or the config does not fit the dataset.
    """
    load_adapters()
    try:
        adapter = adapter_class(config.type)
        module = make_policy(config, ds_meta=meta)
    except ValueError as error:
        raise UserError(f"policy.type={config.type} cannot be built: {error}") from error
    return adapter(module, *make_pre_post_processors(config, dataset_stats=meta.stats), exploration)


DEFAULT_EXPLORATION = Exploration()


def load_policy(
    config: PreTrainedConfig,
    path: str | Path,
    exploration: Exploration = DEFAULT_EXPLORATION,
    trust: bool = False,
) -> DenoisingPolicy:
    """`load_pretrained`, with a chunk that is long enough.

    Args:
        exploration: the sampler of collection; the deployed one does not depend on it.
        trust: read pickled weights where there are no others.

    Raises:
        UserError: unknown policy type, or the checkpoint is missing, corrupt, or does not fit its config.
    """
    try:
        with redirect_stdout(io.StringIO()):  # LeRobot prints that it loads
            policy = load_pretrained(config, path, exploration, trust)
    except (ProcessorMigrationError, KeyError, ImportError, TypeError) as error:
        raise UserError(
            f"--policy.path={path} has unusable processors ({one_line(error)}): download it again, or save "
            "it again with this version of LeRobot; policy_preprocessor.json and policy_postprocessor.json "
            "belong to it"
        ) from error
    check_chunk(policy)
    return policy


def check_chunk(policy: DenoisingPolicy) -> None:
    """Raise a UserError if the policy is to execute more actions than it predicts.

    Stock LeRobot then decides earlier than configured, without a word.
    """
    steps = policy.module.config.n_action_steps
    most = policy.executed(torch.empty(1, policy.horizon, policy.action_dim)).shape[1]
    if not 1 <= steps <= most:
        raise UserError(
            f"policy.n_action_steps={steps} does not fit policy.horizon={policy.horizon} with "
            f"policy.n_obs_steps={policy.n_obs_steps}: choose 1 to {most}"
        )
