"""Names, colours and coded meanings of segments, from the labels a model package lists.

Slicer stores what a segment *is* as one string of seven fields joined by "~": terminology context, category,
type, type modifier, anatomic context, region, region modifier; each coded field is "scheme^value^meaning"
(vtkSlicerTerminologiesModuleLogic::SerializeTerminologyEntry). It is written here directly, so that it works
where the terminology files are not installed.
"""

from __future__ import annotations

import colorsys
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from LKSegmentLib.errors import InputError

TERMINOLOGY_CONTEXT = "Segmentation category and type - 3D Slicer General Anatomy list"
REGION_CONTEXT = "Anatomic codes - DICOM master list"

Color = tuple[float, float, float]


@dataclass(frozen=True)
class Code:
    """A coded concept, such as SCT 10200004 "Liver"."""

    scheme: str = ""
    value: str = ""
    meaning: str = ""

    def serialized(self) -> str:
        return f"{self.scheme}^{self.value}^{self.meaning}"


NO_CODE = Code()
ANATOMICAL_STRUCTURE = Code("SCT", "123037004", "Anatomical Structure")
TISSUE = Code("SCT", "85756007", "Tissue")
RIGHT = Code("SCT", "24028007", "Right")
LEFT = Code("SCT", "7771000", "Left")


@dataclass(frozen=True)
class Terminology:
    """What a segment is: category, type and, where given, side and region."""

    category: Code = TISSUE
    type: Code = TISSUE
    modifier: Code = NO_CODE
    region: Code = NO_CODE
    region_modifier: Code = NO_CODE
    context: str = TERMINOLOGY_CONTEXT
    region_context: str = REGION_CONTEXT

    def serialized(self) -> str:
        """The string Slicer stores in the segment's tag."""
        fields = (self.context, self.category.serialized(), self.type.serialized(), self.modifier.serialized())
        regions = (self.region_context, self.region.serialized(), self.region_modifier.serialized())
        return "~".join(fields + regions)


@dataclass(frozen=True)
class LabelEntry:
    """One label of a result: its voxel value, and the name, colour (0 to 1) and meaning its segment gets."""

    value: int
    name: str
    color: Color
    terminology: str
    identifier: str


# Type, and whether it has sides, from Slicer's General Anatomy list; colours are the ones it recommends.
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
    "color" (0 to 1, or 0 to 255), "terminology" (see `serialized_terminology`) and "identifier". What is missing
    is taken from Slicer's General Anatomy list by name, else a distinct colour and plain "Tissue".

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
    """Slicer's terminology string, from any of the forms a manifest may hold.

    - a string with six "~": it is that string already;
    - "scheme^value^meaning" or "scheme:value:meaning": an anatomical structure of that type;
    - a mapping with "type" and optionally "category", "modifier", "region", "region_modifier", each a mapping
      (scheme, value, meaning), a sequence of three or a string as above;
    - None: looked up by `name` in Slicer's General Anatomy list, "Tissue" where it is unknown.

    Raises InputError when it is none of these.
    """
    if given is None or given == "" or given == {}:
        return _known_terminology(name)[0].serialized()
    if isinstance(given, str) and "~" in given:
        if given.count("~") != 6:
            raise InputError(f"The terminology '{given}' of label '{name}' needs seven fields joined by '~'.")
        return given
    if isinstance(given, Mapping) and "type" in given:
        return Terminology(
            category=_code(given.get("category"), name, ANATOMICAL_STRUCTURE),
            type=_code(given["type"], name, TISSUE),
            modifier=_code(given.get("modifier") or given.get("type_modifier"), name, NO_CODE),
            region=_code(given.get("region"), name, NO_CODE),
            region_modifier=_code(given.get("region_modifier"), name, NO_CODE),
        ).serialized()
    return Terminology(category=ANATOMICAL_STRUCTURE, type=_code(given, name, TISSUE)).serialized()


def color_of(given: object, name: str = "", place: int = 1) -> Color:
    """A colour as three numbers from 0 to 1. Whole numbers up to 255 are scaled; None is looked up by name.

    Raises InputError when it is not three numbers in range.
    """
    if given is None:
        known = _known_terminology(name)[1]
        return known if known is not None else _distinct_color(place)
    if isinstance(given, str) and re.fullmatch(r"#[0-9a-fA-F]{6}", given):
        given = [int(given[start : start + 2], 16) for start in (1, 3, 5)]
    try:
        numbers = [float(value) for value in given]  # type: ignore[attr-defined]
    except (TypeError, ValueError) as error:
        raise InputError(f"The colour {given!r} of label '{name}' is not three numbers.") from error
    if len(numbers) != 3 or min(numbers) < 0 or max(numbers) > 255:
        raise InputError(f"The colour {given!r} of label '{name}' is not three numbers from 0 to 1, or to 255.")
    scale = 255.0 if max(numbers) > 1 else 1.0
    return numbers[0] / scale, numbers[1] / scale, numbers[2] / scale


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


def _known_terminology(name: str) -> tuple[Terminology, Color | None]:
    words = re.sub(r"[^a-z]+", " ", name.lower()).split()
    side = NO_CODE
    for word, code in (("right", RIGHT), ("left", LEFT)):
        if word in words:
            words.remove(word)
            side = code
    plain = " ".join(words)
    if plain in _KNOWN:
        value, meaning, rgb = _KNOWN[plain]
        return Terminology(ANATOMICAL_STRUCTURE, Code("SCT", value, meaning), side), color_of(rgb)
    if plain in _KNOWN_TISSUES:
        value, meaning, rgb = _KNOWN_TISSUES[plain]
        return Terminology(TISSUE, Code("SCT", value, meaning)), color_of(rgb)
    return Terminology(), None


def _code(given: object, name: str, otherwise: Code) -> Code:
    if given is None or given == "":
        return otherwise
    if isinstance(given, Code):
        return given
    if isinstance(given, Mapping):
        found = [given.get("scheme"), given.get("value"), given.get("meaning")]
    elif isinstance(given, str):
        found = list(re.split(r"[\^:]", given, maxsplit=2))
    elif isinstance(given, Sequence):
        found = list(given)
    else:
        found = []
    if len(found) != 3 or not all(isinstance(part, str) and part and not re.search(r"[~^|]", part) for part in found):
        raise InputError(
            f"The terminology code {given!r} of label '{name}' needs a scheme, a value and a meaning, "
            'such as "SCT^10200004^Liver".'
        )
    return Code(str(found[0]), str(found[1]), str(found[2]))


def _distinct_color(place: int) -> Color:
    # Steps of the golden ratio never repeat a hue closely, however many labels there are.
    hue = (0.08 + place * 0.618033988749895) % 1.0
    return colorsys.hsv_to_rgb(hue, 0.55 + 0.25 * (place % 2), 0.75 + 0.2 * (place % 3) / 2)
