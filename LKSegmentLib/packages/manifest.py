"""The manifest of a model package (`model.json`): what a network is, expects, answers, and may be used for.

Reading one needs the standard library only, so the panel can list models where torch is not installed.
Every field is explained in docs/model-packages.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import PurePosixPath
from typing import Any

from LKSegmentLib.errors import InputError
from LKSegmentLib.packages.channels import Channel, Intensity, channel_from
from LKSegmentLib.packages.fields import Fields, is_number, is_whole
from LKSegmentLib.packages.labels import Label, label_from

FORMAT_VERSION = 1
MANIFEST_FILE = "model.json"
WEIGHTS_FILE = "weights.safetensors"
KINDS = ("volume", "click")
OUTPUTS = ("classes", "regions")
LARGEST_WINDOW = 1024
MOST_OUTPUTS = 4096
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
HASH_PATTERN = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class FileRecord:
    """What the manifest promises about a file: SHA-256 (64 hexadecimal digits) and size in bytes."""

    sha256: str
    size: int

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a JSON object."""
        return {"sha256": self.sha256, "bytes": self.size}


@dataclass(frozen=True)
class Manifest:
    """A validated manifest. Windows and shapes are (k, j, i), spacing is (x, y, z) mm along R, A, S."""

    name: str
    network: str
    in_channels: int
    out_channels: int
    channels: tuple[Channel, ...]
    labels: tuple[Label, ...]
    window: tuple[int, int, int]
    licence: str
    title: str = ""
    summary: str = ""
    kind: str = "volume"
    output: str = "classes"
    options: Mapping[str, Any] = field(default_factory=dict)
    spacing: tuple[float, float, float] | None = None
    orientation: str = "RAS"
    overlap: float = 0.5
    prompts: Mapping[str, Any] = field(default_factory=dict)
    trained_on: str = ""
    scores: tuple[Mapping[str, Any], ...] = ()
    faithfulness: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    citation: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, FileRecord] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    @property
    def intensity(self) -> Intensity:
        """The intensity rule of the first image channel."""
        return self.channels[0].intensity

    @property
    def segments(self) -> tuple[Label, ...]:
        """The labels a person sees: all but the background."""
        return tuple(label for label in self.labels if label.value > 0)

    def to_json(self) -> dict[str, Any]:
        """Return the manifest as JSON values, in the order of the documentation."""
        return {
            "format_version": self.format_version,
            "name": self.name,
            "title": self.title,
            "summary": self.summary,
            "kind": self.kind,
            "network": self.network,
            "options": dict(self.options),
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "output": self.output,
            "channels": [channel.to_json() for channel in self.channels],
            "labels": [label.to_json() for label in self.labels],
            "spacing": list(self.spacing) if self.spacing else None,
            "orientation": self.orientation,
            "window": list(self.window),
            "overlap": self.overlap,
            "prompts": dict(self.prompts),
            "licence": self.licence,
            "trained_on": self.trained_on,
            "scores": [dict(score) for score in self.scores],
            "faithfulness": {name: dict(entry) for name, entry in self.faithfulness.items()},
            "citation": self.citation,
            "extra": dict(self.extra),
            "files": {name: record.to_json() for name, record in self.files.items()},
        }


KNOWN_FIELDS = tuple(entry.name for entry in fields(Manifest))


def manifest_from(values: Any, where: str) -> Manifest:
    """Return the manifest held in JSON values. `where` names the package in messages.

    Raises InputError, one sentence, for the first thing that is wrong.
    """
    read = Fields(values, where)
    version = read.values.get("format_version")
    if version != FORMAT_VERSION or not is_whole(version):
        raise InputError(
            f"{where} has format version {version!r}, and this LKSegment reads version {FORMAT_VERSION}: "
            "update LKSegment or save the package again."
        )
    read.only(KNOWN_FIELDS)
    name = read.text("name")
    if not NAME_PATTERN.fullmatch(name):
        read.wrong("name", 'letters, digits, ".", "_" or "-", at most 64, starting with a letter or digit')
    kind = read.choice("kind", KINDS, "volume")
    in_channels = read.whole("in_channels", 1, 64)
    out_channels = read.whole("out_channels", 1, MOST_OUTPUTS)
    output = read.choice("output", OUTPUTS, "regions" if out_channels == 1 else "classes")
    if output == "classes" and out_channels == 1:
        read.wrong("output", '"regions" for a network with one output channel')
    if read.text("orientation", "RAS") != "RAS":
        read.wrong("orientation", '"RAS", the only orientation this version runs networks in')
    return Manifest(
        name=name,
        title=read.text("title", name, 200),
        summary=read.text("summary", " ").strip(),
        kind=kind,
        network=read.text("network", longest=100),
        options=options_from(read),
        in_channels=in_channels,
        out_channels=out_channels,
        output=output,
        channels=channels_from(read, kind, in_channels),
        labels=labels_from(read, output, out_channels),
        spacing=spacing_from(read),
        window=window_from(read),
        overlap=read.number("overlap", 0.0, 0.9, 0.5),
        prompts=read.mapping("prompts"),
        licence=read.text("licence", longest=2000),
        trained_on=read.text("trained_on", " ").strip(),
        scores=tuple(dict(Fields(score, f"{where}, a score").values) for score in read.items("scores", 1000)),
        faithfulness=faithfulness_from(read),
        citation=read.text("citation", " ").strip(),
        extra=read.mapping("extra"),
        files=files_from(read),
    )


def options_from(read: Fields) -> dict[str, Any]:
    """Return the constructor values of the network, bounded; `weights.create` stops what is absurd nevertheless."""
    options = read.mapping("options")
    for key in ("in_channels", "out_channels"):
        if key in options:
            raise InputError(f'{read.where}: "{key}" belongs beside "options", not inside it.')

    def check(value: Any, depth: int) -> None:
        if is_number(value) and abs(value) > 65536:
            read.wrong("options", "constructor values no larger than 65536")
        if isinstance(value, str) and len(value) > 200:
            read.wrong("options", "constructor values with texts of at most 200 characters")
        if isinstance(value, (list, dict)):
            if len(value) > 64 or depth > 4:
                read.wrong("options", "constructor values in lists of at most 64, nested at most 4 deep")
            for inner in value.values() if isinstance(value, dict) else value:
                check(inner, depth + 1)

    check(options, 0)
    return options


def channels_from(read: Fields, kind: str, in_channels: int) -> tuple[Channel, ...]:
    """Return the image channels; all inputs of a volume model, the first inputs of a click model."""
    given = read.items("channels", 64, required=True)
    channels = tuple(channel_from(value, f"{read.where}, channel {index}") for index, value in enumerate(given))
    if len(channels) > in_channels or (kind == "volume" and len(channels) != in_channels):
        raise InputError(
            f"{read.where} describes {len(channels)} image channels for a network with {in_channels} inputs: "
            "describe each image channel once (a click model's prompt channels are not image channels)."
        )
    return channels


def labels_from(read: Fields, output: str, out_channels: int) -> tuple[Label, ...]:
    """Return one label for each output channel. Of classes the first one is the background, with value 0."""
    given = read.items("labels", MOST_OUTPUTS, required=True)
    if len(given) != out_channels:
        raise InputError(
            f"{read.where} lists {len(given)} labels for {out_channels} output channels: "
            "list one label for each output, the background included."
        )
    first = 0 if output == "classes" else 1
    labels = tuple(
        label_from(value, first + index, f"{read.where}, label {index}") for index, value in enumerate(given)
    )
    names = [label.name for label in labels]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f'{read.where} uses the label name "{name}" twice: give each label its own name.')
    return labels


def spacing_from(read: Fields) -> tuple[float, float, float] | None:
    """Return the spacing in mm, or None for a network that works on any spacing."""
    if not read.has("spacing"):
        return None
    x, y, z = read.numbers("spacing", 3, 0.01, 100.0)
    return x, y, z


def window_from(read: Fields) -> tuple[int, int, int]:
    """Return the window in voxels (k, j, i)."""
    k, j, i = read.wholes("window", 3, 1, LARGEST_WINDOW)
    return k, j, i


def faithfulness_from(read: Fields) -> dict[str, dict[str, Any]]:
    """Return how faithful the network's maps are, by map; see `packages.faithfulness`."""
    found: dict[str, dict[str, Any]] = {}
    for name, values in read.mapping("faithfulness").items():
        entry = Fields(values, f'{read.where}, the faithfulness of "{name[:60]}"')
        entry.only(("sentence", "scores", "data", "weights"))
        digest = entry.text("weights").lower()
        if not HASH_PATTERN.fullmatch(digest):
            entry.wrong("weights", "64 hexadecimal digits, the SHA-256 of the weights it was measured with")
        texts = {key: entry.text(key, longest=2000) for key in ("sentence", "data")}
        found[name] = {**texts, "scores": entry.mapping("scores"), "weights": digest}
    return found


def files_from(read: Fields) -> dict[str, FileRecord]:
    """Return the files the manifest vouches for; the weights must be among them."""
    records: dict[str, FileRecord] = {}
    for name, values in read.mapping("files").items():
        check_file_name(name, read.where)
        entry = Fields(values, f'{read.where}, file "{name}"')
        entry.only(("sha256", "bytes"))
        digest = entry.text("sha256").lower()
        if not HASH_PATTERN.fullmatch(digest):
            entry.wrong("sha256", "64 hexadecimal digits")
        records[name] = FileRecord(digest, entry.whole("bytes", 0, 2**40))
    if WEIGHTS_FILE not in records:
        raise InputError(f'{read.where} does not list "{WEIGHTS_FILE}" in "files": save the package again.')
    return records


def check_file_name(name: str, where: str) -> None:
    """InputError unless `name` is a plain relative path that stays inside the package on every system."""
    parts = PurePosixPath(name).parts
    bad = not parts or name.startswith("/") or ".." in parts or any(mark in name for mark in '\\:\0\n\r*?"<>|')
    if bad or len(name) > 200:
        raise InputError(
            f'{where} names the file "{name[:80]}", which could lie outside the package: '
            "use plain names inside its folder."
        )
