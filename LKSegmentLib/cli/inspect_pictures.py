"""A picture of each map over the image: Slicer's three slice views, or plain slices where slicer-core is missing."""

from __future__ import annotations

import importlib.util
import struct
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from LKSegmentLib.engine.results import Map
from LKSegmentLib.inspection.probe import has_place
from LKSegmentLib.volumes import Grid, Volume, resample

if TYPE_CHECKING:
    from LKSegmentLib.prompts import Point

Pixels = NDArray[np.uint8]

VIEWS = ("Red", "Green", "Yellow")
SIZE = (380, 340)  # of one view: width, height
_GAP = 4
_BORDER = np.array([24, 26, 30], dtype=np.uint8)
_OUTLINE = np.array([80, 220, 100], dtype=np.uint8)
_OPACITY = 0.5
_CLOSEST = 3.0  # times larger than the whole image
_AROUND = 0.8  # of the view: the rest shows what lies around the map


class MapPictures:
    """Pictures of maps over one image with its segments and clicks, all at the same place.

    Args:
        image: one channel, (k, j, i).
        labels: the answer on the image's grid, 0 for background; drawn as outlines.
        names: of the labels 1, 2, …
        centre: where the slices cross, RAS mm.
        points: the clicks, of a click model.
    """

    def __init__(
        self,
        image: Volume,
        labels: Volume,
        names: Sequence[str],
        centre: Sequence[float],
        points: Sequence[Point] = (),
    ) -> None:
        self._image, self._labels, self._centre = image, labels, [float(value) for value in centre]
        self._scene = _SlicerScene(image, labels, names, points) if slicer_views_problem() is None else None

    @property
    def kind(self) -> str:
        """What the pictures are, in words."""
        if self._scene is not None:
            return "Slicer's slice views: axial, coronal, sagittal; colours between voxels are interpolated"
        return "Plain slices through one place (no slicer-core here): axial, coronal, sagittal"

    def of(self, found: Map) -> Pixels:
        """The picture (height, width, 3), first row on top.

        The reach is shown where it was asked for; a kernel, which has no place in the image, by itself.
        """
        if not has_place(found):
            return plain_slices(None, None, found, found.volume.grid.centre_ras.tolist())
        centre = found.passport.get("voxel RAS mm") or self._centre
        if self._scene is None:
            return plain_slices(self._image, self._labels, found, centre)
        return self._scene.picture(found, centre, self._zoom(found.volume.grid))

    def _zoom(self, grid: Grid) -> float:
        """So that a map that covers a part of the image is seen well."""
        whole = np.ptp(self._image.grid.corners_ras, axis=0)
        part = np.ptp(grid.corners_ras, axis=0)
        return float(np.clip(_AROUND * (whole / part).min(), 1.0, _CLOSEST))


def slicer_views_problem() -> str | None:
    """Why Slicer's views cannot be drawn here; None when they can."""
    if importlib.util.find_spec("slicer") is None:
        return "Slicer's views need the package slicer-core."
    from LKSegmentLib.scene.views import rendering_problem

    return rendering_problem()


def png_bytes(pixels: Pixels) -> bytes:
    """A picture (height, width, 3) as a PNG file, made in memory: a stopped command leaves no file behind."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = pixels.shape[:2]
    rows = np.full((height, 1 + 3 * width), 2, np.uint8)  # 2: of each row the difference from the one above it
    rows[:, 1:] = np.diff(pixels.reshape(height, -1), axis=0, prepend=np.zeros((1, 3 * width), np.uint8))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits of red, green and blue
    body = chunk(b"IDAT", zlib.compress(rows.tobytes(), 9))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


class _SlicerScene:
    """The image, its segments and clicks as a scene without an application."""

    def __init__(self, image: Volume, labels: Volume, names: Sequence[str], points: Sequence[Point]) -> None:
        from LKSegmentLib.scene import layout, prompts, segmentations, terminology, volumes
        from LKSegmentLib.scene.core import headless_scene

        self._context = headless_scene()
        self._node = volumes.add_volume_node(self._context, image, "image")
        layout.set_window(self._node, layout.display_window(image))
        if labels.array.any():
            node = segmentations.ensure_segmentation(self._context, self._node, "answer")
            entries = terminology.label_entries(list(names))
            segmentations.import_labels(node, labels.array.astype(np.uint16), entries, labels.ijk_to_ras)
            layout.set_fill(node, 0.0, thickness=2)
        if points:
            nodes = prompts.create_point_nodes(self._context, "click")
            for number, point in enumerate(points, start=1):
                prompts.add_point(nodes[0] if point.positive else nodes[1], point.ras, number)

    def picture(self, found: Map, centre: Sequence[float], zoom: float) -> Pixels:
        from LKSegmentLib.scene import layout, map_nodes, views

        shown = map_nodes.map_node(self._context, found.name, found.volume, found.passport, self._node)
        layout.arrange(self._context, self._node, centre, shown, _OPACITY, zoom)
        legend = map_nodes.add_legend(shown, "", [layout.slice_node(self._context, VIEWS[-1]).GetID()])
        drawn = views.draw_views(self._context, SIZE, VIEWS)
        self._context.scene.RemoveNode(legend)
        return _side_by_side([drawn[name] for name in VIEWS])


def plain_slices(image: Volume | None, labels: Volume | None, found: Map, centre: Sequence[float]) -> Pixels:
    """Axial, coronal and sagittal slices through a place: the map's voxels over the image, unsmoothed.

    Colours and transparency are those of Slicer's views; slices run along the image's own axes closest to R, A, S.
    Without an image the map is drawn by itself, all of it.
    """
    from LKSegmentLib.scene.layout import display_window
    from LKSegmentLib.scene.map_nodes import colors_of, display_for
    from LKSegmentLib.volumes import canonical_axes

    shown = display_for(found.volume.array, found.passport)
    threshold = -np.inf if shown.threshold is None or image is None else shown.threshold
    colors = colors_of(shown.table)
    order = canonical_axes(found.volume.grid if image is None else image.grid)
    below = None if image is None else order.apply(image)
    answer = None if labels is None else order.apply_array(labels.array)
    window = (0.0, 1.0) if image is None else display_window(image)
    grid = order.canonical
    place = np.clip(np.rint(grid.ijk_of(centre))[::-1], 0, np.array(grid.shape) - 1).astype(int)
    views = []
    for axis in range(3):  # k, j, i: axial, coronal, sagittal
        lower, upper = [0, 0, 0], list(grid.shape)
        lower[axis], upper[axis] = int(place[axis]), int(place[axis]) + 1
        part = tuple(slice(low, high) for low, high in zip(lower, upper, strict=True))
        over = resample(found.volume, grid.cropped(lower, upper), "nearest", fill=float("nan")).array.squeeze(axis)
        grey = np.zeros(over.shape)
        if below is not None:
            grey = 255 * np.clip((below.array[part].squeeze(axis) - window[0]) / (window[1] - window[0]), 0, 1)
        edge = np.zeros(over.shape, bool) if answer is None else _outline(answer[part].squeeze(axis))
        share = np.where(np.isfinite(over) & (over >= threshold), 1.0 if image is None else _OPACITY, 0.0)
        plane = _mixed(grey, _colored(over, shown.window, colors), share)
        plane[edge] = _OUTLINE
        # Superior and anterior up; the body's right on the left, its front on the left of a sagittal slice.
        spacing = tuple(length for other, length in enumerate(grid.spacing[::-1]) if other != axis)
        views.append(_fitted(plane[::-1, ::-1], (spacing[0], spacing[1])))
    return _side_by_side(views)


def _colored(values: NDArray[Any], window: tuple[float, float], colors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values (rows, columns) in the colours (256, 3) of a window; (rows, columns, 3)."""
    places = (values - window[0]) / (window[1] - window[0]) * (len(colors) - 1)
    return colors[np.clip(np.nan_to_num(places), 0, len(colors) - 1).astype(int)]


def _mixed(grey: NDArray[Any], colored: NDArray[Any], share: NDArray[Any]) -> NDArray[np.uint8]:
    """A grey slice (rows, columns) with its share (0 to 1) of the coloured one (rows, columns, 3)."""
    mixed = share[..., None] * colored + (1 - share[..., None]) * grey[..., None]
    return mixed.astype(np.uint8)


def _outline(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Pixels of a segment with another label beside them; labels (rows, columns)."""
    padded = np.pad(labels, 1, mode="edge")
    beside = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    return (labels != 0) & np.any([labels != other for other in beside], axis=0)


def _fitted(plane: NDArray[np.uint8], spacing: tuple[float, float]) -> Pixels:
    """A slice (rows, columns, 3) in millimetres' proportions, its pixels repeated, in the middle of a view."""
    rows, columns = plane.shape[:2]
    scale = min(SIZE[1] / (rows * spacing[0]), SIZE[0] / (columns * spacing[1]))
    height, width = max(1, round(rows * spacing[0] * scale)), max(1, round(columns * spacing[1] * scale))
    row = ((np.arange(height) + 0.5) * rows / height).astype(int)
    column = ((np.arange(width) + 0.5) * columns / width).astype(int)
    view = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    top, left = (SIZE[1] - height) // 2, (SIZE[0] - width) // 2
    view[top : top + height, left : left + width] = plane[row][:, column]
    return view


def _side_by_side(views: Sequence[Pixels]) -> Pixels:
    height = views[0].shape[0]
    gap = np.tile(_BORDER, (height, _GAP, 1))
    parts: list[Pixels] = []
    for view in views:
        parts += [view, gap]
    return np.concatenate(parts[:-1], axis=1)
