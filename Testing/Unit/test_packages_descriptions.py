"""What tensors do not tell: labels and preprocessing from nnU-Net's files, names, and intensity rules by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from networks_support import randomise  # noqa: E402

from LKSegmentLib import networks  # noqa: E402
from LKSegmentLib.errors import InputError  # noqa: E402
from LKSegmentLib.packages.channels import intensity_from  # noqa: E402
from LKSegmentLib.packages.descriptions import dataset_from, dataset_named, intensity_named, plan_from  # noqa: E402
from LKSegmentLib.packages.importing import Imported, import_checkpoint  # noqa: E402

DNET = {"in_channels": 1, "out_channels": 3, "depths": [1, 1], "feature_sizes": [2, 4]}
DATASET = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "spleen": 2, "liver": 1},
    "numTraining": 10,
    "file_ending": ".nii.gz",
}
CT = {"mean": 80.0, "std": 130.0, "percentile_00_5": -900.0, "percentile_99_5": 300.0, "min": -1024, "max": 3000}
PLANS = {
    "transpose_forward": [0, 1, 2],
    "configurations": {
        "2d": {"spacing": [0.8, 0.7], "patch_size": [512, 512], "normalization_schemes": ["CTNormalization"]},
        "3d_fullres": {
            "spacing": [2.5, 0.8, 0.7],
            "patch_size": [48, 96, 128],
            "normalization_schemes": ["CTNormalization"],
            "use_mask_for_norm": [False],
        },
        "3d_small": {"inherits_from": "3d_fullres", "patch_size": [32, 32, 32]},
    },
    "foreground_intensity_properties_per_channel": {"0": CT},
}


def plans(**changes: Any) -> dict[str, Any]:
    full = {**PLANS["configurations"]["3d_fullres"], **changes}  # type: ignore[dict-item]
    return {**PLANS, "configurations": {"3d_fullres": full}}


def imported(tmp_path: Path, labels: Any, init_args: dict[str, Any] | None = None, **more: Any) -> Imported:
    options = {**DNET, "in_channels": more.pop("in_channels", 1), "out_channels": more.pop("out_channels", 3)}
    network = randomise(networks.create("dnet", **options))
    path = tmp_path / "weights.pth"
    torch.save({"network_weights": network.state_dict(), "init_args": init_args or {}}, path)
    return import_checkpoint(path, labels, tmp_path / "package", overwrite=True, **more)


@pytest.mark.parametrize(
    ("values", "names", "regions"),
    [
        (DATASET, ["background", "liver", "spleen"], False),
        ({"labels": {"0": "background", "1": "liver"}, "modality": {"0": "CT"}}, ["background", "liver"], False),
        ({"liver": 1, "background": 0}, ["background", "liver"], False),
        ({"liver": 1, "spleen": 2}, ["liver", "spleen"], False),
        ({"labels": {"background": 0, "liver": 1, "ignore": 2}}, ["background", "liver"], False),
        ({"labels": {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}}, ["whole", "core"], True),
        (["background", {"name": "liver"}], ["background", {"name": "liver"}], False),
        ({"labels": ["background", "liver"]}, ["background", "liver"], False),
    ],
)
def test_labels_are_read_in_every_form(values: Any, names: list[Any], regions: bool) -> None:
    found = dataset_from(values, "The label file")
    assert list(found.labels) == names and found.regions is regions


def test_labels_are_a_file_or_names(tmp_path: Path) -> None:
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps(DATASET))
    assert dataset_named(str(path)) == dataset_from(DATASET, "")
    assert dataset_named(str(path)).channels == ("CT",)
    assert dataset_named("background, left lung").labels == ("background", "left lung")


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"labels": {"background": 0, "liver": 2}}, "without gaps"),
        ({"labels": {"background": 0, "liver": "x"}}, '"liver" must have a whole number'),
        ({"labels": {"background": 0, "liver": 1.5}}, "whole number"),
        ({"labels": 3}, "labels must be an object"),
        ({"labels": ["a"], "channel_names": {"CT": "0"}}, "channel_names"),
        (7, "must be an object"),
    ],
)
def test_labels_that_cannot_be_are_refused(values: Any, part: str) -> None:
    with pytest.raises(InputError, match=part):
        dataset_from(values, "The label file")


@pytest.mark.parametrize("text", ["liver,,spleen", "no_such.json", "{}"])
def test_label_texts_that_cannot_be_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "{}").write_text("{")
    with pytest.raises(InputError):
        dataset_named(str(tmp_path / text) if text == "{}" else text)


def test_plans_tell_spacing_window_and_intensities_in_our_order() -> None:
    plan = plan_from(PLANS, None, "The plans")
    assert plan.spacing == (0.7, 0.8, 2.5) and plan.window == (48, 96, 128)
    assert plan.intensities == ({"rule": "standard", "window": [-900.0, 300.0], "mean": 80.0, "std": 130.0},)
    small = plan_from(PLANS, "3d_small", "The plans")
    assert small.spacing == plan.spacing and small.window == (32, 32, 32)
    masked = plans(normalization_schemes=["ZScoreNormalization", "NoNormalization", "RescaleTo01Normalization"],
                   use_mask_for_norm=[True, False, False])  # fmt: skip
    rules = [dict(rule) for rule in plan_from(masked, None, "The plans").intensities]
    assert rules[0] == {"rule": "zscore", "nonzero": True} and rules[1] == {"rule": "none"}
    assert [intensity_from(rule, "").rule for rule in rules] == ["zscore", "none", "percentile"]


@pytest.mark.parametrize(
    ("values", "configuration", "part"),
    [
        ({**PLANS, "transpose_forward": [1, 0, 2]}, None, "transpose_forward"),
        (PLANS, "2d", "3 numbers"),
        (PLANS, "3d_lowres", "2d, 3d_fullres, 3d_small"),
        (plans(normalization_schemes=["RGBTo01Normalization"]), None, "--intensity"),
        (plans(use_mask_for_norm=[False, True]), None, "use_mask_for_norm"),
        ({**PLANS, "foreground_intensity_properties_per_channel": {}}, None, "measured intensities"),
        (plans(patch_size=[0, 1, 1]), None, "patch_size"),
        ({"configurations": {"3d_fullres": {"inherits_from": "3d_fullres"}}}, None, "spacing"),
        ([], None, "must be an object"),
    ],
)
def test_plans_that_a_package_cannot_describe_are_refused(values: Any, configuration: str | None, part: str) -> None:
    with pytest.raises(InputError, match=part):
        plan_from(values, configuration, "The plans")


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("ct:-175,250", {"rule": "ct", "window": [-175.0, 250.0]}),
        ("standard:-900,300,80,130", {"rule": "standard", "window": [-900.0, 300.0], "mean": 80.0, "std": 130.0}),
        ("percentile", {"rule": "percentile"}),
        ("percentile:1,99", {"rule": "percentile", "lower": 1.0, "upper": 99.0}),
        ("percentile:1,99,nonzero", {"rule": "percentile", "lower": 1.0, "upper": 99.0, "nonzero": True}),
        ("zscore:nonzero", {"rule": "zscore", "nonzero": True}),
        ("none", {"rule": "none"}),
        ('{"rule": "ct", "window": [0, 1]}', {"rule": "ct", "window": [0, 1]}),
    ],
)
def test_intensity_rules_by_hand(text: str, rule: dict[str, Any]) -> None:
    assert intensity_named(text) == rule
    assert intensity_from(intensity_named(text), "").rule == rule["rule"]


@pytest.mark.parametrize("text", ["ct", "ct:1", "ct:a,b", "standard:1,2", "none:1", "mr", "", "zscore:1", "{"])
def test_intensity_rules_that_cannot_be_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="--intensity"):
        intensity_named(text)


def test_files_of_nnunet_become_the_manifest(tmp_path: Path) -> None:
    manifest = imported(tmp_path, DATASET, plans=PLANS).manifest
    assert [label.name for label in manifest.labels] == ["background", "liver", "spleen"]
    assert manifest.spacing == (0.7, 0.8, 2.5) and manifest.window == (48, 96, 128)
    assert (manifest.channels[0].name, manifest.channels[0].modality) == ("CT", "CT")
    assert (manifest.intensity.rule, manifest.intensity.mean) == ("standard", 80.0)
    by_hand = imported(tmp_path, DATASET, plans=PLANS, spacing=(1, 1, 1), window=(32, 32, 32),
                       intensity={"rule": "none"})  # fmt: skip
    assert (by_hand.manifest.spacing, by_hand.manifest.window) == ((1, 1, 1), (32, 32, 32))
    assert by_hand.manifest.intensity.rule == "none"


def test_a_checkpoint_of_nnunet_brings_its_own_files(tmp_path: Path) -> None:
    carried = {"dataset_json": DATASET, "plans": PLANS, "configuration": "3d_small"}
    done = imported(tmp_path, None, carried)
    assert done.manifest.window == (32, 32, 32) and done.manifest.intensity.rule == "standard"
    assert [label.name for label in done.manifest.segments] == ["liver", "spleen"]
    assert any("R, A, S" in warning for warning in done.warnings)
    with pytest.raises(InputError, match="give --labels"):
        imported(tmp_path, None)
    with pytest.raises(InputError, match="--plans"):
        imported(tmp_path, DATASET, configuration="3d_small")


def test_labels_are_counted_against_the_outputs(tmp_path: Path) -> None:
    assert [label.name for label in imported(tmp_path, "liver,spleen").manifest.labels][0] == "background"
    warnings = imported(tmp_path, "kidney,liver,spleen").warnings
    assert any('"kidney", is taken for the background' in warning for warning in warnings)
    with pytest.raises(InputError, match=r"3 outputs, and 1 labels are given \(liver\)"):
        imported(tmp_path, "liver")
    with pytest.raises(InputError, match="3 outputs, and 2 labels"):
        imported(tmp_path, "liver,spleen", regions=True)
    manifest = imported(tmp_path, "whole,core,rim", regions=True).manifest
    assert manifest.output == "regions" and [label.value for label in manifest.labels] == [1, 2, 3]
    single = imported(tmp_path, "background,lesion", out_channels=1).manifest
    assert single.output == "regions" and [label.name for label in single.labels] == ["lesion"]


def test_channels_are_counted_against_the_inputs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="2 image channels, and the dataset names 1"):
        imported(tmp_path, DATASET, in_channels=2)
    with pytest.raises(InputError, match="2 image channels, and the plans normalise 1"):
        imported(tmp_path, "liver,spleen", in_channels=2, plans=PLANS)
    manifest = imported(tmp_path, {**DATASET, "channel_names": {"0": "T1", "1": "FLAIR"}}, in_channels=2).manifest
    assert [channel.name for channel in manifest.channels] == ["T1", "FLAIR"]
