"""Writing a model package. Either the whole package appears at its place or nothing changes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import uuid
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from LKSegmentLib.errors import InputError, RunError
from LKSegmentLib.packages import weights as weight_files
from LKSegmentLib.packages.fields import plain
from LKSegmentLib.packages.manifest import (
    FORMAT_VERSION,
    MANIFEST_FILE,
    WEIGHTS_FILE,
    Manifest,
    manifest_from,
)

if TYPE_CHECKING:
    import torch

MOST_GUESSED_INPUTS = 16

# Of a place that cannot be written at all: the person can name another one.
_ANOTHER_PLACE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG)


def save(
    folder: str | os.PathLike[str],
    *,
    network: str,
    state_dict: Mapping[str, torch.Tensor],
    labels: Sequence[Any],
    window: Sequence[int],
    licence: str,
    intensity: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    spacing: Sequence[float] | None = None,
    precision: str = "keep",
    overwrite: bool = False,
    **more: Any,
) -> Path:
    """Write weights and what must be known about them as a model package, and return its path.

    folder      where it goes; a name that ends in ".zip" makes one zip file
    labels      one entry {"name", "terminology", "color"} for each output, background first; a missing
                background is added when the network has one output more than there are labels
    window      voxels (k, j, i) the network sees at once; spacing (x, y, z) mm, None for any spacing
    intensity   the rule of all image channels (`Intensity`); {} means the percentile rule;
                or give `channels=[{"name", "modality", "intensity"}, …]`
    precision   "keep", "float16" (half the size; cast back when loaded) or "float32"
    overwrite   replace an existing package; without it an existing one is never touched
    more        any other field of the manifest, for example title, kind, trained_on, scores, citation,
                overlap, prompts; `in_channels` and `out_channels` are read off the weights when not given

    Raises InputError when a value is wrong, the weights do not fit the network or the place cannot be written;
    RunError when writing fails.
    """
    target = Path(folder).expanduser()
    check_target(target, overwrite)
    where = f"The package {target}"
    values: dict[str, Any] = {"name": default_name(target), "kind": "volume", **more}
    values |= {
        "format_version": FORMAT_VERSION,
        "network": network,
        "licence": licence,
        "window": list(window),
    }
    values["spacing"] = None if spacing is None else list(spacing)
    values["options"] = {**(options or {})}
    for key in ("in_channels", "out_channels"):
        if key in values["options"]:
            values.setdefault(key, values["options"].pop(key))
    values["labels"] = list(labels)
    settle_channels(values, state_dict, where)
    if "channels" not in values:
        values["channels"] = default_channels(values, intensity)
    settle_labels(values)

    content = weight_files.to_bytes(state_dict, precision, where)
    digest = hashlib.sha256(content).hexdigest()
    values["files"] = {WEIGHTS_FILE: {"sha256": digest, "bytes": len(content)}}
    manifest = manifest_from(jsonable(values, where), where)
    write(target, manifest, content)
    return target


def default_name(target: Path) -> str:
    """Return a package name made from the target's file name."""
    stem = target.name[: -len(".zip")] if target.name.lower().endswith(".zip") else target.name
    return re.sub(r"[^A-Za-z0-9._-]+", "_", stem).lstrip("._-")[:64] or "model"


def jsonable(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the values as JSON holds them; our own dataclasses (labels, channels, codes) turn into objects."""

    def turned(value: Any) -> Any:
        if hasattr(value, "to_json"):
            return value.to_json()
        if isinstance(value, Mapping):
            return {key: turned(inner) for key, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [turned(inner) for inner in value]
        return value

    result: dict[str, Any] = plain(turned(values), where)
    return result


def settle_channels(values: dict[str, Any], state_dict: Mapping[str, torch.Tensor], where: str) -> None:
    """Set in_channels and out_channels to those for which the weights fit the network.

    Raises InputError when there are none.
    """
    labels = len(values["labels"])
    outputs = [labels] if values.get("output") == "regions" else [labels, labels + 1]
    if "out_channels" in values:
        outputs = [values["out_channels"]]
    inputs = list(range(1, MOST_GUESSED_INPUTS + 1))
    if "in_channels" in values:
        inputs = [values["in_channels"]]
    elif values["kind"] == "volume" and values.get("channels"):
        inputs = [len(values["channels"])]
    problems = []
    for in_channels in inputs:
        for out_channels in outputs:
            built = weight_files.create(
                values["network"], values["options"], in_channels, out_channels, where, device="meta"
            )
            problem = weight_files.misfit(built, state_dict)
            if problem is None:
                values["in_channels"], values["out_channels"] = in_channels, out_channels
                return
            problems.append(problem)
    raise InputError(
        f'The weights do not fit the network "{values["network"]}" with {inputs[0]} input and {outputs[0]} output '
        f"channels: {problems[0]}. Give the options, in_channels and labels they were trained with."
    )


def default_channels(values: Mapping[str, Any], intensity: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Return image channels that share one intensity rule; a click model has one image channel by default."""
    rule = dict(intensity) if isinstance(intensity, Mapping) else intensity
    if isinstance(rule, dict) and "rule" not in rule:
        rule["rule"] = "ct" if "window" in rule else "percentile"
    modality = "CT" if isinstance(rule, dict) and rule.get("rule") in ("ct", "standard") else "any"
    count = values["in_channels"] if values["kind"] == "volume" else 1
    names = ["image"] if count == 1 else [f"image {index + 1}" for index in range(count)]
    return [{"name": name, "modality": modality, "intensity": rule or {"rule": "percentile"}} for name in names]


def settle_labels(values: dict[str, Any]) -> None:
    """Put the background in front when the labels name the segments only."""
    if len(values["labels"]) == values["out_channels"] - 1:
        values["labels"] = [{"name": "background"}, *values["labels"]]


def check_target(target: Path, overwrite: bool) -> None:
    """InputError when something is at the target that must not be replaced."""
    if not target.exists() and not target.is_symlink():
        return
    if target.is_symlink():
        raise InputError(f"{target} is a link: give the place where the package itself shall lie.")
    is_package = zipfile.is_zipfile(target) if target.is_file() else (target / MANIFEST_FILE).is_file()
    if target.is_dir() and not any(target.iterdir()):
        return
    if not is_package:
        raise InputError(f"{target} exists and is not a model package: choose a new place for the package.")
    if not overwrite:
        raise InputError(f"There is a package at {target} already: choose a new place, or ask to overwrite it.")


def write(target: Path, manifest: Manifest, content: bytes) -> None:
    """Write everything beside the target first, then rename: a crash leaves the old package or the new one.

    Raises InputError for a place where nothing can be written, RunError when writing fails there, as on a full disk.
    """
    unique = uuid.uuid4().hex[:12]
    fresh = target.with_name(f".{target.name}.saving-{unique}")
    text = json.dumps(manifest.to_json(), indent=2, ensure_ascii=False) + "\n"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.name.lower().endswith(".zip"):
            with zipfile.ZipFile(fresh, "w", zipfile.ZIP_STORED) as archive:  # weights do not compress
                archive.writestr(zipfile.ZipInfo(MANIFEST_FILE), text)
                archive.writestr(zipfile.ZipInfo(WEIGHTS_FILE), content)
            os.replace(fresh, target)
        else:
            fresh.mkdir()
            (fresh / MANIFEST_FILE).write_text(text, encoding="utf-8", newline="\n")
            (fresh / WEIGHTS_FILE).write_bytes(content)
            exchange(fresh, target, target.with_name(f".{target.name}.old-{unique}"))
    except OSError as error:
        sentence = f"The package {target} cannot be written ({error.strerror}): nothing was changed there"
        if error.errno in _ANOTHER_PLACE:
            raise InputError(f"{sentence}. Choose another place.") from error
        raise RunError(f"{sentence}.") from error
    finally:
        remove(fresh)


def exchange(fresh: Path, target: Path, aside: Path) -> None:
    """Put the folder `fresh` at `target`; what was there comes back when this fails."""
    existed = target.exists()
    if existed:
        os.rename(target, aside)
    try:
        os.rename(fresh, target)
    except OSError:
        if existed:
            os.rename(aside, target)
        raise
    remove(aside)


def remove(path: Path) -> None:
    """Remove a temporary folder or file of ours if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):  # not there, or in a place where nothing could be written
            path.unlink()
