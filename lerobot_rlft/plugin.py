"""Registration with LeRobot. Every `lerobot-*` command imports this at start-up: nothing heavy here."""

from .envs.avoiding import configuration_avoiding  # noqa: F401  registers --env.type=...
from .envs.grasps import configuration_grasps  # noqa: F401  registers --env.type=...
from .policies.rlft_commanded import configuration_rlft_commanded  # noqa: F401  registers --policy.type=rlft_commanded
from .policies.rlft_flow import configuration_rlft_flow  # noqa: F401  registers --policy.type=rlft_flow
from .policies.rlft_guided import configuration_rlft_guided  # noqa: F401  registers --policy.type=rlft_guided
