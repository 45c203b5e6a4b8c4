"""`lerobot-rlft-eval` as a user meets it."""

import json
import re

import pytest
import torch
from conftest import OBSERVATIONS, save_policy
from lerobot.configs import parser
from safetensors.torch import load_file, save_file

from lerobot_rlft.cli import eval as command
from lerobot_rlft.envs.avoiding import AvoidingVectorEnv

QUICK = (
    "--env.type=avoiding",
    "--env.episode_length=12",
    "--n_episodes=6",
    "--batch_size=6",
    "--n_attempts=16",
)


@pytest.fixture
def main(monkeypatch, capsys):
    monkeypatch.setattr("logging.root.handlers", [])
    monkeypatch.setattr("lerobot_rlft.cli.quiet", lambda: None)

    def run(*arguments) -> str:
        """What it printed, or its exit message."""
        parser._config_path_args.clear()
        parser._config_yaml_overrides.clear()
        monkeypatch.setattr("sys.argv", ["lerobot-rlft-eval", *map(str, arguments)])
        try:
            command.main()
        except SystemExit as stop:
            return str(stop.code)
        return capsys.readouterr().out

    yield run
    parser._config_path_args.clear()
    parser._config_yaml_overrides.clear()


@pytest.fixture(scope="module")
def tuned(base_policy, tmp_path_factory):
    folder = save_policy(tmp_path_factory.mktemp("tuned") / "policy")
    torch.manual_seed(1)
    weights = load_file(folder / "model.safetensors")
    save_file({k: v + 0.05 * torch.randn_like(v) for k, v in weights.items()}, folder / "model.safetensors")
    return folder


def always_succeed(monkeypatch):
    """Every episode ends with success after 12 steps, in mode 0 to 3."""
    step = AvoidingVectorEnv.step

    def stepped(self, actions):
        self._success[:], self._mode[:] = True, self._current[:, 0] * 1e4 % 4 // 1
        return step(self, actions)

    monkeypatch.setattr(AvoidingVectorEnv, "step", stepped)


def test_the_report_of_two_policies(main, tuned, base_policy, tmp_path, monkeypatch):
    always_succeed(monkeypatch)
    out = tmp_path / "new" / "report"
    said = main(f"--policy.path={tuned}", f"--base.path={base_policy}", *QUICK, f"--output_dir={out}")
    assert f"Report: {out / 'report.html'}" in said and "Success 100.0 %" in said
    assert "No claim about modes: the tuned policy has 6 successes" in said
    needed = int(re.search(r"successes, (\d+) are needed", said)[1])
    assert f"--n_episodes={needed} or above" in said  # every episode succeeds
    assert sorted(p.name for p in out.iterdir()) == ["diversity.json", "pictures", "report.html"]
    assert [p.name for p in out.parent.iterdir()] == ["report"]  # no temporary folder is left
    m = json.loads((out / "diversity.json").read_text())
    assert {
        "success", "base_success", "entropy", "base_entropy", "entropy_ratio", "entropy_ratio_ci",
        "modes_covered", "effective_modes", "min_retention", "n_success",
    } <= m.keys()  # fmt: skip
    assert m["n_success"] == 6 and m["policy"] == str(tuned) and m["modes_from"] == "environment"
    page = (out / "report.html").read_text()
    assert page.count('src="data:image/png;base64,') == len(list((out / "pictures").iterdir())) >= 4
    assert not re.search(r'(src|href)="(?!data:)', page)  # self-contained


def test_the_base_of_a_run_is_known(main, dppo_config, tmp_path, monkeypatch):
    from lerobot_rlft.trainer import Trainer

    monkeypatch.setattr("lerobot_rlft.outcome.draw_trajectories", lambda *args: None)
    config = dppo_config(iterations=1)
    Trainer(config).train()
    checkpoint = config.output_dir / "checkpoints/last/pretrained_model"
    out = tmp_path / "report"
    said = main(f"--policy.path={checkpoint}", *QUICK, "--n_attempts=0", f"--output_dir={out}")
    assert "No claim about modes" in said and "One of them never succeeds" in said
    m = json.loads((out / "diversity.json").read_text())
    assert m["base"] == str(config.policy.pretrained_path)
    # Nothing succeeded: no number about modes, and the reason.
    assert m["entropy_ratio"] is None and "no successes" in m["notes"]["entropy"]


@pytest.mark.parametrize(
    "arguments, answer",
    [
        ((), "no policy: give --policy.path"),
        (("--policy.path={tuned}",), "has no rlft_config.yaml .*give --base.path"),
        (("--policy.path={tuned}", "--base.path={base}/nowhere"), "--base.path=.*nowhere is no checkpoint"),
        (("--policy.path={tuned}", "--base.path={base}"), "no environment: give --env.type"),
        (("--policy.path={tuned}", "--base.path={base}", "--env.type=avoiding", "--n_episodes=1"),
         "n_episodes=1 must be at least 2"),
        (("--policy.path={tuned}", "--base.path={base}", "--env.type=avoiding", "--n_attempts=3"),
         "n_attempts=3 is too few for success at 16 attempts"),
        (("--policy.path={tuned}", "--base.path={base}", "--env.type=avoiding", "--output_dir={base}"),
         "output_dir=.* exists: choose another folder"),
        (("--policy.path={tuned}", "--base.path={base}", "--env.type=avoiding", "--output_dir=/proc/x/y"),
         "output_dir=/proc/x/y cannot be written"),
        (("--policy.path={tuned}", "--base.path={short}", *QUICK),
         "--base.path has n_action_steps=2 and --policy.path 3: they are not comparable"),
        (("--policy.path={tuned}", "--policy.num_inference_steps=2", "--base.path={base}", *QUICK),
         "--base.path denoises in 3 steps and --policy.path in 2.*--base.num_inference_steps=2"),
        (("--policy.path={tuned}", "--base.path={base}", "--env.type=avoiding", "--n_episode=6"),
         "--n_episode is unknown, did you mean --n_episodes"),
    ],
)  # fmt: skip
def test_bad_input(arguments, answer, main, tuned, base_policy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    short = tmp_path / "short"
    if any("{short}" in argument for argument in arguments):
        save_policy(short, OBSERVATIONS, n_action_steps=2)
    said = main(*(a.format(tuned=tuned, base=base_policy, short=short) for a in arguments))
    assert re.search(f"error: .*{answer}", said), said
    assert {p.name for p in tmp_path.iterdir()} <= {"short"}
