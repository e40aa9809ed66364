"""Starting and ending the worker process, and moving bytes to and from it on threads of their own.

Standard library and numpy only: this runs inside Slicer. Nothing here waits on the caller's thread, except
``WorkerProcess.close``, for at most a few seconds.
"""

from __future__ import annotations

import collections
import contextlib
import hmac
import os
import queue
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from LKSegmentLib.engine import protocol, shared_arrays
from LKSegmentLib.engine.channel import Channel
from LKSegmentLib.engine.protocol import Message, ProtocolError
from LKSegmentLib.engine.shared_arrays import Array
from LKSegmentLib.engine.worker import DEFAULT_SERVICE, TOKEN_VARIABLE
from LKSegmentLib.errors import InputError
from LKSegmentLib.version import __version__

Transport = Literal["inherited", "loopback"]
Carrier = Literal["shared", "wire"]

STDERR_LINES: Final = 20
CONNECT_SECONDS: Final = 60.0
"""How long a worker may take to connect: a cold start of PythonSlicer from a slow disk takes about 20 s."""
_EXIT_SECONDS = 2.0


@dataclass(frozen=True)
class Launch:
    """How to start a worker. ``environment`` holds changes to this process's; None removes a variable.

    ``service`` names another class to do the work: the seam for tests.
    """

    interpreter: str
    environment: Mapping[str, str | None]
    service: str = DEFAULT_SERVICE
    transport: Transport = "inherited"
    carrier: Carrier = "shared"


@dataclass(frozen=True)
class Received:
    """A message from the worker, its arrays copied out."""

    message: Message
    arrays: list[Array]


@dataclass(frozen=True)
class Ended:
    """The worker process is gone. ``problem`` is a sentence when its connection reported more than that."""

    exit_code: int | None
    stderr: tuple[str, ...]
    problem: str


def default_transport() -> Transport:
    """A private pair of sockets where a child can inherit one; else a connection on the loopback address."""
    return "inherited" if os.name == "posix" else "loopback"


def default_interpreter() -> str:
    """The Python that runs the worker when nobody names one; looks at ``sys`` and ``os`` only.

    Inside Slicer ``sys.executable`` may be the application itself, which must not be started a second time:
    Slicer's Python is the launcher ``PythonSlicer`` beside it or, in the application, on PATH. Anywhere else it
    is the Python that runs this. Returns an empty text when none is found.
    """
    launcher = "PythonSlicer.exe" if os.name == "nt" else "PythonSlicer"
    running = sys.executable or ""
    folders = [os.path.dirname(running)] if running else []
    if not os.path.basename(running).lower().startswith("python"):
        folders += os.environ.get("PATH", "").split(os.pathsep)
    for folder in folders:
        candidate = os.path.join(folder, launcher)
        if folder and os.path.isfile(candidate):
            return candidate
    return running if os.path.basename(running).lower().startswith("python") else ""


def changes_to(environment: Mapping[str, str]) -> dict[str, str | None]:
    """What to change in this process's environment to obtain ``environment``.

    An interpreter that is not Slicer's must not see Slicer's library paths: give the client
    ``changes_to(slicer.util.startupEnvironment())`` with it.
    """
    removed: dict[str, str | None] = {name: None for name in os.environ if name not in environment}
    return removed | {name: value for name, value in environment.items() if os.environ.get(name) != value}


def worker_environment(changes: Mapping[str, str | None]) -> dict[str, str]:
    """The whole environment of a worker: this process's, the changes, and where LKSegmentLib lies."""
    environment = {**os.environ, **{name: value for name, value in changes.items() if value is not None}}
    for name, value in changes.items():
        if value is None:
            environment.pop(name, None)
    here = [str(library_parent())]
    environment["PYTHONPATH"] = os.pathsep.join(here + [p for p in [environment.get("PYTHONPATH", "")] if p])
    return environment


def library_parent() -> Path:
    """The folder that holds LKSegmentLib."""
    return Path(__file__).resolve().parents[2]


class WorkerProcess:
    """A running worker. What it says arrives in ``incoming``, last of all one ``Ended``.

    Raises InputError when the interpreter cannot be started.
    """

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        self.session = shared_arrays.new_session()
        self.incoming: queue.SimpleQueue[Received | Ended] = queue.SimpleQueue()
        self.started = time.monotonic()
        self._outgoing: queue.SimpleQueue[tuple[Message, list[Array] | None] | None] = queue.SimpleQueue()
        self._lines: collections.deque[str] = collections.deque(maxlen=STDERR_LINES)
        self._channel: Channel | None = None
        self._listener: socket.socket | None = None
        self._problem = ""
        self._token = secrets.token_hex(32)
        self._process = self._spawn()
        self._printed = threading.Thread(target=self._keep_lines, name="worker output", daemon=True)
        self._sender = threading.Thread(target=self._send_all, name="worker requests", daemon=True)
        self._reader = threading.Thread(target=self._read_all, name="worker answers", daemon=True)
        self._printed.start()
        self._reader.start()

    # -- starting ----------------------------------------------------------------------------------------

    def _spawn(self) -> subprocess.Popen[bytes]:
        launch = self.launch
        environment = worker_environment(launch.environment)
        if launch.transport == "loopback":
            self._listener = socket.create_server(("127.0.0.1", 0), backlog=1)
            environment[TOKEN_VARIABLE] = self._token
            return self._popen(["--port", str(self._listener.getsockname()[1])], environment, ())
        ours, theirs = socket.socketpair()
        with theirs:
            descriptor = theirs.fileno()
            try:
                process = self._popen(["--descriptor", str(descriptor)], environment, (descriptor,))
            except InputError:
                ours.close()
                raise
        self._channel = Channel(ours, "client", self.session, launch.carrier == "shared")
        return process

    def _popen(
        self, where: Sequence[str], environment: Mapping[str, str], descriptors: Sequence[int]
    ) -> subprocess.Popen[bytes]:
        interpreter = self.launch.interpreter
        command = [interpreter, "-u", "-m", "LKSegmentLib.engine.worker", *where, "--service", self.launch.service]
        windows_flags = 0
        if sys.platform == "win32":
            windows_flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
        try:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                cwd=library_parent(),  # python -m looks for modules there first: never in the user's folder
                pass_fds=tuple(descriptors),
                start_new_session=os.name == "posix",
                creationflags=windows_flags,
            )
        except OSError as error:
            if self._listener is not None:
                self._listener.close()
            raise InputError(
                f"The Python interpreter {interpreter!r} cannot be started: {error.strerror}. "
                "Name another one, or leave the choice to LKSegment."
            ) from error

    @property
    def process_id(self) -> int:
        """Of the process that was started; Slicer's launcher starts the worker as a child of its own."""
        return self._process.pid

    @property
    def stderr(self) -> tuple[str, ...]:
        """The last lines that the worker and its libraries printed."""
        return tuple(self._lines)

    # -- threads -----------------------------------------------------------------------------------------

    def send(self, message: Message, arrays: list[Array] | None = None) -> None:
        """Queues a message; returns at once."""
        self._outgoing.put((message, arrays))

    def _keep_lines(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as printed:
            for line in iter(lambda: printed.readline(4096), b""):
                text = line.decode("utf-8", errors="replace").rstrip()
                if text:
                    self._lines.append(text)

    def _send_all(self) -> None:
        assert self._channel is not None
        while (item := self._outgoing.get()) is not None:
            try:
                self._channel.send(*item)
            except OSError:  # the worker is gone; the reader notices and tells
                return
            except (ProtocolError, MemoryError) as error:
                self._problem = f"The request could not be sent: {error or 'there is not enough memory.'}"
                self._channel.shutdown()  # the reader sees the end
                return

    def _read_all(self) -> None:
        try:
            channel = self._channel = self._channel or self._accepted()
            if channel is not None:
                hello = {"protocol": protocol.PROTOCOL_VERSION, "library": __version__}
                channel.send({"type": "hello", **hello, "session": self.session, "carrier": self.launch.carrier})
                self._sender.start()
                while (received := channel.receive()) is not None:
                    if received[0]["type"] != "received":
                        self.incoming.put(Received(*received))
        except ProtocolError as error:
            self._problem = f"It sent something that is not its protocol: {error}"
        except OSError:
            pass  # it ended while it was greeted
        finally:
            self._end()

    def _accepted(self) -> Channel | None:
        """The connection of the process that knows the token; None when the worker ended before."""
        assert self._listener is not None
        with self._listener as listener:
            listener.settimeout(0.1)
            while self._process.poll() is None and time.monotonic() - self.started < CONNECT_SECONDS:
                with contextlib.suppress(TimeoutError):
                    connection, _ = listener.accept()
                    connection.settimeout(5.0)
                    token = _read_token(connection, len(self._token))
                    if hmac.compare_digest(token, self._token.encode("ascii")):
                        connection.settimeout(None)
                        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                        return Channel(connection, "client", self.session, self.launch.carrier == "shared")
                    connection.close()
        return None

    def _end(self) -> None:
        """Collects what is left of the process and its children, and reports its end."""
        if self._problem:
            self.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_EXIT_SECONDS)
        self.kill()  # children it leaves behind, or itself if it closed the connection and stayed
        exit_code = self._process.wait()
        self._outgoing.put(None)
        if self._channel is not None:
            self._channel.shutdown()
            if self._sender.ident is not None:
                self._sender.join()
            self._channel.close()
        shared_arrays.remove_session(self.session)
        self._printed.join(_EXIT_SECONDS)
        self.incoming.put(Ended(exit_code, self.stderr, self._problem))

    # -- ending ------------------------------------------------------------------------------------------

    def kill(self) -> None:
        """Ends the worker and every process it started, at once and without waiting."""
        if sys.platform == "win32":
            command = ["taskkill", "/PID", str(self._process.pid), "/T", "/F"]
            flags = subprocess.CREATE_NO_WINDOW
            subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, creationflags=flags)
        else:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def close(self, patience: float = 1.0) -> None:
        """Asks the worker to end, kills it when it has not after ``patience`` seconds, and waits for the end.

        A process that even the system cannot end now, because it hangs inside a driver, is left to the system.
        """
        self.send({"type": "goodbye"})
        self._reader.join(patience)
        if self._reader.is_alive():
            self.kill()
            self._reader.join(2 * _EXIT_SECONDS)


def _read_token(connection: socket.socket, length: int) -> bytes:
    token = b""
    while len(token) < length:
        part = connection.recv(length - len(token))
        if not part:
            break
        token += part
    return token
