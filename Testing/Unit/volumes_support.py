"""Geometries and DICOM files that the tests of `volumes` share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pydicom.dataset
import pydicom.uid


def oblique_matrix(seed: int, shear: float = 0.0) -> np.ndarray:
    """A random 4x4 IJK to RAS matrix: rotated, anisotropic, left-handed for odd seeds, sheared when asked."""
    generator = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(generator.normal(size=(3, 3)))
    rotation[:, 0] *= np.sign(np.linalg.det(rotation)) * (-1) ** seed
    matrix = np.eye(4)
    stretch = np.diag(generator.uniform(0.4, 5.0, size=3))
    matrix[:3, :3] = rotation @ (np.eye(3) + shear * np.triu(generator.uniform(0.2, 1.0, (3, 3)), 1)) @ stretch
    matrix[:3, 3] = generator.uniform(-300, 300, size=3)
    return matrix


def write_dicom_slice(
    path: Path,
    position: Sequence[float] | None,
    *,
    series: str = "1.2.826.0.1.3680043.8.498.1",
    values: np.ndarray | None = None,
    orientation: Sequence[float] = (1, 0, 0, 0, 1, 0),
    **tags: Any,
) -> None:
    """Write one uncompressed CT slice, `position` in LPS mm; `tags` are DICOM keywords that replace the usual ones."""
    pixels = np.arange(5 * 6, dtype=np.int16).reshape(5, 6) if values is None else values
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data = pydicom.Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.StudyInstanceUID, data.SeriesInstanceUID = "1.2.826.0.1.3680043.8.498.9", series
    data.PatientID, data.Modality, data.SeriesNumber, data.SeriesDescription = "none", "CT", 7, "Abdomen"
    data.Rows, data.Columns = pixels.shape[:2]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 8 * pixels.dtype.itemsize
    data.HighBit, data.PixelRepresentation = data.BitsStored - 1, int(pixels.dtype.kind == "i")
    data.PixelSpacing, data.SliceThickness = [2.0, 1.5], 3.0
    data.ImageOrientationPatient = list(orientation)
    if position is not None:
        data.ImagePositionPatient = [float(value) for value in position]
    data.RescaleIntercept, data.RescaleSlope = 0, 1
    for keyword, value in tags.items():
        setattr(data, keyword, value)
    data.PixelData = pixels.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)


def write_dicom_stack(folder: Path, heights: Sequence[float], **options: Any) -> None:
    """Write axial slices at those heights; slice n holds the values 100 n to 100 n + 29."""
    for index, height in enumerate(heights):
        values = (100 * index + np.arange(30, dtype=np.int16)).reshape(5, 6)
        name = f"slice_{(index * 7) % 101:03d}.dcm"  # names in another order than places
        write_dicom_slice(folder / name, (-10.0, -20.0, height), values=values, InstanceNumber=index + 1, **options)


def write_enhanced_dicom(path: Path, positions: Sequence[Sequence[float]]) -> None:
    """Write an enhanced multi-frame CT with one axial frame at each position (LPS mm); frame n holds 100 n."""
    shared = _dataset(
        PixelMeasuresSequence=[_dataset(PixelSpacing=[2.0, 1.5], SliceThickness=3.0)],
        PlaneOrientationSequence=[_dataset(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        PixelValueTransformationSequence=[_dataset(RescaleIntercept=0, RescaleSlope=1, RescaleType="HU")],
    )
    frames = [
        _dataset(PlanePositionSequence=[_dataset(ImagePositionPatient=[float(value) for value in position])])
        for position in positions
    ]
    values = np.concatenate([np.full((5, 6), 100 * index, np.int16) for index in range(len(positions))])
    write_dicom_slice(
        path,
        None,
        values=values,
        Rows=5,
        NumberOfFrames=len(positions),
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=frames,
    )
    data = pydicom.dcmread(path)
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = pydicom.uid.EnhancedCTImageStorage
    for keyword in ("PixelSpacing", "ImageOrientationPatient", "SliceThickness", "RescaleIntercept", "RescaleSlope"):
        delattr(data, keyword)
    data.save_as(path)


def _dataset(**tags: Any) -> pydicom.Dataset:
    data = pydicom.Dataset()
    for keyword, value in tags.items():
        setattr(data, keyword, value)
    return data
