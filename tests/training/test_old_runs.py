"""Folders of runs that version 0.1 wrote before its modules had packages (commit 6b3ff56)."""

import shutil
from pathlib import Path

import pytest
from runs import metrics

from lerobot_rlft.cli import train

ROOT = Path(__file__).parents[2]


def resumed(kind, read_command, tmp_path, monkeypatch):
    """Lines of metrics as they were then, and of the run resumed from its first checkpoint."""
    monkeypatch.chdir(ROOT)  # the run names recipes/grasps_base
    run = tmp_path / "run"
    shutil.copytree(ROOT / "tests/data/old_runs" / kind, run)
    (run / "checkpoints/last").symlink_to("000001")
    expected = metrics(run)
    train.run(read_command(f"--resume={run}"))
    again = metrics(run)
    assert [line["kind"] for line in again] == [line["kind"] for line in expected]
    return expected, again


def test_an_old_run_of_dppo_goes_on_with_todays_trust_region(read_command, tmp_path, monkeypatch, capsys):
    """It has a regularizer. Its clip range bounded a mean; the critic, trained then, is not warmed again."""
    _, again = resumed("dppo", read_command, tmp_path, monkeypatch)
    assert "bounded means over the numbers of a chunk" in capsys.readouterr().err
    train_line = next(line for line in again if line["kind"] == "train" and line["iteration"] == 2)
    assert train_line["first_ratio_error"] < 1e-4 and 0 < train_line["approx_kl"] < 1


def test_an_old_run_of_nft_goes_on_with_todays_weights(read_command, tmp_path, monkeypatch):
    """It is spelled objective=forward and centres advantages in modes; what it collects is what it was."""
    expected, again = resumed("nft", read_command, tmp_path, monkeypatch)
    for line, old in zip(again, expected, strict=True):
        assert line["kind"] == old["kind"] and line["iteration"] == old["iteration"]
    before, after = (next(line for line in lines if line["kind"] == "train") for lines in (expected, again))
    assert after["return"] == pytest.approx(before["return"])
