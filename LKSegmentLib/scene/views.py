"""The four Slicer views (Red, 3D, Green, Yellow) drawn off screen by Slicer's own displayable managers, to one PNG.

A picture shows the scene as it is: what lies in the slice views, where they are and how the 3D view looks comes
from the scene's nodes (see `arrange` in `layout`), not from here.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from LKSegmentLib.errors import RunError
from LKSegmentLib.scene.core import Node, SceneContext, slicer_module
from LKSegmentLib.scene.files import written_whole
from LKSegmentLib.scene.layout import SLICE_VIEWS, THREE_D_COLOR, slice_node, three_d_node

_SLICE_MANAGERS = (
    "vtkMRMLVolumeGlyphSliceDisplayableManager",
    "vtkMRMLModelSliceDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager2D",
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLOrientationMarkerDisplayableManager",
    "vtkMRMLRulerDisplayableManager",
)
_THREE_D_MANAGERS = (
    "vtkMRMLCameraDisplayableManager",
    "vtkMRMLViewDisplayableManager",
    "vtkMRMLModelDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager3D",
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLOrientationMarkerDisplayableManager",
    "vtkMRMLRulerDisplayableManager",
)
_BORDER = np.array([24, 26, 30], dtype=np.uint8)
_PROBE = """
import vtk
window = vtk.vtkRenderWindow()
window.SetOffScreenRendering(1)
window.SetSize(16, 16)
renderer = vtk.vtkRenderer()
renderer.SetBackground(1, 0, 0)
window.AddRenderer(renderer)
window.Render()
image = vtk.vtkWindowToImageFilter()
image.SetInput(window)
image.Update()
raise SystemExit(0 if image.GetOutput().GetScalarComponentAsDouble(8, 8, 0, 0) == 255 else 3)
"""
_probed: dict[str, str | None] = {}


def rendering_problem() -> str | None:
    """None when pictures can be drawn here, else a sentence that says why not and what to do.

    Tried once, in a process of its own: with graphics libraries missing, the first attempt can end the process.
    """
    _choose_window()
    kind = os.environ.get("VTK_DEFAULT_OPENGL_WINDOW", "")
    if kind not in _probed:
        try:
            probe = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, timeout=120, check=False)
            code: int | None = probe.returncode
        except (OSError, subprocess.TimeoutExpired):
            code = None
        _probed[kind] = None if code == 0 else _what_is_missing(code)
    return _probed[kind]


def render_four_views(context: SceneContext, path: str | Path, width: int = 1600, height: int = 1200) -> Path:
    """Draw Red, 3D, Green and Yellow into one PNG of this size; returns its path.

    Raises RunError: no off-screen graphics, a folder that cannot be written, a full disk, or inside the running
    application, whose own views these would disturb.
    """
    target = Path(path)
    pixels = four_views(context, width, height)
    with written_whole(target) as temporary:
        _write_png(pixels, temporary)
    return target


def four_views(context: SceneContext, width: int = 1600, height: int = 1200, gap: int = 4) -> NDArray[np.uint8]:
    """The picture of `render_four_views` as (height, width, 3) uint8, first row on top."""
    size = ((width - 3 * gap) // 2, (height - 3 * gap) // 2)
    views = draw_views(context, size)
    picture = np.tile(_BORDER, (height, width, 1))
    places = {"Red": (0, 0), "3D": (0, 1), "Green": (1, 0), "Yellow": (1, 1)}
    for name, (row, column) in places.items():
        y, x = gap + row * (size[1] + gap), gap + column * (size[0] + gap)
        picture[y : y + size[1], x : x + size[0]] = views[name]
    return picture


def draw_views(
    context: SceneContext, size: tuple[int, int], names: Sequence[str] = ("Red", "3D", "Green", "Yellow")
) -> dict[str, NDArray[np.uint8]]:
    """Each view by name as (height, width, 3) uint8, first row on top; `size` is (width, height).

    Raises RunError as `render_four_views` does.
    """
    if context.in_application:
        raise RunError("Inside Slicer the views are on the screen already: use its Screen Capture module for pictures.")
    problem = rendering_problem()
    if problem is not None:
        raise RunError(problem)
    drawn: dict[str, NDArray[np.uint8]] = {}
    for name in names:
        view = ThreeDView(context, size) if name == "3D" else SliceView(context, name, size)
        drawn[name] = view.pixels()
        view.close()
    return drawn


class OffscreenView:
    """A render window nobody sees, filled by Slicer's displayable managers from one view node."""

    def __init__(
        self, context: SceneContext, factory: Any, managers: Sequence[str], size: tuple[int, int], layers: int
    ) -> None:
        import vtk

        slicer = slicer_module()
        self.size = size
        self.renderer = vtk.vtkRenderer()
        self.window = vtk.vtkRenderWindow()
        self.window.SetOffScreenRendering(1)
        self.window.SetMultiSamples(8)
        self.window.SetAlphaBitPlanes(1)
        self.window.SetNumberOfLayers(layers)
        self.window.SetSize(*size)
        self.window.AddRenderer(self.renderer)
        self._interactor = vtk.vtkGenericRenderWindowInteractor()
        self._interactor.SetRenderWindow(self.window)
        factory.SetMRMLApplicationLogic(context.application_logic)
        for name in managers:
            if hasattr(slicer, name) and not factory.IsDisplayableManagerRegistered(name):
                factory.RegisterDisplayableManager(name)
        self._group = slicer.vtkMRMLDisplayableManagerGroup()
        self._group.Initialize(factory, self.renderer)

    def pixels(self) -> NDArray[np.uint8]:
        """What the view shows: (height, width, 3) uint8, first row on top."""
        import vtk
        from vtk.util import numpy_support

        self.window.Render()
        grab = vtk.vtkWindowToImageFilter()
        grab.SetInput(self.window)
        grab.ReadFrontBufferOff()
        grab.SetInputBufferTypeToRGB()
        grab.Update()
        image = grab.GetOutput()
        width, height, _ = image.GetDimensions()
        values = numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())
        return np.array(values.reshape(height, width, 3)[::-1], dtype=np.uint8)

    def close(self) -> None:
        """Free the graphics memory."""
        self._group.SetMRMLDisplayableNode(None)
        self.window.Finalize()

    def label(self, text: str, color: Sequence[float]) -> None:
        """Name the view in its upper left corner, and mark it with a bar of its colour on top."""
        import vtk

        width, height = self.size
        bar = vtk.vtkActor2D()
        corners = vtk.vtkPoints()
        thickness = max(3, height // 130)
        for x, y in ((0, height - thickness), (width, height - thickness), (width, height), (0, height)):
            corners.InsertNextPoint(x, y, 0)
        cells = vtk.vtkCellArray()
        cells.InsertNextCell(4, [0, 1, 2, 3])
        rectangle = vtk.vtkPolyData()
        rectangle.SetPoints(corners)
        rectangle.SetPolys(cells)
        mapper = vtk.vtkPolyDataMapper2D()
        mapper.SetInputData(rectangle)
        bar.SetMapper(mapper)
        bar.GetProperty().SetColor(*color)
        self.renderer.AddViewProp(bar)
        words = vtk.vtkTextActor()
        words.SetInput(text)
        style = words.GetTextProperty()
        style.SetFontFamilyToArial()
        style.SetFontSize(max(12, height // 30))
        style.SetColor(0.96, 0.96, 0.96)
        style.SetShadow(True)
        style.SetVerticalJustificationToTop()
        words.SetPosition(height // 45, height - thickness - height // 60)
        self.renderer.AddViewProp(words)


class SliceView(OffscreenView):
    """One slice view, at the slice its node is at, fitted to this size."""

    def __init__(self, context: SceneContext, name: str, size: tuple[int, int]) -> None:
        import vtk

        slicer = slicer_module()
        factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
        super().__init__(context, factory, _SLICE_MANAGERS, size, layers=2)
        self.renderer.GetActiveCamera().ParallelProjectionOn()
        self.renderer.SetBackground(0.0, 0.0, 0.0)
        # Markups and legends are drawn into a layer above the image.
        above = vtk.vtkRenderer()
        above.SetLayer(1)
        above.GetActiveCamera().ParallelProjectionOn()
        self.window.AddRenderer(above)
        self.logic = slicer.vtkMRMLSliceLogic()
        self.logic.SetMRMLApplicationLogic(context.application_logic)
        self.logic.SetMRMLScene(context.scene)
        orientation, color = SLICE_VIEWS[name]
        self.node = slice_node(context, name)
        self.logic.SetSliceNode(self.node)
        self._resize(*size)
        # Before everything else: what is drawn first blends into black, not into an image that comes later.
        mapper = vtk.vtkImageMapper()
        mapper.SetColorWindow(255)
        mapper.SetColorLevel(127.5)
        mapper.SetInputConnection(self.logic.GetImageDataConnection())
        image = vtk.vtkActor2D()
        image.SetMapper(mapper)
        image.GetProperty().SetDisplayLocationToBackground()
        self.renderer.AddViewProp(image)
        logics = context.application_logic.GetSliceLogics()
        logics.AddItem(self.logic)
        self._logics = logics
        self._group.SetMRMLDisplayableNode(self.node)
        self._draw_legends(context)
        self.label(f"{orientation}   {_place_text(orientation, self.node)}", color)

    def close(self) -> None:
        self._logics.RemoveItem(self.logic)
        super().close()

    def _draw_legends(self, context: SceneContext) -> None:
        """The colour legends of the scene that belong into this view.

        Slicer's manager for them only notices legends that are added after it: these are there already.
        """
        import vtk

        foreground = self.logic.GetSliceCompositeNode().GetForegroundVolumeID()
        scene = context.scene
        for index in range(scene.GetNumberOfNodesByClass("vtkMRMLColorLegendDisplayNode")):
            legend = scene.GetNthNodeByClass(index, "vtkMRMLColorLegendDisplayNode")
            shown = legend.GetDisplayableNode()
            if shown is None or shown.GetID() != foreground or not legend.GetVisibility(self.node.GetID()):
                continue
            display = legend.GetPrimaryDisplayNode() or shown.GetDisplayNode()
            colors = display.GetColorNode().CreateLookupTableCopy()
            colors.SetTableRange(display.GetWindowLevelMin(), display.GetWindowLevelMax())
            bar = vtk.vtkScalarBarActor()
            bar.SetLookupTable(colors)
            bar.SetTitle(legend.GetTitleText())
            bar.SetNumberOfLabels(legend.GetNumberOfLabels())
            bar.SetLabelFormat(legend.GetLabelFormat())
            bar.SetMaximumNumberOfColors(256)
            bar.SetPosition(0.86, 0.06)
            bar.SetWidth(0.12)
            bar.SetHeight(0.5)
            bar.SetBarRatio(0.22)
            bar.UnconstrainedFontSizeOn()
            for style, share in ((bar.GetTitleTextProperty(), 34), (bar.GetLabelTextProperty(), 36)):
                style.SetFontFamilyToArial()
                style.SetFontSize(max(11, self.size[1] // share))
                style.SetColor(0.96, 0.96, 0.96)
                style.ItalicOff()
                style.BoldOff()
                style.SetShadow(True)
            self.renderer.AddViewProp(bar)

    def _resize(self, width: int, height: int) -> None:
        """Fit this window, keeping what is in the middle and how much of the body the shorter side shows."""
        old = self.node.GetFieldOfView()
        shorter = min(old[0], old[1])
        self.node.SetDimensions(width, height, 1)
        scale = shorter / min(width, height)
        self.node.SetFieldOfView(width * scale, height * scale, old[2])


class ThreeDView(OffscreenView):
    """The 3D view: closed surfaces and points, seen from where its camera node stands."""

    def __init__(self, context: SceneContext, size: tuple[int, int]) -> None:
        slicer = slicer_module()
        factory = slicer.vtkMRMLThreeDViewDisplayableManagerFactory.GetInstance()
        super().__init__(context, factory, _THREE_D_MANAGERS, size, layers=1)
        self.renderer.SetUseDepthPeeling(True)
        self.node = three_d_node(context)
        self._group.SetMRMLDisplayableNode(self.node)
        self.label("3D", THREE_D_COLOR)

    @property
    def camera_node(self) -> Node:
        """The `vtkMRMLCameraNode` of this view."""
        manager = self._group.GetDisplayableManagerByClassName("vtkMRMLCameraDisplayableManager")
        return manager.GetCameraNode()


def _choose_window() -> None:
    if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
        os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")


def _what_is_missing(code: int | None) -> str:
    how = {None: "did not finish", 3: "gave an empty picture"}.get(code, f"ended with code {code}")
    return (
        f"Pictures cannot be drawn on this machine: a first off-screen rendering {how}. "
        "On Debian or Ubuntu install libegl1, libgl1 and libgl1-mesa-dri; everything else works without them."
    )


def _place_text(orientation: str, slice_node: Node) -> str:
    """Where the slice lies, in the world: the offset alone counts along the slice's normal, which may point to L."""
    axis, directions = {"Sagittal": (0, "RL"), "Coronal": (1, "AP"), "Axial": (2, "SI")}[orientation]
    place = slice_node.GetSliceToRAS().GetElement(axis, 3)
    return f"{directions[0] if place >= 0 else directions[1]} {abs(place):.1f} mm"


def image_data(pixels: NDArray[np.uint8]) -> Any:
    """A picture (height, width, 3) uint8, first row on top, as `vtkImageData`."""
    import vtk
    from vtk.util import numpy_support

    height, width, _ = pixels.shape
    image = vtk.vtkImageData()
    image.SetDimensions(width, height, 1)
    scalars = numpy_support.numpy_to_vtk(np.ascontiguousarray(pixels[::-1]).reshape(-1, 3), deep=True)
    image.GetPointData().SetScalars(scalars)
    return image


def _write_png(pixels: NDArray[np.uint8], path: Path) -> None:
    import vtk

    writer = vtk.vtkPNGWriter()
    writer.SetFileName(str(path))
    writer.SetInputData(image_data(pixels))
    writer.Write()
    if writer.GetErrorCode():
        raise RunError(f"The picture {path} could not be written. Check the disk's free space.")
