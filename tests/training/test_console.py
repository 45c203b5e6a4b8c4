"""The words at the end of a run."""

import shlex
from pathlib import Path
from types import SimpleNamespace

from lerobot.envs.configs import PushtEnv

from lerobot_rlft.envs.avoiding.configuration_avoiding import AvoidingEnvConfig
from lerobot_rlft.envs.options import eval_command
from lerobot_rlft.training.console import Progress, conclusion


def evaluation(success: float, **fields) -> dict:
    ci = (success - 0.1, success + 0.1)
    return {"n_episodes": 40, "success": success, "success_ci": ci, "max_reward": success / 2} | fields


def modes(count: int, entropy: float, first: int = 0, each: int = 1) -> dict:
    """`each` successes in each of `count` modes from `first` up."""
    counts = [each * (first <= mode < first + count) for mode in range(24)]
    return {"modes": count, "num_modes": 24, "entropy": entropy, "mode_counts": counts}


def test_success_bought_with_modes_is_said_to_be():
    base, tuned = evaluation(0.5, **modes(20, 0.9)), evaluation(0.9, **modes(3, 0.2, each=12))
    text = conclusion({"env_steps": 12345, "base": base, "tuned": tuned})
    assert (
        "Success rose: 50.0 % [40.0, 60.0] before, 90.0 % [80.0, 100.0] after 12,345 environment steps"
        in text
    )
    assert "Of the 20 ways to succeed that the base knew, the tuned policy uses 3" in text
    assert "entropy 0.900 before, 0.200 after" in text and "Success was paid for with ways" in text
    moved = conclusion({"env_steps": 1, "base": base, "tuned": evaluation(0.5, **modes(6, 0.9, first=18))})
    assert "the tuned policy uses 2" in moved and "paid" not in moved  # 18 and 19 of the 20, four are new
    kept = conclusion({"env_steps": 1, "base": base, "tuned": evaluation(0.9, **modes(20, 0.9))})
    assert "Success rose" in kept and "paid" not in kept
    broken = conclusion({"env_steps": 1, "base": base, "tuned": evaluation(0.1, **modes(20, 0.9))})
    assert "Success fell: 50.0 % [40.0, 60.0] before, 10.0 % [0.0, 20.0] after" in broken


def test_a_difference_that_the_episodes_do_not_carry_is_none():
    base, tuned = (evaluation(s, **modes(m, e)) for s, m, e in ((0.675, 20, 0.9), (0.7, 3, 0.2)))
    text = conclusion({"env_steps": 1, "base": base, "tuned": tuned})
    assert text.startswith("No difference in success can be told: 67.5 % [57.5, 77.5] before, 70.0 %")
    assert not any(word in text for word in ("rose", "fell", "paid"))
    # Of 27 and 33 successes in 40 episodes: all six new ones and none lost are told, eight and two are not.
    summary = {"env_steps": 1, "base": evaluation(27 / 40), "tuned": evaluation(33 / 40)}
    assert conclusion(summary | {"gained": 6}).startswith("Success rose")
    assert conclusion(summary | {"gained": 8}).startswith("No difference")
    assert conclusion(summary).startswith("No difference")


def test_what_the_guard_held_is_said():
    base, tuned = evaluation(0.5, **modes(20, 0.9)), evaluation(0.75, **modes(19, 0.87))
    guard = {"metric": "smallest_share", "floor": 0.8, "iteration": 6, "ratio": 0.912, "front": [{}, {}, {}]}
    summary = {"env_steps": 1, "base": base, "tuned": tuned, "guard": guard}
    assert conclusion(summary).endswith(
        "\nGuard: 0.91 of the base's smallest share is kept (floor 0.8). Exported is the checkpoint of "
        "iteration 6; on the front of success and diversity (front.png) are 3 of the evaluated ones."
    )
    guard |= {"metric": "entropy", "ratio_ci": [0.85, 0.97]}
    assert "Guard: 0.91 [0.85, 0.97] of the base's entropy is kept" in conclusion(summary)


def test_an_environment_without_modes():
    text = conclusion({"env_steps": 1, "base": evaluation(0.4), "tuned": evaluation(0.6)})
    assert "Mean max reward: 0.200 before, 0.300 after" in text and "ways" not in text


def test_a_cloned_policy_has_no_base():
    text = conclusion({"env_steps": 0, "tuned": evaluation(0.6, **modes(5, 0.4))})
    assert text == (
        "Success of the checkpoint on disk: 60.0 % [50.0, 70.0] of 40 episodes. "
        "It uses 5 of 24 modes (entropy 0.400)."
    )


def test_the_stock_command_survives_the_shell():
    command = eval_command(Path("my run/x"), AvoidingEnvConfig(task="a b; c"))
    assert "--policy.path=my run/x" in shlex.split(command) and "--env.task=a b; c" in shlex.split(command)


def test_the_stock_command_repeats_what_was_changed():
    command = eval_command(Path("run/pretrained_model"), AvoidingEnvConfig(reward="blocked", show_block=True))
    assert command.startswith(
        "lerobot-eval --policy.path=run/pretrained_model --env.type=avoiding --env.reward=blocked "
        "--env.show_block=true --eval."
    )
    assert "--env.fps" not in command
    assert "--env.episode_length=50 --env.obs_type=pixels" in eval_command(
        Path("x"), PushtEnv(obs_type="pixels", episode_length=50)
    )


def test_a_redirected_log_has_no_line_for_every_step(capsys):
    config = SimpleNamespace(iterations=50, job_name="job", algorithm=SimpleNamespace(consumes="batch"))
    with Progress(config, 0) as bar:
        for _ in range(50):
            bar.status = "loss 1"
            bar.advance()
    assert capsys.readouterr().err == "job: iteration 1 of 50 loss 1\njob: iteration 50 of 50 loss 1\n"
