"""`report.html`: one self-contained page about a comparison, numbers side by side and pictures.

Its text and look lie in `report.html.jinja`; here is what is filled in.
"""

import base64
import json
import struct
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from ..configs.eval import BASE
from ..metrics.keys import KEYS
from ..utils.files import make_folder, replacing
from .comparison import Comparison
from .figures import Figure, draw_pictures
from .tables import columns, headlines, main_first, rows

DIVERSITY, REPORT, PICTURES = "diversity.json", "report.html", "pictures"
PARTS = "report.json"  # what the page says beside the numbers, for one that is written anew
# Keys that the page shows as pictures, in words or as columns.
NOT_LISTED = ("notes", "blocked", "mode_counts", "kl_reverse_by_step", "kl_forward_by_step", "others")
LEGIBLE = 0.5  # of its size in pixels: a picture is not made smaller on a phone, but can be moved sideways


class Claim(NamedTuple):
    """The page's headline about one policy; `refused` where its episodes carry no claim about modes."""

    sentence: str
    refused: bool


class Picture(NamedTuple):
    """A figure as the page embeds it: PNG in base64 (None: there is none) and its least width in pixels."""

    heading: str
    caption: str
    data: str | None = None
    legible: int = 0


class Number(NamedTuple):
    """A line of the list of all numbers, in words."""

    key: str
    value: str
    beside: str
    meaning: str


def write_report(comparison: Comparison, folder: Path, command: str) -> None:
    """Make `folder` with pictures, diversity.json and report.html; it appears when it is whole.

    Args:
        command: that was run, for the page.

    Raises:
        StorageFailure: it cannot be written, or another program made it meanwhile.
    """
    make_folder(folder.parent)
    with replacing(folder, exist_ok=False) as partial:
        (partial / PICTURES).mkdir(parents=True)
        figures = draw_pictures(comparison, partial / PICTURES)
        (partial / DIVERSITY).write_text(json.dumps(comparison.metrics, indent=2) + "\n")
        parts = {"command": command, "figures": [[f.heading, f.file.name, f.caption] for f in figures]}
        (partial / PARTS).write_text(json.dumps(parts, indent=2) + "\n")
        (partial / REPORT).write_text(page(comparison.metrics, figures, command))


def page(m: dict[str, Any], figures: list[Figure], command: str) -> str:
    """The page as HTML; pictures are embedded.

    Args:
        m: content of diversity.json.
    """
    sides = main_first(m)
    refusals = [side["claim_refusal"] is not None for side in sides.values()]
    templates = Environment(
        loader=PackageLoader("lerobot_rlft", "evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return templates.get_template(f"{REPORT}.jinja").render(
        m=m,
        sides=sides,
        several=len(sides) > 1,
        claims=list(map(Claim, headlines(m), refusals)),
        head=[BASE, *columns(m)],
        rows=rows(m),
        figures=list(map(_picture, figures)),
        numbers={name: _numbers(side) for name, side in sides.items()},
        command=command,
    )


def _picture(figure: Figure) -> Picture:
    if not figure.file.is_file():
        return Picture(figure.heading, figure.caption)
    data = figure.file.read_bytes()
    (pixels,) = struct.unpack(">I", data[16:20])  # the width in the header of a PNG
    return Picture(figure.heading, figure.caption, base64.b64encode(data).decode(), round(LEGIBLE * pixels))


def _numbers(m: dict[str, Any]) -> list[Number]:
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
        lines.append(Number(name, value, ", ".join(beside), meaning + (f" ({note})" if note else "")))
    return lines


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_shown(entry)}" for key, entry in value.items())
    if isinstance(value, list):
        return "[" + ", ".join(_shown(entry) for entry in value) + "]"
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
