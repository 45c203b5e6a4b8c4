"""Folders of runs that version 0.1 wrote before its modules had packages (commit 6b3ff56)."""

import shutil
from pathlib import Path

import pytest
from runs import metrics

from lerobot_rlft.cli import train

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("kind", ["dppo", "nft"])
def test_an_old_run_goes_on_as_it_went_on_then(kind, read_command, tmp_path, monkeypatch):
    """`dppo` has a regularizer, `nft` is spelled objective=forward and centres advantages in modes."""
    monkeypatch.chdir(ROOT)  # the run names recipes/grasps_base
    run = tmp_path / "run"
    shutil.copytree(ROOT / "tests/data/old_runs" / kind, run)
    (run / "checkpoints/last").symlink_to("000001")
    expected = metrics(run)
    train.run(read_command(f"--resume={run}"))
    again = metrics(run)
    assert [line["kind"] for line in again] == [line["kind"] for line in expected]
    for line, old in zip(again, expected, strict=True):
        numbers = {key: value for key, value in old.items() if isinstance(value, (int, float))}
        assert {key: line[key] for key in numbers} == pytest.approx(numbers, rel=1e-3, abs=1e-5)
