"""What a click leaves on disk: a segmentation or label volume, a Slicer scene, a picture, attention maps."""

from __future__ import annotations

import importlib.util
import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from LKSegmentLib.cli.outputs import SEGMENTATION_SUFFIX, require_space, suffix_of, whole_files
from LKSegmentLib.engine.results import Map, SegmentResult
from LKSegmentLib.errors import InputError, RunError
from LKSegmentLib.prompts import Point
from LKSegmentLib.volumes import MaskBox, Volume, write_volume

_OVERLAY_OPACITY = 0.45


@dataclass(frozen=True)
class Targets:
    """Where results go; None is not written. `maps`: also the attention maps, as volumes beside the first of them."""

    segmentation: Path | None = None
    scene: Path | None = None
    picture: Path | None = None
    maps: bool = False

    @property
    def paths(self) -> list[Path]:
        """The files that were asked for by name."""
        return [path for path in (self.segmentation, self.scene, self.picture) if path is not None]

    @property
    def want_maps(self) -> bool:
        """Whether the attention maps are needed: as files, or as the overlay of a scene or picture."""
        return self.maps or self.scene is not None or self.picture is not None

    @property
    def need_scene(self) -> bool:
        """Whether Slicer's data model is needed."""
        labels_only = self.segmentation is None or suffix_of(self.segmentation) != SEGMENTATION_SUFFIX
        return self.scene is not None or self.picture is not None or not labels_only

    def check(self, volume: Volume) -> None:
        """Raises InputError or RunError now for what could not be written after the work is done."""
        if self.need_scene:
            require_slicer()
        if self.picture is not None:
            from LKSegmentLib.scene.views import rendering_problem

            problem = rendering_problem()
            if problem is not None:
                raise RunError(problem)
        require_space(self.paths[0].parent, 2 * volume.array.nbytes)


@dataclass(frozen=True)
class ClickedStructure:
    """A mask on a volume, and how it came about."""

    volume: Volume
    image_name: str
    name: str
    box: MaskBox
    points: Sequence[Point]
    maps: Sequence[Map] = ()

    @property
    def voxels(self) -> int:
        return int((self.box.array != 0).sum())

    @property
    def millilitres(self) -> float:
        return float(self.voxels * np.prod(self.volume.spacing) / 1000)

    @property
    def centre_ras(self) -> tuple[float, float, float]:
        """A voxel of the mask near its middle, mm; the last click where the mask is empty."""
        inside = np.argwhere(self.box.array)
        if not len(inside):
            return self.points[-1].ras
        nearest = inside[np.argmin(((inside - inside.mean(axis=0)) ** 2).sum(axis=1))]
        r, a, s = self.volume.grid.ras_of((nearest + np.array(self.box.lower))[::-1])
        return float(r), float(a), float(s)


def write_click(structure: ClickedStructure, targets: Targets) -> list[Path]:
    """Write what was asked for; all of it, or on an error nothing. Returns the paths.

    Raises InputError: slicer-core is missing, a folder that cannot be written, a full disk. RunError: no picture
    can be drawn.
    """
    beside = map_files(structure.maps, targets.paths[0]) if targets.maps else {}
    every = [*targets.paths, *beside]
    prepared = _PreparedScene(structure, targets) if targets.need_scene else None
    with whole_files(*every) as drafts:
        draft_of = dict(zip(every, drafts, strict=True))
        for path, content in beside.items():
            write_map_file(content, draft_of[path])
        if targets.segmentation is not None and suffix_of(targets.segmentation) != SEGMENTATION_SUFFIX:
            mask = structure.box.full(structure.volume.grid.shape).astype(np.uint8)
            write_volume(structure.volume.with_array(mask), draft_of[targets.segmentation])
        if prepared is not None:
            prepared.write(targets, draft_of)
    return every


def write_label_segmentation(volume: Volume, image_name: str, result: SegmentResult, path: Path) -> None:
    """Write the labels of a whole-volume model as `.seg.nrrd`, one segment for each label found."""
    require_slicer()
    from LKSegmentLib.scene import bundle, segmentations, terminology, volumes
    from LKSegmentLib.scene.core import headless_scene

    context = headless_scene()
    grid_image = volume.array if volume.array.ndim == 3 else volume.array[0]
    image = volumes.add_volume_node(context, volume.with_array(grid_image), image_name)
    node = segmentations.ensure_segmentation(context, image, image_name)
    entries = terminology.label_entries(result.entries)
    segmentations.import_labels(node, result.labels.array, entries, result.labels.ijk_to_ras)
    bundle.write_segmentation(node, path)


def require_slicer() -> None:
    """Raises InputError, with advice, where slicer-core is not installed."""
    if importlib.util.find_spec("slicer") is None:
        raise InputError(
            "Slicer's files (.seg.nrrd, .mrb, pictures) need the package slicer-core: pip install slicer-core, "
            "or write a label volume (.nii.gz) instead."
        )


class _PreparedScene:
    """A clicked structure as a Slicer scene, and its picture where one was asked for."""

    def __init__(self, structure: ClickedStructure, targets: Targets) -> None:
        from LKSegmentLib.scene import layout, overlays, prompts, segments, views, volumes
        from LKSegmentLib.scene.core import headless_scene

        self.context = headless_scene()
        image = volumes.add_volume_node(self.context, structure.volume, structure.image_name)
        self.node = segments.ensure_segmentation(self.context, image, f"{structure.image_name} segmentation")
        segment = segments.ensure_segment(self.node, structure.name)
        segments.SegmentWriter(self.context).write(self.node, segment, structure.box, image)
        self.pixels: Any = None
        if targets.scene is None and targets.picture is None:
            return
        layout.set_window(image, layout.display_window(structure.volume))
        nodes = prompts.create_point_nodes(self.context, structure.name)
        for number, point in enumerate(structure.points, start=1):
            prompts.add_point(nodes[0] if point.positive else nodes[1], point.ras, number)
        shown = [
            overlays.map_node(self.context, found.name, found.volume, found.passport, image)
            for found in structure.maps
        ]
        overlay = shown[0] if shown else None
        layout.arrange(self.context, image, structure.centre_ras, overlay, _OVERLAY_OPACITY)
        if overlay is not None:  # the outline stays; a filled segment would hide the map
            layout.set_fill(self.node, 0.0)
            title = structure.maps[0].name.partition(" (")[0]  # the name in full is in the scene and in the passport
            overlays.add_legend(overlay, title, [layout.slice_node(self.context, "Red").GetID()])
        if structure.voxels:
            layout.look_at(self.context, layout.show_surface(self.node))
        if targets.picture is not None:
            self.pixels = views.four_views(self.context)

    def write(self, targets: Targets, draft_of: dict[Path, Path]) -> None:
        from LKSegmentLib.scene import bundle

        if targets.segmentation is not None and suffix_of(targets.segmentation) == SEGMENTATION_SUFFIX:
            bundle.write_segmentation(self.node, draft_of[targets.segmentation])
        if targets.picture is not None:
            from PIL import Image

            Image.fromarray(self.pixels).save(draft_of[targets.picture])
        if targets.scene is not None:
            bundle.write_mrb(self.context, draft_of[targets.scene], self.pixels)


def slugs(names: Sequence[str]) -> list[str]:
    """Names as parts of file names, each another: (10, 4, 4) and (-10, 4, 4) do not share a file."""
    found: list[str] = []
    for name in names:
        plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unnamed"
        numbered = (f"{plain}-{number}" for number in itertools.count(2))
        found.append(next(one for one in itertools.chain((plain,), numbered) if one not in found))
    return found


def map_files(maps: Sequence[Map], first: Path) -> dict[Path, Volume | dict[str, Any]]:
    """Path to content: one volume for each map, and their passports in one JSON file, named after `first`."""
    stem = first.name[: -len(suffix_of(first))]
    files: dict[Path, Volume | dict[str, Any]] = {}
    passports = {}
    for found, name in zip(maps, slugs([one.name for one in maps]), strict=True):
        path = first.with_name(f"{stem}-{name}.nrrd")
        files[path] = found.volume
        passports[path.name] = found.passport
    files[first.with_name(f"{stem}-maps.json")] = passports
    return files


def write_map_file(content: Volume | dict[str, Any], path: Path) -> None:
    """Write one of the files of `map_files`."""
    if isinstance(content, Volume):
        write_volume(content, path)
    else:
        path.write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")
