"""Modes held by telling the policy which to act in: what commands mean is learnt from the base's successes,
and what an episode earns on another way than the commanded one does not count. Plain torch.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ..policies.base import DenoisingPolicy, Exploration
from ..policies.rlft_commanded.commands import COMMAND, TARGETS, episode_commands, target_shares
from ..utils.averaging import WeightAverage
from ..utils.optimization import descend
from .base import Experience, Regularizer, Step
from .mode_balance import centred

MAX_GRAD_NORM = 10.0  # as in behaviour cloning


@dataclass
class CommandConfig:
    """Training of a policy that is told, for each episode, in which mode to act.

    Raises:
        ValueError: an option is unknown or out of range.
    """

    # Whether to tell the policy its mode; null = true with --guard.enable=true and --algorithm.type=nft,
    # where nothing else is chosen that holds modes.
    enable: bool | None = None
    # Frequencies with which modes are asked for: "successful", as often as the base succeeds in them,
    # "attempted", as often as it attempts them, or "uniform".
    target: str = "successful"
    # Share of the training episodes whose mode is drawn from all modes alike, so that rare ones are
    # practised, too; a deployed policy draws by target alone.
    practice: float = 0.5
    # Gradient steps in which the network learns the meaning of modes, from successes of the base.
    steps: int = 3000
    # Decisions in a batch of these steps.
    batch_size: int = 256
    # Learning rate of these steps; null = that of the policy's own optimizer preset, the rate that
    # its network is trained at.
    lr: float | None = None
    # Decay of the average of the weights over these steps; training continues from the average.
    ema_decay: float = 0.995

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise ValueError(
                f"algorithm.commands.target={self.target!r} is unknown, choose {', '.join(TARGETS)}"
            )
        if not 0 <= self.practice <= 1:
            raise ValueError(f"algorithm.commands.practice={self.practice} is out of range, choose 0 to 1")
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"algorithm.commands.{name}={getattr(self, name)} must be at least 1")
        if self.lr is not None and not self.lr > 0:
            raise ValueError(
                f"algorithm.commands.lr={self.lr} must be a number > 0, for example 1e-4, or null for the "
                "policy's own preset"
            )
        if not 0 <= self.ema_decay < 1:
            raise ValueError(
                f"algorithm.commands.ema_decay={self.ema_decay} is out of range, choose a number in [0, 1)"
            )

    def wrap(self, policy: DenoisingPolicy, exploration: Exploration) -> DenoisingPolicy:
        """The policy, ready to be commanded, practising as these options say; see `commanded`."""
        from ..policies.rlft_commanded.adapter import commanded  # builds policies, which takes LeRobot

        out = commanded(policy, exploration)
        out.practice = self.practice
        return out


class ModeCommands(Regularizer):
    """Commands of one run.

    Args:
        config: see there.
        policy: that is trained, wrapped by `CommandConfig.wrap`.
        backward: backward pass of a loss.
    """

    adjustable = False  # which modes are used is a matter of what is asked for
    relative = False  # what it takes away is a reward

    def __init__(
        self, config: CommandConfig, policy: DenoisingPolicy, backward: Callable[[Tensor], None]
    ) -> None:
        self.config, self.policy, self.backward, self.log = config, policy, backward, {}

    def begin(self, reference: Experience, num_modes: int | None) -> None:
        """Teach the policy what its base's successes have in common, and command it from then on.

        One that is commanded already stays as it is. The reference is told what it did.

        Raises:
            ValueError: there are no modes, too many, or no success in one.
            FloatingPointError: a loss is NaN or inf.
        """
        attempt = reference.attempt
        if num_modes is None or attempt is None:
            raise ValueError(
                "algorithm.commands needs modes, and neither the environment nor an atlas names any: choose "
                "what to cluster (--atlas.key, --atlas.dims), or switch guard and algorithm.commands off"
            )
        lowest = (reference.reward * reference.valid).min().item()
        if lowest < 0:
            raise ValueError(
                f"algorithm.commands pays nothing for going another way than the commanded one, and rewards "
                f"below zero ({lowest:g}) would make that the best there is: give --rollout.reward=success "
                "or best, or hold modes otherwise (--algorithm.commands.enable=false)"
            )
        if self.policy.draw(1) is not None:
            return
        shares = target_shares(self.config.target, attempt, reference.success, num_modes)
        reference.obs[COMMAND] = attempt[reference.episode][:, None]
        reference.final_obs[COMMAND] = attempt[:, None]
        rows = (reference.success & (attempt >= 0))[reference.episode].nonzero()[:, 0]
        obs = {key: value[rows.to(value.device)] for key, value in reference.obs.items()}
        with torch.no_grad():
            condition = self.policy.encode_all(obs, len(rows))
        chunks = reference.chain.x[rows.to(reference.chain.x.device), 0]
        command = attempt[reference.episode[rows]]
        fit_commands(self.config, self.policy, condition, chunks, command, self.backward)
        self.policy.command(shares.tolist())

    def reward(self, data: Experience, steps: Callable[[], Iterator[tuple[Tensor, Step]]]) -> Tensor | None:
        """(T, E): takes away what was earned on another way than the commanded one."""
        if COMMAND not in data.obs or data.attempt is None:
            return None
        command = episode_commands(data.obs[COMMAND], data.episode, len(data.attempt))
        match = command == data.attempt
        self.log = {"obeyed": match.float().mean().item()}
        return -data.reward * ~match

    def advantage(self, advantage: Tensor, data: Experience, features: Tensor, reward_scale: float) -> Tensor:
        """Advantages (T, E) less their mean at the same decision index of the episodes with the same command:
        that a mode does better or worse than was expected is no reason to do it otherwise.
        """
        if COMMAND not in data.obs:
            return advantage
        command = episode_commands(data.obs[COMMAND], data.episode, advantage.shape[1])
        return centred(advantage, data.valid, command, int(command.max()) + 1)


def fit_commands(
    config: CommandConfig,
    policy: DenoisingPolicy,
    condition: Tensor,
    chunks: Tensor,
    command: Tensor,
    backward: Callable[[Tensor], None],
) -> None:
    """Clone decisions in hindsight, every mode alike.

    Args:
        condition: (D, C) decisions that led to success, told the mode that was reached.
        chunks: (D, H, A) what was sent.
        command: (D,) long, that mode.
        backward: backward pass of a loss.

    Raises:
        FloatingPointError: a loss is NaN or inf.
    """
    device = condition.device
    command, chunks = command.to(device), chunks.to(device)
    weight = 1 / torch.bincount(command).float()[command]
    parameters = list(policy.trainable_parameters())
    average = WeightAverage(parameters, config.ema_decay)
    source: Any = policy.module.config  # LeRobot's, whose presets PyTorch's typing does not know
    lr = source.get_optimizer_preset().lr if config.lr is None else config.lr
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    for _ in tqdm(range(config.steps), desc="learning commands", unit="step", disable=None, leave=False):
        rows = torch.multinomial(weight, config.batch_size, replacement=True)
        k = torch.randint(policy.kernel.num_steps, (len(rows),), device=device)
        x, target = policy.kernel.noised(chunks[rows], k, torch.randn_like(chunks[rows]))
        prediction = policy.predict(x, policy.kernel.timesteps[k], condition[rows])
        loss = (prediction - target).square().mean()  # also of what is not executed
        advice = f"lower algorithm.commands.lr={lr}"
        descend(loss, optimizer, backward, MAX_GRAD_NORM, "algorithm.commands", advice)
        schedule.step()
        average.update()
    average.deploy()
