"""Arrays in shared memory: one named block for each array, alive only while it is handed over.

The sender creates a block, copies the array in and announces the name in a message. The receiver copies the
array out, removes the name at once and answers ``received``; the sender then lets go of its own mapping.
Whichever side dies, the other removes every name of the session, and a later client sweeps what is left when
both died. See docs/decisions/worker.md for why ``multiprocessing.shared_memory`` and its resource tracker are
not used: a block here is a file in /dev/shm (Linux), in the user's temporary folder (other POSIX systems) or a
named mapping (Windows), all through ``mmap``.
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
    """One block of shared memory. On POSIX the name can go while both sides still have it mapped."""

    def __init__(self, name: str, size: int, *, create: bool) -> None:
        self.name = name
        length = max(size, 1)  # an empty mapping is not allowed
        if sys.platform == "win32":
            self._mapping = mmap.mmap(-1, length, tagname=name)
        else:
            self._mapping = _mapped_file(name, length, create)

    def view(self, dtype: str, shape: Iterable[int]) -> Array:
        """The block as an array, without a copy. Drop the view before ``close``."""
        lengths = tuple(shape)
        count = int(np.prod(lengths, dtype=np.int64))
        return np.frombuffer(self._mapping, dtype=np.dtype(dtype), count=count).reshape(lengths)

    def close(self) -> None:
        """Lets go of the memory; the name stays until ``remove_names``."""
        self._mapping.close()


def _mapped_file(name: str, length: int, create: bool) -> mmap.mmap:
    path = (blocks_folder() or Path()) / name
    flags = os.O_RDWR | os.O_NOFOLLOW | (os.O_CREAT | os.O_EXCL if create else 0)
    try:
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        raise NoSharedMemory(f"The shared-memory block {name} cannot be opened: {error.strerror}.") from error
    try:
        if create:
            _reserve(descriptor, length)
        elif os.fstat(descriptor).st_size < length or os.fstat(descriptor).st_uid != os.geteuid():
            raise RunError(f"The shared-memory block {name} is not the one announced.")
        return mmap.mmap(descriptor, length)
    except OSError as error:
        if create:
            os.unlink(path)
        raise NoSharedMemory(f"There is no shared memory for {length} bytes: {error.strerror}.") from error
    finally:
        os.close(descriptor)


def _reserve(descriptor: int, length: int) -> None:
    # ftruncate alone would succeed on a full /dev/shm (64 MB in many containers) and kill the process with
    # SIGBUS at the first write; reserving fails politely instead.
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, length)
    else:
        os.ftruncate(descriptor, length)


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
