"""Whole episodes and the decisions that were taken in them.

Shapes: D decisions of all episodes together, T decisions of the longest episode, E episodes, S observation
steps.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..chains.chain import Chain
from ..metrics.points import join_paths


@dataclass
class Episodes:
    """Outcomes of E episodes.

    Attributes:
        success: (E,) bool.
        mode: (E,) int, -1 where the environment named none; None when it never names modes.
        total_reward, max_reward: (E,) undiscounted sum and largest single-step reward.
        length: (E,) environment steps.
        states: the vectors seen along each episode, NaN after its end: `observation.state` and
            `observation.environment_state`, each (E, L+1, S), where the environment has them.
        task: (E,) int, number of the task; None where there is one.
    """

    success: np.ndarray
    mode: np.ndarray | None
    total_reward: np.ndarray
    max_reward: np.ndarray
    length: np.ndarray
    states: dict[str, np.ndarray] = field(default_factory=dict)
    task: np.ndarray | None = None

    def __getitem__(self, rows: Any) -> "Episodes":
        """The episodes in `rows`, any index of their first axis."""
        states = {key: value[rows] for key, value in self.states.items()}
        columns = {k: None if v is None else v[rows] for k, v in vars(self).items() if k != "states"}
        return Episodes(**columns, states=states)  # type: ignore[arg-type]

    @staticmethod
    def concatenate(parts: list["Episodes"]) -> "Episodes":
        """Put rounds one after the other; one that named no modes, beside others that did, has only -1."""
        columns = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in Episodes.__dataclass_fields__
            if name not in ("mode", "states", "task")
        }
        tasks = [part.task for part in parts if part.task is not None]
        modes = [np.full(len(p.success), -1) if p.mode is None else p.mode for p in parts]
        return Episodes(
            **columns,
            mode=None if all(part.mode is None for part in parts) else np.concatenate(modes),
            states={key: join_paths([part.states[key] for part in parts]) for key in parts[0].states},
            task=np.concatenate(tasks) if tasks else None,
        )


@dataclass
class Frames:
    """Observations, actions and rewards of N episodes side by side, one item for each environment step.

    What lies beyond the end of an episode (`Episodes.length`) does not belong to it.

    Attributes:
        obs: LeRobot key -> (N, ...) before the action; images uint8, channels first.
        action: (N, A) as sent to the environment.
        reward: (N,) the environment's.
    """

    obs: list[dict[str, Tensor]] = field(default_factory=list)
    action: list[np.ndarray] = field(default_factory=list)
    reward: list[np.ndarray] = field(default_factory=list)

    def columns(self, i: int, length: int) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """Observations (L, ...), actions (L, A) and rewards (L,) of episode i, which has `length` L steps."""
        obs = {key: np.stack([step[key][i].numpy() for step in self.obs[:length]]) for key in self.obs[0]}
        action, reward = (
            np.stack([step[i] for step in steps[:length]]) for steps in (self.action, self.reward)
        )
        return obs, action, reward


@dataclass
class Rollout:
    """Decisions of E whole episodes, flattened.

    Attributes:
        obs: LeRobot key -> (D, S, ...); images uint8.
        chain: x (D, K+1, H, A), log_prob (D, K).
        t, episode: (D,) position of each decision in the (T, E) grid.
        reward: (T, E) summed over the executed chunk.
        valid: (T, E) bool.
        terminated: (E,) bool; False means that a time limit cut the episode and the task would go on.
        final_obs: LeRobot key -> (E, S, ...), the observation after the last step of each episode.
        episodes: outcomes.
        attempt: (E,) long, the mode that each episode reached or, where it failed, was on the way to; -1
            where unknown; None where nothing names modes.
    """

    obs: dict[str, Tensor]
    chain: Chain
    t: Tensor
    episode: Tensor
    reward: Tensor
    valid: Tensor
    terminated: Tensor
    final_obs: dict[str, Tensor]
    episodes: Episodes
    attempt: Tensor | None = None

    @property
    def success(self) -> Tensor:
        """(E,) bool."""
        return torch.from_numpy(self.episodes.success)

    @property
    def env_steps(self) -> int:
        return int(self.episodes.length.sum())

    def grid(self, flat: Tensor) -> Tensor:
        """(D,) -> (T, E), 0 where there is no decision."""
        out = torch.zeros(self.valid.shape, dtype=flat.dtype)
        out[self.t, self.episode] = flat
        return out
