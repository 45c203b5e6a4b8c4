"""Cards: what a policy that needs the plugin says, and what goes into the Hub's results."""

from dataclasses import dataclass

import pytest
from huggingface_hub import ModelCard
from lerobot.configs import PreTrainedConfig
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig

from lerobot_rlft.configs.pretrained import needs_plugin
from lerobot_rlft.hub.card import evaluation_results, policy_card
from lerobot_rlft.hub.escape import escaped

NUMBERS = {
    "env": "grasps", "env_options": {"best_reward": 1.0}, "seed": 7, "n_episodes": 200, "name": "tuned",
    "others": {}, "success": 0.9, "success_ci": [0.85, 0.93], "base_success": 0.5,
    "base_success_ci": [0.43, 0.57], "claim_refusal": None, "entropy_ratio": 0.8,
    "entropy_ratio_ci": [0.7, 0.9], "num_modes": 2, "mode_counts": [150, 30], "base_mode_counts": [50, 50],
    "base_modes_covered": 2, "modes_covered": 2, "base_entropy": 1.0,
}  # fmt: skip
FIELDS = {
    "repo_id": "user/name", "policy_type": "guided", "algorithm": "recap", "base": None,
    "base_missing": False,
    "not_measured": [], "picture": None, "caption": "", "lineage": [], "env": "grasps", "env_is_ours": True,
    "env_steps": None, "packages": [], "guard": None, "papers": [], "rerun_command": "",
    "eval_command": "lerobot-eval", "limits": [],
}  # fmt: skip


def test_a_type_of_the_plugin_says_how_to_install_it():
    @PreTrainedConfig.register_subclass("guided_for_test")
    @dataclass
    class Guided(DiffusionConfig):
        pass

    assert needs_plugin("guided_for_test") and not needs_plugin("diffusion")
    for stock in (True, False):
        text = policy_card("user/name", NUMBERS, {}, FIELDS | {"stock": stock}, None)
        assert ("Install the package `lerobot_policy_rlft`" in text) != stock
        assert ("Stock LeRobot is enough" in text) == stock


@pytest.mark.parametrize("refusal", [None, "too few"])
def test_results_are_claims_only_where_the_episodes_carry_them(refusal):
    results = evaluation_results(NUMBERS | {"claim_refusal": refusal})
    found = {r.metric_type: r for r in results}
    assert list(found) == (["success", "entropy_ratio", "modes_covered"] if refusal is None else ["success"])
    assert found["success"].metric_args == {"ci_95": [0.85, 0.93], "base": 0.5}
    assert found["success"].dataset_args == {"n_episodes": 200, "first_seed": 7, "best_reward": 1.0}


def test_a_card_without_numbers_has_no_results():
    fields = FIELDS | {"stock": True, "not_measured": ["success, nobody looked"]}
    card = ModelCard(policy_card("user/name", None, {"license": "mit"}, fields, None))
    assert card.data.to_dict() == {"library_name": "lerobot", "pipeline_tag": "robotics", "license": "mit"}
    assert "Not stated: success, nobody looked" in card.text and "|---" not in card.text


@pytest.mark.parametrize(
    "text, shown",
    [
        ("avoiding_dppo", "avoiding_dppo"),
        ("user/name, seed 7 (95 %).", "user/name, seed 7 (95 %)."),
        ("<b>&", "&#60;b&#62;&#38;"),
        ("[a](https://x)", "&#91;a&#93;(https:&#47;/x)"),
        ("a\n\n# b", "a # b"),
        ("# b", "&#35; b"),
        ("1. b", "&#49;&#46; b"),
        ("_a_ `b` |", "&#95;a&#95; &#96;b&#96; &#124;"),
        ("www.x.y", "www&#46;x.y"),
        ("a\u202eb", "ab"),
        (7, "7"),
    ],
)
def test_foreign_text_is_plain_text(text, shown):
    assert escaped(text) == shown


def test_a_card_takes_neither_markdown_nor_metadata_from_numbers():
    evil = "x\n---\nlicense: evil\n# Big <img src=x> [a](http://b)"
    numbers = NUMBERS | {"env": evil, "env_options": {evil: evil}, "claim_refusal": evil}
    numbers |= {"others": {evil: NUMBERS | {"name": evil}}}
    card = ModelCard(policy_card("user/name", numbers, {"license": "mit"}, FIELDS | {"stock": True}, None))
    assert card.data.license == "mit"
    assert "<img" not in card.text and "[a]" not in card.text and "\n# Big" not in card.text
    assert "&#60;img" in card.text


def test_tasks_stand_in_a_table_of_their_own():
    task = {"success": 0.5, "success_ci": [0.4, 0.6], "n_episodes": 100}
    numbers = NUMBERS | {"tasks": {"libero_10/<3>": task}, "base_tasks": {}, "task_success": 0.5}
    text = policy_card("user/name", numbers, {}, FIELDS | {"stock": True}, None)
    assert "| libero_10/&#60;3&#62; | - | 0.500 [0.400, 0.600] of 100 | - | - | - |" in text
    assert "| mean of the tasks | - | 0.500 | - | - | - |" in text
    assert "mean of the tasks" not in policy_card("user/name", NUMBERS, {}, FIELDS | {"stock": True}, None)
