"""A depth-wise 3-D convolution for CUDA in Triton: dense and dilated, any odd kernel.

Checked and measured on one card, an NVIDIA H200 (docs/speed-on-a-gpu.md): in single precision 1.3 to 2.1 times as fast
as the library with 5³ and dilated 7³ kernels, slower than it with 21³. In half precision it was checked, not timed.
`depthwise_cuda` chooses when it runs; ``depthwise_conv3d(..., method="triton")`` insists.

One program computes a tile of rows and columns of one plane of one channel, tap after tap; neighbouring taps
find their values in the cache. Planes beyond the map are skipped, so kernels larger than the map cost less.
"""

from __future__ import annotations

import os
from contextlib import nullcontext

import torch
import triton
import triton.language as tl
from torch import Tensor

_ROWS, _COLUMNS = 8, 32
TYPES = (torch.float32, torch.float16, torch.bfloat16)


def runs_on(device: torch.device) -> bool:
    """Whether the kernel runs on tensors of this device (on a CPU: in Triton's interpreter only)."""
    return device.type == "cuda" or (device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1")


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
    """``(batch, channels, k, j, i)`` with ``weight (channels, 1, a, b, c)`` → the same shape, contiguous.

    Sums in single precision; x and weight are one of `TYPES`.
    """
    x, weight = x.contiguous(), weight.contiguous()
    batch, channels, planes, rows, columns = x.shape
    out = torch.empty_like(x)
    tiles = triton.cdiv(rows, _ROWS) * triton.cdiv(columns, _COLUMNS)
    # Triton runs a kernel on the current device, wherever its tensors are.
    with torch.cuda.device(x.device) if x.device.type == "cuda" else nullcontext():
        _depthwise[(tiles, planes, batch * channels)](
            x, weight, weight if bias is None else bias.contiguous(), out,
            channels, planes, rows, columns, dilation,
            A=weight.shape[2], B=weight.shape[3], C=weight.shape[4],
            HAS_BIAS=bias is not None, ROWS=_ROWS, COLUMNS=_COLUMNS,
        )  # fmt: skip
    return out


@triton.jit  # type: ignore[untyped-decorator]
def _depthwise(  # type: ignore[no-untyped-def]
    x, weight, bias, out, channels, planes, rows, columns, dilation,
    A: tl.constexpr, B: tl.constexpr, C: tl.constexpr,
    HAS_BIAS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    across = tl.cdiv(columns, COLUMNS)
    j = tl.program_id(0) // across * ROWS + tl.arange(0, ROWS)
    i = tl.program_id(0) % across * COLUMNS + tl.arange(0, COLUMNS)
    plane = tl.program_id(1)
    channel = tl.program_id(2) % channels
    map_start = tl.program_id(2).to(tl.int64) * planes * rows * columns
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for a in range(A):
        k = plane + (a - A // 2) * dilation
        if (k >= 0) & (k < planes):
            for b in range(B):
                from_j = j + (b - B // 2) * dilation
                for c in range(C):
                    from_i = i + (c - C // 2) * dilation
                    inside = ((from_j >= 0) & (from_j < rows))[:, None] & ((from_i >= 0) & (from_i < columns))[None, :]
                    place = (k * rows + from_j[:, None]) * columns + from_i[None, :]
                    values = tl.load(x + map_start + place, mask=inside, other=0.0)
                    tap = tl.load(weight + ((channel * A + a) * B + b) * C + c)
                    total += values.to(tl.float32) * tap.to(tl.float32)
    if HAS_BIAS:
        total += tl.load(bias + channel).to(tl.float32)
    here = (plane * rows + j[:, None]) * columns + i[None, :]
    tl.store(out + map_start + here, total, mask=(j < rows)[:, None] & (i < columns)[None, :])
