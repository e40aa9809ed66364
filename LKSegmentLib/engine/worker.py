"""The worker process: ``python -m LKSegmentLib.engine.worker``. Started by ``launching.py``, not by people.

One thread reads requests; the main thread makes every torch call, because cuDNN keeps its plans per thread.
The process ends at once when the connection ends, so it never outlives the program that started it.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import importlib.metadata
import os
import queue
import socket
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from LKSegmentLib.engine import failures
from LKSegmentLib.errors import Cancelled, InputError, RunError

if TYPE_CHECKING:
    from LKSegmentLib.engine.channel import Channel
    from LKSegmentLib.engine.protocol import Message
    from LKSegmentLib.engine.shared_arrays import Array

DEFAULT_SERVICE = "LKSegmentLib.engine.service:Service"
TOKEN_VARIABLE = "LKSEGMENT_WORKER_TOKEN"
PROGRESS_INTERVAL = 0.05  # seconds; twenty reports a second are enough for a progress bar
PARENT_INTERVAL = 1.0
LARGE = 1 << 28  # bytes; less is handed over without asking for room


class Worker:
    """Answers the requests of one client through a service object, in order.

    ``service`` has the methods of ``LKSegmentLib.engine.service.Service``; tests give another one.
    """

    def __init__(self, channel: Channel, service: Any) -> None:
        self.channel = channel
        self.service = service
        self.requests: queue.SimpleQueue[tuple[Message, list[Array]]] = queue.SimpleQueue()
        self.cancelled: dict[int, threading.Event] = {}
        self.refused_images: dict[int, InputError] = {}
        self.leaving = threading.Lock()

    def run(self) -> NoReturn:
        """Works until the connection ends; never returns.

        An error nobody foresaw, on any thread, ends the process: the client tells what it was, and a fresh
        process is better than one in an unknown state.
        """
        sys.excepthook = self.leave_unexpectedly
        threading.excepthook = lambda failed: self.leave_unexpectedly(
            failed.exc_type, failed.exc_value, failed.exc_traceback
        )
        threading.Thread(target=self.read_requests, name="requests", daemon=True).start()
        if sys.platform != "win32":
            threading.Thread(target=self.watch_parent, args=(os.getppid(),), name="parent", daemon=True).start()
        self.service.prepare()
        try:
            while True:
                self.execute(*self.requests.get())
        except OSError:  # an answer could not be sent: the client is gone
            self.leave(0)

    # -- threads beside the main one ---------------------------------------------------------------------

    def read_requests(self) -> None:
        """Queues requests; cancels and receipts take effect at once. Ends the process with the connection."""
        from LKSegmentLib.engine.protocol import ProtocolError

        while True:
            try:
                received = self.channel.receive()
            except ProtocolError as error:
                self.tell_fault(str(error))
                if self.channel.broken:
                    self.leave(0)
                continue
            if received is None or received[0]["type"] == "goodbye":
                self.leave(0)
            message, arrays = received
            if message["type"] == "cancel":
                event = self.cancelled.get(message["job"])
                if event is not None:  # otherwise it is done already
                    event.set()
            elif message["type"] != "received":
                if "job" in message:
                    self.cancelled[message["job"]] = threading.Event()
                self.requests.put((message, arrays))

    def watch_parent(self, parent: int) -> None:
        """Ends the process when its parent is gone, should the end of the connection not show it."""
        while os.getppid() == parent:
            time.sleep(PARENT_INTERVAL)
        self.leave(0)

    def tell_fault(self, sentence: str) -> None:
        try:
            self.channel.send({"type": "fault", "sentence": sentence})
        except OSError:
            self.leave(0)

    def leave(self, code: int) -> NoReturn:
        """Ends the process now, whatever the other threads do, without leaving shared memory behind."""
        from LKSegmentLib.engine import shared_arrays

        self.leaving.acquire()  # never released: the first reason to leave is the exit code
        self.channel.shutdown()
        self.channel.finish()
        shared_arrays.remove_session(self.channel.session)
        sys.stderr.flush()
        os._exit(code)

    def leave_unexpectedly(
        self, kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
    ) -> None:
        traceback.print_exception(kind, error, trace)
        self.leave(failures.EXIT_UNEXPECTED)

    # -- requests ----------------------------------------------------------------------------------------

    def execute(self, message: Message, arrays: list[Array]) -> None:
        """Does what one message asks and answers it."""
        kind = message["type"]
        if kind == "open_image":
            self.open_image(message, arrays)
        elif kind == "close_image":
            self.refused_images.pop(message["image"], None)
            self.service.close_image(message["image"])
        elif "job" in message:
            self.answer(message)
        else:
            self.tell_fault(f"The message {kind!r} makes no sense now.")

    def open_image(self, message: Message, arrays: list[Array]) -> None:
        import numpy as np

        image = message["image"]
        matrix = np.array(message["ijk_to_ras"], dtype=np.float64).reshape(4, 4)
        try:
            if len(arrays) != 1:
                raise InputError("An image is one array.")
            with failures.plain_errors():
                self.service.open_image(image, arrays[0], matrix)
        except (InputError, RunError) as error:  # told to whoever asks for something on this image
            self.refused_images[image] = InputError(str(error))

    def answer(self, message: Message) -> None:
        from LKSegmentLib.volumes import VolumeWarning

        job = message["job"]
        try:
            if message.get("image") in self.refused_images:
                raise self.refused_images[message["image"]]
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", VolumeWarning)
                with failures.plain_errors(message.get("device", "")):
                    text, arrays = self.result_of(message)
            told = sentences_in(caught)
            self.channel.send({"type": "done", "job": job, "result": text, "warnings": told}, arrays)
        except Cancelled:
            self.channel.send({"type": "cancelled", "job": job})
        except (InputError, RunError) as error:
            if error.__cause__ is not None:  # for the last lines kept by the client
                traceback.print_exception(error.__cause__)
            category = "input" if isinstance(error, InputError) else "run"
            sentence = str(error)[:4000]
            if isinstance(error, failures.OutOfMemory):
                self.service.release_memory()
            self.channel.send({"type": "failed", "job": job, "category": category, "sentence": sentence})
            if isinstance(error, failures.DeviceFault):
                self.leave(failures.EXIT_DEVICE_FAULT)
        finally:
            del self.cancelled[job]

    def result_of(self, message: Message) -> tuple[dict[str, Any], list[Array]]:
        from LKSegmentLib.engine import results
        from LKSegmentLib.prompts import Point

        cancelled = self.cancelled[message["job"]].is_set
        if cancelled():
            raise Cancelled("The job was cancelled before it began.")
        kind, progress = message["type"], self.progress_of(message["job"])
        if kind == "models":
            return results.encoded(self.service.models())
        if kind == "doctor":
            return results.encoded(self.service.doctor())
        if kind == "exposed":
            return results.encoded(self.service.exposed(message["model"], progress))
        where = (message["image"], message["model"], message["device"])
        if kind == "segment":
            return results.encoded(self.service.segment(*where, progress, cancelled))
        points = [Point((r, a, s), *more) for r, a, s, *more in message["points"]]
        if kind == "click":
            return results.encoded(self.service.click(*where, points, message["maps"], progress, cancelled))
        if kind == "inspect":
            announce = self.announcement_of(message["job"])
            asked = (points, message["layers"])
            text, arrays = results.encoded(self.service.inspect(*where, *asked, progress, cancelled, announce))
            check_room(arrays)
            return text, arrays
        place = (points, message["ras"], message["label"])
        return results.encoded(self.service.reach(*where, *place, progress, cancelled, message["around_mm"]))

    def announcement_of(self, job: int) -> Callable[[str], None]:
        """A function that tells what a job will take, before it takes it."""
        return lambda sentence: self.channel.send({"type": "plan", "job": job, "sentence": sentence[:4000]})

    def progress_of(self, job: int) -> Callable[[str, float], None]:
        """A function that reports stage and fraction (0 to 1), at most every ``PROGRESS_INTERVAL`` seconds."""
        last_stage, last_time = "", 0.0

        def progress(stage: str, fraction: float) -> None:
            nonlocal last_stage, last_time
            now = time.monotonic()
            if stage == last_stage and now - last_time < PROGRESS_INTERVAL and fraction < 1.0:
                return
            last_stage, last_time = stage, now
            inside = min(max(float(fraction), 0.0), 1.0)
            self.channel.send({"type": "progress", "job": job, "stage": str(stage)[:200], "fraction": inside})

        return progress


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Connects to the client, shakes hands and works for it."""
    parser = argparse.ArgumentParser(prog="LKSegmentLib.engine.worker", description=__doc__)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--descriptor", type=int, help="inherited end of the private connection")
    where.add_argument("--port", type=int, help="port on 127.0.0.1 to connect to")
    parser.add_argument("--service", default=DEFAULT_SERVICE, help="module:Class that does the work (for tests)")
    given = parser.parse_args(arguments)
    faulthandler.enable()
    if sys.version_info < (3, 10):  # noqa: UP036 - people may name any interpreter
        give_up(f"Python 3.10 or newer is needed, and {sys.executable} is {sys.version.split()[0]}.")
    try:
        from LKSegmentLib.engine.channel import Channel
    except ModuleNotFoundError as error:
        give_up(failures.missing_package(error.name or str(error), sys.executable))
    channel = Channel(connected(given.descriptor, given.port), "worker")
    if not shaken_hands(channel):
        os._exit(failures.EXIT_CANNOT_START)
    module, _, name = given.service.partition(":")
    Worker(channel, getattr(importlib.import_module(module), name)()).run()


def check_room(arrays: Sequence[Array], free: int | None = None) -> None:
    """InputError for arrays that the memory cannot hold while they are handed over, twice for a moment.

    ``free``: bytes of memory; None asks the system, if there is more than ``LARGE`` to hand over.
    """
    size = sum(int(array.nbytes) for array in arrays)
    if free is None and size > LARGE:
        from LKSegmentLib.inference.memory import free_memory

        free = free_memory()
    if free is not None and 2 * size > free:
        raise InputError(
            f"The maps take {size / 1e9:.1f} GB, twice that while they are handed over, and {free / 1e9:.1f} GB of "
            "memory are free: choose fewer maps, or record them with the command lksegment inspect."
        )


def sentences_in(caught: Sequence[warnings.WarningMessage]) -> list[str]:
    """What the person should know about the image; warnings of libraries are printed for the crash report."""
    from LKSegmentLib.volumes import VolumeWarning

    told: dict[str, None] = {}
    for warning in caught:
        if issubclass(warning.category, VolumeWarning):
            told[str(warning.message)[:4000]] = None
        else:
            print(f"{warning.category.__name__}: {warning.message}", file=sys.stderr)
    return list(told)[:20]


def connected(descriptor: int | None, port: int | None) -> socket.socket:
    """The connection to the client: inherited, or made to the loopback address and opened with the token."""
    if descriptor is not None:
        connection = socket.socket(fileno=descriptor)
        connection.set_inheritable(False)  # or a process started by a library would keep it open
        return connection
    token = os.environ.pop(TOKEN_VARIABLE, "")
    connection = socket.create_connection(("127.0.0.1", port or 0), timeout=10.0)
    connection.settimeout(None)
    connection.sendall(token.encode("ascii"))
    return connection


def shaken_hands(channel: Channel) -> bool:
    """Answers the client's hello. False after refusing it or when the client has gone."""
    from LKSegmentLib.engine import protocol
    from LKSegmentLib.version import __version__

    received = channel.receive()
    if received is None or received[0]["type"] != "hello":
        return False
    hello = received[0]
    if (hello["protocol"], hello["library"]) != (protocol.PROTOCOL_VERSION, __version__):
        sentence = mismatch_sentence((hello["library"], hello["protocol"]), (__version__, protocol.PROTOCOL_VERSION))
        channel.send({"type": "refused", "sentence": sentence})
        return False
    channel.session = hello["session"]
    channel.shared = hello["carrier"] == "shared"
    channel.send(
        {
            "type": "welcome",
            "protocol": protocol.PROTOCOL_VERSION,
            "library": __version__,
            "python": sys.version.split()[0],
            "torch": installed_version("torch"),
            "numpy": installed_version("numpy"),
            "process": os.getpid(),
            "interpreter": sys.executable,
        }
    )
    return True


def mismatch_sentence(client: tuple[str, int], worker: tuple[str, int]) -> str:
    """Why two (library version, protocol version) pairs cannot work together, and what to do."""
    return (
        f"The client is LKSegment {client[0]} (protocol {client[1]}), the worker is LKSegment {worker[0]} "
        f"(protocol {worker[1]}): restart the program so that both run the same version."
    )


def installed_version(package: str) -> str | None:
    """Version of an installed package, found without importing it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def give_up(sentence: str) -> NoReturn:
    """Ends a process that cannot work here; the client shows the sentence."""
    print(failures.START_PREFIX + sentence, file=sys.stderr, flush=True)
    os._exit(failures.EXIT_CANNOT_START)


if __name__ == "__main__":
    main()
