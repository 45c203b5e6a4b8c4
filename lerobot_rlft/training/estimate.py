"""Time that a run takes at most, estimated from one tiny iteration."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import torch

from ..diversity.probe import probe_size
from ..policies.base import DenoisingPolicy
from ..rollout.contract import NEW_ROLLOUT_OPTION
from ..rollout.episodes import Rollout

if TYPE_CHECKING:
    from .trainer import Trainer


@dataclass(frozen=True)
class Play:
    """Seconds of playing episodes of full length.

    Attributes:
        max_steps, n_action_steps: of an episode, and of each decision.
        reset, step: of an episode and of a step of one environment.
        decide: of one decision in that many environments.
    """

    max_steps: int
    n_action_steps: int
    reset: float
    step: float
    decide: Callable[[int], float]

    def seconds(self, episodes: int, envs: int) -> float:
        envs = min(envs, episodes)
        decisions = -(-episodes // envs) * -(-self.max_steps // self.n_action_steps)
        return decisions * self.decide(envs) + episodes * (self.reset + self.max_steps * self.step)


def timed(function: Callable[[], object]) -> float:
    """Seconds that a call takes, until the accelerator has finished, too."""
    start = time.perf_counter()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure_play(trainer: "Trainer", data: Rollout, seconds: float, max_steps: int) -> Play:
    """Costs of playing episodes of `max_steps`, from `data` and the `seconds` in which it was collected."""
    policy, runner, algorithm = trainer.policy, trainer.runner, trainer.algorithm
    envs = runner.env.num_envs
    options = {NEW_ROLLOUT_OPTION: True}
    reset = timed(lambda: runner.env.reset(seed=list(range(envs)), options=options))

    @cache
    def decide(count: int) -> float:
        obs = {key: value[:1].repeat_interleave(count, 0) for key, value in data.obs.items()}
        with torch.no_grad():
            return timed(lambda: algorithm.explore(policy.encode(obs)))

    decisions = int(data.t.max()) + 1
    step = max(0.0, seconds - reset - decisions * decide(envs)) / data.env_steps
    if trainer.config.rollout.use_async_envs:  # each in a process of its own
        step *= envs / min(trainer.config.rollout.n_envs, os.cpu_count() or 1)
    return Play(max_steps, policy.n_action_steps, reset / envs, step, decide)


def descend_once(policy: DenoisingPolicy, data: Rollout, rows: int) -> None:
    """Forward and backward pass of a minibatch, in which a trained encoder encodes every row anew."""
    again = policy.encoder is not None and any(p.requires_grad for p in policy.encoder.parameters())
    obs = {key: value[:1].repeat_interleave(rows if again else 1, 0) for key, value in data.obs.items()}
    with torch.set_grad_enabled(again):
        condition = policy.encode(obs)
    condition = condition if again else condition.expand(rows, -1)
    x = data.chain.x[:1, 0].repeat_interleave(rows, 0)
    time = policy.kernel.timesteps[:1].expand(rows)
    policy.predict(x, time, condition).square().mean().backward()
    policy.module.zero_grad(set_to_none=True)


def update_seconds(trainer: "Trainer", data: Rollout, seconds: float, decisions: int) -> float:
    """Seconds of an update on so many decisions, of which one on `data` took `seconds`."""
    here = len(data.t)
    small, large = (trainer.algorithm.minibatches(count) for count in (here, decisions))
    if small is None or large is None:
        return seconds * decisions / here
    times = [timed(lambda rows=rows: descend_once(trainer.policy, data, rows)) for rows, _ in (small, large)]
    return scaled(seconds, small, large, times[1] / times[0])


def scaled(seconds: float, small: tuple[int, int], large: tuple[int, int], ratio: float) -> float:
    """Seconds of an update with the minibatches `large`, where one with `small` took `seconds`.

    Args:
        small, large: rows of a minibatch and number of minibatches.
        ratio: of the time of a minibatch, large / small.
    """
    return seconds / small[1] * large[1] * ratio


def run_time(trainer: "Trainer", play: Play, update: float) -> str:
    """At most how long an iteration and what is left of a run take, in words.

    Args:
        update: seconds of the update of an iteration.
    """
    config, rollout, eval_ = trainer.config, trainer.config.rollout, trainer.config.eval
    rest = config.iterations - trainer.iteration
    collect = play.seconds(rollout.n_episodes, rollout.n_envs)
    during = play.seconds(eval_.n_episodes_during, eval_.batch_size)
    others = 2 * play.seconds(eval_.n_episodes, eval_.batch_size)  # base and tuned policy
    others += during * (rest // config.eval_freq if config.eval_freq else 0)
    if config.resume is None:
        others += during  # the base as it explores
        if trainer.algorithm.needs_reference:
            others += play.seconds(rollout.n_reference, rollout.n_envs)
    probes = 0.0
    if config.probe_freq:
        steps = trainer.policy.kernel.num_steps
        row = play.decide(rollout.n_envs) / (rollout.n_envs * steps)
        first, each = probe_size(trainer.base).rows(steps)
        probes = row * ((first + each if config.resume is None else 0) + each * (rest // config.probe_freq))
    whole = rest * (collect + update) + others + probes
    return (
        f"time        an iteration takes at most {duration(collect + update)} on this machine: "
        f"{duration(collect)} to collect, if every episode lasts {play.max_steps} steps, and "
        f"{duration(update)} to update\n"
        f"            the run takes at most {duration(whole)}: {rest} iterations "
        f"{duration(rest * (collect + update))}, evaluations and episodes of the base {duration(others)}, "
        f"probes {duration(probes)}; videos"
        + (", and what is learned from the base's episodes," if trainer.algorithm.needs_reference else "")
        + " come on top"
    )


def duration(seconds: float) -> str:
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.2g} s"
