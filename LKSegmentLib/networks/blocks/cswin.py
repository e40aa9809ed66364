"""The CSWin Transformer as an image encoder (arXiv 2107.00652), with the tensor names of its published
weights.

Attention runs inside stripes: half the channels look along vertical stripes (as high as the map), half along
horizontal ones; at the last stage all of them look at the whole map.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

Stripe = Literal["vertical", "horizontal", "whole"]


class StripeAttention(nn.Module):
    """Softmax attention inside stripes, plus a 3² depth-wise convolution of the values inside them (LePE).

    Args:
        channels: of this branch.
        heads: of this branch.
        stripe: its direction.
        width: of a stripe, in voxels; divides the map.
    """

    def __init__(self, channels: int, heads: int, stripe: Stripe, width: int) -> None:
        super().__init__()
        self.heads, self.stripe, self.width = heads, stripe, width
        self.get_v = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Three (batch, j, i, channels) → one of the same shape."""
        batch, height, width, channels = query.shape
        if self.stripe == "vertical":
            rows, columns = height, self.width
        elif self.stripe == "horizontal":
            rows, columns = self.width, width
        else:
            rows, columns = height, width

        def stripes(x: Tensor) -> Tensor:  # (batch · stripes, rows, columns, channels)
            x = x.view(batch, height // rows, rows, width // columns, columns, channels)
            return x.transpose(2, 3).reshape(-1, rows, columns, channels)

        def by_head(x: Tensor) -> Tensor:  # (batch · stripes, heads, voxels, channels of a head)
            return x.reshape(len(x), rows * columns, self.heads, channels // self.heads).transpose(1, 2)

        q, k, v = (stripes(x) for x in (query, key, value))
        position = self.get_v(v.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        scores = by_head(q) @ by_head(k).transpose(2, 3) * (channels // self.heads) ** -0.5
        attended = scores.softmax(dim=3) @ by_head(v)
        out = attended.transpose(1, 2).reshape(-1, rows, columns, channels) + position
        out = out.view(batch, height // rows, width // columns, rows, columns, channels)
        return out.transpose(2, 3).reshape(batch, height, width, channels)


class CSWinBlock(nn.Module):
    """x + proj(attention(LN(x))), then x + MLP(LN(x)) with four times the channels and GELU.

    Args:
        channels: C.
        heads: of both branches together.
        width: of the stripes; None: one branch over the whole map.
    """

    def __init__(self, channels: int, heads: int, width: int | None) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        if width is None:
            branches = [StripeAttention(channels, heads, "whole", 0)]
        else:
            branches = [
                StripeAttention(channels // 2, heads // 2, "vertical", width),
                StripeAttention(channels // 2, heads // 2, "horizontal", width),
            ]
        self.attns = nn.ModuleList(branches)
        self.proj = nn.Linear(channels, channels)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            OrderedDict(
                fc1=nn.Linear(channels, 4 * channels), act=nn.GELU(), fc2=nn.Linear(4 * channels, channels)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """(batch, j, i, channels) → the same shape."""
        split = x.shape[-1] // len(self.attns)
        parts = [part.split(split, dim=-1) for part in self.qkv(self.norm1(x)).chunk(3, dim=-1)]
        attended = [attend(*qkv) for attend, *qkv in zip(self.attns, *parts, strict=True)]
        x = x + self.proj(_joined(attended))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class ChannelsLast(nn.Module):
    """(batch, channels, j, i) → (batch, j, i, channels)."""

    def forward(self, x: Tensor) -> Tensor:
        """See above."""
        return x.permute(0, 2, 3, 1)


class Merge(nn.Module):
    """Between two stages: 3² convolution, stride 2, and layer norm."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)
        self.norm = nn.LayerNorm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in_channels, j, i) → (batch, j / 2, i / 2, out_channels)."""
        out: Tensor = self.norm(self.conv(x).permute(0, 2, 3, 1))
        return out


class CSWinEncoder(nn.Module):
    """Four stages at 1/4, 1/8, 1/16 and 1/32; the sides of the image are multiples of 112 (stripes of 7 at
    1/16).

    Args:
        in_channels: of the image; 3 for published weights.
        width: channels of the first stage; doubled from stage to stage.
        depths: blocks of the stages.
        stripes: widths of the stripes of the first three stages; the last looks at the whole map.
        heads: of the stages.
    """

    def __init__(
        self,
        in_channels: int = 3,
        width: int = 64,
        depths: Sequence[int] = (1, 2, 21, 1),
        stripes: Sequence[int] = (1, 2, 7),
        heads: Sequence[int] = (2, 4, 8, 16),
    ) -> None:
        super().__init__()
        widths = [width * 2**stage for stage in range(4)]
        self.stage1_conv_embed = nn.Sequential(
            nn.Conv2d(in_channels, width, 7, stride=4, padding=2), ChannelsLast(), nn.LayerNorm(width)
        )
        stage_stripes: list[int | None] = [*stripes, None]

        def stage(number: int) -> nn.Sequential:
            return nn.Sequential(
                *(
                    CSWinBlock(widths[number], heads[number], stage_stripes[number])
                    for _ in range(depths[number])
                )
            )

        self.stage1 = stage(0)
        self.merge1 = Merge(widths[0], widths[1])
        self.stage2 = stage(1)
        self.merge2 = Merge(widths[1], widths[2])
        self.stage3 = stage(2)
        self.merge3 = Merge(widths[2], widths[3])
        self.stage4 = stage(3)
        self.norm = nn.LayerNorm(widths[3])
        self.apply(_initialise)

    def stage(self, number: int, x: Tensor) -> Tensor:
        """The map of stage 1 to 4 from the image or the map before it: both (batch, channels, j, i).

        The last stage's output is normalised, as in the published classifier.
        """
        enter = getattr(self, f"merge{number - 1}") if number > 1 else self.stage1_conv_embed
        x = getattr(self, f"stage{number}")(enter(x))
        if number == 4:
            x = self.norm(x)
        return x.permute(0, 3, 1, 2)

    def forward(self, image: Tensor) -> list[Tensor]:
        """(batch, in_channels, j, i) → the maps of the four stages, (batch, channels, j, i) each."""
        features = []
        x = image
        for number in (1, 2, 3, 4):
            x = self.stage(number, x)
            features.append(x)
        return features


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
