"""The dynamic large kernel (DLK) of D-Net (arXiv 2403.10674; journal version as released in 2025).

Module names are those of the released network, so that its weights load key by key.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from LKSegmentLib.networks.constraints import fraction, number, one_of, whole
from LKSegmentLib.operators import DepthwiseConv3d, PointwiseConv3d

from .layer_norm import ChannelLayerNorm

Selection = Literal["sum", "per_kernel"]


class DynamicLargeKernel(nn.Module):
    """Two cascaded large kernels (5³, then 7³ with dilation 3: a reach of 23 voxels) and their selection.

    With ``selection="sum"`` (published) both spatial maps multiply the same concatenation, so only ``w1 + w2``
    acts: ``v = u · (w1 + w2)``. With ``"per_kernel"`` (ours; a forward switch, same weights) each map weighs its
    own kernel: ``v = concat(w1 · o1, w2 · o2)``.

    Args:
        channels: d, even.
        selection: ``"sum"`` or ``"per_kernel"``.

    Example::

        features = torch.randn(1, 48, 10, 12, 8)    # (batch, channels, k, j, i)
        kernel = DynamicLargeKernel(48)
        out = kernel(features)
        assert out.shape == features.shape

    Raises:
        InputError: a value that is not allowed.
    """

    def __init__(self, channels: int, selection: Selection = "sum") -> None:
        super().__init__()
        half = whole("channels", channels, minimum=2, multiple=2) // 2
        self.selection: str = one_of("selection", selection, Selection)
        self.channel_proj = PointwiseConv3d(channels, half, bias=False)
        self.att_conv1 = DepthwiseConv3d(half, 5)
        self.att_conv2 = DepthwiseConv3d(half, 7, dilation=3)
        self.spatial_se = nn.Sequential(nn.Conv3d(2, 2, 7, padding=3), nn.Sigmoid())
        self.conv_atten = nn.Sequential(PointwiseConv3d(channels, channels, bias=False), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, channels, k, j, i)`` → the same shape."""
        near = self.att_conv1(self.channel_proj(x))
        far = self.att_conv2(near)  # cascaded on the first kernel's response, not on the projection
        both = torch.cat((near, far), dim=1)
        pooled = torch.cat((both.mean(1, keepdim=True), both.amax(1, keepdim=True)), dim=1)
        weights = self.spatial_se(pooled)
        if self.selection == "sum":
            selected = both * weights.sum(1, keepdim=True)
        else:
            selected = torch.cat((near * weights[:, :1], far * weights[:, 1:]), dim=1)
        channel_gate = self.conv_atten(selected.mean((2, 3, 4), keepdim=True))
        return channel_gate * selected + x


class DynamicLargeKernelModule(nn.Module):
    """``t + Conv1(DLK(GELU(Conv1(t))))``: the residual adds the module's own input t."""

    def __init__(self, channels: int, selection: Selection = "sum") -> None:
        super().__init__()
        self.proj_1 = PointwiseConv3d(channels, channels)
        self.act = nn.GELU()
        self.spatial_gating_unit = DynamicLargeKernel(channels, selection)
        self.proj_2 = PointwiseConv3d(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, channels, k, j, i)`` → the same shape."""
        mixed: Tensor = self.proj_2(self.spatial_gating_unit(self.act(self.proj_1(x))))
        return x + mixed


class ChannelMixer(nn.Module):
    """``Conv1_{4d→d}(GELU(DWConv3(Conv1_{d→4d}(x))))``, the MLP of a DLK block and of the Salience layer."""

    def __init__(self, channels: int, ratio: int = 4) -> None:
        super().__init__()
        self.fc1 = PointwiseConv3d(channels, ratio * channels)
        self.dwconv = DepthwiseConv3d(ratio * channels, 3)
        self.act = nn.GELU()
        self.fc2 = PointwiseConv3d(ratio * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, channels, k, j, i)`` → the same shape."""
        mixed: Tensor = self.fc2(self.act(self.dwconv(self.fc1(x))))
        return mixed


class DynamicLargeKernelBlock(nn.Module):
    """One DLK block; 11.5 d² + 357 d + 1374 parameters.

        x1 = x  + g · DLKModule(LN(x))
        x2 = x1 + g · ChannelMixer(LN(x1))

    One layer normalisation and one layer scale g serve both branches, as in the released code. The module's
    inner residual adds LN(x), not x.

    Args:
        channels: d, even.
        selection: see :class:`DynamicLargeKernel`.
        layer_scale: initial g (published 1e-6, at which an untrained block is inert).
        drop_path: probability of dropping a branch per sample in training (stochastic depth).

    Example::

        features = torch.randn(1, 48, 10, 12, 8)    # (batch, channels, k, j, i)
        block = DynamicLargeKernelBlock(48, layer_scale=1e-2)
        assert block(features).shape == features.shape

    Raises:
        InputError: a value that is not allowed.
    """

    def __init__(
        self, channels: int, selection: Selection = "sum", layer_scale: float = 1e-6, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        scale = torch.full((whole("channels", channels, minimum=2, multiple=2),), number("layer_scale", layer_scale))
        self.layer_scale = nn.Parameter(scale)
        self.norm_layer = ChannelLayerNorm(channels)
        self.attn = DynamicLargeKernelModule(channels, selection)
        self.mlp = ChannelMixer(channels)
        self.drop_path = fraction("drop_path", drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, channels, k, j, i)`` → the same shape."""
        scale = self.layer_scale.view(1, -1, 1, 1, 1)
        x = x + self._dropped(scale * self.attn(self.norm_layer(x)))
        return x + self._dropped(scale * self.mlp(self.norm_layer(x)))

    def _dropped(self, branch: Tensor) -> Tensor:
        if not self.training or self.drop_path == 0:
            return branch
        kept = torch.rand((branch.shape[0], 1, 1, 1, 1), device=branch.device) >= self.drop_path
        return branch * kept / (1 - self.drop_path)


def dlk_stages(
    widths: Sequence[int],
    depths: Sequence[int],
    selection: Selection,
    layer_scale: float,
    drop_path_rates: Sequence[float],
) -> nn.ModuleList:
    """A sequence of DLK blocks for each width.

    Args:
        widths: channels of each stage.
        depths: blocks of each stage, as many as widths.
        selection, layer_scale: of all blocks.
        drop_path_rates: one for each block, in order; those left over are not used.
    """
    unused = iter(drop_path_rates)
    return nn.ModuleList(
        nn.Sequential(
            *(DynamicLargeKernelBlock(width, selection, layer_scale, next(unused)) for _ in range(depth))
        )
        for width, depth in zip(widths, depths, strict=True)
    )
