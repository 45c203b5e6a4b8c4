"""The interface of trainer and algorithm. Plain torch; the verbs are those of `lerobot.rl.RLAlgorithm`."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import draccus
import torch
from torch import Tensor

from ..chains.chain import Chain
from ..policies.base import DenoisingPolicy, Exploration
from ..regularizers.base import Regularizer, RegularizerConfig
from ..regularizers.mode_commands import CommandConfig

Optimization = tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler | None]


@dataclass
class Parts:
    """The parts of a run that an algorithm is built from; each algorithm takes those it needs.

    Attributes:
        policy: to train, in place.
        base: its frozen pretrained original; None for an algorithm that learns from a dataset.
        backward: backward pass of a loss, `accelerator.backward`.
        regularizers: builds the terms of these options, by name.
        optimization: makes the optimizer and the learning-rate schedule of the policy's own presets.
    """

    policy: DenoisingPolicy
    base: DenoisingPolicy | None
    backward: Callable[[Tensor], None]
    regularizers: Callable[[Sequence[RegularizerConfig]], dict[str, Regularizer]]
    optimization: Callable[[], Optimization]


@dataclass
class AlgorithmConfig(draccus.ChoiceRegistry):
    """Options of one algorithm. Subclasses register themselves under the name used as `--algorithm.type`."""

    # What one iteration consumes: "rollouts" of the environment, a "batch" of a dataset (with options
    # batch_size and num_workers), or recorded "episodes", in rounds.
    consumes: ClassVar[str]

    @abstractmethod
    def build(self, parts: Parts) -> "Algorithm":
        """The algorithm, bound to the policy it trains.

        Raises:
            ValueError: an option does not fit the policy; the message says why and what can be done.
        """

    @property
    def exploration(self) -> Exploration:
        """Options of the sampler that collects episodes."""
        return Exploration()

    @property
    def commanded(self) -> CommandConfig | None:
        """Options of the modes that the policy is told; None where it is told none."""
        return None

    def wrap(self, policy: DenoisingPolicy) -> DenoisingPolicy:
        """The policy to train: `policy` itself, or commanded, where `commanded` has options."""
        return self.commanded.wrap(policy, self.exploration) if self.commanded else policy

    def freeze(self, policy: DenoisingPolicy) -> None:
        """Exclude from training the weights that this algorithm leaves as they are."""
        policy.freeze(None)

    @property
    def papers(self) -> list[tuple[str, str]]:
        """(title, address) of the paper that it implements, for cards."""
        return []

    @property
    def type(self) -> str:
        return self.get_choice_name(type(self))


class Algorithm(ABC):
    """A rule that improves a policy from data."""

    @abstractmethod
    def update(self, data: Any) -> dict[str, Any]:
        """Learn from one iteration's data (what `AlgorithmConfig.consumes` names) and return metrics: numbers
        or lists of numbers."""

    def explore(self, condition: Tensor) -> Chain:
        """Sample chunks for conditions (B, C), with the record of their denoising that `update` needs.

        Algorithms that learn from rollouts have it; noise floors belong to who samples.
        """
        raise NotImplementedError(f"{type(self).__name__} does not learn from rollouts")

    # Whether the policy's optimizer is AMSGrad (arXiv:1904.09237), which keeps a third moment of each weight.
    amsgrad: bool = False

    # Smallest std in densities and KLs of the policy; None = as small as its sampler allows.
    floor: float | None = None

    def progress(self, metrics: dict[str, Any]) -> str:
        """Text in the progress bar, from the metrics of an iteration; empty for none."""
        return ""

    def minibatches(self, decisions: int) -> tuple[int, int] | None:
        """Rows that the network sees in a minibatch of `update` on so many decisions, and the number of
        minibatches; None where that is not known.
        """
        return None

    # Whether `begin` wants episodes of the base.
    needs_reference: bool = False

    def begin(self, reference: Any, num_modes: int | None) -> None:
        """Take episodes of the base, once before the first iteration; `num_modes` M, None without modes."""
        return  # only called where `needs_reference`

    @property
    def adjustable(self) -> bool:
        """Whether it has terms whose strength `hold` changes."""
        return False

    @property
    def holders(self) -> list[str]:
        """Names of the terms that hold diversity."""
        return []

    def hold(self, strength: float) -> None:
        """Multiply the terms that hold diversity by `strength`; 1 leaves them as configured."""
        return  # an algorithm may hold nothing

    def scale_lr(self, factor: float) -> None:
        """Multiply the configured learning rate of the policy by `factor`."""
        return  # only called where the policy learns from rollouts

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """State that a bit-equal resume needs beyond the weights: nested dicts of tensors and JSON values."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None: ...

    @contextmanager
    def deployed_weights(self) -> Iterator[None]:
        """While open, the policy holds the weights that are evaluated and exported."""
        yield
