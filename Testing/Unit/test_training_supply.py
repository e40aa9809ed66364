"""Where a trainer's windows come from: its own pool, or other processes; and the judgement that it learns beside."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from LKSegmentLib import packages
from LKSegmentLib.errors import InputError, RunError
from LKSegmentLib.networks.lk_click import LKClick
from LKSegmentLib.prompts import CHANNELS
from LKSegmentLib.training.beginning import begin_with
from LKSegmentLib.training.click_export import export_package
from LKSegmentLib.training.click_training import ClickTrainer
from LKSegmentLib.training.losses import judgement_loss
from LKSegmentLib.training.preparers import Preparers
from LKSegmentLib.training.recipe import Recipe
from LKSegmentLib.training.supply import Pool
from LKSegmentLib.training.synthetic import draw_scene, draw_targets, views

SIZES = {"feature_sizes": [8, 16, 16], "depths": [1, 1, 1], "tells_dice": True}
SMALL = Recipe(minutes=60, windows=((1.0, 16),), batch=2, pool=3, scene=32, most_clicks=3, network=SIZES)
CPU = torch.device("cpu")


def test_windows_prepared_elsewhere_are_those_prepared_here() -> None:
    recipe = replace(SMALL, preparers=1, batch=3)
    rng = np.random.default_rng(0)
    here = Pool(recipe, 16, iter(range(100, 200)))
    elsewhere = Preparers(recipe, 16, 100)
    try:
        for click in range(3):
            mine, theirs = here.draw(3, rng, CPU), elsewhere.draw(3, rng, CPU)
            mine_order = np.argsort([float(window[0].double().sum()) for window in mine.inputs])
            their_order = np.argsort([float(window[0].double().sum()) for window in theirs.inputs])
            for one, other in zip(mine_order, their_order, strict=True):
                torch.testing.assert_close(theirs.inputs[other], mine.inputs[one], rtol=1e-3, atol=1e-3)
                torch.testing.assert_close(theirs.targets[other], mine.targets[one])
                torch.testing.assert_close(theirs.voxels[other], mine.voxels[one])
            assert click == 0 or float(mine.inputs[:, CHANNELS.index("previous mask")].sum()) > 0
            here.answer(mine, _shrunk(mine.targets))
            elsewhere.answer(theirs, _shrunk(theirs.targets))
            if len(here._in_flight) < 3:
                break
        assert here.scenes_drawn() >= 1 and elsewhere.scenes_drawn() >= 1
        assert here.scenes_drawn() == 0
    finally:
        elsewhere.close()


def _shrunk(targets: torch.Tensor) -> np.ndarray:
    masks = targets[:, 0].numpy() > 0
    return masks & np.roll(masks, 1, axis=1)


def test_a_target_without_a_usable_answer_is_left() -> None:
    supply = Preparers(replace(SMALL, preparers=1, batch=3), 16, 0)
    rng = np.random.default_rng(0)
    try:
        first = supply.draw(3, rng, CPU)
        supply.answer(first, None)
        second = supply.draw(3, rng, CPU)
    finally:
        supply.close()
    sums = {round(float(window[0].sum()), 3) for window in first.inputs}
    assert sums.isdisjoint({round(float(window[0].sum()), 3) for window in second.inputs})


def test_a_trainer_with_preparers_learns_goes_on_and_notices_that_one_ended(tmp_path) -> None:
    trainer = ClickTrainer(replace(SMALL, preparers=2), tmp_path)
    try:
        assert np.isfinite([trainer.step() for _ in range(3)]).all()
        assert trainer.scenes > 0
        trainer.save()
        supply = trainer._supply
        assert isinstance(supply, Preparers)
        processes = list(supply._processes)
        for process in processes:
            process.terminate()
            process.join()
        with pytest.raises(RunError, match="prepare windows ended unexpectedly"):
            for _ in range(20):
                trainer.step()
    finally:
        trainer.close()
    resumed = ClickTrainer.resume(tmp_path)
    try:
        assert resumed.recipe.preparers == 2 and np.isfinite(resumed.step())
    finally:
        resumed.close()


def test_a_view_knows_how_much_of_the_structure_lies_outside() -> None:
    whole = cut = 0
    for seed in range(12):
        scene = draw_scene(seed, 32)
        for view in views(scene, draw_targets(scene, seed, 4), seed, 16):
            seen = float(np.count_nonzero(view.target))
            touches = any(np.take(view.target, index, axis).any() for axis in range(3) for index in (0, -1))
            assert view.voxels >= seen
            whole += not touches and view.voxels < 1.6 * seen
            cut += touches and view.voxels > 1.6 * seen
    assert whole > 5 and cut > 2


def test_the_judgement_is_taught_the_dice_with_the_whole_structure() -> None:
    logits, targets = torch.full((2, 1, 4, 4, 4), -9.0), torch.zeros(2, 1, 4, 4, 4)
    targets[:, :, :2] = 1
    logits[:, :, :2] = 9.0  # both masks are right in the window; of the second structure, most lies outside
    voxels = torch.tensor([32.0, 96.0])

    def loss(*told: float) -> float:
        return float(judgement_loss(torch.logit(torch.tensor(told)), logits, targets, voxels))

    assert loss(0.99, 0.5) < min(loss(0.99, 0.4), loss(0.99, 0.6), loss(0.9, 0.5), loss(0.5, 0.99))


def test_the_judgement_learns_and_is_exported(tmp_path) -> None:
    trainer = ClickTrainer(SMALL, tmp_path)
    before = {name: value.clone() for name, value in trainer.network.judgement.state_dict().items()}
    trainer.step()
    changed = trainer.network.judgement.state_dict()
    assert all(not torch.equal(value, changed[name]) for name, value in before.items())
    network = packages.load(export_package(trainer, tmp_path / "package")).network("cpu")
    inputs = torch.randn(2, len(CHANNELS), 16, 16, 16)
    with torch.inference_mode():
        logits, judgement = network.answer(inputs)
        torch.testing.assert_close(network(inputs), logits)
    assert judgement.shape == (2,) and torch.isfinite(judgement).all()


def test_a_deeper_network_begins_as_the_earlier_one(tmp_path) -> None:
    torch.manual_seed(3)
    earlier = LKClick(feature_sizes=(8, 16, 16), depths=(1, 1, 1)).eval()
    deeper = LKClick(feature_sizes=(8, 16, 16), depths=(1, 2, 3), tells_dice=True).eval()
    begin_with(deeper, earlier.half().state_dict())
    inputs = torch.randn(1, len(CHANNELS), 16, 16, 16)
    with torch.no_grad():
        before, now = earlier.float()(inputs), deeper(inputs)
    assert float((now - before).abs().max()) < 0.25 * float(before.std()), "added blocks are hardly heard"
    assert float((now - before).abs().max()) > 0
    with pytest.raises(InputError, match="another design"):
        begin_with(LKClick(feature_sizes=(8, 16, 16), depths=(1, 1, 1)), deeper.state_dict())


def test_the_expected_dice_is_of_one_output() -> None:
    with pytest.raises(InputError, match="one output only"):
        LKClick(out_channels=2, tells_dice=True)
    network = LKClick(feature_sizes=(8, 16, 16), depths=(1, 1, 1))
    assert network.answer(torch.randn(1, 12, 16, 16, 16))[1] is None
