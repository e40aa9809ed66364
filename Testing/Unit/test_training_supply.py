"""Where a trainer's windows come from: its own pool, or other processes; and the judgement that it learns beside."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from LKSegmentLib import packages
from LKSegmentLib.cli.main import main
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
    # Every target takes all its clicks, so that the three stay the same for as many rounds.
    recipe = replace(SMALL, preparers=1, batch=3, most_clicks=5, all_clicks_share=1.0, on_scale=(0.0, 1.0))
    rng = np.random.default_rng(0)
    here = Pool(recipe, 16, iter(range(100, 200)))
    elsewhere = Preparers(recipe, 16, 100)
    try:
        for click in range(3):
            mine, theirs = here.draw(3, rng, CPU), elsewhere.draw(3, rng, CPU)
            assert (click > 0) == bool(mine.inputs[:, CHANNELS.index("previous mask")].any())
            by_image = [np.argsort([float(one[0].double().sum()) for one in some.inputs]) for some in (mine, theirs)]
            for one, other in zip(*by_image, strict=True):
                torch.testing.assert_close(theirs.inputs[other], mine.inputs[one], rtol=1e-3, atol=1e-3)
                torch.testing.assert_close(theirs.targets[other], mine.targets[one])
                torch.testing.assert_close(theirs.voxels[other], mine.voxels[one])
            here.answer(mine, _shrunk(mine.targets))
            elsewhere.answer(theirs, _shrunk(theirs.targets))
        assert here.scenes_drawn() >= 1 and elsewhere.scenes_drawn() >= 1
        assert here.scenes_drawn() == 0
    finally:
        elsewhere.close()


def _shrunk(targets: torch.Tensor) -> np.ndarray:
    masks = targets[:, 0].numpy() > 0
    return masks & np.roll(masks, 1, axis=1)


@pytest.mark.parametrize("supply", [Preparers, Pool])
def test_a_target_without_a_usable_answer_is_left(supply: type) -> None:
    recipe = replace(SMALL, preparers=1, batch=3)
    windows = supply(recipe, 16, 0 if supply is Preparers else itertools.count())
    rng = np.random.default_rng(0)
    try:
        first = windows.draw(3, rng, CPU)
        windows.answer(first, None)
        second = windows.draw(3, rng, CPU)
    finally:
        windows.close()
    sums = {round(float(window[0].sum()), 2) for window in first.inputs}
    assert sums.isdisjoint({round(float(window[0].sum()), 2) for window in second.inputs})


def test_a_trainer_with_preparers_learns_goes_on_and_notices_that_one_ended(tmp_path) -> None:
    trainer = ClickTrainer(replace(SMALL, preparers=2, pool=4), tmp_path)
    try:
        assert np.isfinite([trainer.step() for _ in range(3)]).all()
        assert trainer.scenes > 0
        trainer.save()
        supply = trainer._supply
        assert isinstance(supply, Preparers)
        one, other = supply._processes
        one.terminate()
        one.join()
        with pytest.raises(RunError, match="prepare windows ended unexpectedly"):
            for _ in range(3):
                trainer.step()
    finally:
        trainer.close()
    assert not other.is_alive()
    resumed = ClickTrainer.resume(tmp_path, preparers=3)
    try:
        assert resumed.recipe.preparers == 3 and np.isfinite(resumed.step())
    finally:
        resumed.close()
    alone = ClickTrainer.resume(tmp_path, preparers=0)
    assert np.isfinite(alone.step()) and isinstance(alone._supply, Pool)


_TRAINER = """
import sys, time
from pathlib import Path
from LKSegmentLib.training.click_training import ClickTrainer
from LKSegmentLib.training.recipe import Recipe

if __name__ == "__main__":
    sizes = {"feature_sizes": [8, 16, 16], "depths": [1, 1, 1]}
    recipe = Recipe(windows=((1.0, 16),), batch=2, pool=4, scene=32, preparers=2, network=sizes)
    trainer = ClickTrainer(recipe, Path(sys.argv[1]))
    trainer.step()
    print(*(process.pid for process in trainer._supply._processes), flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="asks for processes by signal 0")
def test_preparers_end_with_a_trainer_that_is_killed(tmp_path) -> None:
    script = tmp_path / "trainer.py"
    script.write_text(_TRAINER, encoding="utf-8")
    trainer = subprocess.Popen([sys.executable, str(script), str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert trainer.stdout is not None
        pids = [int(pid) for pid in trainer.stdout.readline().split()]
        assert len(pids) == 2 and all(_is_alive(pid) for pid in pids)
    finally:
        trainer.kill()
        trainer.wait()
    deadline = time.monotonic() + 60
    while any(_is_alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(_is_alive(pid) for pid in pids)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")  # a process that nobody waits for has ended too
    return not (status.is_file() and status.read_text().rsplit(")", 1)[1].split()[0] == "Z")


def test_what_cannot_be_followed_is_one_sentence(tmp_path, monkeypatch) -> None:
    with pytest.raises(InputError, match="not both"):
        ClickTrainer(replace(SMALL, preparers=2, replicas=2), tmp_path)
    with pytest.raises(InputError, match="3 targets in flight are too few for 4 windows"):
        ClickTrainer(replace(SMALL, batch=4), tmp_path)
    ClickTrainer(SMALL, tmp_path).save()
    with pytest.raises(InputError, match="not both"):
        ClickTrainer.resume(tmp_path, preparers=2, replicas=2)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("LKSegmentLib.training.preparers._SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(RunError, match=r"GB of shared memory, more than there is\. Train with a smaller --batch"):
        ClickTrainer(replace(SMALL, preparers=1), tmp_path / "other").step()


def test_the_command_settles_the_recipe(tmp_path, monkeypatch, capsys) -> None:
    begun: list[Recipe] = []

    class Begun(ClickTrainer):
        def train(self, *_: object, **__: object) -> None:
            begun.append(self.recipe)

    monkeypatch.setattr("LKSegmentLib.training.click_training.ClickTrainer", Begun)
    given = ["train", "click", "--batch", "16", "--window", "32", "--preparers", "3", "--out", str(tmp_path)]
    assert main(given) == 0
    (recipe,) = begun
    assert (recipe.batch, recipe.windows, recipe.preparers, recipe.pool) == (16, ((1.0, 32),), 3, 128)
    assert recipe.learning_rate == pytest.approx(2 * Recipe.learning_rate)
    assert packages.read_manifest(tmp_path / "lk_click").window == (32, 32, 32)
    Begun(recipe, tmp_path).save()
    for option in ("--batch", "--window"):
        assert main(["train", "click", "--resume", option, "64", "--out", str(tmp_path)]) == 2
        assert f"{option} was settled" in capsys.readouterr().err
    assert main(["train", "click", "--resume", *given[2:]]) == 0, "the same command with --resume"
    assert main(["train", "click", "--resume", "--preparers", "0", "--out", str(tmp_path)]) == 0
    assert begun[-1].preparers == 0
    assert main(["train", "click", "--preparers", "2", "--replicas", "2", "--out", str(tmp_path / "refused")]) == 2
    assert not (tmp_path / "refused").exists()


def test_a_view_knows_how_much_of_the_structure_lies_outside() -> None:
    whole, cut = [], []
    for seed in range(30):
        scene = draw_scene(seed, 32)
        for view in views(scene, draw_targets(scene, seed, 4), seed, 32):
            seen = float(np.count_nonzero(view.target))
            assert view.voxels >= seen
            touches = any(np.take(view.target, index, axis).any() for axis in range(3) for index in (0, -1))
            (cut if touches else whole).append(view.voxels / seen)
    # Sampled more finely or coarsely a structure keeps its size but for its surface.
    assert len(whole) > 15 and np.max(whole) < 1.4 and np.median(whole) < 1.1
    assert np.count_nonzero(np.greater(cut, 1.4)) > 5


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
    assert 0 < float((now - before).abs().max()) < 0.03 * float(before.std()), "added blocks are hardly heard"
    at_half = LKClick(feature_sizes=(8, 16, 16), depths=(3, 1, 1)).eval()
    begin_with(at_half, earlier.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(at_half(inputs), before)
    with pytest.raises(InputError, match="another design"):
        begin_with(LKClick(feature_sizes=(8, 16, 16), depths=(1, 1, 1)), deeper.state_dict())
    harmed = earlier.state_dict()
    harmed.pop(next(name for name in harmed if name.startswith("encoder.2.0.attn")))
    with pytest.raises(InputError, match="another design"):
        begin_with(LKClick(feature_sizes=(8, 16, 16), depths=(1, 2, 3)), harmed)


def test_the_expected_dice_is_of_one_output() -> None:
    with pytest.raises(InputError, match="one output only"):
        LKClick(out_channels=2, tells_dice=True)
    network = LKClick(feature_sizes=(8, 16, 16), depths=(1, 1, 1))
    assert network.answer(torch.randn(1, 12, 16, 16, 16))[1] is None
