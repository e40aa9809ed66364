"""The residual block of DALight-3D (arXiv 2605.04518) and its norm. Tensor names are those of the released network."""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from LKSegmentLib.operators import DepthwiseConv3d, PointwiseConv3d

from .cross_slice import CrossSliceAttention

IDENTIFIERS = 8
GROUPS = 8


class IdentifierNorm(nn.Module):
    """Group norm (8 groups, eps 1e-5) whose scale and shift are rows of two tables, picked by the identifier."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.default_gamma = nn.Parameter(torch.ones(channels))
        self.default_beta = nn.Parameter(torch.zeros(channels))
        self.scanner_gamma = nn.Embedding(IDENTIFIERS, channels)
        self.scanner_beta = nn.Embedding(IDENTIFIERS, channels)
        nn.init.ones_(self.scanner_gamma.weight)
        nn.init.zeros_(self.scanner_beta.weight)

    def forward(self, x: Tensor, identifier: Tensor | None) -> Tensor:
        """(batch, channels, k, j, i), (batch,) → (batch, channels, k, j, i)."""
        if identifier is None:
            return functional.group_norm(x, GROUPS, self.default_gamma, self.default_beta)
        gamma, beta = self.scanner_gamma(identifier), self.scanner_beta(identifier)
        if len(gamma) == 1:
            return functional.group_norm(x, GROUPS, gamma[0], beta[0])
        normed = functional.group_norm(x, GROUPS)
        return normed * gamma[..., None, None, None] + beta[..., None, None, None]


class SeparableConv3d(nn.Module):
    """A 3³ depth-wise and a 1³ convolution, no bias, nothing in between."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.depthwise = DepthwiseConv3d(in_channels, 3, bias=False)
        self.pointwise = PointwiseConv3d(in_channels, out_channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in_channels, k, j, i) → (batch, out_channels, k, j, i)."""
        out: Tensor = self.pointwise(self.depthwise(x))
        return out


class SqueezeExcite(nn.Module):
    """Scale each channel by σ(FC(GELU(FC(GAP(x))))), a quarter of the channels in between."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels // 4
        self.fc = nn.Sequential(
            nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, channels), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, k, j, i) → the same shape."""
        return x * self.fc(x.mean((2, 3, 4)))[..., None, None, None]


class LightweightBlock(nn.Module):
    """Two convolutions, squeeze-excite, perhaps cross-slice attention, and a shortcut.

        h = GELU(N1(conv1(x)));  h = N2(conv2(h));  h = CSA(SE(h))
        out = GELU(h + r),   r = x, or GN(Conv1(x)) where the widths differ

    Args:
        in_channels, out_channels: of the block.
        separable: separable convolutions, else full 3³ ones.
        icn: identifier-conditioned norms, else group norms.
        csa_standard: cross-slice attention, ordinary or (False) published; None: without.
    """

    def __init__(
        self, in_channels: int, out_channels: int, separable: bool, icn: bool, csa_standard: bool | None
    ) -> None:
        super().__init__()

        def convolution(a: int, b: int) -> nn.Module:
            return SeparableConv3d(a, b) if separable else nn.Conv3d(a, b, 3, padding=1, bias=False)

        def norm() -> nn.Module:
            return IdentifierNorm(out_channels) if icn else nn.GroupNorm(GROUPS, out_channels)

        self.conv1 = convolution(in_channels, out_channels)
        self.conv2 = convolution(out_channels, out_channels)
        self.norm1 = norm()
        self.norm2 = norm()
        self.se = SqueezeExcite(out_channels)
        self.attention = None if csa_standard is None else CrossSliceAttention(out_channels, csa_standard)
        self.skip: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.skip = nn.Sequential(
                PointwiseConv3d(in_channels, out_channels, bias=False), nn.GroupNorm(GROUPS, out_channels)
            )
        self.act = nn.GELU()

    def forward(self, x: Tensor, identifier: Tensor | None) -> Tensor:
        """(batch, in_channels, k, j, i), (batch,) → (batch, out_channels, k, j, i)."""
        h = self.act(self._normed(self.norm1, self.conv1(x), identifier))
        h = self.se(self._normed(self.norm2, self.conv2(h), identifier))
        if self.attention is not None:
            h = self.attention(h)
        out: Tensor = self.act(h + self.skip(x))
        return out

    @staticmethod
    def _normed(norm: nn.Module, x: Tensor, identifier: Tensor | None) -> Tensor:
        out: Tensor = norm(x, identifier) if isinstance(norm, IdentifierNorm) else norm(x)
        return out
