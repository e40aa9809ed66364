"""Convolutions whose weights never change again: for inference only, without gradients.

torch's own ``conv3d`` reorders its weights on every call, takes matrix products to a library that is slow on some
processors, and leaves the activation to a second pass over memory. The oneDNN functions below, which torch's
compiler uses too, keep the reordered weights and apply the activation while the values are at hand. Where torch
was built without oneDNN, or the tensor is not single precision on a CPU, the ordinary functions take over: the
same result to float rounding.

Maps are *voxel lists*: (planes, rows, columns, channels), contiguous, one sample; the channels of a voxel lie
together. That is the memory of torch's channels-last layout without its batch axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor


@dataclass(frozen=True)
class Activation:
    """What follows a convolution: nothing, ``gelu`` (the exact one) or ``leaky_relu`` with its slope."""

    name: str = "none"
    slope: float = 0.0

    @property
    def fused(self) -> bool:
        """Whether oneDNN applies it while convolving; its exact GELU is slower than a pass of torch's."""
        return self.name == "leaky_relu"

    def __call__(self, x: Tensor) -> Tensor:
        """Apply it; x may be overwritten."""
        if self.name == "gelu":
            out: Tensor = torch.ops.aten.gelu_(x)
            return out
        return functional.leaky_relu_(x, self.slope) if self.name == "leaky_relu" else x


NOTHING = Activation()
GELU = Activation("gelu")


def packable(x: Tensor) -> bool:
    """Whether oneDNN's functions exist here and take this tensor."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and _onednn() is not None


def _onednn() -> Any:
    return torch.ops.mkldnn if torch.backends.mkldnn.is_available() else None


class PackedConvolution:
    """A 3-D convolution of one map, with its activation.

    Args:
        weight: (out, in / groups, a, b, c).
        bias: (out,) or None.
        stride: the same along every axis.
        padding: zeros added at both ends of planes, rows and columns.
        groups: 1, or the channels of a depth-wise convolution.
        activation: what follows.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: int = 1,
        padding: Sequence[int] = (0, 0, 0),
        groups: int = 1,
        activation: Activation = NOTHING,
    ) -> None:
        self.weight = weight.detach()
        self.bias = None if bias is None else bias.detach()
        self.stride, self.padding, self.groups = stride, list(padding), groups
        self.activation = activation
        self._packed: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """(planes, rows, columns, in) → (planes', rows', columns', out)."""
        return to_voxels(self.of_batch(as_batch(x)))

    def of_batch(self, x: Tensor) -> Tensor:
        """(batch, in, k, j, i) → (batch, out, k', j', i'), in channels-last memory."""
        if not packable(x):
            x = functional.conv3d(
                x, self.weight, self.bias, self.stride, tuple(self.padding), groups=self.groups
            )
            return self.activation(x)
        stride, ones = [self.stride] * 3, [1, 1, 1]
        if self._packed is None:
            layout = self.weight.contiguous(memory_format=torch.channels_last_3d)
            self._packed = _onednn()._reorder_convolution_weight(
                layout, self.padding, stride, ones, self.groups, list(x.shape)
            )
        fused = ("leaky_relu", [self.activation.slope], "") if self.activation.fused else ("none", [], "")
        out: Tensor = _onednn()._convolution_pointwise(
            x, self._packed, self.bias, self.padding, stride, ones, self.groups, *fused
        )
        out = out.contiguous(memory_format=torch.channels_last_3d)
        return out if self.activation.fused else self.activation(out)


class PackedPointwise:
    """A 1³ convolution: one matrix product over the channels of every voxel, with its activation.

    Args:
        weight: (out, in) or (out, in, 1, 1, 1).
        bias: (out,) or None.
        activation: what follows.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None, activation: Activation = NOTHING) -> None:
        self.weight = weight.detach().flatten(1).contiguous()
        self.bias = None if bias is None else bias.detach()
        self.activation = activation

    def __call__(self, x: Tensor, add: Tensor | None = None) -> Tensor:
        """(…, in) → (…, out); `add` (…, out) is added before the activation."""
        if not packable(x):
            out = functional.linear(x, self.weight, self.bias)
            return self.activation(out if add is None else out + add)
        if add is None:
            out = _onednn()._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        else:
            out = _onednn()._linear_pointwise.binary(x, add, self.weight, self.bias, "add")
        return self.activation(out)


class PackedDoubling:
    """A transposed convolution with kernel 2 and stride 2: every voxel of the result has one source.

    Args:
        weight: (in, out, 2, 2, 2).
        bias: (out,) or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.out_channels = weight.shape[1]
        every_corner = weight.detach().permute(2, 3, 4, 1, 0).reshape(-1, weight.shape[0])
        self._product = PackedPointwise(every_corner, None if bias is None else bias.detach().repeat(8))

    def mean(self, mean: Tensor) -> Tensor:
        """The mean over the result (out,) from the mean over the map (in,): nothing need be computed for it."""
        return self._product(mean[None]).view(8, self.out_channels).mean(0)

    def __call__(self, x: Tensor) -> Tensor:
        """(planes, rows, columns, in) → (2 planes, 2 rows, 2 columns, out)."""
        k, j, i = x.shape[:3]
        corners = self._product(x).view(k, j, i, 2, 2, 2, self.out_channels)
        return corners.permute(0, 3, 1, 4, 2, 5, 6).reshape(2 * k, 2 * j, 2 * i, self.out_channels)


class PackedTransposed:
    """Any other transposed 3-D convolution of one map.

    Args:
        weight: (in, out, a, b, c).
        bias: (out,) or None.
        stride: the same along every axis.
        padding: of planes, rows and columns, as `conv_transpose3d` means it.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, stride: int, padding: Sequence[int]) -> None:
        self.weight = weight.detach()
        self.bias = None if bias is None else bias.detach()
        self.stride, self.padding = stride, list(padding)
        self._packed: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """(planes, rows, columns, in) → (planes', rows', columns', out)."""
        batch = as_batch(x)
        if not packable(x):
            return to_voxels(
                functional.conv_transpose3d(batch, self.weight, self.bias, self.stride, tuple(self.padding))
            )
        how = (self.padding, [0, 0, 0], [self.stride] * 3, [1, 1, 1], 1)
        if self._packed is None:
            self._packed = _onednn()._reorder_convolution_transpose_weight(self.weight, *how, list(batch.shape))
        out = _onednn()._convolution_transpose_pointwise(batch, self._packed, self.bias, *how, "none", [], "")
        return to_voxels(out)


def as_batch(x: Tensor) -> Tensor:
    """(planes, rows, columns, channels) → (1, channels, k, j, i), a view in channels-last memory."""
    return x.permute(3, 0, 1, 2).unsqueeze(0)


def to_voxels(x: Tensor) -> Tensor:
    """(1, channels, k, j, i) → (planes, rows, columns, channels), contiguous; a view where it can be."""
    return x.squeeze(0).permute(1, 2, 3, 0).contiguous()
