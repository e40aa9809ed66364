"""Layer normalisation over the channel vector of each voxel."""

from __future__ import annotations

import torch.nn.functional as functional
from torch import Tensor, nn


class ChannelLayerNorm(nn.LayerNorm):
    """``nn.LayerNorm(channels, eps=1e-6)`` applied to ``(batch, channels, k, j, i)`` at every voxel.

    In channels-last memory the permutation is a view, so nothing is copied.
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__(channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, channels, k, j, i)`` → the same shape."""
        voxels = x.permute(0, 2, 3, 4, 1)
        normed = functional.layer_norm(voxels, self.normalized_shape, self.weight, self.bias, self.eps)
        return normed.permute(0, 4, 1, 2, 3)
