"""`lksegment evaluate click`: report, picture, JSON and stored scores of one command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import blob_image, json_of

from LKSegmentLib import packages
from LKSegmentLib.cli.main import main
from LKSegmentLib.networks.lk_click import LKClick
from LKSegmentLib.prompts import CHANNELS
from LKSegmentLib.volumes import read_volume, write_volume

OPTIONS = {"feature_sizes": (8, 8, 8), "depths": (1, 1, 1), "in_channels": len(CHANNELS), "out_channels": 1}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packages.save(
        tmp_path_factory.mktemp("models") / "tiny", network="lk_click", options=OPTIONS, kind="click",
        state_dict=LKClick(**OPTIONS).state_dict(), labels=[{"name": "structure"}], window=(16, 16, 16),
        licence="CC0-1.0", output="regions",
    )  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One image with two labels, listed by the folder itself."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "one").mkdir()
    image = read_volume(blob_image(folder / "one" / "ct.nii.gz"))
    labels = (image.array > 30).astype(np.uint8)
    labels[:, :, 20:] *= 2
    write_volume(image.with_array(labels), folder / "one" / "labels.nii.gz")
    entry = {
        "case": "one", "image": "ct.nii.gz", "labels": "labels.nii.gz", "modality": "CT", "reference": "manual",
        "names": {"1": "kidney_left", "2": "aorta"}, "licence": "CC0-1.0",
    }  # fmt: skip
    (folder / "cases.json").write_text(json.dumps({"images": [entry]}), encoding="utf-8")
    return folder


def test_one_command_writes_report_picture_json_and_scores(model: Path, data: Path, tmp_path: Path) -> None:
    page, picture = tmp_path / "scores.md", tmp_path / "pictures" / "scores.png"
    picture.parent.mkdir()
    found = json_of(
        "evaluate", "click", "--data", data, "--model", model, "--device", "cpu", "--clicks", "2", "--store",
        "--baselines", "region-growing,random-walker", "--markdown", page, "--picture", picture,
    )  # fmt: skip
    weights = packages.read_manifest(model).files["weights.safetensors"].sha256
    assert found["weights_sha256"] == weights
    rows = {row["name"]: row for row in found["rows"]}
    assert {name: row["kind"] for name, row in rows.items()} == {"kidney_left": "organ", "aorta": "vessel"}
    assert set(rows["aorta"]["others"]) == {"Region growing", "Random walker", "Random walker, β 130"}
    assert rows["aorta"]["others"]["Region growing"]["dice"][0] > 0.3, "half of a ball that is all grown into"
    assert all(len(row["model"]["dice"]) == 2 for row in rows.values())
    text = page.read_text(encoding="utf-8")
    assert weights in text and "](pictures/scores.png)" in text and "--clicks 2 --markdown FILE.md" in text
    assert "kidney left" in text and str(tmp_path) not in text, "no folder of this computer"
    assert picture.read_bytes().startswith(b"\x89PNG")
    (stored,) = packages.read_manifest(model).scores
    assert stored["structures"] == 2 and stored["clicks"] == [1, 2] and len(stored["dice"]) == 2
    for clicks in ("1", "2"):  # the second time replaces the first, and what was measured on cubes stays
        json_of(
            "evaluate", "click", "--data", data, "--model", model, "--device", "cpu", "--clicks", clicks, "--store",
            "--whole", "--structures", "aorta",
        )  # fmt: skip
    on_cubes, on_whole = packages.read_manifest(model).scores
    assert on_cubes == stored and on_whole["on"] == "whole image" and on_whole["clicks"] == [1, 2]


def test_the_old_name_whole_images_and_a_choice_of_structures(model: Path, data: Path) -> None:
    found = json_of(
        "evaluate", "clicks", "--data", data, "--model", model, "--device", "cpu", "--clicks", "1", "--whole",
        "--structures", "aorta", "--case", "one",
    )  # fmt: skip
    assert [row["name"] for row in found["rows"]] == ["aorta"] and not found["rows"][0]["others"]
    assert found["on"] == "whole image" and found["rows"][0]["tolerance_mm"] == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--baselines", "magic"), "no baseline 'magic'"),
        (("--whole", "--baselines", "region-growing"), "cube"),
        (("--structures", "spleen"), "'spleen'"),
        (("--clicks", "0"), "At least one click"),
        (("--picture", "scores.txt"), ".png"),
    ],
)
def test_wrong_words_are_refused_in_one_sentence(
    words: tuple[str, ...], said: str, model: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["evaluate", "click", "--data", str(data), "--model", str(model), *words])
    told = capsys.readouterr()
    assert code == 2 and told.out == "" and said in told.err and told.err.count("\n") == 1
