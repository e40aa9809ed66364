"""``lk_click``: our own compact large-kernel network for interactive segmentation.

Not a published network. A four-level U-Net of dynamic-large-kernel blocks with *per-kernel* selection (so that the
two spatial maps w1 and w2 really belong to the 5³ and to the dilated 7³ kernel) and one large-kernel attention module
(K = 21, d = 3) in the middle of the decoder, on the upsampled map as in the LK-attention U-Net. The blocks work at
half resolution and below; full resolution sees one convolution on the way in and one on the way out.

Input channels are those of ``LKSegmentLib.prompts``: image, clicks, similarity to the clicks, previous mask.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from LKSegmentLib.errors import InputError
from LKSegmentLib.operators import PointwiseConv3d

from .blocks.dynamic_large_kernel import DynamicLargeKernelBlock
from .blocks.layer_norm import ChannelLayerNorm
from .blocks.lk_attention import LKAttention


class LKClick(nn.Module):
    """``(batch, in_channels, k, j, i)`` → logits ``(batch, out_channels, k, j, i)``; edges are multiples of 8.

    Args:
        in_channels: 9 for the prompt channels of ``LKSegmentLib.prompts``.
        out_channels: 1: the logit of "belongs to the structure".
        feature_sizes: channels at full, 1/2, 1/4 and 1/8 resolution.
        depths: DLK blocks at 1/2, 1/4 and 1/8 in the encoder; the decoder has one block at 1/4 and at 1/2.
        selection: ``"per_kernel"`` (trained so) or ``"sum"``.
        layer_scale: initial value of the blocks' layer scale.
    """

    size_multiple = 8
    minimum_size = 16

    def __init__(
        self,
        in_channels: int = 9,
        out_channels: int = 1,
        feature_sizes: tuple[int, int, int, int] = (16, 32, 64, 128),
        depths: tuple[int, int, int] = (1, 2, 2),
        selection: str = "per_kernel",
        layer_scale: float = 0.1,
    ) -> None:
        super().__init__()
        full, half, quarter, eighth = feature_sizes

        def blocks(channels: int, count: int) -> nn.Sequential:
            return nn.Sequential(
                *(DynamicLargeKernelBlock(channels, selection, layer_scale) for _ in range(count))
            )

        self.stem = nn.Sequential(nn.Conv3d(in_channels, full, 3, padding=1), nn.LeakyReLU(0.01))
        self.down = nn.ModuleList(
            nn.Sequential(nn.Conv3d(a, b, 3, stride=2, padding=1), ChannelLayerNorm(b))
            for a, b in ((full, half), (half, quarter), (quarter, eighth))
        )
        self.encoder = nn.ModuleList(
            blocks(channels, count) for channels, count in zip((half, quarter, eighth), depths, strict=True)
        )
        self.up_quarter = nn.Sequential(
            nn.ConvTranspose3d(eighth, quarter, 2, stride=2), nn.GroupNorm(8, quarter), nn.LeakyReLU(0.01)
        )
        self.attention = LKAttention(quarter, kernel=21, dilation=3)
        self.fuse_quarter = PointwiseConv3d(2 * quarter, quarter)
        self.decoder_quarter = blocks(quarter, 1)
        self.up_half = nn.Sequential(nn.ConvTranspose3d(quarter, half, 2, stride=2), ChannelLayerNorm(half))
        self.fuse_half = PointwiseConv3d(2 * half, half)
        self.decoder_half = blocks(half, 1)
        self.up_full = nn.ConvTranspose3d(half, full, 2, stride=2)
        self.fuse_full = nn.Sequential(nn.Conv3d(2 * full, full, 3, padding=1), nn.LeakyReLU(0.01))
        self.head = PointwiseConv3d(full, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Channels as listed in ``LKSegmentLib.prompts.CHANNELS``.

        Raises:
            InputError: an edge is not a multiple of 8 or below 16.
        """
        if any(edge % self.size_multiple or edge < self.minimum_size for edge in x.shape[2:]):
            raise InputError(
                f"lk_click takes windows whose edges are multiples of {self.size_multiple}, at least "
                f"{self.minimum_size}; got {tuple(x.shape[2:])}. Pad the window."
            )
        full = self.stem(x)
        half = self.encoder[0](self.down[0](full))
        quarter = self.encoder[1](self.down[1](half))
        eighth = self.encoder[2](self.down[2](quarter))
        up = self.attention(self.up_quarter(eighth))
        up = self.decoder_quarter(self.fuse_quarter(torch.cat((up, quarter), dim=1)))
        up = self.decoder_half(self.fuse_half(torch.cat((self.up_half(up), half), dim=1)))
        up = self.fuse_full(torch.cat((self.up_full(up), full), dim=1))
        logits: Tensor = self.head(up)
        return logits
