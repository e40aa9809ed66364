"""Synthetic scenes and the trainer, at the smallest size that shows they work."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from LKSegmentLib.errors import InputError
from LKSegmentLib.training.click_training import ClickTrainer, Recipe, click_loss
from LKSegmentLib.training.synthetic import draw_scene, draw_targets

SMALL = Recipe(minutes=60, window=16, late_window=24, batch=2, pool=3, most_clicks=3)


def test_scenes_are_the_same_for_the_same_seed_and_differ_otherwise() -> None:
    one, same, other = draw_scene(7, 24), draw_scene(7, 24), draw_scene(8, 24)
    np.testing.assert_array_equal(one.image, same.image)
    np.testing.assert_array_equal(one.parts, same.parts)
    assert not np.array_equal(one.image, other.image)
    assert one.image.shape == (24, 24, 24) and one.image.dtype == np.float32


def test_scenes_are_usable_and_targets_are_single_pieces() -> None:
    found = 0
    for seed in range(25):
        scene = draw_scene(seed, 24)
        assert np.isfinite(scene.image).all() and scene.image.std() > 0
        assert set(np.unique(scene.parts)) <= set(scene.wholes)
        for target in draw_targets(scene, seed, 3):
            found += 1
            assert ndimage.label(target)[1] == 1
            assert 40 <= target.sum() <= 0.4 * target.size
            assert not np.isin(scene.parts[target], list(scene.between)).any()
    assert found > 30


def test_training_learns_and_resumes(tmp_path) -> None:
    torch.manual_seed(0)
    trainer = ClickTrainer(SMALL, tmp_path)
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    losses = [trainer._step() for _ in range(4)]
    assert all(np.isfinite(losses))
    changed = [name for name, value in trainer.network.state_dict().items() if not torch.equal(value, before[name])]
    assert set(changed) == set(before), "every parameter must learn"
    trainer.seconds = 1800.0
    trainer.save()
    again = ClickTrainer.resume(tmp_path, minutes=90)
    assert (again.steps, again.scenes, again.seconds) == (trainer.steps, trainer.scenes, 1800.0)
    assert again.recipe.minutes == 90 and again.recipe.window == SMALL.window
    for name, value in trainer.average.state_dict().items():
        assert torch.equal(value, again.average.state_dict()[name])
    assert np.isfinite(again._step())


def test_there_is_nothing_to_resume_in_an_empty_folder(tmp_path) -> None:
    with pytest.raises(InputError, match="nothing to resume"):
        ClickTrainer.resume(tmp_path)


def test_the_loss_prefers_the_right_mask() -> None:
    target = torch.zeros(1, 1, 8, 8, 8)
    target[..., 2:6] = 1
    right = click_loss(20 * target - 10, target)
    assert right < 0.01 < click_loss(torch.zeros_like(target), target) < click_loss(10 - 20 * target, target)
