"""Load a base, tune it for ten iterations, measure it beside the base, and draw its learning curve."""

import sys
from pathlib import Path

import lerobot_policy_rlft  # noqa: F401  registers the environments

from lerobot_rlft.algorithms.dppo import DPPOConfig
from lerobot_rlft.configs.eval import EvalPipelineConfig
from lerobot_rlft.configs.pretrained import load_policy_config
from lerobot_rlft.configs.train import RolloutConfig, TrainConfig
from lerobot_rlft.envs.grasps.configuration_grasps import GraspsEnvConfig
from lerobot_rlft.evaluation.comparison import compare
from lerobot_rlft.evaluation.report import write_report
from lerobot_rlft.plots.curves import draw_curves, read_curve
from lerobot_rlft.training.trainer import Trainer

run, base, env = Path((sys.argv[1:] or ["outputs/example"])[0]), "recipes/grasps_base", GraspsEnvConfig()
algorithm, rollout = DPPOConfig(actor_lr=5e-4), RolloutConfig(n_envs=240, n_episodes=240)
policy = load_policy_config(base, [])
config = TrainConfig(algorithm, policy, env, rollout=rollout, iterations=10, eval_freq=0, output_dir=run)
config.resolve()
Trainer(config).train()
tuned = load_policy_config(str(run / "checkpoints/last/pretrained_model"), [])
question = EvalPipelineConfig(tuned, base=load_policy_config(base, []), env=env, output_dir=run / "report")
comparison = compare(question)
write_report(comparison, run / "report", "tune_and_measure.py")
draw_curves(run / "curve.png", [read_curve(run)])
print(comparison.metrics["success"], comparison.metrics["entropy_ratio"])
