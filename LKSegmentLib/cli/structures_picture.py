"""Slicer's four views of an image with several named masks, as one picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from LKSegmentLib.cli.click_files import require_slicer
from LKSegmentLib.volumes import Volume


def write_structures_picture(volume: Volume, masks: Mapping[str, NDArray[np.bool_]], path: Path) -> None:
    """Draw ``masks`` (k, j, i), by name, over ``volume`` and in 3D, and write the PNG.

    Where masks overlap, the later one is drawn. The views cross in the middle of the first one.

    Raises:
        InputError: slicer-core is missing. RunError: this machine cannot draw.
    """
    require_slicer()
    from LKSegmentLib.scene import layout, segmentations, terminology, views, volumes
    from LKSegmentLib.scene.core import headless_scene

    labels = np.zeros(volume.grid.shape, np.uint16)
    for value, mask in enumerate(masks.values(), start=1):
        labels[mask] = value
    context = headless_scene()
    image = volumes.add_volume_node(context, volume, "image")
    layout.set_window(image, layout.display_window(volume))
    node = segmentations.ensure_segmentation(context, image, "structures")
    entries = terminology.label_entries([name.replace("_", " ") for name in masks])
    segmentations.import_labels(node, labels, entries, volume.ijk_to_ras)
    filled = np.argwhere(next(iter(masks.values())))
    middle = filled.mean(axis=0) if len(filled) else (np.array(labels.shape) - 1) / 2
    layout.arrange(context, image, volume.grid.ras_of(middle[::-1]).tolist())
    if labels.any():
        layout.look_at(context, layout.show_surface(node))
    views.render_four_views(context, path)
