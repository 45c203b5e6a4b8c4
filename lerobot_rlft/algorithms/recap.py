"""RECAP (arXiv:2511.14759): the policy learns from all data, told whether the advantage was positive."""

from dataclasses import dataclass

import numpy as np

from ..critics.labels import LABELINGS, label_frames
from ..utils.errors import check
from .base import AlgorithmConfig
from .refit import RefitConfig, Scores

FORMS = ("embedding", "text")


@AlgorithmConfig.register_subclass("recap")
@dataclass
class RecapConfig(RefitConfig):
    """Advantage-conditioned fine-tuning: it needs neither log-probabilities nor a simulator.

    Raises:
        ValueError: a field is out of its range.
    """

    # Rule by which an action is called good: "quantile", its advantage is among the best positive_fraction of
    # its task (which drops modes that are slightly worse than others); "per_mode_quantile", among the best of
    # its mode; "episode_success", its episode succeeded (which needs no value function).
    label: str = "episode_success"
    # Share of actions that the two quantile rules call good.
    positive_fraction: float = 0.4
    # Probability that a label is hidden in training, so that the policy also learns to act without one.
    label_dropout: float = 0.3
    # Learning rate of the label's embedding as a multiple of the policy's: it starts at zero, the policy does
    # not.
    embedding_lr_scale: float = 10.0
    # Form of the label: "embedding", which becomes part of the weights, or "text", the words "Advantage:
    # positive" in the prompt of a policy that reads language.
    form: str = "embedding"
    # Weight of the label when acting: 1 acts as labelled positive and exports an ordinary checkpoint. Other
    # weights act as unlabelled + weight * (labelled - unlabelled) and export policy type rlft_guided, which
    # needs this package; above 1 sharpens.
    guidance_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.label not in LABELINGS:
            raise ValueError(f"algorithm.label={self.label!r} is unknown, choose {', '.join(LABELINGS)}")
        if self.form not in FORMS:
            raise ValueError(f"algorithm.form={self.form!r} is unknown, choose {' or '.join(FORMS)}")
        share = self.positive_fraction
        check("positive_fraction", share, 0 < share < 1, "a number in (0, 1), for example 0.4")
        drop = self.label_dropout
        check(
            "label_dropout",
            drop,
            0 <= drop < 1,
            "a number in [0, 1): with 1 the policy is never told anything",
        )
        scale = self.embedding_lr_scale
        check("embedding_lr_scale", scale, scale > 0, "a number > 0")
        weight = self.guidance_weight
        check("guidance_weight", weight, weight >= 0, "0 or more (1 is the policy told positive)")
        if self.form == "text" and weight != 1:
            raise ValueError(
                f"algorithm.guidance_weight={weight} needs algorithm.form=embedding: guidance asks the "
                "network twice, told and untold, and a prompt is read only once"
            )

    @property
    def needs_value(self) -> bool:
        return self.label != "episode_success"

    @property
    def needs_modes(self) -> bool:
        return self.label == "per_mode_quantile"

    def labels(self, scores: Scores) -> np.ndarray:
        return label_frames(self.label, positive_fraction=self.positive_fraction, **vars(scores))
