"""Trackers: what they are told, and that their failures cost a warning, not the run."""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import pytest

from lerobot_rlft.training.records import Records
from lerobot_rlft.training.trackers import check_tracker
from lerobot_rlft.utils.errors import UserError


class FakeLibrary(ModuleType):
    """Keeps what wandb or trackio is told; `broken` names a function of it that raises."""

    Image = staticmethod(str)

    def __init__(self, name, broken=None):
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None)
        self.told, self.broken = [], broken
        self.run = SimpleNamespace(id="abc", get_url=lambda: "url")
        for function in ("init", "alert", "finish"):
            setattr(self, function, lambda function=function, **given: self.tell(function, given))

    def log(self, data=None, step=None, **given):
        self.tell("log", (given.get("metrics", data), step))

    def tell(self, function, given):
        if function == self.broken:
            raise PermissionError("read-only")
        self.told.append((function, given))


@pytest.fixture(params=["wandb", "trackio"])
def tracked(request, dppo_config, monkeypatch):
    """Starts the records of a run with a fake tracker; gives both."""
    import lerobot.common.wandb_utils  # noqa: F401  looks for wandb when it is imported

    def start(broken=None, **options):
        fake = FakeLibrary(request.param, broken)
        monkeypatch.setitem(sys.modules, request.param, fake)
        records = Records(dppo_config(tracker=request.param, **options))
        records.config.job_name, records.config.wandb.mode = "job", "offline"
        records.config.wandb.disable_artifact = True
        records.config.output_dir.mkdir(exist_ok=True)
        check_tracker(records.config)
        records.begin(records.size)
        return records, fake

    return start


def test_both_are_told_the_same(tracked):
    records, fake = tracked()
    records.write("train", 1, 60, {"loss": 0.5, "kl_by_step": [1.0], "alarm": "modes are leaving"})
    records.write("eval", 1, 60, {"sampler": "deployed", "success": 0.25})
    records.picture("modes", records.path.parent / "modes.png", 1)
    records.saved(records.path.parent)
    records.finish()
    (first, init), *told = fake.told
    assert first == "init" and init["project"] == "lerobot" and init["name"].startswith("job")
    assert init["config"]["algorithm"]["type"] == "dppo"
    assert told == [
        ("log", ({"train/iteration": 1, "train/env_steps": 60, "train/loss": 0.5}, 1)),
        ("alert", {"title": "job: mode diversity", "text": "modes are leaving"}),
        ("log", ({"eval/deployed_iteration": 1, "eval/deployed_env_steps": 60,
                  "eval/deployed_success": 0.25}, 1)),
        ("log", ({"pictures/modes": str(records.path.parent / "modes.png")}, 1)),
        ("finish", {}),
    ]  # fmt: skip


@pytest.mark.parametrize("broken", ["init", "log", "alert", "finish"])
def test_a_failure_costs_one_warning(broken, tracked, capsys):
    records, fake = tracked(broken)
    for iteration in (1, 2):
        records.write("train", iteration, 0, {"loss": 1.0, "alarm": "modes are leaving"})
    records.finish()
    assert [line["iteration"] for line in records.read("train")] == [1, 2]
    warning = f"warning: {fake.__name__} failed (PermissionError: read-only)"
    assert capsys.readouterr().out.count(warning) == 1


def test_trackio_goes_on_where_a_resumed_run_stopped(dppo_config, monkeypatch):
    monkeypatch.setitem(sys.modules, "trackio", fake := FakeLibrary("trackio"))
    config = dppo_config(tracker="trackio")
    config.output_dir.mkdir()
    for _ in range(2):
        Records(config).begin(0)
    (_, first), (_, second) = fake.told
    assert first["name"] == second["name"] != config.job_name
    assert (first["resume"], second["resume"]) == ("never", "allow")


def test_trackio_that_is_not_installed(dppo_config, monkeypatch):
    monkeypatch.setattr("lerobot_rlft.training.trackers.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"tracker=trackio .*pip install 'lerobot_policy_rlft\[trackio\]'"):
        check_tracker(dppo_config(tracker="trackio"))


def test_one_tracker_is_chosen(dppo_config):
    config = dppo_config()
    assert config.tracked_by == "none"
    config.wandb.enable = True
    assert config.tracked_by == "wandb"
    config.tracker = "trackio"
    with pytest.raises(UserError, match=r"tracker=trackio and wandb.enable=true name two trackers"):
        config.check()
    config.wandb.enable, config.tracker = False, "wanbd"
    with pytest.raises(UserError, match=r"tracker=wanbd is unknown, did you mean wandb\?"):
        config.check()
