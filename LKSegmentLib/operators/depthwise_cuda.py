"""Which method ``depthwise_conv3d(..., method="auto")`` takes on CUDA: what was measured to be fastest.

Measured on one NVIDIA H200, single precision, maps of 24³ to 96³ (docs/speed-on-a-gpu.md; why it is chosen so stands
in docs/decisions/speed.md):

- ``"triton"`` for kernels of 5³ to 7³, dense or dilated, where Triton is installed: 1.3 to 2.1 times the library.
- ``"fft"`` for dense kernels of 15³ and more: 4 and 22 times the library with 21³.
- ``"library"`` for everything else: other kernels, smaller maps, half precision and autocast, gradients, tensors
  without values of their own (compiling, tracing, fake tensors), and AMD's cards, which torch calls CUDA too.

Triton compiles with the machine's C compiler when it is first used. Where that fails, the library runs instead.
"""

from __future__ import annotations

import functools
import importlib.util
import warnings
from typing import Literal

import torch
from torch import Tensor, nn

from . import depthwise_fft

_TRITON_EDGES = range(5, 8)
_LEAST_MAP = 24  # voxels along an axis; the gain of Triton sinks with the map, and no smaller one was measured

_triton_failed = False


def chosen(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Literal["triton", "fft", "library"]:
    """The method for this convolution on a device other than a CPU."""
    if not runs_on(x.device) or not _measured_alike(x, weight, bias):
        return "library"
    size, edges = x.shape[2:], weight.shape[2:]
    if x.numel() == 0 or min(size) < _LEAST_MAP:
        return "library"
    if dilation == 1 and depthwise_fft.worth_it(size, edges):
        return "fft"
    if all(edge in _TRITON_EDGES for edge in edges) and not _triton_failed and _triton_is_installed():
        # CUDA counts no further along the second and third axis of a grid.
        return "triton" if max(size[0], x.shape[0] * x.shape[1]) < 2**16 else "library"
    return "library"


def by_triton(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor | None:
    """The convolution, or None where Triton cannot run: it is then not asked again, and a warning says why."""
    global _triton_failed
    try:
        from . import depthwise_triton

        return depthwise_triton.convolve(x, weight, bias, dilation)
    except torch.OutOfMemoryError:  # of the card, which is none of Triton's fault
        raise
    except Exception as error:  # noqa: BLE001 (no compiler, no headers, no place to write, too old a card …)
        _triton_failed = True
        reason = (str(error).strip().splitlines() or ["it said nothing"])[0]
        warnings.warn(
            "Triton cannot run the fast depth-wise convolution here, so torch's own is used, which is slower: "
            f"{type(error).__name__}: {reason}",
            RuntimeWarning,
            stacklevel=3,
        )
        return None


def runs_on(device: torch.device) -> bool:
    """Whether this is what was measured: NVIDIA's CUDA."""
    return device.type == "cuda" and torch.version.hip is None


def _measured_alike(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether the tensors are of the kind that was measured: values in single precision, and no gradients."""
    tracing = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined]
    if tracing or torch.is_autocast_enabled("cuda"):
        return False
    given = [x, weight] if bias is None else [x, weight, bias]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given):
        return False
    return all(
        type(tensor) in (Tensor, nn.Parameter) and tensor.dtype == torch.float32 and tensor.device == x.device
        for tensor in given
    )


@functools.cache
def _triton_is_installed() -> bool:
    return importlib.util.find_spec("triton") is not None
