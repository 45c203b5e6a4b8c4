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

    # Penalties and rewards that keep the policy as diverse as its base, freely combined: entropy, kl_base,
    # manifold_ensemble and rehearsal, for example [{type: kl_base, coef: 0.01}, {type: rehearsal, coef: 1}].
    regularizers: list[RegularizerConfig] = field(default_factory=list)
    # Advantages that are balanced between modes of behaviour; modes come from the environment or the atlas.
    balance: BalanceConfig = field(default_factory=BalanceConfig)
    # Training of a policy that is told, for each episode, in which mode to act.
    commands: CommandConfig = field(default_factory=CommandConfig)
    # Learning rate of the policy.
    actor_lr: float = 3e-5
    # Learning rate of the critic.
    critic_lr: float = 1e-3
    # Passes of the policy over the experience of an iteration.
    update_epochs: int = 4
    # Passes of the critic over the experience, for each pass of the policy.
    critic_epochs: int = 8
    # Pairs of a decision and a denoising step in a minibatch of the policy. The critic's minibatch has this
    # many decisions, divided by the number of denoising steps trained on each.
    minibatch_size: int = 512
    # Discount of rewards for each decision, that is for each executed chunk of actions.
    gamma: float = 0.99
    # Trade-off of generalized advantage estimation: 0 trusts the critic, 1 the observed returns.
    gae_lambda: float = 0.95
    # Discount of the advantage for each denoising step further from the final action.
    gamma_denoising: float = 0.99
    # Number of final denoising steps that are fine-tuned; null = all. The earlier steps are held at the base
    # by anchor_coef.
    finetuned_steps: int | None = None
    # Weight of the squared difference to the outputs of the base at the denoising steps that are not
    # fine-tuned.
    anchor_coef: float = 30.0
    # Weight of the squared difference of network outputs in the part of a chunk that is not executed, of
    # which no reward speaks: to the base, for nft to the network that collected the data.
    tail_coef: float = 1.0
    # Smallest standard deviation of the exploration noise at every denoising step; null = 0 where the sampler
    # adds noise at every step by itself, as those of flow policies do, else 0.1. With 0, steps without noise
    # of their own, as the last of a diffusion sampler, are left out of the policy gradient of dppo.
    min_sampling_std: float | None = None
    # Smallest standard deviation in log-probabilities and KL divergences; null = 0 where the sampler adds
    # noise at every step by itself, else 0.1, or with min_sampling_std=0 the smallest noise of the sampler.
    min_log_prob_std: float | None = None
    # Noise of the DDIM sampler that collects experience, from 0 to 1; the deployed sampler has eta 0.
    eta: float = 1.0
    # Size of the noise with which flow policies collect experience, from 0 to 1.5; the deployed sampler has
    # none.
    noise_level: float = 0.5
    # Smallest standard deviation that advantages are divided by, in units of the scaled return; 0 = none. It
    # matters to dppo only with normalize_advantage.
    advantage_std_floor: float = 1.0
    # Whether to divide rewards by the running standard deviation of the discounted return.
    scale_reward: bool = True
    # Number of first iterations that train only the critic.
    critic_warmup_iterations: int = 0
    # Widths of the critic's hidden layers.
    critic_hidden_dims: tuple[int, ...] = (256, 256, 256)
    # Features that the critic reads of image policies: "shared" are the policy's own (of pi0, pi05 and
    # smolvla the mean token of the prefix, and the state of pi0), "own" trains a copy of the encoder,
    # "expert" reads the action expert of those three at pure noise.
    critic_features: str = "shared"
    # Whether to train the vision encoder of image policies; false encodes each decision once, which is faster
    # and takes less memory. null = true, but false for the vision-language model of pi0, pi05 and smolvla.
    train_encoder: bool | None = None
    # Largest norm of the policy's gradient, which is clipped to it; null = no clipping.
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
        choice = f"0 to {MAX_NOISE_LEVEL}, for example 0.5; with more the SDE explodes"
        check("noise_level", level, 0 <= level <= MAX_NOISE_LEVEL, choice)
        for name in ("gamma", "gae_lambda", "gamma_denoising"):
            check(name, getattr(self, name), 0 <= getattr(self, name) <= 1, "0 to 1")
        for name in ("anchor_coef", "tail_coef"):
            check(name, getattr(self, name), getattr(self, name) >= 0, "a number >= 0")
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
