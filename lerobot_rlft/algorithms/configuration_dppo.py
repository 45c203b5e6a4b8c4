"""Options of DPPO."""

from dataclasses import dataclass, field
from typing import Any

from ..chains.flow import MAX_NOISE_LEVEL
from ..policies.base import DenoisingPolicy, Exploration
from ..policies.rlft_commanded.commands import CommandConfig
from ..regularizers.base import RegularizerConfig
from ..regularizers.mode_balance import BalanceConfig
from ..utils.errors import check
from .base import Algorithm, AlgorithmConfig, Parts

# What a field that is null becomes, for each objective.
DEFAULTS: dict[str, dict[str, Any]] = {
    "chain": {
        "actor_lr": 3e-5,
        "update_epochs": 4,
        "critic_epochs": 1,
        "eta": 1.0,
        "noise_level": 0.5,
    },
    "forward": {
        "actor_lr": 5e-5,
        "update_epochs": 1,
        "critic_epochs": 8,
        "eta": 0.0,
        "noise_level": 0.0,
    },
}
HYBRID_NEEDS_ALL = "finetuned_steps=null with it: the step that is trained may be any"
WHY = "without noise there is no log-probability"


# Fields that are null are filled before anything reads them (`fill`); their types are those they then have.
@AlgorithmConfig.register_subclass("dppo")
@dataclass
class DPPOConfig(AlgorithmConfig):
    """Policy gradients on the denoising chain. Defaults are for state policies with about 10 denoising steps.

    Raises:
        ValueError: a field is out of its range.
    """

    consumes = "rollouts"

    @property
    def papers(self) -> list[tuple[str, str]]:
        dppo = ("Diffusion Policy Policy Optimization", "https://arxiv.org/abs/2409.00588")
        nft = ("DiffusionNFT", "https://arxiv.org/abs/2509.16117")
        return [dppo, nft] if self.objective == "forward" else [dppo]

    # "chain": PPO on the sampled chain, which needs exploration noise and log-probabilities. "forward":
    # advantage-weighted regression on executed chunks noised anew (DiffusionNFT), which explores with the
    # deployed sampler. null = chain, or forward under --guard.enable=true.
    objective: str = None
    # Terms that hold the base's diversity, freely combined, for example
    # [{type: kl_base, coef: 0.01}, {type: rehearsal, coef: 1}].
    regularizers: list[RegularizerConfig] = field(default_factory=list)
    balance: BalanceConfig = field(default_factory=BalanceConfig)
    commands: CommandConfig = field(default_factory=CommandConfig)
    # forward: weight of the squared distance to the network that collected the data.
    proximal_coef: float = 1.0
    # null = 3e-5 (chain), 5e-5 (forward).
    actor_lr: float = None
    critic_lr: float = 1e-3
    # Passes over the (decision, denoising step) pairs of an iteration; null = 4 (chain), 1 (forward).
    update_epochs: int = None
    # Passes of the critic over the decisions, for each pass of the actor; null = 1 (chain), 8 (forward).
    critic_epochs: int = None
    # (decision, denoising step) pairs in a minibatch of the actor; the critic's has 1 / K' of as many,
    # and as many with hybrid.
    minibatch_size: int = 512
    # Discount for each decision (executed chunk).
    gamma: float = 0.99
    gae_lambda: float = 0.95
    # Discount of the advantage towards noisier steps.
    gamma_denoising: float = 0.99
    # PPO clip range: clip_coef at the last denoising step, clip_coef_base at the noisiest, exponential in
    # between.
    clip_coef: float = 0.1
    clip_coef_base: float = 0.1
    clip_coef_rate: float = 1.0
    # Last K' denoising steps that are fine-tuned; null = all. The others are held at the base by anchor_coef.
    finetuned_steps: int | None = None
    # Weight of the squared difference between current and base network outputs at the steps that are not
    # fine-tuned.
    anchor_coef: float = 30.0
    # Smallest std of the noise of collection, at every denoising step; null = 0 (forward, and chain where
    # every step of the sampler adds noise by itself, as those of flow policies do), else 0.1.
    min_sampling_std: float = None
    # Smallest std in log-probabilities and KLs; null = 0 where every step adds noise by itself, else 0.1.
    min_log_prob_std: float = None
    # DDIM only: noise of the sampler of collection, 0 to 1 (the deployed sampler keeps eta 0); null = 1
    # (chain, which needs noise), 0 (forward).
    eta: float = None
    # Flow policies, chain: "sde" adds the noise of an SDE with the marginals of the flow (Flow-SDE), "head"
    # adds noise whose std is learned (Flow-Noise, ReinFlow). Deployed is the noise-free flow with both.
    flow_noise: str = "sde"
    # flow_noise=sde: size of its noise, 0 to 1.5 (the deployed sampler has 0); null = 0.5 (chain),
    # 0 (forward).
    noise_level: float = None
    # flow_noise=head: smallest and largest std of a step.
    noise_std_range: tuple[float, float] = (0.08, 0.16)
    # Flow policies, chain: one random step of each chain adds noise and is trained, the others follow the
    # flow; an update then costs 1 / K of that of whole chains.
    hybrid: bool = False
    # Centre advantages in each minibatch and divide them by their standard deviation, as the paper's code
    # does. Once nearly every episode succeeds the critic lags behind and what is left is mostly noise:
    # centring then punishes half of the successes, dividing makes the noise full-size, and success collapses
    # (recipes/mode_loss.yaml). Without it the scaled return is the unit.
    normalize_advantage: bool = False
    # Smallest std that advantages are divided by (forward, and chain with normalize_advantage), in units of
    # the scaled return; 0 = none.
    advantage_std_floor: float = 1.0
    # Divide rewards by the running std of the discounted return.
    scale_reward: bool = True
    # Stop the epochs of an iteration when the approximate KL of a minibatch exceeds this; null = never.
    target_kl: float | None = 1.0
    # Iterations that train only the critic.
    critic_warmup_iterations: int = 0
    critic_hidden_dims: tuple[int, ...] = (256, 256, 256)
    # Image policies: "shared" reads the policy's own features (of pi0, pi05 and smolvla the mean token of the
    # prefix, and the state of pi0), "own" trains a copy of the encoder, "expert" reads the action expert of
    # those three, asked about pure noise at 0.
    critic_features: str = "shared"
    # Image policies: train the vision encoder too (false encodes each decision once, faster and smaller);
    # null = true, but false for the vision-language model of pi0, pi05 and smolvla.
    train_encoder: bool | None = None
    # Clip the gradient norm of the actor; null = no clipping.
    max_grad_norm: float | None = 1.0

    def __post_init__(self) -> None:
        if self.objective not in (None, *DEFAULTS):
            raise ValueError(
                f"algorithm.objective={self.objective!r} is unknown, choose {' or '.join(DEFAULTS)}, or null"
            )
        for name in ("actor_lr", "critic_lr"):
            value = getattr(self, name)
            check(name, value, value is None or value > 0, "a number > 0")
        for name in ("update_epochs", "critic_epochs", "minibatch_size"):
            value = getattr(self, name)
            check(name, value, value is None or value >= 1, "at least 1")
        check("proximal_coef", self.proximal_coef, self.proximal_coef >= 0, "a number >= 0")
        if self.objective is not None:
            self.fill()
        # What no objective allows; whether 0 is allowed is known once the objective is.
        check("eta", self.eta, self.eta is None or 0 <= self.eta <= 1, "a number in [0, 1]")
        for name in ("min_sampling_std", "min_log_prob_std"):
            std = getattr(self, name)
            check(name, std, std is None or std >= 0, "a number >= 0")
        if self.flow_noise not in ("sde", "head"):
            raise ValueError(f"algorithm.flow_noise={self.flow_noise!r} is unknown, choose sde or head")
        level, (low, high) = self.noise_level, self.noise_std_range
        wanted = f"0 to {MAX_NOISE_LEVEL}, for example 0.5; with more the SDE explodes"
        check("noise_level", level, level is None or 0 <= level <= MAX_NOISE_LEVEL, wanted)
        wanted = "two numbers > 0, the smaller first, for example [0.08, 0.16]"
        check("noise_std_range", self.noise_std_range, 0 < low < high, wanted)
        check("hybrid", self.hybrid, not self.hybrid or self.finetuned_steps is None, HYBRID_NEEDS_ALL)
        for name in ("gamma", "gae_lambda", "gamma_denoising"):
            check(name, getattr(self, name), 0 <= getattr(self, name) <= 1, "0 to 1")
        for name in ("clip_coef", "clip_coef_base"):
            check(
                name, getattr(self, name), 0 < getattr(self, name) < 1, "a number in (0, 1), for example 0.1"
            )
        check("clip_coef_rate", self.clip_coef_rate, self.clip_coef_rate >= 0, "a number >= 0")
        check("anchor_coef", self.anchor_coef, self.anchor_coef >= 0, "a number >= 0")
        check(
            "critic_warmup_iterations",
            self.critic_warmup_iterations,
            self.critic_warmup_iterations >= 0,
            "0 or more",
        )
        check("advantage_std_floor", self.advantage_std_floor, self.advantage_std_floor >= 0, "a number >= 0")
        for name in ("target_kl", "max_grad_norm"):
            value = getattr(self, name)
            check(name, value, value is None or value > 0, "a number > 0 or null")
        steps = self.finetuned_steps
        check(
            "finetuned_steps",
            steps,
            steps is None or steps >= 1,
            "1 to the policy's number of denoising steps",
        )
        check(
            "critic_hidden_dims",
            self.critic_hidden_dims,
            min(self.critic_hidden_dims, default=1) >= 1,
            "sizes >= 1",
        )
        if self.critic_features not in ("shared", "own", "expert"):
            raise ValueError(
                f"algorithm.critic_features={self.critic_features!r} is unknown, choose shared, own or expert"
            )

    @property
    def exploration(self) -> Exploration:
        """The sampler of collection; of a filled configuration."""
        return Exploration(self.eta, self.flow_noise, self.noise_level, self.noise_std_range, self.hybrid)

    @property
    def commanded(self) -> CommandConfig | None:
        return self.commands if self.commands.enable else None

    def freeze(self, policy: DenoisingPolicy) -> None:
        policy.freeze(self.train_encoder)

    def build(self, parts: Parts) -> Algorithm:
        from .dppo import DPPO  # which reads this file

        if parts.base is None:
            raise ValueError("algorithm.type=dppo holds to a pretrained policy and was given none")
        regularizers = parts.regularizers(self.regularizers)
        return DPPO(self, parts.policy, parts.base, parts.backward, regularizers)

    def fill(self, objective: str = "chain") -> None:
        """Replace what is null by the objective's defaults, `objective` if none was chosen.

        Raises:
            ValueError: the noise of collection does not fit the objective.
        """
        self.objective = self.objective or objective
        for name, value in DEFAULTS[self.objective].items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        if self.objective == "chain":
            check("eta", self.eta, self.eta > 0, f"a number in (0, 1]; {WHY}")
            check("noise_level", self.noise_level, self.noise_level > 0, f"a number in (0, 1.5]; {WHY}")
        else:
            why = "with objective=forward, which trains no noise"
            check("flow_noise", self.flow_noise, self.flow_noise == "sde", f"sde {why}")
            check("hybrid", self.hybrid, not self.hybrid, f"false {why}")

    def fit(self, floor: float) -> None:
        """Fill the floors that are null for a sampler that needs `floor` (`DenoisingPolicy.std_floor`).

        Raises:
            ValueError: a step would have no noise although the objective needs it.
        """
        chain = self.objective == "chain"
        if self.min_sampling_std is None:
            self.min_sampling_std = floor if chain else 0.0
        if self.min_log_prob_std is None:
            self.min_log_prob_std = floor
        std = self.min_sampling_std
        check("min_sampling_std", std, std > 0 or not (chain and floor), f"a number > 0; {WHY}")
        std = self.min_log_prob_std
        check(
            "min_log_prob_std", std, std > 0 or not floor, "a number > 0; this sampler has noise-free steps"
        )
