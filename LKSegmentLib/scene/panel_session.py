"""What the panel does between the scene and the engine: every decision of it, without Qt.

The one invariant: the preview is the mask for (image, model, device, points in click order). Whoever changes one of
them asks `needs_mask` and, a moment later, `request_mask`. Results come in through `poll`, which a timer calls.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from LKSegmentLib.engine.client import EngineClient
from LKSegmentLib.engine.jobs import Job
from LKSegmentLib.engine.results import ClickResult, InspectResult, ReachResult, SegmentResult
from LKSegmentLib.errors import LKSegmentError
from LKSegmentLib.packages.catalogue import Entry, catalogue, user_folder
from LKSegmentLib.prompts import Point
from LKSegmentLib.scene.core import Node, SceneContext
from LKSegmentLib.scene.inspection_session import InspectionSession
from LKSegmentLib.scene.label_import import LabelImport
from LKSegmentLib.scene.pointing import Pointing
from LKSegmentLib.scene.preview import ClickPreview, remove_left_over_previews
from LKSegmentLib.scene.requests import CLICK, SceneRequests
from LKSegmentLib.scene.segments import SegmentWriter
from LKSegmentLib.scene.state import PanelState
from LKSegmentLib.scene.targets import free_segment_name, ready_segmentation
from LKSegmentLib.scene.translation import _


class Request(NamedTuple):
    """What a preview comes from."""

    volume_id: str | None = None
    model: str = ""
    device: str = ""
    points: tuple[Point, ...] = ()
    with_maps: bool = False
    layers: tuple[str, ...] | None = None


NOTHING = Request()


class PanelSession:
    """One person's work with the panel. Nothing here waits for the worker, except `close`.

    Args:
        context: the scene to work in.
        make_engine: called when the first request needs an `EngineClient`, and again after `restart_worker`.
        save_state: see `SegmentWriter`.

    Attributes:
        state: what the panel shows, kept in the scene.
        device: where networks run. It belongs to the computer, not to the scene.
        models: the installed models by name.
        pointing: what the mouse does: points and drawings, and which of them there are.
        inspection: what looks inside: recording maps, showing them, reach.
        status: the sentence for the status line.
    """

    def __init__(
        self,
        context: SceneContext,
        make_engine: Callable[[], EngineClient] = EngineClient,
        save_state: Callable[[Node], bool] | None = None,
    ) -> None:
        self.context = context
        self.state = PanelState(context)
        self.pointing = Pointing(context, self.state)
        self.preview = ClickPreview(context)
        self.writer = SegmentWriter(context, save_state=save_state)
        self.device = "auto"
        self.models: dict[str, Entry] = {}
        self.status = ""
        self._requests = SceneRequests(make_engine)
        self.inspection = InspectionSession(context, self.state, self._requests)
        self._asked = self._recorded = NOTHING
        self._follows_points = False
        self._preview_voxels = 0
        self._labels = LabelImport(context, self.state, self.writer)
        remove_left_over_previews(context)

    # what there is ----------------------------------------------------------------------------------------

    def refresh_models(self) -> None:
        """Read the list of installed models; choose the first click model where none is chosen."""
        self.models = {entry.name: entry for entry in catalogue()}
        if not self.state.model and self.models:
            clickable = [name for name, entry in self.models.items() if entry.kind == "click"]
            self.state.model = (clickable or list(self.models))[0]

    def choose_default_volume(self) -> None:
        """Where no input volume is chosen, take the one in the background of the first slice view."""
        composite = self.context.scene.GetFirstNodeByClass("vtkMRMLSliceCompositeNode")
        shown = composite.GetBackgroundVolumeID() if composite is not None else None
        node = self.context.scene.GetNodeByID(shown) if shown else None
        if self.state.input_volume is None and node is not None and node.IsA("vtkMRMLScalarVolumeNode"):
            self.state.input_volume = node

    @property
    def model_kind(self) -> str:
        """The kind of the chosen model, "click" or "volume"; "" when it is not installed or none is chosen."""
        entry = self.models.get(self.state.model)
        return entry.kind if entry is not None else ""

    @property
    def has_preview(self) -> bool:
        """Whether there is a mask to accept."""
        return self._preview_voxels > 0 and self.preview.node is not None

    def points(self) -> list[Point]:
        """All placed points in the order of the clicks."""
        return self.pointing.points()

    def why_not(self, action: str) -> str:
        """What an action lacks, as a sentence; "" when it can be done.

        action: "place", "segment", "undo", "accept", "cancel", "stop", "record", "reach", "probe", "overlay",
        "second", "table", "restore" or "remove".
        """
        if action in ("record", "reach", "probe", "overlay", "second", "table", "restore", "remove"):
            missing = self._why_not_run(self.model_kind or CLICK) if action in ("record", "reach") else ""
            return missing or self.inspection.why_not(action, self.state.model, self.model_kind, self.points())
        if action in ("place", "segment"):
            return self._why_not_run("click" if action == "place" else "volume")
        if action == "undo":
            return "" if self.pointing.has_something else _("There is no point to take back.")
        if action == "accept":
            return "" if self.has_preview else _("There is no preview to accept: place a point first.")
        if action == "cancel":
            something = self.has_preview or self.job is not None or self.pointing.has_something
            return "" if something else _("There is no preview and no point to remove.")
        return "" if self.job is not None else _("No job is running.")

    def _why_not_run(self, kind: str) -> str:
        if self.state.input_volume is None:
            return _("Choose an input volume first.")
        if not self.models:
            return _("No model is installed: put a model package into {folder}.").format(folder=user_folder())
        if not self.model_kind:
            return _("The model '{name}' is not installed: choose another one.").format(name=self.state.model)
        if self.model_kind != kind and kind == "click":
            return _("This model segments the whole volume and takes no points.")
        if self.model_kind != kind:
            return _("This model segments what is pointed at: place points instead.")
        if kind == "volume" and self._requests.is_computing:
            return _("A job is running: stop it first.")
        return ""

    # the worker -------------------------------------------------------------------------------------------

    @property
    def job(self) -> Job | None:
        """The newest unfinished job."""
        return self._requests.newest

    @property
    def is_busy(self) -> bool:
        """Whether `poll` must be called from time to time."""
        return self._requests.is_busy or self.inspection.is_arriving or self._labels.is_busy

    @property
    def worker_facts(self) -> dict[str, Any]:
        """Process, interpreter and versions of a worker that is ready; else empty."""
        return self._requests.worker_facts

    def restart_worker(self) -> None:
        """End the worker; the next request starts a fresh one."""
        self._requests.restart()
        self.inspection.forget()
        self._asked = NOTHING
        self.status = _("The worker was stopped. The next request starts a fresh one.")

    def close(self) -> None:
        """End the worker and wait until it is gone, a second or two."""
        self._requests.close()
        self._asked = NOTHING

    def stop(self) -> None:
        """Stop what is running; points and preview stay."""
        self._requests.stop()

    def needs_mask(self) -> bool:
        """Whether image, model, device or points are not those of the last request, or maps are wanted and missing.

        Not before somebody has placed or moved a point: a scene that brings points along starts nothing by itself. Nor
        while something is being drawn.
        """
        wanted = self._wanted()
        follows = self._follows_points and not self.pointing.drawing.has_begun
        if not follows or (wanted.points and self._why_not_run("click")):
            return False
        if wanted[:4] != self._asked[:4]:
            return True
        return wanted.with_maps and wanted[4:] != self._asked[4:]

    def follow_points(self) -> None:
        """Somebody works with the points: from now on the preview follows them."""
        self._follows_points = True

    def _wanted(self, with_maps: bool = False) -> Request:
        points, volume = tuple(self.points()), self.state.input_volume
        if not points or volume is None:
            return NOTHING
        with_maps, model = with_maps or self.state.overlay_visible, self.state.model
        layers = self.inspection.followed(model) if with_maps else None
        return Request(volume.GetID(), model, self.device, points, with_maps, layers)

    def request_mask(self) -> None:
        """Ask for the mask after all points, in order. Without a point the preview goes.

        Raises InputError when the volume cannot be used.
        """
        self._asked = asked = self._wanted()
        if not asked.points:
            self._requests.abandon(CLICK)
            self._remove_preview()
            self.status = ""
            return
        self.poll()  # a worker that has ended meanwhile is noticed before the request, not by it
        where = (self.state.input_volume, asked.model, asked.device)
        if asked.with_maps:
            self._requests.inspect(*where, asked.layers, asked.points, follows=True)
        else:
            self._requests.click(*where, asked.points)
        self.status = _("Segmenting...")

    def request_segmentation(self) -> None:
        """Ask for every structure the model knows, in the whole volume. Raises InputError as `request_mask`."""
        self.poll()
        self._requests.segment(self.state.input_volume, self.state.model, self.device)
        self.status = _("Segmenting the whole volume...")

    def request_maps(self) -> None:
        """Record the chosen maps and tables. Raises InputError as `request_mask`."""
        self.poll()
        self.status = self.inspection.record(self.state.model, self.device, self._given_points())
        self._recorded = self._wanted(with_maps=True)

    def request_reach(self) -> None:
        """Compute the reach at the crosshair. Raises InputError as `request_mask`, and for a crosshair elsewhere."""
        self.poll()
        self.status = self.inspection.reach(self.state.model, self.device, self._given_points())

    def _given_points(self) -> list[Point]:
        return self.points() if self.model_kind == CLICK else []

    def poll(self) -> bool:
        """Take in what the worker sent; True when the panel has something new to show."""
        ended, something = self._requests.poll()
        if self.job is not None and self.job.plan:
            self.status = self.job.plan
        for event in ended:
            if event.kind != "done" and event.job.kind == "exposed":
                self.inspection.listing_failed(event.job.message["model"])
            if event.kind == "failed":
                self.status = event.job.error
            elif event.kind == "cancelled":
                self.status = _("Stopped.")
            else:
                self._attempt(lambda job=event.job: self._take(job))  # type: ignore[misc]
        if not ended and self._labels.is_busy:
            self._attempt(self._import)
            return not self._labels.is_busy
        if not ended and self.inspection.is_arriving:
            self._attempt(self.inspection.step)
            return True
        return something

    def _import(self) -> None:
        self.status = self._labels.step() or self.status

    def _attempt(self, action: Callable[[], object]) -> None:
        try:
            action()
        except LKSegmentError as error:
            self.status = str(error)

    def _take(self, job: Job) -> None:
        result = job.result
        if job.kind == "exposed":
            self.inspection.take_listing(result, job.message["model"])
            return
        volume = self.context.scene.GetNodeByID(self._requests.volume_id)  # not what is chosen by now
        if isinstance(result, SegmentResult):
            self._labels.start(result, volume)
        elif isinstance(result, ReachResult) or (isinstance(result, InspectResult) and job.target != CLICK):
            self.status = " ".join((self.inspection.take(result, volume), *job.warnings))
            if job.kind == "inspect" and self._recorded[:4] == self._asked[:4]:
                self._asked = self._recorded  # the maps of these points are there
        elif job.image is not None and volume is self.state.input_volume:
            answer: Any = result.answer if isinstance(result, InspectResult) else result
            self._show(answer, math.prod(job.image.volume.spacing))
            if isinstance(result, InspectResult):
                self.inspection.take_followed(result, volume)

    # the scene --------------------------------------------------------------------------------------------

    def _show(self, result: ClickResult, voxel_volume: float) -> None:
        self.preview.show(result.box, self.state.input_volume)
        if self.preview.node is not None:
            # Kept out of the selectors: it is no segmentation that could be chosen.
            self.preview.node.SetHideFromEditors(True)
        self._preview_voxels = int((result.box.array > 0).sum())
        if self._preview_voxels:
            size = self._preview_voxels * voxel_volume / 1000.0
            self.status = _("Preview: {size:.3g} ml. Refine it with points, or accept it.").format(size=size)
        else:
            self.status = _("The model found nothing there. Add a point, or take one back.")

    def leave(self) -> None:
        """The panel is left: the mouse and the slice views are the user's own again, until `enter`."""
        self.pointing.leave()
        self.inspection.leave()

    def _target(self, volume: Node | None) -> Node:
        chosen = ready_segmentation(self.context, self.state.target_segmentation, volume)
        self.state.target_segmentation = chosen
        return chosen

    def accept(self) -> None:
        """Write the preview, as it is shown, into the chosen segment or a new one as one undo step; the points go.

        Raises InputError when it cannot be written; then everything stays as it is.
        """
        volume = self.preview.volume
        target, identifier = self._target(volume or self.state.input_volume), self.state.segment_id
        new_name = "" if identifier else free_segment_name(target)
        identifier = identifier or target.GetSegmentation().GenerateUniqueSegmentID(new_name)
        self.preview.accept(self.writer, target, identifier, volume, new_name=new_name)
        name = target.GetSegmentation().GetSegment(identifier).GetName()
        self._requests.abandon(CLICK)
        self._remove_points()
        self._remove_preview()
        self.status = _("Written into the segment '{segment}' of '{segmentation}'.").format(
            segment=name, segmentation=target.GetName()
        )

    def cancel(self) -> None:
        """Stop what is running, remove preview and points, and hide the overlays; what was recorded stays."""
        self._requests.abandon()
        self._remove_points()
        self._remove_preview()
        self.inspection.suspend()
        self.status = ""

    def undo_point(self) -> None:
        """Take back the last point or stroke; the mask before it is shown. Raises InputError as `request_mask`.

        While something is being drawn, that is taken back, and no mask is asked for.
        """
        self.follow_points()
        self.pointing.undo()
        if self.needs_mask() or not self.points():
            self.request_mask()

    def _remove_points(self) -> None:
        self.pointing.remove()
        self._asked = NOTHING

    def _remove_preview(self) -> None:
        self.preview.cancel()
        self._preview_voxels = 0

    def take_tool(self, tool: str) -> None:
        """Let the mouse place points or draw; the worker starts meanwhile, to be warm for the first of them.

        tool: "positive" or "negative" for points, else one of `strokes.TOOLS`. The tool the mouse holds is put down.
        """
        if tool == self.pointing.tool:
            self.pointing.put_down()
            return
        self.pointing.take(tool)
        self.follow_points()
        self._requests.engine.start()

    def on_node_leaving(self, node: Node) -> None:
        """A deleted drawing is no longer drawn.

        With the input volume its job and points go; a preview stays, to be accepted or cancelled.
        """
        self.pointing.drawing.on_node_leaving(node)
        if node.GetID() == self._requests.volume_id:
            self._requests.close_image()
            self._remove_points()
            self.status = _("The volume '{name}' was deleted, so its job and its points were removed.").format(
                name=node.GetName()
            )

    def on_scene_closing(self) -> None:
        """What belongs to the scene is let go; the worker stays warm."""
        self._requests.close_image()
        self.inspection.on_scene_closing()
        self._labels.forget()
        self._asked, self._follows_points = NOTHING, False
        self.status, self._preview_voxels = "", 0
