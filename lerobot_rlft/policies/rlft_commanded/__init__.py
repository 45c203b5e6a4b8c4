"""Policy type `rlft_commanded`: a policy that is told in which mode to act, in LeRobot's dialect."""
