"""Tiny runs of every kind and the hashes of what they leave, to be equal before and after code only moves.

`python -m benchmarks.golden FOLDER > golden.json` runs them below FOLDER; the same commit gives the same file
on the same machine. What the clock says is left out, and so are pictures, pages and configuration files,
which name folders.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
GRASPS = f"--config_path={ROOT / 'recipes/grasps_plain.yaml'} --policy.path={ROOT / 'recipes/grasps_base'}"
QUICK = "--eval.n_episodes=96 --eval.batch_size=48 --eval.n_videos=0"
SHORT = f"{QUICK} --iterations=3 --save_freq=2 --eval_freq=2 --probe_freq=2"
AVOIDING = f"--policy.path={ROOT / 'recipes/avoiding_base'} --env.type=avoiding --rollout.n_envs=24"
TUNED = "--policy.path=dppo/checkpoints/last/pretrained_model"
RUNS = {
    "demos": "demos --env.type=avoiding --episodes_per_mode=1 --root=demos",
    "dppo": f"train {GRASPS} {SHORT} --rollout.n_episodes=240",
    "guarded": f"train --algorithm.type=dppo --algorithm.commands.steps=20 --guard.enable=true {AVOIDING}"
    f" --rollout.n_episodes=96 {SHORT}",
    "nft": f"train {GRASPS} {SHORT} --algorithm.objective=forward",
    "held": f"train {GRASPS} {SHORT} --algorithm.regularizers=[{{type:\\ kl_base}},{{type:\\ rehearsal}}]",
    "bc": f"train --config_path={ROOT / 'recipes/avoiding_base.yaml'} --dataset.root=demos {QUICK}"
    " --eval.n_episodes_during=24 --iterations=6 --save_freq=3 --eval_freq=3 --log_freq=2",
    "recap": f"train --config_path={ROOT / 'recipes/avoiding_recap.yaml'} --dataset.root=demos {QUICK}"
    f" --policy.path={ROOT / 'recipes/avoiding_flow_base'} --rollout.n_envs=24 --rollout.n_episodes=48"
    " --eval.n_episodes_during=48 --algorithm.value.steps=10"
    " --iterations=20 --save_freq=10 --log_freq=5",
    "eval": f"eval {TUNED} --base.path={ROOT / 'recipes/grasps_base'} --env.type=grasps"
    " --n_episodes=96 --batch_size=48 --seed=5",
    "push": "push --run_dir=dppo --repo_id=user/tuned --license=mit --dry_run=true",
}
UNSTABLE = re.compile(r"\.(png|html|yaml|yml|mp4|svg)$|^seconds\.json$|^stats\.json$")
CLOCK = {"seconds", "metrics_bytes", "created", "date", "time"}


def hashes(folder: Path) -> dict[str, str]:
    """Path in the folder -> hash of the file without clock and places."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(content(path)).hexdigest()[:16]
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink() and not UNSTABLE.search(path.name)
    }


def content(path: Path) -> bytes:
    if path.suffix == ".json":
        return json.dumps(timeless(json.loads(path.read_text()))).encode()
    if path.suffix == ".jsonl":
        return json.dumps([timeless(json.loads(line)) for line in path.read_text().splitlines()]).encode()
    if path.suffix in (".md", ".log", ".txt"):  # prose may state seconds, dates and folders
        return re.sub(rb"\d[\d.,:-]*", b"#", path.read_bytes())
    return path.read_bytes()


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: timeless(inner) for key, inner in value.items() if key not in CLOCK}
    return [timeless(inner) for inner in value] if isinstance(value, list) else value


def main(folder: Path) -> dict[str, dict[str, str]]:
    folder.mkdir(parents=True)
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "SOURCE_DATE_EPOCH": "0", "OMP_NUM_THREADS": "1"}
    found = {}
    for name, line in RUNS.items():
        command, *options = re.split(r"(?<!\\) ", line)
        if command != "demos":
            options.append(f"--output_dir={name}")
        program = str(Path(sys.executable).with_name(f"lerobot-rlft-{command}"))
        arguments = [program, *(option.replace("\\ ", " ") for option in options)]
        done = subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{name}: {' '.join(arguments)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        print(name, file=sys.stderr, flush=True)
        if command != "demos":  # parquet and videos name their writer
            found[name] = hashes(folder / name)
    return found


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1])), indent=1))
