"""Scores with known answers."""

from __future__ import annotations

import numpy as np
import pytest

from LKSegmentLib import packages
from LKSegmentLib.errors import InputError
from LKSegmentLib.evaluation.click_scores import Structure, click_through, same_clicks
from LKSegmentLib.evaluation.metrics import dice, hausdorff95
from LKSegmentLib.networks.lk_click import LKClick
from LKSegmentLib.prompts import CHANNELS
from LKSegmentLib.volumes import Volume


def box(low: int, high: int) -> np.ndarray:
    mask = np.zeros((20, 20, 20), bool)
    mask[low:high, 5:15, 5:15] = True
    return mask


def test_dice() -> None:
    assert dice(box(5, 15), box(5, 15)) == 1
    assert dice(box(5, 15), box(10, 20)) == pytest.approx(0.5)
    assert dice(box(5, 5), box(5, 5)) == 1 and dice(box(5, 5), box(5, 6)) == 0


def test_hausdorff_is_in_millimetres() -> None:
    assert hausdorff95(box(5, 15), box(5, 15), (2, 1, 1)) == 0
    assert hausdorff95(box(5, 10), box(5, 15), (2, 1, 1)) == pytest.approx(10)
    assert hausdorff95(box(5, 5), box(5, 15), (2, 1, 1)) == float("inf")
    assert hausdorff95(box(5, 5), box(5, 5), (2, 1, 1)) == 0


def test_clicks_correct_the_method_under_test_and_followers_get_the_same_ones() -> None:
    target = box(5, 15)
    structure = Structure("made", 1, Volume(np.zeros(target.shape), np.diag([2, 2, 2, 1.0])), target)
    seen: list[list] = []

    def balls(volume, points):
        """Every positive click adds 3 slices around it: a method that needs several clicks."""
        mask = np.zeros(target.shape, bool)
        for point in points:
            k = round(float(volume.grid.ijk_of(point.ras)[2]))
            mask[max(k - 1, 0) : k + 2, 5:15, 5:15] = point.positive
        return mask

    def watching(volume, points):
        seen.append(list(points))
        return np.zeros(target.shape, bool)

    scores = click_through(balls, structure, 6)
    assert scores[0] == pytest.approx(2 * 300 / 1300) and scores[-1] > 0.9 and len(scores) == 6
    led, followed = same_clicks(balls, watching, structure, 6)
    assert led == scores and followed == [0.0] * 6
    assert seen[-1][: len(seen[0])] == seen[0]


def test_the_cube_around_a_structure_keeps_its_place() -> None:
    target = box(8, 12)
    structure = Structure("made", 1, Volume(target.astype(np.float32), np.diag([1, 1, 3, 1.0])), target)
    cube = structure.cropped(32)
    assert cube.target.shape == (32, 32, 32)
    centre = cube.volume.grid.ras_of(np.argwhere(cube.target).mean(0)[::-1])
    np.testing.assert_allclose(centre, structure.volume.grid.ras_of(np.argwhere(target).mean(0)[::-1]), atol=0.3)
    assert cube.target.sum() * np.prod(cube.volume.spacing) == pytest.approx(target.sum() * 3, rel=0.1)


def test_scores_are_stored_beside_the_weights_they_were_measured_with(tmp_path) -> None:
    network = LKClick(in_channels=len(CHANNELS), feature_sizes=(8, 8, 8, 8), depths=(1, 1, 1))
    folder = packages.save(
        tmp_path / "tiny",
        network="lk_click",
        state_dict=network.state_dict(),
        labels=[{"name": "structure"}],
        window=(16, 16, 16),
        licence="Apache-2.0",
        options={"feature_sizes": (8, 8, 8, 8), "depths": (1, 1, 1), "in_channels": len(CHANNELS), "out_channels": 1},
        kind="click",
        output="regions",
    )
    before = packages.read_manifest(folder)
    assert packages.store_scores(folder, [{"measured": "Dice", "dice": [0.4, 0.7]}]) == folder
    after = packages.load(folder).manifest
    assert after.scores == ({"measured": "Dice", "dice": [0.4, 0.7]},)
    assert after.files == before.files and after.options == before.options
    with pytest.raises(InputError):
        packages.store_scores(tmp_path / "nowhere", [])
