from __future__ import annotations

import pytest
import slicer

from LKSegmentLib.errors import InputError
from LKSegmentLib.packages.labels import Code
from LKSegmentLib.scene.terminology import (
    LEFT,
    LabelEntry,
    color_of,
    label_entries,
    serialized_terminology,
)

LIVER = (
    "Segmentation category and type - 3D Slicer General Anatomy list~SCT^123037004^Anatomical Structure"
    "~SCT^10200004^Liver~^^~Anatomic codes - DICOM master list~^^~^^"
)


def parsed_by_slicer(text: str):
    entry = slicer.vtkSlicerTerminologyEntry()
    logic = slicer.vtkSlicerTerminologiesModuleLogic
    assert logic.DeserializeTerminologyEntry(text, entry)
    assert logic.SerializeTerminologyEntry(entry) == text
    return entry


def test_slicer_reads_and_writes_the_same_string():
    entry = parsed_by_slicer(serialized_terminology(None, "liver"))
    assert entry.GetTypeObject().GetCodeValue() == "10200004"
    kidney = parsed_by_slicer(serialized_terminology(None, "Kidney (left)"))
    assert kidney.GetTypeModifierObject().GetCodeMeaning() == "Left"
    assert serialized_terminology(None, "liver") == LIVER


def test_an_unknown_name_is_what_slicer_calls_a_new_segment():
    assert serialized_terminology(None, "something") == slicer.vtkSegment().GetTerminology()
    parsed_by_slicer(serialized_terminology(None, "something"))


@pytest.mark.parametrize(
    "given",
    [
        LIVER,
        "SCT^10200004^Liver",
        ["SCT", "10200004", "Liver"],
        {"type": {"scheme": "SCT", "value": "10200004", "meaning": "Liver"}},
        {"type": Code("SCT", "10200004", "Liver"), "category": "SCT^123037004^Anatomical Structure"},
        None,
    ],
)
def test_all_forms_of_a_manifest_mean_the_same(given):
    assert serialized_terminology(given, "liver") == LIVER


def test_side_and_region_are_kept():
    text = serialized_terminology(
        {
            "category": ("SCT", "49755003", "Morphologically Altered Structure"),
            "type": ("SCT", "4147007", "Mass"),
            "region": ("SCT", "64033007", "Kidney"),
            "region_modifier": LEFT,
        }
    )
    entry = parsed_by_slicer(text)
    assert entry.GetRegionObject().GetCodeMeaning() == "Kidney"
    assert entry.GetRegionModifierObject().GetCodeMeaning() == "Left"


@pytest.mark.parametrize("bad", ["SCT^1", "a~b", 7, {"type": "nothing"}, ["SCT", "1", "a~b"], ["SCT", "", "x"]])
def test_a_broken_code_is_refused_with_the_label_it_belongs_to(bad):
    with pytest.raises(InputError, match="label 'lump'"):
        serialized_terminology(bad, "lump")


def test_colours_are_read_on_either_scale():
    assert color_of((0.5, 0.25, 1.0)) == (0.5, 0.25, 1.0)
    assert color_of([255, 51, 0]) == (1.0, 0.2, 0.0)
    assert color_of("#ff3300") == (1.0, 0.2, 0.0)
    assert color_of(None, "liver") == pytest.approx((221 / 255, 130 / 255, 101 / 255))
    for bad in ([1, 2], "red", [0, 0, 300], [-1, 0, 0], 5):
        with pytest.raises(InputError, match="color"):
            color_of(bad, "lump")


def test_entries_are_completed_and_checked():
    entries = label_entries(["Liver", {"name": "Right kidney", "value": 7, "color": [0.0, 0.0, 1.0]}])
    assert entries[0] == LabelEntry(1, "Liver", color_of(None, "liver"), LIVER, "liver")
    assert entries[1].value == 7
    assert entries[1].identifier == "right_kidney"
    assert entries[1].color == (0.0, 0.0, 1.0)
    assert "SCT^24028007^Right" in entries[1].terminology
    assert label_entries(entries) == entries
    with pytest.raises(InputError, match="Two labels have the value 2"):
        label_entries([{"name": "a", "value": 2}, "b"])
    with pytest.raises(InputError, match="Label 1 has no name"):
        label_entries([{"color": [1, 0, 0]}])


def test_colours_without_a_list_are_told_apart():
    colors = [entry.color for entry in label_entries([f"part {number}" for number in range(30)])]
    closest = min(
        sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) ** 0.5
        for place, a in enumerate(colors)
        for b in colors[:place]
    )
    assert closest > 0.02
