"""`lksegment bench inspection` measures recording and reach, and tells of both. (How fast is no matter of tests.)"""

from __future__ import annotations

import json
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from LKSegmentLib.errors import RunError  # noqa: E402
from LKSegmentLib.evaluation import inspection_speed, inspection_speed_report  # noqa: E402

TINY = {"feature_sizes": (4, 8, 8), "depths": (1, 1, 1)}


def measured(repeats: int = 2) -> dict[str, Any]:
    return inspection_speed._network("dnet", json.dumps(TINY), json.dumps((16, 24, 16)), "2", str(repeats))


def test_figures_fit_together_and_the_answer_is_the_same() -> None:
    row = {"case": {"title": "D-Net", "size": (16, 24, 16)}, **measured()}
    assert row["same_logits"] is True and row["second_runs"] == 0
    assert {"fusion gate, decoder 1/1"} <= set(row["quantities"])
    for way in ("plain", "recorded", "ordinary", "reach"):
        assert row[f"{way}_cpu_s"] > row[f"{way}_s"] - 1e-6 and row[f"{way}_s"] >= 0 and row[f"{way}_wall_s"] > 0
    recording = inspection_speed_report.of_recording([row]).splitlines()[-1]
    reach = inspection_speed_report.of_reach([row]).splitlines()[-1]
    assert "| D-Net | 16 x 24 x 16 | 3 |" in recording and "| ≤ 15% | 0 |" in recording
    assert "| ≤ 3 |" in reach and f"| {row['reach_passes']:.1f} |" in reach


def test_a_recording_that_changes_the_answer_would_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from LKSegmentLib.inspection.recording import MapRecorder

    after = MapRecorder.after_window

    def meddling(self: MapRecorder, window: Any, logits: torch.Tensor) -> None:
        after(self, window, logits)
        logits += 1e-6

    monkeypatch.setattr(MapRecorder, "after_window", meddling)
    assert measured(1)["same_logits"] is False


def test_clicks_and_the_page_say_what_was_promised() -> None:
    row = {"window": [64, 64, 64], "plain_s": 0.25, "recorded_s": 0.26, "all_s": 0.3, "ratio": 1.04, "all_ratio": 1.2}
    row |= {"plain_wall_s": 0.5, "recorded_wall_s": 0.6}
    line = inspection_speed_report.of_clicks(row).splitlines()[2]
    assert "| lk_click, one click | 64 x 64 x 64 | 0.250 s | 0.260 s | +4.0 % | ≤ 15% | 0.300 s | +20.0 % |" in line


def test_a_ratio_is_that_of_the_turns() -> None:
    times = inspection_speed._Times("one", "other")
    times._user = {"one": [2.0, 30.0, 8.0], "other": [1.0, 10.0, 2.0]}
    assert times.ratio("one", "other") == 3.0, "not 8 to 2: a turn meets one state of the machine"


def test_a_measurement_that_fails_says_why() -> None:
    with pytest.raises(RunError, match="no network called"):
        inspection_speed.measure_network(inspection_speed.InspectionCase("none", "no_such_network", {}), repeats=1)
