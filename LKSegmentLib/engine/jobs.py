"""What a client hands out: images, jobs and events. Numpy only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from LKSegmentLib.engine.protocol import Message
from LKSegmentLib.volumes import Volume

State = Literal["queued", "running", "done", "failed", "cancelled"]
EventKind = Literal["progress", "done", "failed", "cancelled"]


@dataclass(eq=False)
class ImageHandle:
    """An image opened by a client. ``volume`` is kept to open it again in a fresh worker: do not change it."""

    key: int
    volume: Volume
    closed: bool = False


@dataclass(eq=False)
class Job:
    """A request and what became of it. Changes only inside methods of the client."""

    identifier: int
    kind: str
    message: Message
    image: ImageHandle | None = None
    target: str = ""
    state: State = "queued"
    stage: str = ""
    progress: float = 0.0
    plan: str = ""
    """What the job will take, in one sentence, once the worker knows it; only of inspections."""
    result: Any = None
    warnings: tuple[str, ...] = ()
    """Sentences about the image that its person should read, such as voxels that are no numbers."""
    error: str = ""
    error_category: Literal["", "input", "run"] = ""
    kill_at: float | None = None
    """When a cancelled job that still runs is ended by force, on the clock of ``time.monotonic``."""

    @property
    def is_over(self) -> bool:
        """Whether it is done, failed or cancelled."""
        return self.state in ("done", "failed", "cancelled")


@dataclass(frozen=True)
class Event:
    """Something happened to a job."""

    job: Job
    kind: EventKind
