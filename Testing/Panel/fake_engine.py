"""An engine in memory: the interface of `EngineClient`, answers made up at once or held back by the test."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from LKSegmentLib.engine.jobs import Event, EventKind, ImageHandle, Job
from LKSegmentLib.engine.results import ClickResult, Map, MaskBox, SegmentResult
from LKSegmentLib.prompts import Point
from LKSegmentLib.volumes import Volume

RADIUS = 3


class FakeEngine:
    """A mask is a cube of `RADIUS` voxels around every positive point, less those around the negative ones.

    Attributes:
        hold: while True, jobs report progress and do not end; `answer_one` ends the oldest all the same.
        failure: when set, the next job fails with this sentence.
        clicks: (points, with_maps) of every click request, in order.
        cancelled, closed_images: what was asked for; `is_closed`: whether `close` was called.
    """

    def __init__(self) -> None:
        self.hold = False
        self.failure = ""
        self.clicks: list[tuple[list[Point], bool]] = []
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
        return self._job("click", image, device)

    def segment(self, image: ImageHandle, model: str, device: str = "auto") -> Job:
        return self._job("segment", image, device)

    def _job(self, kind: str, image: ImageHandle, device: str) -> Job:
        assert not image.closed
        self.devices.append(device)
        asked = {"points": self.clicks[-1][0], "maps": self.clicks[-1][1]} if kind == "click" else {}
        job = Job(next(self._numbers), kind, asked, image)
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

    def _answer(self, job: Job) -> ClickResult | SegmentResult:
        assert job.image is not None
        volume = job.image.volume
        if job.kind == "segment":
            labels = np.zeros(volume.grid.shape, np.uint16)
            labels[2:6, 2:6, 2:6] = 1
            labels[8:12, 2:6, 2:6] = 2
            return SegmentResult(volume.with_array(labels), ["liver", "spleen"], [])
        points, with_maps = job.message["points"], job.message["maps"]
        mask = np.zeros(volume.grid.shape, np.uint8)
        for point in sorted(points, key=lambda one: not one.positive):
            i, j, k = np.rint(volume.grid.ijk_of(np.array(point.ras))).astype(int)
            box = tuple(slice(max(0, at - RADIUS), at + RADIUS + 1) for at in (k, j, i))
            mask[box] = 1 if point.positive else 0
        maps = []
        if with_maps:
            ramp = np.linspace(0, 1, mask.size, dtype=np.float32).reshape(mask.shape)
            maps = [Map(name, volume.with_array(ramp), {"network": "fake"}) for name in ("gate 1", "gate 2")]
        return ClickResult(MaskBox((0, 0, 0), mask), maps)

    def close(self) -> None:
        self.is_closed = True
        self._waiting.clear()
