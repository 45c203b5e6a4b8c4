"""Tuned policies beside their base: plays all, with the deployed sampler on the same seeds, and measures.

What needs denoising chains (KL, probe states) plays one round more with the exploratory sampler.
"""

import time
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.envs import EnvConfig
from tqdm import tqdm

from ..configs.eval import BASE, EvalPipelineConfig
from ..diversity.probe import Probe
from ..diversity.suite_atlas import Atlas
from ..envs.options import env_options
from ..policies.base import DenoisingPolicy
from ..policies.layouts import fetch_weights
from ..policies.loading import load_policy
from ..policies.pretrained_files import file_hash
from ..policies.renaming import rename_inputs, renames_of
from ..policies.rlft_commanded.adapter import COMMANDED
from ..rollout.environments import check_features, make_runner, runner_in
from ..rollout.episodes import Episodes, Rollout
from ..rollout.evaluation import Evaluation, play, summarise
from ..rollout.modes import atlas_inside, fit_atlas, load_atlas
from ..rollout.runner import EpisodeRunner
from ..rollout.suite import check_episodes, sentences
from ..utils.errors import UserError
from .by_task import measure_tasks
from .initial_states import by_start, counts_by_state, measure_ways, starts_vary
from .measures import (
    Metrics,
    measure_blocked,
    measure_chains,
    measure_conditional,
    measure_modes,
    measure_paths,
    measure_probe,
    measure_registered,
)


@dataclass
class Side:
    """One policy and what it did.

    Attributes:
        title: its name, for pictures.
        path: Hub id or folder.
        episodes: of the deployed sampler, with their modes.
        rollout: exploratory episodes with their chains.
        starts: episodes from each of S initial states.
        by_state: (S, M) successes in each mode from each initial state; None if unknown.
        blocked: way -> successes of `n_attempts` attempts.
    """

    title: str
    path: str
    policy: DenoisingPolicy
    runner: EpisodeRunner
    episodes: Episodes
    evaluation: Evaluation
    rollout: Rollout
    starts: list[Episodes] = field(default_factory=list)
    by_state: np.ndarray | None = None
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
        tuned: by name, the main policy last.
        probe: None where the base cannot be probed.
        numbers: name -> all metrics of that policy beside the base.
        kl: name -> "reverse" and "forward" -> (T, K) nats by decision of the episode and denoising step.
    """

    config: EvalPipelineConfig
    base: Side
    tuned: dict[str, Side]
    atlas: Atlas | None
    probe: Probe | None
    numbers: dict[str, Metrics]
    kl: dict[str, dict[str, np.ndarray]]

    @property
    def metrics(self) -> dict[str, Any]:
        """Content of diversity.json: the metrics of the main policy, with those of the others inside."""
        *others, main = self.numbers
        return {**self.numbers[main], "others": {name: self.numbers[name] for name in others}}


def compare(config: EvalPipelineConfig) -> Comparison:
    """Play all policies, the base once, and measure; what can be checked is checked before.

    Raises:
        UserError: a policy or the environment is unusable, or they do not fit.
        EnvironmentFailure, FloatingPointError: see `EpisodeRunner.collect`.
    """
    start = time.perf_counter()
    parts = {BASE: config.base, **config.tuned()}
    policies = load_policies(config, parts)
    # Known to environments whose config can close a way of solving the task.
    ways = config.env.blocked() if hasattr(config.env, "blocked") and config.n_attempts else {}
    n_envs = min(config.batch_size, config.n_episodes)
    first = make_runner(config.env, policies[BASE], n_envs, config.use_async_envs, config.rename_map)
    check_episodes(first.tasks, "n_episodes", config.n_episodes)
    sides: dict[str, Side] = {}
    with closing(first):
        runners = {title: runner_in(first.env, config.env, policy) for title, policy in policies.items()}
        for title in policies.keys() - {BASE}:  # the base's have been checked
            check_features(config.env, runners[title])
        preset = atlas = given_atlas(config, first.vector_sizes)
        with tqdm(total=len(policies) * (3 + len(ways)), desc="playing", unit="set", disable=None) as bar:
            for title, runner in runners.items():
                episodes = play(runner, config.n_episodes, config.seed)
                if title == BASE:
                    tasks = sentences(runner.policy, runner.tasks)
                    atlas = atlas_for(config, preset, episodes, tasks)
                elif sides[BASE].episodes.mode is not None and atlas is None and episodes.mode is None:
                    # An environment that names modes at success has named none to a policy without.
                    episodes = replace(episodes, mode=np.full(config.n_episodes, -1))
                evaluation, episodes = summarise(runner.env, episodes, atlas)
                tqdm.write(f"{title}: {evaluation.sentence()}")
                bar.update()
                rollout = explore(runner, config.seed)
                path = str(parts[title].pretrained_path)
                side = Side(title, path, runner.policy, runner, episodes, evaluation, rollout)
                bar.update()
                modes = side.counts is not None
                side.starts = by_start(title, runner, episodes, modes, config)
                if modes and side.starts:
                    vary = starts_vary(episodes)  # else they are one state
                    counts = counts_by_state(side.starts, runner.env, atlas) if vary else side.counts[None]
                    side.by_state = counts
                bar.update()
                for way, env in ways.items():
                    side.blocked[way] = attempts(env, runner.policy, config)
                    bar.update()
                sides[title] = side
    base = sides.pop(BASE)
    floor = base.policy.std_floor
    notes, no_probe = {}, ""
    if preset is not None and atlas is None:
        notes["modes_from"] = f"{whose(config)} is not used, the environment names its modes"
    try:
        probe = Probe.choose(
            base.policy, base.rollout.obs, base.rollout.t, base.policy.std_floor, seed=config.seed
        )
    except ValueError as error:  # a base that always acts the same, or chunks of a single number
        probe, no_probe = None, f"the base cannot be probed: {error}"
    numbers, kl = {}, {}
    for name, side in sides.items():
        m = numbers[name] = Metrics()
        m["notes"] |= notes
        modes_from = None if base.counts is None else "atlas" if atlas else "environment"
        describe(m, config, base, side, modes_from)
        measure_conditional(m, "", side.by_state)
        measure_conditional(m, "base_", base.by_state)
        measure_modes(m, side.counts, base.counts)
        measure_tasks(m, side.evaluation.tasks, base.evaluation.tasks)
        inputs = ({"mode_counts": s.counts, "episodes": s.episodes} for s in (side, base))
        measure_registered(m, *inputs)
        measure_paths(m, side.episodes, base.episodes, config.atlas.key)
        measure_ways(m, side.starts, base.starts, config.atlas.key)
        chains = {"reverse": side.rollout, "forward": base.rollout}
        kl[name] = measure_chains(m, side.policy, base.policy, chains, floor)
        measure_probe(m, probe, side.policy, no_probe)
        measure_blocked(m, side.blocked, base.blocked, config.n_attempts)
    for m in numbers.values():
        m["seconds"] = round(time.perf_counter() - start, 1)
    return Comparison(config, base, sides, atlas, probe, numbers, kl)


def describe(m: Metrics, config: EvalPipelineConfig, base: Side, tuned: Side, modes_from: str | None) -> None:
    """Add the conditions of the comparison, and success."""
    source = tuned.policy.module.config
    weights = fetch_weights(tuned.path, source.pretrained_revision, config.trust_remote_code)
    m |= {
        "policy": tuned.path,
        "name": tuned.title,
        "base": base.path,
        "weights": file_hash(weights),
        "revision": source.pretrained_revision,
        "base_revision": base.policy.module.config.pretrained_revision,
        "env": config.env.type,
        "env_options": env_options(config.env),
        "sampler": "deployed",
        "seed": config.seed,
        "n_episodes": config.n_episodes,
        "num_modes": tuned.evaluation.num_modes,
        "modes_from": modes_from,
    }
    m["gained"] = int((tuned.episodes.success & ~base.episodes.success).sum())
    for prefix, side in (("", tuned), ("base_", base)):
        evaluation, episodes = side.evaluation, side.episodes
        m[prefix + "success"], m[prefix + "success_ci"] = evaluation.success, list(evaluation.success_ci)
        m[prefix + "n_success"] = int(episodes.success.sum())
        m[prefix + "max_reward"] = evaluation.max_reward
        if side.counts is not None:
            m[prefix + "unknown"] = m[prefix + "n_success"] - int(side.counts.sum())


def load_policies(
    config: EvalPipelineConfig, parts: dict[str, PreTrainedConfig]
) -> dict[str, DenoisingPolicy]:
    """The policies of `parts`, by name.

    Raises:
        UserError: one is unusable, or not comparable with the base.
    """
    policies: dict[str, DenoisingPolicy] = {}
    for name, part in parts.items():
        trust, renames = config.trust_remote_code, config.rename_map
        policies[name] = load_policy(part, part.pretrained_path, trust=trust, rename_map=renames)
        if name != BASE:
            check_same_actions(policies[BASE], policies[name], config.option(name))
    base, main = policies[BASE], policies[config.name]
    rename_inputs(base, renames_of(base) or renames_of(main))  # what was tuned reads the base's observations
    return policies


def check_same_actions(base: DenoisingPolicy, tuned: DenoisingPolicy, option: str) -> None:
    """Raise a UserError unless both policies send chunks of the same shape by the same denoising steps.

    Args:
        option: how `tuned` was given.
    """
    for name in ("action_dim", "n_action_steps", "horizon", "n_obs_steps"):
        if getattr(base, name) != getattr(tuned, name):
            raise UserError(
                f"--base.path has {name}={getattr(base, name)} and {option} {getattr(tuned, name)}: "
                "they are not comparable, give the policy that was tuned from this base"
            )
    steps, tuned_steps = (policy.kernel.timesteps.tolist() for policy in (base, tuned))
    if steps != tuned_steps or type(base.kernel) is not type(tuned.kernel):
        raise UserError(
            f"--base.path denoises in {len(steps)} steps and {option} in {len(tuned_steps)}, or at other "
            "noise levels: give the base the sampler of the tuned policies, for example "
            f"--base.noise_scheduler_type=DDPM or DDIM and --base.num_inference_steps={len(tuned_steps)}, "
            "and all tuned policies the same one (--policy.num_inference_steps holds for --others too)"
        )


def given_atlas(config: EvalPipelineConfig, sizes: dict[str, int]) -> Atlas | None:
    """The atlas of `--atlas.path`, else the one inside a commanded policy; None where there is neither.

    Args:
        sizes: LeRobot key -> numbers in a vector that the environment gives.

    Raises:
        UserError: it is missing, damaged, or of another environment or observation.
    """
    if config.atlas.path is None:
        own = atlas_inside(config.policy) if config.policy.type == COMMANDED else None
        here = own is not None and own.env == config.env.type and own.key == config.atlas.key
        return own if here and sizes.get(own.key) == own.num_dims else None
    atlas = load_atlas(config.atlas.path, config.env.type, config.atlas.key)
    if atlas.key not in sizes:
        raise UserError(
            f"--atlas.path={config.atlas.path} tells modes by {atlas.key}, which env.type={config.env.type} "
            f"does not give (it gives {', '.join(sizes) or 'no vectors'}): choose another obs_type or atlas"
        )
    atlas.check(config.env.type, atlas.key, sizes[atlas.key])
    return atlas


def whose(config: EvalPipelineConfig) -> str:
    """How the atlas that was given is called."""
    return f"--atlas.path={config.atlas.path}" if config.atlas.path is not None else "the policy's own atlas"


def atlas_for(
    config: EvalPipelineConfig, preset: Atlas | None, episodes: Episodes, tasks: tuple[str, ...] = ()
) -> Atlas | None:
    """None where the environment names modes, else the `preset` or one fitted on the base's episodes."""
    if episodes.mode is not None:
        if preset is not None:
            tqdm.write(f"warning: {whose(config)} is not used, the environment names its modes")
        return None
    if preset is not None:
        return preset
    atlas, message = fit_atlas(config.atlas, config.env.type, [], episodes, tasks)
    tqdm.write(message)
    return atlas


def explore(runner: EpisodeRunner, seed: int) -> Rollout:
    """One round of exploratory episodes."""
    count, floor = runner.env.num_envs, runner.policy.std_floor
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return runner.collect(
            count, runner.seeds(seed, count), lambda condition: runner.policy.sample(condition, floor, floor)
        )


def attempts(env: EnvConfig, policy: DenoisingPolicy, config: EvalPipelineConfig) -> int:
    """Successes of `n_attempts` attempts from one initial state."""
    runner = make_runner(env, policy, min(config.batch_size, config.n_attempts), config.use_async_envs)
    try:
        episodes = play(runner, config.n_attempts, config.seed, attempts=config.n_attempts)
    finally:
        runner.close()
    return int(episodes.success.sum())
