"""`lksegment inspect` and the scripting names on a whole-volume model, with a package on disk."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import json_of, lksegment, sentence_of

import LKSegmentLib as lk
from LKSegmentLib.errors import InputError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Unit"))

from inspection_support import oblique_volume, saved_tiny_package  # noqa: E402

NAME = "spatial gate w1+w2, decoder 1/2 block 0"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_tiny_package(tmp_path_factory.mktemp("models") / "tiny")


def test_the_command_writes_labels_maps_passports_and_reach(package: Path, tmp_path: Path) -> None:
    volume = oblique_volume((20, 24, 22))
    lk.write_volume(volume, tmp_path / "image.nrrd")
    ras = [float(value) for value in volume.grid.ras_of((11, 12, 9))]
    place = ",".join(f"{value:.3f}" for value in ras)
    words = ("inspect", tmp_path / "image.nrrd", "--model", package, "--maps", NAME, "--reach", place, "--probe", place)
    told = json_of(*words, "--device", "cpu", "-o", tmp_path / "maps")
    assert [found["name"] for found in told["maps"]] == [NAME, f"{NAME}: window disagreement", "reach"]
    passports = json.loads((tmp_path / "maps" / "labels-maps.json").read_text())
    stem = "labels-spatial-gate-w1-w2-decoder-1-2-block-0"
    assert list(passports) == [f"{stem}.nrrd", f"{stem}-window-disagreement.nrrd", "labels-reach.nrrd"]
    labels, maps = lk.inspect(volume, model=package, layers=[NAME], device="cpu")
    assert np.array_equal(lk.read_volume(tmp_path / "maps" / "labels.nrrd").array, labels.array)
    assert np.array_equal(labels.array, lk.segment(volume, package, "cpu").labels.array)
    written = lk.read_volume(tmp_path / "maps" / f"{stem}.nrrd")
    np.testing.assert_allclose(written.array, maps[0].volume.array, atol=1e-5)
    assert written.grid.matches(maps[0].volume.grid)
    reach = lk.reach(volume, model=package, ras=ras, device="cpu")
    recorded = passports["labels-reach.nrrd"]["half widths mm (i, j, k)"]
    np.testing.assert_allclose(recorded["90 %"], reach.radii_mm[90], rtol=1e-3)
    # Tables as files, as JSON and in the report, which needs nothing but itself.
    probed = next(table for table in told["tables"] if table["name"].startswith("values at"))
    assert [row[1] for row in probed["rows"]] == [NAME, f"{NAME}: window disagreement", "reach"]
    csv = next((tmp_path / "maps").glob("labels-values-at-*.csv")).read_text(encoding="utf-8").splitlines()
    assert float(csv[1].split(",")[3 if csv[1].count('"') else 2]) == pytest.approx(probed["rows"][0][2])
    means = next(table for table in told["tables"] if table["name"] == "means by segment")
    assert {row[0] for row in means["rows"]} == {"organ"} and len(means["rows"]) == 3
    page = (tmp_path / "maps" / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 3 and "http" not in page and str(tmp_path) not in page
    assert reach.sentence.split(";")[0] in page and "labels-means-by-segment.csv" in page
    written_files = {path.name for path in (tmp_path / "maps").iterdir()}
    assert {Path(path).name for path in told["files"]} == written_files and len(written_files) == 1 + 3 + 1 + 2 + 3 + 1


def test_places_left_and_right_have_a_file_each_and_no_answer_is_made_up(package: Path, tmp_path: Path) -> None:
    matrix = np.diag([2.0, 2.0, 2.0, 1.0])
    matrix[:3, 3] = -15.0
    volume = lk.Volume(np.zeros((16, 16, 16), np.float32), matrix)
    lk.write_volume(volume, tmp_path / "image.nrrd")
    words = ("inspect", tmp_path / "image.nrrd", "--model", package, "--device", "cpu", "--no-report")
    places = ("--probe", "10,4,4", "--probe", "-10,4,4")
    told = json_of(*words, "--maps", NAME, "--maps", "means by segment", *places, "-o", tmp_path / "both")
    assert sorted(table["name"] for table in told["tables"])[-2:] == [
        "values at RAS (-10, 4, 4) mm", "values at RAS (10, 4, 4) mm",
    ]  # fmt: skip
    assert len(list((tmp_path / "both").glob("labels-values-at-*.csv"))) == 2
    assert [table["name"] for table in told["tables"]].count("means by segment") == 1
    # Of the weights alone there is no answer: no empty label volume, and no word of nothing having been found.
    kernel = "mean |weight|, near 5³ kernel, encoder 1/2 block 0"
    told = json_of(*words[:-1], "--maps", "large kernels", "--maps", kernel, "-o", tmp_path / "weights")
    for shown in (*told["maps"], *told["tables"]):
        assert (shown["passport"]["model"], shown["passport"]["network"]) == ("tiny", "dnet")
    assert not (tmp_path / "weights" / "labels.nrrd").exists()
    page = (tmp_path / "weights" / "report.html").read_text(encoding="utf-8")
    assert "not computed" in page and "nothing was found" not in page


def test_bad_names_places_and_points_are_refused_in_a_sentence(package: Path, tmp_path: Path) -> None:
    volume = oblique_volume((20, 24, 22))
    lk.write_volume(volume, tmp_path / "image.nrrd")
    words = ("inspect", tmp_path / "image.nrrd", "-o", tmp_path / "maps")
    assert NAME in sentence_of(lksegment(*words, "--model", package, "--maps", "heat"), 2)
    assert "--point" in sentence_of(lksegment(*words), 2)
    assert "--click-changes" in sentence_of(lksegment(*words, "--model", package, "--click-changes"), 2)
    assert "outside the volume" in sentence_of(lksegment(*words, "--model", package, "--probe", "-500,0,0"), 2)
    assert "outside the volume" in sentence_of(lksegment(*words, "--model", package, "--reach", "-500,0,0"), 2)
    place = ",".join(f"{value:.3f}" for value in volume.grid.centre_ras)
    volumes = (*words, "--model", package)
    assert "give --reach" in sentence_of(lksegment(*volumes, "--reach-around", "5"), 2)
    for distance in ("0", "-1", "nan", "inf"):
        around = (*volumes, "--reach", place, f"--reach-around={distance}")
        assert "above 0 mm" in sentence_of(lksegment(*around), 2)
    assert not (tmp_path / "maps").exists()
    with pytest.raises(InputError, match="takes no clicks"):
        lk.inspect(volume, model=package, points=[((0, 0, 0), True)])
    with pytest.raises(InputError, match="outside the volume"):
        lk.reach(volume, model=package, ras=(500, 0, 0))
    with pytest.raises(InputError, match="depends on the clicks"):
        lk.reach(volume)
