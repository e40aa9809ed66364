"""The depth-wise convolution of very large kernels, and the gradient of large ones, by Fourier transform.

Exact arithmetic would give the same numbers as the direct sum. In single precision the two differ by rounding:
at most `TOLERANCE` times the largest absolute value of the result (measured 4e-6 for 21³ kernels).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

TOLERANCE = 1e-5  # of the largest absolute value of the result, in single precision
# Below this edge the direct sum wins at any size; above it, where it needs so many times the operations.
_LEAST_EDGE = 15
_WORTH = 5.0
_CHANNELS_AT_ONCE = 16  # keeps the spectra small: large temporary tensors cost more than the arithmetic


def worth_it(size: Sequence[int], edges: Sequence[int]) -> bool:
    """Whether the transform beats the direct sum for a dense kernel on a map of this size (k, j, i) on a CPU."""
    if min(edges) < _LEAST_EDGE:
        return False
    padded = math.prod(_fast_length(n + edge // 2) for n, edge in zip(size, edges, strict=True))
    # Pairs of an output and an input voxel that a tap joins; the others meet zero padding.
    direct = 2.0 * math.prod(_pairs(n, edge // 2) for n, edge in zip(size, edges, strict=True))
    return _WORTH * 15.0 * padded * math.log2(padded) < direct


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``(batch, channels, k, j, i)`` with ``weight (channels, 1, a, b, c)`` → the same shape; dense, same size."""
    edges = weight.shape[2:]
    lengths = [_fast_length(max(n + edge // 2, edge)) for n, edge in zip(x.shape[2:], edges, strict=True)]
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    crop = tuple(slice(0, n) for n in x.shape[2:])
    for first in range(0, x.shape[1], _CHANNELS_AT_ONCE):
        group = slice(first, first + _CHANNELS_AT_ONCE)
        spectrum = torch.fft.rfftn(x[:, group].contiguous(), s=lengths, dim=(2, 3, 4))
        # A network's convolution is a correlation: the kernel's spectrum is conjugated.
        spectrum *= torch.fft.rfftn(weight[group, 0], s=lengths, dim=(1, 2, 3)).conj()
        full = torch.fft.irfftn(spectrum, s=lengths, dim=(2, 3, 4))
        out[:, group] = full.roll([edge // 2 for edge in edges], dims=(2, 3, 4))[(..., *crop)]
    if bias is not None:
        out += bias.view(-1, 1, 1, 1)
    return out


def weight_gradient(x: Tensor, gradient: Tensor, weight: Tensor) -> Tensor:
    """Correlate input and output gradient at the kernel's lags: ``(c, 1, a, b, c)``. Dense (dilation 1)."""
    edges = weight.shape[2:]
    # Only lags within the kernel are read, so a circular length of size + half a kernel has no wrap-around.
    lengths = [_fast_length(max(n + edge // 2, edge)) for n, edge in zip(x.shape[2:], edges, strict=True)]
    spectrum_x = torch.fft.rfftn(x, s=lengths, dim=(2, 3, 4))
    spectrum_g = torch.fft.rfftn(gradient, s=lengths, dim=(2, 3, 4))
    lags = torch.fft.irfftn((spectrum_x * spectrum_g.conj()).sum(0), s=lengths, dim=(1, 2, 3))
    lags = lags.roll([edge // 2 for edge in edges], dims=(1, 2, 3))
    return lags[:, : edges[0], : edges[1], : edges[2]].unsqueeze(1)


def _pairs(size: int, half: int) -> int:
    """Σ over output places of the taps along one axis that lie inside the map."""
    return sum(min(place + half, size - 1) - max(place - half, 0) + 1 for place in range(size))


def _fast_length(length: int) -> int:
    """The smallest number ≥ length whose only prime factors are 2, 3 and 5."""
    while True:
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return length
        length += 1
