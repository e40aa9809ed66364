"""Requests to the worker about the volume nodes of a scene: opened images, unfinished jobs, results that still fit."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from LKSegmentLib.engine.client import EngineClient
from LKSegmentLib.engine.jobs import Event, ImageHandle, Job
from LKSegmentLib.errors import InputError
from LKSegmentLib.prompts import Point
from LKSegmentLib.scene.core import Node
from LKSegmentLib.scene.volumes import grid_of, volume_of

CLICK = "click"
"""The jobs that follow the points: of several, only the newest counts."""


class SceneRequests:
    """One image at a time, and the jobs about it. Nothing here waits for the worker, except `close`.

    Args:
        make_engine: called when the first request needs a client, and again after `restart`.
    """

    def __init__(self, make_engine: Callable[[], EngineClient] = EngineClient) -> None:
        self._make_engine = make_engine
        self._engine: EngineClient | None = None
        self._jobs: list[Job] = []
        self._abandoned: list[Job] = []
        self._image: tuple[tuple[Any, ...], ImageHandle] | None = None

    @property
    def engine(self) -> EngineClient:
        """The client of the worker; made when it is first needed."""
        if self._engine is None:
            self._engine = self._make_engine()
        return self._engine

    @property
    def worker_facts(self) -> dict[str, Any]:
        """See `EngineClient.worker_facts`; empty before the first request."""
        return self._engine.worker_facts if self._engine is not None else {}

    @property
    def is_computing(self) -> bool:
        """Whether something runs that would have to be waited for: not a click, nor the list of a model's maps."""
        return any(_family(job) not in (CLICK, "exposed") for job in self._jobs)

    @property
    def newest(self) -> Job | None:
        """The newest unfinished job."""
        return self._jobs[-1] if self._jobs else None

    @property
    def is_busy(self) -> bool:
        """Whether `poll` must be called: some job's end has not been reported, or a cancelled one has not ended."""
        return bool(self._jobs) or any(not job.is_over for job in self._abandoned)

    @property
    def volume_id(self) -> str | None:
        """The id of the volume node whose image is open."""
        return str(self._image[0][0]) if self._image is not None else None

    def click(self, volume_node: Node, model: str, device: str, points: Sequence[Point]) -> None:
        """Ask for the mask after all points. Raises InputError when the volume cannot be used."""
        image = self._opened(volume_node)
        self._jobs.append(self.engine.click(image, model, device, points, target=CLICK))

    def exposed(self, model: str) -> None:
        """Ask what maps a model can show. Raises InputError for an impossible name."""
        self._jobs.append(self.engine.exposed(model))

    def inspect(
        self,
        volume_node: Node,
        model: str,
        device: str,
        layers: Sequence[str] | None,
        points: Sequence[Point] = (),
        follows: bool = False,
    ) -> None:
        """Ask for an answer with maps; with `follows` as the click it is. Raises InputError as `click`."""
        image = self._opened(volume_node)
        target = CLICK if follows else ""
        self._jobs.append(self.engine.inspect(image, model, device, layers, points, target=target))

    def reach(
        self, volume_node: Node, model: str, device: str, ras: Sequence[float], points: Sequence[Point] = ()
    ) -> None:
        """Ask from where the answer at a place (RAS mm) comes. Raises InputError as `click`."""
        image = self._opened(volume_node)
        self._jobs.append(self.engine.reach(image, model, device, ras, points))

    def segment(self, volume_node: Node, model: str, device: str) -> None:
        """Ask for every structure the model knows. Raises InputError when the volume cannot be used."""
        image = self._opened(volume_node)
        self._jobs.append(self.engine.segment(image, model, device))

    def _opened(self, node: Node) -> ImageHandle:
        """The engine's handle of the volume; opened anew when its voxels or its place have changed.

        Raises InputError while a whole-volume job needs another image: minutes of work do not end without a word.
        """
        grid = grid_of(node)
        stamp = (node.GetID(), node.GetImageData().GetMTime(), grid.shape, grid.ijk_to_ras.tobytes())
        if self._image is None or self._image[0] != stamp:
            if self.is_computing:
                busy = node.GetScene().GetNodeByID(self.volume_id)
                raise InputError(f"A job is running on '{busy.GetName()}': wait until it is done, or press Stop first.")
            opened = self.engine.open_image(volume_of(node))
            self.close_image()
            self._image = (stamp, opened)
        return self._image[1]

    def close_image(self) -> None:
        """Stop the jobs about the open image, without an event, and let the worker forget it."""
        self._leave([job for job in self._jobs if job.image is not None])
        if self._image is not None:
            self.engine.close_image(self._image[1])
        self._image = None

    def abandon(self, kind: str = "") -> None:
        """Stop the unfinished jobs of this kind (without one, all), and report no end of them.

        An answer may be on its way already when its job is stopped: it must not come back as a result.
        """
        self._leave([job for job in self._jobs if not kind or _family(job) == kind])

    def _leave(self, leaving: list[Job]) -> None:
        for job in leaving:
            self.engine.cancel(job)
        self._jobs = [job for job in self._jobs if job not in leaving]
        self._abandoned = [job for job in (*self._abandoned, *leaving) if not job.is_over]

    def poll(self) -> tuple[list[Event], bool]:
        """What ended since the last call and still concerns the panel, and whether anything happened at all.

        Left out are clicks that a newer click has replaced, unless they failed.
        """
        if self._engine is None:
            return [], False
        # Slicer's event loop may hold Python's lock: this is when the threads of the client get to run.
        time.sleep(0.001)
        happened = self._engine.poll()
        ended: list[Event] = []
        for event in happened:
            job = event.job
            if event.kind == "progress" or job not in self._jobs:
                continue
            newer = self._jobs[self._jobs.index(job) + 1 :]
            if event.kind == "failed" or not any(_family(other) == _family(job) for other in newer):
                ended.append(event)
            self._jobs.remove(job)
        return ended, bool(happened)

    def stop(self) -> None:
        """Stop every unfinished job; each ends with an event."""
        for job in list(self._jobs):
            self.engine.cancel(job)

    def restart(self) -> None:
        """End the worker without waiting; the next request starts a fresh one, by a fresh client."""
        engine, self._engine = self._engine, None
        self._jobs, self._abandoned, self._image = [], [], None
        if engine is not None:
            # Ending a worker takes up to a second or two, and nobody uses this client any more.
            threading.Thread(target=engine.close, name="LKSegment ends a worker").start()

    def close(self) -> None:
        """End the worker and wait until it is gone, a second or two."""
        if self._engine is not None:
            self._engine.close()
        self._engine, self._jobs, self._abandoned, self._image = None, [], [], None


def _family(job: Job) -> str:
    return CLICK if job.target == CLICK else job.kind
