"""Published policies beside each other: success and the modes they use, from their diversity.json.

Only policies that were evaluated alike share a table: same environment with the same options, seeds and
number of episodes, and the same source of modes.
"""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from httpx import HTTPError
from huggingface_hub.errors import EntryNotFoundError, HFValidationError
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgba

from ..plots.run import POLICY_COLOURS, save
from ..policies.pretrained_files import commit_of, fetch, split_revision
from ..utils.errors import UserError, one_line
from ..utils.files import make_folder, replacing
from ..utils.tables import markdown_table
from .plots import MARKERS
from .report import DIVERSITY
from .tables import columns, short

MARKDOWN, CSV, NUMBERS, PICTURE = "compare.md", "compare.csv", "compare.json", "compare.png"
HEAD = ("policy", "base", "success", "modes", "effective modes", "success entropy ratio to its base", "front")


@dataclass(frozen=True)
class Entry:
    """One policy.

    Attributes:
        name: as it was asked for.
        conditions: how it was evaluated, in words; those of equal conditions are comparable.
        success, effective_modes, entropy_ratio: value with its 95 % interval; None where it was not measured.
        refusal: why its episodes carry no claim about modes; None where they do.
    """

    name: str
    base: str | None
    conditions: str
    success: tuple[float, float, float]
    modes: int | None
    num_modes: int | None
    effective_modes: tuple[float, float, float] | None
    entropy_ratio: tuple[float, float, float] | None
    refusal: str | None


def read(place: str) -> list[Entry]:
    """The policies of a Hub repository, or of a folder that lerobot-rlft-eval or a dry run wrote.

    Raises:
        UserError: there is no diversity.json, or it is damaged or of an older version.
    """
    path, revision = split_revision(place)
    try:
        content = json.loads(fetch(path, DIVERSITY, commit_of(path, revision)).read_text())
    except (EntryNotFoundError, HTTPError, OSError, HFValidationError) as error:
        raise UserError(
            f"{place} has no {DIVERSITY} that can be read ({one_line(error)}): give a Hub id user/name that "
            "lerobot-rlft-push published, or a folder that lerobot-rlft-eval wrote"
        ) from error
    except ValueError as error:
        raise UserError(f"{place} has a damaged {DIVERSITY} ({error}): download it again") from error
    try:
        sides = columns(content)
        return [_entry(place if len(sides) == 1 else f"{place}:{name}", m) for name, m in sides.items()]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{place} has a {DIVERSITY} of another version, or a damaged one ({type(error).__name__}: "
            f"{error}): measure it again with lerobot-rlft-eval"
        ) from error


def _entry(name: str, m: dict[str, Any]) -> Entry:
    options = "".join(f", {key} {value}" for key, value in sorted(m["env_options"].items()))
    conditions = (
        f"{m['env']}{options}, {m['n_episodes']} episodes from seed {m['seed']} up, {m['sampler']} sampler"
    )
    if m.get("modes_from") == "atlas":  # clusters of the base's paths: no other policy's modes
        conditions += f", modes from an atlas of {m['base']}"
    return Entry(
        name=name,
        base=m["base"] and f"{m['base']}{'@' + m['base_revision'][:8] if m['base_revision'] else ''}",
        conditions=conditions,
        success=_with_interval(m, "success"),
        modes=None if m.get("mode_counts") is None else sum(count > 0 for count in m["mode_counts"]),
        num_modes=m["num_modes"],
        effective_modes=_with_interval(m, "effective_modes"),
        entropy_ratio=_with_interval(m, "entropy_ratio"),
        refusal=m.get("claim_refusal"),
    )


def _with_interval(m: dict[str, Any], key: str) -> tuple[float, float, float] | None:
    if m.get(key) is None:
        return None
    low, high = m[f"{key}_ci"]
    return float(m[key]), float(low), float(high)


def groups(entries: list[Entry]) -> dict[str, list[Entry]]:
    """Those that were evaluated alike, by their conditions, the front first and then by falling success."""
    by_conditions: dict[str, list[Entry]] = {}
    for entry in entries:
        by_conditions.setdefault(entry.conditions, []).append(entry)
    return {
        conditions: sorted(group, key=lambda e: (not on_front(e, group), -e.success[0], e.name))
        for conditions, group in by_conditions.items()
    }


def on_front(entry: Entry, group: list[Entry]) -> bool:
    """Whether no other policy of the group has more success and more effective modes."""
    if entry.effective_modes is None:
        return False
    mine = entry.success[0], entry.effective_modes[0]
    others = [(e.success[0], e.effective_modes[0]) for e in group if e.effective_modes is not None]
    return not any(s >= mine[0] and d >= mine[1] and (s, d) != mine for s, d in others)


def cells(entry: Entry, group: list[Entry]) -> list[str]:
    """A line of the table, in the order of `HEAD`."""
    claim = "" if entry.refusal is None else ", no claim"
    return [
        entry.name,
        entry.base or "-",
        _shown(entry.success, short),
        "-" if entry.modes is None else f"{entry.modes} of {entry.num_modes}",
        _shown(entry.effective_modes, lambda value: f"{value:.1f}")
        + ((entry.effective_modes and claim) or ""),
        _shown(entry.entropy_ratio, short) + ((entry.entropy_ratio and claim) or ""),
        "yes" if on_front(entry, group) else "",
    ]


def _shown(value: tuple[float, float, float] | None, number: Any) -> str:
    return "-" if value is None else f"{number(value[0])} [{number(value[1])}, {number(value[2])}]"


def markdown(entries: list[Entry]) -> str:
    """A table for each group, and what may not be read across tables."""
    by_conditions = groups(entries)
    lines = []
    if len(by_conditions) > 1:
        lines += [
            f"These policies were evaluated in {len(by_conditions)} different ways and are in as many "
            "tables: numbers of different tables are not comparable.",
            "",
        ]
    for conditions, group in by_conditions.items():
        lines += [f"**{conditions}**", "", markdown_table(HEAD, (cells(entry, group) for entry in group))]
        if len({entry.base for entry in group}) > 1:
            lines += ["", "Tuned from different bases: ratios are to each policy's own base."]
        for reason in dict.fromkeys(entry.refusal for entry in group if entry.refusal):
            lines += ["", f"No claim: {reason}"]
        lines.append("")
    return "\n".join(lines).rstrip()


def write(entries: list[Entry], folder: Path) -> None:
    """Make `folder` with the tables and the picture; it appears when it is whole.

    Raises:
        StorageFailure: it cannot be written, or another program made it meanwhile.
    """
    make_folder(folder.parent)
    with replacing(folder, exist_ok=False) as partial:
        partial.mkdir()
        (partial / MARKDOWN).write_text(markdown(entries) + "\n")
        (partial / NUMBERS).write_text(json.dumps(list(map(asdict, entries)), indent=2) + "\n")
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([("conditions", *HEAD), *_lines(entries)])
        (partial / CSV).write_text(text.getvalue())
        draw(partial / PICTURE, groups(entries))


def _lines(entries: list[Entry]) -> Iterator[list[str]]:
    for conditions, group in groups(entries).items():
        for entry in group:
            yield [conditions, *cells(entry, group)]


def draw(path: Path, by_conditions: dict[str, list[Entry]]) -> None:
    """Success and effective modes, a panel for each group; hollow: too few successes for a claim."""
    size = (5.4 * len(by_conditions), 4.8)
    figure, axes = plt.subplots(1, len(by_conditions), figsize=size, squeeze=False, layout="constrained")
    for axis, (conditions, group) in zip(axes[0], by_conditions.items(), strict=True):
        for i, entry in enumerate(group):
            if entry.effective_modes is None:
                continue
            (x, x_low, x_high), (y, y_low, y_high) = entry.success, entry.effective_modes
            colour = POLICY_COLOURS[i % len(POLICY_COLOURS)]
            bars = {"xerr": [[x - x_low], [x_high - x]], "yerr": [[max(0, y - y_low)], [max(0, y_high - y)]]}
            face = to_rgba(colour, 0.35) if entry.refusal is None else "none"
            style = {"fmt": MARKERS[i % len(MARKERS)], "markersize": 8, "color": colour, "mfc": face}
            axis.errorbar(x, y, **bars, capsize=3, label=entry.name, **style)
        if not any(entry.effective_modes for entry in group):
            axis.text(0.5, 0.5, "no modes were measured", ha="center", transform=axis.transAxes)
        else:
            # Below the axes: within them it would hide points.
            axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
        axis.set_title(conditions, fontsize=7, wrap=True)
        axis.set_xlabel("success (deployed sampler)")
        axis.set_ylabel("effective modes")
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    save(figure, path)
