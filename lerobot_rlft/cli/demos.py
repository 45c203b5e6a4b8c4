"""`lerobot-rlft-demos`: write demonstrations as a LeRobotDataset."""
