"""The tests of a map, on models whose answer is known to hang on known voxels and known weights."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from inspection_support import FakePackage, oblique_volume, plain_volume, tiny
from scipy.stats import spearmanr
from test_inspection import oblique_volume as click_volume
from test_inspection import random_session
from torch import nn

from LKSegmentLib.errors import InputError
from LKSegmentLib.inspection import Map
from LKSegmentLib.inspection.deletion_insertion import STEPS, THIS, area, deletion_insertion
from LKSegmentLib.inspection.examined import Answer, ClickedWindow, ExaminedWindow, Reading, VolumeWindow
from LKSegmentLib.inspection.faithfulness import measure, verdict
from LKSegmentLib.inspection.volume_maps import inspect_volume
from LKSegmentLib.inspection.weight_randomisation import rank_correlation, weight_randomisation
from LKSegmentLib.prompts import Point
from LKSegmentLib.volumes import Grid, Volume

EDGE = 24


class Toy(nn.Module):
    """A learnt layer, a layer that ignores its weights, and a head: yes where the smooth image is bright."""

    def __init__(self) -> None:
        super().__init__()
        self.learnt = nn.Conv3d(1, 1, 5, padding=2, bias=False)
        self.fixed = nn.Identity()
        self.head = nn.Conv3d(1, 1, 3, padding=1, bias=False)
        with torch.no_grad():
            # A slope: shuffled, it answers to something else.
            self.learnt.weight.copy_(torch.linspace(-1, 1, 125).view(1, 1, 5, 5, 5))
            self.head.weight.zero_()
            self.head.weight[0, 0, 1, 1, 1] = 8

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.learnt(x)
        self.fixed(torch.arange(x.shape[-1], dtype=torch.float32).expand(x.shape))
        return self.head(x - 0.5)


class ToyWindow(ExaminedWindow):
    """A bright ball off the middle, in weak noise."""

    def __init__(self) -> None:
        self.manifest = SimpleNamespace(name="toy", network="toy", out_channels=1)  # type: ignore[assignment]
        self.network = Toy().eval()
        self.grid = Grid((EDGE,) * 3, np.diag([1.0, 1.0, 2.0, 1.0]))
        k, j, i = np.indices((EDGE,) * 3)
        self.ball = (k - 9) ** 2 + (j - 15) ** 2 + (i - 14) ** 2 < 25
        noise = 0.2 * np.random.default_rng(0).normal(size=self.ball.shape)
        self.image = (self.ball + noise).astype(np.float32)[np.newaxis]
        self.label = "ball"

    def inputs(self, image: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(image))[None]

    def answer(self, logits: torch.Tensor) -> Answer:
        return Answer(torch.sigmoid(logits[0]).numpy(), (logits[0] > 0).numpy())

    def reading(self, name: str) -> Reading:
        return Reading(name, (name,), lambda outputs, logits: outputs[name][0, 0], 1, 0.0, {"neutral": 0.5})

    def middle(self, answer: Answer) -> np.ndarray:
        return self.grid.ras_of((14, 15, 9))[np.newaxis]


def on(window: ExaminedWindow, values: np.ndarray, name: str, **passport: object) -> Map:
    return Map(name, Volume(values.astype(np.float32), window.grid.ijk_to_ras), {"neutral": 0.5, **passport})


@pytest.fixture(scope="module")
def window() -> ToyWindow:
    return ToyWindow()


def test_a_map_of_what_matters_beats_chance_and_its_opposite_does_not(window: ToyWindow) -> None:
    good = on(window, window.ball, "the ball")
    bad = on(window, ~window.ball, "all but the ball")
    signed = on(window, -2.0 * window.ball + 0.1, "by size", neutral=0.0)
    curves = {found.map: found for found in deletion_insertion(window, [good, bad, signed])}
    chance = [curves["the ball"].score(order, "probability") for order in curves["the ball"].random_orders]
    assert len(set(chance)) == 3, "the seeds differ"
    for name, sign in (("the ball", 1), ("all but the ball", -1), ("by size", 1)):
        assert sign * (curves[name].score(THIS, "probability") - np.mean(chance)) > 0.2, name
    # Removing the ball first ends the answer as soon as the ball is gone; the first and last values are the same.
    deletion = curves["the ball"].deletion
    share = window.ball.mean()
    assert STEPS[1] > share and deletion[THIS]["Dice"][0] == 1.0 and deletion[THIS]["Dice"][1] < 0.5
    for order in deletion:
        assert deletion[order]["Dice"][0] == 1.0
        assert deletion[order]["probability"][-1] == deletion[THIS]["probability"][-1]
        assert curves["the ball"].insertion[order]["Dice"][-1] == 1.0
    # The probability at the last step is that of the blur alone, measured by hand.
    from LKSegmentLib.inspection.deletion_insertion import blurred

    blank = window.asked(blurred(window.image)).probability
    untouched = window.asked(window.image).mask
    assert deletion[THIS]["probability"][-1] == pytest.approx(blank[untouched].mean(), abs=1e-6)
    table = curves["the ball"].tables()[0]
    assert table.x == "removed (%)" and table.y[0] == THIS and len(table.rows) == len(STEPS)


def test_every_order_removes_the_same_number_of_the_same_blocks(window: ToyWindow) -> None:
    """A map of 4³ blocks: whatever the order, each step alters as many voxels, in whole blocks."""
    coarse = Grid((6, 6, 6), window.grid.ijk_to_ras @ np.array(
        [[4, 0, 0, 1.5], [0, 4, 0, 1.5], [0, 0, 4, 1.5], [0, 0, 0, 1]]
    ))  # fmt: skip
    values = np.random.default_rng(3).normal(size=(6, 6, 6)).astype(np.float32)
    seen: list[np.ndarray] = []
    asked = window.asked

    class Watched(ToyWindow):
        def asked(self, image: np.ndarray) -> Answer:
            seen.append(np.array(image[0]))
            return asked(image)

    watched = Watched()
    found = deletion_insertion(watched, [Map("coarse", Volume(values, coarse.ijk_to_ras), {"neutral": 0.5})], (0, 1))[0]
    assert found.places == (216, EDGE**3)
    counts = []
    for image in seen:
        altered = image != window.image[0]
        blocks = altered.reshape(6, 4, 6, 4, 6, 4).mean((1, 3, 5))
        assert set(np.unique(blocks)) <= {0.0, 1.0}
        counts.append(int(blocks.sum()))
    inner = [round(step * 216) for step in STEPS[1:-1]]
    # The whole image once, both ends once for each direction, and all orders the same steps in between.
    both = sorted([*inner, *(216 - count for count in inner)] * 5)
    assert sorted(counts) == sorted([0, 0, 216, 216, 0, *both])


def test_area_is_that_of_trapezoids() -> None:
    assert area([1.0] * len(STEPS)) == pytest.approx(1.0)
    assert area([1 - step for step in STEPS]) == pytest.approx(0.5)


def test_bad_requests_are_sentences(window: ToyWindow) -> None:
    good = on(window, window.ball, "the ball")
    with pytest.raises(InputError, match="two seeds"):
        deletion_insertion(window, [good], (0,))
    moved = Map("far", good.volume.transformed(np.array(
        [[1, 0, 0, 500], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])), {})  # fmt: skip
    with pytest.raises(InputError, match="covers nothing"):
        deletion_insertion(window, [moved])
    empty = ToyWindow()
    empty.image = np.zeros_like(empty.image)
    with pytest.raises(InputError, match="empty"):
        deletion_insertion(empty, [good])


def test_shuffling_weights_tells_what_was_learnt_from_what_was_not(window: ToyWindow) -> None:
    before = {name: value.clone() for name, value in window.network.state_dict().items()}
    learnt, fixed = weight_randomisation(window, ["learnt", "fixed"])
    assert fixed.final == pytest.approx(1.0), "it does not depend on any weight"
    assert learnt.final is not None and learnt.final < 0.5
    steps = learnt.table
    assert steps.column("shuffled in this step") == ["nothing", "head", "learnt"], "from the last layer to the first"
    assert steps.column("size of the rank correlation")[1] == pytest.approx(1.0), "what runs later changes nothing"
    assert steps.column("weights shuffled (%)")[-1] == 100.0
    for name, value in window.network.state_dict().items():
        assert torch.equal(value, before[name])


def test_rank_correlation_is_spearmans_and_undefined_for_constants() -> None:
    first, second = np.random.default_rng(0).normal(size=(2, 4, 5, 6)).astype(np.float32).round(1)
    assert rank_correlation(first, second) == pytest.approx(spearmanr(first.ravel(), second.ravel()).statistic)
    assert rank_correlation(first, np.zeros_like(first)) is None
    assert rank_correlation(first, np.full_like(first, np.nan)) is None


def test_both_tests_together_give_a_sentence(window: ToyWindow) -> None:
    seen: list[float] = []
    found = measure([window, window], ["learnt", "fixed"], progress=lambda stage, fraction: seen.append(fraction))
    assert [entry.map for entry in found] == ["learnt", "fixed"]
    assert seen == sorted(seen) and seen[-1] == pytest.approx(1.0)
    assert found[1].scores["places"] == 2 and len(found[1].tables) == 2 * 5
    assert len({table.name for entry in found for table in entry.tables}) == 20
    assert "keeps its pattern" in found[1].sentence and "as it should" in found[0].sentence


def scores(own: float, edges: float, near: float, **more: object) -> dict[str, object]:
    def both(value: float) -> dict[str, float]:
        return {"probability": value, "Dice": value}

    return {
        "this map": both(own), "edge strength": both(edges), "nearness": both(near), "random": both(0.0),
        "random, standard deviation": both(0.02), "span": both(0.6), "rank correlation with shuffled weights": 0.1,
        **more,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (scores(0.5, 0.2, 0.3), "beats random order, edge strength and plain nearness"),
        (scores(0.5, 0.2, 0.6), "beats random order and edge strength, but not plain nearness: treat it as decoration"),
        (scores(0.5, 0.6, 0.6), "beats random order, but not edge strength or plain nearness"),
        (scores(0.03, -0.2, -0.2), "does not beat a random one"),
        (scores(-0.3, 0.0, 0.0), "ranks low matter more"),
        (scores(0.5, 0.2, 0.2, span={"probability": 0.02, "Dice": 0.5}), "hardly changes when all"),
        (scores(0.5, 0.2, 0.3) | {"this map": {"probability": 0.5, "Dice": 0.0}}, "does not beat a random one"),
        (scores(0.5, 0.2, 0.3) | {"rank correlation with shuffled weights": 0.8}, "keeps its pattern"),
        (scores(0.5, 0.2, 0.3) | {"rank correlation with shuffled weights": None}, "same everywhere"),
    ],
)
def test_the_sentence_says_what_the_scores_say(given: dict[str, object], words: str) -> None:
    assert words in verdict(given)


def test_a_clicked_window_gives_the_network_what_the_click_gave_it() -> None:
    volume = click_volume((40, 56, 60))
    session = random_session(volume)
    session.package.manifest.out_channels = 1
    points = [Point(tuple(volume.grid.ras_of((30, 28, 20)))), Point(tuple(volume.grid.ras_of((22, 30, 18))), False)]
    window = ClickedWindow(session, points)
    expected = session.inputs_for(points)
    np.testing.assert_allclose(window.inputs(window.image)[0].numpy(), expected, atol=1e-6)
    assert expected[4].any(), "the previous mask is part of it"
    name = "near-kernel gate, encoder 1/4"
    from LKSegmentLib.inspection.click_maps import click_maps

    ours, theirs = window.maps([name])[0], click_maps(session, points, [name])[0]
    np.testing.assert_allclose(ours.volume.array, theirs.volume.array, atol=1e-5)
    assert ours.volume.grid.matches(theirs.volume.grid)
    with pytest.raises(InputError, match="lk_click shows"):
        window.maps(["heat"])


def test_a_volume_window_shows_the_map_that_inspection_shows() -> None:
    package = FakePackage("dnet", tiny("dnet"))
    volume = plain_volume((32, 32, 32))
    name = "fusion gate, decoder 1/1"
    window = VolumeWindow(volume, package, device="cpu", label=1)
    shown = inspect_volume(volume, package, [name], "cpu")[1][0]
    ours = window.maps([name])[0]
    np.testing.assert_allclose(ours.volume.array, shown.volume.array, atol=1e-4)
    assert ours.volume.grid.matches(shown.volume.grid)
    assert window.label == "organ"
    with pytest.raises(InputError, match="one number for a whole window"):
        window.maps(["skip share, decoder 1/1"])
    with pytest.raises(InputError, match="is gradient-based; only maps recorded"):
        window.maps(["class activation, organ"])
    attention = VolumeWindow(volume, FakePackage("lka_unet", tiny("lka_unet")), device="cpu", label=1)
    with pytest.raises(InputError, match="is a table"):
        attention.maps(["LK attention by label, level 2"])
    with pytest.raises(InputError, match="no label 7"):
        VolumeWindow(volume, package, device="cpu", label=7)
    with pytest.raises(InputError, match="outside the volume"):
        VolumeWindow(volume, package, (900.0, 0.0, 0.0), "cpu")


def test_an_oblique_volume_of_several_windows_is_examined_where_the_place_is() -> None:
    package = FakePackage("dnet", tiny("dnet"), (16, 16, 16))
    volume = oblique_volume((20, 24, 22))
    place = volume.grid.ras_of((4, 20, 15))
    window = VolumeWindow(volume, package, place, "cpu")
    assert window.grid.contains(place) and window.grid.shape == (16, 16, 16)
    found = deletion_insertion(window, window.maps(["fusion gate, decoder 1/1"]), (0, 1))[0]
    assert found.places == (16**3, 16**3)
