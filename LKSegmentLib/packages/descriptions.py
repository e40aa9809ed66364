"""What the tensors of a checkpoint do not tell: labels, channels, spacing, window and intensities.

Read from the files nnU-Net v2 writes beside its checkpoints (dataset.json, plans.json), from a JSON list, or from
names given by hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from LKSegmentLib.errors import InputError
from LKSegmentLib.packages.fields import Fields, described, is_whole, parse_json
from LKSegmentLib.packages.manifest import LARGEST_WINDOW

LARGEST_JSON = 64 * 2**20
USUAL_CONFIGURATION = "3d_fullres"


@dataclass(frozen=True)
class Dataset:
    """What the outputs and the inputs mean.

    labels     one entry for `packages.save` for each output, perhaps without the background
    regions    outputs may overlap and are decided one by one
    channels   names of the image channels, or none
    """

    labels: tuple[Any, ...]
    regions: bool = False
    channels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """How volumes were prepared: spacing (x, y, z) mm, window (k, j, i), one intensity rule for each channel."""

    spacing: tuple[float, float, float]
    window: tuple[int, int, int]
    intensities: tuple[Mapping[str, Any], ...] = field(default_factory=tuple)


def read_json(path: Path, what: str) -> Any:
    """Return the value in a JSON file. InputError when it is missing, too large, or not JSON."""
    try:
        with open(path, "rb") as stream:
            content = stream.read(LARGEST_JSON + 1)
    except OSError as error:
        raise InputError(f"The {what} {path} cannot be read ({error.strerror}): check the path.") from error
    if len(content) > LARGEST_JSON:
        raise InputError(f"The {what} {path} is larger than {LARGEST_JSON / 2**20:.0f} MiB: give the right file.")
    return parse_json(content, f"The {what} {path}")


def dataset_named(text: str) -> Dataset:
    """Return what `--labels` says: a JSON file, or names with commas between."""
    if text.lower().endswith(".json") or Path(text).expanduser().is_file():
        path = Path(text).expanduser()
        return dataset_from(read_json(path, "label file"), f"The label file {path}")
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise InputError(f'--labels "{text:.80}" has an empty name: give names with commas between, or a JSON file.')
    return Dataset(tuple(names))


def dataset_from(values: Any, where: str) -> Dataset:
    """Return the labels of JSON values: a list, nnU-Net's dataset.json (version 1 or 2), or its labels alone.

    Raises InputError when they are not readable or leave a number out.
    """
    if isinstance(values, (list, tuple)):
        return Dataset(tuple(values))
    fields = Fields(values, where)
    labels = values["labels"] if "labels" in values else values
    channels = channel_names(fields)
    if isinstance(labels, (list, tuple)):
        return Dataset(tuple(labels), channels=channels)
    numbers = Fields(labels, f"{where}, labels").values
    if numbers and all(str(key).isdigit() and isinstance(name, str) for key, name in numbers.items()):  # version 1
        numbers = {name: int(key) for key, name in numbers.items()}
    if any(isinstance(number, (list, tuple)) for number in numbers.values()):
        return Dataset(tuple(region_names(numbers)), True, channels)
    return Dataset(tuple(names_in_order(numbers, where)), channels=channels)


def region_names(numbers: Mapping[str, Any]) -> list[str]:
    """Return the regions in nnU-Net's order of outputs: as listed, without the background and what is ignored."""
    background = (0, [0], (0,))
    return [name for name, number in numbers.items() if number not in background and name != "ignore"]


def names_in_order(numbers: Mapping[str, Any], where: str) -> list[str]:
    """Return the names by their numbers, without what is ignored in training."""
    for name, number in numbers.items():
        if not is_whole(number):
            raise InputError(f'{where}: the label "{name}" must have a whole number, not {described(number)}.')
    named = sorted((number, name) for name, number in numbers.items() if name != "ignore")
    first = named[0][0] if named else 0
    if first not in (0, 1) or [number for number, _ in named] != list(range(first, first + len(named))):
        listed = ", ".join(str(number) for number, _ in named)
        raise InputError(f"{where} numbers its labels {listed:.80}: number them 0, 1, 2, … without gaps.")
    return [name for _, name in named]


def channel_names(fields: Fields) -> tuple[str, ...]:
    """Return the names of the image channels in a dataset.json, or none."""
    key = "channel_names" if fields.has("channel_names") else "modality"
    given = fields.mapping(key)
    if not all(str(number).isdigit() and isinstance(name, str) for number, name in given.items()):
        fields.wrong(key, 'an object such as {"0": "CT"}')
    return tuple(given[number] for number in sorted(given, key=int))


def plan_from(values: Any, configuration: str | None, where: str) -> Plan:
    """Return what a plans.json of nnU-Net v2 says of one configuration (3d_fullres unless named).

    Raises InputError when the configuration is missing, is not a 3-D one, or prepares volumes in a way that a
    model package cannot describe.
    """
    plans = Fields(values, where)
    order = plans.values.get("transpose_forward", [0, 1, 2])
    if order != [0, 1, 2] and order != (0, 1, 2):
        raise InputError(
            f"{where} exchanges the axes of volumes (transpose_forward {described(order)}), which a model package "
            "cannot describe: such a network cannot be imported."
        )
    name, merged = chosen_configuration(plans, configuration)
    fields = Fields(merged, f"{where}, {name}")
    z, y, x = fields.numbers("spacing", 3, 0.01, 100.0)
    k, j, i = fields.wholes("patch_size", 3, 1, LARGEST_WINDOW)
    schemes = fields.items("normalization_schemes", 64, required=True)
    masked = fields.items("use_mask_for_norm", 64) or [False] * len(schemes)
    if len(masked) != len(schemes):
        fields.wrong("use_mask_for_norm", f"a list of {len(schemes)} values, one for each channel")
    measured = plans.mapping("foreground_intensity_properties_per_channel")
    intensities = tuple(
        intensity_of(scheme, bool(mask), measured.get(str(number)), f"{fields.where}, channel {number}")
        for number, (scheme, mask) in enumerate(zip(schemes, masked, strict=True))
    )
    return Plan((x, y, z), (k, j, i), intensities)


def chosen_configuration(plans: Fields, configuration: str | None) -> tuple[str, dict[str, Any]]:
    """Return the name and the values of a configuration, with those it inherits."""
    listed = plans.mapping("configurations")
    name = configuration or USUAL_CONFIGURATION
    if name not in listed:
        there = ", ".join(listed) or "none"
        raise InputError(
            f'{plans.where} has no configuration "{name}": name one of its own with --configuration ({there}).'
        )
    merged: dict[str, Any] = {}
    visited: list[str] = []
    while name not in visited and isinstance(listed.get(name), dict):
        visited.append(name)
        merged = {**listed[name], **merged}
        name = str(listed[name].get("inherits_from", name))
    return visited[0] if visited else name, merged


def intensity_of(scheme: Any, masked: bool, measured: Any, where: str) -> Mapping[str, Any]:
    """Return the intensity rule that a normalisation scheme of nnU-Net v2 amounts to."""
    if scheme == "CTNormalization":
        numbers = Fields(measured, f"{where}, measured intensities")
        low, high = (numbers.number(key, -1e6, 1e6) for key in ("percentile_00_5", "percentile_99_5"))
        mean, deviation = numbers.number("mean", -1e6, 1e6), numbers.number("std", 1e-6, 1e6)
        return {"rule": "standard", "window": [low, high], "mean": mean, "std": deviation}
    if scheme == "ZScoreNormalization":
        return {"rule": "zscore", "nonzero": masked}
    if scheme == "RescaleTo01Normalization":
        return {"rule": "percentile", "lower": 0.0, "upper": 100.0, "range": [0.0, 1.0]}
    if scheme == "NoNormalization":
        return {"rule": "none"}
    raise InputError(
        f"{where} is normalised by {described(scheme)}, which LKSegment does not know: give the rule with --intensity."
    )


def intensity_named(text: str) -> dict[str, Any]:
    """Return the intensity rule that `--intensity` says; `packages.save` checks it.

    ct:-175,250    clip to the window and scale to 0..1        percentile, percentile:1,99    likewise by percentiles
    standard:LOW,HIGH,MEAN,STD                                  zscore, zscore:nonzero         none
    or the JSON object of a manifest.
    """
    if text.lstrip().startswith("{"):
        return dict(Fields(parse_json(text, "--intensity"), "--intensity").values)
    rule, _, rest = text.partition(":")
    words = [word.strip() for word in rest.split(",")] if rest else []
    try:
        if rule in ("zscore", "percentile") and words[-1:] == ["nonzero"]:
            return {**intensity_named(":".join(filter(None, (rule, ",".join(words[:-1]))))), "nonzero": True}
        numbers = [float(word) for word in words]
        if rule == "ct" and len(numbers) == 2:
            return {"rule": rule, "window": numbers}
        if rule == "standard" and len(numbers) == 4:
            return {"rule": rule, "window": numbers[:2], "mean": numbers[2], "std": numbers[3]}
        if rule == "percentile" and len(numbers) == 2:
            return {"rule": rule, "lower": numbers[0], "upper": numbers[1]}
        if rule in ("percentile", "zscore", "none") and not numbers:
            return {"rule": rule}
    except ValueError:
        pass
    raise InputError(
        f'--intensity "{text:.80}" is not understood: give ct:-175,250, standard:LOW,HIGH,MEAN,STD, percentile, '
        "percentile:1,99, zscore, zscore:nonzero, none, or a JSON object."
    )


def entry_names(labels: Sequence[Any]) -> list[str]:
    """Return the names of label entries, for messages."""
    return [str(label.get("name")) if isinstance(label, Mapping) else str(label) for label in labels]
