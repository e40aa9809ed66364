"""`lksegment import` as a person runs it: a checkpoint becomes a model that segments; bad input is one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import blob_image, environment, json_of, lksegment, sentence_of

torch = pytest.importorskip("torch")

from LKSegmentLib import networks, packages  # noqa: E402
from LKSegmentLib.cli.main import main  # noqa: E402

DATASET = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1, "spleen": 2}}
CT = {"mean": 80.0, "std": 130.0, "percentile_00_5": -900.0, "percentile_99_5": 300.0}
PLANS = {
    "configurations": {
        "3d_fullres": {"spacing": [2.0, 2.0, 2.0], "patch_size": [32, 32, 32],
                       "normalization_schemes": ["CTNormalization"], "use_mask_for_norm": [False]}
    },
    "foreground_intensity_properties_per_channel": {"0": CT},
}  # fmt: skip


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    network = networks.create("dnet", in_channels=1, out_channels=3, depths=[1, 1], feature_sizes=[4, 6])
    weights = {f"_orig_mod.{key}": value for key, value in networks.export_official(network).items()}
    path = tmp_path / "checkpoint_final.pth"
    torch.save({"network_weights": weights, "epoch": 3}, path)
    return path


def test_an_imported_checkpoint_is_listed_and_segments(checkpoint: Path, tmp_path: Path) -> None:
    for name, content in (("dataset.json", DATASET), ("plans.json", PLANS)):
        (tmp_path / name).write_text(json.dumps(content))
    surroundings = environment(LKSEGMENT_MODELS=str(tmp_path / "models"))
    words: tuple[Any, ...] = ("import", checkpoint, "--labels", tmp_path / "dataset.json")
    words += ("--plans", tmp_path / "plans.json", "--name", "organs", "--licence", "CC0-1.0", "--network", "dnet")
    told = json_of(*words, env=surroundings)
    assert told["network"] == "dnet" and told["out_channels"] == 3 and told["assumed"] == {"selection": "sum"}
    assert told["options"]["feature_sizes"] == [4, 6]
    manifest = json_of("models", "organs", env=surroundings)
    assert manifest["licence"] == "CC0-1.0" and manifest["window"] == [32, 32, 32]
    image = blob_image(tmp_path / "image.nii.gz")
    found = json_of(
        "segment", image, "--model", "organs", "--device", "cpu", "-o", tmp_path / "labels.nii.gz", env=surroundings
    )
    assert [label["name"] for label in found["labels"]] == ["liver", "spleen"]
    assert (tmp_path / "labels.nii.gz").is_file()


def test_what_is_written_by_hand_reaches_the_manifest_and_a_person_reads_notes(
    checkpoint: Path, tmp_path: Path
) -> None:
    done = lksegment(
        "import", checkpoint, "--labels", "background,liver,spleen", "--spacing", "1.5,1.5,2", "--window", "64,96,96",
        "--intensity", "ct:-175,250", "--option", "selection=per_kernel", "--title", "Organs", "-o", tmp_path / "m.zip",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "dnet: in_channels 1, out_channels 3" in done.stdout and "Note: No --licence" in done.stderr
    manifest = packages.load(tmp_path / "m.zip").manifest
    assert (manifest.spacing, manifest.window, manifest.title) == ((1.5, 1.5, 2.0), (64, 96, 96), "Organs")
    assert manifest.intensity.window == (-175.0, 250.0) and manifest.options["selection"] == "per_kernel"


def test_a_checkpoint_with_code_is_one_sentence_and_code_2(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "code.pth")
    done = lksegment("import", tmp_path / "code.pth", "--labels", "a,b", "-o", tmp_path / "package")
    assert "would run Python code" in sentence_of(done, 2)
    assert not (tmp_path / "package").exists()


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--labels", "liver", "--network", "rep3d"), "rep3d"),
        (("--labels", "liver"), "3 outputs, and 1 labels"),
        ((), "--labels"),
        (("--window", "96,96,1.5"), "whole numbers"),
        (("--option", "selection"), "NAME=VALUE"),
        (("--intensity", "mr"), "--intensity"),
        (("--configuration", "2d", "--labels", "a,b,c"), "--plans"),
    ],
)
def test_wrong_words_are_one_sentence_and_code_2(
    words: tuple[str, ...], part: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(["import", str(checkpoint), *words, "-o", str(tmp_path / "package")])
    except SystemExit as end:
        code = end.code
    said = capsys.readouterr()
    assert code == 2 and said.out == "" and part in said.err and said.err.count("\n") == 1
    assert not (tmp_path / "package").exists()
