"""`lerobot-rlft-demos`: write demonstrations as a LeRobotDataset."""

import argparse
import logging
import sys
from pathlib import Path


def main() -> None:
    logging.disable(logging.INFO)
    args = parser().parse_args()
    repo_id = args.repo_id or f"local/{args.env_type}"
    # What is not given stays the task's own default.
    scripted = {k: v for k, v in vars(args).items() if k in ("episodes_per_mode", "noise", "seed")}
    try:
        if args.env_type == "avoiding":
            from ..envs.avoiding.demonstrations import write_demonstrations

            dataset = write_demonstrations(args.root, repo_id, **scripted, lag=args.lag)
        elif args.env_type == "grasps":
            from ..envs.grasps.demonstrations import write_demonstrations

            dataset = write_demonstrations(args.root, repo_id, **scripted)
        else:
            from ..envs.pusht.demonstrations import write_demonstrations

            dataset = write_demonstrations(args.source, args.root, repo_id, args.episodes)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {error}")
    print(
        f"{dataset.num_episodes} episodes, {dataset.num_frames} frames in {args.root}. Train on them with\n"
        f"  --dataset.repo_id={repo_id} --dataset.root={args.root}"
    )


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        "lerobot-rlft-demos", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    p.add_argument(
        "--env.type",
        dest="env_type",
        required=True,
        choices=("avoiding", "grasps", "pusht"),
        help="the task",
    )
    p.add_argument("--root", type=Path, required=True, help="folder to create")
    p.add_argument("--repo_id", help="name of the dataset; local/<env.type> if not given")
    scripted = p.add_argument_group("avoiding, grasps: scripted, every mode equally often")
    scripted.add_argument(
        "--episodes_per_mode",
        type=int,
        default=argparse.SUPPRESS,
        help="4 in each of 24 modes, 40 in each of 5 grasps if not given",
    )
    scripted.add_argument(
        "--noise",
        type=float,
        default=argparse.SUPPRESS,
        help="std of the action noise; .003 metres, .1 if not given",
    )
    scripted.add_argument("--seed", type=int, default=0, help="of paths and noise")
    avoiding = p.add_argument_group("avoiding")
    avoiding.add_argument("--env.lag", dest="lag", type=float, default=0.25, help="of the environment")
    pusht = p.add_argument_group("pusht: human recordings, converted")
    pusht.add_argument(
        "--source",
        type=Path,
        default=Path("recipes/data/pusht_human_206.npz"),
        help="npz file of the recordings",
    )
    pusht.add_argument("--episodes", type=int, help="only the first so many; all if not given")
    return p
