"""The whole way: buttons of the panel, a real worker process, the built-in click model, segments in the scene."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
from panel_support import MODULE_FILE, ROOT, Panel
from qt_host import QtHost

psutil = pytest.importorskip("psutil")
pytest.importorskip("torch")

MODEL = "lk_click"
CENTRE = (40.0, 24.0, 20.0)
LIVER = 5  # in TotalSegmentator's numbering
pytestmark = pytest.mark.skipif(
    not (ROOT / "Resources" / "Models" / MODEL / "model.json").is_file(), reason=f"the model {MODEL} is not installed"
)


def phantom() -> Any:
    """Two soft balls of 12 mm in noise, 40 x 48 x 64 voxels (k, j, i) of 1 mm."""
    k, j, i = np.indices((40, 48, 64))
    noise = np.random.default_rng(5).normal(0, 8, k.shape)
    inside = [(k - 20) ** 2 + (j - 24) ** 2 + (i - at) ** 2 < 144 for at in (16, 40)]
    return (noise + 60.0 * inside[0] + 120.0 * inside[1]).astype(np.float32)


@pytest.fixture
def panel(host: QtHost) -> Iterator[Panel]:
    slicer.util.addVolumeFromArray(phantom(), name="phantom")
    module = host.open(MODULE_FILE)
    one = Panel(host, module, engine=None)  # type: ignore[arg-type]
    one.session.state.model = MODEL
    host.choose(one.ui.deviceComboBox, "CPU")
    yield one


def _settle(panel: Panel, seconds: float = 120.0) -> None:
    panel.host.wait_until(
        lambda: not panel.widget.request_timer.isActive() and not panel.session.is_busy, seconds, "the worker"
    )


def _preview(panel: Panel) -> Any:
    from LKSegmentLib.scene import segments, volumes

    node = panel.session.preview.node
    grid = volumes.grid_of(panel.session.state.input_volume)
    return segments.mask_on(node, node.GetSegmentation().GetNthSegmentID(0), grid)


def test_clicks_become_a_segment_and_equal_the_scripted_masks(panel: Panel) -> None:
    import LKSegmentLib as lk

    shown = []
    panel.place(True, CENTRE)
    _settle(panel)
    shown.append(_preview(panel))
    assert panel.status.startswith("Preview"), panel.status
    panel.place(False, (16.0, 24.0, 20.0))
    _settle(panel)
    shown.append(_preview(panel))
    with lk.ClickSession(lk.Volume(phantom(), np.eye(4)), model=MODEL, device="cpu") as session:
        scripted = [session.add_point(CENTRE), session.add_point((16.0, 24.0, 20.0), positive=False)]
    for mask, expected in zip(shown, scripted, strict=True):
        np.testing.assert_array_equal(mask, expected)
    panel.host.press(panel.ui.undoPointButton)
    _settle(panel)
    np.testing.assert_array_equal(_preview(panel), scripted[0])
    panel.host.press(panel.ui.acceptButton)
    node = panel.session.state.target_segmentation
    np.testing.assert_array_equal(panel.target_mask(node.GetSegmentation().GetNthSegmentID(0)), scripted[0])


def test_attention_lies_over_the_image(panel: Panel) -> None:
    from LKSegmentLib.scene import overlays

    composite = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    panel.host.press(panel.ui.overlayCheckBox)
    panel.place(True, CENTRE)
    _settle(panel)
    overlay = panel.session.state.overlay
    assert composite.GetForegroundVolumeID() == overlay.GetID()
    assert overlays.passport_of(overlay)["network"]
    assert len(panel.host.entries(panel.ui.overlayMapComboBox)) >= 1


def test_seeing_why_from_the_list_of_maps_to_the_reach(panel: Panel) -> None:
    import LKSegmentLib as lk
    from LKSegmentLib.scene import map_nodes

    panel.ui.whyCollapsibleButton.setCollapsed(False)
    panel.place(True, CENTRE)
    _settle(panel)
    offered = [one.name for one in panel.session.inspection.exposures(MODEL)]
    chosen = [offered[1], "changes by click", "large kernels"]
    panel.session.state.choose_maps(MODEL, chosen)
    panel.host.press(panel.ui.recordButton)
    _settle(panel)
    assert panel.status == "Recorded maps: 1, tables: 2."
    _, scripted = lk.inspect(lk.Volume(phantom(), np.eye(4)), MODEL, chosen[:1], [(CENTRE, True)], device="cpu")
    (recorded,) = panel.session.inspection.maps()
    found = map_nodes.map_of(recorded)
    np.testing.assert_array_equal(found.volume.array, scripted[0].volume.array)
    np.testing.assert_allclose(found.volume.ijk_to_ras, scripted[0].volume.ijk_to_ras, atol=1e-6)
    assert panel.host.entries(panel.ui.tableComboBox) == chosen[1:]
    panel.put_crosshair(CENTRE)
    panel.host.press(panel.ui.probeButton)
    assert panel.ui.probeLabel.text().split("\n")[1].startswith(f"{offered[1]}: 0.")
    panel.host.press(panel.ui.reachButton)
    _settle(panel)
    assert panel.status.startswith("Half widths along (i, j, k): 50 % within"), panel.status
    assert "reach" in panel.host.entries(panel.ui.overlayMapComboBox)
    panel.session.state.choose_maps(MODEL, ["no such map"])
    panel.host.press(panel.ui.recordButton)
    _settle(panel)
    assert panel.status.startswith("There is no map 'no such map'; lk_click shows: ")


def test_a_killed_worker_is_one_sentence_and_the_next_point_works(panel: Panel) -> None:
    panel.place(True, CENTRE)
    _settle(panel)
    facts = panel.session.worker_facts
    assert str(facts["process"]) in panel.ui.workerLabel.text()
    panel.place(True, (40.0, 30.0, 20.0))
    panel.host.wait_until(lambda: panel.session.job is not None)
    os.kill(facts["process"], signal.SIGKILL)
    _settle(panel)
    assert "worker" in panel.status
    assert panel.session.has_preview, "the scene is unharmed"
    panel.place(True, (40.0, 24.0, 26.0))
    _settle(panel)
    assert panel.status.startswith("Preview"), panel.status
    assert panel.session.worker_facts["process"] != facts["process"]


def test_a_python_that_does_not_exist_is_one_sentence(panel: Panel) -> None:
    panel.ui.interpreterPathEdit.setCurrentPath("/no/such/python")
    panel.host.press(panel.ui.restartWorkerButton)
    panel.place(True, CENTRE)
    _settle(panel)
    assert panel.status.startswith("The Python interpreter '/no/such/python' cannot be started")
    panel.ui.interpreterPathEdit.setCurrentPath("")
    panel.host.press(panel.ui.restartWorkerButton)
    _settle(panel)
    assert panel.status.startswith("Preview"), panel.status


def test_no_process_outlives_the_panel(panel: Panel) -> None:
    panel.place(True, CENTRE)
    panel.host.wait_until(lambda: bool(panel.session.worker_facts), 60.0, "the worker")
    process = psutil.Process(panel.session.worker_facts["process"])
    panel.module.close()
    gone, alive = psutil.wait_procs([process], timeout=10)
    assert not alive


def test_the_self_test_passes_in_the_host(panel: Panel) -> None:
    """`LKSegmentTest` as Slicer runs it, over this scene."""
    panel.module.exit()
    slicer.selfTests = {}
    panel.module.python.LKSegmentTest().runTest()


def test_a_click_on_a_real_liver_equals_the_scripted_mask(host: QtHost, real_data: Path) -> None:
    """An int32 CT of 3 mm, read from its file as the command and scripts read it."""
    import LKSegmentLib as lk
    from LKSegmentLib.scene import volumes

    case = real_data / "01_ct_abdomen_multiorgan"
    image, reference = lk.read_volume(case / "ct.nii.gz"), lk.read_volume(case / "labels_fast.nii.gz")
    liver = np.argwhere(reference.array == LIVER)
    k, j, i = liver[len(liver) // 2]
    ras = tuple(float(value) for value in reference.grid.ras_of(np.array([i, j, k])))
    volumes.add_volume_node(host.context, image, "CT")
    panel = Panel(host, host.open(MODULE_FILE), engine=None)  # type: ignore[arg-type]
    panel.session.state.model = MODEL
    host.choose(panel.ui.deviceComboBox, "CPU")
    panel.place(True, ras)
    _settle(panel)
    assert panel.status.startswith("Preview"), panel.status
    with lk.ClickSession(image, model=MODEL, device="cpu") as session:
        np.testing.assert_array_equal(_preview(panel), session.add_point(ras))
