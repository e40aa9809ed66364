"""The other commands, each once for real: demo, doctor, models, segment, inspect, train."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import blob_image, json_of, lksegment, sentence_of

import LKSegmentLib as lk
from LKSegmentLib.cli.automatic_point import automatic_point
from LKSegmentLib.cli.main import main
from LKSegmentLib.cli.measurements import random_model
from LKSegmentLib.engine.results import SegmentResult
from LKSegmentLib.errors import InputError
from LKSegmentLib.volumes import Volume


def test_demo_on_the_synthetic_abdomen_leaves_a_scene_for_slicer(tmp_path: Path) -> None:
    pytest.importorskip("slicer")
    from LKSegmentLib.scene.bundle import read_mrb
    from LKSegmentLib.scene.views import rendering_problem

    done = lksegment("demo", "--out", tmp_path / "demo", timeout=600)
    assert done.returncode == 0, done.stderr
    expected = {"scene.mrb", "segmentation.seg.nrrd", "synthetic_abdomen.nrrd"}
    if rendering_problem() is None:
        expected.add("views.png")
        assert done.stderr == ""
    assert {path.name for path in (tmp_path / "demo").iterdir()} == expected
    for name in expected:
        assert str(tmp_path / "demo" / name) in done.stdout
    assert "Dice" in done.stdout and "No patient" in done.stdout
    reopened = read_mrb(tmp_path / "demo" / "scene.mrb")
    segmentation = reopened.scene.GetFirstNodeByClass("vtkMRMLSegmentationNode").GetSegmentation()
    assert segmentation.GetNthSegment(0).GetName() == "liver"


def test_demo_on_an_image_of_ones_own_finds_a_point_by_itself(tmp_path: Path) -> None:
    pytest.importorskip("slicer")
    image = blob_image(tmp_path / "ball.nrrd")
    told = json_of("demo", "--image", image, "--out", tmp_path / "demo")
    assert np.linalg.norm(told["points"][0]["ras"]) < 12  # the ball has a radius of 20 mm
    assert told["dice"] is None and len(told["points"]) == 1


def test_automatic_point_of_an_even_image_is_its_middle() -> None:
    assert automatic_point(Volume(np.zeros((5, 7, 9), np.int16), np.eye(4))) == (4.0, 3.0, 2.0)


def test_doctor_names_what_works_and_fails_for_an_interpreter_that_is_not_there(tmp_path: Path) -> None:
    told = json_of("doctor")
    findings = {finding["name"]: finding for finding in told["findings"]}
    assert told["works"] and findings["torch"]["works"] and findings["device cpu"]["works"]
    assert "lk_click" in findings["models"]["sentence"]
    done = lksegment("doctor", "--python", tmp_path / "no_python")
    assert done.returncode == 1 and "FAIL  worker process" in done.stdout
    assert len(done.stderr.splitlines()) == 1


def test_models_shows_a_verified_manifest() -> None:
    assert json_of("models", "lk_click")["kind"] == "click"
    assert "All files are there and unchanged." in lksegment("models", "lk_click").stdout
    names = [entry["name"] for entry in json_of("models", "lk_click", "--maps")["entries"]]
    assert names[0] == "LK attention (channel closest to the mask)" and "large kernels" in names
    assert "large kernels" in lksegment("models", "lk_click", "--maps").stdout
    assert lksegment("models", "--maps").returncode == 2


def test_segment_writes_what_python_gives_and_refuses_a_click_model(tmp_path: Path) -> None:
    image = blob_image(tmp_path / "ball.nrrd", 32)
    with random_model((32, 32, 32)) as model:
        told = json_of("segment", image, "--model", model, "-o", tmp_path / "labels.nii.gz", "--device", "cpu")
        result = lk.segment(lk.read_volume(image), model, device="cpu")
        written = lk.read_volume(tmp_path / "labels.nii.gz")
        np.testing.assert_array_equal(written.array, result.labels.array)
        assert written.array.dtype == np.uint16
        assert [row["name"] for row in told["labels"]] == result.names
        voxels = np.bincount(written.array.ravel(), minlength=16)[1:].tolist()
        assert [row["voxels"] for row in told["labels"]] == voxels
    refused = lksegment("segment", image, "--model", "lk_click", "-o", tmp_path / "no.nii.gz")
    assert "click" in sentence_of(refused, 2) and not (tmp_path / "no.nii.gz").exists()


def test_labels_become_named_segments(tmp_path: Path) -> None:
    pytest.importorskip("slicer")
    from LKSegmentLib.cli.click_files import write_label_segmentation
    from LKSegmentLib.scene.bundle import read_segmentation
    from LKSegmentLib.scene.core import headless_scene
    from LKSegmentLib.scene.segments import mask_on, segment_ids

    volume = lk.read_volume(blob_image(tmp_path / "ball.nrrd", 16))
    labels = volume.with_array(np.arange(16**3).reshape(16, 16, 16).astype(np.uint16) // 2000)
    entries = [{"value": value, "name": name, "color": [200, 10 * value, 0]} for value, name in enumerate("abc", 1)]
    result = SegmentResult(labels, ["a", "b", "c"], entries)
    write_label_segmentation(volume, "ball", result, tmp_path / "labels.seg.nrrd")
    context = headless_scene()
    node = read_segmentation(context, tmp_path / "labels.seg.nrrd")
    segments = segment_ids(node)
    names = [node.GetSegmentation().GetSegment(segment).GetName() for segment in segments]
    assert names == ["a", "b"]  # c does not occur
    for value, segment in enumerate(segments, start=1):
        np.testing.assert_array_equal(mask_on(node, segment, volume.grid), labels.array == value)


def test_inspect_writes_maps_with_passports(tmp_path: Path) -> None:
    image = blob_image(tmp_path / "ball.nrrd")
    layer = "LK attention (channel closest to the mask)"
    told = json_of("inspect", image, "--point", "0,0,0", "--layer", layer, "-o", tmp_path / "maps")
    assert [found["name"] for found in told["maps"]] == [layer]
    passports = json.loads((tmp_path / "maps" / "mask-maps.json").read_text())
    assert list(passports) == ["mask-lk-attention-channel-closest-to-the-mask.nrrd"]
    assert lk.read_volume(tmp_path / "maps" / next(iter(passports))).array.dtype == np.float32
    with pytest.raises(InputError, match="LK attention"):
        lk.inspect(lk.read_volume(image), layers=["no_such_map"], points=[((0, 0, 0), True)])
    with pytest.raises(InputError, match="points"):
        lk.inspect(lk.read_volume(image))


def test_ctrl_c_during_training_loses_no_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from LKSegmentLib.training.click_training import ClickTrainer

    def interrupted(trainer: ClickTrainer) -> float:
        if trainer.steps == 2:
            raise KeyboardInterrupt
        trainer.steps += 1
        return 0.0

    monkeypatch.setattr(ClickTrainer, "step", interrupted)
    assert main(["train", "click", "--out", str(tmp_path / "run")]) == 130
    assert ClickTrainer.resume(tmp_path / "run").steps == 2


def test_training_for_a_moment_gives_a_package_that_clicks_and_is_not_overwritten(tmp_path: Path) -> None:
    words = ("train", "click", "--minutes", "0.001", "--out", tmp_path / "run")
    told = json_of(*words)
    assert told["steps"] >= 1
    volume = lk.read_volume(blob_image(tmp_path / "ball.nrrd", 24))
    with lk.ClickSession(volume, model=told["package"]) as session:
        assert session.add_point((0.0, 0.0, 0.0)).shape == (24, 24, 24)
    assert "--resume" in sentence_of(lksegment(*words), 2)
    assert "--from was settled" in sentence_of(lksegment(*words, "--resume", "--from", "lk_click"), 2)
    assert "--seed was settled" in sentence_of(lksegment(*words, "--resume", "--seed", "3"), 2)


def test_training_goes_on_from_a_model_and_says_so_but_not_from_one_with_other_inputs(tmp_path: Path) -> None:
    from LKSegmentLib import packages
    from LKSegmentLib.networks.lk_click import LKClick
    from LKSegmentLib.prompts import CHANNELS

    def model(name: str, channels: list[str]) -> Path:
        return packages.save(
            tmp_path / name, network="lk_click", state_dict=LKClick(in_channels=len(channels)).state_dict(),
            labels=[{"name": "structure"}], window=(64, 64, 64), licence="CC-BY-4.0", intensity={"rule": "none"},
            options={"in_channels": len(channels), "out_channels": 1}, kind="click", output="regions",
            trained_on="Drawings.", prompts={"channels": channels},
        )  # fmt: skip

    earlier = model("earlier", list(CHANNELS[:-1]))
    words = ("train", "click", "--minutes", "0.001", "--out", tmp_path / "run", "--precision", "bfloat16")
    manifest = packages.read_manifest(Path(json_of(*words, "--from", earlier)["package"]))
    assert manifest.licence == "CC-BY-4.0" and manifest.trained_on.endswith("Theirs: Drawings.")
    assert manifest.in_channels == len(CHANNELS) and manifest.extra["recipe"]["precision"] == "bfloat16"
    turned = model("turned", [*CHANNELS[1::-1], *CHANNELS[2:]])
    words = ("train", "click", "--minutes", "0.001", "--out", tmp_path / "other", "--from", turned)
    assert "in another order" in sentence_of(lksegment(*words), 2)
