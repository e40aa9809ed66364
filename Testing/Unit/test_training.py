"""Synthetic scenes and the trainer, at the smallest size that shows they work."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from LKSegmentLib.errors import InputError
from LKSegmentLib.networks.lk_click import LKClick
from LKSegmentLib.training import anatomy, appearance
from LKSegmentLib.training.click_training import ClickTrainer, Recipe, click_loss
from LKSegmentLib.training.gates import GateWatch, parameter_groups
from LKSegmentLib.training.scene_source import SceneSource
from LKSegmentLib.training.shapes import Layout
from LKSegmentLib.training.synthetic import draw_scene, draw_targets, views

SMALL = Recipe(minutes=60, window=16, late_window=24, batch=2, pool=3, scene=32, most_clicks=3)


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


def test_every_checkpoint_adds_a_line_to_the_curve(tmp_path) -> None:
    trainer = ClickTrainer(SMALL, tmp_path)
    heard: list[dict[str, float]] = []
    trainer.train(heard.append, stop_after=0.01)
    ClickTrainer.resume(tmp_path).train(heard.append, stop_after=0.01)
    lines = (tmp_path / "curve.csv").read_text().splitlines()
    assert lines[0].split(",") == list(heard[0])
    assert len(lines) == 3 and [row["steps"] for row in heard] == [1.0, 2.0]


def test_processes_draw_the_same_scenes() -> None:
    here, elsewhere = SceneSource(3, 2, 24), SceneSource(3, 2, 24, processes=1)
    try:
        for number in (0, 1):
            for (image, target), (other_image, other_target) in zip(
                here.views(number, 16), elsewhere.views(number, 16), strict=True
            ):
                np.testing.assert_array_equal(target, other_target)
                np.testing.assert_allclose(image, other_image, atol=1e-4)
    finally:
        elsewhere.close()


def test_views_show_the_target_as_a_session_would() -> None:
    filled = []
    for seed in range(12):
        scene = draw_scene(seed, 48)
        for image, target in views(scene, draw_targets(scene, seed, 4), seed, 32):
            assert image.shape == target.shape == (32, 32, 32) and np.isfinite(image).all()
            assert ndimage.label(target)[1] == 1 and target.sum() >= 40
            filled.append(max(np.ptp(np.argwhere(target), axis=0) + 1) / 32)
    assert len(filled) > 8 and 0.45 < np.median(filled) <= 1


@pytest.mark.parametrize("add", [function for function, _ in anatomy.ADDITIONS], ids=lambda function: function.__name__)
def test_every_kind_of_anatomy_adds_parts_of_known_tissue(add) -> None:
    grown = 0
    for seed in range(4):
        rng = np.random.default_rng(seed)
        layout = Layout(48, rng, torch.Generator().manual_seed(seed))
        add(layout)
        present = set(layout.parts.unique().tolist()) - {0}
        grown += len(present)
        assert present <= set(layout.wholes)
        for part in present:
            assert layout.wholes[part] in layout.groups
            assert layout.tissues.get(part, "soft") in appearance._CT
    assert grown >= 4, "it must paint something"


def test_large_kernels_learn_in_smaller_steps() -> None:
    network = LKClick(in_channels=11, feature_sizes=(8, 8, 16, 16), depths=(1, 1, 1))
    groups = parameter_groups(network)
    share_of = {parameter: group["share"] for group in groups for parameter in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters())) == len(share_of)
    gating = network.encoder[0][0].attn.spatial_gating_unit
    assert share_of[gating.spatial_se[0].weight] == 27 / 686
    assert share_of[gating.att_conv2.weight] == 27 / 343
    assert share_of[gating.channel_proj.weight] == share_of[network.stem[0].weight] == 1


def test_gates_that_were_pushed_shut_are_drawn_back() -> None:
    network = LKClick(in_channels=11, feature_sizes=(8, 8, 16, 16), depths=(1, 1, 1))
    watch = GateWatch(network)
    network(torch.randn(1, 11, 16, 16, 16))
    assert float(watch.beyond().detach()) < 1e-3, "fresh gates are half open"
    gate = network.encoder[0][0].attn.spatial_gating_unit.spatial_se[0]
    with torch.no_grad():
        gate.bias.fill_(-60.0)
    network(torch.randn(1, 11, 16, 16, 16))
    beyond = watch.beyond()
    assert 1000 < float(beyond.detach()) < 5000
    beyond.backward()
    assert (gate.bias.grad < 0).all(), "a step against the gradient opens it, where the sigmoid itself has none left"
    with torch.no_grad():
        network(torch.randn(1, 11, 16, 16, 16))
    network(torch.randn(1, 11, 16, 16, 16))
    assert np.isfinite(float(watch.beyond().detach())), "runs without gradients do not count"
