"""Scenes and segmentations as files that Slicer opens: `.mrb` and `.seg.nrrd`. A file is whole or not there."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from LKSegmentLib.errors import InputError, RunError
from LKSegmentLib.scene.core import Node, SceneContext, headless_scene, require_node, slicer_module
from LKSegmentLib.scene.files import require_folder, written_whole
from LKSegmentLib.scene.geometry import local_to_world


def write_mrb(context: SceneContext, path: str | Path, picture: NDArray[np.uint8] | None = None) -> Path:
    """Write the whole scene, data included, into one `.mrb`; returns its path.

    `picture` (height, width, 3) uint8 is what Slicer shows of the file before opening it.
    Raises InputError: another suffix, or a folder that is missing or cannot be written. RunError: the disk is full
    or Slicer could not write a node; an older file of that name is then still there.
    """
    target = Path(path)
    if target.suffix != ".mrb":
        raise InputError(f"A scene is written as .mrb, not {target.name}.")
    require_folder(target)
    slicer = slicer_module()
    # In a folder of its own: the name inside the archive is the file's name, and nothing is left behind.
    with _folder_beside(target) as folder, written_whole(target) as temporary:
        draft = folder / target.name
        messages = slicer.vtkMRMLMessageCollection()
        thumbnail = None if picture is None else _image_of(picture)
        written = context.scene.WriteToMRB(str(draft), thumbnail, messages)
        if not written or not _is_whole(draft):
            raise RunError(f"The scene could not be written to {target}: {_first_error(messages)}")
        shutil.move(str(draft), str(temporary))
    return target


def read_mrb(path: str | Path) -> SceneContext:
    """Open a `.mrb` as a new scene, without the application.

    Raises InputError: no such file or not a scene archive. RunError: a part of it could not be read.
    """
    source = Path(path)
    if not source.is_file():
        raise InputError(f"There is no file {source}.")
    if not _is_whole(source):
        raise InputError(f"{source} is not a whole .mrb archive. Save the scene again.")
    slicer = slicer_module()
    context = headless_scene()
    with tempfile.TemporaryDirectory(prefix="lksegment-scene-") as cache:
        remote = slicer.vtkMRMLRemoteIOLogic()
        remote.SetMRMLScene(context.scene)
        remote.GetCacheManager().SetRemoteCacheDirectory(cache)
        remote.AddDataIOToScene()
        data = slicer.vtkDataIOManagerLogic()
        data.SetMRMLApplicationLogic(context.application_logic)
        data.SetAndObserveDataIOManager(remote.GetDataIOManager())
        messages = slicer.vtkMRMLMessageCollection()
        read = context.scene.ReadFromMRB(str(source.resolve()), True, messages)
        if not read:
            raise RunError(f"The scene {source} could not be read: {_first_error(messages)}")
        # The scene must not keep pointers into what goes away with this block.
        remote.RemoveDataIOFromScene()
        data.SetAndObserveDataIOManager(None)
        remote.SetMRMLScene(None)
    return context


def write_segmentation(segmentation_node: Node, path: str | Path) -> Path:
    """Write a segmentation as `.seg.nrrd` with names, colours and terminology, in world RAS; returns its path.

    Linear parent transforms are applied, so that the file lies over the image as it does in the scene.
    Raises InputError: another suffix, a folder that is missing or cannot be written, a non-linear transform.
    RunError: the disk is full or Slicer could not write it.
    """
    node = require_node(segmentation_node, "vtkMRMLSegmentationNode", "segmentation")
    target = Path(path)
    if not target.name.endswith(".seg.nrrd"):
        raise InputError(f"A segmentation is written as .seg.nrrd, not {target.name}.")
    require_folder(target)
    local_to_world(node, "segmentation")  # refuses a non-linear transform
    with written_whole(target) as temporary, _hardened(node) as placed:
        storage = slicer_module().vtkMRMLSegmentationStorageNode()
        storage.SetFileName(str(temporary))
        if not storage.WriteData(placed):
            raise RunError(f"The segmentation could not be written to {target}. Check the disk's free space.")
    return target


def read_segmentation(context: SceneContext, path: str | Path) -> Node:
    """Add the segmentation of a `.seg.nrrd` to the scene. InputError where there is none that can be read."""
    source = Path(path)
    if not source.is_file():
        raise InputError(f"There is no file {source}.")
    node = context.add_node("vtkMRMLSegmentationNode", source.name.split(".")[0])
    storage = slicer_module().vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(source))
    if not storage.ReadData(node):
        context.scene.RemoveNode(node)
        raise InputError(f"{source} holds no segmentation that Slicer can read.")
    node.CreateDefaultDisplayNodes()
    return node


@contextmanager
def _hardened(node: Node) -> Iterator[Node]:
    """The node, or while the block runs a copy of it with its linear parent transform applied."""
    if node.GetParentTransformNode() is None:
        yield node
        return
    scene = node.GetScene()
    copy = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"{node.GetName()} in the world")
    try:
        copy.GetSegmentation().DeepCopy(node.GetSegmentation())
        copy.SetAndObserveTransformNodeID(node.GetTransformNodeID())
        copy.HardenTransform()
        yield copy
    finally:
        scene.RemoveNode(copy)


@contextmanager
def _folder_beside(target: Path) -> Iterator[Path]:
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{target.stem}-", dir=target.parent.resolve()))
    except OSError as error:
        raise InputError(f"The folder {target.parent} cannot be written: {error.strerror}. Choose another.") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_whole(archive: Path) -> bool:
    if not archive.is_file():
        return False
    try:
        with zipfile.ZipFile(archive) as opened:
            names = opened.namelist()
            return opened.testzip() is None and any(name.endswith(".mrml") for name in names)
    except (zipfile.BadZipFile, OSError):
        return False


def _first_error(messages: Any) -> str:
    import vtk

    for index in range(messages.GetNumberOfMessages()):
        if messages.GetNthMessageType(index) == vtk.vtkCommand.ErrorEvent:
            return str(messages.GetNthMessageText(index))
    return "the archive is incomplete. Check the disk's free space."


def _image_of(picture: NDArray[np.uint8]) -> Any:
    from LKSegmentLib.scene.views import image_data

    return image_data(picture)
