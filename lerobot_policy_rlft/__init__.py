from lerobot_rlft import plugin  # noqa: F401  LeRobot imports this name at start-up
