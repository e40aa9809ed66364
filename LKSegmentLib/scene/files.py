"""Files that are either whole or not there: written under a temporary name beside the target, then renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from LKSegmentLib.errors import InputError, RunError


def require_folder(target: Path) -> None:
    """InputError unless `target` can be the name of a new file: its folder is there, and it is no folder itself."""
    if not target.parent.is_dir():
        raise InputError(f"The folder {target.parent} does not exist. Create it, or choose another one.")
    if target.is_dir():
        raise InputError(f"{target} is a folder. Give the name of a file.")


@contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """Give the name of a temporary file; when the block ends well, it becomes `target`, else it is removed.

    Raises InputError when the folder does not exist or cannot be written, RunError when the disk is full or the
    block wrote nothing.
    """
    require_folder(target)
    # Storage nodes choose the format by all suffixes (".seg.nrrd"), so these stay at the end.
    stem, *suffixes = target.name.split(".")
    folder = target.parent
    temporary = folder / ".".join([f".{stem}-{secrets.token_hex(4)}", *suffixes])
    try:
        # Slicer's writers print a stack of errors where they cannot write: find out before.
        with open(temporary, "wb"):
            pass
        yield temporary
        if not temporary.is_file() or temporary.stat().st_size == 0:
            raise RunError(f"{target} could not be written. Check the free space of the disk.")
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, target)
    except PermissionError as error:
        raise InputError(f"The folder {folder} cannot be written: {error.strerror}. Choose another one.") from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise RunError(f"The disk is full: {target} was not written. Free some space and try again.") from error
        raise RunError(f"{target} could not be written: {error.strerror}.") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
