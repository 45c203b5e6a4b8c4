"""Tables as text: for a terminal, and for Markdown."""

from collections.abc import Iterable, Sequence


def plain_table(rows: Sequence[Sequence[str]], align: str = "") -> str:
    """Columns side by side, two spaces between them.

    Args:
        rows: of equal length; the head, where there is one, is the first.
        align: "<" (left) or ">" (right) for each column; those that it does not reach are left.

    Raises:
        ValueError: rows of unequal length.
    """
    columns = list(zip(*rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    signs = align.ljust(len(columns), "<")
    line = "  ".join(f"{{:{sign}{width}}}" for sign, width in zip(signs, widths, strict=True))
    return "\n".join(line.format(*row).rstrip() for row in rows)


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Head, a rule and rows; a | within a cell is escaped, so that it does not end the cell.

    Raises:
        ValueError: a row of another length than the head.
    """
    lines = [list(head), *map(list, rows)]
    if wrong := [line for line in lines if len(line) != len(head)]:
        raise ValueError(f"a row has {len(wrong[0])} cells, the head has {len(head)}: {wrong[0]}")
    first, *rest = (f"| {' | '.join(cell.replace('|', '\\|') for cell in line)} |" for line in lines)
    return "\n".join([first, "|---" * len(head) + "|", *rest])
