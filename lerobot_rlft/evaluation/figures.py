"""Pictures of the report, and the sentence below each that says what to see."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from matplotlib import pyplot as plt
from tqdm import tqdm

from ..configs.eval import BASE
from ..metrics.keys import BLOCKED, MOST_ATTEMPTS
from ..plots.run import draw_atlas, draw_mode_shares, draw_trajectories, is_planar
from ..utils.errors import one_line
from .comparison import Comparison
from .plots import draw_blocked, draw_fans, draw_kl_maps, draw_success_and_diversity


@dataclass
class Figure:
    """A picture of the report; without its `file` the caption says why it is missing."""

    heading: str
    file: Path
    caption: str


def draw_pictures(comparison: Comparison, folder: Path) -> list[Figure]:
    """Draw what there is to see into `folder`, which exists."""
    figures = []
    for heading, name, draw in PICTURES:
        try:
            caption = draw(comparison, folder / name)
        except Exception as error:  # of any kind: a picture must not cost the episodes that were played
            plt.close("all")
            for file in (name, f".partial.{name}"):
                (folder / file).unlink(missing_ok=True)
            caption = f"The picture {name} could not be drawn: {one_line(error)}"
            tqdm.write(f"warning: {caption}")
        if caption is not None:
            figures.append(Figure(heading, folder / name, caption))
    return figures


def success_and_diversity(comparison: Comparison, path: Path) -> str | None:
    if all(m.get("entropy_ratio") is None for m in comparison.numbers.values()):
        return None
    draw_success_and_diversity(path, comparison.metrics, comparison.config.floor)
    caption = "Right is more success, down is less of the base's diversity, bars are 95 % intervals."
    hollow = [name for name, m in comparison.numbers.items() if m["claim_refusal"] is not None]
    return f"{caption} Hollow: too few successes for a claim ({', '.join(hollow)})." if hollow else caption


def trajectories(comparison: Comparison, path: Path) -> str | None:
    env = comparison.base.runner.env
    if not is_planar(comparison.base.episodes, env):
        return None
    sides = (comparison.base, *comparison.tuned.values())
    draw_trajectories(path, [(side.title, side.episodes, side.evaluation) for side in sides], env)
    return (
        "Every line is an episode, successes coloured by mode, failures grey: a colour that the base has and "
        "a tuned policy has not is a way of solving the task that is gone."
    )


def atlas(comparison: Comparison, path: Path) -> str | None:
    if comparison.atlas is None:
        return None
    draw_atlas(path, comparison.atlas, comparison.base.runner.env)
    return (
        f"The {comparison.atlas.num_modes} modes that clustering found in the base's paths, one typical path "
        "each; nobody labelled them, so look whether they are what you would call modes."
    )


def shares(comparison: Comparison, path: Path) -> str | None:
    base = comparison.base.counts
    counts = {name: side.counts for name, side in comparison.tuned.items()}
    counts = {name: c for name, c in counts.items() if c is not None and c.sum()}
    if base is None or not base.sum() or not counts:
        return None
    draw_mode_shares(path, base, counts)
    words = []
    for name in counts:
        m = comparison.numbers[name]
        words.append(f"{name} {m['effective_modes']:.1f}")
        if m["min_retention"] is not None and m["min_retention"] < 1:
            words[-1] += f" (mode {m['min_retention_mode']} lost most)"
    effective = comparison.numbers[next(iter(counts))]["base_effective_modes"]
    return f"Shares of successes. The base uses {effective:.1f} modes effectively, {', '.join(words)}."


def fans(comparison: Comparison, path: Path) -> str | None:
    if comparison.probe is None:
        return None
    draw_fans(path, comparison.probe, [comparison.base, *comparison.tuned.values()])
    caption = (
        "Chunks drawn from one and the same state and noise: where the base's fan has several fingers and a "
    )
    caption += "tuned policy's fewer, a choice was lost"
    words = [
        f"{name}: spread {m['chunk_spread']:.2f} of the base's, "
        f"{m['peaks']:.1f} peaks of {m['base_peaks']:.1f}"
        for name, m in comparison.numbers.items()
        if m["chunk_spread"] is not None
    ]
    return f"{caption} ({'; '.join(words)})." if words else f"{caption}."


def kl(comparison: Comparison, path: Path) -> str | None:
    draw_kl_maps(path, comparison.kl)
    words = [
        f"{name} {m['kl_reverse']:.2g} nats a chain on its own chains, {m['kl_forward']:.2g} on the base's"
        for name, m in comparison.numbers.items()
    ]
    return (
        f"How far each denoising step moved from the base: {'; '.join(words)}. Chains of the base see what "
        "was dropped."
    )


def blocked(comparison: Comparison, path: Path) -> str | None:
    m = comparison.metrics
    if not m["blocked"]:
        return None
    draw_blocked(path, m)
    mean = f"{BLOCKED}_mean"
    words = [f"{100 * m[f'base_{mean}']:.0f} % for the {BASE}"]
    words += [f"{100 * numbers[mean]:.0f} % for {name}" for name, numbers in comparison.numbers.items()]
    return (
        f"With one way blocked, {MOST_ATTEMPTS} attempts succeed with {', '.join(words)}, averaged over ways."
    )


PICTURES: tuple[tuple[str, str, Callable[[Comparison, Path], str | None]], ...] = (
    ("Success and diversity", "success_diversity.png", success_and_diversity),
    ("Trajectories", "trajectories.png", trajectories),
    ("Mode atlas", "atlas.png", atlas),
    ("Mode shares", "shares.png", shares),
    ("When one way is blocked", "blocked.png", blocked),
    ("Chunks at branching states", "fans.png", fans),
    ("KL to the base", "kl.png", kl),
)
