"""Values of maps at a place and by segment: on oblique, anisotropic grids that differ from the image's."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from inspection_support import oblique_volume

from LKSegmentLib.errors import InputError
from LKSegmentLib.inspection import Map
from LKSegmentLib.inspection.by_segment import means_by_segment
from LKSegmentLib.inspection.maps import reduced_grid
from LKSegmentLib.inspection.probe import values_at
from LKSegmentLib.volumes import Volume


def map_on(volume: Volume, stride: int, name: str = "gate") -> Map:
    """A map of this stride over the volume, as of a decoder, whose values are all different."""
    shape = tuple(size // stride for size in volume.grid.shape)
    grid = reduced_grid(volume.grid, stride, (shape[0], shape[1], shape[2]), (stride - 1) / 2)
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    return Map(name, Volume(values, grid.ijk_to_ras), {"unit": "none", "neutral": 0.5, "layer": "somewhere"})


def test_probe_reads_the_voxel_that_contains_the_place() -> None:
    volume = oblique_volume((16, 12, 20))
    maps = [map_on(volume, 4), map_on(volume, 1, "fine")]
    for corner in ((3.6, 0.0, 0.0), (4.4, 0.0, 0.0), (15.4, 11.4, 7.6), (-0.4, -0.4, -0.4)):
        found = values_at(maps, volume.grid.ras_of(corner))
        voxel = np.floor((np.array(corner) + 0.5) / 4).astype(int)
        fine = np.clip(np.rint(corner), 0, None).astype(int)
        expected = [maps[0].volume.array[tuple(voxel[::-1])], maps[1].volume.array[tuple(fine[::-1])]]
        assert found.column("value") == expected
    assert found.column("number") == [1, 2] and found.x == "number" and found.y == ("value",)
    assert found.column("unit") == ["none", "none"] and found.column("neutral value") == [0.5, 0.5]
    assert found.column("voxel (mm)")[0] == "4 x 5.2 x 10"


def test_values_of_several_units_are_drawn_as_several_lines() -> None:
    volume = oblique_volume((8, 8, 8))
    maps = [map_on(volume, 1, "gate"), map_on(volume, 2, "logit"), map_on(volume, 4, "other gate")]
    maps[1].passport["unit"] = "log odds"
    found = values_at(maps, volume.grid.centre_ras)
    assert found.y == ("value (none)", "value (log odds)")
    value = found.column("value")
    assert found.column("value (none)") == [value[0], None, value[2]]
    assert found.column("value (log odds)") == [None, value[1], None]


def test_probe_outside_a_map_is_none_and_nonsense_is_refused() -> None:
    volume = oblique_volume((16, 12, 20))
    whole = map_on(volume, 4)
    grid = whole.volume.grid.cropped((0, 0, 0), (1, 3, 5))
    part = Map("part", Volume(np.full(grid.shape, np.nan, np.float32), grid.ijk_to_ras), {"neutral": None})
    place = volume.grid.ras_of((10, 6, 12))
    assert values_at([whole, part], place).column("value")[1] is None
    assert values_at([part], volume.grid.ras_of((1, 1, 1))).column("value") == [None], "NaN is no value"
    assert values_at([whole], place).column("value")[0] is not None
    with pytest.raises(InputError, match="three numbers"):
        values_at([whole], (1.0, 2.0))


def test_a_kernel_has_no_value_in_the_image() -> None:
    volume = oblique_volume((8, 8, 8))
    kernel = map_on(volume, 1, "weight")
    kernel.passport["space"] = "kernel"
    place = volume.grid.centre_ras
    assert values_at([kernel, map_on(volume, 1)], place).column("value")[0] is None
    labels = volume.with_array(np.ones((8, 8, 8), np.uint8))
    assert means_by_segment([kernel, map_on(volume, 1)], labels, ["all"]).column("map") == ["gate"]


def ball_labels(volume: Volume, radius: float) -> tuple[Volume, np.ndarray]:
    """Label 2 within `radius` mm of the volume's middle; and the distance of every voxel from there, mm."""
    k, j, i = np.indices(volume.grid.shape)
    distance = np.linalg.norm(volume.grid.ras_of(np.stack((i, j, k), -1)) - volume.grid.centre_ras, axis=-1)
    return volume.with_array(np.where(distance <= radius, 2, 0).astype(np.uint8)), distance


@pytest.mark.parametrize("stride", [1, 4])
def test_means_by_segment_are_those_of_the_geometry_when_the_map_is_coarser(stride: int) -> None:
    volume = oblique_volume((24, 32, 40), (1.0, 1.3, 2.5))
    labels, _ = ball_labels(volume, 9.0)
    found = map_on(volume, stride)
    table = means_by_segment([found], labels, ["absent", "ball"], shell_mm=5.0)
    assert table.column("segment") == ["absent", "ball"]
    row = dict(zip(table.columns, table.rows[1], strict=True))
    # Independently: repeat the coarse voxels, and measure every distance by hand.
    fine = found.volume.array.repeat(stride, 0).repeat(stride, 1).repeat(stride, 2)
    inside = labels.array == 2
    k, j, i = np.indices(volume.grid.shape)
    places = volume.grid.ras_of(np.stack((i, j, k), -1))
    chosen = places[inside]
    near = np.array([np.linalg.norm(chosen - place, axis=1).min() for place in places.reshape(-1, 3)])
    shell = (near.reshape(inside.shape) <= 5.0 + 1e-6) & ~inside
    for name, mask in (("inside", inside), ("in the shell", shell), ("elsewhere", ~inside & ~shell)):
        assert row[f"voxels {name}"] == mask.sum()
        assert row[f"mean {name}"] == pytest.approx(fine[mask].mean(), rel=1e-5)
    assert row["inside (ml)"] == pytest.approx(inside.sum() * 1.0 * 1.3 * 2.5 / 1000)
    assert row["of the segment in the map (%)"] == pytest.approx(100)
    absent = dict(zip(table.columns, table.rows[0], strict=True))
    assert absent["mean inside"] is None and absent["voxels inside"] == 0
    assert absent["of the segment in the map (%)"] is None


def test_a_map_finer_than_the_labels_is_read_on_its_own_grid_and_only_where_it_lies() -> None:
    coarse = oblique_volume((8, 8, 8), (4.0, 4.0, 6.0))
    labels, _ = ball_labels(coarse, 11.0)
    # Half the volume, with voxels of a quarter of the size along each axis.
    matrix = coarse.ijk_to_ras.copy()
    matrix[:3, :3] /= 4
    matrix[:3, 3] = coarse.grid.ras_of((-0.375, -0.375, -0.375))
    expected = labels.array.repeat(4, 0).repeat(4, 1).repeat(4, 2)[:16] == 2
    values = np.where(expected, 3.0, 1.0).astype(np.float32)
    table = means_by_segment([Map("fine", Volume(values, matrix), {})], labels, {2: "ball"}, shell_mm=4.0)
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert row["voxels inside"] == expected.sum() and row["mean inside"] == 3.0
    assert row["mean in the shell"] == 1.0 and row["mean elsewhere"] == 1.0
    total = sum(int(row[f"voxels {name}"]) for name in ("inside", "in the shell", "elsewhere"))
    assert total == values.size
    share = 100 * expected.sum() / (64 * (labels.array == 2).sum())
    assert row["of the segment in the map (%)"] == pytest.approx(share) and share < 60


def test_labels_that_are_no_labels_and_shells_without_width_are_refused() -> None:
    volume = oblique_volume((8, 8, 8))
    with pytest.raises(InputError, match="whole numbers"):
        means_by_segment([], volume, ["organ"])
    with pytest.raises(InputError, match="wider than 0"):
        means_by_segment([], volume.with_array(np.zeros((8, 8, 8), np.uint8)), ["organ"], shell_mm=0.0)


def test_probe_and_segments_need_no_torch() -> None:
    code = (
        "import sys\n"
        "import LKSegmentLib.inspection.probe, LKSegmentLib.inspection.by_segment\n"
        "assert not {'torch', 'scipy'} & set(sys.modules), 'the panel has neither'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
