"""Which views there are, what they show and where they look: the nodes behind Slicer's four-up layout."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from LKSegmentLib.errors import InputError
from LKSegmentLib.scene import overlays
from LKSegmentLib.scene.core import Node, SceneContext, require_node, slicer_module
from LKSegmentLib.scene.volumes import grid_of, volume_of
from LKSegmentLib.volumes import Grid, Volume

#: Layout names of the slice views, their orientation, and the colour of the bar that marks them in Slicer.
SLICE_VIEWS = {
    "Red": ("Axial", (0.953, 0.290, 0.200)),
    "Green": ("Coronal", (0.431, 0.690, 0.294)),
    "Yellow": ("Sagittal", (0.929, 0.835, 0.298)),
}
THREE_D_COLOR = (0.56, 0.58, 0.86)
_THREE_D_VIEW = "1"


def slice_node(context: SceneContext, name: str) -> Node:
    """The slice node of this layout name ("Red", "Green", "Yellow"), with its composite node; made if missing."""
    scene = context.scene
    for index in range(scene.GetNumberOfNodesByClass("vtkMRMLSliceNode")):
        node = scene.GetNthNodeByClass(index, "vtkMRMLSliceNode")
        if node.GetLayoutName() == name:
            return node
    logic = slicer_module().vtkMRMLSliceLogic()
    logic.SetMRMLApplicationLogic(context.application_logic)
    logic.SetMRMLScene(scene)
    node = logic.AddSliceNode(name)
    orientation, color = SLICE_VIEWS[name]
    node.SetOrientation(orientation)
    node.SetLayoutColor(*color)
    return node


def three_d_node(context: SceneContext) -> Node:
    """The first 3D view node; made if missing."""
    node = context.scene.GetFirstNodeByClass("vtkMRMLViewNode")
    if node is None:
        logic = slicer_module().vtkMRMLViewLogic()
        logic.SetMRMLApplicationLogic(context.application_logic)
        logic.SetMRMLScene(context.scene)
        node = logic.AddViewNode(_THREE_D_VIEW)
    return node


def display_window(volume: Volume) -> tuple[float, float]:
    """Lowest and highest value to show: soft tissue for what looks like CT, else percentiles of the whole image."""
    values = volume.array[np.isfinite(volume.array)]
    if values.size == 0:
        return 0.0, 1.0
    low, high = (float(edge) for edge in np.percentile(values, (0.5, 99.5)))
    if float(values.min()) <= -900 and 500 <= float(values.max()) <= 10000:
        return -160.0, 240.0
    return (low, high) if high > low else (low, low + 1.0)


def set_window(node: Node, window: tuple[float, float]) -> None:
    """Set the window of a volume that this program loaded itself; the user's own volumes keep theirs."""
    if not window[0] < window[1]:
        raise InputError(f"The display window from {window[0]:g} to {window[1]:g} is empty.")
    if node.GetDisplayNode() is None:
        node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(*window)


def arrange(
    context: SceneContext,
    volume_node: Node,
    centre_ras: Sequence[float] | None = None,
    overlay: Node | None = None,
    overlay_opacity: float = 0.5,
    zoom: float = 1.0,
) -> None:
    """Four-up layout with the volume in all slice views, the overlay above it, everything centred on one point.

    `centre_ras` is in world mm (default: the middle of the volume). `zoom` 1 shows the whole volume, 2 half of it.
    For scenes this program makes itself: inside the application it would move the user's views.
    """
    require_node(volume_node, "vtkMRMLScalarVolumeNode", "input volume")
    grid = grid_of(volume_node)
    centre = [float(value) for value in (grid.centre_ras if centre_ras is None else centre_ras)]
    _use_four_up(context)
    if volume_node.GetDisplayNode() is None:
        set_window(volume_node, display_window(volume_of(volume_node)))
    for name in SLICE_VIEWS:
        node = slice_node(context, name)
        logic = slicer_module().vtkMRMLSliceLogic()
        logic.SetMRMLApplicationLogic(context.application_logic)
        logic.SetMRMLScene(context.scene)
        logic.SetSliceNode(node)
        logic.GetSliceCompositeNode().SetBackgroundVolumeID(volume_node.GetID())
        node.SetDimensions(800, 600, 1)  # the shape of a view in this layout; Slicer fits it to its window
        logic.FitSliceToBackground()
        width, height, depth = node.GetFieldOfView()
        node.SetFieldOfView(width / zoom, height / zoom, depth)
        node.JumpSliceByCentering(*_within(grid, centre, name, width / zoom, height / zoom))
        logic.SnapSliceOffsetToIJK()
        logic.SetMRMLScene(None)
    if overlay is not None:
        overlays.show(context, overlay, overlay_opacity)
    selection = context.scene.GetSingletonNode("Singleton", "vtkMRMLSelectionNode")
    if selection is not None:
        selection.SetActiveVolumeID(volume_node.GetID())


def look_at(context: SceneContext, bounds: Sequence[float], direction: Sequence[float] = (0.35, 0.87, 0.35)) -> None:
    """Place the 3D camera so that these world bounds (r0, r1, a0, a1, s0, s1) fill the view.

    `direction` points from the middle of the bounds to the camera; Superior is up.
    """
    low, high = np.array(bounds[0::2], dtype=float), np.array(bounds[1::2], dtype=float)
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (high > low).all()):
        raise InputError("The 3D view has nothing to look at: the segment is empty.")
    camera = _camera(context)
    middle = (low + high) / 2
    towards = np.asarray(direction, dtype=float) / np.linalg.norm(direction)
    angle = 30.0
    distance = 0.5 * float(np.linalg.norm(high - low)) / np.sin(np.radians(angle / 2)) * 0.92
    camera.SetViewAngle(angle)
    camera.SetFocalPoint(*middle.tolist())
    camera.SetPosition(*(middle + distance * towards).tolist())
    camera.SetViewUp(0.0, 0.0, 1.0)
    camera.ResetClippingRange()


def set_fill(segmentation_node: Node, fill: float, outline: float = 1.0, thickness: int = 3) -> None:
    """Opacity of the segments' area and outline in slices (0 to 1): a light fill lets an overlay shine through."""
    display = require_node(segmentation_node, "vtkMRMLSegmentationNode", "segmentation").GetDisplayNode()
    display.SetOpacity2DFill(fill)
    display.SetOpacity2DOutline(outline)
    display.SetSliceIntersectionThickness(thickness)


def show_surface(segmentation_node: Node, smoothing: float = 0.5) -> list[float]:
    """Show the segments in 3D, smoothed; their world bounds (r0, r1, a0, a1, s0, s1)."""
    require_node(segmentation_node, "vtkMRMLSegmentationNode", "segmentation")
    segmentation = segmentation_node.GetSegmentation()
    segmentation.SetConversionParameter("Smoothing factor", f"{smoothing:g}")
    segmentation_node.CreateClosedSurfaceRepresentation()
    if segmentation_node.GetDisplayNode() is None:
        segmentation_node.CreateDefaultDisplayNodes()
    segmentation_node.GetDisplayNode().SetVisibility3D(True)
    bounds = [0.0] * 6
    segmentation_node.GetRASBounds(bounds)
    return bounds


def _within(grid: Grid, centre: Sequence[float], name: str, width: float, height: float) -> list[float]:
    """The point to put into the middle of a slice view: the centre, but not so far out that half the view is empty."""
    low, high = grid.corners_ras.min(axis=0), grid.corners_ras.max(axis=0)
    middle = [float(value) for value in centre]
    for axis, size in zip({"Red": (0, 1), "Green": (0, 2), "Yellow": (1, 2)}[name], (width, height), strict=True):
        start, end = low[axis] + size / 2, high[axis] - size / 2
        middle[axis] = float(np.clip(centre[axis], start, end) if start < end else (low[axis] + high[axis]) / 2)
    return middle


def _camera(context: SceneContext) -> Node:
    view = three_d_node(context)
    scene = context.scene
    for index in range(scene.GetNumberOfNodesByClass("vtkMRMLCameraNode")):
        camera = scene.GetNthNodeByClass(index, "vtkMRMLCameraNode")
        if camera.GetLayoutName() == view.GetLayoutName():
            return camera
    camera = context.add_node("vtkMRMLCameraNode", "Default Scene Camera")
    camera.SetLayoutName(view.GetLayoutName())
    return camera


def _use_four_up(context: SceneContext) -> None:
    """The four-up layout, with the nodes of its views: three slices and one 3D view."""
    logic = slicer_module().vtkMRMLLayoutLogic()
    logic.SetMRMLScene(context.scene)
    layout = logic.GetLayoutNode()
    layout.SetViewArrangement(layout.SlicerLayoutFourUpView)
    logic.SetMRMLScene(None)
    view = three_d_node(context)
    view.SetBoxVisible(False)
    view.SetAxisLabelsVisible(False)
