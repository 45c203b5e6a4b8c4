"""Behaviour cloning: the policy's own training loss on demonstrations, as in `lerobot-train`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..utils.averaging import WeightAverage
from ..utils.errors import check
from ..utils.optimization import descend
from .base import Algorithm, AlgorithmConfig, Parts


@AlgorithmConfig.register_subclass("bc")
@dataclass
class BCConfig(AlgorithmConfig):
    """The policy's own loss, optimizer preset and learning-rate schedule (`--policy.optimizer_lr`, ...), as
    in stock `lerobot-train`. One iteration is one gradient step.

    Raises:
        ValueError: a field is out of its range.
    """

    consumes = "batch"

    # Training windows in a batch.
    batch_size: int = 64
    # Processes that load batches; 0 = the training process itself.
    num_workers: int = 0
    # Decay of the average of the weights that is evaluated and exported, for example 0.995; null = the last
    # weights.
    ema_decay: float | None = None
    # Largest norm of the gradient, which is clipped to it.
    max_grad_norm: float = 10.0

    def __post_init__(self) -> None:
        check("batch_size", self.batch_size, self.batch_size >= 1, "at least 1")
        check("num_workers", self.num_workers, self.num_workers >= 0, "0 or more")
        check("max_grad_norm", self.max_grad_norm, self.max_grad_norm > 0, "a number > 0")
        ema = self.ema_decay
        check("ema_decay", ema, ema is None or 0 < ema < 1, "a number in (0, 1), for example 0.995, or null")

    def build(self, parts: Parts) -> "BC":
        policy, (optimizer, scheduler) = parts.policy, parts.optimization()
        return BC(self, policy.module, policy.preprocessor, optimizer, scheduler, parts.backward)


class BC(Algorithm):
    """One gradient step for each batch.

    Args:
        config: see there.
        module: a LeRobot policy, `module(batch) -> (loss, info)`.
        preprocess: normalises a batch.
        optimizer, scheduler: from the policy's presets.
        backward: backward pass of a loss, `accelerator.backward`.
    """

    def __init__(
        self,
        config: BCConfig,
        module: nn.Module,
        preprocess: Callable[[dict[str, Any]], dict[str, Any]],
        optimizer: torch.optim.Optimizer,
        scheduler: torch.optim.lr_scheduler.LRScheduler | None,
        backward: Callable[[Tensor], None] = torch.Tensor.backward,
    ) -> None:
        self.config, self.module, self.preprocess, self.backward = config, module, preprocess, backward
        self.optimizer, self.scheduler = optimizer, scheduler
        # Buffers too: the statistics of batch normalisation belong to the weights that they were taken with.
        persistent = module.state_dict().keys()
        weights = [*module.parameters(), *(b for name, b in module.named_buffers() if name in persistent)]
        self.ema = WeightAverage(weights, config.ema_decay) if config.ema_decay else None

    def update(self, data: dict[str, Any]) -> dict[str, float]:
        """Raises FloatingPointError when loss or gradient is NaN or inf, before weights change."""
        self.module.train()
        loss, _ = self.module(self.preprocess(data))
        advice = (
            "lower --policy.optimizer_lr, or check the dataset's statistics (a feature with an extreme range)"
        )
        what, lr = f"algorithm.type={self.config.type}", self.optimizer.param_groups[0]["lr"]
        norm = descend(loss, self.optimizer, self.backward, self.config.max_grad_norm, what, advice)
        if self.scheduler is not None:
            self.scheduler.step()
        if self.ema is not None:
            self.ema.update()
        self.module.eval()
        return {"loss": loss.item(), "grad_norm": norm, "lr": lr}

    def progress(self, metrics: dict[str, Any]) -> str:
        return f"loss {metrics['loss']:.4f}"

    @contextmanager
    def deployed_weights(self) -> Iterator[None]:
        with self.ema.deployed() if self.ema else nullcontext():
            yield

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {"module": self.module.state_dict(), "optimizer": self.optimizer.state_dict()}
        if self.scheduler is not None:
            state["scheduler"] = self.scheduler.state_dict()
        if self.ema is not None:
            state["ema"] = self.ema.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
