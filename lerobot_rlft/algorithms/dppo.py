"""DPPO: PPO on the denoising chain of a diffusion policy (arXiv:2409.00588).

Every denoising step of every decision is an action of a two-level MDP; its advantage is that of the decision,
discounted towards the noisy end. `k` counts steps as in `chains`: 0 is the last, K-1 the noisiest. With
K' < K only steps k < K' get the policy gradient; there is still one network for all steps, and the others are
anchored to the base, so that the result stays an ordinary checkpoint.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..advantages import RewardScaler, clip_schedule, denoising_discount, gae
from ..chains import kl_divergence, step_log_prob
from ..critics import ValueMLP, explained_variance
from ..errors import RatioError
from ..policies.base import DenoisingPolicy
from ..regularizers.base import Experience
from .base import Algorithm, check, check_finite
from .configuration_dppo import DPPOConfig

ENCODE_BATCH = 1024  # decisions encoded at once where no gradient is needed
KL_PAIRS = 256  # (decision, step) pairs on which the KL to the base is measured

Encode = Callable[[DenoisingPolicy, Tensor], Tensor]  # a policy's features of some decisions


class DPPO(Algorithm):
    """The update of DPPO.

    Args:
        config: see there.
        policy: fine-tuned in place.
        base: the frozen pretrained policy. It is called for the anchor (K' < K) and on `KL_PAIRS` pairs an
            iteration.
        backward: backward pass of a loss, `accelerator.backward`.

    Raises:
        ValueError: `finetuned_steps` exceeds the chain.
    """

    def __init__(
        self,
        config: DPPOConfig,
        policy: DenoisingPolicy,
        base: DenoisingPolicy,
        backward: Callable[[Tensor], None] = torch.Tensor.backward,
    ) -> None:
        self.config, self.policy, self.base, self.backward = config, policy, base, backward
        self.num_steps = policy.kernel.num_steps
        self.finetuned = config.finetuned_steps or self.num_steps
        check("finetuned_steps", self.finetuned, self.finetuned <= self.num_steps, f"1 to {self.num_steps}")
        self.device = policy.kernel.timesteps.device
        self.discount = denoising_discount(self.finetuned, config.gamma_denoising).to(self.device)  # (K',)
        self.clip = clip_schedule(
            self.finetuned, config.clip_coef, config.clip_coef_base, config.clip_coef_rate
        ).to(self.device)
        policy.freeze(train_encoder=config.train_encoder)
        own_encoder = config.critic_features == "own" and policy.encoder is not None
        self.critic_encoder = policy.copy_encoder() if own_encoder else None
        self.critic = ValueMLP(policy.condition_dim, config.critic_hidden_dims).to(self.device)
        self.critic_weights = nn.ModuleDict({"critic": self.critic})
        if self.critic_encoder is not None and self.critic_encoder.encoder is not None:
            # Trained also where the policy's own is frozen.
            self.critic_weights["encoder"] = self.critic_encoder.encoder.requires_grad_(True)
        self.actor_optimizer = torch.optim.AdamW(
            policy.trainable_parameters(), lr=config.actor_lr, weight_decay=0.0, fused=True
        )
        self.critic_optimizer = torch.optim.AdamW(
            self.critic_weights.parameters(), lr=config.critic_lr, weight_decay=0.0, fused=True
        )
        self.reward_scaler = RewardScaler(config.gamma)
        self.iterations_done = 0

    def update(self, data: Experience) -> dict[str, Any]:
        """One iteration of DPPO on whole episodes.

        Raises:
            FloatingPointError: a reward is NaN or inf, then nothing has changed; or a loss or gradient is,
                then the weights are still those before the bad step.
            RatioError: the first minibatch's probability ratio is not 1.
        """
        check_finite("a reward", data.reward, "fix the environment, nothing was learned from it")
        config, chain = self.config, data.chain
        decisions = len(chain.x)
        encode_once = self.policy.encoder is None or not config.train_encoder
        with torch.no_grad():
            condition = self._encode_all(self.policy, data.obs, decisions)  # (D, C)
            value = self._value_all(data.obs, condition)  # (D,)
            final_condition = self._encode_all(self.policy, data.final_obs, len(data.terminated))
            final_value = self._value_all(data.final_obs, final_condition)
        reward = self.reward_scaler(data.reward, data.valid) if config.scale_reward else data.reward
        advantage, target = gae(
            reward,
            data.grid(value.cpu()),
            final_value.cpu(),
            data.terminated,
            data.valid,
            config.gamma,
            config.gae_lambda,
        )
        advantage = advantage[data.t, data.episode].to(self.device)  # (D,)
        target = target[data.t, data.episode].to(self.device)

        def encode(policy: DenoisingPolicy, rows: Tensor) -> Tensor:
            return condition[rows] if encode_once else policy.encode(_rows(data.obs, rows))

        train_actor = self.iterations_done >= config.critic_warmup_iterations
        log = _Mean()
        stop = False
        for epoch in range(config.update_epochs):
            minibatches = torch.randperm(decisions * self.finetuned, device=self.device).split(
                config.minibatch_size
            )
            # A value belongs to a decision, not to its K' steps: the critic sees each decision once an epoch.
            value_rows = torch.randperm(decisions, device=self.device).tensor_split(len(minibatches))
            for i, (pair, rows) in enumerate(zip(minibatches, value_rows, strict=True)):
                if len(rows):  # fewer decisions than minibatches leave some without
                    log.add(value_loss=self._critic_step(data.obs, condition, rows, target[rows]))
                if not train_actor or stop:
                    continue
                rows, k = pair // self.finetuned, pair % self.finetuned
                normal = self.policy.transition(chain.x[rows, k + 1], k, encode(self.policy, rows))
                new = step_log_prob(normal, chain.x[rows, k], self.policy.executed, config.min_log_prob_std)
                log_ratio = new - chain.log_prob[rows, k]
                if epoch == 0 and i == 0:
                    log.add(first_ratio_error=check_first_ratio(log_ratio))
                a = advantage[rows]
                if config.normalize_advantage:
                    a = (a - a.mean()) / (a.std(unbiased=False).clamp(min=config.advantage_std_floor) + 1e-8)
                loss, clipped = ppo_loss(log_ratio, a * self.discount[k], self.clip[k])
                if self.finetuned < self.num_steps and config.anchor_coef > 0:
                    anchor = self._anchor_loss(chain.x, encode, len(rows))
                    log.add(anchor_loss=anchor)
                    loss = loss + config.anchor_coef * anchor
                approx_kl = (
                    ((log_ratio.exp() - 1) - log_ratio).mean().item()
                )  # http://joschu.net/blog/kl-approx.html
                grad_norm = self._descend(loss, self.actor_optimizer, config.max_grad_norm)
                log.add(policy_loss=loss, clip_fraction=clipped, approx_kl=approx_kl, grad_norm=grad_norm)
                stop = config.target_kl is not None and approx_kl > config.target_kl
        self.iterations_done += 1
        kl = self._kl_to_base(chain.x, encode)
        return log.result() | {
            "explained_variance": explained_variance(value, target),
            "value_mean": value.mean().item(),
            "advantage_std": advantage.std(unbiased=False).item(),
            "kl_to_base": sum(kl) / len(kl),
            "kl_by_step": kl,
            "decisions": float(decisions),
        }

    @torch.no_grad()
    def _kl_to_base(self, x: Tensor, encode: Encode) -> list[float]:
        """KL(current || base) of each fine-tuned denoising step in nats, summed over the executed chunk."""
        count = min(len(x), max(1, KL_PAIRS // self.finetuned))
        rows = (
            torch.linspace(0, len(x) - 1, count, device=self.device).long().repeat_interleave(self.finetuned)
        )
        k = torch.arange(self.finetuned, device=self.device).repeat(count)
        current, base = (p.transition(x[rows, k + 1], k, encode(p, rows)) for p in (self.policy, self.base))
        kl = kl_divergence(current, base, self.policy.executed, self.config.min_log_prob_std)
        return kl.view(count, self.finetuned).mean(0).tolist()

    def _anchor_loss(self, x: Tensor, encode: Encode, count: int) -> Tensor:
        """Squared difference of network outputs to the base at random steps that are not fine-tuned."""
        rows = torch.randint(len(x), (count,), device=self.device)
        k = torch.randint(self.finetuned, self.num_steps, (count,), device=self.device)
        noisy, timestep = x[rows, k + 1], self.policy.kernel.timesteps[k]
        with torch.no_grad():
            wanted = self.base.predict(noisy, timestep, encode(self.base, rows))
        return (self.policy.predict(noisy, timestep, encode(self.policy, rows)) - wanted).square().mean()

    def _critic_step(self, obs: dict[str, Tensor], condition: Tensor, rows: Tensor, target: Tensor) -> float:
        features = condition[rows]  # "shared": the policy's features as they were when the iteration began
        if self.critic_encoder is not None:
            features = self.critic_encoder.encode(_rows(obs, rows))
        loss = 0.5 * (self.critic(features) - target).square().mean()
        self._descend(loss, self.critic_optimizer, None)
        return loss.item()

    def _descend(self, loss: Tensor, optimizer: torch.optim.Optimizer, max_grad_norm: float | None) -> float:
        advice = (
            f"lower algorithm.actor_lr={self.config.actor_lr} or "
            f"algorithm.critic_lr={self.config.critic_lr}, or check the scale of the environment's rewards"
        )
        check_finite("a loss of algorithm.type=dppo", loss, advice)
        optimizer.zero_grad(set_to_none=True)
        self.backward(loss)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm or math.inf)
        check_finite("a gradient of algorithm.type=dppo", norm, advice)
        optimizer.step()
        return norm.item()

    def _encode_all(self, policy: DenoisingPolicy, obs: dict[str, Tensor], count: int) -> Tensor:
        parts = range(0, count, ENCODE_BATCH)
        return torch.cat([policy.encode({k: v[i : i + ENCODE_BATCH] for k, v in obs.items()}) for i in parts])

    def _value_all(self, obs: dict[str, Tensor], condition: Tensor) -> Tensor:
        if self.critic_encoder is not None:
            condition = self._encode_all(self.critic_encoder, obs, len(condition))
        return self.critic(condition)

    def state_dict(self) -> dict[str, Any]:
        return {
            "critic": self.critic_weights.state_dict(),
            "actor_optimizer": self.actor_optimizer.state_dict(),
            "critic_optimizer": self.critic_optimizer.state_dict(),
            "reward_scaler": self.reward_scaler.state_dict(),
            "iterations_done": self.iterations_done,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.critic_weights.load_state_dict(state["critic"])
        self.actor_optimizer.load_state_dict(state["actor_optimizer"])
        self.critic_optimizer.load_state_dict(state["critic_optimizer"])
        # The rates of this configuration, not those that were saved: a resume may want smaller steps.
        self.actor_optimizer.param_groups[0]["lr"] = self.config.actor_lr
        self.critic_optimizer.param_groups[0]["lr"] = self.config.critic_lr
        self.reward_scaler.load_state_dict(state["reward_scaler"])
        self.iterations_done = state["iterations_done"]


def ppo_loss(log_ratio: Tensor, advantage: Tensor, clip: Tensor) -> tuple[Tensor, float]:
    """Clipped surrogate (arXiv:1707.06347, eq. 7) with one clip range for each row, all (B,).

    Returns:
        the loss and the share of rows whose ratio left its range.
    """
    ratio = log_ratio.exp()
    clipped_ratio = torch.minimum(torch.maximum(ratio, 1 - clip), 1 + clip)
    loss = torch.maximum(-advantage * ratio, -advantage * clipped_ratio).mean()
    return loss, ((ratio - 1).abs() > clip).float().mean().item()


def check_first_ratio(log_ratio: Tensor) -> float:
    """Largest |ratio - 1| of the first minibatch, whose weights are still those that collected the data.

    Raises:
        RatioError: it exceeds 1e-4, so sampling and re-evaluation disagree; the message lists likely causes.
    """
    error = (log_ratio.exp() - 1).abs().max().item()
    if not error <= 1e-4:
        raise RatioError(
            f"the first probability ratio of this iteration is off by {error:.2e}, it must be 1 within 1e-4. "
            "Likely causes: the policy is in train mode (dropout, random crops, batch norm), sampling and "
            "log-probabilities use different time grids or std floors, weights changed between collection "
            "and update, or the policy computes in half precision (use float32)."
        )
    return error


def _rows(obs: dict[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    return {key: value[rows.to(value.device)] for key, value in obs.items()}


class _Mean:
    """Means of the metrics of an iteration's minibatches."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {}

    def add(self, **metrics: Tensor | float) -> None:
        for name, value in metrics.items():
            self.values.setdefault(name, []).append(value.item() if isinstance(value, Tensor) else value)

    def result(self) -> dict[str, float]:
        return {name: sum(values) / len(values) for name, values in self.values.items()}
