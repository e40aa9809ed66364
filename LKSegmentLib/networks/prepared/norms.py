"""Normalisation without a pass of its own: folded into weights, or done while a slab is in the cache."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from LKSegmentLib.operators.slabs import Buffers, gathered, planes_of, slabs_of


def standardised(x: Tensor, eps: float) -> Tensor:
    """Layer norm over the channels of each voxel, without scale and shift: (…, channels) → the same shape.

    Sums by matrix products: torch's layer norm is four times slower for the short vectors of a voxel.
    """
    flat = x.reshape(-1, x.shape[-1])
    share = flat.new_full((flat.shape[1],), 1 / flat.shape[1])
    centred = flat - torch.mv(flat, share).unsqueeze(1)
    spread = torch.mv(centred.square(), share).add_(eps).rsqrt_()
    return centred.mul_(spread.unsqueeze(1)).view(x.shape)


def layer_normed(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    """Layer norm over the channels of each voxel: (…, channels) → the same shape."""
    return torch.addcmul(norm.bias.detach(), standardised(x, norm.eps), norm.weight.detach())


def batch_norm_line(norm: nn.BatchNorm3d) -> tuple[Tensor, Tensor]:
    """Scale and shift (channels,) that a batch norm applies in evaluation."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight.detach() * (norm.running_var + norm.eps).rsqrt()
    return scale, norm.bias.detach() - norm.running_mean * scale


def with_line_after(
    weight: Tensor, bias: Tensor | None, scale: Tensor, shift: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Weights (out, …) and bias of scale · (W x + b) + shift."""
    folded = weight.detach() * scale.view(-1, *[1] * (weight.dim() - 1))
    moved = torch.zeros_like(scale) if bias is None else bias.detach() * scale
    return folded, moved if shift is None else moved + shift


def with_line_before(
    weight: Tensor, bias: Tensor | None, scale: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor]:
    """Weights (out, in) and bias of W (scale · x + shift) + b."""
    matrix = weight.detach().flatten(1)
    moved = matrix @ shift
    return matrix * scale, moved if bias is None else moved + bias.detach()


class NormedMap:
    """A map that is normalised over space when it is read: leaky ReLU(scale · raw + shift).

    Args:
        raw: (planes, rows, columns, channels).
        scale: (channels,).
        shift: (channels,).
        slope: of the leaky ReLU; 1 for none.
    """

    def __init__(self, raw: Tensor, scale: Tensor, shift: Tensor, slope: float) -> None:
        self.raw, self.scale, self.shift, self.slope = raw, scale, shift, slope

    @classmethod
    def as_is(cls, x: Tensor) -> NormedMap:
        """A map that needs no norm."""
        return cls(x, x.new_ones(()), x.new_zeros(()), 1)

    def slabs(self, planes: int | None = None) -> Iterator[Tensor]:
        """The normalised map as slabs that may be overwritten."""
        rows, columns, channels = self.raw.shape[1:]
        for slab in slabs_of(self.raw, planes or planes_of(rows, columns, channels, at_least=4)):
            yield self.of(slab)

    def of(self, slab: Tensor) -> Tensor:
        """Normalise planes of the raw map."""
        out = torch.addcmul(self.shift, slab, self.scale)
        return out if self.slope == 1 else nn.functional.leaky_relu_(out, self.slope)

    def settled(self) -> Tensor:
        """The normalised map itself, in the raw map's memory, which is used up."""
        for slab in slabs_of(self.raw, planes_of(*self.raw.shape[1:])):
            torch.addcmul(self.shift, slab, self.scale, out=slab)
            if self.slope != 1:
                nn.functional.leaky_relu_(slab, self.slope)
        return self.raw


class SpaceNorm:
    """Group or instance norm and leaky ReLU after a convolution, measured while the convolution's slabs pass.

    Args:
        norm: `nn.GroupNorm`, or `nn.InstanceNorm3d` without running statistics.
        slope: of the leaky ReLU; 1 for none.
    """

    def __init__(self, norm: nn.GroupNorm | nn.InstanceNorm3d, slope: float) -> None:
        self.groups = norm.num_groups if isinstance(norm, nn.GroupNorm) else norm.num_features
        self.weight = None if norm.weight is None else norm.weight.detach()
        self.bias = None if norm.bias is None else norm.bias.detach()
        self.eps, self.slope = norm.eps, slope

    def of_slabs(self, slabs: Iterable[Tensor], planes: int, buffers: Buffers | None = None) -> NormedMap:
        """Gather slabs of so many planes together into a map with its statistics."""
        statistics = _Statistics()
        raw = gathered(map(statistics.seen, slabs), planes, buffers)
        return NormedMap(raw, *self._line(statistics.mean, statistics.variance, raw), self.slope)

    def of_map(self, raw: Tensor) -> NormedMap:
        """A map that is whole, with its statistics."""
        statistics = _Statistics()
        for slab in slabs_of(raw, planes_of(*raw.shape[1:])):
            statistics.seen(slab)
        return NormedMap(raw, *self._line(statistics.mean, statistics.variance, raw), self.slope)

    def _line(self, mean: Tensor, variance: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        means, variances = mean.view(self.groups, -1), variance.view(self.groups, -1)
        middle = means.mean(1, keepdim=True)
        whole = (variances + (means - middle).square()).mean(1, keepdim=True)
        scale = (whole + self.eps).rsqrt().expand_as(means).flatten()
        shift = -(middle.expand_as(means).flatten()) * scale
        if self.weight is not None and self.bias is not None:
            scale, shift = scale * self.weight, shift * self.weight + self.bias
        return scale.to(raw.dtype), shift.to(raw.dtype)


class _Statistics:
    """Mean and variance of each channel over all voxels seen, in double precision."""

    def __init__(self) -> None:
        self.mean = self._spread = torch.zeros((), dtype=torch.float64)
        self._count = 0
        self._centred: Tensor | None = None

    @property
    def variance(self) -> Tensor:
        return self._spread / self._count

    def seen(self, slab: Tensor) -> Tensor:
        """Take a slab (planes, rows, columns, channels) in and hand it on."""
        flat = slab.reshape(-1, slab.shape[-1])
        own = flat.sum(0) / flat.shape[0]  # torch's mean over the first axis is slower than its sum
        if self._centred is None or self._centred.shape[0] < flat.shape[0]:
            self._centred = torch.empty_like(flat)
        centred = torch.sub(flat, own, out=self._centred[: flat.shape[0]])
        squares = centred.square_().sum(0).double()
        # Means and sums of squares of two parts joined (Chan, Golub and LeVeque 1979).
        apart, number = own.double() - self.mean, flat.shape[0]
        total = self._count + number
        self.mean = self.mean + apart * (number / total)
        self._spread = self._spread + squares + apart.square() * (self._count * number / total)
        self._count = total
        return slab
