"""Scores with known answers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from LKSegmentLib import packages
from LKSegmentLib.errors import InputError
from LKSegmentLib.evaluation import click_report
from LKSegmentLib.evaluation import click_statistics as statistics
from LKSegmentLib.evaluation.baselines import random_walker, random_walker_fine, region_growing
from LKSegmentLib.evaluation.channel_worth import best_threshold_dice
from LKSegmentLib.evaluation.click_scores import Baseline, ClickScore, Curve, lead, own_clicks, score
from LKSegmentLib.evaluation.metrics import SurfaceDice, dice, hausdorff95
from LKSegmentLib.evaluation.structure_kinds import kind_of
from LKSegmentLib.evaluation.structures import Structure, real_structures
from LKSegmentLib.networks.lk_click import LKClick
from LKSegmentLib.prompts import CHANNELS, Point
from LKSegmentLib.volumes import Volume, write_volume


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


def test_surface_dice_forgives_what_lies_within_the_tolerance_in_millimetres() -> None:
    same = SurfaceDice(box(5, 15), (1, 1, 1), 1.0)
    assert same(box(5, 15)) == 1 and same(box(4, 16)) == 1, "one voxel is forgiven"
    assert same(box(3, 17)) < 1, "two are not"
    assert SurfaceDice(box(5, 15), (3, 1, 1), 1.0)(box(4, 16)) < 1, "one voxel of 3 mm is not"
    assert SurfaceDice(box(5, 15), (3, 1, 1), 3.0)(box(4, 16)) == 1
    assert same(box(5, 5)) == 0 and SurfaceDice(box(5, 5), (1, 1, 1), 1.0)(box(5, 5)) == 1


def test_surface_dice_is_the_share_of_surface_voxels_near_the_other_surface() -> None:
    """Against the definition, with distance transforms, on shapes without symmetry."""
    rng = np.random.default_rng(3)
    noise = [ndimage.gaussian_filter(rng.normal(size=(24, 22, 20)), 3) for _ in range(2)]
    first, second = (field > 0 for field in noise)
    spacing, tolerance = (1.5, 0.7, 1.0), 2.2
    surfaces = [mask & ~ndimage.binary_erosion(mask) for mask in (first, second)]
    away = [ndimage.distance_transform_edt(~surface, sampling=spacing) for surface in surfaces]
    near = (away[1][surfaces[0]] <= tolerance).sum() + (away[0][surfaces[1]] <= tolerance).sum()
    expected = near / (surfaces[0].sum() + surfaces[1].sum())
    assert 0.1 < expected < 0.95
    assert SurfaceDice(second, spacing, tolerance)(first) == pytest.approx(expected)


TARGET = box(5, 15)
STRUCTURE = Structure("made", 1, Volume(np.zeros(TARGET.shape), np.diag([2, 2, 2, 1.0])), TARGET)


def slabs(volume: Volume, points) -> np.ndarray:
    """Every positive click adds 3 slices around it: a method that needs several clicks."""
    mask = np.zeros(TARGET.shape, bool)
    for point in points:
        k = round(float(volume.grid.ijk_of(point.ras)[2]))
        mask[max(k - 1, 0) : k + 2, 5:15, 5:15] = point.positive
    return mask


def test_clicks_correct_the_method_under_test_and_others_get_the_same_ones() -> None:
    seen: list[tuple] = []

    def watching(volume, points):
        seen.append(tuple(points))
        return np.zeros(TARGET.shape, bool)

    steps = list(lead(slabs, STRUCTURE, 6))
    expected = [dice(step.mask, TARGET) for step in steps]
    assert expected[0] == pytest.approx(2 * 300 / 1300) and expected[-1] > 0.9
    row = score(STRUCTURE, slabs, [Baseline("none", watching, own_clicks=True)], 6)
    assert list(row.model.dice) == expected and row.model.clicks == (1, 2, 3, 4, 5, 6)
    assert row.others["none"].clicks == (1, 2, 3, 5, 6) and set(row.others["none"].dice) == {0.0}
    assert seen[:5] == [steps[count - 1].points for count in (1, 2, 3, 5, 6)], "the very clicks of the model"
    own = row.others[own_clicks("none")]
    assert own.clicks == (1, 2, 3, 4, 5, 6)
    assert all(point.positive for point in seen[-1]), "its own error is always a missing structure"
    # A method that answers nothing ignores each positive click; one that answers slabs, none.
    assert own.ignored == 6 and row.model.ignored == 0 and row.tolerance_mm == 2


def test_once_the_mask_is_perfect_nobody_clicks_any_more() -> None:
    row = score(STRUCTURE, lambda volume, points: TARGET, [Baseline("slabs", slabs)], 10)
    assert row.model.dice == (1.0,) * 10 and row.model.surface_dice == (1.0,) * 10 and len(row.model.seconds) == 1
    assert row.others["slabs"].dice == (pytest.approx(2 * 300 / 1300),) * 5, "the one click there was, for all counts"


def test_an_ignored_negative_click_is_counted() -> None:
    row = score(STRUCTURE, lambda volume, points: np.ones(TARGET.shape, bool), (), 4)
    assert row.model.ignored == 3


def test_the_cube_around_a_structure_keeps_its_place() -> None:
    target = box(8, 12)
    structure = Structure("made", 1, Volume(target.astype(np.float32), np.diag([1, 1, 3, 1.0])), target, voxels=400)
    cube = structure.cropped(32)
    assert cube.target.shape == (32, 32, 32) and cube.voxels == 400
    centre = cube.volume.grid.ras_of(np.argwhere(cube.target).mean(0)[::-1])
    np.testing.assert_allclose(centre, structure.volume.grid.ras_of(np.argwhere(target).mean(0)[::-1]), atol=0.3)
    assert cube.target.sum() * np.prod(cube.volume.spacing) == pytest.approx(target.sum() * 3, rel=0.1)
    assert cube.voxel_mm == pytest.approx(1.3 * 12 / 32)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("kidney_right", "organ"), ("kidney_cyst_left", "lesion"), ("small_bowel", "bowel"), ("vertebrae_L3", "bone"),
        ("rib_left_10", "bone"), ("inferior_vena_cava", "vessel"), ("pulmonary_artery", "vessel"),
        ("gluteus_medius_left", "muscle"), ("multiple_sclerosis_lesion", "lesion"), ("Left-Hippocampus", "brain part"),
        ("hip_left", "bone"), ("heart", "organ"), ("intervertebral_discs", "other"), ("spinal_cord", "other"),
        ("7", "other"),
    ],
)  # fmt: skip
def test_kinds_by_name(name: str, kind: str) -> None:
    assert kind_of(name) == kind


@pytest.fixture
def made_cases(tmp_path: Path) -> Path:
    """Two label maps: one in two pieces, on a grid that is flipped and larger; a second one with a small label."""
    folder = tmp_path / "data"
    case = folder / "a"
    case.mkdir(parents=True)
    grid = np.diag([1.0, 1.0, 2.0, 1.0])
    image = np.zeros((20, 20, 20), np.float32)
    image[4:10, 4:14, 4:14] = 100
    write_volume(Volume(image, grid), case / "image.nii.gz")
    labels = np.zeros((20, 20, 24), np.uint8)
    labels[4:10, 4:14, 4:14] = 3
    labels[14:16, 4:14, 4:14] = 3
    labels[:3, :3, :3] = 5
    flipped = grid.copy()
    flipped[0] = [-1, 0, 0, 23]
    write_volume(Volume(labels[..., ::-1].copy(), flipped), case / "labels.nii.gz")
    (case / "names.json").write_text('{"3": "liver", "5": "rib"}', encoding="utf-8")
    entry = {
        "case": "a", "image": "image.nii.gz", "labels": "labels.nii.gz", "modality": "CT", "reference": "manual",
        "names": "names.json",
    }  # fmt: skip
    (folder / "cases.json").write_text(json.dumps({"images": [entry]}), encoding="utf-8")
    return folder


def test_structures_of_a_listed_folder_are_the_largest_pieces_on_the_grid_of_the_image(made_cases: Path) -> None:
    (only,) = real_structures(made_cases)
    assert (only.case, only.value, only.name, only.kind, only.modality) == ("a", 3, "liver", "organ", "CT")
    expected = np.zeros((20, 20, 20), bool)
    expected[4:10, 4:14, 4:14] = True
    assert np.array_equal(only.target, expected) and only.voxels == 600 and only.reference == "manual"
    assert [entry.name for entry in real_structures(made_cases, least_voxels=20)] == ["liver", "rib"]
    assert not list(real_structures(made_cases, names=["rib"])), "known, but too small"


def test_what_is_wrong_with_a_data_folder_is_said(made_cases: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no structure 'spleen'; there are: liver, rib"):
        list(real_structures(made_cases, names=["spleen"]))
    with pytest.raises(InputError, match="of the case 'b'"):
        list(real_structures(made_cases, case="b"))
    with pytest.raises(InputError, match="no folder"):
        list(real_structures(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="no labelled images"):
        list(real_structures(tmp_path))
    listed = made_cases / "cases.json"
    for content, said in (
        ("{", "cannot be read"),
        ("[]", 'a list "images"'),
        ('{"images": [{"case": "a"}]}', 'lacks the text "image"'),
    ):
        listed.write_text(content, encoding="utf-8")
        with pytest.raises(InputError, match=said):
            list(real_structures(made_cases))


def test_real_structures_on_a_flipped_and_on_a_larger_grid(real_data: Path) -> None:
    (liver,) = real_structures(real_data, "02_ct_abdomen_dicom_jpeg2000", ["liver"])
    assert liver.voxels == 366708 and 60 < liver.volume.array[liver.target].mean() < 180, "enhanced liver, in HU"
    assert liver.modality == "CT" and liver.reference == "made by a model"
    (heart,) = real_structures(real_data, "05_cta_heart", ["heart"])
    assert heart.target.shape == heart.volume.array.shape and 150_000 < heart.voxels < 250_000
    assert {entry.name: entry.kind for entry in real_structures(real_data, "17_mr_hippocampus")} == {
        "hippocampus_anterior": "brain part", "hippocampus_posterior": "brain part",
    }  # fmt: skip


@pytest.fixture(scope="module")
def ball() -> tuple[Volume, np.ndarray]:
    """A bright ball in noise, and a second one that touches it: only a negative click tells them apart."""
    k, j, i = np.indices((40, 40, 40))
    target = (k - 20) ** 2 + (j - 20) ** 2 + (i - 14) ** 2 < 64
    other = (k - 20) ** 2 + (j - 20) ** 2 + (i - 27) ** 2 < 36
    noise = np.random.default_rng(0).normal(0, 8, target.shape)
    return Volume((100.0 * (target | other) + noise).astype(np.float32), np.diag([1.2, 1.2, 1.2, 1])), target


def at(volume: Volume, k: int, j: int, i: int, positive: bool = True) -> Point:
    r, a, s = (float(value) for value in volume.grid.ras_of((i, j, k)))
    return Point((r, a, s), positive)


@pytest.mark.parametrize("method", [region_growing, random_walker, random_walker_fine])
def test_classical_methods_find_a_bright_ball_and_heed_a_negative_click(method, ball) -> None:
    volume, target = ball
    first = method(volume, [at(volume, 20, 20, 14)])
    both = method(volume, [at(volume, 20, 20, 14), at(volume, 20, 20, 28, positive=False)])
    assert first.shape == target.shape and first[20, 20, 14]
    assert not both[20, 20, 28] and both[20, 20, 14]
    assert dice(both, target) > max(0.75, dice(first, target) + 0.03)


def test_the_random_walker_answers_where_there_is_nothing_to_walk_along() -> None:
    flat = Volume(np.zeros((20, 33, 40), np.float32), np.eye(4))
    mask = random_walker(flat, [at(flat, 9, 15, 20)])
    assert mask.shape == (20, 33, 40) and mask[9, 15, 20] and mask.sum() < 100


def made_row(dice_of: tuple[float, ...], other: float = 0.3, **changed) -> ClickScore:
    clicks = tuple(range(1, len(dice_of) + 1))
    model = Curve(clicks, dice_of, dice_of, (0.5,) + (0.2,) * (len(clicks) - 1), 1)
    counts = tuple(count for count in (1, 2, 3, 5, 10) if count in clicks)
    curve = Curve(counts, (other,) * len(counts), (other,) * len(counts), (0.1,) * len(counts), 0)
    others = {"Region growing": curve, own_clicks("Grow from seeds"): replace(curve, dice=(0.99,) * len(counts))}
    row = ClickScore("01_ct", 1, "liver", "CT", "organ", "manual", 900, 1.5, model, others)
    return replace(row, **changed)


def test_means_come_with_an_interval_that_is_the_same_each_time() -> None:
    table = np.random.default_rng(1).uniform(0.2, 0.9, (40, 2))
    first, second = statistics.means(table), statistics.means(table)
    assert first == second
    error = table[:, 0].std() / np.sqrt(40)
    assert first[0].mean == pytest.approx(table[:, 0].mean())
    assert first[0].low == pytest.approx(first[0].mean - 1.96 * error, abs=0.3 * error)
    assert first[0].high == pytest.approx(first[0].mean + 1.96 * error, abs=0.3 * error)
    assert statistics.means(table[:4])[0].low is None, "too few to say"
    assert statistics.means(np.full((9, 1), 0.25)) == [statistics.Mean(0.25, 0.25, 0.25)]


def test_leads_are_over_the_best_with_the_same_clicks() -> None:
    rows = [made_row((0.6, 0.7, 0.8)), made_row((0.4, 0.5, 0.6), other=0.5)]
    leads = statistics.leads(rows)
    assert [(lead.clicks, lead.best) for lead in leads] == [(count, "Region growing") for count in (1, 2, 3)]
    assert [lead.lead.mean for lead in leads] == pytest.approx([0.1, 0.2, 0.3])
    assert not statistics.leads([replace(row, others={}) for row in rows])


def test_failures_losses_and_the_ones_to_look_at() -> None:
    good, fallen, bad = made_row((0.5, 0.9)), made_row((0.8, 0.7)), made_row((0.1, 0.3), kind="vessel", name="vein")
    rows = [fallen, bad, good]
    assert statistics.failures(rows) == [bad] and statistics.ends_below_start(rows) == [fallen]
    assert statistics.best_median_worst(rows) == [good, fallen, bad]
    assert list(statistics.groups(rows, lambda row: row.kind)) == ["organ", "vessel"]
    assert statistics.seconds(rows, statistics.MODEL)["first, median"] == 0.5
    assert statistics.seconds(rows, statistics.MODEL)["later, median"] == 0.2
    summary = json.loads(json.dumps(statistics.summary(rows)))
    assert summary["failures"] == ["01_ct/vein"] and summary["by"]["kind"]["vessel"]["structures"] == 1
    assert summary["methods"]["model"]["ignored_clicks"] == 3 and summary["methods"]["model"]["answers"] == 6


def test_the_page_says_what_was_reached_wanted_and_missed() -> None:
    curve = tuple(np.linspace(0.5, 0.8, 10))
    rows = [made_row(curve) for _ in range(6)] + [made_row((0.4,) * 10, name="vein", kind="vessel")]
    page = click_report.as_page(rows, "Title", "About.", "lksegment evaluate click", False, "x.png", "Caption.")
    assert "| **the model** | 0.49 (" in page and "| Region growing, same clicks | 0.30 (0.30 – 0.30) |" in page
    assert "| 10 | 0.74 | ≥ 0.86 | Region growing: 0.30 | 0.44 (" in page
    assert "1 of 7 structures. vein (01) 0.40." in page and "7 of 70 clicks" in page
    assert "manual: 7" in page and "![Masks on the images](x.png)" in page and "Agreement, not truth" in page
    lines = [*page.splitlines(), ""]
    for number, line in enumerate(lines):
        if line.startswith("|---"):
            table = lines[number - 1 : lines.index("", number)]
            assert len({row.count("|") for row in table}) == 1, "every row has as many cells as its head"
    assert "Best" not in click_report.as_page(rows, "Title", "About.", "command", True)
    kept = click_report.stored_score(rows, "cube")
    assert kept["dice"][-1] == 0.743 and kept["others"]["Region growing"] == [0.3] * 5 and kept["structures"] == 7


def test_scores_are_stored_beside_the_weights_they_were_measured_with(tmp_path) -> None:
    network = LKClick(in_channels=len(CHANNELS), feature_sizes=(8, 8, 8), depths=(1, 1, 1))
    folder = packages.save(
        tmp_path / "tiny",
        network="lk_click",
        state_dict=network.state_dict(),
        labels=[{"name": "structure"}],
        window=(16, 16, 16),
        licence="Apache-2.0",
        options={"feature_sizes": (8, 8, 8), "depths": (1, 1, 1), "in_channels": len(CHANNELS), "out_channels": 1},
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


def test_the_best_threshold_of_a_channel_is_found_and_does_not_part_equal_values() -> None:
    target = np.zeros((4, 4, 4), bool)
    target[:2] = True
    values = np.where(target, 0.7, 0.2).astype(np.float32)
    assert best_threshold_dice(values, target) == 1.0
    assert best_threshold_dice(-values, target) == pytest.approx(2 * 32 / (64 + 32)), "all is the best that is left"
    assert best_threshold_dice(np.zeros_like(values), target) == pytest.approx(2 * 32 / (64 + 32))
