"""Advantage conditioning (RECAP, arXiv:2511.14759): an embedding of a label, folded into a bias in the end.

A policy learns from all of its data, good and bad, told for each sample whether the advantage of its action
is positive; deployed it is told "positive". Shapes: B batch, F outputs of the conditioned layer. Plain torch.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

LABELS = ("negative", "positive", "unknown")
NEGATIVE, POSITIVE, UNKNOWN = range(3)
LABEL = "advantage_label"  # of each sample in a batch, (B,) long


class LabelEmbedding(nn.Module):
    """Vectors added to the output of a layer, one for each label; zero at first, so that nothing changes.

    Args:
        layer: the last linear layer of a network's time embedding, `DenoisingPolicy.condition_layer`.
        rows: number of labels.
    """

    def __init__(self, layer: nn.Linear, rows: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(rows, layer.out_features).to(layer.weight))
        self.labels: Tensor | int | None = None  # what the layer is told; None leaves it alone
        self._handle = layer.register_forward_hook(self._add)

    def _add(self, _layer: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        if self.labels is None:
            return output
        labels = torch.as_tensor(self.labels, device=self.weight.device)
        shift = (labels >= 0).to(self.weight)[..., None] * self.weight[labels.clamp(min=0)]
        if shift.ndim == 2:  # (B, F); (F,) where one label serves the whole batch
            shift = shift.view(len(shift), *[1] * (output.ndim - 2), -1)
            if len(output) > len(shift):  # a loss with several noises for each sample, vla_jepa's
                shift = shift.repeat(len(output) // len(shift), *[1] * (shift.ndim - 1))
        return output + shift.to(output.dtype)

    @contextmanager
    def given(self, labels: Tensor | int) -> Iterator[None]:
        """While open, the layer is told `labels`, one for each sample (B,) long, or one for all; nothing is
        added for -1.
        """
        self.labels = labels
        try:
            yield
        finally:
            self.labels = None


class AdvantageEmbedding(LabelEmbedding):
    """That of `LABELS`.

    Raises:
        ValueError: the layer has no bias to fold into.
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer, len(LABELS))
        if layer.bias is None:
            raise ValueError("the conditioned layer has no bias into which a label could be folded")

    @torch.no_grad()
    def fold(self, layer: nn.Linear, label: int = POSITIVE) -> None:
        """Move one label into the bias of `layer`: the policy acts as if given it, without this embedding."""
        layer.bias.add_(self.weight[label])
        self._handle.remove()


class Conditioned(nn.Module):
    """A policy in training that is told the label of each sample, `batch[LABEL]`.

    Args:
        module: `module(batch) -> (loss, info)`.
        embedding: of one of its layers.
        dropout: probability that a sample's label becomes unknown, in train mode only.
    """

    def __init__(self, module: nn.Module, embedding: AdvantageEmbedding, dropout: float) -> None:
        super().__init__()
        self.module, self.embedding, self.dropout = module, embedding, dropout

    def forward(self, batch: dict[str, Any]) -> Any:
        labels = batch[LABEL].to(self.embedding.weight.device)
        if self.training:
            labels = drop_labels(labels, self.dropout)
        with self.embedding.given(labels):
            return self.module({key: value for key, value in batch.items() if key != LABEL})


def drop_labels(labels: Tensor, probability: float) -> Tensor:
    """Each label (B,) becomes unknown with this probability."""
    return torch.where(torch.rand(labels.shape, device=labels.device) < probability, UNKNOWN, labels)


def keeping_labels(
    preprocess: Callable[[dict[str, Any]], dict[str, Any]],
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """`preprocess`, with the labels of the batch carried around it: LeRobot's pipelines drop unknown keys."""

    def carried(batch: dict[str, Any]) -> dict[str, Any]:
        return {**preprocess({k: v for k, v in batch.items() if k != LABEL}), LABEL: batch[LABEL]}

    return carried
