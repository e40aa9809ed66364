"""The LK-attention U-Net: Li, Nan, Del Ser, Yang, Cognitive Computation 2023/24 (LKAU-Net, MIUA 2022).

A plain six-level U-Net whose upsampled maps pass through large-kernel attention before they meet the skip:

    level       0     1     2     3     4     5    resolution: input / 2^level
    channels   32    64   128   256   512   512    (published)
    base        -     -     -     -     -     -
    mid         -     -  21,3     -     -     -    nominal kernel, dilation (published; confirmed by the count)
    full     21,3  15,3   9,3   9,3   6,2     -    (reconstructed: the table of the paper could not be read)

Firm: channels, the equation of the attention module, mid, and full at level 4; full at level 0 is likely, its
levels 3, 2 and 1 are reconstructed. Not printed anywhere and chosen here: the number of normalisation groups
(8), the order of the concatenation (attention first), auxiliary heads as plain 1³ convolutions.

No official weights exist. The tensor names are ours, and the state dict of base is a subset of those of mid
and full.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from LKSegmentLib.errors import InputError
from LKSegmentLib.operators import PointwiseConv3d

from .blocks.lk_attention import LKAttention, Order
from .constraints import check_input, one_of, switch, whole, whole_list
from .receptive_field import Line, StageField

Variant = Literal["mid", "full", "base"]

# {level: (nominal kernel K, dilation d)}
ATTENTION: dict[str, dict[int, tuple[int, int]]] = {
    "base": {},
    "mid": {2: (21, 3)},
    "full": {4: (6, 2), 3: (9, 3), 2: (9, 3), 1: (15, 3), 0: (21, 3)},
}


class LKAUNet(nn.Module):
    """The LK-attention U-Net.

    Args:
        in_channels: of the image.
        out_channels: classes (softmax) or regions (sigmoid); the network returns logits.
        variant: which upsampled maps are attended: one at level 2 (`"mid"`), all (`"full"`), none (`"base"`).
        deep_supervision: return logits at levels 0 to 3 instead of level 0 alone. The auxiliary heads exist
            (and count among the parameters) either way; they are run only when asked for.
        order: of the two depth-wise convolutions: `"dwd_dw"` is the paper's equation, `"dw_dwd"` that of VAN.
            Do not change it between training and inference: results differ near the border.
        feature_sizes: channels of levels 0, 1, …
        norm_groups: groups of the group normalisation, at most the channels of a level.
        attention: {level: (K, d)} instead of the variant's own.

    Raises:
        InputError: a value that is not allowed.
    """

    size_multiple: int = 32
    minimum_size: int = 32

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 7,
        variant: Variant = "mid",
        deep_supervision: bool = False,
        order: Order = "dwd_dw",
        feature_sizes: Sequence[int] = (32, 64, 128, 256, 512, 512),
        norm_groups: int = 8,
        attention: Mapping[int, Sequence[int]] | None = None,
    ) -> None:
        super().__init__()
        self.in_channels = whole("in_channels", in_channels)
        self.out_channels = whole("out_channels", out_channels)
        self.variant = one_of("variant", variant, get_args(Variant))
        self.deep_supervision = switch("deep_supervision", deep_supervision)
        self.feature_sizes = widths = whole_list("feature_sizes", feature_sizes)
        if len(widths) < 2:
            raise InputError(f"feature_sizes={tuple(feature_sizes)} has too few levels. Give at least 2.")
        groups = whole("norm_groups", norm_groups)
        for width in widths:
            if width % min(groups, width):
                raise InputError(f"feature_sizes has {width}, which {groups} norm_groups do not divide.")
        deepest = len(widths) - 1
        self.attention = _checked_attention(ATTENTION[variant] if attention is None else attention, deepest)
        # Published: "additional outputs at all scales except the two lowest levels".
        self.auxiliary_levels = tuple(range(1, deepest - 1))
        self.size_multiple = 2**deepest
        # A group that is one channel needs more than one voxel to have a variance.
        self.minimum_size = self.size_multiple * (2 if widths[-1] <= groups else 1)
        one_of("order", order, get_args(Order))

        first = _Stage(in_channels, widths[0], groups)
        self.enc = nn.ModuleList([first, *(_Stage(width, width, groups) for width in widths[1:])])
        self.down = nn.ModuleList(
            _normed(nn.Conv3d(above, below, 3, stride=2, padding=1), groups)
            for above, below in zip(widths, widths[1:], strict=False)
        )
        levels = range(deepest - 1, -1, -1)  # the decoder's lists run from the deepest level up
        self.up = nn.ModuleList(
            _normed(nn.ConvTranspose3d(widths[n + 1], widths[n], 4, stride=2, padding=1), groups)
            for n in levels
        )
        self.lk = nn.ModuleDict(
            {
                str(n): LKAttention(widths[n], *self.attention[n], order=order)
                for n in levels
                if n in self.attention
            }
        )
        self.dec = nn.ModuleList(_Stage(2 * widths[n], widths[n], groups) for n in levels)
        self.heads = nn.ModuleDict(
            {str(n): PointwiseConv3d(widths[n], out_channels) for n in (0, *self.auxiliary_levels)}
        )

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Segment.

        Args:
            image: (batch, in_channels, k, j, i); each size a multiple of `size_multiple` (32 with six
                levels).

        Returns:
            Logits (batch, out_channels, k, j, i); with deep supervision a list of them at 1, 1/2, 1/4 and
            1/8.

        Raises:
            InputError: a size or a number of channels that the network cannot take.
        """
        check_input(
            "LK-attention U-Net", image.shape, self.in_channels, self.size_multiple, self.minimum_size
        )
        skips = [self.enc[0](image)]
        for down, stage in zip(self.down, list(self.enc)[1:], strict=True):
            skips.append(stage(down(skips[-1])))
        x = skips.pop()
        logits: list[Tensor] = []
        for level, up, stage in zip(range(len(self.up) - 1, -1, -1), self.up, self.dec, strict=True):
            x = up(x)
            if str(level) in self.lk:
                x = self.lk[str(level)](x)
            x = stage(torch.cat((x, skips.pop()), dim=1))
            if level == 0 or (self.deep_supervision and level in self.auxiliary_levels):
                logits.insert(0, self.heads[str(level)](x))
        return logits if self.deep_supervision else logits[0]

    def receptive_fields(self) -> list[StageField]:
        """Of the encoder's stages, of the attention modules' maps and of the logits, in input voxels."""
        fields: list[StageField] = []
        x = Line.of_input()
        skips: list[Line] = []
        for level in range(len(self.enc)):
            if level:
                x = x.convolved(3, stride=2)
            x = x.convolved(3).convolved(3)
            skips.append(x)
            fields.append(x.field(f"encoder {level}"))
        for level in range(len(self.up) - 1, -1, -1):
            x = x.upsampled(4, 2, 1)
            if level in self.attention:
                kernel, dilation = self.attention[level]
                x = x.convolved(kernel // dilation, dilation=dilation).convolved(2 * dilation - 1)
                fields.append(x.field(f"attention {level}"))
            x = x.joined(skips[level]).convolved(3).convolved(3)
        return [*fields, x.field("logits")]


class _Stage(nn.Sequential):
    """Two 3³ convolutions, each with group normalisation and leaky ReLU."""

    def __init__(self, in_channels: int, out_channels: int, groups: int) -> None:
        super().__init__(
            _normed(nn.Conv3d(in_channels, out_channels, 3, padding=1), groups),
            _normed(nn.Conv3d(out_channels, out_channels, 3, padding=1), groups),
        )


def _normed(convolution: nn.Conv3d | nn.ConvTranspose3d, groups: int) -> nn.Sequential:
    channels = convolution.out_channels
    norm = nn.GroupNorm(min(groups, channels), channels)
    return nn.Sequential(convolution, norm, nn.LeakyReLU(0.01, inplace=True))


def _checked_attention(attention: Mapping[int, Sequence[int]], deepest: int) -> dict[int, tuple[int, int]]:
    if not isinstance(attention, Mapping):
        raise InputError(f"attention={attention!r} is not allowed. Use {{level: (kernel, dilation)}}.")
    checked: dict[int, tuple[int, int]] = {}
    for level, pair in attention.items():
        number = int(level) if str(level).isdecimal() else -1  # a manifest's JSON turns the levels into words
        if not 0 <= number < deepest:
            raise InputError(f"attention names level {level!r}; the decoder has levels 0 to {deepest - 1}.")
        kernel, dilation = whole_list(f"attention[{level}]", pair, length=2)
        checked[number] = (kernel, dilation)
    return checked
