"""``lk_click``: our own compact large-kernel network for interactive segmentation.

Not a published network. A U-Net of dynamic-large-kernel blocks with *per-kernel* selection (so that the two spatial
maps w1 and w2 really belong to the 5³ and to the dilated 7³ kernel) at 1/4 and 1/8 of the resolution, and one
large-kernel attention module (K = 21, d = 3) in the middle of the decoder, on the upsampled map as in the LK-attention
U-Net.

Nothing is computed at full resolution, which would take most of the time: the answer for the eight voxels of a voxel
at 1/2 is made there, from its features and from the eight voxels of every input channel (sub-pixel convolution, Shi et
al., CVPR 2016). How it compares with other designs in equal time: docs/click-designs.md.

Input channels are those of ``LKSegmentLib.prompts``: image, clicks, similarity and nearness to them, previous
mask, correction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from LKSegmentLib.errors import InputError
from LKSegmentLib.operators import PointwiseConv3d

from .blocks.dynamic_large_kernel import DynamicLargeKernelBlock, Selection
from .blocks.expected_dice import ExpectedDice
from .blocks.layer_norm import ChannelLayerNorm
from .blocks.lk_attention import LKAttention
from .constraints import check_input, one_of, switch, whole, whole_list
from .dnet import through_blocks
from .receptive_field import Line, StageField

HalfStage = Literal["convolution", "large_kernel"]
_GROUPS = 8
NEAR = 2  # voxels along an edge that one voxel at half resolution stands for


class LKClick(nn.Module):
    """``(batch, in_channels, k, j, i)`` → logits ``(batch, out_channels, k, j, i)``; edges are multiples of 8.

    Args:
        in_channels: 12 for the prompt channels of ``LKSegmentLib.prompts``.
        out_channels: 1: the logit of "belongs to the structure".
        feature_sizes: channels at 1/2, 1/4 and 1/8 resolution.
        depths: blocks at 1/2, 1/4 and 1/8 in the encoder; the decoder has one at 1/4 and at 1/2.
        half_stage: the blocks at 1/2: pairs of 3³ convolutions, or large-kernel blocks as further down.
        exit_features: channels of the layer that joins features and input voxels.
        selection: ``"per_kernel"`` (trained so) or ``"sum"``.
        tells_dice: whether :meth:`answer` also tells how good the mask is; one output only.
        layer_scale: initial value of the large-kernel blocks' layer scale.

    Raises:
        InputError: a value that is not allowed.
    """

    size_multiple = 8
    minimum_size = 16

    def __init__(
        self,
        in_channels: int = 12,
        out_channels: int = 1,
        feature_sizes: Sequence[int] = (32, 64, 128),
        depths: Sequence[int] = (1, 4, 8),
        half_stage: HalfStage = "convolution",
        exit_features: int = 48,
        selection: Selection = "per_kernel",
        tells_dice: bool = False,
        layer_scale: float = 0.1,
    ) -> None:
        super().__init__()
        self.in_channels = whole("in_channels", in_channels)
        self.out_channels = whole("out_channels", out_channels)
        self.feature_sizes = half, quarter, eighth = whole_list("feature_sizes", feature_sizes, length=3)
        for number, width, multiple in ((0, half, 2), (1, quarter, _GROUPS), (2, eighth, 2)):
            whole(f"feature_sizes[{number}]", width, minimum=multiple, multiple=multiple)
        self.depths = whole_list("depths", depths, length=3)
        self.half_stage: str = one_of("half_stage", half_stage, HalfStage)
        near = whole("exit_features", exit_features)
        self.options = {
            "feature_sizes": list(self.feature_sizes),
            "depths": list(self.depths),
            "half_stage": self.half_stage,
            "exit_features": near,
            "selection": selection,
            "tells_dice": tells_dice,
        }

        def blocks(channels: int, count: int, large: bool = True) -> nn.Sequential:
            return nn.Sequential(
                *(
                    DynamicLargeKernelBlock(channels, selection, layer_scale) if large else ConvolutionBlock(channels)
                    for _ in range(count)
                )
            )

        large_at_half = self.half_stage == "large_kernel"
        self.down = nn.ModuleList(
            nn.Sequential(nn.Conv3d(a, b, 3, stride=2, padding=1), ChannelLayerNorm(b))
            for a, b in ((in_channels, half), (half, quarter), (quarter, eighth))
        )
        self.encoder = nn.ModuleList(
            (
                blocks(half, self.depths[0], large_at_half),
                blocks(quarter, self.depths[1]),
                blocks(eighth, self.depths[2]),
            )
        )
        self.up_quarter = nn.Sequential(
            nn.ConvTranspose3d(eighth, quarter, 2, stride=2), nn.GroupNorm(_GROUPS, quarter), nn.LeakyReLU(0.01)
        )
        self.attention = LKAttention(quarter, kernel=21, dilation=3)
        self.fuse_quarter = PointwiseConv3d(2 * quarter, quarter)
        self.decoder_quarter = blocks(quarter, 1)
        self.up_half = nn.Sequential(nn.ConvTranspose3d(quarter, half, 2, stride=2), ChannelLayerNorm(half))
        self.fuse_half = PointwiseConv3d(2 * half, half)
        self.decoder_half = blocks(half, 1, large_at_half)
        self.exit_features = PointwiseConv3d(half, near)
        self.exit_voxels = NearVoxelsConv3d(in_channels, near)
        self.act = nn.LeakyReLU(0.01)
        self.head = nn.Sequential(nn.Conv3d(near, NEAR**3 * out_channels, 3, padding=1), ChannelsToVoxels())
        if switch("tells_dice", tells_dice) and out_channels != 1:
            raise InputError(f"LK Click tells the expected Dice of one output only; it has {out_channels}.")
        self.judgement = ExpectedDice(eighth, half) if tells_dice else None

    def forward(self, x: Tensor, judged: bool = False) -> Any:
        """Channels as listed in ``LKSegmentLib.prompts.CHANNELS``; ``judged``: return what :meth:`answer` does.

        Raises:
            InputError: a size or a number of channels that the network cannot take.
        """
        check_input("LK Click", x.shape, self.in_channels, self.size_multiple, self.minimum_size)
        half = self.encoder[0](self.down[0](x))
        quarter = self.encoder[1](self.down[1](half))
        eighth = self.encoder[2](self.down[2](quarter))
        up = self.attention(self.up_quarter(eighth))
        up = self.decoder_quarter(self.fuse_quarter(torch.cat((up, quarter), dim=1)))
        up = self.decoder_half(self.fuse_half(torch.cat((self.up_half(up), half), dim=1)))
        near = self.act(self.exit_features(up) + self.exit_voxels(x))
        logits = self.head(near)
        if not judged:
            return logits
        return logits, None if self.judgement is None else self.judgement(logits, eighth, up)

    def answer(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The logits, and the logits ``(batch,)`` of the Dice that the mask has with what is meant.

        What is meant may go on outside of the window; None where the network does not tell.
        """
        answer: tuple[Tensor, Tensor | None] = self(x, judged=True)  # called, so that hooks hear of it
        return answer

    def receptive_fields(self) -> list[StageField]:
        """Of the encoder's stages, the attended map and the logits, in input voxels; the global gates left out."""
        x = Line.of_input()
        voxels = x.convolved(NEAR, stride=NEAR, padding=0)
        skips: list[Line] = []
        fields: list[StageField] = []
        for stage, depth in enumerate(self.depths):
            x = self._through_stage(x.convolved(3, stride=2), depth, stage)
            skips.append(x)
            fields.append(x.field(f"encoder {stage}"))
        skips.pop()
        x = x.upsampled().convolved(7, dilation=3).convolved(5)
        fields.append(x.field("attention"))
        x = through_blocks(x.joined(skips.pop()), 1)
        x = self._through_stage(x.upsampled().joined(skips.pop()), 1, 0)
        return [*fields, x.joined(voxels).convolved(3).upsampled().field("logits")]

    def _through_stage(self, x: Line, depth: int, stage: int) -> Line:
        if stage or self.half_stage == "large_kernel":
            return through_blocks(x, depth)
        for _ in range(2 * depth):
            x = x.convolved(3)
        return x


class ConvolutionBlock(nn.Module):
    """``x + Conv3(LeakyReLU(Conv3(LN(x))))``; shapes stay."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm_layer = ChannelLayerNorm(channels)
        self.conv1 = nn.Conv3d(channels, channels, 3, padding=1)
        self.act = nn.LeakyReLU(0.01)
        self.conv2 = nn.Conv3d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, channels, k, j, i)`` → the same shape."""
        added: Tensor = self.conv2(self.act(self.conv1(self.norm_layer(x))))
        return x + added


class NearVoxelsConv3d(nn.Conv3d):
    """Every ``NEAR``³ voxels of all channels → features at their middle: ``(batch, c, 2k, 2j, 2i)`` → ``(…, k, j, i)``.

    The weight is that of a pointwise convolution over 8 times as many channels: number 8 c + 4 dk + 2 dj + di is voxel
    (dk, dj, di) of channel c.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(NEAR**3 * in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return functional.conv3d(x, self.weight.view(self.out_channels, -1, NEAR, NEAR, NEAR), stride=NEAR)


class ChannelsToVoxels(nn.Module):
    """``(batch, 8 c, k, j, i)`` → ``(batch, c, 2k, 2j, 2i)``, channels as :class:`NearVoxelsConv3d` orders them."""

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        batch, channels, k, j, i = x.shape
        parts = x.reshape(batch, channels // NEAR**3, NEAR, NEAR, NEAR, k, j, i).permute(0, 1, 5, 2, 6, 3, 7, 4)
        return parts.reshape(batch, channels // NEAR**3, NEAR * k, NEAR * j, NEAR * i)
