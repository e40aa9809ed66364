"""How far a voxel of a feature map can see along one axis: exact, by following intervals through the layers.

Only convolutions count. Global pools, normalisation statistics and attention over the whole map reach
everywhere; the documentation of a network says where it has them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_LENGTH = 1 << 15


@dataclass(frozen=True)
class StageField:
    """The receptive field of one stage's output.

    Attributes:
        stage: its name.
        stride: input voxels from one voxel of the stage to the next.
        voxels: edge of the field in input voxels; the largest over the phases of a transposed convolution.
    """

    stage: str
    stride: int
    voxels: int


class Line:
    """For each voxel of a feature map on one axis: the first and the last input voxel that it depends on."""

    def __init__(self, first: NDArray[np.int64], last: NDArray[np.int64], stride: int) -> None:
        self.first = first
        self.last = last
        self.stride = stride

    @classmethod
    def of_input(cls) -> Line:
        """Every input voxel depends on itself."""
        index = np.arange(_LENGTH, dtype=np.int64)
        return cls(index, index, 1)

    def convolved(self, kernel: int, stride: int = 1, dilation: int = 1, padding: int | None = None) -> Line:
        """After a convolution; `padding` defaults to the one that keeps the size."""
        padding = dilation * (kernel // 2) if padding is None else padding
        count = len(self.first) // stride
        start = np.arange(count, dtype=np.int64) * stride - padding
        end = start + dilation * (kernel - 1)
        limit = len(self.first) - 1
        return Line(self.first[start.clip(0, limit)], self.last[end.clip(0, limit)], self.stride * stride)

    def upsampled(self, kernel: int = 2, stride: int = 2, padding: int = 0) -> Line:
        """After a transposed convolution."""
        count = len(self.first) * stride
        index = np.arange(count, dtype=np.int64) + padding
        limit = len(self.first) - 1
        start = -((kernel - 1 - index) // stride)  # ceil((index - kernel + 1) / stride)
        end = index // stride
        return Line(self.first[start.clip(0, limit)], self.last[end.clip(0, limit)], self.stride // stride)

    def joined(self, other: Line) -> Line:
        """Where two maps on the same grid are added or concatenated."""
        return Line(np.minimum(self.first, other.first), np.maximum(self.last, other.last), self.stride)

    def field(self, stage: str) -> StageField:
        """The widest dependence in the middle of the line, far from its ends."""
        middle = slice(len(self.first) // 2 - 64, len(self.first) // 2 + 64)
        widest = int((self.last[middle] - self.first[middle]).max()) + 1
        return StageField(stage, self.stride, widest)
