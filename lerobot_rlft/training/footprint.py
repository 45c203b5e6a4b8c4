"""Memory that a policy of any size takes, told before there are weights: it is built on the meta device,
where tensors have shapes and no data, and what forward and backward pass would allocate is counted there."""

import contextlib
import io
import weakref
from collections.abc import Iterable
from copy import copy, deepcopy
from dataclasses import asdict, dataclass
from textwrap import indent

import torch
from lerobot.configs import FeatureType
from lerobot.configs.default import PeftConfig
from lerobot.envs import env_to_policy_features
from lerobot.policies.factory import get_policy_class
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..configs.train import TrainConfig
from ..policies import load_adapters
from ..policies.base import DenoisingPolicy, Exploration, adapter_class
from ..policies.lora import add_adapters
from ..utils.errors import UserError, one_line
from ..utils.tables import plain_table

STORED = {True: 1, False: 4}  # bytes of a number, of pictures and of everything else


@dataclass(frozen=True)
class Footprint:
    """Numbers of parameters, and bytes of everything else.

    Attributes:
        parameters, trainable: how many.
        weights: of the policy.
        base: of the frozen base beside it, which shares what is not trained.
        gradients, optimizer: of what is trained; AMSGrad has three moments.
        activations: what one minibatch takes at its peak, with the conditions of its rows.
        condition: of one decision, encoded once and kept while an iteration is learned from; 0 where the
            encoder is trained, too.
    """

    parameters: int
    trainable: int
    weights: int
    base: int
    gradients: int
    optimizer: int
    activations: int
    condition: int

    @property
    def update(self) -> int:
        """Bytes of an update, without the conditions of the iteration's decisions."""
        return self.weights + self.base + self.gradients + self.optimizer + self.activations


def footprint(policy: DenoisingPolicy, minibatch: int, train_encoder: bool | None) -> Footprint:
    """Count what an update of DPPO takes; on the meta device this allocates nothing.

    Args:
        policy: frozen here according to `train_encoder`.
        minibatch: (decision, denoising step) pairs.
        train_encoder: see `DPPOConfig`.
    """
    policy.freeze(train_encoder)
    parameters = list(policy.module.parameters())
    trainable = [p for p in parameters if p.requires_grad]
    with next(policy.module.parameters()).device, torch.no_grad():
        one = policy.example_condition(1)
    again, live = policy.encoder_trained(train_encoder), Live()
    # The device is the default, too: networks make small tensors on the default device.
    with one.device, live:
        condition = policy.example_condition(minibatch) if again else one.new_empty(minibatch, one.shape[1])
        x = torch.zeros(minibatch, policy.horizon, policy.action_dim, device=one.device)
        time = policy.kernel.timesteps[:1].to(one.device).expand(minibatch)
        loss = policy.predict(x, time, condition).square().mean()
        forward = live.now
        loss.backward()
    policy.module.zero_grad(set_to_none=True)
    size = _bytes(trainable)
    return Footprint(
        parameters=sum(p.numel() for p in parameters),
        trainable=sum(p.numel() for p in trainable),
        weights=_bytes(parameters) + _bytes(policy.module.buffers()),
        base=size,
        gradients=size,
        optimizer=3 * size,
        # A forward pass runs beside the gradients of the minibatch before it.
        activations=max(forward, live.peak - size),
        condition=0 if again else _bytes([one]),
    )


class Live(TorchDispatchMode):
    """Bytes of all storages that were made inside and still live.

    Attributes:
        now, peak: bytes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        inputs = {s._cdata for s in _storages((args, kwargs))}
        out = func(*args, **(kwargs or {}))
        for storage in _storages(out):
            key = storage._cdata
            if key not in inputs and key not in self._seen:
                self._seen.add(key)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._free, key, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return out

    def _free(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


def _storages(tree: object) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def without_weights(config: TrainConfig) -> DenoisingPolicy:
    """The policy of `--policy.type` on the meta device. Nothing is downloaded for pi0 and pi05; smolvla asks
    for the configuration of its language model.

    Raises:
        UserError: the type is unknown, or the policy cannot be built or lacks its features.
    """
    load_adapters()
    policy = deepcopy(config.policy)
    policy.device = "meta"
    try:
        adapter = adapter_class(policy.type)
        _add_features(config, policy)
        with contextlib.redirect_stdout(io.StringIO()), torch.device("meta"):
            module = get_policy_class(policy.type)(policy)
        return adapter(module, None, None, Exploration())
    except (ValueError, ImportError, OSError) as error:
        raise UserError(f"policy.type={policy.type} cannot be built: {one_line(error)}") from error


def on_meta(policy: DenoisingPolicy) -> DenoisingPolicy:
    """A copy of a policy without its weights."""
    without: dict[int, Tensor] = {}
    for tensor in (*policy.module.parameters(), *policy.module.buffers()):
        blank = tensor.detach().to("meta")
        is_parameter = isinstance(tensor, nn.Parameter)
        without[id(tensor)] = nn.Parameter(blank, tensor.requires_grad) if is_parameter else blank
    twin = copy(policy)
    twin.module = deepcopy(policy.module, without)
    return twin


def stored_decision(policy: DenoisingPolicy) -> int:
    """Bytes of a decision while it is collected: observations, chain and log-probabilities."""
    observation = sum(
        STORED[f.type is FeatureType.VISUAL] * torch.Size(f.shape).numel() * policy.n_obs_steps
        for f in policy.module.config.input_features.values()
    )
    steps = policy.kernel.num_steps
    return observation + 4 * ((steps + 1) * policy.horizon * policy.action_dim + steps)


def _add_features(config: TrainConfig, policy) -> None:  # type: ignore[no-untyped-def]
    """Fill what a fresh policy takes from a dataset: the environment's features, or assumed ones."""
    if config.env is not None:
        features = env_to_policy_features(config.env)
        policy.output_features = {k: f for k, f in features.items() if f.type is FeatureType.ACTION}
        policy.input_features = {k: f for k, f in features.items() if f.type is not FeatureType.ACTION}
    elif not policy.input_features:
        adapter_class(policy.type).assume_features(policy)


def plan(config: TrainConfig) -> str:
    """Memory that a run of `--policy.type` would take, for each choice of what is trained.

    Raises:
        UserError: see `without_weights`.
    """
    algorithm = config.algorithm
    size = algorithm.minibatch_size
    policy = without_weights(config)
    try:
        rows = {"full": footprint(policy, size, True)}
    except (ValueError, RuntimeError) as error:  # RuntimeError: an operation that depends on data
        raise UserError(
            f"policy.type={config.policy.type} cannot be counted without weights: {one_line(error)}"
        ) from error
    note = ""
    if policy.encoder is not None:
        rows["expert only"] = footprint(policy, size, False)
    if config.peft is not None or policy.module._get_default_peft_targets() is not None:
        peft = config.peft or PeftConfig()
        try:
            add_adapters(policy, asdict(peft))
            rows[f"LoRA r={peft.r}"] = footprint(policy, size, False)
        except ImportError:
            note = "\nLoRA        pip install peft to see its sizes"
    first = rows["full"]
    cache = rows.get("expert only", first).condition
    inputs = policy.module.config.input_features
    dtype = next(policy.module.parameters()).dtype
    lines = [
        f"policy      {config.policy.type}: {first.parameters:,} parameters, the first {dtype}; inputs "
        + ", ".join(f"{key} {tuple(f.shape)}" for key, f in inputs.items()),
        f"chain       {policy.kernel.num_steps} denoising steps, chunks of {policy.horizon} actions, "
        f"{policy.n_action_steps} executed",
        f"decision    {size_text(stored_decision(policy))} for observation and chain while collected, "
        f"{size_text(cache)} more for the encoded prefix while learned from",
        f"update      of minibatches of {size} (decision, step) pairs (--algorithm.minibatch_size):",
    ]
    table = [["trained", "parameters", "weights", "base", "gradients", "Adam", "activations", "sum"]]
    for name, f in rows.items():
        parts = (f.weights, f.base, f.gradients, f.optimizer, f.activations, f.update)
        table.append([name, f"{f.trainable:,}", *map(size_text, parts)])
    lines.append(indent(plain_table(table, "<" + ">" * 7), "  "))
    return "\n".join(lines) + note + "\nthis was a dry run without weights, nothing was written"


def size_text(count: float) -> str:
    """Bytes in words."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} GiB"
