"""Residual blocks and the up-sampling step of the UNETR family (Rep3D, DLKNETR), prepared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import leaky_relu_

from LKSegmentLib.networks.blocks.residual import ResidualBlock, UpBlock
from LKSegmentLib.operators.packed import PackedConvolution, PackedDoubling, PackedPointwise
from LKSegmentLib.operators.slabs import beside, convolved, planes_of, slabs_of

from .norms import SpaceNorm

_PLANES = 4  # of a slab, at least: thinner ones starve the convolutions


class PreparedResidualBlock:
    """Two convolutions and a shortcut, each writing one map; norms and sums happen slab by slab."""

    def __init__(self, block: ResidualBlock) -> None:
        parts: Any = block
        self.first = PackedConvolution(parts.conv1.conv.weight, padding=(0, 1, 1))
        self.second = PackedConvolution(parts.conv2.conv.weight, padding=(0, 1, 1))
        self.shortcut = None if block.conv3 is None else PackedPointwise(parts.conv3.conv.weight)
        self.slope = float(parts.act.negative_slope)
        self.inner_norm, self.outer_norm = SpaceNorm(block.norm, self.slope), SpaceNorm(block.norm, 1)

    def __call__(self, x: Tensor) -> Tensor:
        """(planes, rows, columns, in) → (planes, rows, columns, out)."""
        return self.of_slabs(lambda: slabs_of(x, self.planes(x.shape[1], x.shape[2])), x.shape[0])

    def planes(self, rows: int, columns: int) -> int:
        """Of a slab of the input."""
        out_channels, in_channels = self.first.weight.shape[:2]
        return planes_of(rows, columns, max(in_channels, out_channels), at_least=_PLANES)

    def of_slabs(self, slabs: Callable[[], Iterator[Tensor]], planes: int) -> Tensor:
        """The input as a stream that can be started twice, of so many planes together → the result."""
        inner = self.inner_norm.of_slabs(convolved(slabs(), 1, self.first), planes)
        outer = self.outer_norm.of_slabs(convolved(inner.slabs(), 1, self.second), planes)
        if self.shortcut is None:
            aside = slabs()
        else:
            aside = self.outer_norm.of_slabs(map(self.shortcut, slabs()), planes).slabs(None)
        out = outer.raw
        begin = 0
        for slab, own in beside(aside, out):
            out[begin : begin + own.shape[0]] = leaky_relu_(outer.of(own).add_(slab), self.slope)
            begin += own.shape[0]
        return out


class PreparedUpBlock:
    """Doubling, concatenation and residual block; the doubled map and the concatenation exist in slabs only."""

    def __init__(self, block: UpBlock) -> None:
        parts: Any = block
        self.double = PackedDoubling(parts.transp_conv.conv.weight)
        self.residual = PreparedResidualBlock(block.conv_block)

    @staticmethod
    def takes(x: Tensor, skip: Tensor) -> bool:
        """Whether the doubled map has the skip's size: no odd size was halved. (batch, channels, k, j, i) each."""
        return all(2 * coarse == fine for coarse, fine in zip(x.shape[2:], skip.shape[2:], strict=True))

    def __call__(self, x: Tensor, skip: Tensor) -> Tensor:
        """(planes, rows, columns, in) and (2 planes, 2 rows, 2 columns, out) → the shape of the skip."""
        planes = max(_PLANES, self.residual.planes(*skip.shape[1:3])) // 2

        def joined() -> Iterator[Tensor]:
            doubled = map(self.double, slabs_of(x, planes))
            return (torch.cat(pair, dim=-1) for pair in beside(doubled, skip))

        return self.residual.of_slabs(joined, skip.shape[0])
