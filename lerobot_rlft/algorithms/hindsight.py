"""What commands mean, learnt from decisions whose outcome is known (`commands`). Plain torch."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn
from tqdm import tqdm

from ..commands import CommandConfig
from ..policies.base import DenoisingPolicy
from .base import check_finite


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
    for _ in tqdm(range(config.steps), desc="learning commands", unit="step", leave=False):
        rows = torch.multinomial(weight, config.batch_size, replacement=True)
        k = torch.randint(policy.kernel.num_steps, (len(rows),), device=device)
        x, target = policy.kernel.noised(chunks[rows], k, torch.randn_like(chunks[rows]))
        prediction = policy.predict(x, policy.kernel.timesteps[k], condition[rows])
        loss = policy.executed(prediction - target).square().mean()
        check_finite("a loss of algorithm.commands", loss, f"lower algorithm.commands.lr={config.lr}")
        optimizer.zero_grad(set_to_none=True)
        backward(loss)
        torch.nn.utils.clip_grad_norm_(parameters, 10.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            update_average(average, parameters, None)
    with torch.no_grad():
        for parameter, value in zip(parameters, average, strict=True):
            parameter.copy_(value)
