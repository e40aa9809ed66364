"""Write docs/geometry.md: how far results are shown from where they belong, case by case.

Run from the repository's root: .venv/bin/python Testing/Scene/geometry_table.py
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

from scene_support import MOVED, OBLIQUE, OTHER, add_image, add_transform, axis_orders, placed  # noqa: E402
from test_scene_placement import (  # noqa: E402
    ANISOTROPIC,
    SHAPE,
    SHEARED,
    expected_places,
    half_voxel,
    map_offset,
    segment_places,
    written_segment,
)

from LKSegmentLib.scene.core import SceneContext, headless_scene  # noqa: E402
from LKSegmentLib.scene.segments import ensure_segmentation  # noqa: E402

PAGE = ROOT / "docs" / "geometry.md"

HEAD = """# Where results land

A box of voxels is written as a segment and shown as a map, through the same functions that the panel and the command
line use. Its place is then read back from Slicer's own nodes, voxel by voxel, parent transforms included, and compared
with where the image has it. Distances are between centroids, in world millimetres, the worst of each row.

This page is written by `.venv/bin/python Testing/Scene/geometry_table.py`; a test compares it with a fresh run. That an
impulse in the image lands in a network's map within one of the map's own voxels is held by
`Testing/Unit/test_inspection.py`, and that the same image stored along other axes gives the same mask by
`Testing/Unit/test_clicks.py`.

| image | cases | mask off by | map off by | half a voxel |
|---|---:|---:|---:|---:|
"""


def offsets(context: SceneContext, matrix: np.ndarray, moved: bool, other: bool) -> tuple[float, float, float]:
    """(mask, map, half a voxel) in mm for one placement."""
    image = add_image(context, matrix, shape=SHAPE)
    segmentation = ensure_segmentation(context, image, "result")
    if moved:
        image.SetAndObserveTransformNodeID(add_transform(context, MOVED, "of the image").GetID())
        segmentation.SetAndObserveTransformNodeID(image.GetTransformNodeID())
    if other:
        segmentation.SetAndObserveTransformNodeID(add_transform(context, OTHER, "of the segments").GetID())
    _, segment = written_segment(context, image, segmentation)
    found, expected = segment_places(segmentation, segment), expected_places(image)
    mask = float(np.linalg.norm(found.mean(axis=0) - expected.mean(axis=0)))
    return mask, map_offset(context, image), half_voxel(image)


def rows() -> Iterator[str]:
    """The table's lines."""
    straight = [placed(order, (0.8, 1.3, 2.1), (-11.0, 23.0, 57.0)) for order in axis_orders()]
    cases: list[tuple[str, list[np.ndarray], bool, bool]] = [
        ("the 48 axis orders, 0.8 × 1.3 × 2.1 mm", straight, False, False),
        ("the 48 axis orders, under a linear transform", straight, True, False),
        ("oblique, 0.9 × 1.1 × 2.5 mm", [OBLIQUE], False, False),
        ("oblique, under a linear transform", [OBLIQUE], True, False),
        ("anisotropic, 0.4 × 0.4 × 6 mm", [ANISOTROPIC], False, False),
        ("anisotropic, under a linear transform", [ANISOTROPIC], True, False),
        ("sheared axes", [SHEARED], False, False),
        ("oblique, image and segmentation under different transforms", [OBLIQUE], True, True),
    ]
    for name, matrices, moved, other in cases:
        found = [offsets(headless_scene(), matrix, moved, other) for matrix in matrices]
        mask, overlay, half = (max(values) for values in zip(*found, strict=True))
        yield f"| {name} | {len(matrices)} | {mask:.3f} mm | {overlay:.3f} mm | {half:.3f} mm |"


def page() -> str:
    """The whole page as it should be."""
    return HEAD + "\n".join(rows()) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
