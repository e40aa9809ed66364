"""What an inspection leaves on disk: volumes with passports, tables as CSV, pictures, and the page with all of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from LKSegmentLib.cli.click_files import map_files, slugs, write_map_file
from LKSegmentLib.cli.inspect_report import Picture, Report
from LKSegmentLib.cli.outputs import suffix_of, whole_files
from LKSegmentLib.cli.screen import Screen
from LKSegmentLib.engine.results import Map, Table
from LKSegmentLib.inspection.maps import WINDOW_VALUES
from LKSegmentLib.inspection.probe import has_place
from LKSegmentLib.packages import faithfulness_of, read_manifest
from LKSegmentLib.packages.store import locate
from LKSegmentLib.prompts import Point
from LKSegmentLib.volumes import Volume, write_volume

REPORT = "report.html"

Content = TypeVar("Content")

_NOT_ASKED = "not computed: only what the weights alone tell was asked for"


@dataclass(frozen=True)
class Inspected:
    """An inspection: of which image by which model, the answer (0 for background), and what was shown.

    `answered` False: only what the weights alone tell was asked for; the labels are empty and mean nothing.
    """

    image: str
    model: str
    volume: Volume
    labels: Volume
    names: Sequence[str]
    points: Sequence[Point]
    maps: Sequence[Map]
    tables: Sequence[Table]
    sentences: Sequence[str]
    answered: bool = True

    @property
    def centre_ras(self) -> list[float]:
        """Where the pictures' slices cross: in the largest segment, near its middle; else the image's middle."""
        counts = np.bincount(self.labels.array.ravel())[1:]
        if not counts.any():
            return [float(value) for value in self.volume.grid.centre_ras]
        inside = np.argwhere(self.labels.array == 1 + int(counts.argmax()))
        nearest = inside[np.argmin(((inside - inside.mean(axis=0)) ** 2).sum(axis=1))]
        return [float(value) for value in self.volume.grid.ras_of(nearest[::-1])]


def write_inspection(
    found: Inspected,
    result: Path,
    report: bool,
    screen: Screen,
    progress: Callable[[str, float], None],
) -> list[Path]:
    """Write all of it beside `result`, the label volume; all or, on an error, nothing. Returns the paths."""
    maps = map_files(found.maps, result)
    tables = _beside(result, ".csv", [(table.name, table) for table in found.tables])
    pictures: dict[Path, Picture] = {}
    kind = ""
    if report:
        drawn, kind = _pictures(found, screen, progress)
        pictures = _beside(result, ".png", [(one.map.name, one) for one in drawn])
    page = [result.with_name(REPORT)] if report else []
    answer = [result] if found.answered else []
    every = [*answer, *maps, *tables, *pictures, *page]
    with whole_files(*every) as drafts:
        draft_of = dict(zip(every, drafts, strict=True))
        for path in answer:
            write_volume(found.labels, draft_of[path])
        for path, content in maps.items():
            write_map_file(content, draft_of[path])
        for path, table in tables.items():
            draft_of[path].write_text(table.as_csv(), encoding="utf-8")
        for path, picture in pictures.items():
            draft_of[path].write_bytes(picture.png)
        for path in page:
            named = [(table, place.name) for place, table in tables.items()]
            others = [place.name for place in (*answer, *maps)]
            text = _report(found, list(pictures.values()), kind, named, others).html()
            draft_of[path].write_text(text, encoding="utf-8")
    return every


def _beside(result: Path, suffix: str, named: Sequence[tuple[str, Content]]) -> dict[Path, Content]:
    """Path to content, by names that no two of them share."""
    stem = result.name[: -len(suffix_of(result))]
    contents = [content for _, content in named]
    paths = [result.with_name(f"{stem}-{name}{suffix}") for name in slugs([name for name, _ in named])]
    return dict(zip(paths, contents, strict=True))


def _pictures(
    found: Inspected, screen: Screen, progress: Callable[[str, float], None]
) -> tuple[list[Picture], str]:
    """A picture of each map, and what kind of picture that is."""
    from LKSegmentLib.cli.inspect_pictures import MapPictures, png_bytes, slicer_views_problem

    problem = slicer_views_problem()
    if problem is not None:
        screen.note(f"{problem} The report shows plain slices instead.")
    manifest = read_manifest(locate(found.model))
    image = found.volume if found.volume.array.ndim == 3 else found.volume.with_array(found.volume.array[0])
    painter = MapPictures(image, found.labels, found.names, found.centre_ras, found.points)
    drawn = []
    for number, shown in enumerate(found.maps):
        progress("pictures", number / len(found.maps))
        worth = faithfulness_of(manifest, shown.name)
        drawn.append(Picture(shown, png_bytes(painter.of(shown)), _shown_as(shown), worth))
    return drawn, painter.kind


def _shown_as(found: Map) -> str:
    from LKSegmentLib.scene.map_nodes import digits_for, display_for

    display = display_for(found.volume.array, found.passport)
    low, high = display.window
    digits = digits_for(display.window, 3)
    clear = display.threshold if has_place(found) else None
    below = "" if clear is None else f"; below {clear:.{digits}g} it is transparent"
    hard = " Each window has one number, with hard borders." if WINDOW_VALUES in found.passport else ""
    least, most = found.volume.array.min(), found.volume.array.max()
    same = f" The map is {least:.{digits}g} everywhere." if least == most else ""
    return f"Colours run from {low:.{digits}g} to {high:.{digits}g}{below}.{hard}{same}"


def _report(
    found: Inspected, pictures: list[Picture], kind: str, tables: list[tuple[Table, str]], files: list[str]
) -> Report:
    manifest = read_manifest(locate(found.model))
    name = Path(found.image).name
    counts = np.bincount(found.labels.array.ravel(), minlength=len(found.names) + 1)
    millilitres = abs(np.linalg.det(found.volume.ijk_to_ras[:3, :3])) / 1000
    segments = [
        f"{segment} ({counts[value] * millilitres:.1f} ml)"
        for value, segment in enumerate(found.names, start=1)
        if counts[value]
    ]
    facts = {
        "image": f"{name}, {' x '.join(str(size) for size in found.volume.grid.shape[::-1])} voxels of "
        f"{' x '.join(f'{length:.3g}' for length in found.volume.spacing)} mm (i, j, k)",
        "model": f"{manifest.name}: {manifest.title}",
        "network": manifest.network,
        "weights": f"SHA-256 {manifest.files['weights.safetensors'].sha256[:16]}…; {manifest.licence}",
        "trained on": manifest.trained_on or "the package does not say",
        "answer": ", ".join(segments) or "nothing was found" if found.answered else _NOT_ASKED,
    }
    if found.points:
        clicks = [f"{'+' if p.positive else '-'} ({', '.join(f'{v:.1f}' for v in p.ras)})" for p in found.points]
        facts["clicks, RAS mm"] = "; ".join(clicks)
    title = f"What {manifest.name} showed on {name}"
    return Report(title, facts, pictures, kind, found.sentences, tables, files)
