"""Arrays in shared memory: one named block for each array, alive only while it is handed over.

The sender creates a block, copies the array in and announces the name in a message. The receiver copies the
array out, removes the name at once and answers ``received``; the sender then lets go of its own mapping.
Whichever side dies, the other removes every name of the session, and a later client sweeps what is left when
both died. A block is a file in /dev/shm, which is what POSIX shared memory is on Linux, a file in the user's
temporary folder on other POSIX systems, or a named mapping on Windows. See docs/decisions/worker.md for why
``multiprocessing.shared_memory`` and its resource tracker are not used.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from LKSegmentLib.engine import protocol
from LKSegmentLib.errors import RunError

Array = np.ndarray[Any, np.dtype[Any]]

_STALE_AFTER_SECONDS = 600.0  # a hand-over takes well under a second; ten minutes is certainly abandoned


class NoSharedMemory(RunError):
    """This machine has no shared memory for the array; it can still travel on the wire."""


def new_session() -> str:
    """A name that begins the name of every block of one client: ``lks_<process>_<8 random hex digits>``."""
    return f"lks_{os.getpid()}_{secrets.token_hex(4)}"


def blocks_folder() -> Path | None:
    """Where blocks appear as files, or None where the system keeps them out of the file system (Windows)."""
    if sys.platform == "win32":
        return None
    linux = Path("/dev/shm")
    return linux if linux.is_dir() else Path(tempfile.gettempdir())


class Block:
    """An array put into shared memory under a name, as its sender holds it until the receiver has copied it out."""

    def __init__(self, name: str, array: Array) -> None:
        """Copies a contiguous ``array`` in. Raises NoSharedMemory when there is no room for it."""
        self.name = name
        self._mapping: mmap.mmap | None = None
        if sys.platform == "win32":  # such a block lives as long as somebody has it mapped
            self._mapping = mmap.mmap(-1, array.nbytes, tagname=name)
            self._mapping.write(bytes_of(array))
        else:
            _write_file(name, array)

    def close(self) -> None:
        """Lets go of the memory; on POSIX it stays until its name goes."""
        if self._mapping is not None:
            self._mapping.close()


def fetch(name: str, array: Array) -> None:
    """Copies the block ``name`` into a contiguous ``array`` and removes the name.

    Raises RunError when there is no such block of this user or it is smaller than the array.
    """
    if sys.platform == "win32":
        with mmap.mmap(-1, array.nbytes, tagname=name) as mapping:
            bytes_of(array)[:] = mapping.read(array.nbytes)
        return
    flags = os.O_RDONLY | os.O_NOFOLLOW
    try:
        descriptor = os.open(_path_of(name), flags)
    except OSError as error:
        raise RunError(f"The shared-memory block {name} cannot be opened: {error.strerror}.") from error
    with open(descriptor, "rb", buffering=0) as file:
        status = os.fstat(descriptor)
        if status.st_size != array.nbytes or status.st_uid != os.geteuid():
            raise RunError(f"The shared-memory block {name} is not the one announced.")
        remove_names([name])
        target, done = bytes_of(array), 0
        while done < len(target) and (count := file.readinto(target[done:])):
            done += count


def bytes_of(array: Array) -> memoryview:
    """The bytes of a contiguous array, without a copy."""
    return memoryview(array.reshape(-1).view(np.uint8))  # type: ignore[arg-type]


def _write_file(name: str, array: Array) -> None:
    # Written, not mapped: a write to a full /dev/shm (64 MB in many containers) is an error, while a mapping
    # would kill the process with SIGBUS; and it is three times as fast, as no page faults one by one.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    try:
        with open(os.open(_path_of(name), flags, 0o600), "wb", buffering=0) as file:
            source, done = bytes_of(array), 0
            while done < len(source):
                done += file.write(source[done:]) or 0
    except OSError as error:
        remove_names([name])
        reason = f"There is no shared memory for {array.nbytes} bytes: {error.strerror}."
        raise NoSharedMemory(reason) from error


def _path_of(name: str) -> Path:
    return (blocks_folder() or Path()) / name


def remove_names(names: Iterable[str]) -> None:
    """Removes names of blocks that nobody needs to find any more; names already gone are fine."""
    folder = blocks_folder()
    if folder is None:
        return  # Windows frees a block with its last mapping
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(folder / name)


def remove_session(session: str) -> list[str]:
    """Removes every block of one client and returns their names: for when the other side has died."""
    folder = blocks_folder()
    names = [] if folder is None else [e.name for e in os.scandir(folder) if e.name.startswith(session + "_")]
    remove_names(names)
    return names


def sweep_abandoned() -> list[str]:
    """Removes blocks whose client no longer lives and that are ten minutes old, and returns their names.

    Needed only when client and worker were killed in the same instant. The age protects clients in another
    process namespace (containers) whose process number cannot be seen from here.
    """
    folder = blocks_folder()
    if folder is None:
        return []
    abandoned = []
    for entry in os.scandir(folder):
        if not protocol.BLOCK_NAME.fullmatch(entry.name):
            continue
        with contextlib.suppress(FileNotFoundError):
            status = entry.stat(follow_symlinks=False)
            old = time.time() - status.st_mtime > _STALE_AFTER_SECONDS
            if old and status.st_uid == os.geteuid() and not _lives(int(entry.name.split("_")[1])):
                abandoned.append(entry.name)
    remove_names(abandoned)
    return abandoned


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
