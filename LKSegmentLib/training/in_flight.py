"""A target that is being clicked at: the clicks it has received, and where a person would click next."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from LKSegmentLib.prompts import PromptChannels
from LKSegmentLib.prompts.simulated import box_faces, correcting_click, first_click, scribble

from .recipe import Recipe


class InFlight:
    """One target in one view of a scene.

    Args:
        image: ``(k, j, i)``.
        target: what is meant, of the same shape.
        clicks: after how many this target is done.
        recipe: says how people click.
        seed: of where they click.
    """

    def __init__(
        self, image: NDArray[np.float32], target: NDArray[np.bool_], clicks: int, recipe: Recipe, seed: int
    ) -> None:
        self.rng = np.random.default_rng(seed)
        self.target = target
        self.channels = PromptChannels(image)
        self.clicks_left = clicks
        self._recipe = recipe
        self._add(first_click(target, self.rng), True)
        if self.rng.random() < recipe.box_share:
            for place in box_faces(target, int(self.rng.integers(1, 4))):
                self._add(place, False)

    def advance(self, probability: NDArray[np.float32]) -> bool:
        """Take the network's answer, place the next click; False when this target has had its clicks."""
        self.clicks_left -= 1
        mask = probability > 0.5
        click = correcting_click(self.target, mask, self.rng) if self.clicks_left > 0 else None
        if click is None:
            return False
        position, positive = click
        self.channels.set_previous_mask(mask, self.channels.clicks)
        if self.rng.random() < self._recipe.scribble_share:
            for place in scribble(self.target & ~mask if positive else mask & ~self.target, position, self.rng):
                self._add(place, positive)
        if self.rng.random() < self._recipe.wrong_click_share:
            positive = not positive
        self._add(position, positive)
        return True

    def _add(self, voxel: tuple[int, int, int], positive: bool) -> None:
        """A click somewhere in this voxel."""
        k, j, i = (float(value + self.rng.uniform(-0.5, 0.5)) for value in voxel)
        self.channels.add_click((k, j, i), positive)
