"""Options of DPPO."""

from dataclasses import dataclass

from .base import AlgorithmConfig, check


@AlgorithmConfig.register_subclass("dppo")
@dataclass
class DPPOConfig(AlgorithmConfig):
    """PPO on the denoising chain. Defaults are for state policies with about 10 denoising steps.

    Raises:
        ValueError: a field is out of its range.
    """

    consumes = "rollouts"

    actor_lr: float = 3e-5
    critic_lr: float = 1e-3
    # Passes over the (decision, denoising step) pairs of an iteration.
    update_epochs: int = 4
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
    # Smallest std of the exploration noise, at every denoising step.
    min_sampling_std: float = 0.1
    # Smallest std in log-probabilities.
    min_log_prob_std: float = 0.1
    # DDIM only: noise of the exploration sampler, 0 < eta <= 1 (the deployed sampler keeps eta 0).
    eta: float = 1.0
    # Centre advantages in each minibatch and divide them by their standard deviation, as the paper's code
    # does. Once nearly every episode succeeds the critic lags behind and what is left is mostly noise:
    # centring then punishes half of the successes, dividing makes the noise full-size, and success collapses
    # (recipes/mode_loss.yaml). Without it the scaled return is the unit.
    normalize_advantage: bool = False
    # Smallest std that advantages are divided by, in units of the scaled return; 0 = none.
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
        for name in ("actor_lr", "critic_lr", "min_sampling_std", "min_log_prob_std"):
            check(name, getattr(self, name), getattr(self, name) > 0, "a number > 0")
        for name in ("update_epochs", "minibatch_size"):
            check(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        for name in ("gamma", "gae_lambda", "gamma_denoising"):
            check(name, getattr(self, name), 0 <= getattr(self, name) <= 1, "0 to 1")
        for name in ("clip_coef", "clip_coef_base"):
            check(
                name, getattr(self, name), 0 < getattr(self, name) < 1, "a number in (0, 1), for example 0.1"
            )
        check("clip_coef_rate", self.clip_coef_rate, self.clip_coef_rate >= 0, "a number >= 0")
        check(
            "eta",
            self.eta,
            0 < self.eta <= 1,
            "a number in (0, 1]; without noise there is no log-probability",
        )
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
