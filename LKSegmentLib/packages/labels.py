"""What an output channel means: name, standard terminology codes, colour.

Terminology is stored as codes (for example SNOMED CT through DICOM's coding scheme "SCT") and can be given
and returned as the text Slicer keeps in a segment: seven parts separated by "~", codes within a part by "^"
(vtkSlicerTerminologiesModuleLogic::SerializeTerminologyEntry): context name, category, type, type modifier,
region context name, region, region modifier.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from LKSegmentLib.errors import InputError
from LKSegmentLib.packages.fields import Fields, is_number

# The names of the contexts that ship with Slicer.
GENERAL_CONTEXT = "Segmentation category and type - 3D Slicer General Anatomy list"
REGION_CONTEXT = "Anatomic codes - DICOM master list"
ALTERNATIVE_KEYS = {"CodingSchemeDesignator": "scheme", "CodeValue": "value", "CodeMeaning": "meaning"}


@dataclass(frozen=True)
class Code:
    """One coded concept: coding scheme designator, code value, code meaning."""

    scheme: str
    value: str
    meaning: str

    def serialized(self) -> str:
        """Return scheme^value^meaning."""
        return f"{self.scheme}^{self.value}^{self.meaning}"

    def to_json(self) -> dict[str, str]:
        """Return the fields as a JSON object."""
        return {"scheme": self.scheme, "value": self.value, "meaning": self.meaning}


ANATOMICAL_STRUCTURE = Code("SCT", "123037004", "Anatomical Structure")


@dataclass(frozen=True)
class Terminology:
    """A segment's standard codes, as in DICOM segmentation objects and Slicer's segments."""

    type: Code
    category: Code = ANATOMICAL_STRUCTURE
    type_modifier: Code | None = None
    region: Code | None = None
    region_modifier: Code | None = None
    context: str = GENERAL_CONTEXT
    region_context: str = REGION_CONTEXT

    def serialized(self) -> str:
        """Return Slicer's text for a segment's terminology."""
        optional = (self.type_modifier, self.region, self.region_modifier)
        type_modifier, region, region_modifier = (code.serialized() if code else "^^" for code in optional)
        type_part = [self.context, self.category.serialized(), self.type.serialized(), type_modifier]
        return "~".join([*type_part, self.region_context, region, region_modifier])

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a JSON object; absent codes are left out."""
        fields: dict[str, Any] = {"category": self.category.to_json(), "type": self.type.to_json()}
        for key in ("type_modifier", "region", "region_modifier"):
            code = getattr(self, key)
            if code is not None:
                fields[key] = code.to_json()
        if self.context != GENERAL_CONTEXT:
            fields["context"] = self.context
        if self.region_context != REGION_CONTEXT:
            fields["region_context"] = self.region_context
        return fields


@dataclass(frozen=True)
class Label:
    """One value of the labels volume. `color` is red, green, blue in 0..255. Value 0 is the background."""

    value: int
    name: str
    color: tuple[int, int, int]
    terminology: Terminology | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a JSON object."""
        fields: dict[str, Any] = {"value": self.value, "name": self.name, "color": list(self.color)}
        if self.terminology is not None:
            fields["terminology"] = self.terminology.to_json()
        return fields


def label_from(values: Any, value: int, where: str) -> Label:
    """Return the label described by a JSON object (or just a name) for output `value`.

    InputError when the name, a code or the colour is not readable, or a stated value contradicts the order.
    """
    fields = Fields({"name": values} if isinstance(values, str) else values, where)
    fields.only(("value", "name", "color", "colour", "terminology"))
    name = fields.text("name", longest=200)
    if any(ord(character) < 32 for character in name):
        fields.wrong("name", "one line of text")
    if fields.whole("value", 0, 65535, value) != value:
        fields.wrong("value", f"{value}, as the labels are listed in the order of the network's outputs")
    given = fields.values.get("color", fields.values.get("colour"))
    color = color_from(given, where) if given is not None else default_color(value)
    terminology = terminology_from(fields.values["terminology"], where) if fields.has("terminology") else None
    return Label(value, name, color, terminology)


def color_from(given: Any, where: str) -> tuple[int, int, int]:
    """Return red, green, blue in 0..255 from "#rrggbb", whole numbers 0..255 or decimal fractions 0..1."""
    if isinstance(given, str):
        digits = given.removeprefix("#")
        if len(digits) == 6 and all(digit in "0123456789abcdefABCDEF" for digit in digits):
            return int(digits[0:2], 16), int(digits[2:4], 16), int(digits[4:6], 16)
    elif isinstance(given, (list, tuple)) and len(given) == 3 and all(is_number(part) for part in given):
        scale = 255.0 if any(isinstance(part, float) for part in given) and max(given) <= 1.0 else 1.0
        red, green, blue = (round(part * scale) for part in given)
        if min(red, green, blue) >= 0 and max(red, green, blue) <= 255:
            return red, green, blue
    raise InputError(f'{where}: "color" must be three numbers from 0 to 255, or text like "#dd8265".')


def default_color(value: int) -> tuple[int, int, int]:
    """Return a colour that depends only on the label value; neighbours differ in hue by the golden angle."""
    if value == 0:
        return 0, 0, 0
    red, green, blue = colorsys.hsv_to_rgb((0.08 + 0.381966 * (value - 1)) % 1.0, 0.65, 0.9)
    return round(255 * red), round(255 * green), round(255 * blue)


def terminology_from(given: Any, where: str) -> Terminology:
    """Return the codes from a JSON object, one code (a mapping, a triple or "SCT^10200004^Liver"), or Slicer's text."""
    where = f"{where}, terminology"
    if isinstance(given, Terminology):
        return given
    if isinstance(given, str) and "~" in given:
        return deserialized(given, where)
    if not isinstance(given, Mapping) or "type" not in given:
        return Terminology(type=code_from(given, where))
    fields = Fields(given, where)
    fields.only(("category", "type", "type_modifier", "region", "region_modifier", "context", "region_context"))

    def optional(key: str) -> Code | None:
        return code_from(given[key], f"{where}, {key}") if fields.has(key) else None

    contexts = (
        fields.text("context", GENERAL_CONTEXT, 300),
        fields.text("region_context", REGION_CONTEXT, 300),
    )
    if any("~" in context for context in contexts):
        raise InputError(f'{where}: a context name must not contain "~", which Slicer uses as separator.')
    return Terminology(
        type=code_from(given["type"], f"{where}, type"),
        category=optional("category") or ANATOMICAL_STRUCTURE,
        type_modifier=optional("type_modifier"),
        region=optional("region"),
        region_modifier=optional("region_modifier"),
        context=contexts[0],
        region_context=contexts[1],
    )


def code_from(given: Any, where: str) -> Code:
    """Return one code from {"scheme", "value", "meaning"}, DICOM's key names, a triple, or scheme^value^meaning."""
    if isinstance(given, Code):
        return given
    if isinstance(given, str):
        given = given.split("^")
    if isinstance(given, Mapping):
        renamed = {ALTERNATIVE_KEYS.get(str(key), key): value for key, value in given.items()}
        Fields(renamed, where).only(("scheme", "value", "meaning"))
        given = [renamed.get(key) for key in ("scheme", "value", "meaning")]
    if isinstance(given, (list, tuple)) and len(given) == 3:
        parts = [str(part).strip() if isinstance(part, (str, int)) else "" for part in given]
        if all(parts) and not any(mark in part for part in parts for mark in "^~"):
            return Code(*parts)
    raise InputError(f'{where} must hold a code with scheme, value and meaning, for example "SCT^10200004^Liver".')


def deserialized(text: str, where: str) -> Terminology:
    """Return the codes from the text Slicer keeps in a segment."""
    parts = text.split("~")
    if len(parts) != 7:
        raise InputError(f'{where} must have 7 parts separated by "~" as Slicer writes it, not {len(parts)}.')

    def optional(part: str) -> Code | None:
        return code_from(part, where) if part.strip("^ ") else None

    return Terminology(
        type=code_from(parts[2], f"{where}, type"),
        category=optional(parts[1]) or ANATOMICAL_STRUCTURE,
        type_modifier=optional(parts[3]),
        region=optional(parts[5]),
        region_modifier=optional(parts[6]),
        context=parts[0] or GENERAL_CONTEXT,
        region_context=parts[4],
    )
