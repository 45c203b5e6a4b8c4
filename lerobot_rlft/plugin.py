"""What LeRobot must know. Every `lerobot-*` command imports this at start-up, so it imports nothing heavy."""

from .envs import configuration_avoiding  # noqa: F401  registers --env.type=avoiding
