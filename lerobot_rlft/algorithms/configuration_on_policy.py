"""Options that algorithms on denoising chains share."""

from dataclasses import dataclass, field

from ..chains.flow import MAX_NOISE_LEVEL
from ..policies.base import DenoisingPolicy, Exploration
from ..regularizers.base import RegularizerConfig
from ..regularizers.mode_balance import BalanceConfig
from ..regularizers.mode_commands import CommandConfig
from ..utils.errors import check
from .base import AlgorithmConfig


@dataclass
class OnPolicyConfig(AlgorithmConfig):
    """Rollouts, a critic, and minibatches of (decision, denoising step) pairs. Defaults are for state
    policies with about 10 denoising steps.

    Raises:
        ValueError: a field is out of its range.
    """

    consumes = "rollouts"

    # Terms that hold the base's diversity, freely combined, for example
    # [{type: kl_base, coef: 0.01}, {type: rehearsal, coef: 1}].
    regularizers: list[RegularizerConfig] = field(default_factory=list)
    balance: BalanceConfig = field(default_factory=BalanceConfig)
    commands: CommandConfig = field(default_factory=CommandConfig)
    actor_lr: float = 3e-5
    critic_lr: float = 1e-3
    # Passes over the (decision, denoising step) pairs of an iteration.
    update_epochs: int = 4
    # Passes of the critic over the decisions, for each pass of the actor.
    critic_epochs: int = 1
    # (decision, denoising step) pairs in a minibatch of the actor; the critic's has 1 / K' of as many,
    # and as many with hybrid.
    minibatch_size: int = 512
    # Discount for each decision (executed chunk).
    gamma: float = 0.99
    gae_lambda: float = 0.95
    # Discount of the advantage towards noisier steps.
    gamma_denoising: float = 0.99
    # Last K' denoising steps that are fine-tuned; null = all. The others are held at the base by anchor_coef.
    finetuned_steps: int | None = None
    # Weight of the squared difference between current and base network outputs at the steps that are not
    # fine-tuned.
    anchor_coef: float = 30.0
    # Smallest std of the noise of collection, at every denoising step; null = 0 where every step of the
    # sampler adds noise by itself, as those of flow policies do, else 0.1.
    min_sampling_std: float | None = None
    # Smallest std in log-probabilities and KLs; null = 0 where every step adds noise by itself, else 0.1.
    min_log_prob_std: float | None = None
    # DDIM only: noise of the sampler of collection, 0 to 1 (the deployed sampler keeps eta 0).
    eta: float = 1.0
    # Flow policies: size of the noise of collection, 0 to 1.5 (the deployed sampler has 0).
    noise_level: float = 0.5
    # Smallest std that advantages are divided by (dppo: with normalize_advantage), in units of the scaled
    # return; 0 = none.
    advantage_std_floor: float = 1.0
    # Divide rewards by the running std of the discounted return.
    scale_reward: bool = True
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
        for name in ("actor_lr", "critic_lr"):
            value = getattr(self, name)
            check(name, value, value > 0, "a number > 0")
        for name in ("update_epochs", "critic_epochs", "minibatch_size"):
            value = getattr(self, name)
            check(name, value, value >= 1, "at least 1")
        check("eta", self.eta, 0 <= self.eta <= 1, "a number in [0, 1]")
        for name in ("min_sampling_std", "min_log_prob_std"):
            std = getattr(self, name)
            check(name, std, std is None or std >= 0, "a number >= 0")
        level = self.noise_level
        wanted = f"0 to {MAX_NOISE_LEVEL}, for example 0.5; with more the SDE explodes"
        check("noise_level", level, 0 <= level <= MAX_NOISE_LEVEL, wanted)
        for name in ("gamma", "gae_lambda", "gamma_denoising"):
            check(name, getattr(self, name), 0 <= getattr(self, name) <= 1, "0 to 1")
        check("anchor_coef", self.anchor_coef, self.anchor_coef >= 0, "a number >= 0")
        check(
            "critic_warmup_iterations",
            self.critic_warmup_iterations,
            self.critic_warmup_iterations >= 0,
            "0 or more",
        )
        check("advantage_std_floor", self.advantage_std_floor, self.advantage_std_floor >= 0, "a number >= 0")
        norm = self.max_grad_norm
        check("max_grad_norm", norm, norm is None or norm > 0, "a number > 0 or null")
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
        return Exploration(eta=self.eta, noise_level=self.noise_level)

    @property
    def commanded(self) -> CommandConfig | None:
        return self.commands if self.commands.enable else None

    def freeze(self, policy: DenoisingPolicy) -> None:
        policy.freeze(self.train_encoder)
