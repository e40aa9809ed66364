"""Reading a folder of DICOM slices as one volume, or saying why its slices do not make one.

Geometry follows DICOM PS3.3 C.7.6.2 (Image Plane Module): Image Position and Image Orientation (Patient).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from LKSegmentLib.errors import InputError
from LKSegmentLib.volumes.dicom_frames import DICOM_IO, PIXEL_SPACING, check_pixel_spacing, leftover_of

if TYPE_CHECKING:
    import SimpleITK

_IMAGE_POSITION, _SOP_CLASS = "0020|0032", "0008|0016"
_SERIES_NUMBER, _SERIES_DESCRIPTION, _MODALITY = "0020|0011", "0008|103e", "0008|0060"

# Positions are often written with one decimal, which must not count as uneven; a missing slice must.
_POSITION_TOLERANCE_MM = 0.01
_POSITION_TOLERANCE = 0.05  # of the distance between slices
_DIRECTION_TOLERANCE = 1e-3
_TILT_TOLERANCE = 0.25  # of a pixel, over the whole stack


@dataclass(frozen=True)
class _Slice:
    """Where one file lies, LPS mm; `directions` (3x3) holds row and column direction and their normal in columns."""

    file: str
    placed: bool
    size: tuple[int, ...]
    spacing: tuple[float, ...]
    directions: NDArray[np.float64]
    origin: NDArray[np.float64]
    pixel_type: int


@dataclass(frozen=True)
class _Series:
    uid: str
    files: tuple[str, ...]
    number: str
    modality: str
    description: str
    sop_class: str

    def __str__(self) -> str:
        words = [self.modality, f'"{self.description}"' if self.description else ""]
        words.append(f"{len(self.files)} file{'s' if len(self.files) > 1 else ''}")
        name = f"series {self.number}" if self.number else "a series"
        return f"{name} ({', '.join(word for word in words if word)}): {self.uid}"


def dicom_files(folder: Path, series: str | None = None) -> tuple[str, ...]:
    """The files of the one series of images in `folder`, or of the one whose UID or number is `series`.

    Raises InputError when there is none or more than one, or when a file of it cannot be read at all.
    """
    found = _series_in(folder)
    chosen = _chosen_series(folder, found, series)
    _refuse_unread_slices(folder, chosen, {file for item in found for file in item.files})
    return chosen.files


def read_dicom_slices(name: str, files: Sequence[str]) -> SimpleITK.Image:
    """Read several slices as one 3-D ITK image; `name` is what errors call them.

    Raises InputError when they do not make a regular volume: missing or unevenly spaced slices, several at one
    place, different sizes or directions, gantry tilt.
    """
    import SimpleITK

    slices = [_slice_of(file) for file in files]
    ordered, gap = _checked_order(name, slices)
    reader = SimpleITK.ImageSeriesReader()
    reader.SetImageIO(DICOM_IO)
    reader.SetFileNames([item.file for item in ordered])
    if len({item.pixel_type for item in slices}) > 1:
        # PET slices are scaled one by one; by the first one's type alone the others would lose their fractions.
        reader.SetOutputPixelType(SimpleITK.sitkFloat32)
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise InputError(f"{name} cannot be read: a DICOM file in it is cut off or damaged.") from error
    first = ordered[0]
    image.SetDirection(first.directions.ravel().tolist())
    image.SetSpacing([*first.spacing[:2], gap])
    image.SetOrigin(first.origin.tolist())
    return image


def _series_in(folder: Path) -> list[_Series]:
    import SimpleITK

    found = []
    for uid in SimpleITK.ImageSeriesReader.GetGDCMSeriesIDs(str(folder)):
        files = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid)
        reader = SimpleITK.ImageFileReader()
        reader.SetImageIO(DICOM_IO)
        reader.SetFileName(files[0])
        try:
            reader.ReadImageInformation()
        except RuntimeError:
            continue  # reports, structure sets and presentation states have no image
        number, modality, description = (
            reader.GetMetaData(key).strip() if reader.HasMetaDataKey(key) else ""
            for key in (_SERIES_NUMBER, _MODALITY, _SERIES_DESCRIPTION)
        )
        sop_class = reader.GetMetaData(_SOP_CLASS).strip(" \0") if reader.HasMetaDataKey(_SOP_CLASS) else ""
        found.append(_Series(uid, tuple(files), number, modality, description, sop_class))
    return found


def _chosen_series(folder: Path, found: Sequence[_Series], wanted: str | None) -> _Series:
    if not found:
        below = sorted(item.name for item in folder.iterdir() if item.is_dir())
        hint = f"; perhaps you mean one of its folders: {', '.join(below[:5])}" if below else ""
        raise InputError(f"The folder {folder} holds no DICOM images{hint}.")
    if wanted is None:
        if len(found) == 1:
            return found[0]
        raise InputError(
            f"The folder {folder} holds {len(found)} DICOM series: choose one with series=, by its number or UID. "
            f"There are {'; '.join(map(str, found))}."
        )
    matching = [item for item in found if wanted == item.uid] or [item for item in found if wanted == item.number]
    if len(matching) != 1:
        what = "no" if not matching else f"{len(matching)}"
        raise InputError(f"The folder {folder} holds {what} series {wanted}. There are {'; '.join(map(str, found))}.")
    return matching[0]


def _refuse_unread_slices(folder: Path, chosen: _Series, read: set[str]) -> None:
    """GDCM leaves files it cannot parse out of every series; a slice must not go missing that way."""
    names = {Path(file).name for file in read}
    for file in sorted(item for item in folder.iterdir() if item.is_file() and item.name not in names):
        leftover = leftover_of(file)
        if leftover is None:
            continue
        if leftover.series_uid in ("", chosen.uid) and leftover.sop_class in ("", chosen.sop_class):
            raise InputError(
                f"{file} cannot be read and is probably a slice of this series: it is cut off or damaged. "
                "Copy or download it again, or take it out of the folder."
            )


def _slice_of(file: str) -> _Slice:
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO(DICOM_IO)
    reader.SetFileName(file)
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise InputError(f"{file} cannot be read: the DICOM file is cut off, damaged or holds no image.") from error
    check_pixel_spacing(Path(file), reader)
    count = reader.GetDimension()
    directions = np.eye(3)
    directions[:count, :count] = np.array(reader.GetDirection()).reshape(count, count)[:3, :3]
    directions[:, 2] = np.cross(directions[:, 0], directions[:, 1])
    origin = np.zeros(3)
    origin[:count] = reader.GetOrigin()[:3]
    return _Slice(
        file,
        reader.HasMetaDataKey(_IMAGE_POSITION) and reader.HasMetaDataKey(PIXEL_SPACING),
        tuple(reader.GetSize()),
        tuple(reader.GetSpacing()),
        directions,
        origin,
        reader.GetPixelID(),
    )


def _checked_order(name: str, slices: Sequence[_Slice]) -> tuple[list[_Slice], float]:
    """The slices in order along their normal, and the distance between them in mm."""
    first = slices[0]
    if not all(item.placed for item in slices):
        raise InputError(
            f"{name} holds DICOM files that do not say where they lie (no Image Position or Pixel Spacing): "
            "they make no volume."
        )
    if any(math.prod(item.size[2:]) > 1 for item in slices):
        raise InputError(f"{name} holds several multi-frame DICOM files: give one of them instead of the folder.")
    for item in slices:
        if item.size != first.size or not np.allclose(item.spacing[:2], first.spacing[:2], rtol=1e-4):
            raise InputError(
                f"{name} holds DICOM slices of different sizes or pixel spacing in one series: they make no volume."
            )
        if not np.allclose(item.directions, first.directions, rtol=0.0, atol=_DIRECTION_TOLERANCE):
            raise InputError(
                f"{name} holds DICOM slices in different directions (a localizer?) in one series: they make no volume."
            )
    along = np.array([item.origin @ first.directions[:, 2] for item in slices])
    order = np.argsort(along, kind="stable")
    ordered, along = [slices[index] for index in order], along[order]
    gap = _regular_gap(name, along)
    _refuse_tilt(name, ordered, gap)
    return ordered, gap


def _regular_gap(name: str, along: NDArray[np.float64]) -> float:
    """The distance between slices at `along` (sorted, mm). Raises InputError when it is not the same everywhere."""
    gaps = np.diff(along)
    at_one_place = int(np.count_nonzero(gaps < _POSITION_TOLERANCE_MM))
    if at_one_place:
        places = len(along) - at_one_place
        raise InputError(
            f"{name} holds {len(along)} DICOM slices at {places} place{'s' if places > 1 else ''}: several time points "
            "or kinds of image in one series. Split them first, or give a folder with one of each."
        )
    gap = float(along[-1] - along[0]) / (len(along) - 1)
    off = np.abs(along - (along[0] + gap * np.arange(len(along)))).max()
    if off <= max(_POSITION_TOLERANCE_MM, _POSITION_TOLERANCE * gap):
        return gap
    usual = float(np.percentile(gaps, 50, method="lower"))
    missing = np.rint(gaps / usual).astype(int) - 1
    if (np.abs(gaps - (missing + 1) * usual) <= max(_POSITION_TOLERANCE_MM, 2 * _POSITION_TOLERANCE * usual)).all():
        after = along[int(np.argmax(missing))]
        count = int(missing.sum())
        raise InputError(
            f"{name} lacks {count} DICOM slice{'s' if count > 1 else ''} (the first after {after:g} mm along the "
            f"stack, where slices are {usual:g} mm apart): find the missing files, or the image would be misplaced."
        )
    raise InputError(
        f"{name} holds DICOM slices at uneven distances ({gaps.min():g} to {gaps.max():g} mm): "
        "resample them to even ones first, or the image would be misplaced."
    )


def _refuse_tilt(name: str, ordered: Sequence[_Slice], gap: float) -> None:
    first, last = ordered[0], ordered[-1]
    across = first.directions[:, :2].T @ np.stack([item.origin - first.origin for item in ordered], axis=1)
    if np.abs(across).max() <= _TILT_TOLERANCE * min(first.spacing[:2]):
        return
    shift = float(np.linalg.norm(first.directions[:, :2].T @ (last.origin - first.origin)))
    angle = math.degrees(math.atan2(shift, gap * (len(ordered) - 1)))
    raise InputError(
        f"{name} holds DICOM slices that are shifted against each other (gantry tilt of {angle:.1f} degrees): correct "
        "the tilt first (Slicer's DICOM module does when it loads the series), or the image would be misplaced."
    )
