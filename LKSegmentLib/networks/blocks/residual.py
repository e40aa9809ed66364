"""The residual convolution blocks of the UNETR family, as Rep3D and DLKNETR use them.

Tensor names are those of MONAI's blocks, which the released networks are made of. Instance norm has no
tensors.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from LKSegmentLib.operators import PointwiseConv3d


class ResidualBlock(nn.Module):
    """Two 3³ convolutions and a shortcut; no bias anywhere.

        r = L(IN(Conv3_{a→b}(x)))            IN: instance norm without affine, L: leaky ReLU 0.01
        r = IN(Conv3_{b→b}(r))
        s = x if a = b, else IN(Conv1_{a→b}(x))
        out = L(r + s)

    Args:
        in_channels: a.
        out_channels: b.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = _named(nn.Conv3d(in_channels, out_channels, 3, padding=1, bias=False))
        self.conv2 = _named(nn.Conv3d(out_channels, out_channels, 3, padding=1, bias=False))
        self.conv3: nn.Module | None = None
        if in_channels != out_channels:
            self.conv3 = _named(PointwiseConv3d(in_channels, out_channels, bias=False))
        self.norm = nn.InstanceNorm3d(out_channels)
        self.act = nn.LeakyReLU(0.01, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in_channels, k, j, i) → (batch, out_channels, k, j, i)."""
        residual = self.norm(self.conv2(self.act(self.norm(self.conv1(x)))))
        shortcut = x if self.conv3 is None else self.norm(self.conv3(x))
        out: Tensor = self.act(residual + shortcut)
        return out


class SkipBlock(nn.Module):
    """A residual block under the name `layer`, on the way from an encoder map to the decoder."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.layer = ResidualBlock(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in_channels, k, j, i) → (batch, out_channels, k, j, i)."""
        out: Tensor = self.layer(x)
        return out


class UpBlock(nn.Module):
    """Double the size, join the skip, mix: ResidualBlock(concat(ConvTranspose2(x), skip)).

    Where the upsampled map is larger than the skip (an odd size was halved), its end is cut off.

    Args:
        in_channels: of the coarse map.
        out_channels: of the skip and of the result.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.transp_conv = _named(nn.ConvTranspose3d(in_channels, out_channels, 2, stride=2, bias=False))
        self.conv_block = ResidualBlock(2 * out_channels, out_channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(batch, in_channels, k, j, i) and (batch, out_channels, 2k, 2j, 2i) → the shape of the skip."""
        up = self.transp_conv(x)
        if up.shape != skip.shape:
            up = up[:, :, : skip.shape[2], : skip.shape[3], : skip.shape[4]]
        out: Tensor = self.conv_block(torch.cat((up, skip), dim=1))
        return out


class OutputBlock(nn.Module):
    """A 1³ convolution to the classes, under the names `conv.conv`."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = _named(PointwiseConv3d(in_channels, out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in_channels, k, j, i) → logits (batch, out_channels, k, j, i)."""
        logits: Tensor = self.conv(x)
        return logits


def _named(convolution: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(conv=convolution))
