"""Returns of recorded episodes, frame by frame."""

import numpy as np

from ..algorithms.refit import RefitConfig
from ..critics.labels import returns, scaled_rewards, step_rewards
from ..datasets.recorded import Recorded
from ..utils.errors import UserError


def frame_returns(
    algorithm: RefitConfig, datasets: list[Recorded]
) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Rewards, returns (NaN where the outcome is unknown) and value of the end, (F,) of each dataset.

    Raises:
        UserError: returns of rewards are asked for, and a dataset has none.
    """
    offsets = np.cumsum([0] + [len(d.success) for d in datasets])
    episode = np.concatenate([d.episode + o for d, o in zip(datasets, offsets, strict=False)])
    task = np.concatenate([d.task for d in datasets])
    success = np.concatenate([d.success for d in datasets])
    if algorithm.returns == "steps":
        reward = step_rewards(episode, success > 0, task, algorithm.fail_cost)
        over = np.zeros(len(reward))
        unknown = np.isnan(success[episode])
    else:
        if lacking := [d.name for d in datasets if d.reward is None and not d.demonstration]:
            raise UserError(
                f"algorithm.returns=reward needs next.reward, which {lacking[0]} lacks: use steps"
            )
        rewards = [np.full(len(d.index), np.nan) if d.reward is None else d.reward for d in datasets]
        reward = np.concatenate(rewards)
        unknown = np.isnan(reward)
        reward, over = scaled_rewards(episode, np.nan_to_num(reward), task)
    total = np.where(unknown, np.nan, returns(episode, reward, over))
    ends = np.cumsum([len(d.index) for d in datasets])[:-1]
    return np.split(reward, ends), np.split(total, ends), np.split(over, ends)
