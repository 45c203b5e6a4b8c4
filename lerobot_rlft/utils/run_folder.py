"""Names of what a run leaves in its folder."""

LOCK = ".lock"  # held while a process runs
CONFIG_NAME = "rlft_config.yaml"
METRICS = "metrics.jsonl"
TRACKIO_RUN = "trackio_run.txt"  # the name of the run in trackio
SUMMARY = "summary.json"
DIVERSITY = "diversity"  # folder of the atlas, the probe, and pictures of modes
ROUNDS = "rounds"  # folder of a run that learns in rounds
BEST_CHECKPOINT_LINK = "best"  # in checkpoints/
STATE_JSON = "state.json"  # in training_state/ of a checkpoint, as is the next
STATE_TENSORS = "state.safetensors"
