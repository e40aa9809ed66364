"""DLKNETR: D-Net's sibling in the same repository, a DLK encoder under the decoder of UNETR (arXiv
2403.10674).

    image ─┬─ stem ─ DLK ─┬─ down ─ DLK ─┬─ down ─ DLK ─┬─ down ─ DLK ─┬─ down
           │              │ 48, 1/2      │ 96, 1/4      │ 192, 1/8     │ 384, 1/16    │ 768, 1/32
        residual       residual       residual       residual       residual         │
           └─► up ◄───────┴── up ◄───────┴── up ◄───────┴── up ◄───────┴── up ◄───────┘  ─► logits

Exact against the released code in tensor names, shapes and counts. One point rests on a description in words,
without a published result at hand to settle it: the normalised output of a stage is taken to feed the next
stage as well as the skip.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import torch
from torch import Tensor, nn

from LKSegmentLib.operators import PointwiseConv3d

from .blocks import ChannelLayerNorm
from .blocks.dynamic_large_kernel import Selection, dlk_stages
from .blocks.residual import OutputBlock, SkipBlock, UpBlock
from .constraints import check_input, fraction, number, one_of, switch, whole, whole_list
from .dnet import halvings, through_blocks
from .receptive_field import Line, StageField


class DLKNETR(nn.Module):
    """DLKNETR.

    Args:
        in_channels: of the image.
        out_channels: classes.
        depths: DLK blocks of each encoder stage. The fifth number is published and unused: the deepest level
            is a strided convolution and a norm.
        feature_sizes: channels of the five levels; even numbers, but for the last.
        deep_supervision: build auxiliary heads (23,888 parameters in the published configuration, of which
            one head is never used) and return logits at five resolutions.
        selection: as of `DNet`.
        layer_scale: initial value of the blocks' layer scale, 1e-2 here.
        drop_path_rate: of the last encoder block in training; earlier ones less, linearly.

    Raises:
        InputError: a value that is not allowed.
    """

    size_multiple: int = 1
    minimum_size: int = 17  # two voxels at 1/16, where instance norm needs them

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 16,
        depths: Sequence[int] = (2, 2, 2, 2, 2),
        feature_sizes: Sequence[int] = (48, 96, 192, 384, 768),
        deep_supervision: bool = False,
        selection: Selection = "sum",
        layer_scale: float = 1e-2,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.in_channels = whole("in_channels", in_channels)
        self.out_channels = whole("out_channels", out_channels)
        self.depths = whole_list("depths", depths, length=5)
        widths = whole_list("feature_sizes", feature_sizes, length=5)
        whole_list("feature_sizes", widths[:4], minimum=2, multiple=2)
        one_of("selection", selection, get_args(Selection))
        number("layer_scale", layer_scale)
        rate = fraction("drop_path_rate", drop_path_rate)
        how = (selection, layer_scale, torch.linspace(0, rate, sum(self.depths), device="cpu").tolist())
        self.deep_supervision = switch("deep_supervision", deep_supervision)
        self.decoder = _Decoder(in_channels, out_channels, widths, deep_supervision)
        self.decoder.DLKEncoder = _Encoder(in_channels, widths, dlk_stages(widths[:4], self.depths[:4], *how))

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Segment.

        Args:
            image: (batch, in_channels, k, j, i); any sizes, one of them at least 17.

        Returns:
            Logits (batch, out_channels, k, j, i); with deep supervision a list of them at 1, 1/2, 1/4, 1/8
            and 1/16 (sizes rounded up).

        Raises:
            InputError: a size or a number of channels that the network cannot take.
        """
        check_input("DLKNETR", image.shape, self.in_channels, self.size_multiple, self.minimum_size, thinnest=1)
        logits: list[Tensor] = self.decoder(image, self.deep_supervision)
        return logits if self.deep_supervision else logits[0]

    def receptive_fields(self) -> list[StageField]:
        """Of the encoder's levels and the logits, in input voxels; the global gates left out."""
        x = Line.of_input()
        fields: list[StageField] = []
        skips = [x.convolved(3).convolved(3)]
        for level in range(5):
            x = x.convolved(3 if level else 7, stride=2)
            if level < 4:
                x = through_blocks(x, self.depths[level])
                skips.append(x.convolved(3).convolved(3))
            fields.append(x.field(f"encoder {level}"))
        while skips:
            x = x.upsampled().joined(skips.pop()).convolved(3).convolved(3)
        return [*fields, x.field("logits")]


class _Encoder(nn.Module):
    """Five levels: strided convolution and layer norm; DLK blocks and the same norm again on the first four."""

    def __init__(self, in_channels: int, widths: Sequence[int], stages: nn.ModuleList) -> None:
        super().__init__()
        self.downsample_layers = halvings(in_channels, widths)
        self.stages = stages
        self.norm_layers = nn.ModuleList(ChannelLayerNorm(width) for width in widths)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Image (batch, channels, k, j, i) → maps at 1/2, 1/4, 1/8, 1/16 and 1/32."""
        features = []
        x = image
        for level, (down, norm) in enumerate(zip(self.downsample_layers, self.norm_layers, strict=True)):
            x = norm(down(x))
            if level < len(self.stages):
                x = norm(self.stages[level](x))
            features.append(x)
        return features


class _Decoder(nn.Module):
    """The decoder of UNETR; in the released code it owns the encoder too, hence the names."""

    def __init__(
        self, in_channels: int, out_channels: int, widths: Sequence[int], deep_supervision: bool
    ) -> None:
        super().__init__()
        self.DLKEncoder: nn.Module = (
            nn.Identity()
        )  # set by the network; declared here for the order of the names
        self.encoder1 = SkipBlock(in_channels, widths[0])
        self.encoder2 = SkipBlock(widths[0], widths[0])
        self.encoder3 = SkipBlock(widths[1], widths[1])
        self.encoder4 = SkipBlock(widths[2], widths[2])
        self.encoder5 = SkipBlock(widths[3], widths[3])
        self.decoder5 = UpBlock(widths[4], widths[3])
        self.decoder4 = UpBlock(widths[3], widths[2])
        self.decoder3 = UpBlock(widths[2], widths[1])
        self.decoder2 = UpBlock(widths[1], widths[0])
        self.decoder1 = UpBlock(widths[0], widths[0])
        self.out = OutputBlock(widths[0], out_channels)
        if deep_supervision:
            self.out_4 = PointwiseConv3d(widths[4], out_channels)  # published, never used
            self.out_3 = PointwiseConv3d(widths[3], out_channels)
            self.out_2 = PointwiseConv3d(widths[2], out_channels)
            self.out_1 = PointwiseConv3d(widths[1], out_channels)
            self.out_0 = PointwiseConv3d(widths[0], out_channels)

    def forward(self, image: Tensor, deep_supervision: bool) -> list[Tensor]:
        """Image → logits, finest first."""
        features = self.DLKEncoder(image)
        sixteenth = self.decoder5(features[4], self.encoder5(features[3]))
        eighth = self.decoder4(sixteenth, self.encoder4(features[2]))
        quarter = self.decoder3(eighth, self.encoder3(features[1]))
        half = self.decoder2(quarter, self.encoder2(features[0]))
        full = self.decoder1(half, self.encoder1(image))
        logits = [self.out(full)]
        if deep_supervision:
            logits += [self.out_0(half), self.out_1(quarter), self.out_2(eighth), self.out_3(sixteenth)]
        return logits
