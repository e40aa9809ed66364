"""What goes into a network: its image channels and the intensity rule of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from LKSegmentLib.packages.fields import Fields

RULES = ("ct", "standard", "percentile", "zscore", "none")
LARGEST = 1e6
KNOWN = {
    "ct": ("window", "range"),
    "standard": ("window", "mean", "std"),
    "percentile": ("lower", "upper", "nonzero", "range"),
    "zscore": ("nonzero",),
    "none": (),
}


@dataclass(frozen=True)
class Intensity:
    """How voxel values become network input. One rule for the whole volume, measured before resampling.

    rule        what happens
    ct          clip to `window` (Hounsfield units), then map it linearly to `range`
    standard    clip to `window`, subtract `mean`, divide by `std` (fixed numbers from the training data)
    percentile  clip to the percentiles `lower`..`upper` of the volume, then map them linearly to `range`
    zscore      subtract the volume's mean, divide by its standard deviation
    none        values as they are
    nonzero     measure percentiles, mean and deviation on voxels other than 0 only, and keep zeros at the padding value
    """

    rule: str
    window: tuple[float, float] = (0.0, 0.0)
    lower: float = 0.5
    upper: float = 99.5
    nonzero: bool = False
    mean: float = 0.0
    std: float = 1.0
    range: tuple[float, float] = (0.0, 1.0)

    @property
    def padding(self) -> float:
        """The prepared value outside the volume: the low end of the range, or 0 where there is no range."""
        return self.range[0] if self.rule in ("ct", "percentile") else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the rule and the fields that belong to it."""
        values: dict[str, Any] = {"rule": self.rule}
        for key in KNOWN[self.rule]:
            value = getattr(self, key)
            values[key] = list(value) if isinstance(value, tuple) else value
        return values


@dataclass(frozen=True)
class Channel:
    """One image channel: its name, its modality ("CT", "MR", "any", …) and its intensity rule."""

    name: str
    modality: str
    intensity: Intensity

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a JSON object."""
        return {"name": self.name, "modality": self.modality, "intensity": self.intensity.to_json()}


def intensity_from(values: Any, where: str) -> Intensity:
    """Return the intensity rule of a JSON object. InputError when it is unknown or incomplete."""
    if isinstance(values, Intensity):
        return values
    fields = Fields(values, f"{where}, intensity")
    rule = fields.choice("rule", RULES)
    fields.only(("rule", *KNOWN[rule]))
    given: dict[str, Any] = {}
    for key in ("window", "range"):
        if key in KNOWN[rule] and (fields.has(key) or key == "window"):
            given[key] = fields.numbers(key, 2, -LARGEST, LARGEST)
            if given[key][0] >= given[key][1]:
                fields.wrong(key, "two numbers, the lower one first")
    if rule == "percentile":
        given["lower"] = fields.number("lower", 0, 100, 0.5)
        given["upper"] = fields.number("upper", 0, 100, 99.5)
        if given["lower"] >= given["upper"]:
            fields.wrong("upper", 'larger than "lower"')
    if rule == "standard":
        given["mean"] = fields.number("mean", -LARGEST, LARGEST)
        given["std"] = fields.number("std", 1e-6, LARGEST)
    if "nonzero" in KNOWN[rule]:
        given["nonzero"] = fields.flag("nonzero", False)
    return Intensity(rule, **given)


def channel_from(values: Any, where: str) -> Channel:
    """Return the channel described by a JSON object."""
    if isinstance(values, Channel):
        return values
    fields = Fields(values, where)
    fields.only(("name", "modality", "intensity"))
    return Channel(
        name=fields.text("name", "image", 60),
        modality=fields.text("modality", "any", 60),
        intensity=intensity_from(fields.values.get("intensity"), where),
    )
