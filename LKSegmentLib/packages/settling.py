"""What an imported model's outputs and inputs are: labels, channels, window; and what nobody stated about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from LKSegmentLib import networks
from LKSegmentLib.errors import InputError
from LKSegmentLib.packages.descriptions import Dataset, Plan, entry_names
from LKSegmentLib.packages.recognition import Recognised

# Where the reference size of the facts is no window to work with: MSA2-Net must see whole slices.
WINDOWS = {"msa2net": (8, 512, 512)}
BACKGROUND_NAMES = ("background", "bg", "air", "none", "other", "0")


def is_click(found: Recognised) -> bool:
    """Whether this is a click model: our click network with its single output."""
    return found.network == "lk_click" and found.out_channels == 1


def missing_labels(where: str) -> InputError:
    """Return the error for outputs that nobody named."""
    return InputError(
        f"{where} does not say what its outputs are: give --labels, names with commas between or a dataset.json."
    )


def settled_labels(
    dataset: Dataset | None, found: Recognised, regions: bool, where: str, warnings: list[str]
) -> tuple[list[Any], str]:
    """Return one label for each output (perhaps without the background) and the kind of output."""
    if dataset is None:
        if is_click(found):
            return [{"name": "structure"}], "regions"
        raise missing_labels(where)
    labels = list(dataset.labels)
    names = entry_names(labels)
    count = found.out_channels
    separate = dataset.regions or regions or count == 1
    if separate and len(labels) == count + 1 and names[0].lower() in BACKGROUND_NAMES:
        labels = labels[1:]
    if len(labels) != count and (separate or len(labels) != count - 1):
        rule = "one for each" if separate else "one for each, the background first or left out"
        raise InputError(
            f"{where} has {count} outputs, and {len(labels)} labels are given ({', '.join(names):.120}): give {rule}."
        )
    if not separate and len(labels) == count and names[0].lower() not in BACKGROUND_NAMES:
        warnings.append(f'The first label, "{names[0]}", is taken for the background: it gets no segment.')
    return labels, "regions" if separate else "classes"


def settled_channels(
    dataset: Dataset | None,
    plan: Plan | None,
    intensity: Mapping[str, Any] | None,
    found: Recognised,
    where: str,
    warnings: list[str],
) -> list[dict[str, Any]]:
    """Return the image channels with their intensity rules."""
    count = 1 if is_click(found) else found.in_channels
    names = list(dataset.channels) if dataset is not None else []
    rules = list(plan.intensities) if plan is not None and intensity is None and not is_click(found) else []
    for given, what in ((names, "the dataset names"), (rules, "the plans normalise")):
        if given and len(given) != count:
            raise InputError(
                f"{where} has {count} image channels, and {what} {len(given)}: give the files that belong to it."
            )
    if not rules:
        rules = [dict(intensity or {"rule": "percentile"})] * count
        if intensity is None and not is_click(found):
            warnings.append("No --intensity: values are scaled by percentiles; give the rule of the training.")
    names = names or (["image"] if count == 1 else [f"image {number + 1}" for number in range(count)])
    return [
        {
            "name": name,
            "modality": "CT" if "CT" in (name.upper(), str(rule.get("rule")).upper()) else "any",
            "intensity": rule,
        }
        for name, rule in zip(names, rules, strict=True)
    ]


def unstated(
    found: Recognised,
    spacing: Sequence[float] | None,
    window: Sequence[int] | None,
    licence: str | None,
    plan: Plan | None,
    click: bool,
) -> list[str]:
    """Return a sentence for everything that was taken for granted."""
    said = []
    if found.unseen:
        taken = ", ".join(f"{option}={value}" for option, value in found.unseen.items())
        said.append(f"The tensors do not tell {taken}: these are taken; --option NAME=VALUE changes one.")
    if spacing is None and not click:
        said.append("No --spacing: images are used at their own; give the spacing of the training.")
    if window is None:
        usual = "×".join(str(edge) for edge in usual_window(found.network))
        said.append(f"No --window: {usual} is taken; give that of the training, others change the results.")
    if plan is not None:
        said.append(
            "nnU-Net keeps the axes of its files, and here networks see volumes in the order R, A, S: where files of "
            "the training were stored otherwise, left and right may be exchanged; check on a known image."
        )
    if licence is None:
        said.append("No --licence: the package says that it is not stated.")
    return said


def usual_window(network: str) -> tuple[int, int, int]:
    """Return the window (k, j, i) that the published figures of a network refer to."""
    return WINDOWS.get(network) or networks.facts(network).reference_size
