"""Options of DPPO."""

from dataclasses import dataclass, field
from typing import Any

from ..balance import BalanceConfig
from ..regularizers.base import RegularizerConfig
from .base import AlgorithmConfig, check

# What a field that is null becomes, for each objective.
DEFAULTS: dict[str, dict[str, Any]] = {
    "chain": {
        "actor_lr": 3e-5,
        "update_epochs": 4,
        "critic_epochs": 1,
        "min_sampling_std": 0.1,
        "eta": 1.0,
    },
    "forward": {
        "actor_lr": 5e-5,
        "update_epochs": 1,
        "critic_epochs": 8,
        "min_sampling_std": 0.0,
        "eta": 0.0,
    },
}


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
    objective: str = None  # type: ignore[assignment]
    # Terms that hold the base's diversity, freely combined, for example
    # [{type: kl_base, coef: 0.01}, {type: rehearsal, coef: 1}].
    regularizers: list[RegularizerConfig] = field(default_factory=list)
    balance: BalanceConfig = field(default_factory=BalanceConfig)
    # forward: weight of the squared distance to the network that collected the data.
    proximal_coef: float = 1.0
    # null = 3e-5 (chain), 5e-5 (forward).
    actor_lr: float = None  # type: ignore[assignment]
    critic_lr: float = 1e-3
    # Passes over the (decision, denoising step) pairs of an iteration; null = 4 (chain), 1 (forward).
    update_epochs: int = None  # type: ignore[assignment]
    # Passes of the critic over the decisions, for each pass of the actor; null = 1 (chain), 8 (forward).
    critic_epochs: int = None  # type: ignore[assignment]
    # (decision, denoising step) pairs in a minibatch of the actor; the critic's has 1 / K' of as many.
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
    # Smallest std of the noise of collection, at every denoising step; null = 0.1 (chain), 0 (forward).
    min_sampling_std: float = None  # type: ignore[assignment]
    # Smallest std in log-probabilities.
    min_log_prob_std: float = 0.1
    # DDIM only: noise of the sampler of collection, 0 to 1 (the deployed sampler keeps eta 0); null = 1
    # (chain, which needs noise), 0 (forward).
    eta: float = None  # type: ignore[assignment]
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
    # Image policies: "shared" reads the policy's own features, "own" trains a copy of the encoder.
    critic_features: str = "shared"
    # Image policies: train the vision encoder too (false encodes each decision once, faster and smaller).
    train_encoder: bool = True
    # Clip the gradient norm of the actor; null = no clipping.
    max_grad_norm: float | None = 1.0

    def __post_init__(self) -> None:
        if self.objective not in (None, *DEFAULTS):
            raise ValueError(
                f"algorithm.objective={self.objective!r} is unknown, choose {' or '.join(DEFAULTS)}, or null"
            )
        for name in ("actor_lr", "critic_lr", "min_log_prob_std"):
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
        std = self.min_sampling_std
        check("min_sampling_std", std, std is None or std >= 0, "a number >= 0")
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
        if self.critic_features not in ("shared", "own"):
            raise ValueError(
                f"algorithm.critic_features={self.critic_features!r} is unknown, choose shared or own"
            )

    def fill(self, objective: str = "chain") -> None:
        """Replace what is null by the objective's defaults, `objective` if none was chosen.

        Raises:
            ValueError: the noise of collection does not fit the objective.
        """
        self.objective = self.objective or objective
        for name, value in DEFAULTS[self.objective].items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        noisy, std, eta = self.objective == "chain", self.min_sampling_std, self.eta
        why = "without noise there is no log-probability"
        check(
            "min_sampling_std",
            std,
            std > 0 or (std == 0 and not noisy),
            f"a number > 0; {why}" if noisy else "a number >= 0",
        )
        check(
            "eta",
            eta,
            0 < eta <= 1 or (eta == 0 and not noisy),
            f"a number in (0, 1]; {why}" if noisy else "a number in [0, 1]",
        )
