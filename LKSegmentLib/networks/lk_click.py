"""``lk_click``: our own compact large-kernel network for interactive segmentation.

Not a published network. A four-level U-Net of dynamic-large-kernel blocks with *per-kernel* selection (so that the
two spatial maps w1 and w2 really belong to the 5³ and to the dilated 7³ kernel) and one large-kernel attention module
(K = 21, d = 3) in the middle of the decoder, on the upsampled map as in the LK-attention U-Net. The blocks work at
half resolution and below; full resolution sees one convolution on the way in and one on the way out.

Input channels are those of ``LKSegmentLib.prompts``: image, clicks, similarity to the clicks, previous mask.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from LKSegmentLib.operators import PointwiseConv3d

from .blocks.dynamic_large_kernel import DynamicLargeKernelBlock, Selection
from .blocks.layer_norm import ChannelLayerNorm
from .blocks.lk_attention import LKAttention
from .constraints import check_input, whole, whole_list
from .dnet import through_blocks
from .receptive_field import Line, StageField

_GROUPS = 8


class LKClick(nn.Module):
    """``(batch, in_channels, k, j, i)`` → logits ``(batch, out_channels, k, j, i)``; edges are multiples of 8.

    Args:
        in_channels: 9 for the prompt channels of ``LKSegmentLib.prompts``.
        out_channels: 1: the logit of "belongs to the structure".
        feature_sizes: channels at full, 1/2, 1/4 and 1/8 resolution.
        depths: DLK blocks at 1/2, 1/4 and 1/8 in the encoder; the decoder has one block at 1/4 and at 1/2.
        selection: ``"per_kernel"`` (trained so) or ``"sum"``.
        layer_scale: initial value of the blocks' layer scale.

    Raises:
        InputError: a value that is not allowed.
    """

    size_multiple = 8
    minimum_size = 16

    def __init__(
        self,
        in_channels: int = 9,
        out_channels: int = 1,
        feature_sizes: Sequence[int] = (16, 32, 64, 128),
        depths: Sequence[int] = (1, 2, 2),
        selection: Selection = "per_kernel",
        layer_scale: float = 0.1,
    ) -> None:
        super().__init__()
        self.in_channels = whole("in_channels", in_channels)
        self.out_channels = whole("out_channels", out_channels)
        full, half, quarter, eighth = whole_list("feature_sizes", feature_sizes, length=4)
        for number, width, multiple in ((1, half, 2), (2, quarter, _GROUPS), (3, eighth, 2)):
            whole(f"feature_sizes[{number}]", width, minimum=multiple, multiple=multiple)
        self.depths = whole_list("depths", depths, length=3)

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
            blocks(channels, count) for channels, count in zip((half, quarter, eighth), self.depths, strict=True)
        )
        self.up_quarter = nn.Sequential(
            nn.ConvTranspose3d(eighth, quarter, 2, stride=2), nn.GroupNorm(_GROUPS, quarter), nn.LeakyReLU(0.01)
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
            InputError: a size or a number of channels that the network cannot take.
        """
        check_input("LK Click", x.shape, self.in_channels, self.size_multiple, self.minimum_size)
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

    def receptive_fields(self) -> list[StageField]:
        """Of the encoder's stages, the attended map and the logits, in input voxels; the global gates left out."""
        x = Line.of_input().convolved(3)
        skips = [x]
        fields: list[StageField] = []
        for stage, depth in enumerate(self.depths):
            x = through_blocks(x.convolved(3, stride=2), depth)
            skips.append(x)
            fields.append(x.field(f"encoder {stage}"))
        skips.pop()
        x = x.upsampled().convolved(7, dilation=3).convolved(5)
        fields.append(x.field("attention"))
        x = through_blocks(x.joined(skips.pop()), 1)
        x = through_blocks(x.upsampled().joined(skips.pop()), 1)
        return [*fields, x.upsampled().joined(skips.pop()).convolved(3).field("logits")]
