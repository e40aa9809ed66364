"""Training of the built-in click model on synthetic volumes only. Resumable; stops by the clock.

Every forward pass teaches: a pool of scenes is "in flight", each with the clicks it has received and the network's own
last mask. A step takes a few of them, computes the loss, and uses the very same output to place each one's next click.
No pass is spent on rolling clicks out, and the network sees its own masks, old and new.
"""

from __future__ import annotations

import copy
import csv
import itertools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from LKSegmentLib.errors import InputError, RunError
from LKSegmentLib.networks.lk_click import LKClick
from LKSegmentLib.prompts import CHANNELS

from .beginning import begin_with
from .gates import GateWatch
from .losses import click_loss, judgement_loss
from .optimisers import Optimisers
from .preparers import Preparers
from .recipe import Recipe
from .replicas import Replicas
from .supply import Pool, Supply
from .turning import Turn

_OTHER_VERSION = (
    "The checkpoint in {} was made by another version of LKSegment and cannot be gone on with. Train anew in another "
    "folder."
)
Report = Callable[[dict[str, float]], None]
_BETWEEN_CHECKPOINTS = 60.0  # seconds
_MOST_SKIPPED = 20
_CHECKPOINT = "checkpoint.pt"
_CURVE = (
    "minutes", "steps", "scenes", "skipped", "learning_rate", "soft_dice_loss_and_cross_entropy", "judgement_loss",
)  # fmt: skip


class ClickTrainer:
    """Trains ``LKClick`` by ``recipe``; everything needed to go on lies in ``folder/checkpoint.pt``.

    Args:
        recipe: what to train.
        folder: where the checkpoint and ``curve.csv`` are written, about once a minute and at the end.
        device: a torch device name.
        replicas: of this trainer, where it is one of several; else it starts those of the recipe when it trains.
        weights: of an earlier click model to begin with (`beginning`); None: random ones.

    Raises:
        InputError: a recipe that cannot be followed (`Recipe.check`), or weights of another design.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        device: str = "cpu",
        replicas: Replicas | None = None,
        weights: Mapping[str, Tensor] | None = None,
    ) -> None:
        recipe.check()
        self.recipe = recipe
        self.folder = folder
        self.device = torch.device(device)
        torch.manual_seed(recipe.seed)
        self.network = LKClick(in_channels=len(CHANNELS), **recipe.network)
        if weights is not None:
            begin_with(self.network, weights)
        self.network.to(self.device)
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.optimiser = Optimisers(self.network, recipe.learning_rate, recipe.weight_decay)
        self._gates = GateWatch(self.network)
        self.seconds = 0.0
        self.steps = 0
        self.scenes = 0
        self.skipped = 0
        self._supply: Supply | None = None
        self._replicas = replicas or Replicas()
        self._last_step = 0.0  # seconds
        self._skipped_in_a_row = 0
        self._recent: list[tuple[float, float]] = []  # losses of mask and judgement since the last checkpoint

    @property
    def progress(self) -> float:
        """Share of the time budget used, 0…1."""
        return min(1.0, self.seconds / (60 * self.recipe.minutes))

    def train(
        self,
        report: Report | None = None,
        stop_after: float = math.inf,
        stepped: Callable[[], None] | None = None,
    ) -> None:
        """Train until the recipe's minutes are used up, or for ``stop_after`` seconds of this call.

        ``report`` hears of every checkpoint: the same numbers as a line of ``curve.csv``. ``stepped`` is called after
        every step.

        Raises:
            RunError: the loss is not finite again and again.
        """
        if self._replicas.count < self.recipe.replicas:
            self._replicas = self._with_others()
        begun = last_saved = time.monotonic()
        while self.progress < 1 and time.monotonic() - begun < stop_after:
            self.step()
            if stepped is not None:
                stepped()
            if time.monotonic() - last_saved > _BETWEEN_CHECKPOINTS:
                self.save(report)
                last_saved = time.monotonic()
        self.save(report)

    def close(self) -> None:
        """End the other processes."""
        self._replicas.close()
        if self._supply is not None:
            self._supply.close()
            self._supply = None

    def _with_others(self) -> Replicas:
        """Start the other replicas; what they begin with is the checkpoint."""
        self.save()
        begin = partial(_follow, self.recipe, self.folder, str(self.device))
        try:
            return Replicas.lead(self.recipe.replicas, begin)
        except (InputError, RunError):
            if not self.steps:  # there is nothing to resume
                (self.folder / _CHECKPOINT).unlink()
            raise

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
        unfinished = self.folder / "checkpoint.partial"
        torch.save(state, unfinished)
        unfinished.replace(self.folder / _CHECKPOINT)
        if self._recent:
            self._write_curve(report)

    def _write_curve(self, report: Report | None) -> None:
        losses = [float(value) for value in np.mean(self._recent, axis=0)]
        self._recent.clear()
        values = (self.seconds / 60, self.steps, self.scenes, self.skipped, self._learning_rate(), *losses)
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
    def resume(cls, folder: Path, device: str = "cpu", **changes: Any) -> ClickTrainer:
        """The trainer as it was saved; ``changes`` replace what the recipe says, where they are not None.

        Raises:
            InputError: there is no checkpoint in the folder, or one of another version, or it cannot be changed so.
        """
        path = folder / _CHECKPOINT
        if not path.is_file():
            raise InputError(f"There is no checkpoint.pt in {folder}, so there is nothing to resume.")
        state = _stored(folder)
        said = state["recipe"] | {name: value for name, value in changes.items() if value is not None}
        try:
            recipe = Recipe(**said)
        except TypeError as error:
            raise InputError(_OTHER_VERSION.format(folder)) from error
        recipe.check()
        try:
            trainer = cls(recipe, folder, device)
            trainer._load(state)
        except (TypeError, RuntimeError, KeyError, ValueError) as error:
            raise InputError(_OTHER_VERSION.format(folder)) from error
        return trainer

    def _load(self, state: Mapping[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        for name, value in state["counters"].items():
            setattr(self, name, value)

    def step(self) -> float:
        """One step of this trainer, and of all its replicas; returns the loss, 0 where the step was skipped.

        Raises:
            RunError: the gradient is not finite again and again, or another process ended.
        """
        begun = time.monotonic()
        supply = self._supply_of(self.recipe.window_at(self.progress))
        rng = np.random.default_rng((self.recipe.seed, self.steps, self._replicas.rank))
        windows = supply.draw(self.recipe.batch, rng, self.device)
        turn = Turn.draw(np.random.default_rng((self.recipe.seed, self.steps, self._replicas.rank, 1)))
        inputs = turn.apply(windows.inputs).contiguous(memory_format=torch.channels_last_3d)
        targets = turn.apply(windows.targets)
        for group in self.optimiser.param_groups:
            group["lr"] = group["share"] * self._learning_rate()
        in_half = self.recipe.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=in_half):
            logits, judgement = self.network.answer(inputs)
        logits = logits.float()
        of_mask, of_judgement = click_loss(logits, targets), torch.zeros((), device=self.device)
        if judgement is not None:
            of_judgement = judgement_loss(judgement, logits.detach(), targets, windows.voxels)
        loss = of_mask + self.recipe.judgement_share * of_judgement + self.recipe.gate_penalty * self._gates.beyond()
        self.optimiser.zero_grad()
        loss.backward()
        self.steps += 1
        value = self._share(torch.stack((of_mask, of_judgement)).detach(), supply.scenes_drawn())
        if math.isfinite(value):
            self.optimiser.step()
            self._update_average()
        masks = turn.undo(logits.detach() > 0)[:, 0].cpu().numpy() if bool(torch.isfinite(logits).all()) else None
        supply.answer(windows, masks)
        self._last_step = time.monotonic() - begun
        return value if math.isfinite(value) else 0.0

    def _supply_of(self, window: int) -> Supply:
        """Of windows with this edge. Every supply draws other scenes, numbered from the step at which it began."""
        if self._supply is None or self._supply.window != window:
            if self._supply is not None:
                self._supply.close()
            first, replicas = self.steps << 20, self._replicas
            if self.recipe.preparers:
                self._supply = Preparers(self.recipe, window, first)
            else:
                numbers = itertools.count(first + replicas.rank, replicas.count)
                self._supply = Pool(self.recipe, window, numbers)
        return self._supply

    def _share(self, losses: Tensor, drawn: int) -> float:
        """Clipped gradients, losses and time become the mean of all replicas'; NaN is told where any is not finite.

        The time is that of the last step, the whole of it: all replicas must be equally far at every step.
        """
        gradients = [parameter.grad for parameter in self.network.parameters() if parameter.grad is not None]
        told = torch.cat((losses, torch.tensor([self._last_step, float(drawn)], device=self.device)))
        flat = self._replicas.mean(torch.cat([*(gradient.reshape(-1) for gradient in gradients), told]))
        for gradient, shared in zip(gradients, flat[:-4].split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(shared.view_as(gradient))
        norm = float(torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0))
        loss, judged, seconds, scenes = flat[-4:].tolist()
        self.seconds += seconds
        self.scenes += round(scenes * self._replicas.count)
        if not (math.isfinite(norm) and math.isfinite(loss + judged)):
            self.skipped += 1
            self._skipped_in_a_row += 1
            if self._skipped_in_a_row > _MOST_SKIPPED:
                raise RunError(
                    f"The gradient was not finite in {_MOST_SKIPPED} steps in a row; lower the learning rate."
                )
            return math.nan
        self._skipped_in_a_row = 0
        self._recent.append((loss, judged))
        return loss

    def _learning_rate(self) -> float:
        warm_up = min(1.0, (self.steps + 1) / 200)
        return self.recipe.learning_rate * warm_up * (0.5 + 0.5 * math.cos(math.pi * self.progress)) + 1e-6

    def _update_average(self) -> None:
        decay = min(self.recipe.average_decay, (1 + self.steps) / (20 + self.steps))
        with torch.no_grad():
            for kept, new in zip(self.average.parameters(), self.network.parameters(), strict=True):
                kept.lerp_(new, 1 - decay)


def _stored(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(folder / _CHECKPOINT, map_location="cpu", weights_only=True)
    return state


def _follow(recipe: Recipe, folder: Path, device: str, replicas: Replicas) -> None:
    """A replica: steps with the others until its process is ended."""
    trainer = ClickTrainer(recipe, folder, device, replicas=replicas)
    trainer._load(_stored(folder))
    while True:
        trainer.step()
