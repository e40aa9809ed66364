"""The main job from the command line: same mask as from Python, whole files or none, clean streams, clean stops."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from command_line import COMMAND, blob_image, environment, json_of, lksegment, sentence_of

import LKSegmentLib as lk
from LKSegmentLib.volumes import Volume

CLICKS = [((0.0, 0.0, 0.0), True), ((24.0, 24.0, 24.0), False)]
Stop = Callable[[subprocess.Popen[bytes], psutil.Process], None]
WORDS = ("--point", "0,0,0", "--negative", "24,24,24")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return blob_image(tmp_path_factory.mktemp("image") / "ball.nrrd")


def test_label_volume_is_the_mask_that_python_gives_bit_for_bit(image: Path, tmp_path: Path) -> None:
    told = json_of("click", image, *WORDS, "-o", tmp_path / "mask.nii.gz", "--device", "cpu")
    volume = lk.read_volume(image)
    with lk.ClickSession(volume, device="cpu") as session:
        for ras, positive in CLICKS:
            mask = session.add_point(ras, positive)
        assert mask.any()
        assert session.mask.sum() == told["voxels"]
        session.undo()
        assert len(session.points) == 1
        assert not session.reset().any()
    written = lk.read_volume(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(written.array > 0, mask)
    assert written.grid.matches(volume.grid)
    assert [(tuple(point["ras"]), point["positive"]) for point in told["points"]] == CLICKS
    recorded, maps = lk.inspect(volume, points=CLICKS, device="cpu")
    np.testing.assert_array_equal(recorded.array > 0, mask)
    assert maps and all(found.passport["layer"] for found in maps)


def test_strokes_give_the_mask_that_python_gives(image: Path, tmp_path: Path) -> None:
    strokes = ("--box", "-12,-12,-12 12,12,12", "--off", "20,20,-20 20,20,20", "--lasso", "-9,0,-9 9,0,-9 9,0,9 -9,0,9")
    told = json_of("click", image, *strokes, "-o", tmp_path / "mask.nii.gz", "--device", "cpu")
    with lk.ClickSession(lk.read_volume(image), device="cpu") as session:
        session.add_box((-12, -12, -12), (12, 12, 12))
        session.add_scribble([(20, 20, -20), (20, 20, 20)], positive=False)
        mask = session.add_lasso([(-9, 0, -9), (9, 0, -9), (9, 0, 9), (-9, 0, 9)])
    np.testing.assert_array_equal(lk.read_volume(tmp_path / "mask.nii.gz").array > 0, mask)
    assert mask.any() and len(told["points"]) == 7 + 2 + 11
    one_corner = lksegment("click", image, "--box", "1,1,1", "-o", tmp_path / "x.nrrd")
    assert "two opposite corners" in sentence_of(one_corner, 2)
    assert "--box" in sentence_of(lksegment("click", image, "-o", tmp_path / "x.nrrd"), 2)


def test_scene_segmentation_picture_and_maps_lie_over_the_image(image: Path, tmp_path: Path) -> None:
    pytest.importorskip("slicer")
    from LKSegmentLib.scene.bundle import read_mrb, read_segmentation
    from LKSegmentLib.scene.core import headless_scene
    from LKSegmentLib.scene.segments import mask_on, segment_ids
    from LKSegmentLib.scene.views import rendering_problem

    outputs = ["-o", tmp_path / "ball.seg.nrrd", "--scene", tmp_path / "ball.mrb", "--maps", "--name", "ball"]
    if rendering_problem() is None:
        outputs += ["--png", tmp_path / "ball.png"]
    told = json_of("click", image, *WORDS, *outputs)
    assert sorted(Path(path).name for path in told["files"]) == sorted(path.name for path in tmp_path.iterdir())
    grid = lk.read_volume(image).grid
    context = headless_scene()  # kept: nodes do not outlive their scene
    node = read_segmentation(context, tmp_path / "ball.seg.nrrd")
    mask = mask_on(node, segment_ids(node)[0], grid)
    assert mask.sum() == told["voxels"] > 0
    reopened = read_mrb(tmp_path / "ball.mrb")
    scene = reopened.scene
    assert scene.GetFirstNodeByName("ball").IsA("vtkMRMLScalarVolumeNode")
    segmentation = scene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
    assert segmentation.GetSegmentation().GetNthSegment(0).GetName() == "ball"
    np.testing.assert_array_equal(mask_on(segmentation, segment_ids(segmentation)[0], grid), mask)
    composite = scene.GetFirstNodeByClass("vtkMRMLSliceCompositeNode")
    overlay = scene.GetNodeByID(composite.GetForegroundVolumeID())
    assert overlay.GetAttribute("LKSegment.passport")
    passports = json.loads((tmp_path / "ball-maps.json").read_text())
    for name, passport in passports.items():
        shape = lk.read_volume(tmp_path / name).array.shape
        assert list(shape) == passport["native shape (k, j, i)"]


def test_nan_and_absurd_voxels_do_no_harm_in_a_volume_smaller_than_a_window(tmp_path: Path) -> None:
    path = blob_image(tmp_path / "small.nrrd", 20, "float64")
    volume = lk.read_volume(path)
    with lk.ClickSession(volume) as session:
        mask = session.add_point((0.0, 0.0, 0.0))
    harmed = volume.array.copy()
    harmed[0, 0, :3] = (np.nan, np.inf, 1e38)
    lk.write_volume(volume.with_array(harmed), path)
    done = lksegment("click", path, "--point", "0,0,0", "-o", tmp_path / "mask.nrrd")
    assert done.returncode == 0, done.stderr
    different = (lk.read_volume(tmp_path / "mask.nrrd").array > 0) != mask
    assert mask.any() and different.mean() < 0.001, "three replaced voxels in a corner may move the border by a voxel"


def test_pipes_carry_plain_text_and_an_older_result_is_replaced(image: Path, tmp_path: Path) -> None:
    target = tmp_path / "mask.nrrd"
    lk.write_volume(Volume(np.ones((2, 2, 2), np.uint8), np.eye(4)), target)
    done = lksegment("click", image, "--ijk", "--point", "20,20,20", "-o", target, env=environment(FORCE_COLOR="1"))
    assert done.returncode == 0 and done.stderr == "" and "\x1b" not in done.stdout
    assert str(target) in done.stdout
    assert lk.read_volume(target).array.shape == (40, 40, 40)


def test_a_terminal_shows_progress_and_standard_output_stays_clean(image: Path, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    words = [*COMMAND, "click", str(image), *WORDS, "-o", str(tmp_path / "mask.nrrd"), "--json"]
    terminal = environment(TERM="xterm", COLUMNS="120")
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=theirs, env=terminal) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # Linux ends a pseudo-terminal so
                break
            if not part:
                break
            shown += part
        assert process.stdout is not None
        assert json.loads(process.stdout.read())["voxels"] > 0
    os.close(ours)
    assert b"Click" in shown and b"%" in shown and b":" in shown


def _worker_of(process: subprocess.Popen[bytes]) -> psutil.Process:
    end = time.monotonic() + 300
    while time.monotonic() < end and process.poll() is None:
        for child in psutil.Process(process.pid).children():
            if any("LKSegmentLib.engine.worker" in word for word in child.cmdline()):
                return child
        time.sleep(0.02)
    raise AssertionError(f"no worker was started: {process.stderr.read() if process.stderr else ''}")


def _stopped(image: Path, tmp_path: Path, stop: Stop) -> tuple[int, str]:
    """Exit code and message of a click that was stopped while its worker ran; nothing may be left."""
    words = [*COMMAND, "click", str(image), *WORDS, "-o", str(tmp_path / "mask.nrrd")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        worker = _worker_of(process)
        stop(process, worker)
        output, errors = process.communicate(timeout=300)
    assert output == b"" and list(tmp_path.iterdir()) == []
    psutil.wait_procs([worker], timeout=60)
    assert not worker.is_running()
    lines = errors.decode().strip().splitlines()
    assert len(lines) == 1 and lines[0].endswith("."), lines
    return process.returncode, lines[0]


def test_killed_worker_is_one_sentence_and_code_1(image: Path, tmp_path: Path) -> None:
    code, sentence = _stopped(image, tmp_path, lambda process, worker: worker.kill())
    assert code == 1 and "worker" in sentence


def test_ctrl_c_stops_with_code_130_and_leaves_nothing(image: Path, tmp_path: Path) -> None:
    code, sentence = _stopped(image, tmp_path, lambda process, worker: process.send_signal(signal.SIGINT))
    assert code == 130 and "half-written" in sentence


def test_request_to_end_stops_with_code_143_and_leaves_nothing(image: Path, tmp_path: Path) -> None:
    code, sentence = _stopped(image, tmp_path, lambda process, worker: process.send_signal(signal.SIGTERM))
    assert code == 143 and "half-written" in sentence


@pytest.mark.parametrize("kind", ["label volume", "segmentation", "scene"])
def test_full_disk_leaves_nothing(tmp_path: Path, kind: str) -> None:
    """A limit on the size of files stands for the full disk: writing fails in the middle."""
    target = {"label volume": "out.nii", "segmentation": "out.seg.nrrd", "scene": "out.mrb"}[kind]
    field = "scene" if kind == "scene" else "segmentation"
    if kind != "label volume":
        pytest.importorskip("slicer")
    code = f"""
import resource, sys
import numpy as np
from LKSegmentLib.cli import click_files, command, main
from LKSegmentLib.cli.outputs import Path
from LKSegmentLib.engine.results import MaskBox
from LKSegmentLib.prompts import Point
from LKSegmentLib.volumes import Volume
noise = np.random.default_rng(0).integers(0, 2, (32, 32, 32)).astype(np.uint8)
structure = click_files.ClickedStructure(
    Volume(noise, np.eye(4)), "noise", "noise", MaskBox((0, 0, 0), noise), [Point((1, 1, 1))])
def run(arguments, screen):
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
    click_files.write_click(structure, click_files.Targets({field}=Path({str(tmp_path / target)!r})))
    return {{}}
main.COMMANDS = (command.Command("write", "", "", lambda parser: None, run),)
main.console()
"""
    done = subprocess.run([sys.executable, "-c", code, "write"], capture_output=True, text=True, timeout=600)
    assert str(tmp_path) in sentence_of(done, 2)
    assert list(tmp_path.iterdir()) == []
