"""What masks look like click after click: one slice of several structures, as one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from LKSegmentLib.errors import InputError
from LKSegmentLib.evaluation.click_scores import ClickScore
from LKSegmentLib.evaluation.structures import Structure
from LKSegmentLib.prompts import Point
from LKSegmentLib.volumes import MaskBox, canonical_axes

_REFERENCE, _MASK = "#e69f00", "#56b4e9"  # told apart by colour-blind people too
_NEAR = 2  # voxels from the slice, within which a click is drawn


@dataclass(frozen=True)
class Panel:
    """One row: what it stands for, the structure, its scores, and masks with their clicks by number of clicks."""

    title: str
    structure: Structure
    score: ClickScore
    seen: Mapping[int, tuple[MaskBox, Sequence[Point]]]


def require_matplotlib() -> None:
    """Raises InputError where matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise InputError("Pictures need matplotlib: pip install 'lksegment[evaluation]'.") from error


def write_click_picture(panels: Sequence[Panel], path: Path) -> None:
    """Draw each panel as a row, a column for each number of clicks, and write the PNG.

    The axial slice with most of the structure is shown, the patient's right on the left. Where the mask was perfect
    earlier, the last one there is stands in for the rest.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = sorted({count for panel in panels for count in panel.seen})
    figure = Figure(figsize=(2.6 * len(columns), 2.85 * len(panels)), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(panels), len(columns), squeeze=False)
    for row, panel in zip(axes, panels, strict=True):
        for place, count in zip(row, columns, strict=True):
            reached = max(number for number in panel.seen if number <= count)
            _draw(place, panel, count, *panel.seen[reached])
    figure.savefig(path, format="png")


def _draw(place: Any, panel: Panel, count: int, box: MaskBox, points: Sequence[Point]) -> None:
    structure = panel.structure
    grid = structure.volume.grid
    turned = canonical_axes(grid)

    def canonical(array: NDArray[Any]) -> NDArray[Any]:
        return turned.apply_array(array)

    reference = canonical(structure.target.view(np.uint8))
    k = int(reference.sum(axis=(1, 2)).argmax())
    image = canonical(structure.volume.array)[k]
    low, high = np.percentile(canonical(structure.volume.array), (1, 99.5))
    mask = canonical(box.full(grid.shape).view(np.uint8))[k]
    # The first axis goes up (to anterior); the second is mirrored, so that the patient's right is on the left.
    place.imshow(image[:, ::-1], cmap="gray", origin="lower", vmin=low, vmax=max(high, low + 1e-6))
    filled = np.ma.masked_equal(mask[:, ::-1], 0)
    place.imshow(filled, cmap=_one_colour(), origin="lower", alpha=0.45, vmin=0, vmax=1, interpolation="nearest")
    if reference[k].any():
        place.contour(reference[k][:, ::-1], levels=[0.5], colors=[_REFERENCE], linewidths=1.4)
    canonical_grid = turned.apply_grid(grid)
    for point in points:
        i, j, depth = canonical_grid.ijk_of(point.ras)
        if abs(depth - k) <= _NEAR:
            mark, colour = ("+", "#009e73") if point.positive else ("x", "#d55e00")
            place.plot(image.shape[1] - 1 - i, j, mark, color=colour, markersize=8, markeredgewidth=2)
    place.set_xticks([])
    place.set_yticks([])
    dice = panel.score.model.dice[panel.score.model.at(count)]
    name = f"{panel.title}: {panel.score.name.replace('_', ' ')}, {panel.score.modality}"
    place.set_title(f"{name}\n{count} click{'s' * (count > 1)}, Dice {dice:.2f}", fontsize=8)


def _one_colour() -> Any:
    from matplotlib.colors import ListedColormap

    return ListedColormap([_MASK])
