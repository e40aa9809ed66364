"""What ITK's readers do not notice about a file: voxels that are missing, headers it repairs by guessing or dies of.

ITK fills the missing part of a cut-off NIfTI, GIPL, VTK or BMP file with whatever was in memory, reads a damaged
compressed MetaImage likewise, and takes a NIfTI voxel size of 0 for 1 mm; writing NIfTI on a full disk succeeds.
A MetaImage whose number of dimensions is negative ends the process.
"""

from __future__ import annotations

import math
import re
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from LKSegmentLib.errors import InputError

_CHUNK = 1 << 20
_MOST_META_DIMENSIONS = 10
_GZIP_MAGIC = b"\x1f\x8b"
# Their voxels lie in the file as they are, after a header: all that comes before them, by pattern.
_HEADER_OF_UNCOMPRESSED = {
    "GiplImageIO": re.compile(rb".{256}", re.DOTALL),
    "VTKImageIO": re.compile(rb".*?\nLOOKUP_TABLE [^\n]*\n|.*?\n(?:COLOR_SCALARS|VECTORS|TENSORS) [^\n]*\n", re.DOTALL),
    "BMPImageIO": re.compile(rb".{54}", re.DOTALL),
}


def check_header(path: Path, image_io: str) -> None:
    """Raises InputError for a header that ITK's reader (`image_io`) must not be given: it would end the process."""
    if image_io != "MetaImageIO":
        return
    for number in re.findall(rb"^\s*NDims\s*=\s*([-+]?\d{1,20})", _head(path, 1 << 16, unpack=False), re.MULTILINE):
        if not 1 <= int(number) <= _MOST_META_DIMENSIONS:
            raise InputError(f"{path} cannot be read: its header gives {int(number)} dimensions, so it is damaged.")


def check_file(path: Path, image_io: str, voxel_bytes: int) -> None:
    """Check one file for what its ITK reader (`image_io`, ITK's name for it) would let pass.

    `voxel_bytes`: how long the voxels are by the header. Raises InputError when the file is cut off or damaged,
    or when its header gives a spacing that is zero, negative or not a number.
    """
    if image_io == "NiftiImageIO":
        _check_nifti(path)
    elif image_io == "MetaImageIO":
        _check_spacing_line(path, re.compile(r"^\s*Element(?:Spacing|Size)\s*=(.*)$", re.MULTILINE))
        _check_meta_image(path, voxel_bytes)
    elif image_io == "NrrdImageIO":
        _check_spacing_line(path, re.compile(r"^spacings:(.*)$", re.MULTILINE))
        _check_nrrd(path, voxel_bytes)
    elif image_io == "JPEGImageIO":
        if b"\xff\xd9" not in _tail(path, _CHUNK):
            raise _cut_off(path)
    elif image_io in _HEADER_OF_UNCOMPRESSED and path.suffix.lower() != ".gz":
        header = _HEADER_OF_UNCOMPRESSED[image_io].match(_head(path, 1 << 16))
        if path.stat().st_size < voxel_bytes + (header.end() if header else 0):
            raise _cut_off(path)


def check_spacing(spacing: Sequence[float], path: Path) -> None:
    """Raises InputError unless all of `spacing` (mm) is positive and finite."""
    if not all(math.isfinite(value) and value > 0.0 for value in spacing):
        written = " x ".join(f"{value:g}" for value in spacing)
        raise InputError(
            f"{path} gives a voxel spacing of {written} mm; spacing must be positive: correct the file's header first."
        )


def _cut_off(path: Path) -> InputError:
    return InputError(f"{path} is cut off or damaged: some of its voxels are missing. Copy or download it again.")


@dataclass(frozen=True)
class _NiftiHeader:
    dimensions: tuple[int, ...]
    bits: int
    spacing: tuple[float, ...]
    voxels_start: int

    @property
    def voxel_bytes(self) -> int:
        return (math.prod(max(size, 1) for size in self.dimensions) * self.bits + 7) // 8


def _nifti_header(head: bytes) -> _NiftiHeader | None:
    """Analyze 7.5 and NIfTI-1 (348 bytes) or NIfTI-2 (540): https://nifti.nimh.nih.gov/; None when neither."""
    for order in "<>":
        size = struct.unpack_from(order + "i", head)[0] if len(head) >= 348 else 0
        if size == 348:
            dimensions = struct.unpack_from(order + "8h", head, 40)
            spacing = struct.unpack_from(order + "8f", head, 76)
            bits, start = (
                struct.unpack_from(order + "h", head, 72)[0],
                struct.unpack_from(order + "f", head, 108)[0],
            )
        elif size == 540 and len(head) >= 540:
            dimensions = struct.unpack_from(order + "8q", head, 16)
            spacing = struct.unpack_from(order + "8d", head, 104)
            bits, start = (
                struct.unpack_from(order + "h", head, 14)[0],
                struct.unpack_from(order + "q", head, 168)[0],
            )
        else:
            continue
        count = min(max(dimensions[0], 0), 7)
        return _NiftiHeader(dimensions[1 : 1 + count], bits, spacing[1 : 1 + min(count, 3)], int(start))
    return None


def _check_nifti(path: Path) -> None:
    header_path, voxels_path = _nifti_pair(path)
    header = _nifti_header(_head(header_path, 540))
    if header is None:
        return  # ITK will say what it makes of it
    check_spacing(header.spacing, path)
    start = header.voxels_start if voxels_path == header_path else 0
    if not voxels_path.exists():
        raise InputError(f"{path} has no voxels beside it: {voxels_path.name} is missing in the same folder.")
    if not _holds(voxels_path, start + header.voxel_bytes):
        raise _cut_off(voxels_path)


def _nifti_pair(path: Path) -> tuple[Path, Path]:
    """The files that hold header and voxels: two for .hdr/.img, one for .nii."""
    match = re.fullmatch(r"(.*)\.(hdr|img)(\.gz)?", path.name, re.IGNORECASE)
    if match is None:
        return path, path
    stem, _, packed = match.groups()
    header, voxels = (path.with_name(f"{stem}.{kind}{packed or ''}") for kind in ("hdr", "img"))
    if not voxels.exists() and packed is None:
        voxels = path.with_name(f"{stem}.img.gz")
    return (header, voxels) if header.exists() else (path, path)


def _check_meta_image(path: Path, voxel_bytes: int) -> None:
    head = _head(path, 1 << 16, unpack=False)
    match = re.search(rb"^\s*ElementDataFile\s*=\s*(\S+)[^\n]*\n", head, re.MULTILINE)
    if match is None or not re.search(rb"^\s*CompressedData\s*=\s*[Tt1]", head, re.MULTILINE):
        return  # uncompressed ones are counted by ITK itself
    local = match.group(1).upper() == b"LOCAL"
    voxels = path if local else path.parent / match.group(1).decode(errors="replace")
    if voxels.is_file() and _inflated_length(voxels, match.end() if local else 0, voxel_bytes) < voxel_bytes:
        raise _cut_off(voxels)


def _check_nrrd(path: Path, voxel_bytes: int) -> None:
    head = re.match(rb"(.*?\n)\r?\n", _head(path, 1 << 16, unpack=False), re.DOTALL)
    lines = head.group(1) if head else _head(path, 1 << 16, unpack=False)
    if not re.search(rb"^encoding: *gz", lines, re.MULTILINE) or re.search(
        rb"^(?:byte|line) ?skip:", lines, re.MULTILINE
    ):
        return  # ITK itself counts what is not packed
    beside = re.search(rb"^data ?file: *([^\r\n]+)", lines, re.MULTILINE)
    voxels = path.parent / beside.group(1).decode(errors="replace").strip() if beside else path
    start = 0 if beside or head is None else head.end()
    if voxels.is_file() and _inflated_length(voxels, start, voxel_bytes) < voxel_bytes:
        raise _cut_off(voxels)


def _check_spacing_line(path: Path, line: re.Pattern[str]) -> None:
    # Headers end before 64 KiB; a chance match inside voxels is kept out by cutting at the end of the header.
    text = re.split(rb"\r?\n\r?\n|ElementDataFile", _head(path, 1 << 16, unpack=False), maxsplit=1)[0].decode("latin-1")
    for match in line.finditer(text):
        try:
            spacing = [float(word) for word in match.group(1).split()]
        except ValueError:
            continue  # not numbers: ITK will refuse the header
        # NRRD has NaN for axes that are not spatial, and no minus for those that are.
        check_spacing([value for value in spacing if not math.isnan(value)], path)


def _head(path: Path, count: int, unpack: bool = True) -> bytes:
    with path.open("rb") as file:
        start = file.read(count)
    if unpack and start.startswith(_GZIP_MAGIC):
        with path.open("rb") as file:
            try:
                return zlib.decompressobj(wbits=31).decompress(file.read(_CHUNK), count)
            except zlib.error as error:
                raise _cut_off(path) from error
    return start


def _tail(path: Path, count: int) -> bytes:
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - count, 0))
        return file.read()


def _holds(path: Path, length: int) -> bool:
    """Whether a file, unpacked where it is gzipped, is whole and at least `length` bytes long."""
    with path.open("rb") as file:
        packed = file.read(2) == _GZIP_MAGIC
    if not packed:
        return path.stat().st_size >= length
    return _inflated_length(path, 0, length) >= length


def _inflated_length(path: Path, start: int, enough: int) -> int:
    """Bytes that the zlib or gzip streams in `path` from `start` unpack to; 0 when damaged or cut off.

    Whole streams only (their checksum is verified); what follows once `enough` bytes are there is not read.
    """
    total = 0
    with path.open("rb") as file:
        file.seek(start)
        data = file.read(_CHUNK)
        while data and total < enough:
            stream = zlib.decompressobj(wbits=47)
            while not stream.eof:
                if not data:
                    return 0
                try:
                    total += len(stream.decompress(data))
                except zlib.error:
                    return 0
                data = stream.unused_data if stream.eof else file.read(_CHUNK)
            data = data or file.read(_CHUNK)
    return total
