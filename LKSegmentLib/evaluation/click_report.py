"""Click scores as JSON, as the score a package keeps, and as a Markdown page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from . import click_statistics as statistics
from .baselines import DEVIATIONS, SMOOTHING_STEPS, WALKER_BETA, WALKER_EDGE, WALKER_EDGE_FINE
from .click_scores import ClickScore
from .click_statistics import MODEL, Mean

FIGURES = {1: (0.55, 0.25), 3: (0.72, 0.25), 5: (0.80, 0.25), 10: (0.86, 0.15)}
"""What this project wants to reach after so many clicks: mean Dice, and lead over the best classical method."""

GROW_FROM_SEEDS = "Grow from seeds"
REGION_GROWING = "Region growing"
RANDOM_WALKER = "Random walker"
RANDOM_WALKER_FINE = "Random walker, 64³"
RANDOM_WALKER_AS_IT_COMES = "Random walker, β 130"

DESCRIPTIONS = {
    GROW_FROM_SEEDS: "slicer-core's `vtkImageGrowCutSegment` as the Segment Editor's effect sets it; each click is a "
    "seed of 3³ voxels, the border of the cube is background.",
    REGION_GROWING: f"SimpleITK's `ConfidenceConnected` from the positive clicks, {DEVIATIONS:g} standard deviations, "
    f"no iteration, 3³ voxels around a click, after {SMOOTHING_STEPS} steps of `CurvatureFlow`; voxels nearer to a "
    "negative click than to every positive one are left out.",
    RANDOM_WALKER: f'scikit-image\'s `random_walker`, beta {WALKER_BETA:,.0f}, mode "cg_j", on {WALKER_EDGE}³ voxels '
    "of the cube, its probabilities brought back linearly; the border of the cube is background. On all "
    f"{WALKER_EDGE_FINE}³ voxels (`--baselines random-walker-fine`) it is better and takes twenty times as long.",
    RANDOM_WALKER_FINE: f"the same on all {WALKER_EDGE_FINE}³ voxels of the cube, a click being a seed of 3³ voxels.",
    RANDOM_WALKER_AS_IT_COMES: "the same with the beta that scikit-image has by itself.",
}

_PROTOCOL = """## What was measured, and what it is worth

The first click is the deepest voxel of the structure, each further one the middle of the largest error of the
model's own mask. {where}

- **Agreement, not truth.** {references} Where a model or software made the reference, a score says how far two
  programs agree.
- The intervals draw structures, {resamples:,} times with seed {seed}. The structures come from {cases} only
  and are not independent of each other: for other people's images the uncertainty is larger than they say.
- Simulated clicks are kinder than people's: they know the structure, and always correct the largest error.
- {names_are}
- Surface Dice: the share of both surfaces within a tolerance of the other one. The tolerance is {tolerance}.
"""

_BASELINES = """
The other methods work on the same cubes. "Same clicks" are those that correct the model's mask; "own clicks" correct
the method's own errors. Parameters of region growing and of the random walker were chosen on these very structures,
with an earlier model's clicks, in their favour.

"""


def as_json(rows: Sequence[ClickScore], about: dict[str, Any]) -> dict[str, Any]:
    """What is known ``about`` the run, the summary and every row, JSON-ready."""
    return {**about, "summary": statistics.summary(rows), "rows": [asdict(row) for row in rows]}


def stored_score(rows: Sequence[ClickScore], where: str) -> dict[str, Any]:
    """The means with their intervals, as one score of a model package."""
    dice = statistics.means(statistics.values(rows, MODEL))
    surface = statistics.means(statistics.values(rows, MODEL, "surface_dice"))
    others = {name: statistics.means(statistics.values(rows, name)) for name in rows[0].others}
    return {
        "measured": "mean Dice after simulated clicks",
        "on": where,
        "structures": len(rows),
        "clicks": list(statistics.counts_of(rows)),
        "dice": [round(mean.mean, 3) for mean in dice],
        "dice, 95 % interval": [
            [None if end is None else round(end, 3) for end in (mean.low, mean.high)] for mean in dice
        ],
        "surface dice, one voxel": [round(mean.mean, 3) for mean in surface],
        "others": {name: [round(mean.mean, 3) for mean in column] for name, column in others.items()},
        "references": "mostly made by models: agreement, not truth",
        "cases": sorted({row.case for row in rows}),
    }


def as_table(rows: Sequence[ClickScore]) -> str:
    """Mean Dice of every method at the counted clicks, for the screen."""
    return _methods(rows, "dice")


def as_page(
    rows: Sequence[ClickScore], title: str, about: str, command: str, whole: bool, picture: str = "", caption: str = ""
) -> str:
    """The whole page.

    Args:
        rows: the scores.
        title: of the page.
        about: the model: its weights, what it was trained on.
        command: that writes this page.
        whole: clicks were made on whole images, not on cubes.
        picture: path of a picture as seen from the page; "" for none.
        caption: of the picture.
    """
    shown = f"![Masks on the images]({picture})\n\n{caption}\n"
    parts = [
        f"# {title}\n\n{about}\n\nWritten by\n\n    {command}\n",
        "## Mean Dice\n\n" + _methods(rows, "dice"),
        _against_the_figures(rows),
        "## Mean surface Dice\n\n" + _methods(rows, "surface_dice"),
        _seconds(rows),
        "## By modality\n\n" + _groups(rows, "modality", lambda row: row.modality),
        "## By kind of structure\n\n" + _groups(rows, "kind", lambda row: row.kind),
        "## By reference\n\n" + _groups(rows, "reference", lambda row: row.reference),
        "## By case\n\n" + _groups(rows, "case", lambda row: _plain(row.case)),
        f"## {'The masks' if whole else 'Best, median and worst'}\n\n{shown}" if picture else "",
        _troubles(rows),
        _protocol(rows, whole),
        "## Every structure\n\n" + _every(rows),
    ]
    return "\n".join(part for part in parts if part)


def _methods(rows: Sequence[ClickScore], what: str) -> str:
    counts = statistics.counts_of(rows)
    lines = [_header(["method", *(_clicks(count) for count in counts)])]
    for name in statistics.methods_of(rows):
        title = "**the model**" if name == MODEL else name if name.endswith("own clicks") else f"{name}, same clicks"
        cells = [_interval(mean) for mean in statistics.means(statistics.values(rows, name, what))]
        lines.append(_line([title, *cells]))
    note = "; in brackets the 95 % interval of the mean" if " (" in lines[-1] else ""
    return "\n".join([*lines, "", f"{len(rows)} structure{'s' * (len(rows) != 1)}{note}.", ""])


def _against_the_figures(rows: Sequence[ClickScore]) -> str:
    leads = {lead.clicks: lead for lead in statistics.leads(rows)}
    means = dict(zip(statistics.counts_of(rows), statistics.means(statistics.values(rows, MODEL)), strict=True))
    lines = [
        "## Against the figures this project wants to reach\n",
        _header(["clicks", "mean Dice", "wanted", "best classical method, same clicks", "lead", "wanted"]),
    ]
    for count, (wanted, wanted_lead) in FIGURES.items():
        if count not in means:
            continue
        lead = leads.get(count)
        best = ["not measured", ""] if lead is None else [f"{lead.best}: {lead.dice:.2f}", _interval(lead.lead)]
        lines.append(_line([str(count), f"{means[count].mean:.2f}", f"≥ {wanted:.2f}", *best, f"≥ {wanted_lead:.2f}"]))
    return "\n".join([*lines, ""])


def _seconds(rows: Sequence[ClickScore]) -> str:
    lines = ["## Seconds for an answer\n", _header(["method", "first click", "later clicks", "95 % of these below"])]
    for name in statistics.methods_of(rows):
        found = statistics.seconds(rows, name)
        lines.append(_line(["the model" if name == MODEL else name, *(f"{value:.2f} s" for value in found.values())]))
    note = "Medians. The model's first answer includes preparing the image; later clicks are what a person waits for."
    return "\n".join([*lines, "", note, ""])


def _groups(rows: Sequence[ClickScore], what: str, key: Callable[[ClickScore], str]) -> str:
    counts = statistics.counts_of(rows)
    ends = [f"{_clicks(counts[-1])}, surface Dice", "best classical, same clicks"]
    lines = [_header([what, "structures", *(_clicks(count) for count in counts), *ends])]
    for name, group in statistics.groups(rows, key).items():
        dice = statistics.means(statistics.values(group, MODEL))
        surface = statistics.means(statistics.values(group, MODEL, "surface_dice"))[-1]
        lead = next(iter(statistics.leads(group)[-1:]), None)
        best = "" if lead is None else f"{lead.dice:.2f}"
        cells = [*(f"{mean.mean:.2f}" for mean in dice[:-1]), _interval(dice[-1]), f"{surface.mean:.2f}", best]
        lines.append(_line([name, str(len(group)), *cells]))
    return "\n".join([*lines, ""])


def _troubles(rows: Sequence[ClickScore]) -> str:
    last = _clicks(statistics.counts_of(rows)[-1])
    failed = [_named(row, f"{row.model.dice[-1]:.2f}") for row in statistics.failures(rows)]
    below = [
        _named(row, f"{row.model.dice[0]:.2f} → {row.model.dice[-1]:.2f}") for row in statistics.ends_below_start(rows)
    ]
    ignored = sum(row.model.ignored for row in rows)
    made = sum(len(row.model.seconds) for row in rows)
    return "\n".join(
        [
            "## Where it fails\n",
            f"- **Dice below {statistics.FAILED_BELOW:g} after {last}:** {len(failed)} of {len(rows)} structures."
            + _list(failed),
            f"- **Worse after {last} than after one:** {len(below)} of {len(rows)} structures." + _list(below),
            f"- **Clicks ignored** (the clicked voxel on the wrong side right after): {ignored} of {made} clicks.",
            "",
        ]
    )


def _protocol(rows: Sequence[ClickScore], whole: bool) -> str:
    by_reference = statistics.groups(rows, lambda row: row.reference or "of unknown origin")
    references = ", ".join(f"{name}: {len(group)}" for name, group in by_reference.items())
    tolerances = [row.tolerance_mm for row in rows]
    cases = len({row.case for row in rows})
    where = (
        "Clicks are made on the whole image, as a person makes them."
        if whole
        else "Clicks are made on a cube around the structure, 1.3 times its longest edge, resampled to 64³ voxels. "
        "This is kinder than a whole image: the cube tells how large the structure is, which helps every method "
        "here. Of a long thin structure the cube keeps little: its voxels may be wider than the structure is thick."
    )
    text = _PROTOCOL.format(
        where=where,
        references=f"Who made the references of these {len(rows)} structures: {references}.",
        resamples=statistics.RESAMPLES,
        seed=statistics.SEED,
        cases="one image" if cases == 1 else f"the images of {cases} people",
        names_are="A structure is the largest connected piece of a label with at least 300 voxels on the image's grid.",
        tolerance=f"one voxel of {'the image' if whole else 'the cube'}: {min(tolerances):.1f} to "
        f"{max(tolerances):.1f} mm, listed below",
    )
    told = [f"- {name}: {DESCRIPTIONS[name]}" for name in rows[0].others if name in DESCRIPTIONS]
    return text + (_BASELINES + "\n".join([*told, ""]) if told else "")


def _every(rows: Sequence[ClickScore]) -> str:
    counts = statistics.counts_of(rows)
    names = ["case", "structure", "kind", "modality", "voxels", *(_clicks(count) for count in counts)]
    lines = [_header([*names, "surface Dice", "tolerance, mm"], left=4)]
    for row in rows:
        dice = [f"{row.model.dice[row.model.at(count)]:.2f}" for count in counts]
        what = [_plain(row.case), _plain(row.name), row.kind, row.modality, str(row.voxels)]
        lines.append(_line([*what, *dice, f"{row.model.surface_dice[-1]:.2f}", f"{row.tolerance_mm:.2f}"]))
    return "\n".join([*lines, ""])


def _header(names: Sequence[str], left: int = 1) -> str:
    return _line(names) + "\n|" + "---|" * left + "---:|" * (len(names) - left)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _interval(mean: Mean) -> str:
    return f"{mean.mean:.2f}" + ("" if mean.low is None else f" ({mean.low:.2f} – {mean.high:.2f})")


def _clicks(count: int) -> str:
    return f"{count} click{'s' * (count > 1)}"


def _plain(name: str) -> str:
    return name.replace("_", " ")


def _named(row: ClickScore, told: str) -> str:
    return f"{_plain(row.name)} ({row.case.split('_')[0]}) {told}"


def _list(entries: Sequence[str]) -> str:
    return " " + "; ".join(entries) + "." if entries else ""
