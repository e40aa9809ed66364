"""`lksegment inspect` on the click model: what each click changed, and what the last one did, in files and as JSON."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
from command_line import blob_image, json_of, lksegment, sentence_of

import LKSegmentLib as lk

CLICKS = ("--point", "0,0,0", "--negative", "-24,24,24")


def test_changes_by_click_and_differences_are_written(tmp_path: Path) -> None:
    image = blob_image(tmp_path / "ball.nrrd")
    out = tmp_path / "out"
    name = "LK attention (mean)"
    words = ("--maps", name, "--click-changes", "--probe", "-2,0,0", "--no-report", "--device", "cpu", "-o", out)
    told = json_of("inspect", image, *CLICKS, *words)
    tables = {table["name"]: table for table in told["tables"]}
    rows = list(csv.DictReader((out / "mask-changes-by-click.csv").open(encoding="utf-8")))
    assert [row["kind"] for row in rows] == ["positive", "negative"]
    mask = lk.read_volume(out / "mask.nrrd").array
    assert int(rows[-1]["voxels"]) == mask.sum() > 0
    assert np.isclose(float(rows[0]["gained (mm³)"]), 8 * int(rows[0]["voxels"])), "voxels of 2 mm"
    assert "values at RAS (-2, 0, 0) mm" in tables and "means by segment" in tables
    difference = next(shown for shown in told["maps"] if shown["name"] == f"{name}: change by the last click")
    assert difference["passport"]["neutral"] == 0.0
    names = sorted(path.name for path in out.iterdir())
    assert names == sorted(Path(path).name for path in told["files"])
    assert not any(path.endswith((".png", ".html")) for path in names)
    passports = json.loads((out / "mask-maps.json").read_text(encoding="utf-8"))
    change = lk.read_volume(out / "mask-lk-attention-mean-change-by-the-last-click.nrrd")
    assert list(change.array.shape) == passports["mask-lk-attention-mean-change-by-the-last-click.nrrd"][
        "native shape (k, j, i)"
    ]
    assert np.abs(change.array).max() <= 1


def test_a_place_outside_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    image = blob_image(tmp_path / "ball.nrrd")
    done = lksegment("inspect", image, *CLICKS, "--probe", "-900,0,0", "-o", tmp_path / "out")
    assert "outside the volume" in sentence_of(done, 2) and not (tmp_path / "out").exists()
