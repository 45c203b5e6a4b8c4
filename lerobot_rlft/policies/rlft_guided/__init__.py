"""Policy type `rlft_guided`: a policy told "positive", with guidance, in LeRobot's dialect."""
