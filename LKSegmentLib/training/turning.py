"""The 48 ways in which a cube can lie: what is learnt must not depend on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Turn:
    """Axes of ``(batch, channels, k, j, i)`` exchanged, then some reversed; numbers of axes are those of the tensor."""

    axes: tuple[int, ...]
    reversed: tuple[int, ...]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Turn:
        """One of the 48."""
        axes = (0, 1, *(2 + int(axis) for axis in rng.permutation(3)))
        return cls(axes, tuple(2 + int(axis) for axis in np.flatnonzero(rng.random(3) < 0.5)))

    def apply(self, cubes: Tensor) -> Tensor:
        """``(batch, channels, k, j, i)``, turned."""
        return cubes.permute(self.axes).flip(self.reversed)

    def undo(self, cubes: Tensor) -> Tensor:
        """The inverse of :meth:`apply`."""
        back = tuple(int(axis) for axis in np.argsort(self.axes))
        return cubes.flip(self.reversed).permute(back)
