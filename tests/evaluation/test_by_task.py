"""Numbers of each task and their means, and the table of them."""

import pytest

from lerobot_rlft.evaluation.by_task import HEAD, measure_tasks, task_rows, with_head


def task(success, counts, n_episodes=100):
    return {
        "success": success, "success_ci": (success - 0.1, success + 0.1), "n_episodes": n_episodes,
        "modes": sum(c > 0 for c in counts), "num_modes": len(counts), "entropy": 1.0 if all(counts) else 0.0,
        "mode_counts": counts,
    }  # fmt: skip


TUNED = {"a/0": task(0.8, [40, 40]), "a/1": task(0.4, [40, 0]), "a/2": task(0.0, [0, 0])}
BASE = {"a/0": task(0.4, [20, 20]), "a/1": task(0.2, [10, 10]), "a/2": task(0.0, [0, 0])}


def test_means_are_over_tasks():
    m = {}
    measure_tasks(m, TUNED, BASE)
    assert m["task_success"] == pytest.approx(0.4) and m["base_task_success"] == pytest.approx(0.2)
    assert m["task_entropy"] == 0.5  # of the two with a success
    assert m["task_entropy_ratio"] == pytest.approx(0.5, abs=0.02)  # 1 and 0
    assert m["tasks"] == TUNED and m["base_tasks"] == BASE


def test_the_table_has_a_line_for_each_and_one_for_the_mean():
    m = {}
    measure_tasks(m, TUNED, BASE)
    head, *rows = with_head(m)
    assert head == HEAD and [row[0] for row in rows] == ["a/0", "a/1", "a/2", "mean of the tasks"]
    assert rows[1][:5] == [
        "a/1",
        "0.200 [0.100, 0.300] of 100",
        "0.400 [0.300, 0.500] of 100",
        "2 of 2",
        "1 of 2",
    ]
    assert rows[2][5] == "-" and rows[3][:3] == ["mean of the tasks", "0.200", "0.400"]


def test_without_a_base_and_without_modes():
    m, plain = {}, {"a/0": {"success": 0.5, "success_ci": (0.4, 0.6), "n_episodes": 10}}
    measure_tasks(m, plain, None)
    assert m["task_success"] == 0.5 and m["task_entropy"] is None
    assert task_rows(m)[0] == ["a/0", "-", "0.500 [0.400, 0.600] of 10", "-", "-", "-"]


def test_one_task_has_no_table():
    m = {}
    measure_tasks(m, None, None)
    assert m == {} and with_head(m) == []
