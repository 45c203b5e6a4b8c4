"""Branching states at which a policy is compared with its base while it trains.

The states are chosen once, on the base, and kept: base and tuned policy act there from the same noise.
Shapes: P probe states, N chunks at each, K denoising steps, H horizon, D action dim.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..metrics.chain_kl import chain_kl
from ..metrics.spread import mean_pairwise_distance, num_peaks, residual_ratio, spread_ratio
from ..policies.base import DenoisingPolicy
from ..utils.errors import UserError
from ..utils.files import replacing

CANDIDATES = 64  # states looked at, at most
LARGE = 30_000_000  # parameters of a denoising network from which the probe is a small one
RESIDUAL_TIME = (0.05, 0.3)  # share of the noise schedule at which the off-manifold residual is measured


@dataclass(frozen=True)
class ProbeSize:
    """How much of a policy a probe asks for.

    Attributes:
        states, chunks: P and N; 128 chunks are what counting peaks needs, and 20 the least.
        chains: of the base at each state, for the forward KL.
        candidates, candidate_chunks: states looked at to choose P of them, and chunks at each.
    """

    states: int = 4
    chunks: int = 128
    chains: int = 32
    candidates: int = CANDIDATES
    candidate_chunks: int = 16

    def rows(self, num_steps: int) -> tuple[int, int]:
        """Rows that denoising networks see to choose and prepare a probe, and in each measurement."""
        chunks, chains = self.states * self.chunks, self.states * self.chains
        candidates = self.candidates * self.candidate_chunks * num_steps
        return candidates + (chunks + chains) * num_steps + chunks, (chunks + 2 * chains) * num_steps + chunks


FULL = ProbeSize()
SMALL = ProbeSize(states=2, chunks=32, chains=8, candidates=16, candidate_chunks=4)  # a tenth of the rows


def probe_size(policy: DenoisingPolicy) -> ProbeSize:
    """`SMALL` for a network of `LARGE` or more parameters, whose probe would outlast an iteration."""
    count = sum(p.numel() for p in policy.module.parameters())
    count -= sum(p.numel() for p in policy.encoder.parameters()) if policy.encoder is not None else 0
    return FULL if count < LARGE else SMALL


@dataclass
class ProbeReading:
    """The tuned policy beside its base at the probe states.

    Attributes:
        chunk_spread: mean pairwise distance of deployed chunks, tuned / base, from the same noise.
        peaks, base_peaks: mean number of peaks of the chunks over the states.
        off_manifold: residual of the base's denoiser on tuned chunks / on its own (`residual_ratio`).
        kl_forward: (K,) KL(base || tuned) of each denoising step on chains of the base, nats.
    """

    chunk_spread: float
    peaks: float
    base_peaks: float
    off_manifold: float
    kl_forward: list[float]


class Probe:
    """See the module.

    Args:
        base: the frozen pretrained policy.
        obs: LeRobot key -> (P, S, ...), as a rollout stores them.
        floor: smallest std of exploration and log-probabilities.
        size: its states are those of `obs`.
    """

    def __init__(
        self,
        base: DenoisingPolicy,
        obs: dict[str, Tensor],
        floor: float,
        size: ProbeSize = FULL,
        seed: int = 0,
    ) -> None:
        self.base, self.obs, self.floor, self.size, self.seed = base, obs, floor, size, seed
        self.condition = encode(base, obs, seed)  # (P, C)
        self.base_chunks = deployed_chunks(base, self.condition, size.chunks, seed)  # (P, N, H, D)
        self.base_peaks = self._peaks(self.base_chunks)
        self.base_residual = residuals(base, self.condition, self.base_chunks, seed)  # (P N,)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.base_chains = base.sample(self.condition.repeat_interleave(size.chains, 0), floor, floor).x

    @classmethod
    def choose(
        cls,
        base: DenoisingPolicy,
        obs: dict[str, Tensor],
        t: Tensor,
        floor: float,
        size: ProbeSize = FULL,
        seed: int = 0,
    ) -> "Probe":
        """Take the states where the base's chunks spread most, each from another decision of an episode.

        Args:
            obs: LeRobot key -> (D, S, ...) of decisions of the base.
            t: (D,) which decision of its episode each is.
        """
        generator = torch.Generator().manual_seed(seed)
        candidates = torch.randperm(len(t), generator=generator)[: size.candidates]
        condition = encode(base, {key: value[candidates] for key, value in obs.items()}, seed)
        chunks_there = deployed_chunks(base, condition, size.candidate_chunks, seed)
        spread = [mean_pairwise_distance(base.executed(chunk)).value for chunk in chunks_there]
        by_step: dict[int, int] = {}
        for i in sorted(range(len(candidates)), key=lambda i: -spread[i]):
            by_step.setdefault(int(t[candidates[i]]), int(candidates[i]))
        rows = list(by_step.values())[: size.states]
        return cls(base, {key: value[rows].clone() for key, value in obs.items()}, floor, size, seed)

    @torch.no_grad()
    def measure(self, policy: DenoisingPolicy) -> ProbeReading:
        """Compare `policy` with the base; the global random state stays as it was.

        K network calls for the chunks, 2 K for the forward KL and one of the base for the residual.
        """
        condition = encode(policy, self.obs, self.seed)
        chunks = deployed_chunks(policy, condition, self.size.chunks, self.seed)
        rows = [c.repeat_interleave(self.size.chains, 0) for c in (condition, self.condition)]
        forward = chain_kl(
            lambda x, k: self.base.transition(x, k, rows[1]),
            lambda x, k: policy.transition(x, k, rows[0]),
            self.base_chains,
            policy.executed,
            self.floor,
        )
        return ProbeReading(
            chunk_spread=spread_ratio(
                torch.stack([policy.executed(c) for c in chunks]),
                torch.stack([policy.executed(c) for c in self.base_chunks]),
            ).value,
            peaks=self._peaks(chunks),
            base_peaks=self.base_peaks,
            off_manifold=residual_ratio(
                residuals(self.base, self.condition, chunks, self.seed), self.base_residual
            ),
            kl_forward=forward.tolist(),
        )

    def _peaks(self, chunks: Tensor) -> float:
        peaks = [num_peaks(self.base.executed(state)).value for state in chunks]
        return sum(peaks) / len(peaks)

    def save(self, path: Path) -> None:
        """Write the observations; what the base does there comes out the same again."""
        with replacing(path) as partial:
            save_file({key: value.contiguous() for key, value in self.obs.items()}, partial)

    @classmethod
    def load(
        cls, path: Path, base: DenoisingPolicy, floor: float, size: ProbeSize = FULL, seed: int = 0
    ) -> "Probe":
        """Read what `save` wrote.

        Raises:
            UserError: it is missing or damaged.
        """
        try:
            obs = load_file(path)
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"the probe states {path} are missing or damaged ({error}): put the file back, or start a "
                "new run"
            ) from error
        return cls(base, obs, floor, size, seed)


@torch.no_grad()
def encode(policy: DenoisingPolicy, obs: dict[str, Tensor], seed: int = 0) -> Tensor:
    """(P, C); what the policy draws for it, such as commands, leaves the global random state as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return policy.encode(obs)


def deployed_chunks(policy: DenoisingPolicy, condition: Tensor, count: int, seed: int) -> Tensor:
    """`count` chunks of the deployed sampler at each of P conditions, (P, count, H, D).

    Every policy gets the same noise for a seed; the global random state stays as it was.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        chunks = policy.deployed_chunk(condition.repeat_interleave(count, 0))
    return chunks.unflatten(0, (len(condition), count))


@torch.no_grad()
def residuals(base: DenoisingPolicy, condition: Tensor, chunks: Tensor, seed: int) -> Tensor:
    """Squared errors of the base's denoiser on noised chunks, (P N,); the same noise for a seed.

    The noise levels are those steps of the sampler that lie in `RESIDUAL_TIME`, or the nearest one.

    Args:
        condition: (P, C) of the base.
        chunks: (P, N, H, D).
    """
    kernel = base.kernel
    low, high = RESIDUAL_TIME
    levels = ((kernel.noise_time >= low) & (kernel.noise_time <= high)).nonzero().flatten()
    if not len(levels):
        levels = (kernel.noise_time - (low + high) / 2).abs().argmin()[None]
    flat = chunks.flatten(0, 1)
    generator = torch.Generator().manual_seed(seed)
    k = levels[torch.randint(len(levels), (len(flat),), generator=generator).to(flat.device)]
    noise = torch.randn(flat.shape, generator=generator).to(flat.device)
    x, target = kernel.noised(flat, k, noise)
    error = base.predict(x, kernel.timesteps[k], condition.repeat_interleave(chunks.shape[1], 0)) - target
    return base.executed(error.square()).flatten(1).mean(1)
