"""What becomes tables while windows run: slices stitched along k, channels ranked by label, numbers of windows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from inspection_support import FakePackage, oblique_volume, plain_volume, tiny  # noqa: E402

from LKSegmentLib.inference.windows import window_layout  # noqa: E402
from LKSegmentLib.inspection.by_network import exposed  # noqa: E402
from LKSegmentLib.inspection.channel_ranking import ChannelRanking, areas_under_roc  # noqa: E402
from LKSegmentLib.inspection.exposed import Exposed  # noqa: E402
from LKSegmentLib.inspection.slice_weights import LISTED_WINDOWS, SliceRecord  # noqa: E402
from LKSegmentLib.inspection.volume_maps import examine_volume  # noqa: E402

MEANING = {"operator": "none", "kind": "none", "unit": "none", "range": [0, 1], "neutral": 0.5, "identifiable": "yes"}


def entry(extent: Any, **more: Any) -> Exposed:
    return Exposed("numbers", ("layer",), lambda outputs: outputs[0], MEANING, extent, **more)


def test_slices_are_stitched_with_the_segmentations_weights_and_know_their_place() -> None:
    volume = oblique_volume((24, 16, 16), (1.0, 1.3, 2.5))
    layout = window_layout((24, 16, 16), (16, 16, 16), 0.5, 8)
    assert layout.starts[0] == (0, 8)
    record = SliceRecord(entry("slices", columns=("a", "b"), stride=4, drawn=("b",)), layout, volume.grid)
    for window, value in zip(layout.windows(), (2.0, 5.0), strict=True):
        record.add(window, np.stack((np.full(4, value), np.arange(4) + window.lower[0] / 4)).astype(np.float32))
    table = record.finished()
    weight = layout.weights[0][::4].astype(float)
    share = np.concatenate((np.ones(2), weight[2:] / (weight[2:] + weight[:2]), np.zeros(2)))
    assert table.column("a") == pytest.approx(list(2 * share + 5 * (1 - share)), rel=1e-5)
    assert table.column("b") == pytest.approx(list(range(6)), abs=1e-6), "slices meet slices"
    assert table.column("b: spread over windows") == pytest.approx([0] * 6, abs=1e-6)
    assert table.column("a: spread over windows") == pytest.approx(list(3 * np.sqrt(share * (1 - share))), abs=1e-5)
    assert table.x == "along the slice axis (mm)" and table.y == ("b",)
    for number, row in enumerate(table.rows):
        place = volume.grid.ijk_of(row[2:5])
        np.testing.assert_allclose(place, (7.5, 7.5, 4 * number), atol=1e-3)
    assert np.diff(table.column("along the slice axis (mm)")) == pytest.approx([10.0] * 5, abs=1e-3)


def test_matrices_of_windows_are_listed_apart_and_not_without_end() -> None:
    volume = plain_volume((16, 16, 16))
    layout = window_layout((16, 16, 16), (8, 8, 8), 0.75, 2)
    assert layout.count > LISTED_WINDOWS
    record = SliceRecord(entry("slices", stride=4, apart=True), layout, volume.grid)
    for window in layout.windows():
        record.add(window, np.array([[window.index, 0], [0.25, 1]], np.float32))
    table = record.finished()
    assert len(table.rows) == 2 * LISTED_WINDOWS
    assert table.passport["windows left out"] == layout.count - LISTED_WINDOWS
    assert table.columns[-2:] == ("from slice 0", "from slice 1")
    assert table.rows[5][-2:] == (0.0, 1.0) and table.rows[4][-2:] == (2.0, 0.25) and table.rows[4][0] == 2


def test_channels_are_ranked_by_the_label_they_separate() -> None:
    layout = window_layout((16, 16, 16), (16, 16, 16), 0.5)
    logits = torch.zeros(3, 16, 16, 16)
    logits[1, 4:8, 4:12, 4:12] = 1.0
    generator = np.random.default_rng(0)
    value = generator.uniform(0.2, 0.6, size=(4, 8, 8, 8)).astype(np.float32)
    value[2, 2:4, 2:6, 2:6] += 0.4  # above every other value, inside the label
    record = ChannelRanking(entry("channels", channels=4), layout, FakePackage("dnet", torch.nn.Identity()).manifest)
    record.add(next(layout.windows()), value, logits)
    table = record.finished()
    first = dict(zip(table.columns, table.rows[0], strict=True))
    assert (first["label"], first["rank"], first["channel"], first["area under ROC"]) == ("organ", 1, 2, 1.0)
    assert first["mean inside"] - first["mean elsewhere"] == pytest.approx(0.4, abs=0.08)
    assert len(table.rows) == 4 and table.passport["channels compared"] == 4
    assert "chance" in table.passport["sentence"] and table.passport["labels not in the answer"] == ["label 2"]
    with pytest.raises(ValueError, match="logits"):
        record.add(next(layout.windows()), value)


def test_areas_from_histograms_are_those_of_all_pairs() -> None:
    generator = np.random.default_rng(1)
    inside, elsewhere = generator.integers(0, 6, size=(2, 1, 10)).astype(float)
    values = np.arange(10)
    pairs = (values[:, None] > values) + 0.5 * (values[:, None] == values)
    wanted = inside[0] @ pairs @ elsewhere[0] / (inside.sum() * elsewhere.sum())
    assert areas_under_roc(inside, elsewhere)[0] == pytest.approx(wanted)


def test_an_examination_gives_the_tables_of_a_network() -> None:
    network = tiny("dalight3d")
    names = [found.name for found in exposed(network) if found.is_table] + ["skip-fusion channel gate, decoder 1/2"]
    package = FakePackage("dalight3d", network, (16, 16, 16))
    found = examine_volume(plain_volume((24, 16, 16)), package, names, "cpu")
    tables = {table.name: table for table in found.tables}
    assert set(tables) == {*names[:-1], "numbers by window", "numbers by block"}
    attention = tables["slice attention, encoder 1/4"]
    assert attention.column("weight given") == pytest.approx([1.0] * 6, abs=1e-5)
    matrix = tables["slice attention matrix, encoder 1/4"]
    rows = [row for row in matrix.rows if row[0] == 0]
    assert [sum(row[-4:]) for row in rows][:2] == pytest.approx(attention.column("weight received")[:2], abs=1e-4)
    windows, blocks = tables["numbers by window"], tables["numbers by block"]
    values = windows.column(names[-1])
    assert len(values) == 2 and windows.column("S (mm)") == [7.5, 15.5]
    assert blocks.rows[0][2] == pytest.approx(np.mean(values)) and blocks.rows[0][-1] == 2
    assert windows.passport["columns"][names[-1]]["operator"].startswith("σ(FC")


def test_lk_channels_are_ranked_in_a_run() -> None:
    network = tiny("lka_unet", variant="mid")
    found = examine_volume(
        plain_volume((32, 32, 32)), FakePackage("lka_unet", network), ["LK attention by label, level 2"], "cpu"
    )
    (table,) = found.tables
    assert {row[0] for row in table.rows} <= {"organ"} and len(table.rows) == 5
    assert not found.maps and all(0 <= row[3] <= 1 for row in table.rows)
