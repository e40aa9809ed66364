"""Keeping what ITK's C and C++ libraries print apart from the sentences a person is to read."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_LOG = logging.getLogger(__name__)
_ONE_AT_A_TIME = threading.RLock()


@contextmanager
def native_stderr_held() -> Iterator[None]:
    """Hold back what is written to the process's stderr: replayed on success, logged at debug level on failure.

    ITK's readers print their own lines about a bad file, some of them straight from C, before they raise. The
    error raised says it all in one sentence. ITK's own warnings are switched off meanwhile. Where the process has
    no stderr (a Windows application), nothing is held.
    """
    import SimpleITK

    with _ONE_AT_A_TIME:
        shown = SimpleITK.ProcessObject.GetGlobalWarningDisplay()
        SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
        try:
            with _stderr_held():
                yield
        finally:
            SimpleITK.ProcessObject.SetGlobalWarningDisplay(shown)


@contextmanager
def _stderr_held() -> Iterator[None]:
    try:
        sys.stderr.flush()
        original = os.dup(2)
    except (OSError, AttributeError, ValueError):
        original = None
    if original is None:
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            _restore(original)
            _LOG.debug("Printed by ITK: %s", _text(held.fileno()).decode(errors="replace"))
            raise
        _restore(original)
        if printed := _text(held.fileno()):
            os.write(2, printed)


def _restore(original: int) -> None:
    sys.stderr.flush()
    os.dup2(original, 2)
    os.close(original)


def _text(descriptor: int) -> bytes:
    os.lseek(descriptor, 0, os.SEEK_SET)
    chunks = []
    while chunk := os.read(descriptor, 1 << 16):
        chunks.append(chunk)
    return b"".join(chunks)
