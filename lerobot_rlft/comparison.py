"""A tuned policy beside its base: plays both, with the deployed sampler on the same seeds, and measures.

What needs denoising chains (KL, probe states) plays one round more with the exploratory sampler.
"""

import time
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from lerobot.envs import EnvConfig
from tqdm import tqdm

from .build import check_features, load_policy, make_runner, runner_in
from .config_compare import CompareConfig
from .diversity.atlas import ModeAtlas
from .diversity.metrics import mode_counts
from .diversity.probe import Probe
from .episodes import Episodes, Rollout
from .errors import UserError
from .evaluation import Evaluation, name_modes, play, summarise
from .measures import (
    Metrics,
    measure_blocked,
    measure_chains,
    measure_conditional,
    measure_modes,
    measure_paths,
    measure_probe,
)
from .monitor import fit_atlas, load_atlas
from .policies.base import DenoisingPolicy
from .rollout import EpisodeRunner

CHAIN_FLOOR = 0.1  # smallest std of exploration and log-probabilities, as in DPPO


@dataclass
class Side:
    """One policy and what it did.

    Attributes:
        title: for pictures, "base" or "tuned".
        episodes: of the deployed sampler, with their modes.
        rollout: exploratory episodes with their chains.
        blocked: way -> successes of `n_attempts` attempts.
    """

    title: str
    policy: DenoisingPolicy
    runner: EpisodeRunner
    episodes: Episodes
    evaluation: Evaluation
    rollout: Rollout
    blocked: dict[str, int] = field(default_factory=dict)

    @property
    def counts(self) -> np.ndarray | None:
        """(M,) successes in each mode."""
        counts = self.evaluation.mode_counts
        return None if counts is None else np.array(counts)


@dataclass
class Comparison:
    """All that the report shows.

    Attributes:
        metrics: content of diversity.json.
        kl: "reverse" and "forward" -> (T, K) nats by decision of the episode and denoising step.
    """

    config: CompareConfig
    base: Side
    tuned: Side
    atlas: ModeAtlas | None
    probe: Probe
    metrics: dict[str, Any]
    kl: dict[str, np.ndarray]


def compare(config: CompareConfig) -> Comparison:
    """Play both policies and measure.

    Raises:
        UserError: a policy or the environment is unusable, or they do not fit.
        EnvironmentFailure, FloatingPointError: see `EpisodeRunner.collect`.
    """
    start = time.perf_counter()
    policies = {
        title: load_policy(part, part.pretrained_path)
        for title, part in (("base", config.base), ("tuned", config.policy))
    }
    check_same_actions(policies["base"], policies["tuned"])
    # Known to environments whose config can close a way of solving the task.
    blocked = config.env.blocked() if hasattr(config.env, "blocked") and config.n_attempts else {}
    first = make_runner(config.env, policies["base"], min(config.batch_size, config.n_episodes))
    bar = tqdm(total=2 * (3 + len(blocked)), desc="playing", unit="set")
    sides, atlas = {}, None
    metrics = Metrics()
    with bar, closing(first.env):
        for title, policy in policies.items():
            runner = first if title == "base" else runner_in(first.env, config.env, policy)
            if title != "base":  # whose features `make_runner` has compared
                check_features(config.env, runner)
            episodes = play(runner, config.n_episodes, config.seed)
            if title == "base" and episodes.mode is None:
                atlas = atlas_of(config, episodes)
            evaluation, episodes = summarise(runner.env, episodes, atlas)
            tqdm.write(f"{title}: {evaluation.sentence()}")
            bar.update()
            rollout = explore(runner, config.seed)
            bar.update()
            side = sides[title] = Side(title, policy, runner, episodes, evaluation, rollout)
            prefix = "" if title == "tuned" else "base_"
            measure_conditional(metrics, prefix, counts_by_state(side, config, atlas))
            bar.update()
            for way, env in blocked.items():
                side.blocked[way] = attempts(env, policy, config)
                bar.update()
    base, tuned = sides["base"], sides["tuned"]
    probe = Probe.choose(base.policy, base.rollout.obs, base.rollout.t, CHAIN_FLOOR, seed=config.seed)
    describe(
        metrics, config, base, tuned, None if base.counts is None else "atlas" if atlas else "environment"
    )
    measure_modes(metrics, tuned.counts, base.counts)
    measure_paths(metrics, tuned.episodes, base.episodes, config.atlas.key)
    chains = {"reverse": tuned.rollout, "forward": base.rollout}
    kl = measure_chains(metrics, tuned.policy, base.policy, chains, CHAIN_FLOOR)
    measure_probe(metrics, probe, tuned.policy)
    measure_blocked(metrics, tuned.blocked, base.blocked, config.n_attempts)
    metrics["seconds"] = round(time.perf_counter() - start, 1)
    return Comparison(config, base, tuned, atlas, probe, metrics, kl)


def describe(m: Metrics, config: CompareConfig, base: Side, tuned: Side, modes_from: str | None) -> None:
    """What was compared, and success."""
    m |= {
        "policy": str(config.policy.pretrained_path),
        "base": str(config.base.pretrained_path),
        "env": config.env.type,
        "sampler": "deployed",
        "seed": config.seed,
        "n_episodes": config.n_episodes,
        "num_modes": tuned.evaluation.num_modes,
        "modes_from": modes_from,
    }
    for prefix, side in (("", tuned), ("base_", base)):
        evaluation, episodes = side.evaluation, side.episodes
        m[prefix + "success"], m[prefix + "success_ci"] = evaluation.success, list(evaluation.success_ci)
        m[prefix + "n_success"] = int(episodes.success.sum())
        m[prefix + "max_reward"] = evaluation.max_reward
        if side.counts is not None:
            m[prefix + "unknown"] = m[prefix + "n_success"] - int(side.counts.sum())


def check_same_actions(base: DenoisingPolicy, tuned: DenoisingPolicy) -> None:
    """Raise a UserError unless both policies send chunks of the same shape by the same denoising steps."""
    for name in ("action_dim", "n_action_steps", "horizon", "n_obs_steps"):
        if getattr(base, name) != getattr(tuned, name):
            raise UserError(
                f"--base.path has {name}={getattr(base, name)} and --policy.path {getattr(tuned, name)}: "
                "they are not comparable, give the policy that was tuned from this base"
            )
    steps, wanted = (policy.kernel.timesteps.tolist() for policy in (base, tuned))
    if steps != wanted or type(base.kernel) is not type(tuned.kernel):
        raise UserError(
            f"--base.path denoises in {len(steps)} steps and --policy.path in {len(wanted)}, or at other "
            "noise levels: give the base the sampler of the tuned policy, "
            f"--base.noise_scheduler_type=DDPM or DDIM and --base.num_inference_steps={len(wanted)}"
        )


def atlas_of(config: CompareConfig, episodes: Episodes) -> ModeAtlas | None:
    """The atlas of `--atlas.path`, or one fitted on the base's episodes."""
    if config.atlas.path is not None:
        return load_atlas(config.atlas.path, config.env.type, config.atlas.key)
    atlas, said = fit_atlas(config.atlas, config.env.type, [], episodes)
    tqdm.write(said)
    return atlas


def explore(runner: EpisodeRunner, seed: int) -> Rollout:
    """One round of exploratory episodes."""
    count = runner.env.num_envs
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return runner.collect(count, seed + np.arange(count), CHAIN_FLOOR, CHAIN_FLOOR)


def attempts(env: EnvConfig, policy: DenoisingPolicy, config: CompareConfig) -> int:
    """Successes of `n_attempts` attempts from one initial state."""
    runner = make_runner(env, policy, min(config.batch_size, config.n_attempts))
    try:
        episodes = play(runner, config.n_attempts, config.seed, attempts=config.n_attempts)
    finally:
        runner.env.close()
    return int(episodes.success.sum())


def counts_by_state(side: Side, config: CompareConfig, atlas: ModeAtlas | None) -> np.ndarray | None:
    """(S, M) successes in each mode from each of S initial states; None without modes, or if not asked for.

    Where every episode starts alike there is one state, and its episodes have been played.
    """
    if side.counts is None or not config.n_initial_states:
        return None
    if not starts_vary(side.episodes):
        return side.counts[None]
    repeats = max(2, config.n_episodes // config.n_initial_states)
    played = play(side.runner, config.n_initial_states * repeats, config.seed, attempts=repeats)
    episodes, num_modes = name_modes(side.runner.env, played, atlas)
    parts = [episodes[i : i + repeats] for i in range(0, len(episodes.success), repeats)]
    return np.stack([mode_counts(part.mode, part.success, num_modes) for part in parts])


def starts_vary(episodes: Episodes) -> bool:
    """Whether the recorded vectors of the first step differ between episodes, or none are recorded."""
    return not episodes.states or any((v[:, 0] != v[0, 0]).any() for v in episodes.states.values())
