"""Which model packages are installed: the built-in ones and those in the user's model folder.

Needs neither torch nor safetensors: the panel lists models with it inside Slicer. Hashes are checked when a
package is loaded, not here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from LKSegmentLib.errors import InputError
from LKSegmentLib.packages.archive import open_archive
from LKSegmentLib.packages.fields import parse_json
from LKSegmentLib.packages.labels import Label
from LKSegmentLib.packages.manifest import MANIFEST_FILE, Manifest, manifest_from

USER_VARIABLE = "LKSEGMENT_MODELS"
BUILT_IN_VARIABLE = "LKSEGMENT_BUILT_IN_MODELS"
LIBRARY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Entry:
    """One installed model, as a list of models shows it. `folder` is the package's folder or zip file."""

    name: str
    title: str
    kind: str
    folder: Path
    licence: str
    summary: str
    built_in: bool
    labels: tuple[Label, ...]
    manifest: Manifest


@dataclass(frozen=True)
class BrokenPackage:
    """Something in a model folder that cannot be used, and the sentence that says why."""

    folder: Path
    problem: str


def built_in_folder() -> Path:
    """Return where LKSegment's own packages lie.

    `Resources/Models` beside `LKSegmentLib`: so it is in a checkout, and so CMake installs it inside Slicer;
    a wheel carries it inside `LKSegmentLib` (docs/decisions/model-packages.md). The environment variable
    LKSEGMENT_BUILT_IN_MODELS names another folder.
    """
    named = os.environ.get(BUILT_IN_VARIABLE)
    if named:
        return Path(named).expanduser()
    inside = LIBRARY / "Resources" / "Models"
    return inside if inside.is_dir() else LIBRARY.parent / "Resources" / "Models"


def user_folder() -> Path:
    """Return the user's model folder: LKSEGMENT_MODELS, or .lksegment/models in the home folder."""
    named = os.environ.get(USER_VARIABLE)
    return Path(named).expanduser() if named else Path.home() / ".lksegment" / "models"


def read_manifest(source: Path) -> Manifest:
    """Return the validated manifest of a package folder or zip, without looking at its weights.

    Raises InputError when there is no package there or its manifest is wrong.
    """
    with open_archive(source) as archive:
        return manifest_from(parse_json(archive.read_manifest(), archive.where), archive.where)


def catalogue() -> list[Entry]:
    """Return the usable installed models, built-in ones first, each group by name."""
    return [found for found in survey() if isinstance(found, Entry)]


def broken_packages() -> list[BrokenPackage]:
    """Return what lies in the model folders but cannot be used, with the reasons."""
    return [found for found in survey() if isinstance(found, BrokenPackage)]


def find(name: str) -> Entry:
    """Return the installed model called `name`. InputError, naming the installed ones, when there is none."""
    entries = catalogue()
    for entry in entries:
        if entry.name == name:
            return entry
    for broken in broken_packages():
        if broken.folder.name in (name, f"{name}.zip"):
            raise InputError(broken.problem)
    installed = ", ".join(entry.name for entry in entries) or "none"
    raise InputError(
        f'There is no model "{name}" (installed: {installed}): '
        f"give one of these names, the path of a package, or put the package into {user_folder()}."
    )


def survey() -> Iterator[Entry | BrokenPackage]:
    """Yield everything in both model folders that looks like a package."""
    seen: dict[str, Path] = {}
    folders = {built_in_folder().resolve(): True}
    folders.setdefault(user_folder().resolve(), False)
    for folder, built_in in folders.items():
        for source in candidates(folder):
            try:
                manifest = read_manifest(source)
            except InputError as error:
                yield BrokenPackage(source, str(error))
                continue
            if manifest.name in seen:
                yield BrokenPackage(
                    source,
                    f'The package {source} is called "{manifest.name}" like {seen[manifest.name]}, which is used: '
                    "give it another name in its manifest, or open it by its path.",
                )
                continue
            seen[manifest.name] = source
            yield Entry(
                name=manifest.name,
                title=manifest.title,
                kind=manifest.kind,
                folder=source,
                licence=manifest.licence,
                summary=manifest.summary,
                built_in=built_in,
                labels=manifest.segments,
                manifest=manifest,
            )


def candidates(folder: Path) -> list[Path]:
    """Return the package folders and zip files directly in `folder`, by name. Hidden ones are half-written."""
    try:
        entries = sorted(folder.iterdir(), key=lambda path: path.name.lower())
    except OSError:  # there is no such folder yet, or it may not be read: then nothing is installed in it
        return []
    return [
        entry
        for entry in entries
        if not entry.name.startswith(".")
        and (entry.suffix.lower() == ".zip" if entry.is_file() else holds_manifest(entry))
    ]


def holds_manifest(folder: Path) -> bool:
    """Whether a folder looks like a package. One that may not be entered does: opening it tells why it is of no use."""
    return os.path.exists(folder / MANIFEST_FILE) or (folder.is_dir() and not os.access(folder, os.R_OK | os.X_OK))
