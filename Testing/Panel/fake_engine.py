"""An engine in memory: the interface of `EngineClient`, answers made up at once or held back by the test."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from LKSegmentLib.engine.jobs import Event, EventKind, ImageHandle, Job
from LKSegmentLib.engine.results import ClickResult, InspectResult, Map, MaskBox, ReachResult, SegmentResult, Table
from LKSegmentLib.prompts import Point
from LKSegmentLib.volumes import Volume

RADIUS = 3


class FakeEngine:
    """A mask is a cube of `RADIUS` voxels around every positive point, less those around the negative ones.

    Attributes:
        hold: while True, jobs report progress and do not end; `answer_one` ends the oldest all the same.
        failure: when set, the next job fails with this sentence.
        clicks: (points, with_maps) of every click request, in order, those among them that ask for maps too.
        inspections: (layers, points) of every inspection that is no click. listings, reaches: models and places.
        nothing: a sentence, for a model that has nothing to show.
        cancelled, closed_images: what was asked for; `is_closed`: whether `close` was called.
    """

    def __init__(self) -> None:
        self.hold = False
        self.failure = ""
        self.clicks: list[tuple[list[Point], bool]] = []
        self.inspections: list[tuple[list[str] | None, list[Point]]] = []
        self.listings: list[str] = []
        self.reaches: list[tuple[tuple[float, ...], list[Point]]] = []
        self.nothing = ""
        self.devices: list[str] = []
        self.cancelled: list[Job] = []
        self.closed_images: list[ImageHandle] = []
        self.is_closed = False
        self.starts = 0
        self.worker_facts: dict[str, Any] = {}
        self._numbers = itertools.count(1)
        self._waiting: list[Job] = []
        self._events: list[Event] = []

    def start(self) -> None:
        self.starts += 1

    def open_image(self, volume: Volume) -> ImageHandle:
        return ImageHandle(next(self._numbers), volume)

    def close_image(self, image: ImageHandle) -> None:
        image.closed = True
        self.closed_images.append(image)

    def click(
        self,
        image: ImageHandle,
        model: str,
        device: str,
        points: Sequence[Point],
        with_maps: bool = False,
        target: str = "",
    ) -> Job:
        self.clicks.append((list(points), with_maps))
        return self._job("click", image, device, target, points=list(points))

    def exposed(self, model: str) -> Job:
        self.listings.append(model)
        return self._job("exposed", None, "", model=model)

    def inspect(
        self,
        image: ImageHandle,
        model: str,
        device: str,
        layers: Sequence[str] | None = None,
        points: Sequence[Point] = (),
        target: str = "",
    ) -> Job:
        names = None if layers is None else list(layers)
        if target:
            self.clicks.append((list(points), True))
        else:
            self.inspections.append((names, list(points)))
        return self._job("inspect", image, device, target, points=list(points), layers=names)

    def reach(
        self, image: ImageHandle, model: str, device: str, ras: Sequence[float], points: Sequence[Point] = ()
    ) -> Job:
        self.reaches.append((tuple(ras), list(points)))
        return self._job("reach", image, device)

    def segment(self, image: ImageHandle, model: str, device: str = "auto") -> Job:
        return self._job("segment", image, device)

    def _job(self, kind: str, image: ImageHandle | None, device: str, target: str = "", **asked: Any) -> Job:
        if image is not None:
            assert not image.closed
            self.devices.append(device)
        job = Job(next(self._numbers), kind, asked, image, target)
        job.plan = "2 maps, 3 MB beside the segmentation's 9 MB; 1 window, roughly 2 s." if kind == "inspect" else ""
        self._waiting.append(job)
        return job

    def cancel(self, job: Job, force_after: float = 2.5) -> None:
        self.cancelled.append(job)
        if job in self._waiting:
            self._waiting.remove(job)
            self._end(job, "cancelled")

    def poll(self) -> list[Event]:
        for job in list(self._waiting):
            job.state, job.stage, job.progress = "running", "looking at windows", 0.4
            self._events.append(Event(job, "progress"))
            if self.failure:
                job.error, self.failure = self.failure, ""
                self._waiting.remove(job)
                self._end(job, "failed")
            elif not self.hold:
                self._finish(job)
        events, self._events = self._events, []
        return events

    def answer_one(self) -> None:
        self._finish(self._waiting[0])

    def _finish(self, job: Job) -> None:
        job.result = self._answer(job)
        self._waiting.remove(job)
        self._end(job, "done")

    def _end(self, job: Job, state: EventKind) -> None:
        job.state = state  # type: ignore[assignment]
        self._events.append(Event(job, state))

    def _answer(self, job: Job) -> Any:
        if job.kind == "exposed":
            return listing(job.message["model"], self.nothing)
        assert job.image is not None
        volume = job.image.volume
        if job.kind == "reach":
            radii = {50: (1.0, 2.0, 3.0), 90: (4.0, 5.0, 6.0)}
            return ReachResult(self.reaches[-1][0], _ramp(volume, "reach"), radii, None, "50 % within a few mm.")
        labels = np.zeros(volume.grid.shape, np.uint16)
        labels[2:6, 2:6, 2:6] = 1
        labels[8:12, 2:6, 2:6] = 2
        whole = SegmentResult(volume.with_array(labels), ["liver", "spleen"], [])
        if job.kind == "segment":
            return whole
        mask = np.zeros(volume.grid.shape, np.uint8)
        for point in sorted(job.message["points"], key=lambda one: not one.positive):
            i, j, k = np.rint(volume.grid.ijk_of(np.array(point.ras))).astype(int)
            box = tuple(slice(max(0, at - RADIUS), at + RADIUS + 1) for at in (k, j, i))
            mask[box] = 1 if point.positive else 0
        click = ClickResult(MaskBox((0, 0, 0), mask))
        if job.kind == "click":
            return click
        names = ["gate 1", "gate 2"] if job.message["layers"] is None else job.message["layers"]
        maps = [_ramp(volume, name) for name in names if name not in ("weights", "kernel")]
        tables = [weights_table(volume)] if "weights" in names else []
        if "kernel" in names:
            maps.append(Map("kernel", Volume(np.ones((3, 3, 3), np.float32), np.eye(4)), {"space": "kernel"}))
        return InspectResult(click if job.message["points"] else whole, maps, tables)

    def close(self) -> None:
        self.is_closed = True
        self._waiting.clear()


def listing(model: str, nothing: str) -> dict[str, Any]:
    """What `exposed` answers: two gates, of which the first is a default, a table, and a kernel."""
    about = {"channels": 1, "summary": True, "kind": "native gate", "unit": "none", "operator": "a gate"}
    kinds = (("gate 1", "voxels", "recorded"), ("gate 2", "voxels", "recorded"), ("weights", "slices", "recorded"))
    entries = [
        {"name": name, "words": f"{name} of {model}", "extent": extent, "group": group, "identifiable": "yes", **about}
        | {"default": name == "gate 1"}
        for name, extent, group in (*kinds, ("kernel", "voxels", "weights"))
    ]
    kind = "click" if "click" in model else "volume"
    return {"model": model, "kind": kind, "entries": [] if nothing else entries, "nothing": nothing}


def weights_table(volume: Volume) -> Table:
    """A number for each slice of the volume."""
    places = [volume.grid.ras_of((0, 0, k)) for k in range(volume.grid.shape[0])]
    rows = tuple((k, *(float(value) for value in place), 0.1 * k) for k, place in enumerate(places))
    columns = ("slice", "R (mm)", "A (mm)", "S (mm)", "share of 3²")
    return Table("weights", columns, rows, "S (mm)", ("share of 3²",), {"unit": "none (a share)"})


def _ramp(volume: Volume, name: str) -> Map:
    """Values from 0 to 1 over the volume, with a passport."""
    ramp = np.linspace(0, 1, int(np.prod(volume.grid.shape)), dtype=np.float32).reshape(volume.grid.shape)
    passport = {"network": "fake", "model": "click_model", "kind": "native gate", "unit": "none (a factor)"}
    passport |= {"range": [0.0, 1.0], "neutral": 0.5, "identifiable": "yes"}  # type: ignore[dict-item]
    return Map(name, volume.with_array(ramp), passport | ({"kind": "gradient"} if name == "reach" else {}))
