"""Files that cannot be used: one sentence each, and never a guess in place of missing voxels."""

from __future__ import annotations

import gzip
import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from LKSegmentLib.errors import InputError
from LKSegmentLib.volumes import Volume, read_volume, write_volume

NOISE = np.random.default_rng(0).integers(0, 2**15, (12, 13, 14)).astype(np.int16)


def refused(path: Path, capfd: pytest.CaptureFixture[str]) -> str:
    """The sentence a file is refused with, which names the file and is all there is to read."""
    with pytest.raises(InputError) as caught:
        read_volume(path)
    sentence = str(caught.value)
    assert str(path.parent) in sentence
    assert "\n" not in sentence
    assert "itk" not in sentence.lower()
    printed = capfd.readouterr()
    assert printed.out + printed.err == ""
    return sentence


def write_noise(path: Path, compressed: bool = False) -> Path:
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(NOISE), str(path), useCompression=compressed)
    return path


def test_a_missing_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "There is no file or folder" in refused(tmp_path / "none.nrrd", capfd)


@pytest.mark.parametrize("suffix", [".nrrd", ".nii.gz", ".nii", ".mha", ".mhd", ".dcm", ".txt", ".png", ""])
def test_a_file_that_is_no_image(tmp_path: Path, suffix: str, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / f"text{suffix}"
    path.write_text("<html>Sign in to download</html>\n" * 100)
    assert re.search("not an image|cannot be read", refused(path, capfd))
    path.write_bytes(b"")
    assert "is empty" in refused(path, capfd)


CUT_OFF = [
    (".nrrd", False),
    (".nrrd", True),
    (".nii", False),
    (".nii.gz", True),
    (".mha", False),
    (".mha", True),
    (".vtk", False),
    (".gipl", False),
]


@pytest.mark.parametrize("share", [0.0001, 0.3, 0.6, 0.99])
@pytest.mark.parametrize(("suffix", "compressed"), CUT_OFF)
def test_a_file_that_is_cut_off(
    tmp_path: Path, suffix: str, compressed: bool, share: float, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_noise(tmp_path / f"image{suffix}", compressed)
    whole = path.read_bytes()
    path.write_bytes(whole[: max(1, int(len(whole) * share))])
    assert re.search("cut off|damaged", refused(path, capfd))


@pytest.mark.parametrize("suffix", [".nrrd", ".nii.gz", ".mha"])
def test_a_compressed_file_with_a_damaged_middle(
    tmp_path: Path, suffix: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_noise(tmp_path / f"image{suffix}", compressed=True)
    whole = bytearray(path.read_bytes())
    middle = len(whole) // 2
    whole[middle : middle + 40] = bytes(value ^ 0x5A for value in whole[middle : middle + 40])
    path.write_bytes(whole)
    assert re.search("cut off|damaged", refused(path, capfd))


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(("name", "voxels"), [("a.mhd", "a.*raw"), ("a.nhdr", "a.raw*"), ("a.hdr", "a.img*")])
def test_voxels_beside_the_header_that_are_cut_off_or_missing(
    tmp_path: Path, name: str, voxels: str, compressed: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_noise(tmp_path / name, compressed)
    data = next(tmp_path.glob(voxels))
    data.write_bytes(data.read_bytes()[:3000])
    assert re.search("cut off|damaged", refused(path, capfd))
    data.unlink()
    assert re.search("missing|damaged", refused(path, capfd))


def test_a_picture_that_is_cut_off(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for suffix in (".png", ".jpg", ".bmp"):
        path = tmp_path / f"picture{suffix}"
        values = np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(values), str(path))
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        assert re.search("cut off|damaged", refused(path, capfd))


def test_a_whole_file_with_something_after_it_is_read(tmp_path: Path) -> None:
    path = write_noise(tmp_path / "image.nii.gz", compressed=True)
    whole = path.read_bytes()
    for tail in (b"\0" * 512, gzip.compress(b"more"), b"trailing words"):
        path.write_bytes(whole + tail)
        assert (read_volume(path).array == NOISE).all()


def test_a_gzip_of_several_members_is_read(tmp_path: Path) -> None:
    plain = write_noise(tmp_path / "image.nii").read_bytes()
    path = tmp_path / "blocks.nii.gz"
    path.write_bytes(b"".join(gzip.compress(plain[start : start + 1000]) for start in range(0, len(plain), 1000)))
    assert (read_volume(path).array == NOISE).all()
    path.write_bytes(
        b"".join(gzip.compress(plain[start : start + 1000]) for start in range(0, len(plain) - 1000, 1000))
    )
    with pytest.raises(InputError, match="cut off"):
        read_volume(path)


def test_scaled_and_foreign_endian_nifti_files_are_whole(tmp_path: Path) -> None:
    path = write_noise(tmp_path / "image.nii")
    scaled = bytearray(path.read_bytes())
    scaled[112:120] = struct.pack("<2f", 0.5, 10.0)
    path.write_bytes(scaled)
    assert np.allclose(read_volume(path).array, NOISE * 0.5 + 10.0)


def with_nifti_spacing(value: float) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        return content[:80] + struct.pack("<f", value) + content[84:]

    return change


def with_line(pattern: bytes, line: bytes) -> Callable[[bytes], bytes]:
    return lambda content: re.sub(pattern, line, content, count=1)


BAD_SPACING = {
    "NIfTI zero": (".nii", with_nifti_spacing(0.0)),
    "NIfTI negative": (".nii", with_nifti_spacing(-2.0)),
    "NIfTI not a number": (".nii", with_nifti_spacing(float("nan"))),
    "MetaImage zero": (".mha", with_line(rb"ElementSpacing = .*", b"ElementSpacing = 0 1 1")),
    "MetaImage negative": (".mha", with_line(rb"ElementSpacing = .*", b"ElementSpacing = 1 -1 1")),
    "MetaImage not a number": (".mha", with_line(rb"ElementSpacing = .*", b"ElementSpacing = nan 1 1")),
    "NRRD zero": (".nrrd", with_line(rb"space directions: .*", b"space directions: (0,0,0) (0,1,0) (0,0,1)")),
    "NRRD parallel": (".nrrd", with_line(rb"space directions: .*", b"space directions: (1,0,0) (2,0,0) (0,0,1)")),
    "NRRD not a number": (".nrrd", with_line(rb"space directions: .*", b"space directions: (nan,0,0) (0,1,0) (0,0,1)")),
    "NRRD negative": (
        ".nrrd",
        with_line(
            rb"space: .*\n(?s:.*)space origin: [^\n]*\n",
            b"sizes: 14 13 12\nspacings: -1 1 1\nendian: little\nencoding: raw\n",
        ),
    ),
}


@pytest.mark.parametrize("name", BAD_SPACING)
def test_a_spacing_that_is_not_positive(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    suffix, change = BAD_SPACING[name]
    path = write_noise(tmp_path / f"image{suffix}")
    path.write_bytes(change(path.read_bytes()))
    assert re.search("spacing|damaged", refused(path, capfd))


def test_a_nifti_with_sheared_axes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_noise(tmp_path / "image.nii")
    content = bytearray(path.read_bytes())
    content[252:256] = struct.pack("<2h", 0, 1)
    content[280:328] = struct.pack("<12f", 1, 0.4, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0)
    path.write_bytes(content)
    assert "sheared" in refused(path, capfd)


def test_complex_voxels(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for suffix in (".nii", ".nrrd"):
        path = tmp_path / f"k-space{suffix}"
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.ones((3, 4, 5), np.complex64)), str(path))
        assert "complex" in refused(path, capfd)


def test_voxels_that_are_no_numbers_are_read_as_they_are(tmp_path: Path) -> None:
    array = np.ones((2, 3, 4), np.float32)
    array[0, 0] = (np.nan, np.inf, 1e38, -1e38)
    for name in ("image.nrrd", "image.mha"):
        write_volume(Volume(array, np.eye(4)), tmp_path / name)
        assert np.array_equal(read_volume(tmp_path / name).array, array, equal_nan=True)


def test_a_folder_without_images(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "folder").mkdir()
    assert "holds no DICOM images" in refused(tmp_path / "folder", capfd)
    (tmp_path / "folder" / "inside").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("nothing to see")
    assert "perhaps you mean one of its folders: inside" in refused(tmp_path / "folder", capfd)


@pytest.mark.parametrize("dimensions", ["-3", "0", "11", "9" * 5000])
def test_a_meta_image_whose_number_of_dimensions_would_end_the_process(
    tmp_path: Path, dimensions: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "damaged.mhd"
    path.write_text(
        f"ObjectType = Image\nNDims = {dimensions}\nBinaryData = True\nDimSize = 6 5 4\n"
        "ElementType = MET_UCHAR\nElementDataFile = damaged.raw\n"
    )
    (tmp_path / "damaged.raw").write_bytes(bytes(120))
    assert "dimensions" in refused(path, capfd)


def test_a_compressed_meta_image_may_keep_its_voxels_in_another_folder(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "voxels").mkdir()
    header = write_noise(tmp_path / "voxels" / "noise.mhd", compressed=True)
    moved = tmp_path / "noise.mhd"
    moved.write_text(header.read_text().replace("noise.zraw", "voxels/noise.zraw"))
    assert np.array_equal(read_volume(moved).array, NOISE)
    voxels = tmp_path / "voxels" / "noise.zraw"
    voxels.write_bytes(voxels.read_bytes()[:-100])
    assert "cut off" in refused(moved, capfd)


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    path = tmp_path / f"{'a' * 300}.nrrd"
    with pytest.raises(InputError, match="There is no file"):
        read_volume(path)
    with pytest.raises(InputError, match="its name is too long"):
        write_volume(Volume(NOISE, np.eye(4)), path)
    assert not list(tmp_path.iterdir())
