"""Loading of LeRobot checkpoints as a `DenoisingPolicy`."""

import io
from contextlib import redirect_stdout
from pathlib import Path

import torch
from httpx import HTTPError
from huggingface_hub.errors import EntryNotFoundError
from lerobot.configs import PreTrainedConfig
from lerobot.datasets import LeRobotDatasetMetadata
from lerobot.policies import make_policy, make_pre_post_processors
from lerobot.policies.factory import get_policy_class
from lerobot.processor.pipeline import ProcessorMigrationError
from safetensors import SafetensorError

from ..utils.errors import UserError, one_line
from . import load_adapters
from .base import DenoisingPolicy, Exploration, adapter_class
from .pretrained_files import WEIGHTS, check_own_files, check_safe, fetch_weights, pinned, read_processors


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
    if config.use_peft:
        raise UserError(
            f"{path} holds LoRA adapters of another policy (policy.use_peft=true): merge them first, with "
            "peft's merge_and_unload() and save_pretrained(), or give the policy itself and train adapters "
            "of this run with --peft.r=16"
        )
    try:
        revision = pinned(str(path), config.pretrained_revision)
        # Here, and not only where options are read: checkpoints are named by configs and runs, too.
        check = check_own_files if trust else check_safe
        check(str(path), read_processors(str(path), revision))
        weights = fetch_weights(str(path), revision, trust)
        if weights.name == WEIGHTS:
            output = io.StringIO()
            with redirect_stdout(output):
                module = get_policy_class(config.type).from_pretrained(
                    str(path), config=config, revision=revision, strict=True
                )
            # pi0 and pi05 only print that they could not load, and go on with random weights.
            for line in output.getvalue().splitlines():
                if "Could not load state dict" in line:
                    raise ValueError(line)
        else:
            module = get_policy_class(config.type)(config)
            module.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
            module.to(config.device).eval()
        device = {"device_processor": {"device": config.device}}
        preprocessor, postprocessor = make_pre_post_processors(
            config, str(path), revision, preprocessor_overrides=device
        )
    except UserError:
        raise
    except (OSError, EntryNotFoundError, HTTPError, SafetensorError, RuntimeError, ValueError) as error:
        raise UserError(
            f"{path} is not a whole checkpoint that fits its config.json "
            f"({one_line(error)}): download or save it again"
        ) from error
    return adapter(module, preprocessor, postprocessor, exploration)


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
