"""The synthetic abdomen: reproducible, labelled, oblique, and with organs where a person has them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from LKSegmentLib.training.abdomen import LABELS, Abdomen, demonstration_grid, make_abdomen
from LKSegmentLib.volumes import Grid

COARSE = Grid((48, 60, 80), demonstration_grid().ijk_to_ras @ np.diag([2.0, 2.0, 2.0, 1.0]))


@pytest.fixture(scope="module")
def abdomen() -> Abdomen:
    return make_abdomen(seed=0, grid=COARSE)


def test_same_seed_same_voxels_other_seed_others(abdomen: Abdomen) -> None:
    again = make_abdomen(seed=0, grid=COARSE)
    other = make_abdomen(seed=1, grid=COARSE)
    np.testing.assert_array_equal(again.volume.array, abdomen.volume.array)
    np.testing.assert_array_equal(again.labels.array, abdomen.labels.array)
    assert not np.array_equal(other.labels.array, abdomen.labels.array)


def test_grid_is_oblique_and_anisotropic() -> None:
    grid = demonstration_grid()
    assert (np.abs(grid.directions) < 0.999).all()
    assert grid.spacing == pytest.approx((2.2, 2.2, 3.0))
    assert not grid.is_sheared


def test_every_organ_is_one_solid_thing_with_its_own_intensity(abdomen: Abdomen) -> None:
    expected = {"spleen": 124, "liver": 112, "aorta": 168, "inferior vena cava": 142, "urinary bladder": 10}
    for value, name in LABELS.items():
        mask = abdomen.labels.array == value
        assert mask.sum() > 300, name
        if name in expected:
            core = ndimage.binary_erosion(mask)
            assert np.median(abdomen.volume.array[core]) == pytest.approx(expected[name], abs=12), name


def test_organs_lie_on_the_right_side_in_ras(abdomen: Abdomen) -> None:
    def centre(name: str) -> np.ndarray:
        value = next(number for number, known in LABELS.items() if known == name)
        return abdomen.labels.grid.ras_of(np.argwhere(abdomen.labels.array == value)[:, ::-1]).mean(axis=0)

    assert centre("liver")[0] > 20 and centre("right kidney")[0] > 20  # R grows to the patient's right
    assert centre("spleen")[0] < -20 and centre("left kidney")[0] < -20
    assert centre("vertebrae")[1] < centre("aorta")[1] < centre("stomach")[1]  # from back to front
    assert centre("urinary bladder")[2] < centre("bowel")[2] < centre("liver")[2]  # from below to above
