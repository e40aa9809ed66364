"""Where stitched maps are kept while windows add to them: in memory, or, where they are large, in files.

The files lie in the folder for temporary files (`TMPDIR` where that is set) and have no name: the system removes them
with the last array that lies in them, after a cancelled run, an error or a killed process too.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from typing import IO

import numpy as np
from numpy.typing import NDArray

from LKSegmentLib.errors import RunError

Float = NDArray[np.float32]

# Maps that take more than this share of the free memory go to files.
LARGEST_SHARE = 0.25
_CHUNK = 2**22

Zeros = Callable[[Sequence[int]], Float]


def in_memory(shape: Sequence[int]) -> Float:
    """Zeros of this shape."""
    return np.zeros(tuple(shape), np.float32)


def on_disk(shape: Sequence[int]) -> Float:
    """Zeros of this shape in a file of their own, which goes when the array goes.

    Raises:
        RunError: the file cannot be made as large as that.
    """
    count = math.prod(shape)
    try:
        with tempfile.TemporaryFile(prefix="lksegment-map-") as file:
            _reserve(file, 4 * count)
            return np.asarray(np.memmap(file, np.float32, "r+", shape=tuple(shape)))
    except OSError as error:
        raise RunError(
            f"A map of {4 * count / 2**30:.1f} GiB could not be kept in {tempfile.gettempdir()} ({error.strerror}): "
            "make room there, set TMPDIR to a folder with room, or choose fewer maps."
        ) from error


def room_on_disk() -> int:
    """Bytes that are free where the files go."""
    return shutil.disk_usage(tempfile.gettempdir()).free


def _reserve(file: IO[bytes], size: int) -> None:
    """Zeros that have their place on the disk: a file with holes would end the process when the disk is full."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    zeros = bytes(_CHUNK)
    for begin in range(0, size, _CHUNK):
        file.write(zeros[: min(_CHUNK, size - begin)])
    file.flush()
