"""Which method ``depthwise_conv3d(..., method="auto")`` takes on CUDA, by kernels that were measured there.

Measured on one NVIDIA H200, single precision, batch 1, 32 to 128 channels, maps of 24³ to 96³. On maps of 24 voxels
and more along every axis:

- ``"triton"``, where it is installed, for 5³, and for 7³ with dilation 3: 1.3 to 2.1 times as fast as the library.
- ``"fft"`` for dense 21³: 4 and 22 times as fast as the library; and for larger cubic kernels, which is extrapolated.
- ``"library"`` for everything else: other kernels and dilations, smaller maps, half precision and autocast, gradients,
  tensors without values of their own (compiling, tracing, fake tensors), and AMD's cards, which torch calls CUDA too.

Batch, channels and the form of the map are not asked for; docs/speed-on-a-gpu.md has the figures and all that is
extrapolated, docs/decisions/speed.md the reasons.

Triton compiles with the machine's C compiler when it is first used. Where that fails, the library runs instead.
"""

from __future__ import annotations

import functools
import importlib.util
import re
import subprocess
import warnings
from typing import Literal

import torch
from torch import Tensor, nn

_BY_TRITON = ((5, 1), (7, 3))  # edge and dilation of the kernels that were measured, and faster
_LEAST_BY_TRANSFORM = 21  # edge; the library's time grows with the kernel's volume, the transform's does not
_LEAST_MAP = 24  # voxels along an axis; the gain of Triton sinks with the map, and no smaller one was measured

# As torch and Triton word it; a kernel that the card or its driver cannot load is no fault of the card.
_DEVICE_FAULT = re.compile(r"CUDA (driver )?error|Triton Error \[CUDA\](?!.*(kernel image|PTX))")

_triton_ran = False
_triton_failed = False


def chosen(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Literal["triton", "fft", "library"]:
    """The method for this convolution on a device other than a CPU."""
    if not runs_on(x.device) or not _measured_alike(x, weight, bias):
        return "library"
    size, edges = x.shape[2:], weight.shape[2:]
    if x.numel() == 0 or min(size) < _LEAST_MAP:
        return "library"
    edge = max(edges)
    if min(edges) < edge:
        return "library"
    if dilation == 1 and edge >= _LEAST_BY_TRANSFORM:
        return "fft"
    if (edge, dilation) in _BY_TRITON and not _triton_failed and triton_is_installed():
        # CUDA counts no further along the second and third axis of a grid.
        return "triton" if max(size[0], x.shape[0] * x.shape[1]) < 2**16 else "library"
    return "library"


def by_triton(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor | None:
    """The convolution, or None where Triton cannot run: it is then not asked again, and a warning says why.

    What is not Triton's failing, as a fault of the card, is raised.
    """
    global _triton_ran, _triton_failed
    try:
        from . import depthwise_triton

        answer = depthwise_triton.convolve(x, weight, bias, dilation)
        _triton_ran = True
        return answer
    except Exception as error:
        if not _is_tritons(error):
            raise
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


def _is_tritons(error: Exception) -> bool:
    """Whether this tells that Triton, or the compiler it needs, is missing or cannot run here."""
    # The card's memory, and its faults, after which nothing runs on it any more.
    if isinstance(error, (torch.OutOfMemoryError, torch.AcceleratorError)) or _DEVICE_FAULT.search(str(error)):
        return False
    if isinstance(error, (ImportError, OSError, subprocess.SubprocessError)):
        return True
    if any(kind.__module__.partition(".")[0] == "triton" for kind in type(error).__mro__):
        return True
    # No compiler, no driver, a failing pass of the compiler: Triton has no class of its own for them.
    return isinstance(error, RuntimeError) and not _triton_ran


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
def triton_is_installed() -> bool:
    """Whether the package is there; whether it can run shows when it does."""
    return importlib.util.find_spec("triton") is not None
