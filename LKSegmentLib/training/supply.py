"""Where the windows of a training step come from, and where the network's answers to them go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .in_flight import InFlight, NewTargets
from .recipe import Recipe

Item = TypeVar("Item")


@dataclass(frozen=True)
class Windows:
    """What a step learns from.

    ``inputs (batch, channels, k, j, i)``, ``targets (batch, 1, k, j, i)`` of 0 and 1, ``voxels (batch,)`` of the whole
    structures; all float32 on one device. ``origin`` is the supply's own.
    """

    inputs: Tensor
    targets: Tensor
    voxels: Tensor
    origin: Any


class Supply(Protocol):
    """Windows of one edge; every one of them comes back with the network's answer, which decides its next click."""

    window: int

    def draw(self, count: int, rng: np.random.Generator, device: torch.device) -> Windows:
        """``count`` different windows."""

    def answer(self, windows: Windows, masks: NDArray[np.bool_] | None) -> None:
        """The network's ``masks (batch, k, j, i)``; None: it had no usable answer, and these targets are left."""

    def scenes_drawn(self) -> int:
        """How many scenes were drawn since this was asked last."""

    def close(self) -> None:
        """Nothing is wanted any more."""


def drawn_from(items: Sequence[Item], count: int, rng: np.random.Generator) -> tuple[list[Item], list[Item]]:
    """``count`` of them at random, and the others in their order."""
    chosen = [int(index) for index in rng.choice(len(items), count, replace=False)]
    taken = set(chosen)
    return [items[index] for index in chosen], [item for index, item in enumerate(items) if index not in taken]


class Pool:
    """A supply that does all its work in the trainer's own process.

    Args:
        recipe: of the training; says how many targets are in flight.
        window: edge.
        numbers: of the scenes to draw.
    """

    def __init__(self, recipe: Recipe, window: int, numbers: Iterator[int]) -> None:
        self.window = window
        self._size = recipe.pool
        self._new = NewTargets(recipe, window, numbers)
        self._in_flight: list[InFlight] = []
        self._told = 0

    def draw(self, count: int, rng: np.random.Generator, device: torch.device) -> Windows:
        """See :class:`Supply`."""
        while len(self._in_flight) < self._size:
            self._in_flight.append(self._new.next())
        items, self._in_flight = drawn_from(self._in_flight, count, rng)
        inputs = torch.from_numpy(np.stack([item.channels.array for item in items]))
        targets = torch.from_numpy(np.stack([item.target for item in items]))[:, None]
        voxels = torch.tensor([item.voxels for item in items])
        return Windows(inputs.to(device), targets.to(device).float(), voxels.to(device), items)

    def answer(self, windows: Windows, masks: NDArray[np.bool_] | None) -> None:
        """See :class:`Supply`."""
        if masks is not None:
            self._in_flight += [item for item, mask in zip(windows.origin, masks, strict=True) if item.advance(mask)]

    def scenes_drawn(self) -> int:
        """See :class:`Supply`."""
        drawn, self._told = self._new.scenes - self._told, self._new.scenes
        return drawn

    def close(self) -> None:
        """See :class:`Supply`."""
