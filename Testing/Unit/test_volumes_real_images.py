"""The real images: read, turned canonical and back, and in the place that other readers see."""

from __future__ import annotations

import warnings
from pathlib import Path

import nibabel
import numpy as np
import pytest

from LKSegmentLib.errors import InputError
from LKSegmentLib.volumes import Volume, VolumeWarning, canonical_axes, read_volume, resample, write_volume

DICOM = "02_ct_abdomen_dicom_jpeg2000"
CASES = {
    "01_ct_abdomen_multiorgan/ct.nii.gz": "RAS",
    "01_ct_abdomen_multiorgan/ct_30slices.nii.gz": "RAS",
    "01_ct_abdomen_multiorgan/labels_fast.nii.gz": "RAS",
    f"{DICOM}/dicom": "LPS",
    f"{DICOM}/labels.nii.gz": "LAS",
    "03_mr_abdomen_multiorgan/mr.nii.gz": "LPS",
    "05_cta_heart/ct.nii.gz": "LPS",
    "05_cta_heart/heart_other_grid.nii.gz": "LPS",
    "10_mr_brain_ms_multimodal/T1.nii.gz": "LAS",
    "14_mr_brain_lesion_aniso/t1gd.nrrd": "LAS",
    "14_mr_brain_lesion_aniso/lesion.nrrd": "LAS",
    "15_mr_brain_t1_parcellation/t1.nii.gz": "LIA",
    "17_mr_hippocampus/t1_crop.nii.gz": "RAS",
    "18_mr_spinal_cord/dmri_4d.nii.gz": "LAS",
    "18_mr_spinal_cord/t2.nii.gz": "PSR",
    "18_mr_spinal_cord/t2s.nii.gz": "LAS",
    "18_mr_spinal_cord/venc_1slice_4d.nii.gz": "LAS",
}


def read_case(path: Path) -> Volume:
    return read_volume(path, frame=0 if "4d" in path.name else None)


@pytest.mark.parametrize("name", CASES)
def test_a_real_image_becomes_canonical_and_comes_back_bit_for_bit(real_data: Path, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", VolumeWarning)
        volume = read_case(real_data / name)
    directions = volume.grid.directions
    axes = [(np.argmax(np.abs(column)), np.sign(column[np.argmax(np.abs(column))])) for column in directions.T]
    assert "".join(("LR", "PA", "IS")[axis][int(sign > 0)] for axis, sign in axes) == CASES[name]
    axis_order = canonical_axes(volume.grid)
    canonical = axis_order.apply(volume)
    assert (np.argmax(np.abs(canonical.grid.directions), axis=0) == (0, 1, 2)).all()
    assert (np.diag(canonical.grid.directions) > 0.0).all()
    back = axis_order.undo(canonical)
    assert back.array.tobytes() == volume.array.tobytes()
    assert back.ijk_to_ras.tobytes() == volume.ijk_to_ras.tobytes()


@pytest.mark.parametrize("name", [name for name in CASES if name.endswith(".nii.gz")])
def test_nifti_images_lie_where_nibabel_sees_them(real_data: Path, name: str) -> None:
    volume = read_case(real_data / name)
    image = nibabel.load(real_data / name)
    assert np.allclose(volume.ijk_to_ras, image.affine, atol=1e-5)
    values = np.asarray(image.dataobj)
    assert (volume.array == (values[..., 0] if values.ndim == 4 else values).T).all()


def test_the_dicom_folder_and_its_labels_lie_over_each_other(real_data: Path) -> None:
    image = read_volume(real_data / DICOM / "dicom")
    labels = read_volume(real_data / DICOM / "labels.nii.gz")
    assert not image.grid.matches(labels.grid)
    assert canonical_axes(image.grid).canonical.matches(canonical_axes(labels.grid).canonical)
    on_image = resample(labels, image.grid, "nearest")
    assert (on_image.array == labels.array[:, ::-1, :]).all()
    organ = image.array[(on_image.array > 0)]
    assert 0 < np.median(organ) < 300  # organs are neither air nor bone; unflipped labels hit both
    assert organ.std() < 0.5 * image.array[labels.array > 0].std()


def test_every_frame_of_the_4d_image_is_reached(real_data: Path) -> None:
    path = real_data / "18_mr_spinal_cord/dmri_4d.nii.gz"
    with pytest.raises(InputError, match="with 7 frames"):
        read_volume(path)
    every = read_volume(path, as_channels=True)
    assert every.array.shape == (7, 5, 42, 40)
    for frame in range(7):
        one = read_volume(path, frame=frame)
        assert (one.array == every.array[frame]).all()
        assert one.grid == every.grid


def test_the_labels_of_a_larger_grid_land_on_the_image(real_data: Path) -> None:
    image = read_volume(real_data / "05_cta_heart/ct.nii.gz")
    heart = read_volume(real_data / "05_cta_heart/heart_other_grid.nii.gz")
    assert not heart.grid.matches(image.grid)
    on_image = resample(heart, image.grid, "nearest")
    inside = np.argwhere(on_image.array > 0)[::997, ::-1]
    there = np.rint(heart.grid.ijk_of(image.grid.ras_of(inside))).astype(int)
    assert len(inside) > 10
    assert (heart.array[tuple(there[:, ::-1].T)] > 0).all()


def test_a_truncated_real_scan_is_refused(real_data: Path, tmp_path: Path) -> None:
    scan = (real_data / "17_mr_hippocampus/t1_crop.nii.gz").read_bytes()
    (tmp_path / "scan.nii.gz").write_bytes(scan[: len(scan) * 9 // 10])
    with pytest.raises(InputError, match="cut off"):
        read_volume(tmp_path / "scan.nii.gz")


@pytest.mark.parametrize("suffix", [".nrrd", ".nii.gz", ".mha"])
@pytest.mark.parametrize("name", ["14_mr_brain_lesion_aniso/t1gd.nrrd", "18_mr_spinal_cord/t2s.nii.gz"])
def test_a_real_image_survives_being_written(real_data: Path, tmp_path: Path, name: str, suffix: str) -> None:
    volume = read_volume(real_data / name)
    write_volume(volume, tmp_path / f"copy{suffix}")
    copy = read_volume(tmp_path / f"copy{suffix}")
    assert (copy.array == volume.array).all()
    assert copy.grid.matches(volume.grid, 1e-3)
