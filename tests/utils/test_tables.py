"""Tables as text."""

import pytest

from lerobot_rlft.utils.tables import markdown_table, plain_table


def test_columns_are_as_wide_as_their_widest_cell():
    rows = [["", "size", "name"], ["total", "1,234", "all of them"], ["one", "5", ""]]
    assert plain_table(rows).splitlines() == [
        "       size   name",
        "total  1,234  all of them",
        "one    5",
    ]
    assert plain_table(rows, "<>").splitlines() == [
        "        size  name",
        "total  1,234  all of them",
        "one        5",
    ]


def test_a_bar_does_not_end_a_cell():
    assert markdown_table(["", "a"], [["KL(p || q)", "1"]]).splitlines() == [
        "|  | a |",
        "|---|---|",
        r"| KL(p \|\| q) | 1 |",
    ]


def test_rows_of_another_length_are_refused():
    with pytest.raises(ValueError, match="a row has 1 cells, the head has 2"):
        markdown_table(["a", "b"], [["1", "2"], ["3"]])
    with pytest.raises(ValueError, match="argument 2"):
        plain_table([["a", "b"], ["1"]])
