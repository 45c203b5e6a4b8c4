"""Packages that a run was made with are remembered, and loaded by the command line alone."""

import sys

import pytest

from lerobot_rlft.configs.packages import explained_packages, flags, given_packages, stock_flags
from lerobot_rlft.utils.errors import UserError

BOTH = {"env": "an_env", "policy": "a policy"}


def test_packages_become_options_again(monkeypatch):
    assert flags(BOTH) == " --env.discover_packages_path=an_env --policy.discover_packages_path='a policy'"
    # Stock LeRobot takes --policy. options for fields of a pretrained policy.
    assert stock_flags(BOTH) == " --env.discover_packages_path=an_env --discover_packages_path='a policy'"
    assert flags({}) == flags(["no mapping"]) == ""
    monkeypatch.setattr(sys, "argv", ["x", "--env.discover_packages_path=an_env", "--seed=1"])
    assert given_packages() == {"env": "an_env"}


def test_a_file_that_needs_packages_names_them(monkeypatch, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("packages: {env: an_env, policy: a_policy}")
    given = ["x", f"--config_path={file}", "--env.discover_packages_path=an_env"]
    monkeypatch.setattr(sys, "argv", given)
    with (
        pytest.raises(UserError, match=r"unknown. .*give --policy.discover_packages_path=a_policy, too"),
        explained_packages(),
    ):
        raise UserError("type=x is unknown")
    monkeypatch.setattr(sys, "argv", [*given, "--policy.discover_packages_path=a_policy"])
    with pytest.raises(UserError, match=r"unknown$"), explained_packages():
        raise UserError("type=x is unknown")
