"""Depth-wise 3-D convolution with any odd kernel and dilation, "same" zero padding, stride 1, with gradients.

The result is that of ``torch.nn.functional.conv3d(x, w, b, padding=dilation * (k // 2), dilation=dilation,
groups=channels)``. The method is chosen by what was measured, on a CPU by shape:

- ``"direct"``: phases, channel groups and slabs (`depthwise_cpu`); the same sums in another order.
- ``"fft"``: dense kernels of 15³ and more on maps that are not small (`depthwise_fft`, with its tolerance).

On CUDA (`depthwise_cuda`) without gradients it is ``"triton"`` (`depthwise_triton`) for 5³ and for 7³ with dilation 3,
``"fft"`` for dense cubic kernels of 21³ and more, else the library's own convolution, which other devices always take.

The gradient of the input is the forward convolution with the kernel flipped; the gradient of the kernel is a
correlation (`depthwise_gradient`). On a CPU both are many times faster than the library's own backward. On
CUDA they were checked but never timed, so ``"auto"`` leaves convolutions with gradients to the library there.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from LKSegmentLib.errors import InputError

from . import depthwise_cpu, depthwise_cuda, depthwise_fft
from .depthwise_gradient import weight_gradient

Method = Literal["auto", "direct", "fft", "library", "triton"]

_LEAST_EDGE_IN_DOUBLE = 9


def depthwise_conv3d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, dilation: int = 1, method: Method = "auto"
) -> Tensor:
    """Convolve every channel with its own kernel; zero padding keeps the size.

    Args:
        x: ``(batch, channels, k, j, i)``.
        weight: ``(channels, 1, a, b, c)`` with odd edges.
        bias: ``(channels,)`` or None.
        dilation: distance between kernel taps in voxels, the same along every axis.
        method: ``"auto"`` chooses; ``"direct"``, ``"fft"`` (dense kernels), ``"library"`` and ``"triton"``
            (CUDA, where Triton is installed) insist.

    Returns:
        ``(batch, channels, k, j, i)``; in channels-last memory where the direct method ran.

    Raises:
        InputError: an even kernel edge, a dilation below 1, shapes that do not belong together, or a method
            that there is not or that cannot do this.
    """
    _check(x, weight, dilation, method)
    if x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        return _in_single(x, weight, bias, dilation, method)
    chosen = _chosen(x, weight, bias, dilation) if method == "auto" else method
    if method == "auto" and chosen == "triton":
        fast = depthwise_cuda.by_triton(x, weight, bias, dilation)
        if fast is not None:
            return fast
        chosen = "library"
    if chosen == "library":
        padding = [dilation * (edge // 2) for edge in weight.shape[2:]]
        return functional.conv3d(x, weight, bias, padding=padding, dilation=dilation, groups=weight.shape[0])
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        out: Tensor = _WithGradients.apply(x, weight, bias, dilation, chosen)
        return out
    return _forward(x, weight, bias, dilation, chosen)


class DepthwiseConv3d(nn.Conv3d):
    """``nn.Conv3d(channels, channels, k, padding="same", groups=channels)`` over :func:`depthwise_conv3d`.

    Parameter names and shapes are those of ``nn.Conv3d``: ``weight (channels, 1, k, k, k)``, ``bias (channels,)``.
    """

    def __init__(self, channels: int, kernel_size: int, dilation: int = 1, bias: bool = True) -> None:
        super().__init__(
            channels,
            channels,
            kernel_size,
            padding=dilation * (kernel_size // 2),
            dilation=dilation,
            groups=channels,
            bias=bias,
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, channels, k, j, i)`` → the same shape."""
        return depthwise_conv3d(x, self.weight, self.bias, self.dilation[0])


def _check(x: Tensor, weight: Tensor, dilation: int, method: str) -> None:
    if x.dim() != 5 or weight.dim() != 5 or weight.shape[1] != 1 or x.shape[1] != weight.shape[0]:
        raise InputError(
            f"A depth-wise 3-D convolution takes x (batch, channels, k, j, i) and weight (channels, 1, a, b, c); "
            f"got x {tuple(x.shape)} and weight {tuple(weight.shape)}."
        )
    if any(edge % 2 == 0 for edge in weight.shape[2:]):
        raise InputError(f"The kernel must have odd edges to be centred; got {tuple(weight.shape[2:])}.")
    if dilation < 1:
        raise InputError(f"The dilation must be 1 or more; got {dilation}.")
    if method not in get_args(Method):
        raise InputError(f"The method is one of {', '.join(get_args(Method))}; got {method!r}.")
    if method == "fft" and dilation != 1:
        raise InputError("The method 'fft' takes dense kernels only; use 'auto' for a dilated one.")
    if method == "triton":
        _check_triton(x, weight)


def _check_triton(x: Tensor, weight: Tensor) -> None:
    if not depthwise_cuda.triton_is_installed():
        raise InputError("The method 'triton' needs the package triton, which is not installed here; use 'auto'.")
    from . import depthwise_triton

    if not depthwise_triton.runs_on(x.device) or x.dtype not in depthwise_triton.TYPES or x.dtype != weight.dtype:
        raise InputError(
            f"The method 'triton' takes CUDA tensors of single or half precision; got {x.dtype} on {x.device}."
        )


def _chosen(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> str:
    # The meta device has shapes but no values; there the library's own call is counted.
    if x.device.type != "cpu":
        return depthwise_cuda.chosen(x, weight, bias, dilation)
    # Neither method is made for half precision.
    if x.dtype not in (torch.float32, torch.float64) or x.dtype != weight.dtype:
        return "library"
    if dilation != 1:
        return "direct"
    # The library's double precision copies the map once for every tap: gigabytes for a large kernel.
    by_transform = x.dtype == torch.float64 and min(weight.shape[2:]) >= _LEAST_EDGE_IN_DOUBLE
    return "fft" if by_transform or depthwise_fft.worth_it(x.shape[2:], weight.shape[2:]) else "direct"


def _in_single(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int, method: Method) -> Tensor:
    """Under autocast: computed in single precision, which is faster on a CPU, and answered in autocast's."""
    with torch.autocast("cpu", enabled=False):
        answer = depthwise_conv3d(
            x.float(), weight.float(), None if bias is None else bias.float(), dilation, method
        )
        return answer.to(torch.get_autocast_dtype("cpu"))


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int, method: str) -> Tensor:
    if method == "fft":
        return depthwise_fft.convolve(x, weight, bias)
    if method == "triton":
        from . import depthwise_triton

        return depthwise_triton.convolve(x, weight, bias, dilation)
    return depthwise_cpu.direct(x, weight, bias, dilation)


class _WithGradients(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int, method: str
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.dilation, ctx.method = dilation, method
        return _forward(x, weight, bias, dilation, method)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        for_x = for_weight = for_bias = None
        if ctx.needs_input_grad[0]:
            for_x = _forward(gradient, weight.flip(2, 3, 4), None, ctx.dilation, ctx.method)
        if ctx.needs_input_grad[1]:
            for_weight = weight_gradient(x, gradient, weight, ctx.dilation)
        if ctx.needs_input_grad[2]:
            for_bias = gradient.sum((0, 2, 3, 4))
        return for_x, for_weight, for_bias, None, None
