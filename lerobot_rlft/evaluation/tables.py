"""The numbers of a comparison in words, and side by side: one column for each policy, the base first.

All from the content of diversity.json.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from ..configs.eval import BASE
from ..metrics.intervals import wilson_interval
from ..metrics.keys import BLOCKED, KEYS, MOST_ATTEMPTS
from ..metrics.modes import SUCCESSES_PER_MODE
from ..metrics.registry import METRICS
from ..utils.tables import markdown_table, plain_table
from .paired import success_change

NOTHING = "-"
HEAD = ("policy", "success (deployed)", "success entropy ratio, lower 95 % bound", "modes")


class Cell(NamedTuple):
    """A number, and its interval or what belongs to it."""

    value: str
    beside: str = ""

    def __str__(self) -> str:
        return f"{self.value} {self.beside}".strip()


class Row(NamedTuple):
    """One line of the table; `cells` are those of the base and of each policy."""

    label: str
    meaning: str
    cells: list[Cell]


def columns(m: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The metrics of each tuned policy by name, the main one last, as in the table."""
    return {**m["others"], m["name"]: m}


def main_first(m: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The same in the order in which they are written about."""
    return {m["name"]: m, **m["others"]}


def rows(m: dict[str, Any]) -> list[Row]:
    """The table; a row that nobody has a number for is left out."""
    sides = list(columns(m).values())

    def each(key: str, beside: str = "") -> list[Cell]:
        """Cells of `key`, its interval and, with `beside`, a word of the metrics about it."""
        return [_cell(m, f"base_{key}", f"base_{beside}"), *(_cell(side, key, beside) for side in sides)]

    out = [
        Row("success", "deployed sampler, same seeds for all, with its 95 % interval", each("success")),
        Row(
            "success entropy ratio",
            "entropy of the modes of successes relative to the base's at equal numbers of successes, with "
            "its 95 % interval; 1 keeps the base's diversity",
            [_one(m), *map(_ratio, sides)],
        ),
        Row("modes kept", "modes of the base that still have a success", [_covered(m), *map(_kept, sides)]),
        Row(
            "effective modes",
            "number of equally used modes with the same entropy",
            each("effective_modes"),
        ),
        Row(
            "smallest share ratio",
            "of the modes with more than 2 % of the base's successes, the one whose share fell most",
            [_one(m), *(_cell(side, "min_retention", "min_retention_mode", "mode ") for side in sides)],
        ),
        Row(
            "ways ratio",
            "chance that two successes from one start go nearly alike, of the base relative to the policy, "
            "with its 95 % interval; 1 keeps the base's ways, and no modes are needed",
            [Cell("1", "by definition"), *(_cell(side, "ways_ratio") for side in sides)],
        ),
        Row(
            f"success@{MOST_ATTEMPTS}, a way blocked",
            f"chance that one of {MOST_ATTEMPTS} attempts succeeds with one way walled off, mean over ways",
            each(f"{BLOCKED}_mean"),
        ),
        Row(
            "the same, worst way",
            "the way whose loss costs most",
            each(f"{BLOCKED}_worst", f"{BLOCKED}_worst_way"),
        ),
        Row(
            "KL(policy || base)",
            "of a whole denoising chain on the policy's own chains, nats; blind to dropped modes",
            [Cell("0", "by definition"), *(_cell(side, "kl_reverse") for side in sides)],
        ),
        Row(
            "KL(base || policy)",
            "of a whole denoising chain on the base's chains, nats; sees dropped modes",
            [Cell("0", "by definition"), *(_cell(side, "kl_forward") for side in sides)],
        ),
    ]
    out += [
        Row(metric.row, KEYS[name], [Cell(NOTHING), *(_cell(side, name) for side in sides)])
        for name, metric in METRICS.items()
        if metric.row is not None
    ]
    return [row for row in out if any(cell.value != NOTHING for cell in row.cells[1:])]


def text(m: dict[str, Any]) -> str:
    """The table for a terminal."""
    return plain_table(side_by_side(m))


def side_by_side(m: dict[str, Any]) -> list[list[str]]:
    """The table in words, its head first."""
    return [["", BASE, *columns(m)], *([row.label, *map(str, row.cells)] for row in rows(m))]


def markdown(m: dict[str, Any]) -> str:
    """One line for each policy, for a README.

    The bound is the lower limit of the two-sided 95 % interval, rounded down. Where the episodes carry no
    claim about modes, none is made.
    """
    lines = [[BASE, *map(str, (_cell(m, "base_success"), _one(m), _covered(m)))]]
    for name, side in columns(m).items():
        ratio = "no claim"
        if side["claim_refusal"] is None and side.get("entropy_ratio") is not None:
            low = math.floor(1000 * side["entropy_ratio_ci"][0]) / 1000
            ratio = f"{short(side['entropy_ratio'])}, ≥ {short(low)}"
        modes = (
            NOTHING
            if side.get("modes_covered") is None
            else f"{side['modes_covered']} of {side['num_modes']}"
        )
        lines.append([name, str(_cell(side, "success")), ratio, modes])
    return markdown_table(HEAD, lines)


def headlines(m: dict[str, Any]) -> list[str]:
    """Claims about each policy, the main one first; with its name where there are several."""
    if not m["others"]:
        return [headline(m)]
    return [f"{name}: {headline(side)}" for name, side in main_first(m).items()]


def headline(m: dict[str, Any]) -> str:
    """Claims about one policy that its episodes support, in a few sentences."""
    claim = f"Success {percent(m['success'])} against {percent(m['base_success'])} of the base"
    episodes = m["n_episodes"]
    counts = (round(m[key] * episodes) for key in ("base_success", "success"))
    if success_change(*counts, episodes, m.get("gained")) is None:
        claim += f" (no difference can be told from {episodes} episodes)"
    if m["claim_refusal"] is not None:
        new = _new_ways(m)
        claim = f"{claim}. {new or m['claim_refusal']}"
        return " ".join(filter(None, [claim, "" if new else _way_out(m), _unknown(m), _ways(m)]))
    low, high = m["entropy_ratio_ci"]
    claim += (
        f", with {100 * m['entropy_ratio']:.0f} % [{100 * low:.0f}, {100 * high:.0f}] of its mode entropy "
        f"and {kept_modes(m)} of its {m['base_modes_covered']} modes."
    )
    return " ".join(filter(None, [claim, _new_ways(m), _unknown(m)]))


def kept_modes(m: dict[str, Any]) -> int:
    """Modes of the base with a success."""
    return sum(t > 0 and b > 0 for t, b in zip(m["mode_counts"], m["base_mode_counts"], strict=True))


def short(value: float) -> str:
    """Three digits after the point, without a leading zero."""
    return f"{value:.3f}".removeprefix("0")


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _way_out(m: dict[str, Any]) -> str:
    """Number of episodes that would carry a claim at these success rates; empty where more do not help."""
    if m["num_modes"] is None or m["claim_refusal"].startswith("Nothing"):
        return ""
    counts = np.array([m["mode_counts"], m["base_mode_counts"]])  # (2, M)
    fewest, requirement = counts.sum(1).min(), SUCCESSES_PER_MODE * (counts.sum(0) > 0).sum()
    if not fewest:
        return "One of them never succeeds: there are no ways of solving the task to compare."
    return f"Play more: --n_episodes={-(-m['n_episodes'] * requirement // fewest)} or above."


def _new_ways(m: dict[str, Any]) -> str:
    """Share of successes that go a way the base never showed; empty unless that is clear.

    Clear: of an atlas, whose modes are the base's own ways, and at 95 % intervals of the shares in no mode
    that do not overlap.
    """
    if m.get("modes_from") != "atlas" or not m.get("unknown"):
        return ""
    low, _ = wilson_interval(m["unknown"], m["n_success"])
    _, high = wilson_interval(m.get("base_unknown") or 0, m["base_n_success"])
    if low <= high:
        return ""
    return f"{100 * m['unknown'] / m['n_success']:.0f} % of its successes go a way the base never showed."


def _ways(m: dict[str, Any]) -> str:
    """Claim that needs no modes; empty where it was not measured."""
    if m.get("ways_ratio") is None:
        return ""
    low, high = m["ways_ratio_ci"]
    return (
        f"Of the ways that the base takes from one start it keeps {100 * m['ways_ratio']:.0f} % "
        f"[{100 * low:.0f}, {100 * high:.0f}] (ways ratio)."
    )


def _unknown(m: dict[str, Any]) -> str:
    """Number of successes that the numbers about modes leave out."""
    keys = {"the policy": ("unknown", "n_success"), "the base": ("base_unknown", "base_n_success")}
    parts = [f"{m[key]} of {m[of]} successes of {who}" for who, (key, of) in keys.items() if m.get(key)]
    return f"In no known mode, and in no number about modes: {' and '.join(parts)}." if parts else ""


def _cell(m: dict[str, Any], key: str, beside: str = "", before: str = "") -> Cell:
    """A number with its interval and, after it, the word under the key `beside`."""
    if m.get(key) is None:
        return Cell(NOTHING)
    words = []
    if m.get(f"{key}_ci"):
        low, high = m[f"{key}_ci"]
        words.append(f"[{_number(key, low)}, {_number(key, high)}]")
    if beside and m.get(beside) is not None:
        words.append(f"{before}{m[beside]}")
    return Cell(_number(key, m[key]), ", ".join(words))


def _number(key: str, value: float) -> str:
    if "kl_" in key:
        return f"{value:.3g}"
    return f"{value:.1f}" if "effective" in key else short(value)


def _ratio(m: dict[str, Any]) -> Cell:
    value, beside = _cell(m, "entropy_ratio")
    if value == NOTHING or m["claim_refusal"] is None:
        return Cell(value, beside)
    return Cell(value, f"{beside}, no claim")


def _one(m: dict[str, Any]) -> Cell:
    """The base relative to itself."""
    return Cell(NOTHING) if m.get("base_entropy") is None else Cell("1", "by definition")


def _covered(m: dict[str, Any]) -> Cell:
    if m.get("base_modes_covered") is None:
        return Cell(NOTHING)
    return Cell(str(m["base_modes_covered"]), f"of {m['num_modes']}")


def _kept(m: dict[str, Any]) -> Cell:
    if m.get("mode_counts") is None or m.get("base_mode_counts") is None:
        return Cell(NOTHING)
    return Cell(str(kept_modes(m)), f"of {m['base_modes_covered']}")
