"""Writing results so that a file is either there as a whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from LKSegmentLib.errors import InputError, LKSegmentError
from LKSegmentLib.volumes.native_output import native_stderr_held

LABEL_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha")
SEGMENTATION_SUFFIX = ".seg.nrrd"


def suffix_of(path: Path) -> str:
    """The part of the name that tells the format: `.seg.nrrd`, `.nii.gz`, or the last suffix; lower case."""
    name = path.name.lower()
    for suffix in (SEGMENTATION_SUFFIX, ".nii.gz"):
        if name.endswith(suffix):
            return suffix
    return path.suffix.lower()


def output_file(text: str, suffixes: tuple[str, ...], what: str) -> Path:
    """A path that can be written. Called before any work, so that nobody waits for a result that has no place.

    Raises InputError for a format that is not among `suffixes`, or a folder that cannot be written to.
    """
    path = Path(text).expanduser().absolute()
    if suffix_of(path) not in suffixes:
        raise InputError(f"The {what} {text} must end with {' or '.join(suffixes)}.")
    if path.is_dir():
        raise InputError(f"The {what} {text} is a folder; name a file.")
    output_folder(path.parent, what, create=False)
    return path


def refuse_overwriting(image: str, *targets: Path | None) -> None:
    """Raises InputError where a result would take the place of the image it is made from."""
    source = Path(image).expanduser()
    for target in targets:
        if target is not None and target.exists() and source.exists() and target.samefile(source):
            raise InputError(f"{target} is the image itself: give the result another name.")


def output_folder(folder: Path, what: str, create: bool = True) -> Path:
    """The folder, made if wanted. Raises InputError when it is missing, or nothing can be written there."""
    try:
        if create:
            folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except FileNotFoundError as error:
        raise InputError(f"The folder {folder} for the {what} does not exist; make it first.") from error
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"The {what} cannot go to {folder}: a file is in the way.") from error
    except PermissionError as error:
        raise InputError(f"The {what} cannot be written: no permission in the folder {folder}.") from error
    except OSError as error:
        raise _no_place(folder, error) from error
    return folder


def coming_folder(folder: Path, what: str) -> Path:
    """A folder that can be made once there is something to put into it. Raises InputError as `output_folder`."""
    output_folder(_existing(folder), what, create=False)
    return folder


def _existing(folder: Path) -> Path:
    """The folder itself, or the nearest one above it that is there."""
    while not os.path.lexists(folder):
        folder = folder.parent
    return folder


def require_space(folder: Path, needed: int) -> None:
    """Raises InputError when the disk of `folder`, made or not, has fewer than `needed` bytes left."""
    free = shutil.disk_usage(_existing(folder)).free
    if free < needed:
        raise InputError(
            f"The disk of {folder} is too full: about {needed / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free."
        )


@contextlib.contextmanager
def whole_files(*paths: Path) -> Iterator[list[Path]]:
    """Write results under the yielded paths; they take their real places together, when all of them are complete.

    The yielded paths have the real names (formats and node names come from them) in a hidden folder beside the
    first one. After an error or a stop that folder is removed and the real places are as before.
    Only writing belongs into the block: whatever fails in it is taken for a full disk or a place that cannot be
    written, and raised as InputError.
    """
    place = paths[0].parent
    try:
        with tempfile.TemporaryDirectory(prefix=".lksegment-", dir=place) as hidden:
            drafts = []
            for number, path in enumerate(paths):
                folder = Path(hidden) / str(number)
                folder.mkdir()
                drafts.append(folder / path.name)
            # What ITK and VTK print about a failure is said better by the sentence that follows.
            with native_stderr_held():
                yield drafts
            for draft, path in zip(drafts, paths, strict=True):
                os.replace(draft, path)
    except OSError as error:
        raise _no_place(place, error) from error
    except LKSegmentError as error:  # its message names the hidden folder, which is gone
        free = shutil.disk_usage(place).free / 1e6
        raise InputError(
            f"The results could not be written to {place} ({free:.0f} MB free): make room or choose another folder; "
            "what was there before is unchanged."
        ) from error


def _no_place(folder: Path, error: OSError) -> InputError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return InputError(f"The disk is full: the results do not fit into {folder}. Make room and run it again.")
    return InputError(f"The results cannot be written to {folder}: {error.strerror or error}.")
