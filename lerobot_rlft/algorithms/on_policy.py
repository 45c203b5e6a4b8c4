"""The common part of algorithms on denoising chains: advantages, critic, minibatches, what holds diversity.

Every denoising step of every decision is an action of a two-level MDP (arXiv:2409.00588); its advantage is
that of the decision, discounted towards the noisy end. `k` counts steps as in `chains`: 0 is the last, K-1
the noisiest. With K' < K only steps k < K' are fine-tuned; there is still one network for all steps, and the
others are anchored to the base, so that the result stays an ordinary checkpoint.

What holds diversity is one list, `regularizers`: commands, the terms of `algorithm.regularizers`, and the
balance of modes; how strong they are may be moved from outside (`hold`). Shapes: B (decision, denoising
step) pairs, D decisions, K denoising steps, H horizon, A action dim.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ..chains.chain import Chain
from ..critics.advantages import RewardScaler, gae
from ..critics.networks import explained_variance
from ..critics.state_value import Critic
from ..policies.base import DenoisingPolicy
from ..regularizers.base import Experience, Regularizer, Step
from ..regularizers.holders import Holders
from ..regularizers.mode_balance import ModeBalance
from ..regularizers.mode_commands import ModeCommands
from ..utils.errors import check
from ..utils.optimization import Means, check_finite, descend, load_optimizer
from .anchor import Anchor, Encode
from .base import Algorithm
from .configuration_on_policy import OnPolicyConfig
from .objective import Objective

WARMUP_PASSES, WARMUP_STEPS, WARMUP_BATCH = 3, 200, 256  # on the base's episodes

GUIDED = (
    "policy.rtc_config is enabled: real-time chunking pulls the sampler to the chunk before, so what it "
    "does has another distribution than the chain whose log-probabilities DPPO uses. Collect without it "
    "(--policy.rtc_config=null; the tuned policy still runs under it), mask the frozen part of the chunk, or "
    "use an algorithm that needs no log-probabilities, such as advantage conditioning"
)


class OnPolicy(Algorithm):
    """Collects with the policy as it is, computes advantages, and descends an objective on them.

    Args:
        config: see there.
        policy: fine-tuned in place.
        base: the frozen pretrained policy; see `Anchor` for when it is called.
        backward: backward pass of a loss, `accelerator.backward`.

    Raises:
        ValueError: `finetuned_steps` exceeds the chain, or noise that the sampler needs is switched off.
    """

    floor: float

    def __init__(
        self,
        config: OnPolicyConfig,
        policy: DenoisingPolicy,
        base: DenoisingPolicy,
        backward: Callable[[Tensor], None] = torch.Tensor.backward,
        regularizers: dict[str, Regularizer] | None = None,
    ) -> None:
        self.config, self.policy, self.base, self.backward = config, policy, base, backward
        self.num_steps = policy.kernel.num_steps
        self.finetuned = config.finetuned_steps or self.num_steps
        check("finetuned_steps", self.finetuned, self.finetuned <= self.num_steps, f"1 to {self.num_steps}")
        self.device = policy.kernel.timesteps.device
        least, sampling = config.min_log_prob_std, config.min_sampling_std
        self.sampling_floor = policy.std_floor if sampling is None else sampling
        self.floor = self._default_floor() if least is None else least
        usable = self.floor > 0 or not policy.std_floor
        check("min_log_prob_std", least, usable, "a number > 0; this sampler has noise-free steps")
        self.objective = self.make_objective()
        if policy.guided:
            raise ValueError(GUIDED)
        policy.freeze(config.train_encoder)
        self.critic = Critic(
            policy, backward, config.critic_features, config.critic_hidden_dims, config.critic_lr
        )
        self.actor_optimizer = torch.optim.AdamW(
            policy.trainable_parameters(),
            lr=config.actor_lr,
            weight_decay=0.0,
            amsgrad=self.amsgrad,
            fused=True,
        )
        self.anchor = Anchor(policy, base, self.finetuned, self.floor)
        self.reward_scaler = RewardScaler(config.gamma)
        self.regularizers = self._holders(regularizers or {})
        self.iterations_done = 0
        self.warm = False  # the critic has been trained

    def _holders(self, regularizers: dict[str, Regularizer]) -> Holders:
        """All that holds diversity, in the order in which it is asked."""
        config, out = self.config, dict[str, Regularizer]()
        if config.commands.enable:
            out["commands"] = ModeCommands(config.commands, self.policy, self.backward)
        out |= regularizers
        if config.balance.enabled:
            size, hidden = self.critic.feature_dim, config.critic_hidden_dims
            out["balance"] = ModeBalance(
                config.balance, size, hidden, config.critic_lr, self.device, config.gae_lambda
            )
        return Holders(out)

    def _default_floor(self) -> float:
        return self.policy.std_floor

    @abstractmethod
    def make_objective(self) -> Objective:
        """The loss that `update` descends."""

    def explore(self, condition: Tensor) -> Chain:
        return self.policy.sample(condition, self.sampling_floor, self.floor)

    def progress(self, metrics: dict[str, Any]) -> str:
        return f"KL {metrics['kl_to_base']:.2g}"

    def minibatches(self, decisions: int) -> tuple[int, int]:
        one_step = self.policy.kernel.stochastic(1) is not None  # of each chain is trained
        pairs, most = decisions * (1 if one_step else self.finetuned), self.config.minibatch_size
        return min(pairs, most), self.config.update_epochs * -(-pairs // most)

    @property
    def adjustable(self) -> bool:
        return self.regularizers.adjustable

    @property
    def holders(self) -> list[str]:
        return list(self.regularizers)

    @property
    def needs_reference(self) -> bool:  # type: ignore[override]
        return bool(self.regularizers)

    def begin(self, reference: Experience, num_modes: int | None) -> None:
        """Take episodes of the base, collected with the sampler of collection, before the first iteration.

        Raises:
            ValueError: a regularizer cannot work with them, for example because there are no modes.
        """
        check_finite("a reward", reference.reward, "fix the environment, nothing was learned from it")
        self.regularizers.begin(reference, num_modes)
        if self.config.scale_reward:
            self.reward_scaler(reference.reward, reference.valid)
        with torch.no_grad():
            condition = self.policy.encode_all(reference.obs, len(reference.chain.x))
            features = self.critic.features(condition)
        self._warm_up(reference, reference.reward / self.reward_scale, features, WARMUP_STEPS)

    def _warm_up(self, data: Experience, reward: Tensor, features: Tensor, steps: int) -> None:
        """Train the critic, so that the first update knows what to expect of these (T, E) rewards."""
        for _ in range(WARMUP_PASSES):
            _, target, _ = self._advantages(data, reward, features)
            for _ in range(steps):
                rows = torch.randint(len(features), (WARMUP_BATCH,), device=self.device)
                self._learn(data, features, rows, target)
        self.warm = True

    def _learn(self, data: Experience, features: Tensor, rows: Tensor, target: Tensor) -> dict[str, float]:
        """A step of the critic, and of the networks that regularizers have."""
        value_loss = self.critic.step(data.obs, features, rows, target[rows])
        return {"value_loss": value_loss} | self.regularizers.learn(features[rows], rows)

    def hold(self, strength: float) -> None:
        self.regularizers.hold(strength)

    def scale_lr(self, factor: float) -> None:
        self.actor_optimizer.param_groups[0]["lr"] = self.config.actor_lr * factor

    @property
    def reward_scale(self) -> float:
        """Divisor of rewards."""
        return self.reward_scaler.std if self.config.scale_reward else 1.0

    def update(self, data: Experience) -> dict[str, Any]:
        """One iteration on whole episodes.

        Raises:
            FloatingPointError: a reward is NaN or inf, then nothing has changed; or a loss or gradient is,
                then the weights are still those before the bad step.
            RatioError: the objective takes ratios, and the first minibatch's is not 1.
        """
        check_finite("a reward", data.reward, "fix the environment, nothing was learned from it")
        config, chain = self.config, data.chain
        decisions = len(chain.x)
        encode_once = not self.policy.encoder_trained(config.train_encoder)
        with torch.no_grad():
            condition = self.policy.encode_all(data.obs, decisions)  # (D, C)
            features = self.critic.features(condition)  # (D, F)

        def encode(policy: DenoisingPolicy, rows: Tensor) -> Tensor:
            # A frozen or missing encoder is the base's, too; a reference has its own normalisation.
            if encode_once and policy in (self.policy, self.base):
                return condition[rows]
            return policy.encode(_rows(data.obs, rows))

        log = Means()
        reward = self.regularizers.reward(data, lambda: self._all_steps(data, encode), log.add)
        reward = self.reward_scaler(reward, data.valid) if config.scale_reward else reward
        if not self.warm:
            self._warm_up(data, reward, features, 8 * -(-decisions // WARMUP_BATCH))
        advantage, target, value = self._advantages(data, reward, features)
        advantage = self.regularizers.advantage(advantage, data, features, self.reward_scale, log.add)
        advantage = advantage[data.t, data.episode].to(self.device)  # (D,)
        # What all decisions have in common, such as a critic's bias, is no reason to move.
        self.objective.begin(chain, condition, advantage - advantage.mean())
        all_rows, all_steps = chain.pairs(self.finetuned)
        train_actor = self.iterations_done >= config.critic_warmup_iterations
        stop = False
        for epoch in range(config.update_epochs):
            order = torch.randperm(len(all_rows), device=self.device)
            minibatches = order.split(config.minibatch_size)
            # A value belongs to a decision, not to its K' steps: the critic sees each decision as often as
            # critic_epochs says, whatever the actor does.
            value_rows = self._value_rows(decisions, len(minibatches))
            for i, (pair, rows) in enumerate(zip(minibatches, value_rows, strict=True)):
                if len(rows):  # fewer decisions than minibatches leave some without
                    log.add(**self._learn(data, features, rows, target))
                if not train_actor or stop:
                    continue
                rows, k = all_rows[pair], all_steps[pair]
                step = self._step(self.objective.noisy(rows, k), rows, k, encode)
                loss, numbers = self.objective.loss(step, rows, first=epoch == 0 and i == 0)
                log.add(policy_loss=loss, **numbers)
                loss = self.regularizers.loss(step, loss, self.reward_scale, log.add)
                if self.finetuned < self.num_steps and config.anchor_coef > 0:
                    anchor = self.anchor.loss(chain.x, encode, len(rows))
                    log.add(anchor_loss=anchor)
                    loss = loss + config.anchor_coef * anchor
                log.add(grad_norm=self._descend(loss))
                stop = self.objective.stops(numbers)
        self.iterations_done += 1
        kl = self.anchor.kl(chain.x, encode)
        chunks = self.policy.executed(chain.x[:, 0]).flatten(1)
        return log.result() | {
            "explained_variance": explained_variance(value, target),
            "value_mean": value.mean().item(),
            "advantage_mean": advantage.mean().item(),
            "advantage_std": advantage.std(unbiased=False).item(),
            "chunk_spread": chunks.var(0, unbiased=False).mean().sqrt().item(),
            "kl_to_base": sum(kl) / len(kl),
            "kl_by_step": kl,
            "decisions": float(decisions),
        }

    def _value_rows(self, decisions: int, minibatches: int) -> list[Tensor]:
        """Decisions for each minibatch of the critic in one epoch, each decision `critic_epochs` times."""
        passes = [torch.randperm(decisions, device=self.device) for _ in range(self.config.critic_epochs)]
        return list(torch.cat(passes).tensor_split(minibatches))

    def _advantages(
        self, data: Experience, reward: Tensor, features: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Advantages (T, E), value targets (D,) and values (D,)."""
        with torch.no_grad():
            final = self.critic.features(self.policy.encode_all(data.final_obs, len(data.terminated)))
        value = self.critic.values(data.obs, features)
        final_value = self.critic.values(data.final_obs, final)
        advantage, target = gae(
            reward,
            data.grid(value.cpu()),
            final_value.cpu(),
            data.terminated,
            data.valid,
            self.config.gamma,
            self.config.gae_lambda,
        )
        return advantage, target[data.t, data.episode].to(self.device), value

    def _step(self, x: Tensor, rows: Tensor, k: Tensor, encode: Encode) -> Step:
        condition = encode(self.policy, rows)
        prediction = self.policy.predict(x, self.policy.kernel.timesteps[k], condition)
        encode_rows = lambda policy, first=None: encode(policy, rows[:first])  # noqa: E731
        return Step(self.policy, self.base, x, k, condition, prediction, encode_rows, self.floor)

    @torch.no_grad()
    def _all_steps(self, data: Experience, encode: Encode) -> Iterator[tuple[Tensor, Step]]:
        """Every fine-tuned stochastic step of every decision, as (rows, Step)."""
        parts = (part.split(self.policy.encode_batch) for part in data.chain.pairs(self.finetuned))
        for rows, k in zip(*parts, strict=True):
            yield rows, self._step(data.chain.x[rows, k + 1], rows, k, encode)

    def _descend(self, loss: Tensor) -> float:
        lr, most = self.config.actor_lr, self.config.max_grad_norm
        advice = f"lower algorithm.actor_lr={lr}, or check the scale of the environment's rewards"
        what = f"algorithm.type={self.config.type}"
        return descend(loss, self.actor_optimizer, self.backward, most, what, advice)

    def state_dict(self) -> dict[str, Any]:
        head = self.policy.noise_head
        return {
            "noise_head": head and head.state_dict(),
            "adapters": self.policy.adapters(),
            "critic": self.critic.state_dict(),
            "actor_optimizer": self.actor_optimizer.state_dict(),
            "reward_scaler": self.reward_scaler.state_dict(),
            "iterations_done": self.iterations_done,
            "warm": self.warm,
            "strength": self.regularizers.strength,
            "reward_unit": self.regularizers.unit,
            "regularizers": self.regularizers.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.policy.noise_head is not None:
            self.policy.noise_head.load_state_dict(state["noise_head"])
        for name, adapter in self.policy.adapters().items():
            adapter.copy_(state["adapters"][name])
        self.critic.load_state_dict(state["critic"])
        load_optimizer(self.actor_optimizer, state["actor_optimizer"])
        # The rate of this configuration, not the one that was saved: a resume may want smaller steps.
        self.actor_optimizer.param_groups[0].update(lr=self.config.actor_lr, amsgrad=self.amsgrad)
        for moments in self.actor_optimizer.state.values() if self.amsgrad else ():
            moments.setdefault("max_exp_avg_sq", moments["exp_avg_sq"].clone())  # older versions had none
        self.reward_scaler.load_state_dict(state["reward_scaler"])
        self.iterations_done = state["iterations_done"]
        self.warm = state.get("warm", True)
        regularizers = state["regularizers"]
        if state.get("balance"):  # training states of older versions keep it apart
            regularizers["balance"] = state["balance"] | {
                key: state[key] for key in ("num_modes", "success_value")
            }
        self.regularizers.load_state_dict(regularizers)
        self.regularizers.unit = state.get("reward_unit", 1.0)
        self.hold(state["strength"])  # times the coefficients of this configuration


def _rows(obs: dict[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    return {key: value[rows.to(value.device)] for key, value in obs.items()}
