from __future__ import annotations

import subprocess
import sys
import types

import pytest
import slicer
from scene_support import add_image

from LKSegmentLib.errors import InputError, RunError
from LKSegmentLib.scene import core


def test_two_headless_scenes_do_not_know_each_other(context):
    other = core.headless_scene()
    image = add_image(context)
    assert other.scene is not context.scene
    assert other.scene.GetNodeByID(image.GetID()) is None
    assert not core.is_in_scene(image, other.scene)


def test_every_logic_the_room_needs_is_there_and_others_are_named(context):
    for name in ("segmentations", "Volumes", "markups", "colors", "subjecthierarchy"):
        assert context.logic(name).GetMRMLScene() is context.scene
    with pytest.raises(RunError, match="'dicom' is not loaded"):
        context.logic("dicom")
    with pytest.raises(RunError, match="vtkMRMLNoSuchNode"):
        context.add_node("vtkMRMLNoSuchNode", "x")


def test_the_application_is_recognized_by_what_it_sets(context, monkeypatch):
    with pytest.raises(RunError, match="no running Slicer application"):
        core.application_scene()
    monkeypatch.setattr(slicer, "mrmlScene", context.scene, raising=False)
    monkeypatch.setattr(slicer, "modules", types.SimpleNamespace(), raising=False)
    core.publish(context)
    inside = core.application_scene()
    assert inside.scene is context.scene
    assert inside.logic("segmentations") is context.logic("segmentations")
    with pytest.raises(RunError, match="'dicom'"):
        inside.logic("dicom")


def test_names_stay_unique(context):
    assert add_image(context).GetName() == "CT"
    assert add_image(context).GetName() != "CT"


def test_a_required_node_is_there_and_of_its_class(context):
    image = add_image(context)
    assert core.require_node(image, "vtkMRMLScalarVolumeNode", "input volume") is image
    with pytest.raises(InputError, match="No input volume"):
        core.require_node(None, "vtkMRMLScalarVolumeNode", "input volume")
    with pytest.raises(InputError, match="The target segmentation 'CT' is a Volume"):
        core.require_node(image, "vtkMRMLSegmentationNode", "target segmentation")


def test_removing_a_node_leaves_no_display_behind(context):
    before = context.scene.GetNumberOfNodes()
    node = context.add_node("vtkMRMLSegmentationNode", "x")
    node.CreateDefaultDisplayNodes()
    context.remove_node(node)
    assert context.scene.GetNumberOfNodes() == before


def test_the_room_is_quiet_and_imports_neither_torch_nor_qt_nor_simpleitk():
    program = (
        "import sys\n"
        "from LKSegmentLib.scene import core, bundle, layout, overlays, preview, prompts, segments, state, "
        "terminology, views, volumes\n"
        "core.headless_scene()\n"
        "loaded = {name.split('.')[0] for name in sys.modules}\n"
        "print(sorted(loaded & {'torch', 'SimpleITK', 'PySide6', 'qt', 'scipy', 'skimage'}))\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
    assert ran.stderr == ""
