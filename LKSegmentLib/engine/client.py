"""The client of the worker process: what the panel and scripts talk to. Standard library and numpy only.

Use one client from one thread. No method waits for the worker, except ``wait`` and ``close``: what happened is
told by ``poll``, which a timer calls every 20 to 50 ms.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Literal

import numpy as np

from LKSegmentLib.engine import failures, launching, protocol, results, shared_arrays
from LKSegmentLib.engine.failures import CrashReport
from LKSegmentLib.engine.jobs import Event, ImageHandle, Job
from LKSegmentLib.engine.launching import Carrier, Ended, Launch, Received, Transport, WorkerProcess
from LKSegmentLib.engine.protocol import Message
from LKSegmentLib.engine.request_fields import doing_what, listed_points, model_name
from LKSegmentLib.engine.worker import DEFAULT_SERVICE, mismatch_sentence
from LKSegmentLib.errors import Cancelled, InputError, RunError
from LKSegmentLib.prompts import Point
from LKSegmentLib.version import __version__
from LKSegmentLib.volumes import Volume

STARTING = "starting the worker"
SENDING = "sending the image"
SUPERSEDED = "superseded by a later click"
UNKILLABLE_SECONDS = 5.0


class EngineClient:
    """Runs requests in a worker process that is started on first use and kept warm.

    ``interpreter``: the Python to run it; default: ``launching.default_interpreter``. ``environment``: changes to
    this process's, None removes a variable. The others (what works, how to connect, how arrays travel) are for tests.
    """

    def __init__(
        self,
        interpreter: str | None = None,
        environment: Mapping[str, str | None] | None = None,
        *,
        service: str = DEFAULT_SERVICE,
        transport: Transport | None = None,
        carrier: Carrier = "shared",
    ) -> None:
        interpreter = interpreter or launching.default_interpreter()
        transport = transport or launching.default_transport()
        self._launch = Launch(interpreter, dict(environment or {}), service, transport, carrier)
        self._worker: WorkerProcess | None = None
        self._welcome: Message | None = None
        self._refusal = ""
        self._opened: set[int] = set()
        self._waiting: list[Job] = []
        self._running: Job | None = None
        self._events: list[Event] = []
        self._numbers = itertools.count(1)
        self.crash_report: CrashReport | None = None
        """What is known about the last worker that ended by itself."""
        shared_arrays.sweep_abandoned()

    # -- requests ----------------------------------------------------------------------------------------

    def open_image(self, volume: Volume) -> ImageHandle:
        """Registers an image for later requests; its voxels are sent with the first one.

        Raises InputError for voxel types that cannot travel (complex, long double).
        """
        if volume.array.dtype.newbyteorder("<").str not in protocol.DTYPES:
            raise InputError(f"Images of type {volume.array.dtype} are not supported; convert it to float32.")
        return ImageHandle(next(self._numbers), volume)

    def close_image(self, image: ImageHandle) -> None:
        """Frees an image in the worker. Its queued jobs are cancelled; a running one ends as it would."""
        image.closed = True
        for job in [j for j in self._waiting if j.image is image]:
            self._waiting.remove(job)
            self._finish(job, "cancelled", stage="the image was closed")
        if image.key in self._opened and self._worker is not None:
            self._opened.discard(image.key)
            self._worker.send({"type": "close_image", "image": image.key})

    def segment(self, image: ImageHandle, model: str, device: str = "auto") -> Job:
        """Segments the whole image; the result is a ``SegmentResult``.

        ``model`` is a name or, with a path separator or ".zip" in it, a path. InputError: impossible ones.
        """
        return self._submit("segment", image, "", model=model_name(model), device=device)

    def click(
        self,
        image: ImageHandle,
        model: str,
        device: str,
        points: Sequence[Point],
        with_maps: bool = False,
        target: str = "",
    ) -> Job:
        """The mask after all ``points``, in the order they were set; the result is a ``ClickResult``.

        Clicks on the same image and ``target`` (a segment, say) that still wait are cancelled, as this one says all
        that they said. Raises InputError for arguments that cannot be right.
        """
        self._supersede(image, target)
        fields: Message = {"model": model_name(model), "device": device, "maps": bool(with_maps)}
        return self._submit("click", image, target, points=listed_points(points), **fields)

    def exposed(self, model: str) -> Job:
        """What maps a model can show; the result is a dict (docs/protocol.md). No image is needed."""
        return self._submit("exposed", model=model_name(model))

    def inspect(
        self,
        image: ImageHandle,
        model: str,
        device: str = "auto",
        layers: Sequence[str] | None = None,
        points: Sequence[Point] = (),
        target: str = "",
    ) -> Job:
        """The answer of a model and the maps ``layers`` of it (None: its default ones); an ``InspectResult``.

        With ``points`` it counts as a click. Raises InputError for arguments that cannot be right.
        """
        if points:
            self._supersede(image, target)
        names = None if layers is None else list(layers)
        fields: Message = {"model": model_name(model), "device": device, "layers": names}
        return self._submit("inspect", image, target, points=listed_points(points), **fields)

    def reach(
        self,
        image: ImageHandle,
        model: str,
        device: str = "auto",
        ras: Sequence[float] | None = None,
        points: Sequence[Point] = (),
        label: int | None = None,
        around_mm: float | None = None,
    ) -> Job:
        """From where in the image the answer at ``ras`` (mm; None: the last point) comes; a ``ReachResult``.

        ``label`` None: the largest logit; ``around_mm``: the mean over voxels as near as that. InputError as above.
        """
        place = None if ras is None else [float(value) for value in ras]
        fields: Message = {"model": model_name(model), "device": device, "ras": place, "label": label}
        fields["around_mm"] = around_mm
        return self._submit("reach", image, points=listed_points(points), **fields)

    def _supersede(self, image: ImageHandle, target: str) -> None:
        """Cancels the clicks that wait for this image and target."""
        clicks = [j for j in self._waiting if j.kind in ("click", "inspect") and j.message["points"]]
        for job in [j for j in clicks if (j.image, j.target) == (image, target)]:
            self._waiting.remove(job)
            self._finish(job, "cancelled", stage=SUPERSEDED)

    def models(self) -> Job:
        """The installed models as the worker sees them; the result is a dict (docs/protocol.md)."""
        return self._submit("models")

    def doctor(self) -> Job:
        """What works in the worker: Python, torch, devices; the result is a dict (docs/protocol.md)."""
        return self._submit("doctor")

    def cancel(self, job: Job, force_after: float = 2.5) -> None:
        """Stops a job. A running one may end by itself for ``force_after`` seconds, then its worker is killed.

        Asked again, the earlier of both ends counts.
        """
        if job in self._waiting:
            self._waiting.remove(job)
            self._finish(job, "cancelled")
        elif job is self._running and self._worker is not None:
            end = time.monotonic() + force_after
            if job.kill_at is None:
                self._worker.send({"type": "cancel", "job": job.identifier})
            job.kill_at = end if job.kill_at is None else min(job.kill_at, end)

    def _submit(self, kind: str, image: ImageHandle | None = None, target: str = "", **fields: Any) -> Job:
        if image is not None and image.closed:
            raise InputError("The image is closed; open it again.")
        identifier = next(self._numbers)
        message: Message = {"type": kind, "job": identifier, **fields}
        if image is not None:
            message["image"] = image.key
        try:
            protocol.packed(message, "client")
        except protocol.ProtocolError as error:
            raise InputError(f"The request is not possible. {error}") from error
        job = Job(identifier, kind, message, image, target)
        self._waiting.append(job)
        self._take_in()  # a worker that has died meanwhile is not the one to ask
        self._advance()
        return job

    # -- what happens ------------------------------------------------------------------------------------

    def poll(self) -> list[Event]:
        """What happened since the last call, oldest first; of several progress reports only the newest."""
        self._take_in()
        self._kill_overdue()
        self._advance()
        events, self._events = self._events, []
        return events

    def wait(self, job: Job, timeout: float | None = None) -> Any:
        """Waits for a job and returns its result; for scripts. Events of other jobs stay there for ``poll``.

        Raises InputError or RunError with the job's sentence, Cancelled, or TimeoutError.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while not job.is_over:
            if end is not None and time.monotonic() > end:
                raise TimeoutError(f"The job was not done after {timeout} seconds.")
            self._events = [event for event in self.poll() if event.job is not job]
            if not job.is_over:
                time.sleep(0.005)
        if job.state == "cancelled":
            raise Cancelled(f"The job was cancelled ({job.stage})." if job.stage else "The job was cancelled.")
        if job.state == "failed":
            raise (InputError if job.error_category == "input" else RunError)(job.error)
        return job.result

    def _take_in(self) -> None:
        worker = self._worker
        while worker is not None and worker is self._worker and not worker.incoming.empty():
            item = worker.incoming.get_nowait()
            if isinstance(item, Ended):
                self._on_end(worker, item)
            else:
                self._on_message(worker, item)

    def _on_message(self, worker: WorkerProcess, received: Received) -> None:
        message = received.message
        kind, job = message["type"], self._running
        if kind == "welcome":
            theirs, ours = (message["library"], message["protocol"]), (__version__, protocol.PROTOCOL_VERSION)
            if theirs != ours:
                self._refusal = mismatch_sentence(ours, theirs)
                worker.kill()
            else:
                self._welcome = message
        elif kind == "refused":
            self._refusal = message["sentence"]
        elif job is None or message.get("job", job.identifier) != job.identifier:
            return  # about a job that is over
        elif kind == "plan":
            job.plan = message["sentence"]
            self._report_progress(job)
        elif kind == "progress":
            job.stage, job.progress = message["stage"], float(message["fraction"])
            self._report_progress(job)
        elif kind == "done":
            try:
                result = results.decoded(message["result"], received.arrays)
            except protocol.ProtocolError as error:
                self._finish(job, "failed", str(error), "run")
            else:
                job.progress, job.warnings = 1.0, tuple(message["warnings"])
                self._finish(job, "done", result=result)
        elif kind == "cancelled":
            self._finish(job, "cancelled")
        elif kind == "failed":
            self._finish(job, "failed", message["sentence"], message["category"])
        elif kind == "fault":
            self._finish(job, "failed", f"The worker did not understand the request: {message['sentence']}", "run")

    def _on_end(self, worker: WorkerProcess, ended: Ended) -> None:
        job, welcomed = self._running, self._welcome is not None
        self._forget_worker()
        if job is not None and job.kill_at is not None:
            self._finish(job, "cancelled")  # killed because it had to stop
            return
        interpreter = self._launch.interpreter
        doing = doing_what(job.kind if job is not None else "") if welcomed else "starting"
        if welcomed:
            sentence = failures.death_sentence(doing, ended.exit_code, ended.stderr, ended.problem)
        else:
            sentence = self._refusal or failures.start_sentence(
                interpreter, ended.exit_code, ended.stderr, ended.problem
            )
            self._refusal = ""
            job = self._waiting.pop(0) if self._waiting else None
        if ended.exit_code != failures.EXIT_DEVICE_FAULT or job is not None:
            self.crash_report = CrashReport(sentence, interpreter, ended.exit_code, doing, ended.stderr)
        if job is not None:
            self._finish(job, "failed", sentence, "run")

    def _kill_overdue(self) -> None:
        worker, job, now = self._worker, self._running, time.monotonic()
        if worker is None:
            return
        if job is not None and job.kill_at is not None and now > job.kill_at:
            worker.kill()
            if now > job.kill_at + UNKILLABLE_SECONDS:  # it hangs inside a driver: the next job gets another one
                self._forget_worker()
                self._finish(job, "cancelled")
        elif self._welcome is None and now - worker.started > launching.CONNECT_SECONDS and not self._refusal:
            seconds = launching.CONNECT_SECONDS
            self._refusal = f"The worker did not answer within {seconds:.0f} seconds of its start and was stopped."
            worker.kill()

    def _advance(self) -> None:
        """Starts a worker for the first waiting job, or gives it to a free one."""
        while self._waiting and self._running is None:
            job = self._waiting[0]
            if self._worker is None:
                try:
                    self.start()
                except InputError as error:
                    self._finish(self._waiting.pop(0), "failed", str(error), "input")
                    continue
            if self._worker is None or self._welcome is None:
                if job.stage != STARTING:
                    job.stage = STARTING
                    self._report_progress(job)
                return
            self._waiting.pop(0)
            self._running, job.state = job, "running"
            if job.image is not None and job.image.key not in self._opened:
                self._send_image(self._worker, job.image)
                job.stage = SENDING
                self._report_progress(job)
            self._worker.send(job.message)

    def _send_image(self, worker: WorkerProcess, image: ImageHandle) -> None:
        matrix = np.asarray(image.volume.ijk_to_ras, dtype=np.float64).reshape(16).tolist()
        worker.send({"type": "open_image", "image": image.key, "ijk_to_ras": matrix}, [image.volume.array])
        self._opened.add(image.key)

    def _report_progress(self, job: Job) -> None:
        self._events = [e for e in self._events if e.job is not job or e.kind != "progress"]
        self._events.append(Event(job, "progress"))

    def _finish(
        self,
        job: Job,
        state: Literal["done", "failed", "cancelled"],
        error: str = "",
        category: Literal["", "input", "run"] = "",
        *,
        result: Any = None,
        stage: str = "",
    ) -> None:
        job.state, job.error, job.error_category, job.result, job.stage = state, error, category, result, stage
        if job is self._running:
            self._running = None
        self._events = [e for e in self._events if e.job is not job]
        self._events.append(Event(job, state))

    # -- the worker --------------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts the worker ahead of the first request, so that it is warm; does nothing when it runs.

        Returns at once. Raises InputError when there is no such interpreter.
        """
        if self._worker is not None:
            return
        if not self._launch.interpreter:
            raise InputError("No Python interpreter for the worker was found; name one.")
        self._worker = WorkerProcess(self._launch)

    @property
    def is_alive(self) -> bool:
        """Whether there is a worker, starting or ready."""
        return self._worker is not None

    @property
    def is_ready(self) -> bool:
        """Whether a worker has started and takes requests at once."""
        return self._welcome is not None

    @property
    def worker_facts(self) -> Message:
        """Process, interpreter and versions of Python, torch and numpy of a ready worker; else empty."""
        return dict(self._welcome or {})

    def close(self) -> None:
        """Ends the worker and every unfinished job; waits for that, a second or two. May be used again later."""
        worker = self._worker
        for job in [*([self._running] if self._running else []), *self._waiting]:
            self._finish(job, "cancelled", stage="the worker was closed")
        self._waiting.clear()
        if worker is not None:
            self._forget_worker()
            worker.close()

    def _forget_worker(self) -> None:
        self._worker, self._welcome = None, None
        self._opened.clear()

    def __enter__(self) -> EngineClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
