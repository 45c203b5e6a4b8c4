"""Reading of weights in any layout, and the check that a policy holds what was read."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies import PreTrainedPolicy
from lerobot.policies.factory import get_policy_class
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..utils.errors import StorageFailure, one_line
from .pretrained_files import WEIGHTS
from .statistics import is_buffer

INDEX = "model.safetensors.index.json"
COMPILED = "._orig_mod"  # in the names of what torch.compile wrapped
ROUNDING = 1e-2  # of bfloat16, relative to the largest number that is compared
MOST_NAMED = 3


def files_of(weights: Path) -> list[Path]:
    """The safetensors files: of an index those that it names."""
    if weights.name != INDEX:
        return [weights]
    return [
        weights.parent / name for name in sorted(set(json.loads(weights.read_text())["weight_map"].values()))
    ]


def shapes(weights: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors, from the headers.

    Raises:
        SafetensorError: a file is damaged.
    """
    if weights.suffix not in (".safetensors", ".json"):
        return {name: tuple(tensor.shape) for name, tensor in read(weights).items()}
    out: dict[str, tuple[int, ...]] = {}
    for path in files_of(weights):
        with safe_open(path, "pt") as file:
            out |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    return out


def read(weights: Path, names: Iterable[str] | None = None) -> dict[str, Tensor]:
    """The tensors of these names, or all, on the CPU.

    Raises:
        SafetensorError, RuntimeError: a file is damaged.
    """
    if weights.suffix in (".safetensors", ".json"):
        out = {name: tensor for path in files_of(weights) for name, tensor in load_file(path).items()}
    else:
        stored = torch.load(weights, map_location="cpu", weights_only=True)
        out = {name: tensor.clone() for name, tensor in stored.items()}  # they may share memory
    return out if names is None else {name: out[name] for name in names}


@contextmanager
def in_todays_layout(weights: Path) -> Iterator[Path]:
    """A folder with one model.safetensors that has the policy's tensors alone.

    Statistics that lie among them are left out, several files become one, and so does a pickle.

    Raises:
        StorageFailure: there is no room for the copy that this takes.
    """
    names = shapes(weights)
    if weights.name == WEIGHTS and not any(is_buffer(name) or COMPILED in name for name in names):
        yield weights.parent
        return
    with TemporaryDirectory(prefix="lerobot_rlft_") as folder:
        tensors = {
            name.replace(COMPILED, ""): tensor.contiguous()
            for name, tensor in read(weights).items()
            if not is_buffer(name)
        }
        try:
            save_file(tensors, Path(folder) / WEIGHTS)
        except (OSError, SafetensorError) as error:
            size = sum(tensor.nbytes for tensor in tensors.values()) / 1e9
            raise StorageFailure(
                f"no copy of {weights} ({size:.1f} GB) can be written to {folder} ({one_line(error)}): name "
                "a folder with room in the variable TMPDIR"
            ) from error
        del tensors
        yield Path(folder)


def check_loaded(module: PreTrainedPolicy, weights: Path) -> None:
    """Compare a policy's tensors with those of its file: pi0 and pi05 stay random where loading fails.

    Of each tensor one row is compared, with that of the tensor of its name, else, as families rename some,
    with those of its shape.

    Raises:
        ValueError: the policy holds others; names them.
    """
    with safe_open(weights, "pt") as file:
        by_shape: dict[tuple[int, ...], list[str]] = {}
        for name in file.keys():  # noqa: SIM118
            by_shape.setdefault(tuple(file.get_slice(name).get_shape()), []).append(name)
        others = []
        for name, tensor in module.state_dict().items():
            candidates = by_shape.get(tuple(tensor.shape), [])
            likely = [n for n in (name, name.removeprefix("model.")) if n in candidates]
            if not any(_same(tensor, _row(file, n)) for n in [*likely, *candidates]):
                others.append(name)
    if others:
        raise ValueError(f"LeRobot did not load {listed(others)} from {weights.name}")


def misfit(config: PreTrainedConfig, weights: Path) -> str:
    """The difference between weights and the policy of a config in words; empty where they fit."""
    policy_class = get_policy_class(config.type)
    try:
        with torch.device("meta"):  # names and shapes without memory
            module = policy_class(config)
    except Exception:  # of whatever the family computes while it is built
        module = policy_class(config)
    stored = shapes(weights)
    state = module.state_dict(keep_vars=True)
    tied = {id(tensor) for name, tensor in state.items() if name in stored}
    own = {name: tuple(tensor.shape) for name, tensor in state.items()}
    missing = [name for name in own if name not in stored and id(state[name]) not in tied]
    surplus = [name for name in stored if name not in own]
    changed = [name for name in own if name in stored and own[name] != stored[name]]
    if len(missing) > len(own) / 2:
        return (
            f"its weights are of another family: they hold {listed(surplus)}, policy.type="
            f"{config.type} has {listed(missing)}"
        )
    parts = []
    if changed:
        name = changed[0]
        parts.append(f"{listed(changed)}: {name} is {stored[name]}, by its config {own[name]}")
    if missing:
        parts.append(f"its weights lack {listed(missing)}")
    if surplus:
        parts.append(f"its weights hold {listed(surplus)}, which policy.type={config.type} has not")
    return "; ".join(parts)


def listed(names: list[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _row(file: safe_open, name: str) -> Tensor:
    """The middle row of a stored tensor, or all of a vector; the first of an embedding may be zeros."""
    part = file.get_slice(name)
    rows, *rest = part.get_shape() or [0]
    return part[rows // 2 : rows // 2 + 1] if rest else file.get_tensor(name)


def _same(own: Tensor, stored: Tensor) -> bool:
    """Whether a tensor has this row, but for the rounding of a narrower number format."""
    own = (own[len(own) // 2 :][:1] if own.ndim > 1 else own).detach().cpu().double()
    stored = stored.double()
    scale = float(stored.abs().max()) if stored.numel() else 0.0
    return torch.allclose(own, stored, rtol=0, atol=ROUNDING * scale, equal_nan=True)
