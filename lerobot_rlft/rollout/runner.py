"""Whole episodes in vectorised environments, decided chunk by chunk.

One round is one seeded reset of all N environments followed by steps until every episode has ended once; what
an environment does after that is ignored. So it does not matter how it autoresets, no episode is cut by the
end of an iteration, and an iteration depends on nothing but the weights and the seed. Only environments whose
episode still runs are sent through the network.

Shapes: D decisions of all episodes together, T decisions of the longest episode, E episodes, S observation
steps.
"""

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from lerobot.envs import preprocess_observation
from lerobot.envs.utils import NEW_ROLLOUT_OPTION
from lerobot.processor import PolicyProcessorPipeline
from lerobot.utils.constants import ACTION, OBS_ENV_STATE, OBS_PREFIX, OBS_STATE
from torch import Tensor

from ..chains.chain import Chain
from ..policies.base import DenoisingPolicy
from ..policies.rlft_commanded.commands import COMMAND
from ..utils.errors import EnvironmentFailure
from .arrays import alone, cat, final_observation, finite, row, side_by_side
from .contract import MAX_STEPS, MODE, NO_SUCCESS, SUCCESS, blame_environment, mode_number, shape_problems
from .episodes import Episodes, Frames, Rollout
from .workers import close_env

VECTORS = {"agent_pos": OBS_STATE, "environment_state": OBS_ENV_STATE}  # what is kept of every step


class EpisodeRunner:
    """Runs a policy in a LeRobot vector environment.

    Args:
        env: any LeRobot vector environment.
        policy: decides.
        env_preprocessor, env_postprocessor: from `make_env_pre_post_processors`.
    """

    def __init__(
        self,
        env: gym.vector.VectorEnv,
        policy: DenoisingPolicy,
        env_preprocessor: PolicyProcessorPipeline,
        env_postprocessor: PolicyProcessorPipeline,
    ) -> None:
        self.env, self.policy = env, policy
        self.env_preprocessor, self.env_postprocessor = env_preprocessor, env_postprocessor
        self.max_steps = int(env.call(MAX_STEPS)[0])

    def close(self) -> None:
        """Close the environments, within seconds, whatever their processes do."""
        close_env(self.env)

    def vectors(self, raw: dict[str, Any]) -> dict[str, np.ndarray]:
        """The vectors that a policy is shown of raw observations, LeRobot key -> (N, S) float32, copied.

        Where the environment has processors of its own they make them: LIBERO's state is one of
        several in `robot_state` before that.
        """
        if getattr(self.env_preprocessor, "steps", None):
            batch = self.env_preprocessor(preprocess_observation(raw))
            vectors = {key: batch[key].cpu() for key in VECTORS.values() if key in batch}
        else:  # the same numbers, without making tensors of all images at every step
            vectors = {key: raw[name] for name, key in VECTORS.items() if name in raw}
        return {key: np.array(value, np.float32).reshape(len(value), -1) for key, value in vectors.items()}

    @property
    def vector_sizes(self) -> dict[str, int]:
        """LeRobot key -> S of the vectors kept of every step."""
        sample = self.env.single_observation_space.sample()
        return {key: value.shape[1] for key, value in self.vectors(alone(sample)).items()}

    def collect(
        self,
        n_episodes: int,
        seeds: np.ndarray,
        explore: Callable[[Tensor], Chain],
        reward: str = "env",
        success_bonus: float = 0.0,
        time_limit: str = "bootstrap",
    ) -> Rollout:
        """Explore: `n_episodes` (a multiple of the number of environments) episodes with their chains.

        Args:
            seeds: (n_episodes,) one for each reset.
            explore: condition (B, C) -> chains with their log-probabilities, see `Algorithm.explore`.
            reward: "env" learns from the environment's reward; "success" from 1 at the step that ends an
                episode with success, 0 before; "best" from every increase of an episode's best reward, so
                that the return is the episode's best reward and success does not end a stream of payments.
            success_bonus: added to the reward of the step that ends an episode with success.
            time_limit: "failure" marks episodes cut by a time limit as terminated.

        Raises:
            EnvironmentFailure: the environment raised, or returned NaN or inf.
            FloatingPointError: the policy's actions are NaN or inf.
        """
        rounds = [
            _Round(
                self,
                seeds[start : start + self.env.num_envs],
                True,
                reward=reward,
                success_bonus=success_bonus,
                time_limit=time_limit,
            ).run(explore)
            for start in range(0, n_episodes, self.env.num_envs)
        ]
        return side_by_side(rounds)

    def evaluate(
        self,
        n_episodes: int,
        seeds: np.ndarray,
        decide: Callable[[Tensor], Chain],
        on_step: Callable[[], None] = lambda: None,
    ) -> Episodes:
        """Play episodes without keeping decisions. Raises as `collect`.

        Args:
            decide: condition (B, C) -> a chain whose `x[:, 0]` is the chunk, see `deployed`.
            on_step: called after the reset and after every environment step, for example to render.
        """
        parts = []
        for start in range(0, n_episodes, self.env.num_envs):
            # A last, incomplete round is filled up here and cut below.
            ids = np.arange(start, start + self.env.num_envs) % len(seeds)
            parts.append(_Round(self, seeds[ids], keep_decisions=False, on_step=on_step).run(decide).episodes)
        return Episodes.concatenate(parts)[:n_episodes]

    def record(
        self, n_episodes: int, seeds: np.ndarray, decide: Callable[[Tensor], Chain]
    ) -> Iterator[tuple[Episodes, Frames]]:
        """Play as `evaluate` does and hand out every step, one round of episodes side by side at a time."""
        for start in range(0, n_episodes, self.env.num_envs):
            ids, frames = np.arange(start, start + self.env.num_envs) % len(seeds), Frames()
            episodes = _Round(self, seeds[ids], keep_decisions=False, frames=frames).run(decide).episodes
            yield episodes[: n_episodes - start], frames

    def deployed(self, condition: Tensor) -> Chain:
        """The policy's own sampler, as stock LeRobot runs it."""
        chunk = self.policy.deployed_chunk(condition)
        return Chain(chunk[:, None], chunk.new_zeros(len(chunk), 0))


class _Round:
    """One seeded reset and the episodes that follow it."""

    def __init__(
        self,
        runner: EpisodeRunner,
        seeds: np.ndarray,
        keep_decisions: bool,
        on_step: Callable[[], None] = lambda: None,
        reward: str = "env",
        success_bonus: float = 0.0,
        time_limit: str = "bootstrap",
        frames: Frames | None = None,
    ) -> None:
        self.frames = frames
        self.reward, self.success_bonus, self.time_limit = reward, success_bonus, time_limit
        self.runner, self.policy, self.env, self.on_step = runner, runner.policy, runner.env, on_step
        self.keep_decisions = keep_decisions
        n = self.env.num_envs
        self.command = self.policy.draw(n, deployed=not keep_decisions)
        self.alive, self.terminated = np.ones(n, bool), np.zeros(n, bool)
        self.success, self.mode, self.names_modes = np.zeros(n, bool), np.full(n, -1), False
        self.names_success = False
        self.total, self.best, self.length = np.zeros(n), np.full(n, -np.inf), np.zeros(n, np.int64)
        self.final_obs: list[dict[str, Tensor]] = [{}] * n
        with blame_environment("reset", self.env):
            raw, _ = self.env.reset(seed=[int(s) for s in seeds], options={NEW_ROLLOUT_OPTION: True})
        self.history = [raw] * self.policy.n_obs_steps  # raw observations, the newest last
        self.states = {key: [vector] for key, vector in runner.vectors(raw).items()}
        on_step()

    def run(self, decide: Callable[[Tensor], Chain]) -> Rollout:
        """Play until every episode has ended; without `keep_decisions` only the outcomes are meaningful."""
        decisions, rewards, valids = [], [], []
        space = self.env.single_action_space  # LeRobot's lazy async env calls this one `action_space`, too
        # Whole numbers are for the environment to make of a policy's, as under stock lerobot-eval; an array
        # of integers would cut them off.
        kind = space.dtype if np.issubdtype(space.dtype, np.floating) else np.float32
        action = np.zeros((self.env.num_envs, *space.shape), kind)
        while self.alive.any():
            rows = self.alive.nonzero()[0]
            obs = finite({key: value[rows] for key, value in self._observe(self.history).items()})
            if self.command is not None:
                obs[COMMAND] = self.command[rows][:, None].cpu()
            chain = decide(self._encode(obs))
            chunk = self._env_action(chain.x[:, 0])  # (rows, n_action_steps, D)
            valids.append(self.alive.copy())
            rewards.append(np.zeros(self.env.num_envs))
            for j in range(self.policy.n_action_steps):
                action[rows] = chunk[:, j]
                rewards[-1] += self._step(action)
                if not self.alive.any():
                    break
            if self.keep_decisions:
                decisions.append((obs, chain, np.full(len(rows), len(decisions)), rows))
        if not self.names_success:
            raise EnvironmentFailure(f"{NO_SUCCESS}. Nothing was learned from them")
        episodes = Episodes(
            success=self.success,
            mode=self.mode if self.names_modes else None,
            total_reward=self.total,
            max_reward=self.best,
            length=self.length,
            states={key: np.stack(steps, 1) for key, steps in self.states.items()},
        )
        obs, chains, ts, ids = zip(*decisions, strict=True) if decisions else ((), (), (), ())
        return Rollout(
            obs=cat(obs),
            chain=Chain.cat(list(chains)),
            t=torch.from_numpy(np.concatenate(ts or [[]])),
            episode=torch.from_numpy(np.concatenate(ids or [[]])),
            reward=torch.from_numpy(np.stack(rewards)).float(),
            valid=torch.from_numpy(np.stack(valids)),
            terminated=torch.from_numpy(self.terminated),
            final_obs=cat([{k: v[None] for k, v in o.items()} for o in self.final_obs]),
            episodes=episodes,
        )

    def _step(self, action: np.ndarray) -> np.ndarray:
        """Step all environments once; returns the reward to learn from (N,), 0 where the episode was over."""
        where = f"step {int(self.length.max()) + 1}"
        with blame_environment(where, self.env):
            raw, reward, terminated, truncated, info = self.env.step(action)
        if problems := list(shape_problems(raw, self.env.single_observation_space)):
            raise EnvironmentFailure(f"the environment breaks its contract in {where}: {'; '.join(problems)}")
        if self.frames is not None:
            self.frames.obs.append({k: v[:, 0].cpu() for k, v in self._observe(self.history[-1:]).items()})
            self.frames.action.append(action.copy())
            self.frames.reward.append(np.array(reward, np.float32))
        alive, reward = self.alive, np.where(self.alive, reward, 0.0)
        if not np.isfinite(reward).all():
            bad = int(np.flatnonzero(~np.isfinite(reward))[0])
            raise EnvironmentFailure(
                f"the environment returned reward {reward[bad]} (env {bad}, step {self.length[bad] + 1} of "
                "its episode): fix the reward, nothing was learned from it"
            )
        self.total += reward
        best_before = np.maximum(self.best, 0.0)
        self.best = np.where(alive, np.maximum(self.best, reward), self.best)
        self.length += alive
        done = alive & (terminated | truncated | (self.length >= self.runner.max_steps))
        self.history = [*self.history[1:], raw]
        if SUCCESS in info:  # counts in mid-episode too, as it does for stock lerobot-eval
            going = alive & ~done  # of others it may belong to the next episode
            self.names_success |= bool((info.get(f"_{SUCCESS}", going) & going).any())
            self.success |= going & np.asarray(info[SUCCESS], bool)
        for i in np.flatnonzero(done):
            self._finish(i, bool(terminated[i]), info)
        self._keep_vectors(raw, info, done)
        self.alive = alive & ~done
        self.on_step()
        successes = (done & self.success).astype(float)
        rewards = {
            "env": reward,
            "best": np.maximum(self.best, 0.0) - best_before,
            "success": successes,
        }[self.reward]
        return rewards + self.success_bonus * successes

    def _keep_vectors(self, raw: dict[str, Any], info: dict[str, Any], done: np.ndarray) -> None:
        """Append what this step showed; NaN where the episode had been over, the last one where it is now."""
        vectors = self.runner.vectors(raw)
        final = {i: self.runner.vectors(alone(final_observation(raw, info, i))) for i in np.flatnonzero(done)}
        for key, steps in self.states.items():
            vectors[key][~self.alive] = np.nan
            for i, last in final.items():
                vectors[key][i] = last[key][0]
            steps.append(vectors[key])

    def _finish(self, i: int, terminated: bool, info: dict[str, Any]) -> None:
        # Under SAME_STEP autoreset `info` already belongs to the next episode.
        outcome = info["final_info"] if "final_info" in info and info["_final_info"][i] else info
        if SUCCESS in outcome:
            self.names_success = True
            self.success[i] |= bool(np.broadcast_to(outcome[SUCCESS], self.success.shape)[i])
        if MODE in outcome and outcome.get(f"_{MODE}", self.alive)[i]:
            self.names_modes, self.mode[i] = True, mode_number(outcome[MODE][i])
        self.terminated[i] = terminated or self.time_limit == "failure"
        if self.keep_decisions:
            *past, newest = self.history
            frames = [{k: row(v, i) for k, v in raw.items()} for raw in past] + [
                final_observation(newest, info, i)
            ]
            batches = [alone(frame) for frame in frames]
            self.final_obs[i] = {k: v[0] for k, v in finite(self._observe(batches)).items()}
            if self.command is not None:
                self.final_obs[i][COMMAND] = self.command[i : i + 1].cpu()

    def _observe(self, history: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Raw observations, oldest first -> LeRobot keys, (N, S, ...); images as uint8."""
        frames = [self.runner.env_preprocessor(preprocess_observation(raw)) for raw in history]
        keys = [key for key in frames[0] if key.startswith(OBS_PREFIX)]
        obs = {key: torch.stack([frame[key] for frame in frames], 1) for key in keys}
        for key, value in obs.items():
            if value.ndim == 5:  # LeRobot hands out images as float in [0, 1], four times the memory of uint8
                obs[key] = (value * 255).round().to(torch.uint8)
        return obs

    def _encode(self, obs: dict[str, Tensor]) -> Tensor:
        with torch.no_grad():
            return self.policy.encode(obs)

    def _env_action(self, chunk: Tensor) -> np.ndarray:
        action = self.policy.to_action(chunk)
        if not torch.isfinite(action).all():
            raise FloatingPointError(
                "the policy's actions are NaN or inf: its weights or normalisation statistics are broken, a "
                "lower learning rate may have prevented it"
            )
        return self.runner.env_postprocessor({ACTION: action})[ACTION].cpu().numpy()
