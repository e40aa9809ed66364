"""Reading and writing image files, with geometry turned from ITK's LPS into RAS.

Where a NIfTI file holds two different geometries (sform and qform), ITK's choice is taken, as Slicer does; and as
there, NaN and infinite voxels of a NIfTI file are read as 0.
"""

from __future__ import annotations

import errno
import math
import os
import shutil
import uuid
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from LKSegmentLib.errors import InputError
from LKSegmentLib.volumes.dicom import dicom_files, read_dicom_slices
from LKSegmentLib.volumes.dicom_frames import DICOM_IO, checked_geometry
from LKSegmentLib.volumes.file_checks import check_file, check_header, check_spacing
from LKSegmentLib.volumes.native_output import native_stderr_held
from LKSegmentLib.volumes.volume import Volume, VolumeWarning, ijk_to_ras_from_lps

if TYPE_CHECKING:
    import SimpleITK

#: What `write_volume` writes.
WRITABLE_SUFFIXES = (".nrrd", ".nii.gz", ".nii", ".mha")


def read_volume(
    path: str | os.PathLike[str],
    frame: int | None = None,
    series: str | None = None,
    as_channels: bool = False,
) -> Volume:
    """Read an image file of any kind SimpleITK knows, one DICOM file, or a folder of DICOM slices.

    The array is (k, j, i) of the file's own value type. A 4-D file, or one with several values per voxel
    (RGB, vectors), is read as (channel, k, j, i) with `as_channels`, or one of its frames or values as
    (k, j, i) with `frame` (from 0). `series` picks one of several series in a DICOM folder: its UID or number.

    A 2-D image becomes one slice, 1 mm thick, and a VolumeWarning says so. Raises InputError, with a sentence,
    for whatever cannot be read or placed: a missing, empty, cut-off or non-image file, complex voxels, a spacing
    that is not positive, a sheared NIfTI, DICOM slices with gaps, uneven spacing or gantry tilt.
    """
    source = Path(path)
    if not os.path.exists(source):  # unlike Path.exists, it knows no names that are too long
        raise InputError(f"There is no file or folder {source}: check the path.")
    if source.is_file() and series is not None:
        raise InputError(f"{source} is one file: a series can be chosen in a DICOM folder only.")
    with native_stderr_held():
        if source.is_dir():
            volume, remark = _read_folder(source, frame, series, as_channels)
        else:
            volume, remark = _read_file(source, frame, as_channels)
    if remark:
        warnings.warn(remark, VolumeWarning, stacklevel=2)
    return volume


def image_ijk_to_ras(image: SimpleITK.Image | SimpleITK.ImageFileReader) -> NDArray[np.float64]:
    """The 4x4 IJK to RAS matrix of an ITK image or header; a 2-D one lies at 0 with slices of 1 mm."""
    count = image.GetDimension()
    directions, spacing, origin = np.eye(3), np.ones(3), np.zeros(3)
    used = min(count, 3)
    directions[:used, :used] = np.array(image.GetDirection()).reshape(count, count)[:used, :used]
    spacing[:used] = image.GetSpacing()[:used]
    origin[:used] = image.GetOrigin()[:used]
    return ijk_to_ras_from_lps(directions, spacing, origin)


def _read_folder(folder: Path, frame: int | None, series: str | None, as_channels: bool) -> tuple[Volume, str | None]:
    try:
        files = dicom_files(folder, series)
    except PermissionError as error:
        raise InputError(f"The folder {folder} may not be read: its permissions do not allow it.") from error
    if len(files) == 1:
        return _read_file(Path(files[0]), frame, as_channels)
    name = str(folder) if series is None else f"{folder} (series {series})"
    image = read_dicom_slices(name, files)
    return Volume(_chosen_values(_values(image), folder, frame, as_channels), image_ijk_to_ras(image)), None


def _read_file(source: Path, frame: int | None, as_channels: bool) -> tuple[Volume, str | None]:
    """The volume and, where it is to be taken with care, a sentence why."""
    import SimpleITK

    if source.stat().st_size == 0:
        raise InputError(f"{source} is empty.")
    if not os.access(source, os.R_OK):
        raise InputError(f"{source} may not be read: its permissions do not allow it.")
    reader = SimpleITK.ImageFileReader()
    image_io = SimpleITK.ImageFileReader.GetImageIOFromFileName(str(source))
    if not image_io:
        raise InputError(f"{source} is not an image, or is damaged: NRRD, NIfTI, MetaImage, DICOM and others are read.")
    reader.SetImageIO(image_io)
    reader.SetFileName(str(source))
    check_header(source, image_io)
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise _unreadable(source, error) from error
    _refuse_unknown_values(source, reader)
    size, components = reader.GetSize(), reader.GetNumberOfComponents()
    bits = _bits_of(reader.GetPixelID())
    check_file(source, image_io, math.prod(size) * components * bits // 8)
    remark = f"{source} is a 2-D image: it is taken as one slice, 1 mm thick." if len(size) == 2 else None
    geometry = image_ijk_to_ras(reader)
    if image_io == DICOM_IO:
        dicom = checked_geometry(source, reader)
        remark = dicom.remark
        geometry[:3, 2] *= dicom.slice_spacing / (reader.GetSpacing()[2] if len(size) > 2 else 1.0)
    else:
        check_spacing(reader.GetSpacing()[:3], source)
    extra = [(axis, count) for axis, count in enumerate(size) if axis >= 3 and count > 1]
    if len(extra) > 1:
        raise InputError(
            f"{source} has {len(size)} dimensions ({' x '.join(map(str, size))}): only up to four are read."
        )
    every_frame = as_channels and frame is None and components == 1
    if len(size) > 3 and not every_frame:
        chosen = _chosen_frame(source, frame, extra[0][1] if extra else 1, components == 1)
        index = [0] * len(size)
        if extra:
            index[extra[0][0]] = chosen
        reader.SetExtractSize([*size[:3], *(0 for _ in size[3:])])
        reader.SetExtractIndex(index)
        frame = None
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise _unreadable(source, error) from error
    array = _values(image)
    if len(size) > 3 and every_frame:
        array = array.reshape(-1, *array.shape[-3:])
    elif len(size) == 2:
        array = array[..., np.newaxis, :, :]
    array = _chosen_values(array, source, frame, as_channels)
    return Volume(array, geometry), remark


def _refuse_unknown_values(source: Path, reader: SimpleITK.ImageFileReader) -> None:
    import SimpleITK

    kind = reader.GetPixelID()
    if kind in (SimpleITK.sitkComplexFloat32, SimpleITK.sitkComplexFloat64):
        raise InputError(
            f"{source} holds complex numbers: save their magnitude (or phase) as an image of its own first."
        )
    if kind < 0:
        raise InputError(
            f"{source} holds voxels of a type that cannot be read: convert them to integers or floats first."
        )


def _bits_of(pixel_id: int) -> int:
    import SimpleITK

    name = SimpleITK.GetPixelIDValueAsString(pixel_id)
    digits = next((word.split("-")[0] for word in name.split() if "-bit" in word), "8")
    return int(digits)


def _chosen_frame(source: Path, frame: int | None, count: int, may_be_channels: bool) -> int:
    if frame is None:
        if count == 1:
            return 0
        raise InputError(
            f"{source} is 4-D, with {count} frames: choose one with frame=0 to frame={count - 1}"
            f"{', or read them all with as_channels=True' if may_be_channels else ''}."
        )
    if not 0 <= frame < count:
        raise InputError(f"{source} has no frame {frame}: it has {count}, numbered from 0.")
    return frame


def _values(image: SimpleITK.Image) -> NDArray[Any]:
    """Voxels as (..., k, j, i), the values of one voxel first of all axes."""
    import SimpleITK

    array: NDArray[Any] = SimpleITK.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        array = np.moveaxis(array, -1, 0)
    return np.ascontiguousarray(array)


def _chosen_values(array: NDArray[Any], source: Path, frame: int | None, as_channels: bool) -> NDArray[Any]:
    """(k, j, i), or (channel, k, j, i) when that is asked for, from what a file without frames left holds."""
    if array.ndim == 3:
        if frame not in (None, 0):
            raise InputError(f"{source} has no frame {frame}: it is one 3-D image; leave frame out.")
        return array
    if frame is not None:
        if not 0 <= frame < len(array):
            raise InputError(f"{source} has {len(array)} values per voxel, numbered from 0, but no number {frame}.")
        return np.ascontiguousarray(array[frame])
    if as_channels:
        return array
    raise InputError(
        f"{source} holds {len(array)} values per voxel (RGB or vectors), and a segmentation needs one: choose one "
        f"with frame=0 to frame={len(array) - 1}, or read them all with as_channels=True."
    )


def _unreadable(source: Path, error: RuntimeError) -> InputError:
    text = str(error)
    if "orthonormal" in text:
        return InputError(
            f"{source} has sheared axes (its sform is not made of perpendicular axes), which cannot be placed: "
            "resample it to perpendicular axes first."
        )
    if "spacing" in text or "Bad direction" in text:
        return InputError(
            f"{source} has a geometry that cannot be used (a spacing of zero, or parallel axes): correct its header."
        )
    if "allocate" in text or "bad_alloc" in text:
        return InputError(f"{source} does not fit into memory, or its header is damaged.")
    return InputError(f"{source} cannot be read: it is cut off, damaged, or not what its name says.")


def write_volume(volume: Volume, path: str | os.PathLike[str]) -> None:
    """Write a volume as .nrrd, .nii.gz, .nii or .mha, several channels as values of one voxel.

    The file appears whole or not at all: it is written beside its place and moved there, so that a file of that
    name is kept when something fails. Booleans are written as uint8. NIfTI rounds geometry to float32.

    Raises InputError for another suffix, sheared axes (no format has them), a folder that is missing or
    not writable, or a full disk.
    """
    wanted = Path(path)
    suffix = next((known for known in WRITABLE_SUFFIXES if wanted.name.lower().endswith(known)), None)
    if suffix is None:
        raise InputError(
            f"{wanted} cannot be written: end its name in {', '.join(WRITABLE_SUFFIXES)} to say which kind of file."
        )
    if volume.grid.is_sheared:
        raise InputError(
            f"{wanted} cannot be written: the volume's axes are sheared, which files cannot hold; resample it first."
        )
    target = Path(os.path.realpath(wanted))  # a link stays a link, to a new file
    if os.path.isdir(target):
        raise InputError(f"{wanted} is a folder: give the name of a file.")
    partial = target.with_name(f".{uuid.uuid4().hex}.partial{suffix}")
    try:
        partial.open("xb").close()
    except FileNotFoundError as error:
        raise InputError(f"{wanted} cannot be written: the folder {target.parent} does not exist.") from error
    except OSError as error:
        raise InputError(f"{wanted} cannot be written: {error.strerror} (folder {target.parent}).") from error
    try:
        with native_stderr_held():
            _write_file(volume, partial, suffix)
        os.replace(partial, target)
    except (RuntimeError, OSError, InputError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            raise InputError(f"{wanted} cannot be written: its name is too long.") from error
        free = shutil.disk_usage(target.parent).free // 2**20
        raise InputError(
            f"{wanted} could not be written whole ({free} MiB free in its folder): free some space or choose another "
            "folder; what was there before is unchanged."
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _write_file(volume: Volume, partial: Path, suffix: str) -> None:
    """Raises RuntimeError, OSError or InputError when the file did not get whole onto the disk."""
    import SimpleITK

    array = volume.array
    narrow = {
        np.dtype(np.bool_): np.uint8,
        np.dtype(np.float16): np.float32,
        np.dtype(np.longdouble): np.float64,
    }
    array = array.astype(narrow.get(array.dtype, array.dtype), copy=False)
    several = array.ndim == 4
    if several:
        array = np.moveaxis(array, 0, -1)
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(array), isVector=several)
    directions, spacing, origin = volume.grid.lps_geometry
    image.SetDirection(directions.ravel().tolist())
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(origin.tolist())
    SimpleITK.WriteImage(image, str(partial), useCompression=suffix != ".nii")
    if suffix in (".nii", ".nii.gz"):
        check_file(partial, "NiftiImageIO", array.nbytes)
    with partial.open("rb+") as file:
        os.fsync(file.fileno())  # some file systems report a full disk only now
