"""D-Net: dynamic large kernels with dynamic feature fusion (arXiv 2403.10674; as released in 2025).

    image ─┬─ stem ─ DLK ─┬─ down ─ DLK ─┬─ down ─ DLK ─┬─ down ─ DLK ─┬─ down ─ DLK ─┐
           │              │ 48, 1/2      │ 96, 1/4      │ 192, 1/8     │ 384, 1/16    │ 768, 1/32
           │   DFF ◄─ up ─ DLK ◄─ DFF ◄─ up ─ DLK ◄─ DFF ◄─ up ─ DLK ◄─ DFF ◄─ up ──────┘
           └─ Salience ─► DFF ─► two 3³ convolutions ─► logits

Exact against the released code (network files as of 2025-09-07): tensor names, shapes and results. Its text
and its code disagree in places; the code is followed, because only it has the published 39.28 M parameters.
`selection`, `salience_norm` and `layer_scale` are switches of ours whose defaults are the published
behaviour.

Known limits of the published design, kept as they are: the gates of DLK and DFF pool over the whole window,
and at the deepest level of a 96³ window only one of the 343 taps of the dilated kernel can touch data. Infer
with the window used in training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

import torch
from torch import Tensor, nn

from LKSegmentLib.errors import InputError
from LKSegmentLib.operators import PointwiseConv3d

from .blocks import ChannelLayerNorm
from .blocks.dynamic_large_kernel import Selection, dlk_stages
from .blocks.feature_fusion import DynamicFeatureFusion
from .blocks.salience import SalienceLayer, SalienceNorm
from .constraints import check_input, fraction, number, one_of, switch, whole, whole_list
from .receptive_field import Line, StageField


class DNet(nn.Module):
    """D-Net.

    Args:
        in_channels: of the image.
        out_channels: classes.
        depths: DLK blocks of each encoder stage. Decoder step n (deepest first) has `depths[n]`: with unequal
            depths the decoder is not the encoder's mirror image.
        feature_sizes: channels of each encoder stage, even numbers.
        deep_supervision: return logits at all levels instead of the full resolution alone. The auxiliary
            heads exist either way and are run only when asked for.
        selection: what the two spatial maps of a dynamic large kernel weigh: `"sum"` (published: their sum
            gates both kernels' responses), `"per_kernel"` (ours: one map for each kernel; the same weights).
        layer_scale: initial value of the blocks' layer scale. Published 1e-6, at which untrained blocks are
            inert; 1e-2 is our advice for training from scratch (the sibling network uses it).
        drop_path_rate: of the last encoder block in training; earlier ones less, linearly.
        salience_norm: `"shared"` (published) or `"separate"`; see `SalienceLayer`.

    Raises:
        InputError: a value that is not allowed.
    """

    size_multiple: int = 32
    minimum_size: int = 32

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 16,
        depths: Sequence[int] = (2, 2, 2, 2, 2),
        feature_sizes: Sequence[int] = (48, 96, 192, 384, 768),
        deep_supervision: bool = False,
        selection: Selection = "sum",
        layer_scale: float = 1e-6,
        drop_path_rate: float = 0.0,
        salience_norm: SalienceNorm = "shared",
    ) -> None:
        super().__init__()
        self.in_channels = whole("in_channels", in_channels)
        self.out_channels = whole("out_channels", out_channels)
        widths = whole_list("feature_sizes", feature_sizes, minimum=2, multiple=2)
        if len(widths) < 2:
            raise InputError(f"feature_sizes={feature_sizes!r} has too few stages. Give at least 2.")
        counts = whole_list("depths", depths, length=len(widths))
        one_of("selection", selection, get_args(Selection))
        number("layer_scale", layer_scale)
        one_of("salience_norm", salience_norm, get_args(SalienceNorm))
        switch("deep_supervision", deep_supervision)
        self.feature_sizes, self.depths = widths, counts
        self.size_multiple = self.minimum_size = 2 ** len(widths)

        # One list of rates for each half, consumed in order; the decoder's is as long and used in part.
        rate = fraction("drop_path_rate", drop_path_rate)
        how = (selection, layer_scale, torch.linspace(0, rate, sum(counts), device="cpu").tolist())
        rising = widths[-2::-1]
        self.encoder = _Encoder(in_channels, widths, dlk_stages(widths, counts, *how), salience_norm)
        self.decoder = _Decoder(out_channels, widths, dlk_stages(rising, counts[: len(rising)], *how))
        self.decoder.deep_supervision = deep_supervision

    @property
    def deep_supervision(self) -> bool:
        """Kept on the decoder, where nnU-Net v2 switches it."""
        return self.decoder.deep_supervision

    @deep_supervision.setter
    def deep_supervision(self, value: bool) -> None:
        self.decoder.deep_supervision = value

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Segment.

        Args:
            image: (batch, in_channels, k, j, i); each size a multiple of `size_multiple` (32 with five
                stages).

        Returns:
            Logits (batch, out_channels, k, j, i); with deep supervision a list of them at 1, 1/2, 1/4, 1/8
            and 1/16.

        Raises:
            InputError: a size or a number of channels that the network cannot take.
        """
        check_input("D-Net", image.shape, self.in_channels, self.size_multiple, self.minimum_size)
        logits: list[Tensor] = self.decoder(*self.encoder(image))
        return logits if self.deep_supervision else logits[0]

    def official_to_native(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The names are the same; a separate norm of the Salience mixer starts as a copy of the shared one."""
        native = dict(tensors)
        if self.encoder.saliency.mixer_norm is not None:
            for name in self.encoder.saliency.mixer_norm.state_dict():
                shared = native.get(f"encoder.saliency.norm_layer.{name}")
                if shared is not None:
                    native.setdefault(f"encoder.saliency.mixer_norm.{name}", shared.clone())
        return native

    def receptive_fields(self) -> list[StageField]:
        """Of encoder stages, decoder steps and logits, in input voxels; the global gates left out."""
        fields: list[StageField] = []
        skips: list[Line] = []
        x = Line.of_input()
        for stage, depth in enumerate(self.depths):
            x = through_blocks(x.convolved(3 if stage else 7, stride=2), depth)
            skips.append(x)
            fields.append(x.field(f"encoder {stage}"))
        skips.pop()
        for step, depth in zip(range(len(skips)), self.depths, strict=False):
            x = through_blocks(x.upsampled().joined(skips.pop()), depth)
            fields.append(x.field(f"decoder {step}"))
        x = x.upsampled().joined(Line.of_input().convolved(3).convolved(3)).convolved(3).convolved(3)
        return [*fields, x.field("logits")]


class _Encoder(nn.Module):
    """For each stage a strided convolution, a layer norm, DLK blocks; beside them the Salience branch."""

    def __init__(
        self,
        in_channels: int,
        widths: Sequence[int],
        stages: nn.ModuleList,
        salience_norm: SalienceNorm,
    ) -> None:
        super().__init__()
        self.downsample_layers = halvings(in_channels, widths)
        self.stages = stages
        self.norm_layers = nn.ModuleList(ChannelLayerNorm(width) for width in widths)
        self.saliency = SalienceLayer(in_channels, widths[0], salience_norm)

    def forward(self, image: Tensor) -> tuple[list[Tensor], Tensor]:
        """Image (batch, channels, k, j, i) → outputs of the stages at 1/2, 1/4, …, and salience at full size."""
        features = []
        x = image
        for down, norm, stage in zip(self.downsample_layers, self.norm_layers, self.stages, strict=True):
            x = stage(norm(down(x)))
            features.append(x)
        return features, self.saliency(image)


class _Decoder(nn.Module):
    """For each skip: transposed convolution, layer norm, DFF, DLK blocks; then the full resolution."""

    deep_supervision: bool = False

    def __init__(self, out_channels: int, widths: Sequence[int], stages: nn.ModuleList) -> None:
        super().__init__()
        deepest_first = widths[::-1]
        outputs = deepest_first[1:]
        width = widths[0]
        self.upsample_layers = nn.ModuleList(
            nn.ConvTranspose3d(a, b, 2, stride=2) for a, b in zip(deepest_first, outputs, strict=False)
        )
        self.norm_layers = nn.ModuleList(ChannelLayerNorm(channels) for channels in outputs)
        self.steps = nn.ModuleList(DynamicFeatureFusion(channels) for channels in outputs)
        self.stages = stages
        self.seg_layers = nn.ModuleList(PointwiseConv3d(channels, out_channels) for channels in outputs)
        self.stem = nn.ConvTranspose3d(width, width, 2, stride=2)
        self.final_fusion = DynamicFeatureFusion(width)
        self.final_layer = FinalBlock(width, width)
        self.output_layer = PointwiseConv3d(width, out_channels)

    def forward(self, features: list[Tensor], salience: Tensor) -> list[Tensor]:
        """Encoder maps (finest first) and salience → logits (finest first; one unless deeply supervised)."""
        *skips, x = features
        logits: list[Tensor] = []
        for up, norm, fuse, stage, head in zip(
            self.upsample_layers, self.norm_layers, self.steps, self.stages, self.seg_layers, strict=True
        ):
            x = stage(fuse(norm(up(x)), skips.pop()))
            if self.deep_supervision:
                logits.insert(0, head(x))
        x = self.final_layer(self.final_fusion(self.stem(x), salience))
        return [self.output_layer(x), *logits]


class FinalBlock(nn.Module):
    """Twice: 3³ convolution, batch norm, leaky ReLU 0.2; no residual."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = _convolution_block(in_channels, out_channels)
        self.conv2 = _convolution_block(out_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in_channels, k, j, i) → (batch, out_channels, k, j, i)."""
        out: Tensor = self.conv2(self.conv1(x))
        return out


def _convolution_block(in_channels: int, out_channels: int) -> nn.Sequential:
    convolution = nn.Conv3d(in_channels, out_channels, 3, padding=1)
    return nn.Sequential(convolution, nn.BatchNorm3d(out_channels), nn.LeakyReLU(0.2, inplace=True))


def halvings(in_channels: int, widths: Sequence[int]) -> nn.ModuleList:
    """The strided convolutions before the stages: 7³ on the image, 3³ between the stages."""
    stem = nn.Conv3d(in_channels, widths[0], 7, stride=2, padding=3)
    between = (nn.Conv3d(a, b, 3, stride=2, padding=1) for a, b in zip(widths, widths[1:], strict=False))
    return nn.ModuleList([stem, *between])


def through_blocks(x: Line, depth: int) -> Line:
    """The receptive field after `depth` DLK blocks, global gates left out."""
    for _ in range(depth):  # the kernels 5³ and 7³ (dilation 3), the selection's 7³, the channel mixer's 3³
        x = x.convolved(5).convolved(7, dilation=3).convolved(7).convolved(3)
    return x
