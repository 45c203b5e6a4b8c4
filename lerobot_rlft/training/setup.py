"""The parts of a run, built from its config; every input is checked here, before anything is written."""

import hashlib
import io
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path

import torch
from accelerate import Accelerator
from httpx import HTTPError
from lerobot.utils.constants import ACTION, LAST_CHECKPOINT_LINK, PRETRAINED_MODEL_DIR
from torch import Tensor

from ..algorithms.base import Algorithm, Optimization, Parts
from ..configs.pretrained import load_policy_config
from ..configs.train import TrainConfig
from ..datasets.loader import BatchLoader, make_loader
from ..policies.base import ADAPTER, DenoisingPolicy
from ..policies.loading import check_chunk, load_policy, make_fresh
from ..policies.lora import add_adapters
from ..policies.rlft_commanded.adapter import COMMANDED
from ..policies.rlft_commanded.commands import COMMAND, UNCOMMANDED
from ..regularizers.base import Regularizer, RegularizerConfig
from ..regularizers.rehearsal import Rehearsal, RehearsalConfig
from ..utils.errors import UserError, one_line


def make_accelerator(config: TrainConfig) -> Accelerator:
    """Raises a UserError where several processes were launched."""
    # Not left to ACCELERATE_MIXED_PRECISION: it would scale losses that nothing unscales.
    accelerator = Accelerator(cpu=config.policy.device == "cpu", mixed_precision="no")
    if accelerator.num_processes > 1:
        raise UserError(
            f"started as {accelerator.num_processes} processes: several processes are not supported yet, "
            "launch one"
        )
    return accelerator


def make_batches(config: TrainConfig) -> BatchLoader | None:
    """The dataset's batches; None for an algorithm that learns from rollouts.

    Raises:
        UserError: the dataset is missing, corrupt, or does not fit the policy.
    """
    if config.algorithm.consumes != "batch":
        return None
    try:
        return make_loader(
            config.dataset.repo_id,
            config.policy,
            root=config.dataset.root,
            episodes=config.dataset.episodes,
            batch_size=config.algorithm.batch_size,
            seed=config.seed,
            num_workers=config.algorithm.num_workers,
        )
    except (ValueError, OSError, HTTPError) as error:
        raise UserError(f"dataset: {error}") from error


def make_policy(config: TrainConfig, checkpoint: Path | None, batches: BatchLoader | None) -> DenoisingPolicy:
    """The policy to train: of a checkpoint, of `--policy.path`, or fresh for the dataset.

    Args:
        checkpoint: the run's own, to resume from; None at the start of a run.

    Raises:
        UserError: see `load_policy`.
    """
    exploration = config.algorithm.exploration
    if config.peft is not None:
        # Also to resume: a checkpoint has the adapters merged, and the training state has them apart.
        policy = load_policy(
            config.policy, config.policy.pretrained_path, exploration, config.trust_remote_code
        )
        try:
            add_adapters(policy, asdict(config.peft))
        except ImportError as error:
            raise UserError(f"peft trains adapters and needs the package peft: {one_line(error)}") from error
        return policy
    if checkpoint is not None:
        folder = checkpoint / PRETRAINED_MODEL_DIR
        try:
            trust = config.trust_remote_code
            policy_config = load_policy_config(str(folder), [f"--device={config.policy.device}"], trust=trust)
            kind = COMMANDED if config.algorithm.commanded else config.policy.type
            if policy_config.type != kind:
                raise UserError(f"it holds a policy of type {policy_config.type} instead of {kind}")
            if kind == COMMANDED:
                policy_config.pretrained_path = None  # as when the run began
                return config.algorithm.wrap(load_policy(policy_config, folder, exploration, trust))
            return load_policy(config.policy, folder, exploration, trust)
        except UserError as error:
            raise UserError(
                f"--resume={config.resume}: checkpoint {checkpoint} does not belong to this run or is "
                f"damaged ({error}). Put it back, or let {checkpoint.parent / LAST_CHECKPOINT_LINK} point to "
                "another one"
            ) from error
    if config.policy.pretrained_path is not None:
        trust = config.trust_remote_code
        policy = load_policy(config.policy, config.policy.pretrained_path, exploration, trust)
        return config.algorithm.wrap(policy)
    with redirect_stdout(io.StringIO()):
        policy = make_fresh(config.policy, batches.dataset.meta, exploration)
    check_chunk(policy)
    return policy


def make_base(config: TrainConfig, policy: DenoisingPolicy) -> DenoisingPolicy:
    """The frozen pretrained policy: the original one, although after a resume `policy` is the run's.

    Raises:
        UserError: it is no longer where it was.
    """
    config.algorithm.freeze(policy)  # the base shares what stays frozen
    if config.resume is None or config.peft is not None:  # adapters start without effect, resumed or not
        return policy.frozen_copy()
    else:
        path = config.policy.pretrained_path
        try:
            trust = config.trust_remote_code
            base = load_policy(deepcopy(config.policy), path, config.algorithm.exploration, trust)
            base = config.algorithm.wrap(base)
        except UserError as error:
            here = "" if Path(path).is_absolute() else f" seen from {Path.cwd()}"
            raise UserError(
                f"the base policy of this run is not at {path}{here}: put it back, or name its new place "
                f"with --policy.pretrained_path=FOLDER ({error})"
            ) from error
    base.module.requires_grad_(False)
    base.task = policy.task
    for own, theirs in zip(policy.module.parameters(), base.module.parameters(), strict=True):
        if not own.requires_grad and torch.equal(own, theirs):
            theirs.data = own.data
    return base


def fingerprint(policy: DenoisingPolicy) -> str:
    """A hash of all weights, adapters aside."""
    digest = hashlib.sha256()
    for name, tensor in policy.module.state_dict().items():
        if ADAPTER in name:
            continue
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def make_algorithm(
    config: TrainConfig,
    policy: DenoisingPolicy,
    base: DenoisingPolicy | None,
    backward: Callable[[Tensor], None],
) -> Algorithm:
    """The algorithm, bound to the policy it trains.

    Args:
        base: see `make_base`; None for an algorithm that learns from a dataset.

    Raises:
        UserError: an option does not fit the policy.
    """
    parts = Parts(
        policy,
        base,
        backward,
        regularizers=lambda options: make_regularizers(config, options, policy, base),
        optimization=lambda: make_optimization(config, policy),
    )
    try:
        return config.algorithm.build(parts)
    except ValueError as error:
        raise UserError(str(error)) from error


def make_optimization(config: TrainConfig, policy: DenoisingPolicy) -> Optimization:
    """Optimizer and learning-rate schedule of the policy's presets, for `iterations` gradient steps."""
    optimizer = config.policy.get_optimizer_preset().build(policy.module.get_optim_params())
    schedule = config.policy.get_scheduler_preset()
    return optimizer, schedule and schedule.build(optimizer, config.iterations)


def make_regularizers(
    config: TrainConfig,
    configs: Sequence[RegularizerConfig],
    policy: DenoisingPolicy,
    base: DenoisingPolicy,
) -> dict[str, Regularizer]:
    """The regularizers of these options, by their type; a second of a type is called type#2.

    Raises:
        UserError: one does not fit the policy, or a reference or the demonstrations cannot be read.
    """

    def load(path: str) -> DenoisingPolicy:
        trust, device = config.trust_remote_code, f"--device={config.policy.device}"
        reference = load_policy_config(path, [device], "references", trust)
        exploration = config.algorithm.exploration
        anchor = load_policy(reference, reference.pretrained_path, exploration, trust)
        anchor.task = policy.task
        return anchor

    regularizers: dict[str, Regularizer] = {}
    for options in configs:
        same = sum(name.partition("#")[0] == options.type for name in regularizers)
        name = f"{options.type}#{same + 1}" if same else options.type
        try:
            regularizers[name] = options.build(policy, base, load)
        except ValueError as error:
            raise UserError(f"algorithm.regularizers: {error}") from error
        if isinstance(options, RehearsalConfig) and options.source == "demonstrations" and not config.resume:
            remember_demonstrations(config, policy, regularizers[name])
    return regularizers


def remember_demonstrations(config: TrainConfig, policy: DenoisingPolicy, rehearsal: Rehearsal) -> None:
    """Hand windows of `dataset` to a rehearsal, as many as it keeps, spread over all episodes.

    Raises:
        UserError: there is no dataset, it cannot be read, or it does not fit the policy.
    """
    dataset, capacity = config.dataset, rehearsal.config.capacity
    if not dataset.repo_id:
        raise UserError(
            "algorithm.regularizers: source=demonstrations of regularizer rehearsal needs a dataset: give "
            "--dataset.repo_id=HUB_ID, or --dataset.repo_id=local/name --dataset.root=FOLDER"
        )
    try:
        loader = make_loader(
            dataset.repo_id,
            config.policy,
            root=dataset.root,
            episodes=dataset.episodes,
            batch_size=min(capacity, 256),
            seed=config.seed,
        )
        for _ in range(min(-(-capacity // 256), -(-len(loader.starts) // 256))):
            batch = next(loader)
            obs = {key: batch[key] for key in config.policy.input_features}
            obs = {k: (v * 255).round().to(torch.uint8) if v.ndim == 5 else v for k, v in obs.items()}
            if config.algorithm.commanded:  # nobody asked for them
                obs[COMMAND] = torch.full((len(batch[ACTION]), 1), UNCOMMANDED)
            rehearsal.remember(obs, policy.preprocessor(batch).get(ACTION), None)
    except (ValueError, KeyError, OSError, HTTPError) as error:
        raise UserError(f"dataset: {one_line(error)}") from error
