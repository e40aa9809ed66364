"""Targets that are being clicked at: the clicks they have received, and where a person would click next."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from LKSegmentLib.prompts import PromptChannels
from LKSegmentLib.prompts.simulated import box_faces, correcting_click, first_click, scribble

from .recipe import Recipe
from .synthetic import View, views_of_scene


class InFlight:
    """One target in one view of a scene; it has its first click.

    Args:
        view: image and target.
        clicks: after how many this target is done.
        recipe: says how people click.
        seed: of where they click.
    """

    def __init__(self, view: View, clicks: int, recipe: Recipe, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.target = target = view.target
        self.voxels = view.voxels
        self.channels = PromptChannels(view.image)
        self.clicks_left = clicks
        self._recipe = recipe
        self._add(first_click(target, self.rng), True)
        if self.rng.random() < recipe.box_share:
            for place in box_faces(target, int(self.rng.integers(1, 4))):
                self._add(place, False)

    def advance(self, mask: NDArray[np.bool_]) -> bool:
        """Take the network's answer, place the next click; False when this target has had its clicks."""
        self.clicks_left -= 1
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


class NewTargets:
    """Targets with their first clicks, one by one; a scene gives several.

    Args:
        recipe: of the training.
        window: edge of the views.
        numbers: of the scenes to draw.
    """

    def __init__(self, recipe: Recipe, window: int, numbers: Iterator[int]) -> None:
        self.scenes = 0  # drawn so far
        self._recipe = recipe
        self._window = window
        self._numbers = numbers
        self._waiting: list[InFlight] = []

    def next(self) -> InFlight:
        """The next target."""
        recipe = self._recipe
        while not self._waiting:
            number = next(self._numbers)
            self.scenes += 1
            rng = np.random.default_rng(((recipe.seed << 40) + number, 1))
            for view in views_of_scene(recipe.seed, number, recipe.targets, recipe.scene, self._window):
                clicks = recipe.clicks_on(view.target, rng)
                self._waiting.append(InFlight(view, clicks, recipe, int(rng.integers(2**62))))
        return self._waiting.pop(0)
