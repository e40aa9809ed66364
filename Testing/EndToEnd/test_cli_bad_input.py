"""Bad input: one clear sentence, exit code 2, and nothing written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from command_line import blob_image, lksegment, sentence_of

from LKSegmentLib.cli.main import main
from LKSegmentLib.packages import built_in_folder

CLICK = ("--point", "0,0,0")


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command in this process; the sentence with which it was refused. Nothing may have been written."""

    def run(*words: str | Path, code: int = 2) -> str:
        before = sorted(tmp_path.rglob("*"))
        assert main([str(word) for word in words]) == code
        printed = capsys.readouterr()
        assert printed.out == ""
        lines = printed.err.strip().splitlines()
        assert len(lines) == 1 and lines[0].endswith("."), printed.err
        assert sorted(tmp_path.rglob("*")) == before
        return lines[0]

    return run


def test_missing_empty_truncated_and_foreign_files(tmp_path: Path, refused: Callable[..., str]) -> None:
    out = ("-o", tmp_path / "out.nii.gz")
    assert "no_such.nii" in refused("click", tmp_path / "no_such.nii", *CLICK, *out)
    empty, text, cut = tmp_path / "empty.nrrd", tmp_path / "notes.txt", tmp_path / "cut.nii"
    empty.touch()
    text.write_text("not an image\n")
    assert "empty" in refused("click", empty, *CLICK, *out)
    assert "not an image" in refused("click", text, *CLICK, *out)
    whole = blob_image(tmp_path / "whole.nii").read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    assert "cut.nii" in refused("click", cut, *CLICK, *out)


@pytest.mark.parametrize("shape", [(8, 8, 8, 3), (3, 8, 8, 8)], ids=["rgb", "4-D"])
def test_several_values_per_voxel_are_refused_with_what_to_do(
    tmp_path: Path, refused: Callable[..., str], shape: tuple[int, ...]
) -> None:
    array = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    image = SimpleITK.GetImageFromArray(array, isVector=shape[-1] == 3)
    path = tmp_path / "image.nrrd"
    SimpleITK.WriteImage(image, str(path))
    assert "frame" in refused("click", path, *CLICK, "-o", tmp_path / "out.nii.gz")


def test_click_outside_the_image_says_where_the_image_is(tmp_path: Path, refused: Callable[..., str]) -> None:
    image = blob_image(tmp_path / "image.nrrd")
    sentence = refused("click", image, "--point", "500,0,0", "-o", tmp_path / "out.nii.gz")
    assert "500,0,0" in sentence and "R -39 to 39" in sentence
    assert "outside" in refused("click", image, "--ijk", "--point", "3,4,40", "-o", tmp_path / "out.nii.gz")


def test_outputs_are_checked_before_any_work(tmp_path: Path, refused: Callable[..., str]) -> None:
    image = tmp_path / "never_read.nrrd"
    (tmp_path / "file").touch()
    words = ("click", image, *CLICK)
    assert "where the result goes" in refused(*words)
    assert ".seg.nrrd" in refused(*words, "-o", tmp_path / "out.jpeg")
    assert "does not exist" in refused(*words, "-o", tmp_path / "no_folder" / "out.nii.gz")
    assert "file is in the way" in refused(*words, "-o", tmp_path / "file" / "out.nii.gz")
    assert "is a folder" in refused(*words, "--scene", _folder(tmp_path / "scene.mrb"))
    assert ".mrb" in refused(*words, "--scene", tmp_path / "scene.zip")
    assert "file is in the way" in refused("demo", "--out", tmp_path / "file")


def test_a_refused_input_leaves_no_empty_folder(tmp_path: Path, refused: Callable[..., str]) -> None:
    image, out = blob_image(tmp_path / "image.nrrd", 24), tmp_path / "not_yet" / "there"
    (tmp_path / "file").touch()
    assert "--point" in refused("inspect", image, "-o", out)
    assert "no_such.nii" in refused("inspect", tmp_path / "no_such.nii", *CLICK, "-o", out)
    assert "500,0,0" in refused("inspect", image, "--point", "500,0,0", "-o", out)
    assert "file is in the way" in refused("inspect", image, *CLICK, "-o", tmp_path / "file" / "maps")
    assert main(["demo", "--image", str(tmp_path / "no_such.nii"), "--out", str(out)]) == 2
    assert not out.parent.exists()


def test_the_image_itself_is_never_overwritten(tmp_path: Path, refused: Callable[..., str]) -> None:
    image = blob_image(tmp_path / "image.nrrd")
    before = image.read_bytes()
    assert "the image itself" in refused("click", image, *CLICK, "-o", tmp_path / "." / "image.nrrd")
    assert "the image itself" in refused("segment", image, "--model", "any", "-o", image)
    assert image.read_bytes() == before


def test_a_format_that_cannot_be_written_is_refused_before_the_work(
    tmp_path: Path, refused: Callable[..., str]
) -> None:
    image = blob_image(tmp_path / "image.nrrd")
    assert "must end with" in refused("click", image, *CLICK, "-o", tmp_path / "out.mhd")


def test_folder_without_permission(
    tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's refusal is played: root, whom continuous integration often is, may write everywhere."""

    def denied(*arguments: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("LKSegmentLib.cli.outputs.tempfile.TemporaryFile", denied)
    assert "no permission" in refused("click", "ct.nrrd", *CLICK, "-o", tmp_path / "out.nii.gz")


def test_full_disk_is_found_before_the_work(
    tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = blob_image(tmp_path / "image.nrrd")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("LKSegmentLib.cli.outputs.shutil.disk_usage", lambda folder: usage._replace(free=1000))
    assert "too full" in refused("click", image, *CLICK, "-o", tmp_path / "out.nii.gz")


def test_unknown_model_and_device(tmp_path: Path) -> None:
    image = blob_image(tmp_path / "image.nrrd", 24)
    out = ("-o", tmp_path / "out.nii.gz")
    assert "no_model" in sentence_of(lksegment("click", image, *CLICK, *out, "--model", "no_model"), 2)
    assert "abacus" in sentence_of(lksegment("click", image, *CLICK, *out, "--device", "abacus"), 2)
    assert not (tmp_path / "out.nii.gz").exists()


@pytest.mark.parametrize("harm", ["hash", "missing", "pickle", "path"])
def test_harmed_packages_are_refused(tmp_path: Path, refused: Callable[..., str], harm: str) -> None:
    package = tmp_path / "package"
    shutil.copytree(built_in_folder() / "lk_click", package)
    weights = package / "weights.safetensors"
    if harm == "hash":
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
    elif harm == "missing":
        weights.unlink()
    elif harm == "pickle":
        (package / "weights.pt").write_bytes(b"\x80\x04N.")
    else:
        manifest = json.loads((package / "model.json").read_text())
        manifest["files"]["../outside"] = next(iter(manifest["files"].values()))
        (package / "model.json").write_text(json.dumps(manifest))
    assert "package" in refused("models", package)


def test_broken_models_are_told_and_do_not_hide_the_others(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model.json").write_text("{")
    import os

    done = lksegment("models", "--json", env={**os.environ, "LKSEGMENT_MODELS": str(tmp_path)})
    found = json.loads(done.stdout)
    assert [entry["name"] for entry in found["models"]] == ["lk_click"]
    assert len(found["broken"]) == 1 and "broken" in done.stderr


def _folder(path: Path) -> Path:
    path.mkdir()
    return path
