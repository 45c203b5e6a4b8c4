"""What an interrupted push says."""

from pathlib import Path

import pytest

from lerobot_rlft.cli import push
from lerobot_rlft.configs.push import PushConfig


def test_an_interrupted_push_does_not_claim_that_nothing_was_written(monkeypatch):
    def interrupted(config):
        raise KeyboardInterrupt

    monkeypatch.setattr("lerobot_rlft.hub.bundle.push_run", interrupted)
    with pytest.raises(SystemExit) as stopped:
        push.run(PushConfig(run_dir=Path("run"), repo_id="user/tuned"))
    said = str(stopped.value)
    assert "repository user/tuned may exist by now" in said and "nothing" not in said
    monkeypatch.setattr("lerobot_rlft.hub.bundle.dry_run", interrupted)
    with pytest.raises(KeyboardInterrupt):  # a dry run leaves nothing, which `run_command` says
        push.run(PushConfig(run_dir=Path("run"), repo_id="user/tuned", dry_run=True))
