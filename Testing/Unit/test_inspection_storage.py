"""Maps that are large for the memory are stitched in files: the same maps, and nothing left behind."""

from __future__ import annotations

import gc
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from inspection_support import FakePackage, oblique_volume, plain_volume, tiny  # noqa: E402

from LKSegmentLib.errors import Cancelled, InputError, RunError  # noqa: E402
from LKSegmentLib.inspection import (  # noqa: E402
    Inspection,  # noqa: E402
    map_storage,
    planning,
    stitched_maps,
)
from LKSegmentLib.inspection.volume_maps import examine_volume, inspect_volume, plan_inspection  # noqa: E402

LAYERS = ["LK attention, level 0", "LK attention, level 2 #3"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def package() -> FakePackage:
    return FakePackage("lka_unet", tiny("lka_unet"))


def mapped(folder: Path) -> int:
    """Files of this folder that this process has mapped."""
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    return sum(str(folder) in line for line in lines)


def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "LARGEST_SHARE", 1e-9)


def test_maps_in_files_are_those_in_memory_and_leave_nothing_behind(
    folder: Path, package: FakePackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = oblique_volume((40, 36, 52))
    in_memory = examine_volume(volume, package, LAYERS, "cpu")
    said: list[str] = []
    little_memory(monkeypatch)
    in_files = examine_volume(volume, package, LAYERS, "cpu", announce=said.append)
    assert f"MiB in files in {folder} (more than" in said[0]
    assert np.array_equal(in_files.labels.array, in_memory.labels.array)
    assert len(in_files.maps) == len(in_memory.maps) == 4
    for expected, found in zip(in_memory.maps, in_files.maps, strict=True):
        assert found.name == expected.name and found.volume.grid == expected.volume.grid
        assert np.array_equal(found.volume.array, expected.volume.array) and found.passport == expected.passport
        assert not isinstance(expected.volume.array.base, np.memmap)
    assert not list(folder.iterdir()), "the files have no name, so that nothing is left whatever happens"
    if sys.platform.startswith("linux"):
        kept = in_files.maps[0]
        assert mapped(folder) == 4
        del in_files, found
        gc.collect()
        assert mapped(folder) == 1 and float(kept.volume.array.min()) >= 0
        del kept
        gc.collect()
        assert mapped(folder) == 0


@pytest.mark.parametrize("ending", ["cancelled", "failed"])
def test_a_run_that_ends_early_leaves_nothing_behind(
    folder: Path, package: FakePackage, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    little_memory(monkeypatch)
    windows: list[float] = []

    def progress(stage: str, fraction: float) -> None:
        if stage == "windows":
            windows.append(fraction)
            if ending == "failed" and len(windows) == 2:
                raise RunError("it failed")

    def run() -> None:
        with pytest.raises(Cancelled if ending == "cancelled" else RunError):
            examine_volume(plain_volume((48, 48, 32)), package, LAYERS, "cpu", progress, lambda: len(windows) >= 2)

    run()
    gc.collect()
    assert len(windows) == 2 and not list(folder.iterdir())
    if sys.platform.startswith("linux"):
        assert mapped(folder) == 0


def test_maps_that_fit_nowhere_are_refused_before_anything_runs(
    folder: Path, package: FakePackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "free_memory", lambda: 2**20)
    volume = plain_volume((64, 64, 64))
    assert plan_inspection(volume, package, LAYERS, "cpu").on_disk
    monkeypatch.setattr(planning, "room_on_disk", lambda: 2**19)
    with pytest.raises(
        InputError,
        match="The maps need .* MiB .*'LK attention, level 0' alone .* 1 MiB of free memory .* mean over .* TMPDIR",
    ):
        inspect_volume(volume, package, LAYERS, "cpu")


def test_small_maps_stay_in_memory(package: FakePackage, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_inspection(plain_volume((32, 32, 32)), package, LAYERS, "cpu")
    assert not plan.on_disk and " in files " not in plan.sentence
    monkeypatch.setattr(planning, "free_memory", lambda: None)  # where nothing tells
    assert not plan_inspection(plain_volume((32, 32, 32)), package, LAYERS, "cpu").on_disk


def test_a_disk_that_fills_up_meanwhile_is_a_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(map_storage, "_reserve", full)
    with pytest.raises(RunError, match="could not be kept in .*No space left on device.*fewer maps"):
        map_storage.on_disk((4, 5, 6))
    assert not list(folder.iterdir())


def test_files_are_reserved_whole_where_the_system_cannot_do_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("os.posix_fallocate", raising=False)
    monkeypatch.setattr(map_storage, "_CHUNK", 100)
    array = map_storage.on_disk((7, 5, 3))
    assert array.shape == (7, 5, 3) and array.dtype == np.float32 and not array.any()
    array[:] = 2
    assert float(array.sum()) == 210


def test_percentiles_of_a_large_map_come_from_voxels_spread_over_it(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.linspace(0, 1, 60_000, dtype=np.float32).reshape(20, 30, 100)
    exact = stitched_maps._summary(values)
    monkeypatch.setattr(stitched_maps, "_SUMMARISED", 1000)
    assert stitched_maps._summary(values) == pytest.approx(exact, abs=2e-3)
    assert exact["median"] == pytest.approx(0.5, abs=1e-4)


def test_what_has_no_place_is_a_table_and_the_pair_of_labels_and_maps_says_so() -> None:
    network = tiny("dalight3d")
    package = FakePackage("dalight3d", network, (16, 16, 16))
    volume = plain_volume((24, 16, 16))
    table = "slice attention, encoder 1/4"
    found = examine_volume(volume, package, [table, "uncertainty", "skip-fusion channel gate, decoder 1/2"], "cpu")
    assert isinstance(found, Inspection)
    names = [one.name for one in found.tables]
    assert names == [table, "numbers by window", "numbers by block"]
    assert len(found.tables[0].rows) == 6, "one row a slice of the map at 1/4 of 24 slices"
    assert [one.name for one in found.maps][:2] == ["uncertainty", "uncertainty: window disagreement"]
    _, maps = inspect_volume(volume, package, [table, "uncertainty"], "cpu")
    assert [one.name for one in maps] == ["uncertainty", "uncertainty: window disagreement"]
    with pytest.raises(InputError, match=f"no place in the image and is no map but a table: {table}"):
        inspect_volume(volume, package, [table], "cpu")


def test_gradient_based_maps_come_after_those_that_were_recorded() -> None:
    package = FakePackage("lka_unet", tiny("lka_unet", variant="mid"))
    said: list[str] = []
    names = ["gradient times image, organ", "LK attention, level 2"]
    found = examine_volume(plain_volume((32, 32, 32)), package, names, "cpu", announce=said.append)
    assert [one.name for one in found.maps] == names[::-1]
    assert "1 map and 1 gradient map" in said[0]
    alone = examine_volume(plain_volume((32, 32, 32)), package, names[:1], "cpu")
    assert [one.name for one in alone.maps] == names[:1]
