"""Names, colours and coded meanings of segments, from the labels a model package lists.

The codes and their text form are those of `packages.labels`; here names get what Slicer's own list knows of them,
so that a label without codes is coded too, where its name says what it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from LKSegmentLib.errors import InputError
from LKSegmentLib.packages.labels import (
    ANATOMICAL_STRUCTURE,
    Code,
    Terminology,
    color_from,
    default_color,
    terminology_from,
)

Color = tuple[float, float, float]

TISSUE = Code("SCT", "85756007", "Tissue")
RIGHT = Code("SCT", "24028007", "Right")
LEFT = Code("SCT", "7771000", "Left")


@dataclass(frozen=True)
class LabelEntry:
    """One label of a result: its voxel value, and the name, colour (0 to 1) and meaning its segment gets."""

    value: int
    name: str
    color: Color
    terminology: str
    identifier: str


# SNOMED CT code, its meaning and the recommended colour, from Slicer's General Anatomy list.
_KNOWN: dict[str, tuple[str, str, tuple[int, int, int]]] = {
    "adrenal gland": ("23451007", "Adrenal gland", (249, 186, 150)),
    "aorta": ("15825003", "Aorta", (224, 97, 76)),
    "bladder": ("89837001", "Bladder", (222, 154, 132)),
    "urinary bladder": ("89837001", "Bladder", (222, 154, 132)),
    "brain": ("12738006", "Brain", (250, 250, 225)),
    "colon": ("71854001", "Colon", (204, 168, 143)),
    "duodenum": ("38848004", "Duodenum", (255, 253, 229)),
    "esophagus": ("32849002", "Esophagus", (211, 171, 143)),
    "gallbladder": ("28231008", "Gallbladder", (139, 150, 98)),
    "heart": ("80891009", "Heart", (206, 110, 84)),
    "kidney": ("64033007", "Kidney", (185, 102, 83)),
    "liver": ("10200004", "Liver", (221, 130, 101)),
    "lung": ("39607008", "Lung", (197, 165, 145)),
    "pancreas": ("15776009", "Pancreas", (249, 180, 111)),
    "prostate": ("41216001", "Prostate", (230, 158, 140)),
    "small bowel": ("30315005", "Small Intestine", (205, 167, 142)),
    "spinal cord": ("2748008", "Spinal cord", (244, 214, 49)),
    "spleen": ("78961009", "Spleen", (157, 108, 162)),
    "sternum": ("56873002", "Sternum", (244, 217, 154)),
    "stomach": ("69695003", "Stomach", (216, 132, 105)),
    "thyroid": ("69748006", "Thyroid", (62, 162, 114)),
    "trachea": ("44567001", "Trachea", (182, 228, 255)),
    "uterus": ("35039007", "Uterus", (255, 181, 158)),
}
_KNOWN_TISSUES: dict[str, tuple[str, str, tuple[int, int, int]]] = {
    "artery": ("51114001", "Artery", (216, 101, 79)),
    "bone": ("272673000", "Bone", (241, 214, 145)),
    "muscle": ("71616004", "Muscle", (192, 104, 88)),
    "skin": ("39937001", "Skin", (177, 122, 101)),
    "tissue": ("85756007", "Tissue", (128, 174, 128)),
    "vein": ("29092000", "Vein", (0, 151, 206)),
}


def label_entries(labels: Sequence[Mapping[str, Any] | LabelEntry | str]) -> list[LabelEntry]:
    """Complete the labels a package lists: value, name, colour, terminology and a segment identifier for each.

    A label is a name, or a mapping with "name" and optionally "value" (default: its place, counted from 1),
    "color", "terminology" and "identifier" (see `color_of`, `serialized_terminology`). What is missing is taken from
    Slicer's General Anatomy list by name, else a distinct colour and plain "Tissue".

    Raises InputError: a label without a name, or two labels with one value.
    """
    entries: list[LabelEntry] = []
    for place, label in enumerate(labels, start=1):
        entries.append(label if isinstance(label, LabelEntry) else _entry(label, place))
    values = [entry.value for entry in entries]
    repeated = sorted({value for value in values if values.count(value) > 1})
    if repeated:
        raise InputError(f"Two labels have the value {repeated[0]}. Give each label a value of its own.")
    return entries


def serialized_terminology(given: object, name: str = "") -> str:
    """Slicer's terminology string from any form a manifest may hold; None is looked up by `name`.

    A name Slicer's General Anatomy list does not know is "Tissue", as for a segment that Slicer adds.
    Raises InputError when it is no code.
    """
    if given is None or given == "" or given == {}:
        return _known(name)[0].serialized()
    return terminology_from(given, f"label '{name}'").serialized()


def color_of(given: object, name: str = "", place: int = 1) -> Color:
    """A colour as three numbers from 0 to 1: from fractions, whole numbers up to 255, "#rrggbb", or None by name.

    Raises InputError when it is no colour.
    """
    if given is None:
        known = _known(name)[1]
        red, green, blue = known if known is not None else default_color(place)
    elif isinstance(given, (tuple, list)) and len(given) == 3 and all(_is_fraction(part) for part in given):
        return float(given[0]), float(given[1]), float(given[2])
    else:
        red, green, blue = color_from(given, f"label '{name}'")
    return red / 255, green / 255, blue / 255


def _is_fraction(part: object) -> bool:
    return isinstance(part, float) and 0.0 <= part <= 1.0


def _entry(label: Mapping[str, Any] | str, place: int) -> LabelEntry:
    given: Mapping[str, Any] = {"name": label} if isinstance(label, str) else label
    name = str(given.get("name") or "").strip()
    if not name:
        raise InputError(f"Label {place} has no name. Every label of a package needs one.")
    identifier = given.get("identifier") or re.sub(r"[^0-9A-Za-z]+", "_", name).strip("_").lower()
    return LabelEntry(
        value=int(given.get("value", place)),
        name=name,
        color=color_of(given.get("color"), name, place),
        terminology=serialized_terminology(given.get("terminology"), name),
        identifier=str(identifier) or f"label_{place}",
    )


def _known(name: str) -> tuple[Terminology, tuple[int, int, int] | None]:
    words = re.sub(r"[^a-z]+", " ", name.lower()).split()
    side = None
    for word, code in (("right", RIGHT), ("left", LEFT)):
        if word in words:
            words.remove(word)
            side = code
    plain = " ".join(words)
    if plain in _KNOWN:
        value, meaning, rgb = _KNOWN[plain]
        return Terminology(Code("SCT", value, meaning), ANATOMICAL_STRUCTURE, side), rgb
    if plain in _KNOWN_TISSUES:
        value, meaning, rgb = _KNOWN_TISSUES[plain]
        return Terminology(Code("SCT", value, meaning), TISSUE), rgb
    return Terminology(TISSUE, TISSUE), None
