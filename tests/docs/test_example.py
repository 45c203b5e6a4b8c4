"""The example in Python runs, and the page shows it as it is."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs/examples/tune_and_measure.py"


def test_the_example_is_short_and_shown():
    text = EXAMPLE.read_text()
    assert len(text.splitlines()) <= 30
    assert f"```python\n{text}```" in (ROOT / "docs/examples.md").read_text()


@pytest.mark.slow
def test_the_example_tunes_measures_and_draws(tmp_path):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, EXAMPLE, tmp_path / "run"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    measured = json.loads((tmp_path / "run/report/diversity.json").read_text())
    success, ratio = map(float, done.stdout.split()[-2:])
    assert (success, ratio) == (measured["success"], measured["entropy_ratio"])
    assert success > measured["base_success"]
    assert (tmp_path / "run/report/report.html").is_file() and (tmp_path / "run/curve.png").is_file()
