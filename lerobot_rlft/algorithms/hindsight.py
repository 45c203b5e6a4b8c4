"""What commands mean, learnt from decisions whose outcome is known (`commands`). Plain torch."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn
from tqdm import tqdm

from ..policies.base import DenoisingPolicy
from ..policies.rlft_commanded.commands import COMMAND, CommandConfig, target_shares
from ..regularizers.base import Experience
from ..utils.optimization import descend

MAX_GRAD_NORM = 10.0  # as in behaviour cloning


def learn_commands(
    config: CommandConfig,
    policy: DenoisingPolicy,
    reference: Experience,
    num_modes: int | None,
    backward: Callable[[Tensor], None],
) -> None:
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
    if policy.draw(1) is not None:
        return
    shares = target_shares(config.target, attempt, reference.success, num_modes)
    reference.obs[COMMAND] = attempt[reference.episode][:, None]
    reference.final_obs[COMMAND] = attempt[:, None]
    rows = (reference.success & (attempt >= 0))[reference.episode].nonzero()[:, 0]
    obs = {key: value[rows.to(value.device)] for key, value in reference.obs.items()}
    with torch.no_grad():
        condition = policy.encode_all(obs, len(rows))
    chunks = reference.chain.x[rows.to(reference.chain.x.device), 0]
    fit_commands(config, policy, condition, chunks, attempt[reference.episode[rows]], backward)
    policy.command(shares.tolist())


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
    average = [p.detach().clone() for p in parameters]
    update_average = get_ema_multi_avg_fn(config.ema_decay)
    optimizer = torch.optim.AdamW(parameters, lr=config.lr, weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    for _ in tqdm(range(config.steps), desc="learning commands", unit="step", disable=None, leave=False):
        rows = torch.multinomial(weight, config.batch_size, replacement=True)
        k = torch.randint(policy.kernel.num_steps, (len(rows),), device=device)
        x, target = policy.kernel.noised(chunks[rows], k, torch.randn_like(chunks[rows]))
        prediction = policy.predict(x, policy.kernel.timesteps[k], condition[rows])
        loss = policy.executed(prediction - target).square().mean()
        advice = f"lower algorithm.commands.lr={config.lr}"
        descend(loss, optimizer, backward, MAX_GRAD_NORM, "algorithm.commands", advice)
        schedule.step()
        with torch.no_grad():
            update_average(average, parameters, None)
    with torch.no_grad():
        for parameter, value in zip(parameters, average, strict=True):
            parameter.copy_(value)
