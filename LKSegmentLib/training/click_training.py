"""Training of the built-in click model on synthetic volumes only. Resumable; stops by the clock.

Every forward pass teaches: a pool of scenes is "in flight", each with the clicks it has received and the network's own
last mask. A step takes a few of them, computes the loss, and uses the very same output to place each one's next click.
No pass is spent on rolling clicks out, and the network sees its own masks, old and new.
"""

from __future__ import annotations

import copy
import csv
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from torch import Tensor

from LKSegmentLib.errors import InputError, RunError
from LKSegmentLib.networks.lk_click import LKClick
from LKSegmentLib.prompts import CHANNELS, PromptChannels
from LKSegmentLib.prompts.simulated import box_faces, correcting_click, first_click, scribble

from .gates import GateWatch, parameter_groups
from .scene_source import SceneSource, scene_rng
from .synthetic import SCENE

Report = Callable[[dict[str, float]], None]
_BETWEEN_CHECKPOINTS = 60.0  # seconds
_CURVE = ("minutes", "steps", "scenes", "skipped", "learning_rate", "soft_dice_loss_and_cross_entropy")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what is trained; stored in the checkpoint and in the package's manifest."""

    minutes: float = 108.0
    seed: int = 0
    window: int = 48
    late_window: int = 64  # the last part is trained at the window used at inference
    late_share: float = 0.2
    batch: int = 2
    pool: int = 32
    scene: int = SCENE  # voxels along an edge of a scene
    targets: int = 6  # of one scene
    most_clicks: int = 10
    learning_rate: float = 1.0e-3
    weight_decay: float = 0.01
    average_decay: float = 0.998
    gate_penalty: float = 1e-3
    wrong_click_share: float = 0.02
    scribble_share: float = 0.1  # of the corrections: a short stroke instead of a click
    box_share: float = 0.08  # of the targets: begun with a click and a box around


class _InFlight:
    """One target in one scene, with the clicks it has received so far."""

    def __init__(
        self, image: NDArray[np.float32], target: NDArray[np.bool_], clicks: int, recipe: Recipe, seed: int
    ) -> None:
        self.rng = np.random.default_rng(seed)
        self.target = target
        self.channels = PromptChannels(image)
        self.clicks_left = clicks
        self._recipe = recipe
        self.channels.add_click(self._jittered(first_click(target, self.rng)), True)
        if self.rng.random() < recipe.box_share:
            for place in box_faces(target, int(self.rng.integers(1, 4))):
                self.channels.add_click(self._jittered(place), False)

    def advance(self, probability: NDArray[np.float32]) -> bool:
        """Take the network's answer, place the next click; False when this target has had its clicks."""
        self.clicks_left -= 1
        mask = probability > 0.5
        click = correcting_click(self.target, mask, self.rng) if self.clicks_left > 0 else None
        if click is None:
            return False
        position, positive = click
        self.channels.set_previous_mask(mask)
        if self.rng.random() < self._recipe.scribble_share:
            for place in scribble(self.target & ~mask if positive else mask & ~self.target, position, self.rng):
                self.channels.add_click(self._jittered(place), positive)
        if self.rng.random() < self._recipe.wrong_click_share:
            positive = not positive
        self.channels.add_click(self._jittered(position), positive)
        return True

    def _jittered(self, position: tuple[int, int, int]) -> tuple[float, float, float]:
        k, j, i = (float(value + self.rng.uniform(-0.5, 0.5)) for value in position)
        return k, j, i


class ClickTrainer:
    """Trains ``LKClick`` by ``recipe``; everything needed to go on lies in ``folder/checkpoint.pt``.

    Args:
        recipe: what to train.
        folder: where the checkpoint and ``curve.csv`` are written, about once a minute and at the end.
        device: a torch device name.
        processes: that draw scenes ahead; 0 draws them in this one.
    """

    def __init__(self, recipe: Recipe, folder: Path, device: str = "cpu", processes: int = 0) -> None:
        self.recipe = recipe
        self.folder = folder
        self.device = torch.device(device)
        torch.manual_seed(recipe.seed)
        self.network = LKClick(in_channels=len(CHANNELS)).to(self.device)
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.optimiser = torch.optim.AdamW(
            parameter_groups(self.network), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self._gates = GateWatch(self.network)
        self.seconds = 0.0
        self.steps = 0
        self.scenes = 0
        self.skipped = 0
        self._pool: list[_InFlight] = []
        self._waiting: list[_InFlight] = []
        self._pool_window = 0
        self._source = SceneSource(recipe.seed, recipe.targets, recipe.scene, processes)
        self._recent: list[float] = []  # losses since the last checkpoint

    @property
    def progress(self) -> float:
        """Share of the time budget used, 0…1."""
        return min(1.0, self.seconds / (60 * self.recipe.minutes))

    def train(self, report: Report | None = None, stop_after: float = math.inf) -> None:
        """Train until the recipe's minutes are used up, or for ``stop_after`` seconds of this call.

        ``report`` hears of every checkpoint: the same numbers as a line of ``curve.csv``.

        Raises:
            RunError: the loss is not finite again and again.
        """
        begun = last_saved = time.monotonic()
        while self.progress < 1 and time.monotonic() - begun < stop_after:
            tick = time.monotonic()
            self._recent.append(self._step())
            self.seconds += time.monotonic() - tick
            if time.monotonic() - last_saved > _BETWEEN_CHECKPOINTS:
                self.save(report)
                last_saved = time.monotonic()
        self.save(report)

    def close(self) -> None:
        """End the processes that draw scenes."""
        self._source.close()

    def save(self, report: Report | None = None) -> None:
        """Write the checkpoint, the previous one stays until the new one is whole; then a line of the curve."""
        self.folder.mkdir(parents=True, exist_ok=True)
        state: dict[str, Any] = {
            "recipe": asdict(self.recipe),
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "counters": {
                "seconds": self.seconds,
                "steps": self.steps,
                "scenes": self.scenes,
                "skipped": self.skipped,
            },
        }
        partial = self.folder / "checkpoint.partial"
        torch.save(state, partial)
        partial.replace(self.folder / "checkpoint.pt")
        if self._recent:
            self._write_curve(report)

    def _write_curve(self, report: Report | None) -> None:
        loss, rate = float(np.mean(self._recent)), self._learning_rate()
        self._recent.clear()
        values = (self.seconds / 60, self.steps, self.scenes, self.skipped, rate, loss)
        path = self.folder / "curve.csv"
        is_new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.writer(file)
            if is_new:
                writer.writerow(_CURVE)
            writer.writerow([f"{value:.6g}" for value in values])
        if report is not None:
            report(dict(zip(_CURVE, map(float, values), strict=True)))

    @classmethod
    def resume(
        cls, folder: Path, device: str = "cpu", minutes: float | None = None, processes: int = 0
    ) -> ClickTrainer:
        """The trainer as it was saved; ``minutes`` replaces the recipe's time budget.

        Raises:
            InputError: there is no checkpoint in the folder.
        """
        path = folder / "checkpoint.pt"
        if not path.is_file():
            raise InputError(f"There is no checkpoint.pt in {folder}, so there is nothing to resume.")
        state = torch.load(path, map_location="cpu", weights_only=True)
        recipe = state["recipe"] | ({} if minutes is None else {"minutes": minutes})
        trainer = cls(Recipe(**recipe), folder, device, processes)
        trainer.network.load_state_dict(state["network"])
        trainer.average.load_state_dict(state["average"])
        trainer.optimiser.load_state_dict(state["optimiser"])
        for name, value in state["counters"].items():
            setattr(trainer, name, value)
        return trainer

    def _step(self) -> float:
        window = self.recipe.late_window if self.progress > 1 - self.recipe.late_share else self.recipe.window
        batch = self._draw_batch(window)
        inputs = torch.from_numpy(np.stack([item.channels.array for item in batch]))
        targets = torch.from_numpy(np.stack([item.target for item in batch]))[:, None].float()
        inputs = inputs.to(self.device, memory_format=torch.channels_last_3d)
        targets = targets.to(self.device)
        for group in self.optimiser.param_groups:
            group["lr"] = group["share"] * self._learning_rate()
        logits = self.network(inputs)
        loss = click_loss(logits, targets) + self.recipe.gate_penalty * self._gates.beyond()
        value = float(loss.detach())
        self.steps += 1
        if not math.isfinite(value):
            self.skipped += 1
            if self.skipped > 20:
                raise RunError(
                    "The training loss was not a finite number in 20 steps; lower the learning rate."
                )
            return 0.0
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()
        self._update_average()
        probabilities = torch.sigmoid(logits.detach()).float().cpu().numpy()
        for item, probability in zip(batch, probabilities, strict=True):
            if item.advance(probability[0]):
                self._pool.append(item)
        return value

    def _learning_rate(self) -> float:
        warm_up = min(1.0, (self.steps + 1) / 200)
        return self.recipe.learning_rate * warm_up * (0.5 + 0.5 * math.cos(math.pi * self.progress)) + 1e-6

    def _update_average(self) -> None:
        decay = min(self.recipe.average_decay, (1 + self.steps) / (20 + self.steps))
        with torch.no_grad():
            for kept, new in zip(self.average.parameters(), self.network.parameters(), strict=True):
                kept.lerp_(new, 1 - decay)

    def _draw_batch(self, window: int) -> list[_InFlight]:
        if window != self._pool_window:
            self._pool, self._waiting, self._pool_window = [], [], window
        while len(self._pool) < self.recipe.pool:
            self._pool.append(self._new_item(window))
        rng = np.random.default_rng((self.recipe.seed, self.steps))
        chosen = rng.choice(len(self._pool), self.recipe.batch, replace=False)
        batch = [self._pool[index] for index in chosen]
        self._pool = [item for index, item in enumerate(self._pool) if index not in set(chosen.tolist())]
        return batch

    def _new_item(self, window: int) -> _InFlight:
        """The next target; scenes give several, which are handed out one by one."""
        while not self._waiting:
            rng = scene_rng(self.recipe.seed, self.scenes)
            for image, target in self._source.views(self.scenes, window):
                clicks = int(rng.integers(1, self.recipe.most_clicks + 1))
                self._waiting.append(_InFlight(image, target, clicks, self.recipe, int(rng.integers(2**62))))
            self.scenes += 1
        return self._waiting.pop(0)


def click_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Soft Dice loss per sample plus cross entropy, both averaged: ``(batch, 1, k, j, i)`` → scalar."""
    probability = torch.sigmoid(logits)
    overlap = (probability * targets).sum((1, 2, 3, 4))
    size = probability.sum((1, 2, 3, 4)) + targets.sum((1, 2, 3, 4))
    dice = (2 * overlap + 1) / (size + 1)
    return (1 - dice).mean() + functional.binary_cross_entropy_with_logits(logits, targets)
