"""Synthetic scenes and the trainer, at the smallest size that shows they work."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from LKSegmentLib import packages
from LKSegmentLib.errors import InputError, RunError
from LKSegmentLib.networks.lk_click import LKClick
from LKSegmentLib.prompts import CHANNELS
from LKSegmentLib.training import anatomy, appearance, in_flight
from LKSegmentLib.training.click_export import export_package
from LKSegmentLib.training.click_training import ClickTrainer
from LKSegmentLib.training.gates import GateWatch, parameter_groups
from LKSegmentLib.training.in_flight import InFlight
from LKSegmentLib.training.losses import click_loss
from LKSegmentLib.training.optimisers import Optimisers
from LKSegmentLib.training.recipe import Recipe
from LKSegmentLib.training.replicas import Replicas
from LKSegmentLib.training.shapes import Layout
from LKSegmentLib.training.synthetic import draw_scene, draw_targets, views
from LKSegmentLib.training.turning import Turn

SMALL = Recipe(minutes=60, windows=((0.8, 16), (0.2, 24)), batch=2, pool=3, scene=32, most_clicks=3)


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
    losses = [trainer.step() for _ in range(4)]
    assert all(np.isfinite(losses))
    changed = [name for name, value in trainer.network.state_dict().items() if not torch.equal(value, before[name])]
    assert set(changed) == set(before), "every parameter must learn"
    trainer.seconds = 1800.0
    trainer.save()
    again = ClickTrainer.resume(tmp_path, minutes=90)
    assert (again.steps, again.scenes, again.seconds) == (trainer.steps, trainer.scenes, 1800.0)
    assert again.recipe.minutes == 90 and again.recipe.windows == SMALL.windows
    for name, value in trainer.average.state_dict().items():
        assert torch.equal(value, again.average.state_dict()[name])
    assert np.isfinite(again.step())


def test_a_gradient_that_is_not_finite_changes_nothing(tmp_path) -> None:
    trainer = ClickTrainer(SMALL, tmp_path)
    trainer.step()
    with torch.no_grad():
        trainer.network.head[0].bias.fill_(float("nan"))
    kept = {name: value.clone() for name, value in trainer.average.state_dict().items()}
    assert trainer.step() == 0.0 and trainer.skipped == 1
    assert all(torch.equal(value, kept[name]) for name, value in trainer.average.state_dict().items())
    trainer._skipped_in_a_row = 20
    with pytest.raises(RunError, match="not finite"):
        trainer.step()


def _tell_the_mean(folder: Path, replicas: Replicas) -> None:
    np.save(folder / f"{replicas.rank}.npy", replicas.mean(torch.tensor([replicas.rank + 1.0, 10.0])).numpy())


def test_replicas_get_the_mean_in_a_folder_with_a_space_too(tmp_path, monkeypatch) -> None:
    spaced = tmp_path / "temporary files"
    spaced.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(spaced))
    threads = torch.get_num_threads()
    replicas = Replicas.lead(3, partial(_tell_the_mean, tmp_path))
    try:
        assert torch.get_num_threads() == 1
        mean = replicas.mean(torch.tensor([1.0, 10.0]))
        for process in replicas._others:
            process.join()
    finally:
        replicas.close()
    assert mean.tolist() == [2.0, 10.0]
    for rank in (1, 2):
        assert np.load(tmp_path / f"{rank}.npy").tolist() == [2.0, 10.0]
    assert torch.get_num_threads() == threads and not list(spaced.iterdir())


def test_a_checkpoint_of_another_version_is_one_sentence(tmp_path) -> None:
    trainer = ClickTrainer(SMALL, tmp_path)
    trainer.save()
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    torch.save(state | {"recipe": {"window": 48}}, tmp_path / "checkpoint.pt")
    with pytest.raises(InputError, match="another version"):
        ClickTrainer.resume(tmp_path)


def test_who_goes_on_draws_other_scenes(tmp_path, monkeypatch) -> None:
    drawn: list[int] = []
    draw = in_flight.views_of_scene

    def noted(seed: int, number: int, *others: int) -> list:
        drawn.append(number)
        return draw(seed, number, *others)

    monkeypatch.setattr(in_flight, "views_of_scene", noted)
    trainer = ClickTrainer(SMALL, tmp_path)
    trainer.step()
    trainer.step()
    trainer.save()
    assert trainer.scenes == len(drawn) > 0
    again = ClickTrainer.resume(tmp_path, replicas=1)
    again.step()
    assert len(set(drawn)) == len(drawn) > trainer.scenes and again.scenes == len(drawn)


def test_two_replicas_step_as_one(tmp_path) -> None:
    trainer = ClickTrainer(replace(SMALL, replicas=2), tmp_path)
    alone = ClickTrainer(SMALL, tmp_path / "alone")
    try:
        trainer.train(stop_after=0.01)
        alone.train(stop_after=0.01)
        assert trainer.steps == alone.steps == 1
        (other,) = trainer._replicas._others
        assert other.is_alive()
        moved = [
            float((mine - theirs).detach().abs().max())
            for mine, theirs in zip(trainer.network.parameters(), alone.network.parameters(), strict=True)
        ]
        assert max(moved) > 0, "the other replica's windows must count"
        other.terminate()
        other.join()
        with pytest.raises(RunError, match="ended unexpectedly"):
            trainer.step()
    finally:
        trainer.close()
    assert not other.is_alive()
    resumed = ClickTrainer.resume(tmp_path)
    try:
        resumed.train(stop_after=0.01)
    finally:
        resumed.close()
    assert resumed.steps == 2


def test_the_windows_grow_as_the_recipe_says() -> None:
    assert [SMALL.window_at(progress) for progress in (0, 0.79, 0.81, 1)] == [16, 16, 24, 24]


def test_a_training_begins_with_the_weights_of_a_model_that_knew_fewer_channels(tmp_path) -> None:
    sizes = {"feature_sizes": [8, 16, 16], "depths": [1, 1, 1]}
    torch.manual_seed(1)
    earlier = LKClick(in_channels=len(CHANNELS) - 1, **sizes).eval()
    trainer = ClickTrainer(replace(SMALL, network=sizes), tmp_path, weights=earlier.half().state_dict())
    inputs = torch.randn(1, len(CHANNELS), 16, 16, 16)
    with torch.no_grad():
        before, now = earlier.float()(inputs[:, :-1]), trainer.network.eval()(inputs)
    torch.testing.assert_close(now, before, rtol=1e-4, atol=1e-5, msg="a channel that is not heard changes nothing")
    trainer.network.train()
    assert np.isfinite([trainer.step() for _ in range(2)]).all()
    assert trainer.network.down[0][0].weight[:, -1].abs().max() > 0, "the new channel is learnt"
    with pytest.raises(InputError, match="another design"):
        ClickTrainer(SMALL, tmp_path, weights=earlier.state_dict())


def test_replicas_begin_with_the_weights_too(tmp_path) -> None:
    sizes = {"feature_sizes": [8, 16, 16], "depths": [1, 1, 1]}
    torch.manual_seed(2)
    recipe = replace(SMALL, replicas=2, network=sizes)
    trainer = ClickTrainer(recipe, tmp_path, weights=LKClick(**sizes).state_dict())
    told: list[dict] = []
    try:
        trainer.train(stop_after=0.01)
        told.append(torch.load(tmp_path / "checkpoint.pt", weights_only=True)["network"])
    finally:
        trainer.close()
    plain = ClickTrainer(recipe, tmp_path / "plain")
    key = "down.0.0.weight"
    assert trainer.steps == 1 and (told[0][key] - plain.network.state_dict()[key]).abs().max() > 0.01


def test_half_precision_trains_on_a_processor(tmp_path) -> None:
    trainer = ClickTrainer(replace(SMALL, precision="bfloat16"), tmp_path)
    losses = [trainer.step() for _ in range(3)]
    assert np.isfinite(losses).all() and trainer.skipped == 0
    assert all(parameter.dtype == torch.float32 for parameter in trainer.network.parameters())


def test_channel_mixing_weights_move_by_orthogonal_steps_and_the_others_by_adams() -> None:
    torch.manual_seed(0)
    network = LKClick(feature_sizes=(8, 16, 16), depths=(1, 1, 1))
    optimisers = Optimisers(network, learning_rate=0.01, weight_decay=0.0)
    weight, depthwise = network.fuse_half.weight, network.encoder[1][0].mlp.dwconv.weight
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network(torch.randn(1, 12, 16, 16, 16)).square().mean().backward()
    optimisers.step()
    steps = {name: value - before[name] for name, value in network.state_dict().items()}
    assert all(step.abs().max() > 0 for step in steps.values()), "each parameter belongs to one of them"
    spread = torch.linalg.svdvals(steps["fuse_half.weight"].flatten(1))
    assert spread.min() > 0.4 * spread.max(), "all directions alike"
    assert weight.data_ptr() in {matrix.data_ptr() for matrix in optimisers._matrices}
    moved = steps["encoder.1.0.mlp.dwconv.weight"].abs()
    assert depthwise.grad is not None and moved.median() == pytest.approx(0.01, rel=0.05), "Adam's first step"
    optimisers.zero_grad()
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_target_at_the_wrong_scale_is_left_after_a_few_clicks() -> None:
    rng = np.random.default_rng(0)
    fitting, small, cut = (np.zeros((20, 20, 20), bool) for _ in range(3))
    fitting[4:16, 9:12, 9:12] = small[8:12, 8:12, 8:12] = cut[:, 5:9, 5:9] = True
    recipe = Recipe(most_clicks=10, all_clicks_share=0.5, most_clicks_off_scale=4)
    many = [recipe.clicks_on(fitting, rng) for _ in range(400)]
    assert set(many) == set(range(1, 11)) and 0.45 < np.mean(np.equal(many, 10)) < 0.65
    for target in (small, cut):
        assert {recipe.clicks_on(target, rng) for _ in range(100)} == {1, 2, 3, 4}


def test_a_cube_lies_in_48_ways_and_comes_back() -> None:
    cubes = torch.arange(2 * 27.0).reshape(1, 2, 3, 3, 3)
    turns = {Turn.draw(np.random.default_rng(seed)) for seed in range(600)}
    assert len(turns) == 48 == len({tuple(turn.apply(cubes).flatten().tolist()) for turn in turns})
    assert all(torch.equal(turn.undo(turn.apply(cubes)), cubes) for turn in turns)


def test_the_next_click_is_placed_where_the_answer_lies_not_where_it_was_turned_to(tmp_path, monkeypatch) -> None:
    heard: list[tuple[np.ndarray, np.ndarray]] = []
    monkeypatch.setattr(InFlight, "advance", lambda item, mask: bool(heard.append((item.channels.array[0], mask))))
    trainer = ClickTrainer(replace(SMALL, batch=1), tmp_path)
    first = trainer.network.head[0].bias
    monkeypatch.setattr(trainer.network, "forward", lambda inputs, judged: (inputs[:, :1] * first[0], None))
    with torch.no_grad():
        trainer.network.head[0].bias.fill_(1.0)
    monkeypatch.setattr(trainer._gates, "beyond", lambda: torch.zeros(()))
    trainer.step()
    image, mask = heard[0]
    np.testing.assert_array_equal(mask, image > 0)


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


def test_views_show_the_target_as_a_session_would() -> None:
    filled = []
    for seed in range(12):
        scene = draw_scene(seed, 48)
        for view in views(scene, draw_targets(scene, seed, 4), seed, 32):
            image, target = view.image, view.target
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
    network = LKClick(in_channels=11, feature_sizes=(8, 16, 16), depths=(1, 1, 1))
    groups = parameter_groups(network)
    share_of = {parameter: group["share"] for group in groups for parameter in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters())) == len(share_of)
    gating = network.encoder[1][0].attn.spatial_gating_unit
    assert share_of[gating.spatial_se[0].weight] == 27 / 686
    assert share_of[gating.att_conv2.weight] == 27 / 343
    assert share_of[gating.channel_proj.weight] == share_of[network.down[0][0].weight] == 1


def test_gates_that_were_pushed_shut_are_drawn_back() -> None:
    network = LKClick(in_channels=11, feature_sizes=(8, 16, 16), depths=(1, 1, 1))
    watch = GateWatch(network)
    network(torch.randn(1, 11, 16, 16, 16))
    assert float(watch.beyond().detach()) < 1e-3, "fresh gates are half open"
    gate = network.encoder[1][0].attn.spatial_gating_unit.spatial_se[0]
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


def test_where_no_other_replica_starts_there_is_nothing_to_resume(tmp_path, monkeypatch) -> None:
    def refused(count: int, begin: object) -> Replicas:
        raise InputError("This build of PyTorch cannot train in several processes; train with one replica.")

    monkeypatch.setattr(Replicas, "lead", refused)
    trainer = ClickTrainer(replace(SMALL, replicas=2), tmp_path)
    with pytest.raises(InputError, match="one replica"):
        trainer.train()
    assert not (tmp_path / "checkpoint.pt").exists()


def test_a_model_that_began_with_another_keeps_its_licence_and_history(tmp_path) -> None:
    sizes = {"feature_sizes": [8, 16, 16], "depths": [1, 1, 1]}
    origin = {"weights_sha256": "ab" * 32, "trained_on": "Images of a hospital.", "licence": "CC-BY-NC-4.0"}
    trainer = ClickTrainer(replace(SMALL, network=sizes, started_from=origin), tmp_path)
    manifest = packages.read_manifest(export_package(trainer, tmp_path / "package"))
    assert manifest.licence == "CC-BY-NC-4.0"
    assert manifest.trained_on.startswith("This training: Synthetic") and "Images of a hospital." in manifest.trained_on
    assert manifest.extra["recipe"]["started_from"] == origin


def test_training_needs_a_pytorch_with_muon(tmp_path, monkeypatch) -> None:
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(InputError, match=r"PyTorch 2\.9 or newer"):
        ClickTrainer(SMALL, tmp_path)
