"""Numbers of several policies side by side."""

import re

import numpy as np
import pytest

from lerobot_rlft.evaluation.measures import Metrics, measure_blocked, measure_modes
from lerobot_rlft.evaluation.tables import headlines, markdown, rows, short, text

BASE = np.array([150, 150, 150, 150, 0, 0])


def measured(name: str, counts, *, success: float = 0.9, unknown: int = 0, blocked=(64, 64)) -> dict:
    """Content of diversity.json of one policy; `counts` of six modes."""
    m = Metrics()
    m |= {
        "name": name, "success": success, "success_ci": [success - 0.05, success + 0.05], "n_success": 600,
        "base_success": 0.6, "base_success_ci": [0.55, 0.65], "base_n_success": 600, "unknown": unknown,
        "n_episodes": 1000, "num_modes": None if counts is None else 6, "others": {}, "kl_reverse": 1.25,
        "kl_forward": 20.0,
    }  # fmt: skip
    measure_modes(m, None if counts is None else np.array(counts), None if counts is None else BASE)
    measure_blocked(m, dict(zip(("left", "right"), blocked, strict=True)), {"left": 64, "right": 0}, 64)
    return m


def three() -> dict:
    plain = measured("plain", [598, 0, 0, 0, 2, 0], success=0.95, blocked=(64, 0))
    return measured("guarded", BASE) | {
        "others": {"plain": plain, "few": measured("few", [30, 10, 0, 0, 0, 0])}
    }


def test_one_column_for_each_policy():
    table = {row.label: [str(cell) for cell in row.cells] for row in rows(three())}
    assert list(table) == [
        "success", "success entropy ratio", "modes kept", "effective modes", "smallest share ratio",
        "success@16, a way blocked", "the same, worst way", "KL(policy || base)", "KL(base || policy)",
    ]  # fmt: skip
    assert table["success"] == [
        ".600 [.550, .650]", ".950 [.900, 1.000]", ".900 [.850, .950]", ".900 [.850, .950]",
    ]  # fmt: skip
    # The mode of plain that the base never had is none of those it kept.
    assert table["modes kept"] == ["4 of 6", "1 of 4", "2 of 4", "4 of 4"]
    ratio = table["success entropy ratio"]
    assert ratio[0] == "1 by definition" and ratio[3].startswith("1.000 [.9") and "no claim" not in ratio[1]
    assert ratio[2].endswith(", no claim")
    assert re.fullmatch(r"\.000 \[\.000, \.0\d\d\], mode 1", table["smallest share ratio"][1])
    assert [cell.split()[0] for cell in table["success@16, a way blocked"]] == [
        ".500",
        ".500",
        "1.000",
        "1.000",
    ]
    assert re.fullmatch(r"\.000 \[\.000, \.\d+\], right", table["the same, worst way"][1])
    assert table["KL(base || policy)"] == ["0 by definition", "20", "20", "20"]
    lines = text(three()).splitlines()
    assert lines[0].split() == ["base", "plain", "few", "guarded"] and len(lines) == 10
    assert lines[1].rindex(".900 [") == lines[0].index("guarded")


def test_lines_for_a_readme():
    lines = markdown(three()).splitlines()
    assert lines[0] == "| policy | success (deployed) | success entropy ratio, lower 95 % bound | modes |"
    assert lines[2] == "| base | .600 [.550, .650] | 1 by definition | 4 of 6 |"
    plain = three()["others"]["plain"]
    ratio, low = plain["entropy_ratio"], plain["entropy_ratio_ci"][0]
    assert 0 < low < ratio < 0.03
    bound = float(lines[3].split("≥ ")[1].split(" ")[0])
    assert low - 0.001 < bound <= low  # rounded down
    assert lines[3] == f"| plain | .950 [.900, 1.000] | {short(ratio)}, ≥ {short(bound)} | 2 of 6 |"
    assert lines[4] == "| few | .900 [.850, .950] | no claim | 2 of 6 |"
    assert lines[5].startswith("| guarded | .900 [.850, .950] | 1.000, ≥ .9")


def test_headlines_name_the_policies_where_there_are_several():
    said = headlines(three())
    assert [line.split(":")[0] for line in said] == ["guarded", "plain", "few"]
    assert "100 % [" in said[0] and "4 of its 4 modes" in said[0]
    assert "the tuned policy has 40 successes, 80 are needed" in said[2]
    assert headlines(measured("tuned", BASE))[0].startswith("Success 90.0 % against 60.0 % of the base, with")


def test_a_difference_in_success_is_told_where_the_episodes_carry_it():
    m = measured("tuned", BASE, success=0.61)
    untold = "Success 61.0 % against 60.0 % of the base (no difference can be told from 1000 episodes), with"
    assert headlines(m)[0].startswith(untold)
    assert headlines(m | {"gained": 10})[0].startswith("Success 61.0 % against 60.0 % of the base, with")


def test_successes_in_no_known_mode_are_mentioned():
    assert "In no known mode" not in headlines(measured("tuned", BASE))[0]
    m = measured("tuned", BASE, unknown=12)
    assert headlines(m)[0].endswith(
        "In no known mode, and in no number about modes: 12 of 600 successes of the policy."
    )
    m["base_unknown"] = 3
    assert "12 of 600 successes of the policy and 3 of 600 successes of the base." in headlines(m)[0]
    few = measured("tuned", [1, 0, 0, 0, 0, 0], unknown=5)
    assert "No claim" in headlines(few)[0] and "5 of 600 successes of the policy" in headlines(few)[0]


def test_a_way_that_the_base_never_showed_is_told():
    m = measured("tuned", [15, 0, 0, 0, 0, 0], unknown=464) | {"n_success": 479, "base_unknown": 12}
    assert "never showed" not in headlines(m)[0]  # the environment names its modes
    [said] = headlines(m | {"modes_from": "atlas"})
    assert "97 % of its successes go a way the base never showed." in said
    assert "No claim" not in said and "Play more" not in said
    assert "464 of 479 successes of the policy" in said
    # As many of the base's successes as of the policy's are in none: nothing new.
    m = measured("tuned", BASE, unknown=14) | {"modes_from": "atlas", "base_unknown": 12}
    assert "never showed" not in headlines(m)[0]


def test_without_modes_the_table_has_the_rest():
    m = measured("tuned", None)
    labels = [row.label for row in rows(m)]
    assert (
        labels[0] == "success" and "effective modes" not in labels and "success entropy ratio" not in labels
    )
    assert markdown(m).splitlines()[2] == "| base | .600 [.550, .650] | - | - |"
    assert markdown(m).splitlines()[3] == "| tuned | .900 [.850, .950] | no claim | - |"
    assert "no modes are known" in headlines(m)[0]


@pytest.mark.parametrize("value, shown", [(0.9994, ".999"), (1, "1.000"), (0, ".000"), (0.0126, ".013")])
def test_three_digits(value, shown):
    assert short(value) == shown
