"""Safe reading of a package, be it a folder or one zip. Nothing is unpacked to disk and no code is run.

Everything that could reach outside the package, exhaust the memory, or hide a pickle is refused here.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import stat
import struct
import zipfile
import zlib
from abc import ABC, abstractmethod
from pathlib import Path, PurePosixPath
from types import TracebackType

from LKSegmentLib.errors import InputError
from LKSegmentLib.packages.manifest import MANIFEST_FILE, FileRecord, check_file_name

LARGEST_MANIFEST = 2**20
LARGEST_FILE = 4 * 2**30
MOST_FILES = 256
# A zip member this large that shrinks this much is no network weights: they barely compress.
BOMB_SIZE = 64 * 2**20
BOMB_RATIO = 50
# What zipfile raises for damaged zips and for those of a kind or version it does not know.
DAMAGED_ZIP = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    ValueError,
    struct.error,
    RuntimeError,  # NotImplementedError is one
)
PICKLE_SUFFIXES = frozenset(
    (
        ".pt",
        ".pth",
        ".pkl",
        ".pickle",
        ".bin",
        ".ckpt",
        ".joblib",
        ".dill",
        ".npy",
        ".npz",
        ".msgpack",
        ".h5",
        ".tar",
    )
)


def open_archive(source: Path) -> Archive:
    """Return the package at `source`, opened. InputError when there is none or it is unsafe."""
    # os.path, as pathlib raises for a path behind a folder that may not be entered
    if os.path.isdir(source):
        return FolderArchive(source)
    if not os.path.exists(source):
        raise InputError(f"There is no model package at {source}: check the path.")
    if not os.access(source, os.R_OK):
        raise InputError(f"The package {source} may not be read: check its permissions.")
    if zipfile.is_zipfile(source):
        return ZipArchive(source)
    raise InputError(f"{source} is not a model package: give a package folder, or a package as one zip file.")


class Archive(ABC):
    """A package opened for reading; a context manager. `where` names it in messages."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self.where = f"The manifest of the package {source}"

    @abstractmethod
    def names(self) -> list[str]:
        """Return the relative names of all files, "/" between folders."""

    @abstractmethod
    def read(self, name: str, limit: int) -> bytes:
        """Return the content of a file of at most `limit` bytes. InputError when it is missing, larger or damaged."""

    @abstractmethod
    def close(self) -> None:
        """Let go of what is held open."""

    def read_manifest(self) -> bytes:
        """Return the bytes of the manifest."""
        return self.read(MANIFEST_FILE, LARGEST_MANIFEST)

    def read_verified(self, name: str, record: FileRecord) -> bytes:
        """Return a file whose size and SHA-256 are those the manifest promises. InputError when they are not."""
        content = self.read(name, LARGEST_FILE)
        if len(content) != record.size or hashlib.sha256(content).hexdigest() != record.sha256:
            raise InputError(
                f'"{name}" in the package {self.source} is not the file its manifest describes (wrong hash): '
                "it is damaged or was exchanged, get the package anew."
            )
        return content

    def refuse_pickles(self) -> None:
        """InputError when any file could hold a pickle, which runs code when it is opened."""
        for name in self.names():
            if PurePosixPath(name.lower()).suffix in PICKLE_SUFFIXES:
                raise InputError(
                    f'The package {self.source} contains "{name}", a kind of file that can run code when opened: '
                    "convert the checkpoint with `lksegment import` and remove the file."
                )

    def too_large(self, name: str, limit: int) -> InputError:
        """Return the error for a file beyond `limit` bytes."""
        return InputError(
            f'"{name}" in the package {self.source} is larger than {limit / 2**20:.0f} MiB: this is no usable package.'
        )

    def missing(self, name: str) -> InputError:
        """Return the error for a file that is not there."""
        return InputError(f'The package {self.source} lacks the file "{name}": get the package anew.')

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class FolderArchive(Archive):
    """A package in a folder."""

    def __init__(self, source: Path) -> None:
        super().__init__(source)
        self.root = source.resolve()

    def names(self) -> list[str]:
        found: list[str] = []
        for folder, folders, files in os.walk(self.root, onerror=self.unreadable):
            for name in (*folders, *files):
                path = Path(folder, name)
                if path.is_symlink():
                    self.inside(path)
            found += [Path(folder, name).relative_to(self.root).as_posix() for name in files]
            if len(found) > MOST_FILES:
                raise InputError(f"The folder {self.source} holds over {MOST_FILES} files: it is no model package.")
        return found

    def close(self) -> None:
        """A folder holds nothing open."""

    def unreadable(self, error: OSError) -> None:
        """Turn a folder that cannot be listed into a sentence."""
        raise InputError(f"The package {self.source} cannot be read ({error.strerror}): check its permissions.")

    def inside(self, path: Path) -> Path:
        """Return the real path behind `path`. InputError when it lies outside the package."""
        try:
            real = path.resolve()
        except (OSError, RuntimeError) as error:  # a link that leads to itself
            raise InputError(f'"{path.name}" in the package {self.source} is a link to nowhere: remove it.') from error
        if not real.is_relative_to(self.root):
            raise InputError(
                f'"{path.name}" in the package {self.source} is a link that leaves the package: '
                "replace it by the file itself."
            )
        return real

    def read(self, name: str, limit: int) -> bytes:
        check_file_name(name, self.where)
        path = self.inside(self.root / name)
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                raise InputError(f'"{name}" in the package {self.source} is not an ordinary file: replace it.')
            if status.st_size > limit:
                raise self.too_large(name, limit)
            with open(path, "rb") as stream:
                return stream.read(limit)
        except FileNotFoundError as error:
            raise self.missing(name) from error
        except OSError as error:
            raise InputError(
                f'"{name}" in the package {self.source} cannot be read ({error.strerror}): check its permissions.'
            ) from error


class ZipArchive(Archive):
    """A package in one zip, either at its top or in its only top-level folder."""

    def __init__(self, source: Path) -> None:
        super().__init__(source)
        try:
            self.zip = zipfile.ZipFile(source)
        except DAMAGED_ZIP as error:
            raise InputError(f"The zip {source} cannot be opened ({error}): get the package anew.") from error
        try:
            self.members = self.checked_members()
        except InputError:
            self.zip.close()
            raise

    def checked_members(self) -> dict[str, zipfile.ZipInfo]:
        """Return the members by name below the package's folder, after refusing unsafe ones."""
        infos = [info for info in self.zip.infolist() if not info.is_dir()]
        if len(infos) > MOST_FILES:
            raise InputError(f"The zip {self.source} holds over {MOST_FILES} files: it is no model package.")
        if sum(info.file_size for info in infos) > LARGEST_FILE:
            raise self.too_large("the content", LARGEST_FILE)
        for info in self.zip.infolist():
            check_file_name(info.filename.rstrip("/"), f"The zip {self.source}")
            if stat.S_ISLNK(info.external_attr >> 16):
                raise InputError(
                    f'"{info.filename}" in the zip {self.source} is a link, which could leave the package: '
                    "replace it by the file itself."
                )
            if info.flag_bits & 1:
                raise InputError(f"The zip {self.source} is encrypted: unpack it and open the folder.")
            if info.file_size > BOMB_SIZE and info.file_size > BOMB_RATIO * info.compress_size:
                raise InputError(
                    f'"{info.filename}" in the zip {self.source} unpacks to {info.file_size / 2**20:.0f} MiB from '
                    "almost nothing: this is no usable package."
                )
        names = [info.filename for info in infos]
        if len(set(names)) != len(names):
            raise InputError(f"The zip {self.source} holds two files of one name: pack it again.")
        manifests = [name for name in names if PurePosixPath(name).name == MANIFEST_FILE and name.count("/") <= 1]
        top = min(manifests, key=len, default=MANIFEST_FILE)[: -len(MANIFEST_FILE)]
        return {info.filename[len(top) :]: info for info in infos if info.filename.startswith(top)}

    def names(self) -> list[str]:
        return [info.filename for info in self.zip.infolist() if not info.is_dir()]

    def read(self, name: str, limit: int) -> bytes:
        info = self.members.get(name)
        if info is None:
            raise self.missing(name)
        if info.file_size > limit:
            raise self.too_large(name, limit)
        try:
            with self.zip.open(info) as stream:
                return stream.read(limit)
        except DAMAGED_ZIP as error:
            raise InputError(
                f'"{name}" in the zip {self.source} is damaged ({error}): get the package anew.'
            ) from error

    def close(self) -> None:
        self.zip.close()
