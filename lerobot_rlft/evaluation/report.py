"""`report.html`: one self-contained page about a comparison, numbers side by side and pictures."""

import base64
import html
import json
import struct
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..configs.eval import BASE
from ..metrics.keys import KEYS
from .comparison import Comparison
from .figures import Figure, draw_pictures
from .tables import columns, headlines, main_first, rows

DIVERSITY, REPORT, PICTURES = "diversity.json", "report.html", "pictures"
PARTS = "report.json"  # what the page says beside the numbers, for one that is written anew
# Keys that the page shows as pictures, in words or as columns.
NOT_LISTED = ("notes", "blocked", "mode_counts", "kl_reverse_by_step", "kl_forward_by_step", "others")
LEGIBLE = 0.5  # of its size in pixels: a picture is not made smaller on a phone, but can be moved sideways

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1c2430; background: #fff; margin: 0 auto;
  max-width: 62rem; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .25rem; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .5rem; }
p.what { color: #5a6472; margin: 0 0 1.2rem; overflow-wrap: anywhere; }
.claim { border-left: 5px solid #2f6fb3; background: #f1f6fb; padding: .8rem 1rem; margin: .6rem 0;
  font-size: 1.05rem; }
.claim.none { border-color: #b3742f; background: #fbf5ee; }
.missing { border-left: 5px solid #b3742f; padding: .4rem 1rem; }
figure { margin: 0 0 1rem; }
figure div { overflow-x: auto; }
figure img { max-width: 100%; height: auto; display: block; }
figcaption { margin-top: .4rem; color: #333c48; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th, td { text-align: left; vertical-align: top; border-bottom: 1px solid #e3e7ec;
  padding: .35rem .6rem .35rem 0; }
td.number { font-variant-numeric: tabular-nums; }
.sides th:first-child { position: sticky; left: 0; background: #fff; min-width: 8rem; font-weight: 400; }
.sides th[scope=col], .sides b { font-weight: 650; }
.sides td, .sides th[scope=col] { min-width: 6.2rem; }
.sides td:last-child, .sides th:last-child { background: #f1f6fb; padding-left: .6rem; }
.sides small, .keys { color: #5a6472; }
.sides td small { display: block; white-space: nowrap; }
summary { cursor: pointer; margin-top: 2rem; font-weight: 600; }
code { font-size: .88em; overflow-wrap: anywhere; }
@media (max-width: 48rem) { figure img { max-width: none; width: max(100%, var(--legible)); }
  .sides th small { display: none; } .sides td small { white-space: normal; } }
"""


def write_report(comparison: Comparison, folder: Path, command: str) -> None:
    """Make `folder` with pictures, diversity.json and report.html; it appears when it is whole.

    Args:
        command: that was run, for the page.

    Raises:
        OSError: it cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        partial = Path(temporary) / folder.name
        (partial / PICTURES).mkdir(parents=True)
        figures = draw_pictures(comparison, partial / PICTURES)
        (partial / DIVERSITY).write_text(json.dumps(comparison.metrics, indent=2) + "\n")
        parts = {"command": command, "figures": [[f.heading, f.file.name, f.caption] for f in figures]}
        (partial / PARTS).write_text(json.dumps(parts, indent=2) + "\n")
        (partial / REPORT).write_text(page(comparison.metrics, figures, command))
        partial.rename(folder)


def page(m: dict[str, Any], figures: list[Figure], command: str) -> str:
    """The page as HTML; pictures are embedded.

    Args:
        m: content of diversity.json.
    """
    sides = main_first(m)
    paths = ", ".join(
        f"<b>{html.escape(side['policy'])}</b>" + (f" ({name})" if len(sides) > 1 else "")
        for name, side in sides.items()
    )
    took = f"; {m['seconds']:.0f} s" if "seconds" in m else ""  # of lerobot-rlft-eval alone
    claims = zip(headlines(m), sides.values(), strict=True)
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>Mode diversity of {html.escape(m['policy'])}</title><style>{STYLE}</style></head><body>",
            "<h1>What became of the modes</h1>",
            f'<p class="what">{paths} beside {"their" if len(sides) > 1 else "its"} base '
            f"<b>{html.escape(m['base'])}</b> on {html.escape(m['env'])}: "
            f"{m['n_episodes']} episodes each, deployed sampler, same seeds.</p>",
            *(
                f'<p class="claim{"" if side["claim_refusal"] is None else " none"}">{html.escape(said)}</p>'
                for said, side in claims
            ),
            "<h2>Side by side</h2>" + _side_by_side(m),
            *map(_figure, figures),
            *(
                f"<details><summary>All numbers{f' of {name}' if len(sides) > 1 else ''}</summary>"
                + _all_numbers(side)
                + "</details>"
                for name, side in sides.items()
            ),
            f"<details><summary>How it was measured</summary><p><code>{html.escape(command)}</code></p>"
            f"<p>Seeds from {m['seed']} up{took}.</p></details>",
            "</body></html>",
        ]
    )


def _side_by_side(m: dict[str, Any]) -> str:
    """The table; on a phone its first column stays while the others are moved."""
    names = "".join(f"<th scope=col>{name}</th>" for name in (BASE, *columns(m)))
    lines = [
        f"<tr><th scope=row>{row.label}<br><small>{html.escape(row.meaning)}</small></th>"
        + "".join(
            f"<td class=number><b>{cell.value}</b><small>{html.escape(cell.beside)}</small></td>"
            for cell in row.cells
        )
        + "</tr>"
        for row in rows(m)
    ]
    return f'<div class="wide"><table class="sides"><tr><th></th>{names}</tr>{"".join(lines)}</table></div>'


def _figure(figure: Figure) -> str:
    heading = f"<h2>{figure.heading}</h2>"
    if not figure.file.is_file():
        return f'{heading}<p class="missing">{html.escape(figure.caption)}</p>'
    data = figure.file.read_bytes()
    (pixels,) = struct.unpack(">I", data[16:20])  # the width in the header of a PNG
    return (
        f'{heading}<figure><div><img alt="{figure.heading}" style="--legible:{LEGIBLE * pixels:.0f}px" '
        f'src="data:image/png;base64,{base64.b64encode(data).decode()}"></div>'
        f"<figcaption>{html.escape(figure.caption)}</figcaption></figure>"
    )


def _all_numbers(m: dict[str, Any]) -> str:
    lines = []
    for name, meaning in KEYS.items():
        if name in NOT_LISTED:
            continue
        value = _shown(m.get(name))
        if m.get(f"{name}_ci"):
            value += f" {_shown(m[f'{name}_ci'])}"
        beside = [
            f"{word} {_shown(m[key])}"
            for word, key in (
                ("base", f"base_{name}"), ("control", f"{name}_control"), ("N", f"{name}_samples"),
            )
            if m.get(key) is not None
        ]  # fmt: skip
        note = m["notes"].get(name)
        lines.append(
            f"<tr><td><code>{name}</code></td><td class=number>{html.escape(value)}</td>"
            f"<td class=number>{html.escape(', '.join(beside))}</td>"
            f"<td>{html.escape(meaning + (f' ({note})' if note else ''))}</td></tr>"
        )
    head = f"<tr><th>key</th><th>{m['name']}</th><th>beside it</th><th>what it is</th></tr>"
    return f'<div class="wide"><table>{head}{"".join(lines)}</table></div>'


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_shown(entry)}" for key, entry in value.items())
    if isinstance(value, list):
        return "[" + ", ".join(_shown(entry) for entry in value) + "]"
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
