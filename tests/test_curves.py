"""Several runs in one picture."""

import json
import math

import pytest
import yaml

from lerobot_rlft.cli import curves as command
from lerobot_rlft.curves import read_curve
from lerobot_rlft.errors import UserError


def write_run(folder, counts):
    folder.mkdir()
    base = {"kind": "eval", "iteration": 0, "env_steps": 0, "sampler": "exploratory", "n_episodes": 300}
    lines = [base | {"mode_counts": [60, 60, 60]}]
    for i, c in enumerate(counts):
        lines.append(
            {"kind": "train", "iteration": i + 1, "env_steps": 100 * (i + 1), "success": sum(c) / 480}
        )
        lines[-1]["mode_counts"] = c
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (folder / "rlft_config.yaml").write_text(yaml.safe_dump({"rollout": {"n_episodes": 480}}))
    return folder


def test_effective_modes_of_each_iteration(tmp_path):
    curve = read_curve(write_run(tmp_path / "plain_1000", [[100, 100, 100], [200, 200, 0], [0, 0, 0]]))
    assert curve.group == "plain" and curve.num_modes == 3
    assert curve.env_steps.tolist() == [100, 200, 300] and curve.success.tolist() == [300 / 480, 400 / 480, 0]
    assert curve.effective_modes[:2].tolist() == pytest.approx([3, 2 * math.exp(1 / 800)])
    assert math.isnan(curve.effective_modes[2])  # no success, no modes


def test_a_run_that_does_not_fit(tmp_path):
    with pytest.raises(UserError, match=r"nowhere is not the folder of a run"):
        read_curve(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"counted no modes"):
        read_curve(write_run(tmp_path / "empty", []))


def test_the_command_draws(tmp_path, monkeypatch, capsys):
    runs = [write_run(tmp_path / f"a_{seed}", [[100, 50, 0], [150, 0, 0]]) for seed in (1, 2)]
    monkeypatch.setattr("sys.argv", ["x", *map(str, runs), f"--output={tmp_path / 'new' / 'c.png'}"])
    command.main()
    assert (tmp_path / "new" / "c.png").read_bytes().startswith(b"\x89PNG")
    assert "2 runs" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["x", str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit, match=r"error: .*nowhere is not"):
        command.main()
