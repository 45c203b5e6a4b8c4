"""`report.html`: one self-contained page about a comparison, pictures first; and its pictures."""

import base64
import html
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from lerobot.utils.constants import OBS_STATE
from matplotlib import pyplot as plt

from .comparison import Comparison, Side
from .diversity.metrics import SUCCESSES_PER_MODE
from .diversity.probe import Probe, deployed_chunks, encode
from .measures import ATTEMPTS, KEYS
from .pictures import draw_atlas, draw_mode_shares, draw_trajectories, is_planar, save

DIVERSITY, REPORT, PICTURES = "diversity.json", "report.html", "pictures"
FAN_CHUNKS = 64

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1c2430; background: #fff; margin: 0 auto;
  max-width: 62rem; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .25rem; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .5rem; }
p.what { color: #5a6472; margin: 0 0 1.2rem; overflow-wrap: anywhere; }
.claim { border-left: 5px solid #2f6fb3; background: #f1f6fb; padding: .8rem 1rem; font-size: 1.05rem; }
.claim.none { border-color: #b3742f; background: #fbf5ee; }
.pair { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1.2rem 0; }
.pair div { flex: 1 1 13rem; border: 1px solid #d9dee5; border-radius: 8px; padding: .7rem 1rem; }
.pair b { display: block; font-size: 1.7rem; line-height: 1.2; }
.pair small { color: #5a6472; }
figure { margin: 0 0 1rem; }
figure img { width: 100%; height: auto; display: block; }
figcaption { margin-top: .4rem; color: #333c48; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th, td { text-align: left; vertical-align: top; border-bottom: 1px solid #e3e7ec;
  padding: .35rem .6rem .35rem 0; }
td.number { font-variant-numeric: tabular-nums; }
summary { cursor: pointer; margin-top: 2rem; font-weight: 600; }
code { font-size: .88em; overflow-wrap: anywhere; }
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
        figures = draw_pictures(comparison, partial / PICTURES)
        (partial / DIVERSITY).write_text(json.dumps(comparison.metrics, indent=2) + "\n")
        (partial / REPORT).write_text(page(comparison.metrics, figures, command))
        partial.rename(folder)


def draw_pictures(comparison: Comparison, folder: Path) -> list[tuple[str, Path, str]]:
    """Draw what there is to see.

    Returns:
        (heading, file, one sentence that says what to see) of each picture.
    """
    m, base, tuned, env = comparison.metrics, comparison.base, comparison.tuned, comparison.base.runner.env
    figures = []

    def add(heading: str, name: str, sentence: str) -> Path:
        figures.append((heading, folder / name, sentence))
        return folder / name

    if is_planar(base.episodes, env):
        panels = [(side.title, side.episodes, side.evaluation) for side in (base, tuned)]
        sentence = (
            "Every line is an episode, successes coloured by mode, failures grey: a colour that is on the "
        )
        sentence += "left and not on the right is a way of solving the task that is gone."
        draw_trajectories(add("Trajectories", "trajectories.png", sentence), panels, env)
    if comparison.atlas is not None:
        sentence = (
            f"The {comparison.atlas.num_modes} modes that clustering found in the base's paths, one typical "
        )
        sentence += "path each; nobody labelled them, so look whether they are what you would call modes."
        draw_atlas(add("Mode atlas", "atlas.png", sentence), comparison.atlas, env)
    if base.counts is not None and base.counts.sum() and tuned.counts.sum():
        sentence = (
            f"Shares of successes: the base uses {m['base_effective_modes']:.1f} modes effectively, the "
        )
        sentence += f"tuned policy {m['effective_modes']:.1f}"
        if m["min_retention"] is not None and m["min_retention"] < 1:
            sentence += f"; mode {m['min_retention_mode']} lost most"
        sentence += "."
        draw_mode_shares(add("Mode shares", "shares.png", sentence), base.counts, tuned.counts)
    draw_fans(add("Chunks at branching states", "fans.png", _fans_sentence(m)), comparison.probe, base, tuned)
    sentence = (
        f"How far each denoising step moved from the base: {m['kl_reverse']:.2g} nats a chain on tuned "
    )
    sentence += f"chains, {m['kl_forward']:.2g} on chains of the base, which see what was dropped."
    draw_kl_maps(add("KL to the base", "kl.png", sentence), comparison.kl)
    if m["blocked"]:
        last = str(ATTEMPTS[-1])
        sentence = (
            f"With one way blocked, {last} attempts succeed with {100 * m['success_at'][last]:.0f} % for the "
        )
        sentence += (
            f"tuned policy and {100 * m['base_success_at'][last]:.0f} % for the base, averaged over ways."
        )
        draw_blocked(add("When one way is blocked", "blocked.png", sentence), m)
    return figures


def _fans_sentence(m: dict[str, Any]) -> str:
    text = "Chunks drawn from one and the same state and noise: where the base's fan has several fingers and "
    text += "the tuned policy's fewer, a choice was lost"
    if m["chunk_spread"] is not None:
        peaks = f"{m['peaks']:.1f} peaks of {m['base_peaks']:.1f}"
        text += f" (spread {m['chunk_spread']:.2f} of the base's, {peaks})"
    return text + "."


def draw_fans(path: Path, probe: Probe, base: Side, tuned: Side) -> None:
    """Executed chunks of both policies at each probe state, as paths of the first two action dimensions."""
    states = len(probe.condition)
    figure, axes = plt.subplots(2, states, figsize=(2.6 * states, 5.4), squeeze=False)
    env = base.runner.env
    for row, side in zip(axes, (base, tuned), strict=True):
        chunks = deployed_chunks(side.policy, encode(side.policy, probe.obs), FAN_CHUNKS, probe.seed)
        for i, axis in enumerate(row):
            actions = side.policy.to_action(chunks[i]).cpu().numpy()  # (N, n_action_steps, D)
            if hasattr(env, "action_path") and OBS_STATE in probe.obs:
                lines = env.action_path(probe.obs[OBS_STATE][i, -1].cpu().numpy(), actions)
            else:
                lines = actions[..., :2]
            for line in lines:
                x, y = line.T if line.shape[1] > 1 else (np.arange(len(line)), line[:, 0])
                axis.plot(x, y, color="0.5" if side is base else "tab:blue", lw=0.8, alpha=0.5)
            axis.set_title(f"{side.title}, state {i + 1}", fontsize=9)
            axis.tick_params(labelsize=6)
    for column in axes.T:
        limits = [(axis.get_xlim(), axis.get_ylim()) for axis in column]
        for axis in column:
            axis.set_xlim(min(x[0] for x, _ in limits), max(x[1] for x, _ in limits))
            axis.set_ylim(min(y[0] for _, y in limits), max(y[1] for _, y in limits))
    figure.tight_layout()
    save(figure, path)


def draw_kl_maps(path: Path, maps: dict[str, np.ndarray]) -> None:
    """Heat maps (T, K) of both directions on one colour scale."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True, layout="constrained")
    most = max(float(kl.max()) for kl in maps.values())
    for axis, (direction, kl) in zip(axes, maps.items(), strict=True):
        image = axis.imshow(kl.T, aspect="auto", origin="lower", cmap="magma", vmin=0, vmax=most or 1)
        axis.set_yticks([0, kl.shape[1] - 1], ["last", "noisiest"])
        axis.set_xlabel("decision of the episode")
        axis.xaxis.get_major_locator().set_params(integer=True)
        which = (
            "KL(tuned || base), tuned chains" if direction == "reverse" else "KL(base || tuned), base chains"
        )
        axis.set_title(which, fontsize=9)
    figure.colorbar(image, ax=axes, label="nats")
    save(figure, path)


def draw_blocked(path: Path, m: dict[str, Any]) -> None:
    """Success at n attempts, and the share of single attempts that succeed with each way blocked."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), width_ratios=(1, 2))
    for shift, prefix, colour, label in ((-0.2, "base_", "0.7", "base"), (0.2, "", "tab:blue", "tuned")):
        values = np.array([m[prefix + "success_at"][str(n)] for n in ATTEMPTS])
        low, high = np.array([m[prefix + "success_at_ci"][str(n)] for n in ATTEMPTS]).T
        error = np.clip([values - low, high - values], 0, None)
        left.bar(np.arange(len(ATTEMPTS)) + shift, values, 0.4, yerr=error, color=colour, label=label)
        rates = [way[label] / m["n_attempts"] for way in m["blocked"].values()]
        right.bar(np.arange(len(rates)) + shift, rates, 0.4, color=colour, label=label)
    left.set_xticks(
        range(len(ATTEMPTS)), [f"{n} attempts" if n > 1 else "1 attempt" for n in ATTEMPTS], fontsize=8
    )
    left.set_ylabel("success")
    right.set_xticks(range(len(m["blocked"])), list(m["blocked"]), fontsize=7, rotation=30)
    right.set_title("single attempts, by blocked way", fontsize=9)
    for axis in (left, right):
        axis.set_ylim(0, 1.02)
    left.legend(fontsize=8)
    figure.tight_layout()
    save(figure, path)


def headline(m: dict[str, Any]) -> str:
    """What may be claimed, in one or two sentences."""
    text = f"Success {_percent(m['success'])} against {_percent(m['base_success'])} of the base"
    if m["claim_refusal"] is not None:
        return f"{text}. {m['claim_refusal']} {_way_out(m)}".strip()
    low, high = m["entropy_ratio_ci"]
    kept = sum(t > 0 and b > 0 for t, b in zip(m["mode_counts"], m["base_mode_counts"], strict=True))
    return (
        f"{text}, with {100 * m['entropy_ratio']:.0f} % [{100 * low:.0f}, {100 * high:.0f}] of its mode "
        f"entropy and {kept} of its {m['base_modes_covered']} modes."
    )


def _way_out(m: dict[str, Any]) -> str:
    """How many episodes would carry a claim, at the rates of success seen; nothing where more do not help."""
    if m["num_modes"] is None or m["claim_refusal"].startswith("Nothing"):
        return ""
    counts = np.array([m["mode_counts"], m["base_mode_counts"]])  # (2, M)
    fewest, needed = counts.sum(1).min(), SUCCESSES_PER_MODE * (counts.sum(0) > 0).sum()
    if not fewest:
        return "One of them never succeeds: there are no ways of solving the task to compare."
    return f"Play more: --n_episodes={-(-m['n_episodes'] * needed // fewest)} or above."


def page(m: dict[str, Any], figures: list[tuple[str, Path, str]], command: str) -> str:
    """The page as HTML; pictures are embedded."""
    refused = m["claim_refusal"] is not None
    boxes = [
        (
            "success",
            _percent(m["success"]),
            f"{_interval(m['success_ci'])}; base {_percent(m['base_success'])}",
        )
    ]
    if m.get("entropy_ratio") is not None:
        boxes.append(
            (
                "mode entropy kept",
                f"{m['entropy_ratio']:.2f}",
                f"{_interval(m['entropy_ratio_ci'])} of the base's",
            )
        )
    if m.get("effective_modes") is not None and m.get("base_effective_modes") is not None:
        boxes.append(
            (
                "effective modes",
                f"{m['effective_modes']:.1f}",
                f"base {m['base_effective_modes']:.1f}; {m['modes_covered']} and "
                f"{m['base_modes_covered']} seen of {m['num_modes']}",
            )
        )
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>Mode diversity of {html.escape(m['policy'])}</title><style>{STYLE}</style></head><body>",
            "<h1>What became of the modes</h1>",
            f'<p class="what"><b>{html.escape(m["policy"])}</b> beside its base '
            f"<b>{html.escape(m['base'])}</b> on {html.escape(m['env'])}: "
            f"{m['n_episodes']} episodes each, deployed sampler, same seeds.</p>",
            f'<p class="claim{" none" if refused else ""}">{html.escape(headline(m))}</p>',
            '<div class="pair">'
            + "".join(f"<div>{name}<b>{value}</b><small>{said}</small></div>" for name, value, said in boxes)
            + "</div>",
            *(
                f"<h2>{heading}</h2><figure><img alt={json.dumps(heading)} src="
                f'"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}">'
                f"<figcaption>{html.escape(sentence)}</figcaption></figure>"
                for heading, file, sentence in figures
            ),
            "<details><summary>All numbers</summary>" + _table(m) + "</details>",
            f"<details><summary>How it was measured</summary><p><code>{html.escape(command)}</code></p>"
            f"<p>Seeds from {m['seed']} up; {m['seconds']:.0f} s.</p></details>",
            "</body></html>",
        ]
    )


def _table(m: dict[str, Any]) -> str:
    rows = []
    for name, meaning in KEYS.items():
        if name in ("notes", "blocked", "mode_counts", "kl_reverse_by_step", "kl_forward_by_step"):
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
        rows.append(
            f"<tr><td><code>{name}</code></td><td class=number>{html.escape(value)}</td>"
            f"<td class=number>{html.escape(', '.join(beside))}</td>"
            f"<td>{html.escape(meaning + (f' ({note})' if note else ''))}</td></tr>"
        )
    head = "<tr><th>key</th><th>tuned</th><th>beside it</th><th>what it is</th></tr>"
    return f'<div class="wide"><table>{head}{"".join(rows)}</table></div>'


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_shown(entry)}" for key, entry in value.items())
    if isinstance(value, list):
        return "[" + ", ".join(_shown(entry) for entry in value) + "]"
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _interval(bounds: list[float]) -> str:
    return f"[{bounds[0]:.3f}, {bounds[1]:.3f}]"
