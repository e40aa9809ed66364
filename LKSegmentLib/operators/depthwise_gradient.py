"""The gradient of a depth-wise kernel, by the method that is fastest for its shape on a CPU.

The library's three-dimensional weight gradient of depth-wise convolutions is slow, its two-dimensional one is not: for
kernels of up to 7³, and small maps, the correlation is taken plane by plane, one library call for each tap along k.
Larger kernels are correlated by Fourier transform (`depthwise_fft`). All methods add the same products.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import depthwise_cpu, depthwise_fft

_TRANSFORM_ABOVE_EDGE = 7  # and, for double precision, which the library's fast call does not take, above:
_TRANSFORM_ABOVE_EDGE_IN_DOUBLE = 5
# Up to this edge maps with larger planes are faster at once (measured on 2 AVX-512 cores).
_AT_ONCE_UP_TO_EDGE = 5
_SMALL_PLANE = 12 * 12


def weight_gradient(x: Tensor, gradient: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """Gradient of the kernel ``(channels, 1, a, b, c)`` of a "same" depth-wise convolution of stride 1.

    Args:
        x: what was convolved, ``(batch, channels, k, j, i)``.
        gradient: of the result, the same shape.
        weight: the kernel; only its shape counts.
        dilation: distance between taps in voxels.
    """
    if x.dtype in (torch.float16, torch.bfloat16):  # sums of many voxels, and transforms, want single precision
        return weight_gradient(x.float(), gradient.float(), weight.float(), dilation).to(weight.dtype)
    if dilation > 1:
        x = depthwise_cpu.split_phases(x, dilation)
        gradient = depthwise_cpu.split_phases(gradient, dilation)
    edge = max(weight.shape[2:])
    in_single = x.dtype == torch.float32
    if edge > (_TRANSFORM_ABOVE_EDGE if in_single else _TRANSFORM_ABOVE_EDGE_IN_DOUBLE):
        return depthwise_fft.weight_gradient(x, gradient, weight)
    if in_single and (edge > _AT_ONCE_UP_TO_EDGE or x.shape[3] * x.shape[4] <= _SMALL_PLANE):
        return _by_planes(x, gradient, weight)
    half, ones = [edge // 2 for edge in weight.shape[2:]], [1] * 3
    layout = torch.channels_last_3d
    found: Tensor = torch.ops.aten.convolution_backward(
        gradient.contiguous(memory_format=layout), x.contiguous(memory_format=layout), weight, None,
        ones, half, ones, False, [0] * 3, weight.shape[0], [False, True, False],
    )[1]  # fmt: skip
    return found


def _by_planes(x: Tensor, gradient: Tensor, weight: Tensor) -> Tensor:
    """Planes of the map joined by tap number ``tap`` along k are a batch of images to the library."""
    planes, channels = x.shape[2], x.shape[1]
    halves = [edge // 2 for edge in weight.shape[2:]]
    found = torch.zeros_like(weight)
    for tap in range(weight.shape[2]):
        shift = tap - halves[0]
        first, last = max(0, -shift), min(planes, planes - shift)
        if last <= first:  # this tap meets nothing but padding
            continue
        found[:, :, tap] = torch.ops.aten.convolution_backward(
            _as_images(gradient[:, :, first:last]), _as_images(x[:, :, first + shift : last + shift]),
            weight[:, :, tap], None, [1, 1], halves[1:], [1, 1], False, [0, 0], channels, [False, True, False],
        )[1]  # fmt: skip
    return found


def _as_images(x: Tensor) -> Tensor:
    """``(batch, channels, k, j, i)`` → ``(batch · k, channels, j, i)``, channels last in memory."""
    images = x.permute(0, 2, 1, 3, 4).reshape(-1, x.shape[1], *x.shape[3:])
    return images.contiguous(memory_format=torch.channels_last)
