"""Reading and writing image files: values and places survive, and nothing half-written is left behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from volumes_support import oblique_matrix

from LKSegmentLib.errors import InputError
from LKSegmentLib.volumes import Volume, VolumeWarning, read_volume, write_volume

SUFFIXES = (".nrrd", ".nii.gz", ".nii", ".mha")
TYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")


def random_volume(seed: int, kind: str = "i2", shape: tuple[int, ...] = (4, 5, 6)) -> Volume:
    values = np.random.default_rng(seed).integers(0, 100, shape)
    return Volume(values.astype(kind), oblique_matrix(seed))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", TYPES)
def test_every_value_type_comes_back_in_place(tmp_path: Path, suffix: str, kind: str) -> None:
    volume = random_volume(3, kind)
    write_volume(volume, tmp_path / f"image{suffix}")
    back = read_volume(tmp_path / f"image{suffix}")
    assert back.array.dtype == volume.array.dtype
    assert (back.array == volume.array).all()
    assert back.grid.matches(volume.grid, 1e-3)
    assert back.array.flags.c_contiguous


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("seed", range(4))
def test_left_handed_oblique_and_anisotropic_geometry_is_kept(tmp_path: Path, suffix: str, seed: int) -> None:
    volume = random_volume(seed)
    write_volume(volume, tmp_path / f"image{suffix}")
    tolerance = 1e-3 if ".nii" in suffix else 1e-9
    assert read_volume(tmp_path / f"image{suffix}").grid.matches(volume.grid, tolerance)


def test_the_extremes_of_wide_integers_survive(tmp_path: Path) -> None:
    for kind in ("u8", "i8"):
        limits = np.iinfo(kind)
        volume = Volume(np.array([[[limits.min, limits.max]]], kind), np.eye(4))
        write_volume(volume, tmp_path / "wide.nrrd")
        assert (read_volume(tmp_path / "wide.nrrd").array == volume.array).all()


def test_ras_is_lps_with_two_signs_turned(tmp_path: Path) -> None:
    volume = random_volume(5)
    write_volume(volume, tmp_path / "image.nrrd")
    image = SimpleITK.ReadImage(str(tmp_path / "image.nrrd"))
    left, posterior, superior = image.TransformIndexToPhysicalPoint((1, 2, 3))
    assert np.allclose(volume.grid.ras_of((1, 2, 3)), (-left, -posterior, superior), atol=1e-6)
    assert image[1, 2, 3] == volume.array[3, 2, 1]


def test_a_nrrd_written_in_ras_lies_in_the_same_place(tmp_path: Path) -> None:
    volume = random_volume(6)
    write_volume(volume, tmp_path / "lps.nrrd")
    header, voxels = (tmp_path / "lps.nrrd").read_bytes().split(b"\n\n", 1)
    matrix = volume.ijk_to_ras
    lines = []
    for line in header.decode().splitlines():
        if line.startswith("space:"):
            line = "space: right-anterior-superior"
        elif line.startswith("space directions:"):
            line = "space directions: " + " ".join(f"({r!r},{a!r},{s!r})" for r, a, s in matrix[:3, :3].T.tolist())
        elif line.startswith("space origin:"):
            line = "space origin: ({!r},{!r},{!r})".format(*matrix[:3, 3].tolist())
        lines.append(line)
    (tmp_path / "ras.nrrd").write_bytes("\n".join(lines).encode() + b"\n\n" + voxels)
    assert read_volume(tmp_path / "ras.nrrd").grid.matches(volume.grid, 1e-9)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_channels_are_written_and_read_when_asked_for(tmp_path: Path, suffix: str) -> None:
    volume = random_volume(2, "f4", (3, 4, 5, 6))
    path = tmp_path / f"vectors{suffix}"
    write_volume(volume, path)
    with pytest.raises(InputError, match=r"3 values per voxel.*frame=0 to frame=2.*as_channels"):
        read_volume(path)
    back = read_volume(path, as_channels=True)
    assert (back.array == volume.array).all()
    assert back.grid.matches(volume.grid, 1e-3)
    assert (read_volume(path, frame=1).array == volume.array[1]).all()
    with pytest.raises(InputError, match="3 values per voxel"):
        read_volume(path, frame=3)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_one_frame_of_a_4d_image_is_chosen(tmp_path: Path, suffix: str) -> None:
    frames = np.arange(3 * 4 * 5 * 6, dtype=np.int16).reshape(3, 4, 5, 6)
    image = SimpleITK.GetImageFromArray(frames, isVector=False)
    image.SetSpacing((1.0, 2.0, 3.0, 0.5))
    image.SetOrigin((7.0, 8.0, 9.0, 0.0))
    path = tmp_path / f"frames{suffix}"
    SimpleITK.WriteImage(image, str(path))
    with pytest.raises(InputError, match=r"4-D, with 3 frames: choose one with frame=0 to frame=2"):
        read_volume(path)
    for wrong in (3, -1):
        with pytest.raises(InputError, match="it has 3, numbered from 0"):
            read_volume(path, frame=wrong)
    chosen = read_volume(path, frame=2)
    assert (chosen.array == frames[2]).all()
    assert np.allclose(chosen.ijk_to_ras, [[-1, 0, 0, -7], [0, -2, 0, -8], [0, 0, 3, 9], [0, 0, 0, 1]], atol=1e-6)
    assert (read_volume(path, as_channels=True).array == frames).all()


def test_a_4d_image_with_a_single_frame_needs_no_choice(tmp_path: Path) -> None:
    image = SimpleITK.GetImageFromArray(np.ones((1, 4, 5, 6), np.int16), isVector=False)
    SimpleITK.WriteImage(image, str(tmp_path / "one.nrrd"))
    assert read_volume(tmp_path / "one.nrrd").array.shape == (4, 5, 6)
    assert read_volume(tmp_path / "one.nrrd", frame=0).array.shape == (4, 5, 6)


def test_a_frame_of_a_3d_image_is_refused(tmp_path: Path) -> None:
    write_volume(random_volume(0), tmp_path / "image.nrrd")
    assert read_volume(tmp_path / "image.nrrd", frame=0).array.shape == (4, 5, 6)
    with pytest.raises(InputError, match="one 3-D image"):
        read_volume(tmp_path / "image.nrrd", frame=1)


def test_a_2d_image_becomes_one_slice_and_says_so(tmp_path: Path) -> None:
    values = np.arange(20, dtype=np.uint8).reshape(4, 5)
    for name in ("flat.nrrd", "flat.png", "flat.nii.gz"):
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(values), str(tmp_path / name))
        with pytest.warns(VolumeWarning, match="2-D image: it is taken as one slice, 1 mm thick"):
            volume = read_volume(tmp_path / name)
        assert volume.array.shape == (1, 4, 5)
        assert (volume.array[0] == values).all()
        assert volume.spacing[2] == 1.0


def test_a_colour_picture_is_refused_unless_its_channels_are_wanted(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 255, (4, 5, 3)).astype(np.uint8)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(colours, isVector=True), str(tmp_path / "photo.png"))
    with pytest.raises(InputError, match="3 values per voxel"):
        read_volume(tmp_path / "photo.png")
    with pytest.warns(VolumeWarning):
        volume = read_volume(tmp_path / "photo.png", as_channels=True)
    assert (volume.array == np.moveaxis(colours, -1, 0)[:, np.newaxis]).all()


def test_a_single_3d_slice_keeps_its_thickness(tmp_path: Path) -> None:
    volume = random_volume(4, shape=(1, 5, 6))
    write_volume(volume, tmp_path / "slice.nii.gz")
    assert read_volume(tmp_path / "slice.nii.gz").grid.matches(volume.grid, 1e-3)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_masks_and_half_precision_are_written_as_the_next_best(tmp_path: Path, suffix: str) -> None:
    for given, written in (("?", "u1"), ("f2", "f4")):
        write_volume(random_volume(1, given), tmp_path / f"image{suffix}")
        back = read_volume(tmp_path / f"image{suffix}")
        assert back.array.dtype == np.dtype(written)
        assert (back.array == random_volume(1, given).array).all()


def test_writing_replaces_a_file_whole_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "Image.NII.GZ"
    write_volume(random_volume(1), path)
    write_volume(random_volume(2), path)
    assert (read_volume(path).array == random_volume(2).array).all()
    assert [item.name for item in tmp_path.iterdir()] == ["Image.NII.GZ"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "link.nrrd"
    link.symlink_to(tmp_path / "there" / "real.nrrd")
    write_volume(random_volume(1), link)
    assert link.is_symlink()
    assert (tmp_path / "there" / "real.nrrd").stat().st_size > 0


def test_what_cannot_be_written_is_said_in_a_sentence(tmp_path: Path) -> None:
    volume = random_volume(1)
    (tmp_path / "folder.nrrd").mkdir()
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match=r"end its name in \.nrrd, \.nii\.gz"):
        write_volume(volume, tmp_path / "image.jpg")
    with pytest.raises(InputError, match="is a folder"):
        write_volume(volume, tmp_path / "folder.nrrd")
    with pytest.raises(InputError, match="does not exist"):
        write_volume(volume, tmp_path / "missing" / "image.nrrd")
    with pytest.raises(InputError, match="cannot be written: Not a directory"):
        write_volume(volume, tmp_path / "file" / "image.nrrd")
    with pytest.raises(InputError, match="axes are sheared"):
        write_volume(Volume(volume.array, oblique_matrix(1, shear=0.2)), tmp_path / "image.nrrd")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["file", "folder.nrrd"]


FULL_DISK = """
import resource, signal, sys
import numpy as np
from LKSegmentLib.errors import InputError
from LKSegmentLib.volumes import Volume, write_volume
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
noise = np.random.default_rng(0).integers(0, 2**16, (40, 40, 40)).astype(np.uint16)
try:
    write_volume(Volume(noise, np.eye(4)), sys.argv[1])
except InputError as error:
    print(error)
"""


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_disk_that_fills_up_keeps_what_was_there(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("resource")
    path = tmp_path / f"image{suffix}"
    write_volume(random_volume(1), path)
    answer = subprocess.run([sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, check=True)
    assert "could not be written whole" in answer.stdout
    assert answer.stdout.count("\n") == 1
    assert answer.stderr == ""
    assert (read_volume(path).array == random_volume(1).array).all()
    assert [item.name for item in tmp_path.iterdir()] == [path.name]
