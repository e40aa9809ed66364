"""The scripting names: arguments that cannot be right are one sentence, before anything is computed."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

pytest.importorskip("torch")

import LKSegmentLib as lk  # noqa: E402
from LKSegmentLib.errors import InputError  # noqa: E402

VOLUME = lk.Volume(np.zeros((4, 5, 6), np.float32), np.eye(4))


def test_an_array_or_a_path_is_no_volume() -> None:
    for wrong in (VOLUME.array, "ct.nii.gz", None):
        for call in (
            lambda given: lk.segment(given, model="lk_click"),
            lambda given: lk.ClickSession(given),
            lambda given: lk.inspect(given, points=[((1.0, 1.0, 1.0), True)]),
        ):
            with pytest.raises(InputError, match="A Volume is needed"):
                call(wrong)


@pytest.mark.parametrize("points", [[(1.0, 1.0, 1.0)], (1.0, 1.0, 1.0), [1.0], 7])
def test_points_of_another_form_are_refused_with_the_right_one(points: object) -> None:
    with pytest.raises(InputError, match=r"given as \[\(\(r, a, s\), positive\), ...\]"):
        lk.inspect(VOLUME, points=points)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_absurd_voxels_do_not_reach_the_network(dtype: type) -> None:
    from LKSegmentLib.inference.click_window import ClickWindow

    array = np.arange(120, dtype=dtype).reshape(4, 5, 6)
    array[0, 0, :3] = np.nan, 1e38, -np.inf
    if dtype is np.float64:
        array[0, 0, 3] = 1e300
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sampled = ClickWindow(VOLUME.grid, (1.5, 2.0, 2.5), 1.0, 8).sample(array)
    assert sampled.min() >= 3.0 and sampled.max() <= 119.0


def test_one_name_is_a_list_of_one_and_names_may_come_one_by_one() -> None:
    """Not a list of letters, and not empty once somebody has looked through it."""
    image = lk.Volume(np.zeros((8, 9, 10), np.float32), np.diag([2.0, 2.0, 2.0, 1.0]))
    name = "LK attention (mean)"
    points = [((8.0, 8.0, 8.0), True)]
    for layers in (name, (name,), iter([name])):
        _, maps = lk.inspect(image, points=points, layers=layers, device="cpu")
        assert [found.name for found in maps] == [name]
