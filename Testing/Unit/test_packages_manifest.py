"""The manifest: what is read, what is refused and with which sentence; labels, codes and colours."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest

from LKSegmentLib.errors import InputError
from LKSegmentLib.packages.fields import parse_json
from LKSegmentLib.packages.labels import Code, Terminology, terminology_from
from LKSegmentLib.packages.manifest import manifest_from

ROOT = Path(__file__).resolve().parents[2]
GOOD = {
    "format_version": 1,
    "name": "abdomen",
    "network": "dnet",
    "options": {"depths": [1, 1, 1, 1, 1]},
    "in_channels": 1,
    "out_channels": 3,
    "channels": [{"name": "image", "modality": "CT", "intensity": {"rule": "ct", "window": [-160, 240]}}],
    "labels": [
        {"name": "background"},
        {"name": "liver", "terminology": "SCT^10200004^Liver", "color": [221, 130, 101]},
        {"name": "spleen", "color": "#9d6ca2"},
    ],
    "spacing": [1.5, 1.5, 2.0],
    "window": [96, 96, 96],
    "licence": "Apache-2.0",
    "files": {"weights.safetensors": {"sha256": "0" * 64, "bytes": 10}},
}


def changed(**values: object) -> dict[str, object]:
    manifest = copy.deepcopy(GOOD)
    manifest.update(values)
    return manifest


def test_a_good_manifest_is_read_and_written_unchanged() -> None:
    manifest = manifest_from(GOOD, "The manifest")
    assert manifest.title == "abdomen"
    assert manifest.spacing == (1.5, 1.5, 2.0)
    assert manifest.intensity.window == (-160, 240)
    assert [label.value for label in manifest.labels] == [0, 1, 2]
    assert [label.name for label in manifest.segments] == ["liver", "spleen"]
    assert manifest.labels[2].color == (157, 108, 162)
    again = manifest_from(json.loads(json.dumps(manifest.to_json())), "The manifest")
    assert again == manifest


def test_regions_have_no_background() -> None:
    manifest = manifest_from(changed(out_channels=1, labels=["lesion"]), "The manifest")
    assert manifest.output == "regions"
    assert [(label.value, label.name) for label in manifest.labels] == [(1, "lesion")]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format_version": 2}, "format version 2"),
        ({"format_version": True}, "format version True"),
        ({"labels": ["background", "liver"]}, "lists 2 labels for 3 output channels"),
        ({"labels": ["background", "liver", "liver"]}, "twice"),
        ({"labels": ["background", "liver", {"name": "spleen", "color": [0, 0, 256]}]}, "color"),
        (
            {"labels": ["background", "liver", {"name": "spleen", "terminology": "spleen"}]},
            "SCT^10200004^Liver",
        ),
        ({"labels": ["background", {"name": "liver", "value": 2}, "spleen"]}, '"value" must be 1'),
        ({"window": [96, 96]}, "3 whole numbers"),
        ({"window": [96, 96, 0]}, "3 whole numbers"),
        ({"window": [96, 96, 96.5]}, "3 whole numbers"),
        ({"spacing": [1.5, 0, 1.5]}, "3 numbers from 0.01"),
        ({"spacing": [1.5, float("nan"), 1.5]}, "3 numbers from 0.01"),
        ({"orientation": "LPS"}, '"RAS"'),
        ({"name": "../abdomen"}, "letters, digits"),
        ({"kind": "video"}, 'one of "volume", "click"'),
        ({"in_channels": 2}, "1 image channels for a network with 2 inputs"),
        ({"channels": []}, "a list of 1 to 64"),
        ({"channels": [{"intensity": {"rule": "ct"}}]}, '"window" must be'),
        ({"channels": [{"intensity": {"rule": "ct", "window": [240, -160]}}]}, "the lower one first"),
        ({"channels": [{"intensity": {"rule": "histogram"}}]}, "one of"),
        ({"channels": [{"intensity": {"rule": "zscore", "window": [0, 1]}}]}, 'unknown field "window"'),
        ({"licence": ""}, '"licence" must be a text'),
        ({"licnece": "MIT"}, 'unknown field "licnece"'),
        ({"overlap": 1.0}, "from 0 to 0.9"),
        ({"options": {"depths": [10**9]}}, "no larger than 65536"),
        ({"options": {"in_channels": 1}}, 'beside "options"'),
        ({"files": {}}, "weights.safetensors"),
        ({"files": {"../weights.safetensors": {"sha256": "0" * 64, "bytes": 1}}}, "outside the package"),
        ({"files": {"/etc/passwd": {"sha256": "0" * 64, "bytes": 1}}}, "outside the package"),
        ({"files": {"C:\\weights": {"sha256": "0" * 64, "bytes": 1}}}, "outside the package"),
        ({"files": {"weights.safetensors": {"sha256": "abc", "bytes": 1}}}, "64 hexadecimal digits"),
    ],
)
def test_a_wrong_manifest_is_one_sentence(change: dict[str, object], words: str) -> None:
    with pytest.raises(InputError) as raised:
        manifest_from(changed(**change), "The manifest of the package here")
    assert words in str(raised.value)
    assert str(raised.value).startswith("The manifest of the package here")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["", "{", '{"spacing": NaN}', "[" * 100_000, "\ud800", '{"n": ' + "9" * 5000 + "}"])
def test_what_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="not valid JSON"):
        parse_json(text.encode("utf-8", "surrogatepass"), "The manifest")


def test_the_manifest_must_be_an_object() -> None:
    with pytest.raises(InputError, match="must be an object"):
        manifest_from([1, 2], "The manifest")


def test_codes_are_read_in_every_usual_spelling() -> None:
    liver = Code("SCT", "10200004", "Liver")
    spellings = [
        "SCT^10200004^Liver",
        ["SCT", "10200004", "Liver"],
        {"scheme": "SCT", "value": "10200004", "meaning": "Liver"},
        {"CodingSchemeDesignator": "SCT", "CodeValue": "10200004", "CodeMeaning": "Liver"},
        {"type": "SCT^10200004^Liver"},
        {"category": ["SCT", "123037004", "Anatomical Structure"], "type": liver.to_json()},
    ]
    for spelling in spellings:
        assert terminology_from(spelling, "here") == Terminology(type=liver)


def test_slicers_text_is_read_and_written_back() -> None:
    text = (
        "Segmentation category and type - DICOM master list~SCT^49755003^Morphologically Altered Structure"
        "~SCT^4147007^Mass~SCT^24028007^Right~Anatomic codes - DICOM master list~SCT^64033007^Kidney~^^"
    )
    codes = terminology_from(text, "here")
    assert codes.type_modifier == Code("SCT", "24028007", "Right")
    assert codes.region_modifier is None
    assert codes.serialized() == text
    assert terminology_from(codes.to_json(), "here") == codes


def test_reading_manifests_needs_neither_torch_nor_safetensors() -> None:
    program = (
        "import sys\n"
        "for name in ('torch', 'safetensors', 'scipy', 'SimpleITK'): sys.modules[name] = None\n"
        "from LKSegmentLib import packages\n"
        "print(len(packages.catalogue()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().isdigit()
