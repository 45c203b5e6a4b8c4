"""Options of algorithms that learn from recorded episodes, in rounds: value, advantages, refit, collect.

Every round fits the pretrained policy anew, with its own training loss, to all episodes there are. What an
algorithm decides is which frames are seen how often, and what the policy is told about them.
"""

from dataclasses import dataclass, field

import numpy as np

from ..critics.configuration import ValueConfig
from ..datasets.configuration import EpisodeData
from ..utils.errors import check
from .bc import BCConfig

STAGES = ("collect", "value", "advantages", "refit")


@dataclass
class Scores:
    """Advantage, outcome, task and mode of F frames, from which a refit chooses labels and weights.

    Attributes:
        advantage: (F,), NaN where there is none.
        success: (F,) of the frame's episode: 1, 0, NaN unknown.
        task, mode: (F,) int of the frame's episode; mode -1 unknown.
        forced: (F,) bool, demonstrations and interventions.
    """

    advantage: np.ndarray
    success: np.ndarray
    task: np.ndarray
    mode: np.ndarray
    forced: np.ndarray


@dataclass
class RefitConfig(BCConfig):
    """Learning from recorded episodes, in rounds. `iterations` are the gradient steps of one refit, with the
    policy's own loss, optimizer preset and learning-rate schedule (`--policy.optimizer_lr`, ...).

    Raises:
        ValueError: a field is out of its range.
    """

    consumes = "episodes"
    # Stage to run in this call: collect, value, advantages or refit, of the first round that lacks its
    # result; all = all of them, of all rounds. A stage whose result exists is skipped: delete the result to
    # have it made again.
    stage: str = "all"
    # Rounds of collecting episodes, judging them and training on them.
    n_rounds: int = 2
    # Recorded episodes beside those that are collected, for example [{repo_id: local/rollouts, root: FOLDER,
    # successes: [0, 2]}].
    data: list[EpisodeData] = field(default_factory=list)
    # Whether to play rollout.n_episodes in the environment at the start of each round; null = wherever there
    # is an environment. false leaves the environment to evaluation.
    collect: bool | None = None
    # Share of each batch that comes from the demonstrations (--dataset.repo_id), where there are any.
    base_fraction: float = 0.5
    # Return of an episode: "steps" counts time and the price of failing, "reward" sums the next.reward of the
    # datasets.
    returns: str = "steps"
    # Price of a failure, in steps; null = the longest episode of its task.
    fail_cost: float | None = None
    # Steps after which an advantage takes the value function for the rest of the episode; null = never.
    n_step: int | None = 50
    # Value function that advantages are measured against.
    value: ValueConfig = field(default_factory=ValueConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stage not in ("all", *STAGES):
            raise ValueError(f"algorithm.stage={self.stage!r} is unknown, choose all, {', '.join(STAGES)}")
        if self.returns not in ("steps", "reward"):
            raise ValueError(f"algorithm.returns={self.returns!r} is unknown, choose steps or reward")
        check("n_rounds", self.n_rounds, self.n_rounds >= 1, "at least 1")
        check("base_fraction", self.base_fraction, 0 <= self.base_fraction < 1, "a number in [0, 1)")
        check(
            "fail_cost", self.fail_cost, self.fail_cost is None or self.fail_cost >= 0, "0 or more, or null"
        )
        check("n_step", self.n_step, self.n_step is None or self.n_step >= 1, "at least 1, or null")

    @property
    def needs_value(self) -> bool:
        """Whether a round begins with fitting a value."""
        return True

    @property
    def needs_modes(self) -> bool:
        """Whether episodes must have modes."""
        return False

    def labels(self, scores: Scores) -> np.ndarray:
        """The advantage label of each frame, (F,) int of `conditioning.LABELS`, read by the policy or not."""
        raise NotImplementedError

    def weights(self, scores: Scores) -> np.ndarray:
        """The weight of each frame in the batches, (F,) >= 0."""
        return np.ones(len(scores.success))
