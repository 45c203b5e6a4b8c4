"""Low-rank adapters (LoRA, arXiv:2106.09685) in any policy, by LeRobot's own `wrap_with_peft`.

Training changes the adapters alone; a checkpoint has them merged and is an ordinary policy.
"""

from typing import Any

from ..utils.errors import UserError, one_line
from .base import DenoisingPolicy


def add_adapters(policy: DenoisingPolicy, options: dict[str, Any]) -> None:
    """Put adapters into `policy.module` and remember them in `policy.peft`.

    Args:
        options: fields of LeRobot's `PeftConfig`.

    Raises:
        ImportError: peft is not installed.
        UserError: another method than LoRA, or targets that match nothing.
    """
    if options["method_type"].upper() != "LORA":
        raise UserError(
            f"peft.method_type={options['method_type']} cannot be merged into an ordinary checkpoint here: "
            "choose LORA"
        )
    if options["full_training_modules"]:
        raise UserError(
            f"peft.full_training_modules={options['full_training_modules']} is not supported: leave it out, "
            "adapters alone are trained"
        )
    config, pretrained = policy.module.config, policy.module.config.pretrained_path
    config.pretrained_path = pretrained or "none"  # LeRobot insists on one, also to count sizes
    try:
        policy.peft = policy.module.wrap_with_peft(peft_cli_overrides=options)
    except ValueError as error:
        raise UserError(
            f"peft.target_modules={options['target_modules']} does not fit policy.type={config.type} "
            f"({one_line(error)}): name its layers, for example --peft.target_modules=[q_proj,v_proj]"
        ) from error
    finally:
        config.pretrained_path = pretrained
        config.use_peft = False  # what is saved has them merged
