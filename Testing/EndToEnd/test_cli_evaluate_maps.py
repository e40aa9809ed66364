"""`lksegment evaluate maps`: scores in words, as JSON, as files, and in the package."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import json_of, lksegment, sentence_of

import LKSegmentLib as lk

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Unit"))

from inspection_support import oblique_volume, saved_tiny_package  # noqa: E402

NAME = "fusion gate, decoder 1/1"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_tiny_package(tmp_path_factory.mktemp("models") / "tiny")


def test_scores_are_told_written_and_kept_in_the_package(package: Path, tmp_path: Path) -> None:
    volume = oblique_volume((20, 24, 22))
    image = tmp_path / "case" / "image.nrrd"
    image.parent.mkdir()
    lk.write_volume(volume, image)
    places = [",".join(f"{value:.3f}" for value in volume.grid.ras_of(ijk)) for ijk in ((11, 12, 9), (5, 18, 14))]
    words = ("evaluate", "maps", image, "--model", package, "--device", "cpu", "--maps", NAME)
    points = [word for place in places for word in ("--point", place)]
    told = json_of(*words, *points, "--label", "1", "--store", "-o", tmp_path / "out", "--markdown", tmp_path / "m.md")
    stored = told["maps"][NAME]
    assert stored["scores"]["places"] == 2 and "2 places of one image, case/image.nrrd; organ" == stored["data"]
    manifest = lk.packages.read_manifest(package)
    assert lk.packages.faithfulness_of(manifest, NAME) == f"{stored['sentence']} (Measured on {stored['data']}.)"
    assert manifest.faithfulness[NAME]["scores"] == stored["scores"]
    curve = tmp_path / "out" / "deletion-probability-fusion-gate-decoder-1-1-place-1.csv"
    rows = list(csv.DictReader(curve.open(encoding="utf-8")))
    assert [float(row["removed (%)"]) for row in rows][0::6] == [0.0, 100.0]
    assert np.isclose(float(rows[0]["this map"]), float(rows[0]["edge strength"])), "both begin with the whole image"
    page = (tmp_path / "m.md").read_text(encoding="utf-8")
    assert stored["sentence"] in page and str(tmp_path) not in page
    assert {str(path) for path in (tmp_path / "out").iterdir()} | {str(tmp_path / "m.md")} == set(told["files"])


def test_what_cannot_be_tested_is_one_sentence(package: Path, tmp_path: Path) -> None:
    lk.write_volume(oblique_volume((20, 24, 22)), tmp_path / "image.nrrd")
    words = ("evaluate", "maps", tmp_path / "image.nrrd")
    assert "--point" in sentence_of(lksegment(*words), 2)
    bad = lksegment(*words, "--model", package, "--maps", "heat", "--label", "1", "-o", tmp_path / "out")
    assert NAME in sentence_of(bad, 2) and not (tmp_path / "out").exists()
