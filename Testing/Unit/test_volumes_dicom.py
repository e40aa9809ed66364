"""DICOM folders and files: in place, or refused with the reason; never misplaced."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from volumes_support import write_dicom_slice, write_dicom_stack, write_enhanced_dicom

from LKSegmentLib.errors import InputError
from LKSegmentLib.volumes import VolumeWarning, read_volume


def first_values(path: Path, **options: Any) -> list[int]:
    """The first voxel of every slice, along k."""
    return read_volume(path, **options).array[:, 0, 0].tolist()


def test_slices_are_ordered_by_place_whatever_their_names_and_numbers(tmp_path: Path) -> None:
    write_dicom_stack(tmp_path / "up", [0, 3, 6, 9])
    write_dicom_stack(tmp_path / "down", [9, 6, 3, 0])
    volume = read_volume(tmp_path / "up")
    assert np.allclose(volume.ijk_to_ras, [[-1.5, 0, 0, 10], [0, -2, 0, 20], [0, 0, 3, 0], [0, 0, 0, 1]])
    assert volume.array[:, 0, 0].tolist() == [0, 100, 200, 300]
    assert volume.array[0].ravel().tolist() == list(range(30))
    assert first_values(tmp_path / "down") == [300, 200, 100, 0]
    assert read_volume(tmp_path / "down").grid == volume.grid


@pytest.mark.parametrize(
    "orientation", [(1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1), (1, 0, 0, 0, 0, -1), (0.6, 0.8, 0, -0.48, 0.36, -0.8)]
)
def test_every_voxel_lies_where_its_own_slice_says(tmp_path: Path, orientation: tuple[float, ...]) -> None:
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    positions = [np.array((-30.0, 40.0, 50.0)) + 2.5 * n * np.cross(row, column) for n in range(4)]
    for index, position in enumerate(positions):
        values = np.full((5, 6), index, np.int16)
        write_dicom_slice(tmp_path / f"{9 - index}.dcm", position, values=values, orientation=orientation)
    volume = read_volume(tmp_path)
    for index, position in enumerate(positions):
        # DICOM PS3.3 C.7.6.2.1.1: position + row direction * column spacing * i + column direction * row spacing * j
        left, posterior, superior = position + row * 1.5 * 4 + column * 2.0 * 3
        i, j, k = volume.grid.ijk_of((-left, -posterior, superior))
        assert np.allclose((i, j, k), (4, 3, index), atol=1e-5)
        assert (volume.array[round(k)] == index).all()


def test_positions_written_with_one_decimal_are_even_enough(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_dicom_stack(tmp_path, [0, 1.2, 2.5, 3.8, 5.0])
    assert read_volume(tmp_path).spacing == (1.5, 2.0, 1.25)
    assert capfd.readouterr().err == ""


IRREGULAR = {
    "lacks 1 DICOM slice .*after 6 mm": [0, 3, 6, 12, 15],
    "lacks 3 DICOM slices": [0, 3, 9, 12, 21],
    "uneven distances .2 to 3 mm": [0, 3, 6, 8, 10],
    "4 DICOM slices at 2 places": [0, 3, 0, 3],
}


@pytest.mark.parametrize("reason", IRREGULAR)
def test_slices_that_are_no_regular_stack_are_refused(tmp_path: Path, reason: str) -> None:
    write_dicom_stack(tmp_path, IRREGULAR[reason])
    with pytest.raises(InputError, match=reason):
        read_volume(tmp_path)


def test_gantry_tilt_is_refused_with_its_angle(tmp_path: Path) -> None:
    for index in range(5):
        shift = 3 * index * np.tan(np.radians(12))
        write_dicom_slice(tmp_path / f"{index}.dcm", (-10, -20 + shift, 3 * index))
    with pytest.raises(InputError, match=r"gantry tilt of 12\.0 degrees"):
        read_volume(tmp_path)


def test_slices_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    write_dicom_stack(tmp_path / "localizer", [0, 3, 6])
    write_dicom_slice(tmp_path / "localizer" / "z.dcm", (0, 0, 9), orientation=(0, 1, 0, 0, 0, -1))
    write_dicom_stack(tmp_path / "sizes", [0, 3, 6])
    write_dicom_slice(tmp_path / "sizes" / "z.dcm", (-10, -20, 9), values=np.zeros((7, 8), np.int16))
    write_dicom_stack(tmp_path / "pixels", [0, 3, 6])
    write_dicom_slice(tmp_path / "pixels" / "z.dcm", (-10, -20, 9), PixelSpacing=[1.0, 1.0])
    write_dicom_slice(tmp_path / "nowhere" / "a.dcm", None)
    write_dicom_slice(tmp_path / "nowhere" / "b.dcm", None)
    for name, reason in (
        ("localizer", "different directions"),
        ("sizes", "different sizes or pixel spacing"),
        ("pixels", "different sizes or pixel spacing"),
        ("nowhere", "do not say where they lie"),
    ):
        with pytest.raises(InputError, match=reason):
            read_volume(tmp_path / name)


def test_one_of_several_series_is_chosen_by_number_or_uid(tmp_path: Path) -> None:
    write_dicom_stack(tmp_path, [0, 3, 6])
    for index in range(4):
        values = np.full((5, 6), index, np.int16)
        write_dicom_slice(
            tmp_path / f"other{index}.dcm", (0, 0, 5 * index), series="1.2.3", SeriesNumber=8, values=values
        )
    with pytest.raises(InputError) as caught:
        read_volume(tmp_path)
    sentence = str(caught.value)
    assert re.search(r"holds 2 DICOM series: choose one with series=", sentence)
    assert 'series 7 (CT, "Abdomen", 3 files)' in sentence
    assert 'series 8 (CT, "Abdomen", 4 files): 1.2.3' in sentence
    assert first_values(tmp_path, series="8") == first_values(tmp_path, series="1.2.3") == [0, 1, 2, 3]
    assert first_values(tmp_path, series="7") == [0, 100, 200]
    with pytest.raises(InputError, match="holds no series 9"):
        read_volume(tmp_path, series="9")
    with pytest.raises(InputError, match="is one file"):
        read_volume(tmp_path / "other0.dcm", series="8")


@pytest.mark.parametrize("left", [0, 100, 300, -20])
def test_a_damaged_slice_is_named_instead_of_left_out(tmp_path: Path, left: int) -> None:
    write_dicom_stack(tmp_path, [0, 3, 6])
    middle = tmp_path / "slice_007.dcm"
    middle.write_bytes(middle.read_bytes()[:left])
    with pytest.raises(InputError, match=r"slice_007\.dcm cannot be read"):
        read_volume(tmp_path)


def test_other_files_in_the_folder_do_no_harm(tmp_path: Path) -> None:
    write_dicom_stack(tmp_path, [0, 3, 6])
    (tmp_path / "notes.txt").write_text("A report.")
    (tmp_path / "._slice_000.dcm").write_bytes(b"\x00\x05\x16\x07")
    report = pydicom.dcmread(tmp_path / "slice_000.dcm")
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = pydicom.uid.BasicTextSRStorage
    report.Modality, report.SeriesInstanceUID = "SR", "1.2.4"
    for keyword in ("PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"):
        delattr(report, keyword)
    report.save_as(tmp_path / "report.dcm")
    assert first_values(tmp_path) == [0, 100, 200]
    with pytest.raises(InputError, match="not an image"):
        read_volume(tmp_path / "report.dcm")


def test_one_dicom_file_is_a_slice_of_the_thickness_it_gives(tmp_path: Path) -> None:
    write_dicom_slice(tmp_path / "one.dcm", (-10, -20, 9))
    for path in (tmp_path / "one.dcm", tmp_path):
        with pytest.warns(VolumeWarning, match="single DICOM slice, taken as 3 mm thick"):
            volume = read_volume(path)
        assert np.allclose(volume.ijk_to_ras, [[-1.5, 0, 0, 10], [0, -2, 0, 20], [0, 0, 3, 9], [0, 0, 0, 1]])


@pytest.mark.parametrize("spacing", [[0.0, 0.0], [-1.0, 1.0]])
def test_pixel_spacing_that_is_not_positive_is_refused(tmp_path: Path, spacing: list[float]) -> None:
    write_dicom_stack(tmp_path, [0, 3, 6], PixelSpacing=spacing)
    for path in (tmp_path, tmp_path / "slice_000.dcm"):
        with pytest.raises(InputError, match="two positive numbers"):
            read_volume(path)


def test_slices_scaled_one_by_one_keep_their_fractions(tmp_path: Path) -> None:
    for index, slope in enumerate((1, 0.5, 0.25)):
        write_dicom_slice(tmp_path / f"{index}.dcm", (0, 0, 3 * index), RescaleSlope=slope)
    assert read_volume(tmp_path).array[:, 0, 3].tolist() == [3.0, 1.5, 0.75]


def test_colour_slices_are_refused_unless_their_channels_are_wanted(tmp_path: Path) -> None:
    colours = np.zeros((5, 6, 3), np.uint8)
    colours[..., 1] = 7
    tags = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    for index in range(3):
        write_dicom_slice(tmp_path / f"{index}.dcm", (0, 0, 3 * index), values=colours, **tags)
    with pytest.raises(InputError, match="3 values per voxel"):
        read_volume(tmp_path)
    volume = read_volume(tmp_path, as_channels=True)
    assert volume.array.shape == (3, 3, 5, 6)
    assert (volume.array == np.array((0, 7, 0)).reshape(3, 1, 1, 1)).all()


@pytest.mark.parametrize("step", [3, -3])
def test_a_regular_multi_frame_file_lies_where_its_frames_say(tmp_path: Path, step: int) -> None:
    write_enhanced_dicom(tmp_path / "enhanced.dcm", [(0, 0, step * index) for index in range(4)])
    volume = read_volume(tmp_path / "enhanced.dcm")
    assert np.allclose(volume.ijk_to_ras, np.diag((-1.5, -2.0, step, 1.0)))
    assert volume.array[:, 0, 0].tolist() == [0, 100, 200, 300]


MULTI_FRAME = {
    "uneven": [(0, 0, 0), (0, 0, 3), (0, 0, 6), (0, 0, 12)],
    "shuffled": [(0, 0, 0), (0, 0, 6), (0, 0, 3), (0, 0, 9)],
    "twice": [(0, 0, 0), (0, 0, 0), (0, 0, 3), (0, 0, 3)],
    "tilted": [(0, 0, 0), (0, 1, 3), (0, 2, 6), (0, 3, 9)],
}


@pytest.mark.parametrize("name", MULTI_FRAME)
def test_frames_that_gdcm_would_misplace_are_refused(tmp_path: Path, name: str) -> None:
    write_enhanced_dicom(tmp_path / "enhanced.dcm", MULTI_FRAME[name])
    with pytest.raises(InputError, match="not one regular stack"):
        read_volume(tmp_path / "enhanced.dcm")


def test_frames_without_places_are_read_with_a_remark(tmp_path: Path) -> None:
    values = np.arange(4 * 30, dtype=np.int16).reshape(20, 6)
    write_dicom_slice(tmp_path / "frames.dcm", (0, 0, 0), values=values, Rows=5, NumberOfFrames=4)
    with pytest.warns(VolumeWarning, match="does not say where each of its frames lies"):
        assert read_volume(tmp_path / "frames.dcm").array.shape == (4, 5, 6)
    shutil.copy(tmp_path / "frames.dcm", tmp_path / "again.dcm")
    with pytest.raises(InputError, match="several multi-frame"):
        read_volume(tmp_path)
