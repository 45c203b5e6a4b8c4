"""The value of a round: fitted to realised returns, checked on held-out episodes, kept as plain files.

Where modes are to be kept it is told the mode that an episode attempts, and an advantage then says how well
an action serves its mode. A value of the observation alone pays for turning towards modes that go better,
which is how modes are lost.

`value/` holds value.safetensors, value.json (how to read it), calibration.json (numbers below) and
calibration.png. Shapes: F frames, C features, M modes that the value is told apart, 0 where it is told none.

calibration.json: `frames` and `episodes` held out; `mae` between predicted and realised return, their
`correlation`, `explained_variance`; `calibration_error`, the mean distance of the two in tenths of the
frames, ordered by prediction, whose means are `predicted` and `realised`.
"""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..datasets.recorded import Recorded
from ..datasets.windows import Batch
from ..policies.base import DenoisingPolicy
from ..utils.errors import UserError, one_line
from ..utils.files import make_folder, replacing
from ..utils.optimization import check_finite
from ..utils.pictures import pyplot
from .configuration import ValueConfig
from .distributional import DistributionalValue
from .networks import explained_variance

TENSORS, JSON, CALIBRATION = "value.safetensors", "value.json", "calibration.json"
ENCODE_BATCH = 512
PARTS = 10


class Value(nn.Module):
    """V of an observation: features of the policy, or the state, and a distribution on top.

    Args:
        config: see there.
        policy: its features; frozen, or copied where the encoder is trained along.
        num_modes: M.

    Raises:
        ValueError: the input does not fit the policy.
    """

    def __init__(self, config: ValueConfig, policy: DenoisingPolicy, num_modes: int = 0) -> None:
        super().__init__()
        self.config, self.policy, self.num_modes = config, policy, num_modes
        features = policy.module.config.input_features
        self.keys = sorted(key for key, feature in features.items() if len(feature.shape) == 1)
        if config.input == "images":
            if policy.encoder is None:
                raise ValueError(
                    "algorithm.value.input=images needs a policy that sees images: choose features or state"
                )
            self.policy = policy.copy_encoder()
            self.encoder = self.policy.encoder.requires_grad_(True)
        size = policy.feature_dim
        if config.input == "state":
            size = sum(features[key].shape[0] for key in self.keys) * policy.n_obs_steps
        size += num_modes
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))
        self.head = DistributionalValue(size, config.hidden_dims)
        self.to(policy.kernel.timesteps.device)

    @property
    def trains_encoder(self) -> bool:
        """Whether features change while it is fitted, so that they cannot be computed once."""
        return self.config.input == "images"

    def encode(self, batch: Batch, mode: Tensor) -> Tensor:
        """Input of the head for a batch of windows, (B, C), told the mode (B,) of each; -1 is none."""
        obs = observations(batch, self.policy)
        if self.config.input == "state":
            features = torch.cat([obs[key].flatten(1) for key in self.keys], 1).to(self.mean)
        else:
            features = self.policy.features(self.policy.encode(obs))
        one_hot = mode.to(features.device)[:, None] == torch.arange(self.num_modes, device=features.device)
        return torch.cat([features, one_hot.to(features)], 1)

    def normalise(self, features: Tensor) -> None:
        """Read features in units of their spread over these frames (F, C)."""
        self.mean.copy_(features.mean(0))
        spread = features.std(0)
        self.std.copy_(torch.where(spread > 1e-6, spread, 1.0))

    def forward(self, features: Tensor) -> Tensor:
        """(B, C) -> (B,)"""
        return self.head((features - self.mean) / self.std)

    def loss(self, features: Tensor, target: Tensor) -> Tensor:
        return self.head.loss((features - self.mean) / self.std, target)


def observations(batch: Batch, policy: DenoisingPolicy) -> dict[str, Tensor]:
    """The policy's observations of a batch of windows, each (B, n_obs_steps, ...)."""
    keys = policy.module.config.input_features
    obs = {key: batch[key] for key in keys if key in batch}
    if policy.module.config.observation_delta_indices is None:  # a family without history
        obs = {key: value[:, None] for key, value in obs.items()}
    return obs


def attempted(data: Recorded) -> Tensor:
    """(F,) long, the mode of each frame's episode."""
    return torch.from_numpy(data.mode[data.episode]).long()


@torch.no_grad()
def encode_all(value: Value, data: Recorded) -> Tensor:
    """(F, C) on the CPU."""
    rows = torch.arange(len(data.windows)).split(ENCODE_BATCH)
    modes = attempted(data).split(ENCODE_BATCH)
    batches = zip(data.windows.batches(rows), modes, strict=True)
    return torch.cat([value.encode(batch, mode).cpu() for batch, mode in batches])


def fit_value(
    value: Value,
    datasets: list[Recorded],
    targets: list[np.ndarray],
    seed: int,
    step: Callable[[int, float], None] = lambda number, loss: None,
) -> dict[str, Any]:
    """Fit to returns, NaN where unknown, (F,) for each dataset; returns the calibration.

    Args:
        step: called after every gradient step with its number and loss.

    Raises:
        ValueError: there are fewer than two episodes with a known return.
        FloatingPointError: the loss is NaN or inf.
    """
    config, device = value.config, value.mean.device
    generator = torch.Generator().manual_seed(seed)
    offsets = np.cumsum([0] + [len(d.success) for d in datasets])
    episode = np.concatenate([d.episode + offset for d, offset in zip(datasets, offsets, strict=False)])
    target = torch.from_numpy(np.concatenate(targets)).float()
    has_return = ~target.isnan()
    numbers = np.unique(episode[has_return.numpy()])
    if len(numbers) < 2:
        raise ValueError(f"a value needs at least 2 episodes with a known outcome, there are {len(numbers)}")
    count = min(max(1, round(config.held_out * len(numbers))), len(numbers) - 1)
    test_episodes = numbers[torch.randperm(len(numbers), generator=generator)[:count].numpy()]
    is_held = torch.from_numpy(np.isin(episode, test_episodes))
    train, test = (has_return & ~is_held).nonzero()[:, 0], (has_return & is_held).nonzero()[:, 0]
    features = torch.cat([encode_all(value, d) for d in datasets])
    value.normalise(features[train].to(device))
    starts = np.cumsum([0] + [len(d.windows) for d in datasets])
    optimizer = torch.optim.AdamW([p for p in value.parameters() if p.requires_grad], lr=config.lr)
    value.train()
    for number in range(config.steps):
        rows = train[torch.randint(len(train), (config.batch_size,), generator=generator)]
        if value.trains_encoder:
            rows = rows.sort().values
            parts = [rows[(rows >= a) & (rows < b)] - a for a, b in itertools.pairwise(starts)]
            inputs = torch.cat(
                [
                    value.encode(d.windows.batch(p), attempted(d)[p])
                    for d, p in zip(datasets, parts, strict=True)
                    if len(p)
                ]
            )
        else:
            inputs = features[rows].to(device)
        loss = value.loss(inputs, target[rows].to(device))
        check_finite("the loss of the value", loss, f"lower algorithm.value.lr={config.lr}")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        step(number + 1, loss.item())
    value.eval().requires_grad_(False)
    predictions = predict_all(value, datasets, None if value.trains_encoder else features)
    out = calibration(torch.from_numpy(np.concatenate(predictions))[test].float(), target[test])
    return {"frames": len(test), "episodes": count, **out}


@torch.no_grad()
def predict_all(value: Value, datasets: list[Recorded], features: Tensor | None = None) -> list[np.ndarray]:
    """V of every frame, (F,) for each dataset.

    Args:
        features: those of all datasets one after the other, where they are known already.
    """
    if features is None:
        features = torch.cat([encode_all(value, d) for d in datasets])
    values = torch.cat([value(part.to(value.mean.device)).cpu() for part in features.split(4096)])
    return [part.numpy() for part in values.split([len(d.windows) for d in datasets])]


def calibration(predicted: Tensor, realised: Tensor) -> dict[str, Any]:
    """Distance of predicted returns (F,) from realised ones; see the file's docstring."""
    order = predicted.argsort()
    tenths = [(predicted[part].mean().item(), realised[part].mean().item()) for part in order.chunk(PARTS)]
    both = torch.stack([predicted, realised])
    varies = len(predicted) > 1 and bool((both.std(1) > 1e-8).all())
    return {
        "mae": (predicted - realised).abs().mean().item(),
        "correlation": torch.corrcoef(both)[0, 1].item() if varies else 0.0,
        "explained_variance": explained_variance(predicted, realised),
        "calibration_error": float(np.mean([abs(a - b) for a, b in tenths])),
        "predicted": [a for a, _ in tenths],
        "realised": [b for _, b in tenths],
    }


def save_value(folder: Path, value: Value, how: dict[str, Any], numbers: dict[str, Any]) -> None:
    """Write a value with its calibration; the folder appears once it is whole.

    Args:
        how: what returns it predicts, for `load_value` to compare.
    """
    prefixes = () if value.trains_encoder else ("policy.",)
    tensors = {k: v.contiguous() for k, v in value.state_dict().items() if not k.startswith(prefixes or "-")}
    make_folder(folder.parent)
    with replacing(folder) as partial:
        partial.mkdir()
        save_file(tensors, partial / TENSORS)
        (partial / JSON).write_text(json.dumps(how, indent=2) + "\n")
        (partial / CALIBRATION).write_text(json.dumps(numbers, indent=2) + "\n")
        draw_calibration(partial / "calibration.png", numbers)


def load_value(folder: Path, value: Value, how: dict[str, Any]) -> None:
    """Read the weights that `save_value` wrote into `value`.

    Raises:
        UserError: they are missing, damaged, or of another configuration.
    """
    again = f"delete {folder} and run --algorithm.stage=value again"
    try:
        source = json.loads((folder / JSON).read_text())
        if source != json.loads(json.dumps(how)):
            raise UserError(f"the value in {folder} was fitted for {source}, not for {how}: {again}")
        value.load_state_dict(load_file(folder / TENSORS))
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"the value in {folder} is missing or damaged ({one_line(error)}): {again}"
        ) from error
    value.eval().requires_grad_(False)


def draw_calibration(path: Path, numbers: dict[str, Any]) -> None:
    """Predicted against realised return, in tenths of the held-out frames."""
    figure, axis = pyplot().subplots(figsize=(4, 4))
    axis.plot([-1, 0], [-1, 0], color="0.7", lw=1)
    axis.plot(numbers["predicted"], numbers["realised"], marker="o", ms=4)
    axis.set_xlabel("predicted return")
    axis.set_ylabel("realised return")
    axis.set_title(
        f"{numbers['episodes']} held-out episodes, error {numbers['calibration_error']:.3f}, "
        f"explained variance {numbers['explained_variance']:.2f}",
        fontsize=8,
    )
    axis.grid(alpha=0.3)
    figure.tight_layout()
    with replacing(path) as partial:
        figure.savefig(partial, dpi=110)
    pyplot().close(figure)
