"""KL to a mixture of several frozen policies. Plain torch; shapes as in `base`, M references."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..chains.chain import kl_divergence
from ..policies.base import DenoisingPolicy
from .base import Load, Regularizer, RegularizerConfig, Step


@RegularizerConfig.register_subclass("manifold_ensemble")
@dataclass
class ManifoldEnsembleConfig(RegularizerConfig):
    """The policy may follow whichever reference is nearest, for example one for each part of the data.

    Raises:
        ValueError: there are no references, or weights that do not fit them.
    """

    # Frozen policies with the features of the one that is trained, as Hub ids or folders.
    references: list[str] = field(default_factory=list)
    # Weight of each reference, in any unit; null = equal.
    weights: list[float] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check("references", len(self.references) >= 1, "one or more Hub ids or folders of policies")
        if self.weights is not None:
            choice = f"a number >= 0 for each of the {len(self.references)} references, one of them > 0"
            fits = len(self.weights) == len(self.references) and min(self.weights) >= 0
            self.check("weights", fits and 0 < sum(self.weights) < float("inf"), choice)

    def build(
        self, policy: DenoisingPolicy, base: DenoisingPolicy, load: Load | None = None
    ) -> "ManifoldEnsemble":
        if load is None:
            raise ValueError(f"references={self.references} of regularizer {self.type}: give `load` to build")
        references = [load(name) for name in self.references]
        for name, reference in zip(self.references, references, strict=True):
            check_features(name, reference, policy)
            reference.module.requires_grad_(False)
        return ManifoldEnsemble(self, references)


class ManifoldEnsemble(Regularizer):
    """Soft-min over references: -log sum_m w_m exp(-KL(policy || reference_m)) of each pair, sum_m w_m = 1.

    An upper bound of KL(policy || sum_m w_m reference_m), the variational approximation of Hershey & Olsen
    2007 (ICASSP) for one Gaussian on the left. Its gradient is the mean of those of KL_m, weighted by the
    softmax of log w_m - KL_m: the nearest reference pulls, far ones let go.

    Args:
        config: see there.
        references: M frozen policies; each is evaluated once for a minibatch.
    """

    def __init__(self, config: ManifoldEnsembleConfig, references: list[DenoisingPolicy]) -> None:
        super().__init__(config)
        weights = torch.tensor(config.weights or [1.0] * len(references))
        self.references, self.log_weights = references, (weights / weights.sum()).log()

    def loss(self, step: Step) -> Tensor:
        """Mean of the pairs, nats of the executed part of the chunk."""
        kl = torch.stack([self._kl(step, reference) for reference in self.references], 1)  # (B, M)
        return -(self.log_weights.to(kl.device) - kl).logsumexp(1).mean()

    def _kl(self, step: Step, reference: DenoisingPolicy) -> Tensor:
        with torch.no_grad():
            normal = reference.transition(step.x, step.k, step.encode(reference))
        return kl_divergence(step.normal, normal, step.policy.executed, step.floor)


FEATURES: dict[str, Callable[[DenoisingPolicy], Any]] = {
    "action_dim": lambda policy: policy.action_dim,
    "horizon": lambda policy: policy.horizon,
    "n_action_steps": lambda policy: policy.n_action_steps,
    "n_obs_steps": lambda policy: policy.n_obs_steps,
    "denoising timesteps": lambda policy: policy.kernel.timesteps.tolist(),
    "input_features": lambda policy: getattr(getattr(policy.module, "config", None), "input_features", None),
    # Chunks are compared as the networks see them, so normalised actions must mean the same to both.
    "action normalisation": lambda policy: [unnormalised(policy, value) for value in (0.0, 1.0)],
}


def unnormalised(policy: DenoisingPolicy, value: float) -> list[float]:
    """The first action (A,) of a chunk whose numbers are all `value`."""
    shape, device = (1, policy.horizon, policy.action_dim), policy.kernel.timesteps.device
    action = policy.to_action(torch.full(shape, value, device=device))[0, 0]
    return [round(a, 4) for a in action.tolist()]


def check_features(name: str, reference: DenoisingPolicy, policy: DenoisingPolicy) -> None:
    """Raise a ValueError with field and both values if the reference cannot stand beside the policy."""
    for what, get in FEATURES.items():
        if (theirs := get(reference)) != (ours := get(policy)):
            raise ValueError(
                f"reference {name!r} of regularizer manifold_ensemble has {what}={theirs} and the policy to "
                f"train has {ours}: choose references that were trained like it"
            )
