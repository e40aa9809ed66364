"""How faithful a map is: the two tests together, over one or several places, as scores and one plain sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .deletion_insertion import EDGES, MEASURES, NEAR, THIS, Curves, deletion_insertion
from .deletion_insertion import SEEDS as RANDOM_ORDERS
from .examined import ClickedWindow, ExaminedWindow, VolumeWindow
from .tables import Table
from .weight_randomisation import Randomised, weight_randomisation

__all__ = [
    "ClickedWindow",
    "Curves",
    "Faithfulness",
    "Randomised",
    "VolumeWindow",
    "deletion_insertion",
    "measure",
    "verdict",
    "weight_randomisation",
]

LEAST_SPAN = 0.1  # of both measures, from the untouched image to its blur; with less there is nothing to see
LEAST_MARGIN = 0.01  # of a score, by which one order beats another
ALIKE = 0.5  # size of the rank correlation after shuffling all weights, from which on a map hardly depends on them

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Faithfulness:
    """What the tests say about a map. `scores` is JSON-ready; `tables` are the curves, place by place."""

    map: str
    scores: dict[str, Any]
    sentence: str
    tables: list[Table]

    def as_json(self, data: str, weights: str) -> dict[str, Any]:
        """What a model package keeps. `data`: on what it was measured; `weights`: their SHA-256."""
        return {"sentence": self.sentence, "scores": self.scores, "data": data, "weights": weights}


def measure(
    windows: Sequence[ExaminedWindow],
    names: Sequence[str],
    seeds: Sequence[int] = RANDOM_ORDERS,
    progress: Progress | None = None,
) -> list[Faithfulness]:
    """Both tests for each of the maps, averaged over windows of one model.

    Raises:
        InputError: no window, a map that does not exist, an empty answer in a window.
    """
    curves: dict[str, list[Curves]] = {name: [] for name in names}
    shuffled: dict[str, list[Randomised]] = {name: [] for name in names}
    steps = 2 * len(windows)
    done = 0

    def told(stage: str, fraction: float) -> None:
        if progress is not None:
            progress(stage, (done + fraction) / steps)

    for window in windows:
        for found in deletion_insertion(window, window.maps(names), seeds, told):
            curves[found.map].append(found)
        done += 1
        for randomised in weight_randomisation(window, names, progress=told):
            shuffled[randomised.map].append(randomised)
        done += 1
    return [_faithfulness(name, curves[name], shuffled[name]) for name in names]


def verdict(scores: dict[str, Any]) -> str:
    """The scores of a map in one or two plain sentences, such as the panel shows beside it."""
    if scores["rank correlation with shuffled weights"] is None:
        return "This map is the same everywhere in the tested windows: it says nothing there."
    return f"{_of_curves(scores)} {_of_weights(scores)}"


def _faithfulness(name: str, curves: Sequence[Curves], shuffled: Sequence[Randomised]) -> Faithfulness:
    scores: dict[str, Any] = {"places": len(curves)}
    for order in (THIS, EDGES, NEAR):
        scores[order] = {
            what: round(float(np.mean([found.score(order, what) for found in curves])), 4) for what in MEASURES
        }
    random = {
        what: [float(np.mean([found.score(order, what) for found in curves])) for order in curves[0].random_orders]
        for what in MEASURES
    }
    scores["random"] = {what: round(float(np.mean(values)), 4) for what, values in random.items()}
    scores["random, standard deviation"] = {
        what: round(float(np.std(values, ddof=1)), 4) for what, values in random.items()
    }
    scores["span"] = {what: round(float(np.mean([found.span[what] for found in curves])), 4) for what in MEASURES}
    alike = [found.final for found in shuffled if found.final is not None]
    scores["rank correlation with shuffled weights"] = round(float(np.mean(alike)), 4) if alike else None
    tables = []
    for number in range(len(curves)):
        for table in (*curves[number].tables(), shuffled[number].table):
            placed = table.name if len(curves) == 1 else f"{table.name}, place {number + 1}"
            tables.append(Table(placed, table.columns, table.rows, table.x, table.y, table.passport))
    return Faithfulness(name, scores, verdict(scores), tables)


def _of_curves(scores: dict[str, Any]) -> str:
    if min(scores["span"].values()) < LEAST_SPAN:
        return "The answer hardly changes when all of the image is blurred: deletion cannot tell what the map is worth."
    random = _beats(scores, "random")
    if random < 0:
        return "Voxels that this map ranks low matter more than those it ranks high: do not read it as importance."
    if random == 0:
        return "This map does not beat a random one: treat it as decoration."
    beaten = [words for order, words in _BASELINES.items() if _beats(scores, order) > 0]
    unbeaten = [words for order, words in _BASELINES.items() if _beats(scores, order) <= 0]
    if not unbeaten:
        others = " and ".join(beaten)
        return f"This map beats random order, {others}: the answer hangs on the voxels that it ranks high."
    more = f" and {beaten[0]}" if beaten else ""
    return f"This map beats random order{more}, but not {' or '.join(unbeaten)}: treat it as decoration."


_BASELINES = {EDGES: "edge strength", NEAR: "plain nearness"}


def _beats(scores: dict[str, Any], order: str) -> int:
    """1 when the map is better than this order in all measures, -1 when worse in all, else 0.

    By more than two standard deviations of the random orders: so much is chance.
    """
    signs = set()
    for what in MEASURES:
        margin = max(LEAST_MARGIN, 2 * scores["random, standard deviation"][what])
        ahead = scores[THIS][what] - scores[order][what]
        signs.add(1 if ahead > margin else -1 if ahead < -margin else 0)
    return signs.pop() if len(signs) == 1 else 0


def _of_weights(scores: dict[str, Any]) -> str:
    alike = scores["rank correlation with shuffled weights"]
    if alike >= ALIKE:
        return f"With shuffled weights it keeps its pattern (rank correlation {alike:.2f}): that was not learnt."
    return f"With shuffled weights it changes (rank correlation {alike:.2f}), as it should."
