"""What many click scores say together: means with intervals, groups, leads, failures."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .click_scores import ClickScore, Curve, counted

MODEL = "model"
FAILED_BELOW = 0.5
RESAMPLES = 10_000
SEED = 0
_FEWEST = 5  # structures; of fewer, an interval would pretend to know what it does not

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Mean:
    """A mean over structures, with the ends of its 95 % interval where there are enough of them."""

    mean: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Lead:
    """After ``clicks``: the best other method with the same clicks, its mean Dice, and by how much the model leads."""

    clicks: int
    best: str
    dice: float
    lead: Mean


def curve_of(row: ClickScore, method: str) -> Curve:
    """The curve of the model under test or of another method, by name."""
    return row.model if method == MODEL else row.others[method]


def counts_of(rows: Sequence[ClickScore]) -> tuple[int, ...]:
    """The numbers of clicks that scores are told for."""
    return counted(rows[0].model.clicks[-1])


def methods_of(rows: Sequence[ClickScore]) -> list[str]:
    """The model under test, then the others."""
    return [MODEL, *rows[0].others]


def values(rows: Sequence[ClickScore], method: str, what: str = "dice") -> Values:
    """``(structures, counted clicks)`` of "dice" or "surface_dice"."""
    table = []
    for row in rows:
        curve = curve_of(row, method)
        scores = getattr(curve, what)
        table.append([scores[curve.at(count)] for count in counts_of(rows)])
    return np.asarray(table, float)


def means(table: Values) -> list[Mean]:
    """The mean of each column of ``(structures, columns)`` and its interval.

    The interval is the middle 95 % of the means of 10 000 seeded draws of as many structures, with replacement
    (percentile bootstrap; B. Efron, R. Tibshirani, "An Introduction to the Bootstrap", 1993). None below 5 structures.
    """
    average = table.mean(0)
    if len(table) < _FEWEST:
        return [Mean(float(value)) for value in average]
    drawn = np.random.default_rng(SEED).multinomial(len(table), np.full(len(table), 1 / len(table)), RESAMPLES)
    low, high = np.percentile(drawn @ table / len(table), (2.5, 97.5), axis=0)
    return [Mean(*(float(value) for value in column)) for column in zip(average, low, high, strict=True)]


def leads(rows: Sequence[ClickScore]) -> list[Lead]:
    """At each counted number of clicks the lead over the best other method that got the same clicks, if any."""
    same = [name for name in rows[0].others if not name.endswith("own clicks")]
    if not same:
        return []
    model = values(rows, MODEL)
    others = {name: values(rows, name) for name in same}
    found = []
    for column, count in enumerate(counts_of(rows)):
        best = max(same, key=lambda name: float(others[name][:, column].mean()))
        theirs = others[best][:, column]
        lead = means((model[:, column] - theirs)[:, None])[0]
        found.append(Lead(count, best, float(theirs.mean()), lead))
    return found


def groups(rows: Sequence[ClickScore], key: Callable[[ClickScore], str]) -> dict[str, list[ClickScore]]:
    """The rows by what ``key`` says of them, the largest group first."""
    found: dict[str, list[ClickScore]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return dict(sorted(found.items(), key=lambda entry: (-len(entry[1]), entry[0])))


def failures(rows: Sequence[ClickScore]) -> list[ClickScore]:
    """Structures whose Dice is below one half after the last click, the worst first."""
    return sorted((row for row in rows if row.model.dice[-1] < FAILED_BELOW), key=lambda row: row.model.dice[-1])


def ends_below_start(rows: Sequence[ClickScore]) -> list[ClickScore]:
    """Structures whose mask is worse after the last click than after the first, the largest loss first."""
    lost = (row for row in rows if row.model.dice[-1] < row.model.dice[0])
    return sorted(lost, key=lambda row: row.model.dice[-1] - row.model.dice[0])


def best_median_worst(rows: Sequence[ClickScore]) -> list[ClickScore]:
    """The rows with the best, the median and the worst Dice after the last click."""
    ranked = sorted(rows, key=lambda row: -row.model.dice[-1])
    return [ranked[0], ranked[len(ranked) // 2], ranked[-1]]


def seconds(rows: Sequence[ClickScore], method: str) -> dict[str, float]:
    """Seconds for an answer: the median of first ones, of later ones, and what 95 % of the later ones stay below."""
    curves = [curve_of(row, method) for row in rows]
    first = [curve.seconds[0] for curve in curves]
    later = [value for curve in curves for value in curve.seconds[1:]] or first
    return {
        "first, median": statistics.median(first),
        "later, median": statistics.median(later),
        "later, 95th percentile": float(np.percentile(later, 95)),
    }


def summary(rows: Sequence[ClickScore]) -> dict[str, Any]:
    """Everything above, JSON-ready."""
    methods: dict[str, Any] = {}
    for method in methods_of(rows):
        curves = [curve_of(row, method) for row in rows]
        methods[method] = {
            "dice": [asdict(mean) for mean in means(values(rows, method))],
            "surface_dice": [asdict(mean) for mean in means(values(rows, method, "surface_dice"))],
            "seconds": seconds(rows, method),
            "ignored_clicks": sum(curve.ignored for curve in curves),
            "answers": sum(len(curve.seconds) for curve in curves),
        }
    keys: dict[str, Callable[[ClickScore], str]] = {
        "modality": lambda row: row.modality,
        "kind": lambda row: row.kind,
        "reference": lambda row: row.reference,
        "case": lambda row: row.case,
    }
    return {
        "structures": len(rows),
        "clicks": list(counts_of(rows)),
        "methods": methods,
        "leads": [asdict(lead) for lead in leads(rows)],
        "by": {
            what: {
                name: {"structures": len(group), "dice": [asdict(mean) for mean in means(values(group, MODEL))]}
                for name, group in groups(rows, key).items()
            }
            for what, key in keys.items()
        },
        "failures": [label(row) for row in failures(rows)],
        "ends_below_start": [label(row) for row in ends_below_start(rows)],
    }


def label(row: ClickScore) -> str:
    """``case/name``, as lists call a structure."""
    return f"{row.case}/{row.name}"
