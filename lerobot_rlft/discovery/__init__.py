from lerobot_rlft import plugin  # noqa: F401  LeRobot imports this module by the distribution's name
