"""Everything that decides what is trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from LKSegmentLib.errors import InputError

from .synthetic import SCENE

GOING_ON: dict[str, Any] = {"windows": ((0.4, 48), (0.6, 64)), "learning_rate": 7e-4}
"""What is otherwise in a training that begins with the weights of an earlier model."""


@dataclass(frozen=True)
class Recipe:
    """Stored in the checkpoint and in the package's manifest."""

    minutes: float = 108.0
    seed: int = 0
    # Share of the time, and edge of the windows then: many small ones first, last those used at inference.
    windows: tuple[tuple[float, int], ...] = ((0.2, 32), (0.4, 48), (0.4, 64))
    batch: int = 2
    pool: int = 32  # targets in flight, of each trainer
    scene: int = SCENE  # voxels along an edge of a scene
    targets: int = 6  # of one scene
    most_clicks: int = 10
    all_clicks_share: float = 0.5  # of the targets: clicked at that often; the others any number of times up to it
    most_clicks_off_scale: int = 4  # on targets that fill less than `on_scale` of the window's edge, or all of it
    on_scale: tuple[float, float] = (0.4, 0.97)
    learning_rate: float = 1.0e-3
    weight_decay: float = 0.01
    average_decay: float = 0.998
    gate_penalty: float = 1e-3
    wrong_click_share: float = 0.02
    scribble_share: float = 0.1  # of the corrections: a short stroke instead of a click
    box_share: float = 0.08  # of the targets: begun with a click and a box around
    judgement_share: float = 0.1  # of the loss of the expected Dice, beside that of the mask
    preparers: int = 0  # processes that prepare windows for each trainer; 0: it does so itself
    replicas: int = 1  # trainers that step together, each with a batch of its own
    precision: str = "float32"  # of the activations; "bfloat16" is faster on processors made for it, and on GPUs
    # Of the earlier model whose weights this training began with: "weights_sha256", "trained_on" and "licence".
    started_from: dict[str, str] = field(default_factory=dict)
    # Options of LKClick other than its defaults.
    network: dict[str, Any] = field(default_factory=lambda: {"tells_dice": True})

    def check(self) -> None:
        """Raise InputError where this cannot be followed."""
        if self.preparers and self.replicas > 1:
            raise InputError(
                "A training is shared out among replicas or served by preparers, not both: use --replicas 1, or "
                "--preparers 0."
            )
        if self.pool < self.batch:
            raise InputError(f"{self.pool} targets in flight are too few for {self.batch} windows a step.")

    def clicks_on(self, target: NDArray[np.bool_], rng: np.random.Generator) -> int:
        """How often a target, ``(k, j, i)`` in its window, is clicked at.

        A session looks for its scale with the first clicks only; many clicks are given at the right one.
        """
        filled = (np.ptp(np.argwhere(target), axis=0).max() + 1) / target.shape[0]
        if not self.on_scale[0] <= filled <= self.on_scale[1]:
            return int(rng.integers(1, min(self.most_clicks, self.most_clicks_off_scale) + 1))
        if rng.random() < self.all_clicks_share:
            return self.most_clicks
        return int(rng.integers(1, self.most_clicks + 1))

    def window_at(self, progress: float) -> int:
        """Edge of the windows once this share of the time, 0…1, is used."""
        until = 0.0
        for share, edge in self.windows:
            until += share
            if progress < until:
                return edge
        return self.windows[-1][1]
