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
from LKSegmentLib.engine.results import ClickResult, SegmentResult
from LKSegmentLib.errors import InputError, LKSegmentError
from LKSegmentLib.packages.catalogue import Entry, catalogue, user_folder
from LKSegmentLib.prompts import Point
from LKSegmentLib.scene import overlays, prompts
from LKSegmentLib.scene.core import Node, SceneContext
from LKSegmentLib.scene.preview import ClickPreview, remove_left_over_previews
from LKSegmentLib.scene.requests import SceneRequests
from LKSegmentLib.scene.segments import SegmentWriter
from LKSegmentLib.scene.state import PanelState
from LKSegmentLib.scene.targets import free_segment_name, new_segmentation, ready_segmentation
from LKSegmentLib.scene.terminology import label_entries

try:
    from slicer.i18n import tr as _
except ImportError:  # slicer-core alone has no translations

    def _(text: str) -> str:
        return text


class Request(NamedTuple):
    """What a preview comes from."""

    volume_id: str | None = None
    model: str = ""
    device: str = ""
    points: tuple[Point, ...] = ()
    with_maps: bool = False


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
        map_names, map_name: the maps of the last result, and the one that is shown over the image.
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
        self.preview = ClickPreview(context)
        self.writer = SegmentWriter(context, save_state=save_state)
        self.device = "auto"
        self.models: dict[str, Entry] = {}
        self.map_names: list[str] = []
        self.map_name = ""
        self.status = ""
        self._requests = SceneRequests(make_engine)
        self._asked = NOTHING
        self._follows_points = False
        self._result: ClickResult | None = None
        self._preview_voxels = 0
        self._is_left = False
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
        positive, negative = self.state.positive_points, self.state.negative_points
        prompts.number_points(positive, negative)
        return prompts.points_of(positive, negative)

    def why_not(self, action: str) -> str:
        """What an action lacks, as a sentence; "" when it can be done.

        action: "place", "segment", "undo", "accept", "cancel", "stop" or "overlay".
        """
        if action in ("place", "segment"):
            return self._why_not_run("click" if action == "place" else "volume")
        if action == "undo":
            return "" if self.points() else _("There is no point to take back.")
        if action == "accept":
            return "" if self.has_preview else _("There is no preview to accept: place a point first.")
        if action == "cancel":
            something = self.has_preview or self.job is not None or self.points()
            return "" if something else _("There is no preview and no point to remove.")
        if action == "overlay":
            return "" if self.model_kind != "volume" else _("So far only models that take points show their maps.")
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
        if kind == "volume" and self.job is not None:
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
        return self._requests.is_busy

    @property
    def worker_facts(self) -> dict[str, Any]:
        """Process, interpreter and versions of a worker that is ready; else empty."""
        return self._requests.worker_facts

    def restart_worker(self) -> None:
        """End the worker; the next request starts a fresh one."""
        self._requests.restart()
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

        Not before somebody has placed or moved a point: a scene that brings points along starts nothing by itself.
        """
        wanted = self._wanted()
        if not self._follows_points or (wanted.points and self._why_not_run("click")):
            return False
        return wanted[:4] != self._asked[:4] or (wanted.with_maps and not self._asked.with_maps)

    def follow_points(self) -> None:
        """Somebody works with the points: from now on the preview follows them."""
        self._follows_points = True

    def _wanted(self) -> Request:
        points, volume = tuple(self.points()), self.state.input_volume
        if not points or volume is None:
            return NOTHING
        return Request(volume.GetID(), self.state.model, self.device, points, self.state.overlay_visible)

    def request_mask(self) -> None:
        """Ask for the mask after all points, in order. Without a point the preview goes.

        Raises InputError when the volume cannot be used.
        """
        self._asked = asked = self._wanted()
        if asked.volume_id != self._requests.volume_id:
            self._result = None  # its maps are of another image
        if not asked.points:
            self._requests.abandon("click")
            self._remove_preview()
            self.status = ""
            return
        self.poll()  # a worker that has ended meanwhile is noticed before the request, not by it
        self._requests.click(self.state.input_volume, asked.model, asked.device, asked.points, asked.with_maps)
        self.status = _("Segmenting...")

    def request_segmentation(self) -> None:
        """Ask for every structure the model knows, in the whole volume. Raises InputError as `request_mask`."""
        self.poll()
        self._requests.segment(self.state.input_volume, self.state.model, self.device)
        self.status = _("Segmenting the whole volume...")

    def poll(self) -> bool:
        """Take in what the worker sent; True when the panel has something new to show."""
        ended, something = self._requests.poll()
        for event in ended:
            if event.kind == "failed":
                self.status = event.job.error
            elif event.kind == "cancelled":
                self.status = _("Stopped.")
            else:
                try:
                    self._take(event.job)
                except LKSegmentError as error:
                    self.status = str(error)
        return something

    def _take(self, job: Job) -> None:
        volume = self.context.scene.GetNodeByID(self._requests.volume_id)  # not what is chosen by now
        if isinstance(job.result, SegmentResult):
            self._import(job.result, volume)
        elif job.image is not None and volume is self.state.input_volume:
            self._show(job.result, math.prod(job.image.volume.spacing))

    # the scene --------------------------------------------------------------------------------------------

    def _show(self, result: ClickResult, voxel_volume: float) -> None:
        self.preview.show(result.box, self.state.input_volume)
        if self.preview.node is not None:
            # Kept out of the selectors: it is no segmentation that could be chosen.
            self.preview.node.SetHideFromEditors(True)
        self._result = result
        self._preview_voxels = int((result.box.array > 0).sum())
        if self._preview_voxels:
            size = self._preview_voxels * voxel_volume / 1000.0
            self.status = _("Preview: {size:.3g} ml. Refine it with points, or accept it.").format(size=size)
        else:
            self.status = _("The model found nothing there. Add a point, or take one back.")
        self.update_overlay()

    def update_overlay(self) -> None:
        """Show the chosen map of the last result over the image, or put the slice views back."""
        maps = {found.name: found for found in (self._result.maps if self._result is not None else [])}
        self.map_names = list(maps) or self.map_names
        if self.map_name not in self.map_names:
            self.map_name = self.map_names[0] if self.map_names else ""
        if self._is_left or not self.state.overlay_visible:
            overlays.hide(self.context)
            return
        shown, image = maps.get(self.map_name), self.state.input_volume
        if shown is not None and image is not None:
            self.state.overlay = overlays.map_node(self.context, shown.name, shown.volume, shown.passport, image)
        if self.state.overlay is not None:
            overlays.show(self.context, self.state.overlay, self.state.overlay_opacity)

    def enter(self) -> None:
        """The panel is open (again): the overlay is shown where it is wanted."""
        self._is_left = False
        self.update_overlay()

    def leave(self) -> None:
        """The panel is left: the mouse and the slice views are the user's own again, until `enter`."""
        self._is_left = True
        self.stop_placing()
        overlays.hide(self.context)

    def _target(self, volume: Node | None) -> Node:
        chosen = ready_segmentation(self.context, self.state.target_segmentation, volume)
        self.state.target_segmentation = chosen
        return chosen

    def _import(self, result: SegmentResult, volume: Node) -> None:
        entries, labels = label_entries(result.entries or result.names), result.labels
        problem, said = "", _("{count} segments were added to '{name}'.")
        try:
            target = self._target(volume)
            added = self.writer.import_labels(target, labels.array, entries, labels.ijk_to_ras)
        except InputError as error:  # minutes of work are not thrown away because they have no place
            target = self.state.target_segmentation = new_segmentation(self.context, volume)
            added = self.writer.import_labels(target, labels.array, entries, labels.ijk_to_ras)
            problem, said = f"{error} ", _("The {count} segments went into the new segmentation '{name}' instead.")
        self.status = problem + said.format(count=len(added), name=target.GetName())

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
        self._requests.abandon("click")
        self._remove_points()
        self._remove_preview()
        self.status = _("Written into the segment '{segment}' of '{segmentation}'.").format(
            segment=name, segmentation=target.GetName()
        )

    def cancel(self) -> None:
        """Stop what is running and remove preview, points and overlay."""
        self._requests.abandon()
        self._remove_points()
        self._remove_preview()
        overlays.hide(self.context)
        overlay, self.state.overlay = self.state.overlay, None
        if overlay is not None:
            self.context.scene.RemoveNode(overlay)
        self.status = ""

    def undo_point(self) -> None:
        """Take back the last point; the mask before it is shown. Raises InputError as `request_mask`."""
        self.follow_points()
        prompts.undo_last(self.state.positive_points, self.state.negative_points)
        self.request_mask()

    def _remove_points(self) -> None:
        prompts.remove_points(self.state.positive_points, self.state.negative_points)
        self._asked = NOTHING

    def _remove_preview(self) -> None:
        self.preview.cancel()
        self._preview_voxels, self._result = 0, None

    def start_placing(self, positive: bool) -> None:
        """Let the mouse place points; the worker starts meanwhile, to be warm for the first of them."""
        nodes = [self.state.positive_points, self.state.negative_points]
        if None in nodes:
            for node in nodes:
                if node is not None:
                    self.context.scene.RemoveNode(node)
            nodes = list(prompts.create_point_nodes(self.context, "LKSegment"))
            self.state.positive_points, self.state.negative_points = nodes
        prompts.start_placing(self.context, nodes[0] if positive else nodes[1])
        self.follow_points()
        self._requests.engine.start()

    def stop_placing(self) -> None:
        """Back to the usual mouse, if the mouse places our points."""
        if self.placing():
            prompts.stop_placing(self.context)

    def placing(self) -> str:
        """Which points the mouse places now: "positive", "negative", or "" for none of ours."""
        node = prompts.placing_node(self.context)
        if node is None:
            return ""
        if node is self.state.positive_points:
            return "positive"
        return "negative" if node is self.state.negative_points else ""

    def on_node_leaving(self, node: Node) -> None:
        """The input volume is being deleted: its job stops; a preview stays, to be accepted or cancelled."""
        if node.GetID() == self._requests.volume_id:
            self._requests.close_image()
            self._remove_points()
            self.status = _("The volume '{name}' was deleted, so its job and its points were removed.").format(
                name=node.GetName()
            )

    def on_scene_closing(self) -> None:
        """What belongs to the scene is let go; the worker stays warm."""
        self._requests.close_image()
        self._asked, self._result, self._follows_points = NOTHING, None, False
        self.map_names, self.map_name, self.status, self._preview_voxels = [], "", "", 0
