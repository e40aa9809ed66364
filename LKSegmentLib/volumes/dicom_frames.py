"""What GDCM, ITK's DICOM reader, does not say about one DICOM file: where its frames really lie, and what is missing.

GDCM takes enhanced multi-frame files for regular stacks: frames at uneven distances, out of order, tilted or several
at one place come out misplaced. The positions are therefore read from the file's own bytes and compared.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from LKSegmentLib.errors import InputError

if TYPE_CHECKING:
    import SimpleITK

#: ITK's name for its DICOM reader.
DICOM_IO = "GDCMImageIO"

PIXEL_SPACING, SLICE_THICKNESS, SPACING_BETWEEN_SLICES = "0028|0030", "0018|0050", "0018|0088"

_MISPLACED = 0.05  # of a voxel


@dataclass(frozen=True)
class FileGeometry:
    """How far apart the slices of one DICOM file are taken to be, mm (negative: towards -normal), and a remark."""

    slice_spacing: float
    remark: str | None


def checked_geometry(file: Path, reader: SimpleITK.ImageFileReader) -> FileGeometry:
    """Check what GDCM says of one file (its header read by `reader`) against what is written in it.

    Raises InputError when the pixel spacing is not positive or the frames are not a regular stack in order.
    """
    size, spacing = reader.GetSize(), reader.GetSpacing()
    check_pixel_spacing(file, reader)
    if len(size) < 3 or size[2] == 1:
        thickness = _written_thickness(reader) or (spacing[2] if len(size) > 2 else 1.0)
        return FileGeometry(
            thickness,
            f"{file} is a single DICOM slice, taken as {thickness:g} mm thick; give a folder to read a series.",
        )
    head = _before_pixels(file)
    positions = _vectors(head, b"\x20\x00\x32\x00", 3)
    if len(positions) < 2:
        return FileGeometry(
            spacing[2],
            f"{file} does not say where each of its frames lies: they are taken as {abs(spacing[2]):g} mm apart.",
        )
    directions = np.array(reader.GetDirection()).reshape(len(size), len(size))[:3, :3]
    steps = np.arange(size[2])[:, np.newaxis] * directions[:, 2] * spacing[2]
    orientation = directions[:, :2].T.ravel()
    pixel_spacing = np.array((spacing[1], spacing[0]))
    regular = (
        len(positions) == size[2]
        and np.abs(positions - reader.GetOrigin()[:3] - steps).max() <= _MISPLACED * min(map(abs, spacing[:3]))
        and np.allclose(_vectors(head, b"\x20\x00\x37\x00", 6), orientation, rtol=0.0, atol=1e-3)
        and np.allclose(_vectors(head, b"\x28\x00\x30\x00", 2), pixel_spacing, rtol=1e-3, atol=0.0)
    )
    if not regular:
        raise InputError(
            f"{file} is a multi-frame DICOM file whose {size[2]} frames are not one regular stack in order (gaps, "
            "tilt, or several at one place): convert it to evenly spaced volumes first, or they would be misplaced."
        )
    return FileGeometry(spacing[2], None)


def check_pixel_spacing(file: Path, reader: SimpleITK.ImageFileReader) -> None:
    """Raises InputError when the Pixel Spacing written in the file is not positive; GDCM takes 0 for 1 mm."""
    if not reader.HasMetaDataKey(PIXEL_SPACING):
        return
    written = reader.GetMetaData(PIXEL_SPACING).strip()
    values = _numbers(written.encode())
    if values is None or not all(math.isfinite(value) and value > 0.0 for value in values):
        raise InputError(f'{file} gives a Pixel Spacing of "{written}" mm, which must be two positive numbers.')


def _written_thickness(reader: SimpleITK.ImageFileReader) -> float | None:
    for key in (SPACING_BETWEEN_SLICES, SLICE_THICKNESS):
        values = _numbers(reader.GetMetaData(key).encode()) if reader.HasMetaDataKey(key) else None
        if values and math.isfinite(values[0]) and values[0] > 0.0:
            return values[0]
    return None


def _before_pixels(file: Path) -> bytes:
    content = file.read_bytes()
    pixels = re.search(rb"\xe0\x7f\x10\x00(?:O[BW]\x00\x00|....)", content, re.DOTALL)
    return content[: pixels.start()] if pixels else content


def _vectors(head: bytes, tag: bytes, count: int) -> NDArray[np.float64]:
    """(n, count): all decimal strings of that tag, in the order of the file (little endian, explicit or implicit)."""
    found = []
    for match in re.finditer(re.escape(tag) + rb"(?:DS(..)|(..)\x00\x00)", head, re.DOTALL):
        length = int.from_bytes(match.group(1) or match.group(2), "little")
        values = _numbers(head[match.end() : match.end() + length])
        if values is not None and len(values) == count:
            found.append(values)
    return np.array(found, dtype=np.float64).reshape(-1, count)


def _numbers(written: bytes) -> list[float] | None:
    try:
        return [float(word) for word in written.strip(b" \x00").split(b"\\")]
    except ValueError:
        return None


@dataclass(frozen=True)
class Leftover:
    """What can be read from a DICOM file that GDCM left out of every series; empty where it is cut off before."""

    series_uid: str
    sop_class: str


def leftover_of(file: Path) -> Leftover | None:
    """What a file without a series is; None when it does not claim to be DICOM."""
    if file.name.startswith("."):
        return None  # what macOS leaves beside files on foreign disks, with their suffix
    with file.open("rb") as stream:
        head = stream.read(1 << 16)
    if head[128:132] != b"DICM":
        return Leftover("", "") if file.suffix.lower() == ".dcm" else None
    return Leftover(_identifier(head, b"\x20\x00\x0e\x00UI"), _identifier(head, b"\x02\x00\x02\x00UI"))


def _identifier(head: bytes, tag: bytes) -> str:
    start = head.find(tag)
    if start < 0:
        return ""
    start += len(tag)
    length = int.from_bytes(head[start : start + 2], "little")
    return head[start + 2 : start + 2 + length].rstrip(b"\x00 ").decode("ascii", errors="replace")
