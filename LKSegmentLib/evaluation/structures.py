"""Labelled structures of real images: which files, what each label is called, one connected piece of each.

`real_cases` lists the images this project is measured on. A data folder with a ``cases.json`` brings its own list
instead::

    {"images": [{"case": "folder", "image": "ct.nii.gz", "labels": "labels.nii.gz", "modality": "CT",
                 "reference": "manual", "names": {"1": "liver"}}]}

``image`` is a file or a DICOM folder; the labels may lie on another grid; ``names`` is a table or a JSON file beside
them. ``source`` and ``licence`` of the image may be added.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from LKSegmentLib.errors import InputError
from LKSegmentLib.inference.click_window import ClickWindow
from LKSegmentLib.volumes import Volume, read_volume, resample

from .real_cases import IMAGES
from .structure_kinds import Kind, kind_of

Mask = NDArray[np.bool_]

EDGE = 64
LEAST_VOXELS = 300
_SURROUNDINGS = 1.3
_OWN_LIST = "cases.json"
_REQUIRED = ("case", "image", "labels", "modality", "reference")


@dataclass(frozen=True)
class LabelledImage:
    """One image and one label map of a data folder; ``names`` by label value."""

    case: str
    image: str
    labels: str
    modality: str
    reference: str
    names: Mapping[int, str] = field(default_factory=dict)
    source: str = ""
    licence: str = ""


@dataclass(frozen=True)
class Structure:
    """One labelled structure of one case: ``volume`` and ``target`` (k, j, i) on the same grid.

    ``voxels`` is the structure's size on the image's own grid, ``reference`` who drew it.
    """

    case: str
    value: int
    volume: Volume
    target: Mask
    name: str = ""
    modality: str = ""
    kind: Kind = "other"
    reference: str = ""
    voxels: int = 0
    source: str = ""
    licence: str = ""

    @property
    def voxel_mm(self) -> float:
        """The middle one of the voxel's three edges, mm; the edge of a cropped structure's voxels."""
        return float(np.median(self.volume.spacing))

    def cropped(self, edge: int = EDGE) -> Structure:
        """The cube around the structure, 1.3 times its longest edge, resampled to ``edge``³ isotropic voxels."""
        box = ndimage.find_objects(self.target.astype(np.uint8))[0]
        low = np.array([part.start for part in box], float)
        high = np.array([part.stop for part in box], float)
        spacing = np.array(self.volume.spacing[::-1])
        step = _SURROUNDINGS * float(((high - low) * spacing).max()) / edge
        k, j, i = (float(value) for value in (low + high - 1) / 2)
        window = ClickWindow(self.volume.grid, (k, j, i), step, edge)
        target = window.sample(self.target.view(np.uint8)) > 0.5
        image = Volume(window.sample(self.volume.array), window.window_grid.ijk_to_ras)
        return replace(self, volume=image, target=target)


def labelled_images(folder: Path) -> list[LabelledImage]:
    """The images of a data folder: those of its own list, else those of ours that are there.

    Raises:
        InputError: no such folder, or a list that cannot be read or names a file that is missing.
    """
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder} with labelled cases.")
    own = folder / _OWN_LIST
    if not own.is_file():
        ours = [_labelled_image(entry, folder, own) for entry in IMAGES]
        return [image for image in ours if (folder / image.case / image.labels).exists()]
    found = [_labelled_image(entry, folder, own) for entry in _entries(own)]
    for image in found:
        for name in (image.image, image.labels):
            if not (folder / image.case / name).exists():
                raise InputError(f"{own} names {image.case}/{name}, which is not in {folder}.")
    return found


def real_structures(
    folder: Path,
    case: str | None = None,
    names: Sequence[str] | None = None,
    least_voxels: int = LEAST_VOXELS,
) -> Iterator[Structure]:
    """Every labelled structure whose largest connected piece has at least ``least_voxels`` voxels, as that piece.

    A click means one piece. Labels on another grid are brought to the image's, nearest voxel.

    Args:
        folder: of the data.
        case: only this case.
        names: only structures with one of these names.

    Raises:
        InputError: as `labelled_images`, a case that is not there, or a name that no label has.
    """
    images = [image for image in labelled_images(folder) if case is None or image.case == case]
    if not images:
        raise InputError(f"There are no labelled images{f' of the case {case!r}' if case else ''} in {folder}.")
    met: set[str] = set()
    for image in images:
        volume = read_volume(folder / image.case / image.image)
        labels = read_volume(folder / image.case / image.labels)
        if not labels.grid.matches(volume.grid):
            labels = resample(labels, volume.grid, interpolation="nearest", fill=0)
        numbers = labels.array.astype(np.int32)
        for value, box in enumerate(ndimage.find_objects(np.maximum(numbers, 0)), start=1):
            if box is None:
                continue
            name = image.names.get(value, str(value))
            met.add(name)
            if names is not None and name not in names:
                continue
            pieces, _ = ndimage.label(numbers[box] == value)
            sizes = np.bincount(pieces.ravel())[1:]
            if sizes.max() < least_voxels:
                continue
            target = np.zeros(numbers.shape, bool)
            target[box] = pieces == 1 + int(sizes.argmax())
            yield Structure(
                image.case, value, volume, target, name, image.modality, kind_of(name), image.reference,
                int(sizes.max()), image.source, image.licence,
            )  # fmt: skip
    unknown = [name for name in names or () if name not in met]
    if unknown:
        raise InputError(f"There is no structure {unknown[0]!r}; there are: {', '.join(sorted(met))}.")


def _entries(listed: Path) -> list[Any]:
    try:
        values = json.loads(listed.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"The list of cases {listed} cannot be read: {error}.") from error
    images = values.get("images") if isinstance(values, dict) else None
    if not isinstance(images, list):
        raise InputError(f'The list of cases {listed} must be an object with a list "images".')
    return images


def _labelled_image(entry: Any, folder: Path, listed: Path) -> LabelledImage:
    missing = [key for key in _REQUIRED if not isinstance(entry, dict) or not isinstance(entry.get(key), str)]
    if missing:
        raise InputError(f'An image in {listed} lacks the text "{missing[0]}".')
    names = entry.get("names", {})
    if isinstance(names, str):
        path = folder / entry["case"] / names
        names = _names(path) if path.is_file() else {}
    try:
        by_value = {int(value): str(name) for value, name in dict(names).items()}
    except (TypeError, ValueError) as error:
        raise InputError(f'The "names" of {entry["case"]} in {listed} must map label values to names.') from error
    more = {key: str(entry.get(key, "")) for key in ("source", "licence")}
    return LabelledImage(**{key: entry[key] for key in _REQUIRED}, names=by_value, **more)


def _names(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"The label names {path} cannot be read: {error}.") from error
