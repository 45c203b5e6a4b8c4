"""`lerobot-rlft-eval` as a user meets it."""

import json
import os
import re
import signal

import numpy as np
import pytest
import torch
from lerobot.configs import parser
from safetensors.torch import load_file, save_file
from tiny import OBSERVATIONS, save_policy

from lerobot_rlft.cli import eval as command
from lerobot_rlft.diversity.atlas import ModeAtlas
from lerobot_rlft.envs.avoiding.avoiding import AvoidingVectorEnv
from lerobot_rlft.evaluation import comparison
from lerobot_rlft.rollout.runner import EpisodeRunner
from lerobot_rlft.utils.errors import UserError
from lerobot_rlft.utils.files import replacing

QUICK = (
    "--env.type=avoiding",
    "--env.episode_length=12",
    "--n_episodes=6",
    "--batch_size=6",
    "--n_attempts=16",
)
BOTH = ("--policy.path={tuned}", "--base.path={base}", *QUICK)


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


@pytest.mark.slow
def test_the_report_of_two_policies(main, tuned, base_policy, tmp_path, monkeypatch):
    always_succeed(monkeypatch)
    out = tmp_path / "new" / "report"
    said = main(f"--policy.path={tuned}", f"--base.path={base_policy}", *QUICK, f"--output_dir={out}")
    assert f"Report: {out / 'report.html'}" in said and "Success 100.0 %" in said
    assert "No claim about modes: the tuned policy has 6 successes" in said
    needed = int(re.search(r"successes, (\d+) are needed", said)[1])
    assert f"--n_episodes={needed} or above" in said  # every episode succeeds
    assert sorted(p.name for p in out.iterdir()) == [
        "diversity.json",
        "pictures",
        "report.html",
        "report.json",
    ]
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


COLUMNS = ["base", "plain", "kl", "guarded"]


@pytest.mark.slow
def test_several_policies_side_by_side(main, tuned, base_policy, tmp_path, monkeypatch):
    always_succeed(monkeypatch)
    played = []
    play = comparison.play

    def counted(runner, n_episodes, seed, *rest, **options):
        played.append(n_episodes)
        return play(runner, n_episodes, seed, *rest, **options)

    monkeypatch.setattr(comparison, "play", counted)
    options = f"others:\n  plain: {base_policy}\n  kl: {tuned}\nfloor: 0.9\n"
    (tmp_path / "options.yaml").write_text(options)
    out = tmp_path / "report"
    said = main(
        f"--config_path={tmp_path / 'options.yaml'}", f"--policy.path={tuned}", "--name=guarded",
        f"--base.path={base_policy}", *QUICK, f"--output_dir={out}",
    )  # fmt: skip
    assert played.count(6) == 4 and played.count(16) == 4 * 9  # the base once, each with 9 gaps blocked
    m = json.loads((out / "diversity.json").read_text())
    assert list(m["others"]) == ["plain", "kl"] and m["name"] == "guarded" and m["policy"] == str(tuned)
    for name, policy in (("plain", base_policy), ("kl", tuned)):
        other = m["others"][name]
        assert other.keys() == m.keys() - {"others"}
        assert (other["name"], other["policy"]) == (name, str(policy))
        assert other["base_mode_counts"] == m["base_mode_counts"]
        assert other["success_at_16_blocked_mean"] == other["success_at"]["16"] == 1
    # The base under another name is the base; the tuned policy under another name is the tuned policy.
    assert m["others"]["plain"]["kl_forward"] == 0 and m["others"]["plain"]["entropy_ratio"] == 1
    timeless = {key: value for key, value in m["others"]["kl"].items() if key != "name"}
    assert timeless == {key: m[key] for key in timeless} and m["kl_forward"] > 0
    lines = said.splitlines()
    assert any(line.split() == COLUMNS for line in lines)
    assert [line.split()[1] for line in lines[-4:]] == COLUMNS and all(line[0] == "|" for line in lines[-6:])
    page = (out / "report.html").read_text()
    assert "".join(f"<th scope=col>{name}</th>" for name in COLUMNS) in page
    pictures = {path.name for path in (out / "pictures").iterdir()}
    assert {"success_diversity.png", "trajectories.png", "shares.png", "blocked.png"} <= pictures
    assert page.count('src="data:image/png;base64,') == len(pictures)


def test_a_picture_that_fails_is_named_and_costs_no_report(main, tuned, base_policy, tmp_path, monkeypatch):
    def fail(path, *rest):
        path.with_name(f".partial.{path.name}").write_bytes(b"half")
        raise RuntimeError("no font")

    monkeypatch.setattr("lerobot_rlft.evaluation.figures.draw_fans", fail)
    out = tmp_path / "report"
    main(
        f"--policy.path={tuned}",
        f"--base.path={base_policy}",
        *QUICK,
        "--n_attempts=0",
        f"--output_dir={out}",
    )
    page = (out / "report.html").read_text()
    assert "The picture fans.png could not be drawn: RuntimeError: no font" in page
    assert [path.name for path in (out / "pictures").iterdir() if path.name.endswith("fans.png")] == []
    assert (out / "pictures" / "kl.png").is_file() and (out / "diversity.json").is_file()


def test_an_atlas_that_is_not_used_is_mentioned(main, tuned, base_policy, tmp_path):
    states = np.random.default_rng(0).normal(size=(30, 5, 4)).cumsum(1)
    ModeAtlas.fit(states, env="avoiding", key="observation.state").save(tmp_path / "atlas")
    out = tmp_path / "report"
    main(
        f"--policy.path={tuned}", f"--base.path={base_policy}", *QUICK, "--n_attempts=0",
        f"--atlas.path={tmp_path / 'atlas'}", f"--output_dir={out}",
    )  # fmt: skip
    m = json.loads((out / "diversity.json").read_text())
    assert m["modes_from"] == "environment" and "is not used" in m["notes"]["modes_from"]


def without_modes(monkeypatch):
    """Avoiding names no modes, nor says how many there are."""
    told, call = AvoidingVectorEnv._info, AvoidingVectorEnv.call

    def info(self, who):
        return {key: value for key, value in told(self, who).items() if key not in ("mode", "_mode")}

    def asked(self, name, *arguments):
        if name == "num_modes":
            raise AttributeError(name)
        return call(self, name, *arguments)

    monkeypatch.setattr(AvoidingVectorEnv, "_info", info)
    monkeypatch.setattr(AvoidingVectorEnv, "call", asked)


def stop(*arguments, **options):
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def recording(main, tuned, base_policy, tmp_path, monkeypatch):
    """Runs an evaluation that records, where an atlas names the modes; returns its folder and its message."""
    always_succeed(monkeypatch)
    without_modes(monkeypatch)
    states = np.random.default_rng(0).normal(size=(30, 5, 4)).cumsum(1)
    atlas, out = ModeAtlas.fit(states, env="avoiding", key="observation.state"), tmp_path / "report"
    atlas.save(tmp_path / "atlas")

    def run():
        said = main(
            f"--policy.path={tuned}", f"--base.path={base_policy}", *QUICK, "--n_attempts=0", "--record=true",
            f"--atlas.path={tmp_path / 'atlas'}", f"--output_dir={out}",
        )  # fmt: skip
        return out, atlas, said

    return run


@pytest.mark.slow
def test_recorded_episodes_have_the_modes_of_the_atlas(recording):
    out, atlas, said = recording()
    m = json.loads((out / "diversity.json").read_text())
    assert m["modes_from"] == "atlas" and m["num_modes"] == atlas.num_modes
    assert f"Dataset: {out / 'dataset'}, 6 episodes, " in said
    card = (out / "dataset/README.md").read_text()
    assert f"Successes in each of {atlas.num_modes} modes: {', '.join(map(str, m['mode_counts']))}." in card


@pytest.mark.slow
def test_a_recording_that_is_stopped_leaves_the_report(recording, monkeypatch):
    monkeypatch.setattr("lerobot_rlft.hub.dataset.write_rollouts", stop)
    out, _, said = recording()
    assert said == f"\nstopped: the report is whole: {out}"
    assert sorted(p.name for p in out.iterdir()) == [
        "diversity.json",
        "pictures",
        "report.html",
        "report.json",
    ]


def test_an_evaluation_that_is_stopped_says_that_nothing_was_written(
    main, tuned, base_policy, tmp_path, monkeypatch
):
    monkeypatch.setattr(comparison, "play", stop)
    handler = signal.getsignal(signal.SIGTERM)
    said = main(
        f"--policy.path={tuned}", f"--base.path={base_policy}", *QUICK, f"--output_dir={tmp_path / 'report'}"
    )
    assert said == "\nstopped, nothing was written" and not (tmp_path / "report").exists()
    assert signal.getsignal(signal.SIGTERM) is handler


@pytest.mark.slow
def test_the_base_of_a_run_is_known(main, dppo_config, tmp_path, monkeypatch):
    from lerobot_rlft.training.trainer import Trainer

    monkeypatch.setattr("lerobot_rlft.training.evaluator.draw_trajectories", lambda *args: None)
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
        ((*BOTH, "--others={plain: {short}}"),
         "--base.path has n_action_steps=3 and --others=.plain: .*short. 2: they are not comparable"),
        ((*BOTH, "--others={plain: {tuned}/nowhere}"), "--others=.plain: .*nowhere. is no checkpoint"),
        ((*BOTH, "--others={plain: {fewer}}"),
         "--base.path denoises in 3 steps and --others=.plain: .*fewer. in 2.*--policy.num_inference_steps"),
        ((*BOTH, "--others={base: {tuned}}"), "others: 'base' is the name of the base, choose another"),
        ((*BOTH, "--name=Base"), "name: 'Base' is the name of the base"),
        ((*BOTH, "--others={tuned: {tuned}}"), "others: 'tuned' is the name of two policies .--name=tuned"),
        ((*BOTH, "--others={plain: {tuned}, plain: {base}}"), "others: 'plain' is the name of two policies"),
        ((*BOTH, "--others={plain: {tuned}, Plain: {base}}"), "others: 'plain' is the name of two policies"),
        ((*BOTH, "--others={a b: {tuned}}"), "others: 'a b' is no name for a policy, give a plain word"),
        ((*BOTH, "--name=../x"), "name: '../x' is no name for a policy"),
        ((*BOTH, "--others={plain: }"), "others: 'plain' has no path, give .plain: HUB_ID_OR_FOLDER}"),
        ((*BOTH, "--others=plain"), "--others=plain gives no names: write --others='.NAME: VALUE, ....'"),
        ((*BOTH, "--floor=1.5"), "floor=1.5 is no share"),
        ((*BOTH, "--atlas.path={base}"), "holds no whole mode atlas"),
    ],
)  # fmt: skip
def test_bad_input(arguments, answer, main, tuned, base_policy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(EpisodeRunner, "evaluate", None)  # nothing is played
    folders = {"tuned": tuned, "base": base_policy, "short": tmp_path / "short", "fewer": tmp_path / "fewer"}
    for name, fields in (("short", {"n_action_steps": 2}), ("fewer", {"num_inference_steps": 2})):
        if any(f"{{{name}}}" in argument for argument in arguments):
            save_policy(folders[name], OBSERVATIONS, **fields)
    for name, folder in folders.items():
        arguments = [argument.replace(f"{{{name}}}", str(folder)) for argument in arguments]
    said = main(*arguments)
    assert re.search(f"error: .*{answer}", said), said
    assert {p.name for p in tmp_path.iterdir()} <= {"short", "fewer"}


def test_a_full_disk_is_told_with_the_option_that_helps(tmp_path):
    refused = pytest.raises(UserError, match=r"^--output_dir=.*report cannot be written \(.*No space left")
    with refused, command._writing(tmp_path / "report"), replacing(tmp_path / "report") as partial:
        partial.mkdir()
        raise OSError(28, "No space left on device")
    assert not list(tmp_path.iterdir())
