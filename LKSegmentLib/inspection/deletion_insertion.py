"""Deletion and insertion: does the answer hang on the voxels that a map ranks high?

Voxels are removed from the image in the order of the map, highest first, and the answer is watched (deletion); or put
back into an image of which nothing is left (insertion); Petsiuk, Das, Saenko, "RISE", BMVC 2018, for classification.
A map that tells what matters lets the answer fall early and come back early. The same is done in the order of other
maps with voxels of the same size, so that the same number of the same blocks goes at each step: at random; by edge
strength (gradient magnitude of the image); and by nearness to the clicks or to the answer's middle.

A removed voxel takes the value of the image blurred with a Gaussian whose standard deviation is one eighth of the
window's edge: the mean of its wide surroundings. A constant, or the median of the surroundings, would write a new
sharp-edged object of the map's own shape into the image, and the network would answer to that; a narrow blur would
remove edges only, and edge strength would win by construction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from LKSegmentLib.errors import InputError

from .examined import Answer, ExaminedWindow, Float
from .maps import Map
from .tables import Table

STEPS = (0.0, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
SEEDS = (0, 1, 2)
MEASURES = ("probability", "Dice")
THIS, EDGES, NEAR = "this map", "edge strength", "nearness"

_BLUR = 1 / 8  # of the window's edge
_TIE = 1e-6  # voxels, as in probe

Progress = Callable[[str, float], None]
Order = NDArray[np.intp]


@dataclass(frozen=True)
class Curves:
    """The curves of one map in one window.

    Attributes:
        map: its name.
        deletion, insertion: {order: {measure: values at `STEPS`}}; the orders are "this map", "edge strength",
            "nearness" and "random 0", "random 1", …
        places: how many blocks were ranked, and how many voxels of the window they hold.
    """

    map: str
    deletion: dict[str, dict[str, list[float]]]
    insertion: dict[str, dict[str, list[float]]]
    places: tuple[int, int]

    def score(self, order: str, measure: str) -> float:
        """Area under the insertion curve minus area under the deletion curve: the higher the better, 1 at most."""
        return area(self.insertion[order][measure]) - area(self.deletion[order][measure])

    @property
    def random_orders(self) -> list[str]:
        """The names of the random orders."""
        return [order for order in self.deletion if order.startswith("random")]

    @property
    def span(self) -> dict[str, float]:
        """By measure: the untouched image's value minus that of the blurred image."""
        return {
            measure: self.deletion[THIS][measure][0] - self.deletion[THIS][measure][-1] for measure in MEASURES
        }

    def tables(self) -> list[Table]:
        """A table for each of deletion and insertion and each measure, in per cent of the ranked voxels."""
        return [
            self._table(kind, curves, measure)
            for kind, curves in (("deletion", self.deletion), ("insertion", self.insertion))
            for measure in MEASURES
        ]

    def _table(self, kind: str, curves: dict[str, dict[str, list[float]]], measure: str) -> Table:
        x = "removed (%)" if kind == "deletion" else "put back (%)"
        drawn = {order: curves[order][measure] for order in (THIS, EDGES, NEAR)}
        random = np.array([curves[order][measure] for order in self.random_orders])
        drawn["random (mean)"] = random.mean(0).tolist()
        more = {"random (lowest)": random.min(0).tolist(), "random (highest)": random.max(0).tolist()}
        columns = {x: [100 * step for step in STEPS], **drawn, **more}
        passport: dict[str, Any] = {
            "name": f"{kind}, {measure}: {self.map}",
            "kind": "perturbation",
            "operator": f"{_OPERATOR[kind]}; {_MEASURED[measure]}",
            "unit": "none, 0 to 1",
            "neutral": None,
            "ranked": f"{self.places[0]} blocks, {self.places[1]} voxels of the window",
            "random orders": len(self.random_orders),
            "areas": {order: area(values) for order, values in drawn.items()},
            "sentence": _TABLE_SENTENCE,
        }
        rows = tuple(zip(*columns.values(), strict=True))
        return Table(str(passport["name"]), tuple(columns), rows, x, tuple(drawn), passport)


_OPERATOR = {
    "deletion": "voxels replaced by the wide blur of the image, highest of the map first",
    "insertion": "voxels of the image put back into its wide blur, highest of the map first",
}
_MEASURED = {
    "probability": "mean probability over the region of the untouched image's answer",
    "Dice": "Dice of the answer with the untouched image's answer",
}
_TABLE_SENTENCE = "Shows on what the answer hangs when voxels are blurred away; blurred images are not real images."


def deletion_insertion(
    window: ExaminedWindow,
    maps: Sequence[Map],
    seeds: Sequence[int] = SEEDS,
    progress: Progress | None = None,
) -> list[Curves]:
    """The curves of each map. Orders that do not depend on the map are run once for maps on the same grid.

    Args:
        window: of a model.
        maps: on any grids; voxels of the window that a map does not cover are never removed.
        seeds: of the random orders, at least two.
        progress: told "deletion and insertion" and the fraction that is done.

    Raises:
        InputError: an empty answer, fewer than two seeds, a map that covers nothing of the window.
    """
    if len(seeds) < 2:
        raise InputError("One random order tells nothing about chance: give two seeds or more.")
    with window.running_often():
        test = _Test(window)
        jobs = [(found, _Blocks.of(found, window)) for found in maps]
        grids = {blocks.key for _, blocks in jobs}
        total = len(jobs) + len(grids) * (2 + len(seeds))
        done = 0

        def curves(blocks: _Blocks, order: Order) -> _Pair:
            nonlocal done
            pair = test.run(blocks, order)
            done += 1
            if progress is not None:
                progress("deletion and insertion", done / total)
            return pair

        others: dict[bytes, dict[str, _Pair]] = {}
        results = []
        for found, blocks in jobs:
            if blocks.key not in others:
                others[blocks.key] = {
                    EDGES: curves(blocks, blocks.order_of(test.edges)),
                    NEAR: curves(blocks, blocks.order_of(test.nearness)),
                    **{f"random {seed}": curves(blocks, blocks.shuffled(seed)) for seed in seeds},
                }
            own = curves(blocks, blocks.order(ranked(found)))
            every = {THIS: own, **others[blocks.key]}
            deletion, insertion = ({order: pair[at] for order, pair in every.items()} for at in (0, 1))
            places = (len(blocks.sizes), int(blocks.sizes.sum()))
            results.append(Curves(found.name, deletion, insertion, places))
    return results


def area(values: Sequence[float]) -> float:
    """The area under a curve over `STEPS`, by trapezoids: 0 to 1."""
    x, y = np.array(STEPS), np.asarray(values)
    return float((np.diff(x) * (y[1:] + y[:-1]) / 2).sum())


def ranked(found: Map) -> NDArray[np.float64]:
    """The values (k, j, i) by which a map ranks voxels: as they are, or by size where it has a sign (neutral 0)."""
    values = found.volume.array.astype(np.float64)
    return np.abs(values) if found.passport.get("neutral") == 0 and (values < 0).any() else values


def blurred(image: Float) -> Float:
    """The image (channel, k, j, i) of which nothing is left but its wide surroundings."""
    result = np.empty_like(image)
    for number, channel in enumerate(image):
        sigma = [_BLUR * size for size in channel.shape]
        result[number] = ndimage.gaussian_filter(channel, sigma, mode="nearest")
    return result


def edge_strength(image: Float, spacing: Sequence[float]) -> Float:
    """Magnitude (k, j, i) of the gradient of an image (channel, k, j, i), per mm, after a blur of one voxel."""
    total = np.zeros(image.shape[1:], np.float32)
    for channel in image:
        smooth = ndimage.gaussian_filter(channel, 1.0, mode="nearest")
        for along in np.gradient(smooth, *(float(length) for length in spacing[::-1])):
            total += np.square(along)
    return np.sqrt(total)


_Pair = tuple[dict[str, list[float]], dict[str, list[float]]]


class _Blocks:
    """The voxels of a map as blocks of the window's voxels.

    `index` (k, j, i of the window): which block a voxel belongs to, -1 outside the map; `voxel`: of each block, the
    map's voxel; `sizes`: how many voxels of the window it holds.
    """

    def __init__(self, index: Order, voxel: Order, sizes: Order) -> None:
        self.index, self.voxel, self.sizes = index, voxel, sizes
        self.key = index.tobytes()

    @classmethod
    def of(cls, found: Map, window: ExaminedWindow) -> _Blocks:
        k, j, i = np.indices(window.grid.shape)
        places = found.volume.grid.ijk_of(window.grid.ras_of(np.stack((i, j, k), -1)))
        nearest = np.floor(places + 0.5 + _TIE).astype(np.intp)[..., ::-1]
        shape = np.array(found.volume.grid.shape)
        inside = ((nearest >= 0) & (nearest < shape)).all(-1)
        if not inside.any():
            raise InputError(f"The map {found.name!r} covers nothing of the window: it belongs to another place.")
        flat = np.ravel_multi_index(tuple(nearest[inside].T), found.volume.grid.shape)
        voxel, block, sizes = np.unique(flat, return_inverse=True, return_counts=True)
        index = np.full(window.grid.shape, -1, np.intp)
        index[inside] = block.reshape(-1)
        return cls(index, voxel, sizes)

    def order(self, values: NDArray[np.float64]) -> Order:
        """Blocks by the values (k, j, i) of the map's voxels, highest first; ties by chance, always the same."""
        return self._sorted(values.reshape(-1)[self.voxel])

    def order_of(self, values: Float) -> Order:
        """Blocks by the mean of values (k, j, i) on the window's voxels, highest first."""
        inside = self.index >= 0
        sums = np.bincount(self.index[inside], values[inside].astype(np.float64), len(self.sizes))
        return self._sorted(sums / self.sizes)

    def shuffled(self, seed: int) -> Order:
        """Blocks in random order."""
        return np.random.default_rng(seed).permutation(len(self.sizes))

    def chosen(self, order: Order, share: float) -> NDArray[np.bool_]:
        """Where the first blocks are, this share of their number: (k, j, i) of the window."""
        first = np.zeros(len(order) + 1, bool)  # the last one stands for the outside
        first[order[: round(share * len(order))]] = True
        return first[self.index]

    def _sorted(self, values: NDArray[np.float64]) -> Order:
        usable = np.where(np.isfinite(values), values, -np.inf)
        chance = np.random.default_rng(0).permutation(len(values))
        return np.lexsort((chance, -usable))


class _Test:
    """An image, its blur, and the model's answer to the mixtures of both."""

    def __init__(self, window: ExaminedWindow) -> None:
        self._window = window
        self._blurred = blurred(window.image)
        self._whole = window.asked(window.image)
        if not self._whole.mask.any():
            raise InputError("The answer in this window is empty: there is nothing that could hang on any voxel.")
        self._ends: dict[bytes, dict[str, float]] = {}
        self.edges = edge_strength(window.image, window.grid.spacing)
        k, j, i = np.indices(window.grid.shape)
        voxels = window.grid.ras_of(np.stack((i, j, k), -1))
        away = [np.linalg.norm(voxels - place, axis=-1) for place in window.middle(self._whole)]
        self.nearness: Float = -np.min(away, axis=0).astype(np.float32)

    def run(self, blocks: _Blocks, order: Order) -> _Pair:
        """Deletion and insertion in this order: {measure: values at `STEPS`} each."""
        sides = []
        for kept, first in ((self._window.image, self._blurred), (self._blurred, self._window.image)):
            found = [self._at(blocks, order, step, kept, first) for step in STEPS]
            sides.append({measure: [values[measure] for values in found] for measure in MEASURES})
        return sides[0], sides[1]

    def _at(self, blocks: _Blocks, order: Order, step: float, kept: Float, first: Float) -> dict[str, float]:
        chosen = blocks.chosen(order, step)
        # The two ends are the same for every order on the same blocks: asked once.
        key = blocks.key + bytes([kept is self._blurred, step == 1.0])
        if step in (0.0, 1.0) and key in self._ends:
            return self._ends[key]
        values = self._measured(self._window.asked(np.where(chosen, first, kept)))
        if step in (0.0, 1.0):
            self._ends[key] = values
        return values

    def _measured(self, answer: Answer) -> dict[str, float]:
        whole = self._whole.mask
        both = int((answer.mask & whole).sum())
        return {
            "probability": float(answer.probability[whole].mean()),
            "Dice": 2 * both / (int(answer.mask.sum()) + int(whole.sum())),
        }
