"""What "auto" takes on CUDA, and what happens where Triton cannot run; with stand-ins, on a CPU."""

from __future__ import annotations

import subprocess
import sys
import types
import warnings
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from LKSegmentLib import operators
from LKSegmentLib.operators import DepthwiseConv3d, depthwise, depthwise_conv3d, depthwise_cuda


class Kernel(types.ModuleType):
    """Stands for `depthwise_triton`: notes its calls, and fails where it is told to."""

    def __init__(self) -> None:
        super().__init__("depthwise_triton")
        self.calls = 0
        self.failure: Exception | None = None

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
        self.calls += 1
        if self.failure is not None:
            raise self.failure
        return depthwise_conv3d(x, weight, bias, dilation, method="library")


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    """The CPU is taken for CUDA, and Triton for installed."""
    fake = Kernel()
    monkeypatch.setitem(sys.modules, "LKSegmentLib.operators.depthwise_triton", fake)
    monkeypatch.setattr(operators, "depthwise_triton", fake, raising=False)
    monkeypatch.setattr(depthwise, "_chosen", depthwise_cuda.chosen)
    monkeypatch.setattr(depthwise_cuda, "runs_on", lambda device: True)
    monkeypatch.setattr(depthwise_cuda, "triton_is_installed", lambda: True)
    monkeypatch.setattr(depthwise_cuda, "_triton_failed", False)
    monkeypatch.setattr(depthwise_cuda, "_triton_ran", False)
    yield fake


def given(edge: int, size: tuple[int, ...], channels: int = 3, batch: int = 1) -> tuple[Tensor, Tensor]:
    """A map and a kernel of any size, which take no memory."""
    weight = torch.zeros(1).expand(channels, 1, edge, edge, edge)
    return torch.zeros(1).expand(batch, channels, *size), weight


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize(
    ("edge", "dilation", "size", "method"),
    [
        # Measured on a card, and fastest there:
        (7, 3, (48, 48, 48), "triton"),
        (7, 3, (24, 24, 24), "triton"),
        (5, 1, (96, 96, 96), "triton"),
        (21, 1, (48, 48, 48), "fft"),
        (21, 1, (24, 24, 24), "fft"),
        # Extrapolated (docs/speed-on-a-gpu.md):
        (5, 1, (24, 30, 130), "triton"),
        (23, 1, (24, 24, 24), "fft"),
        (101, 1, (24, 24, 24), "fft"),
        # Not measured, or slower:
        (3, 1, (48, 48, 48), "library"),
        (5, 2, (48, 48, 48), "library"),
        (5, 3, (48, 48, 48), "library"),
        (7, 1, (48, 48, 48), "library"),
        (7, 2, (48, 48, 48), "library"),
        (9, 1, (48, 48, 48), "library"),
        (15, 1, (96, 96, 96), "library"),
        (19, 1, (96, 96, 96), "library"),
        (21, 2, (48, 48, 48), "library"),
        (7, 3, (24, 23, 24), "library"),
        (21, 1, (12, 12, 12), "library"),
        (7, 3, (0, 24, 24), "library"),
    ],
)
def test_what_was_measured_to_be_fastest_is_chosen(
    edge: int, dilation: int, size: tuple[int, ...], method: str
) -> None:
    assert depthwise_cuda.chosen(*given(edge, size), None, dilation) == method


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("edges", [(5, 5, 7), (7, 5, 5), (21, 21, 23), (1, 21, 21)])
def test_kernels_that_are_not_cubic_keep_the_library(edges: tuple[int, ...]) -> None:
    x = given(5, (48, 48, 48))[0]
    for dilation in (1, 3):
        assert depthwise_cuda.chosen(x, torch.zeros(1).expand(3, 1, *edges), None, dilation) == "library"


@pytest.mark.usefixtures("kernel")
def test_more_maps_than_a_grid_of_cuda_has_places_go_to_the_library() -> None:
    many = given(5, (24, 24, 24), channels=2**15)
    assert depthwise_cuda.chosen(*many, None, 1) == "triton"
    assert depthwise_cuda.chosen(*given(5, (24, 24, 24), channels=2**15, batch=2), None, 1) == "library"


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("edge", [5, 21])
def test_types_and_gradients_that_were_not_measured_keep_the_library(edge: int) -> None:
    x, weight = given(edge, (48, 48, 48))
    fast = depthwise_cuda.chosen(x, weight, None, 1)
    assert fast != "library"
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        assert depthwise_cuda.chosen(x.to(dtype), weight.to(dtype), None, 1) == "library"
    assert depthwise_cuda.chosen(x, weight, torch.zeros(3).half(), 1) == "library"
    assert depthwise_cuda.chosen(x, weight.to("meta"), None, 1) == "library"
    with pytest.MonkeyPatch.context() as patch:  # torch refuses to enter CUDA's autocast where there is no CUDA
        patch.setattr(torch, "is_autocast_enabled", lambda device: device == "cuda")
        assert depthwise_cuda.chosen(x, weight, None, 1) == "library"
    learnt = [nn.Parameter(tensor) for tensor in (x, weight, torch.zeros(3))]
    for asks in ((learnt[0], weight, None), (x, learnt[1], None), (x, weight, learnt[2])):
        assert depthwise_cuda.chosen(*asks, 1) == "library"
        with torch.inference_mode():
            assert depthwise_cuda.chosen(*asks, 1) == fast


def test_other_devices_and_a_machine_without_triton_keep_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = given(5, (48, 48, 48))
    assert depthwise_cuda.chosen(x.to("meta"), weight.to("meta"), None, 1) == "library"
    assert depthwise_cuda.runs_on(torch.device("cuda:1")) == (torch.version.hip is None)
    monkeypatch.setattr(torch.version, "hip", "7.0")
    assert not depthwise_cuda.runs_on(torch.device("cuda"))
    monkeypatch.setattr(depthwise_cuda, "runs_on", lambda device: True)
    monkeypatch.setattr(depthwise_cuda, "_triton_failed", False)
    monkeypatch.setattr(depthwise_cuda, "triton_is_installed", lambda: False)
    assert depthwise_cuda.chosen(x, weight, None, 1) == "library"


def test_a_layer_runs_by_triton_and_trains_by_the_library(kernel: Kernel) -> None:
    layer, x = DepthwiseConv3d(2, 7, dilation=3), torch.randn(1, 2, 24, 25, 26)
    trained = layer(x)
    assert kernel.calls == 0 and trained.requires_grad
    with torch.inference_mode():
        torch.testing.assert_close(layer(x), trained, rtol=0, atol=0)
    assert kernel.calls == 1


class OfTriton(Exception):
    """Stands for Triton's own errors."""

    __module__ = "triton.compiler.errors"


class Derived(OfTriton):
    """An error that is Triton's by what it derives from."""


FAILURES = {
    "no compiler": RuntimeError("Failed to find C compiler. Please specify via CC environment variable."),
    "no space": OSError(28, "No space left on device"),
    "says nothing": ImportError(),
    "compiler fails": subprocess.CalledProcessError(1, ["gcc"]),
    "of Triton": OfTriton("at 12:4: cannot compile"),
    "derived": Derived("out of resource: shared memory"),
    "too old a card": RuntimeError("Triton Error [CUDA]: no kernel image is available for execution on the device"),
    "too old a driver": RuntimeError(
        "Triton Error [CUDA]: the provided PTX was compiled with an unsupported toolchain."
    ),
}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_where_triton_fails_the_library_answers_and_a_warning_comes_once(kernel: Kernel, failure: Exception) -> None:
    kernel.failure = failure
    layer, x = DepthwiseConv3d(2, 5).requires_grad_(False), torch.randn(1, 2, 24, 24, 24)
    with pytest.warns(RuntimeWarning, match=f"torch's own is used.*{type(failure).__name__}"):
        answer = layer(x)
    torch.testing.assert_close(answer, nn.Conv3d.forward(layer, x))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close(layer(x), answer)
    assert kernel.calls == 1
    with pytest.raises(type(failure)):  # who insists is told
        depthwise._forward(x, layer.weight, None, 1, "triton")


@pytest.mark.parametrize(
    "failure",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        torch.AcceleratorError("an illegal memory access was encountered"),
        RuntimeError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be …"),
        RuntimeError("CUDA driver error: unspecified launch failure"),
        RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        TypeError("convolve() takes 3 positional arguments but 4 were given"),
        ValueError("a mistake of ours"),
    ],
    ids=lambda failure: f"{type(failure).__name__}: {failure}"[:50],
)
def test_faults_of_the_card_and_mistakes_of_ours_are_not_triton_failing(kernel: Kernel, failure: Exception) -> None:
    layer, x = DepthwiseConv3d(2, 5).requires_grad_(False), torch.randn(1, 2, 24, 24, 24)
    kernel.failure = failure
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(type(failure)) as raised:
            layer(x)
        assert raised.value is failure
        kernel.failure = None
        layer(x)
    assert kernel.calls == 2  # Triton is asked again


def test_an_error_of_no_kind_is_tritons_only_until_triton_has_run(kernel: Kernel) -> None:
    layer, x = DepthwiseConv3d(2, 5).requires_grad_(False), torch.randn(1, 2, 24, 24, 24)
    layer(x)
    kernel.failure = RuntimeError("something")
    with pytest.raises(RuntimeError, match="something"):
        layer(x)
    kernel.failure = OfTriton("a later kernel does not compile")
    with pytest.warns(RuntimeWarning, match="OfTriton: a later kernel"):
        layer(x)
    assert kernel.calls == 3


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_what_is_compiled_traced_or_without_values_stays_the_librarys(kernel: Kernel) -> None:
    layer, x = DepthwiseConv3d(2, 5).requires_grad_(False), torch.randn(1, 2, 24, 24, 24)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)(x)
    traced = torch.jit.trace(layer, x, check_trace=False)(x)
    for answer in (compiled, traced):
        torch.testing.assert_close(answer, nn.Conv3d.forward(layer, x))
    with FakeTensorMode():
        for device in ("cuda", "meta"):
            x, weight = torch.empty(1, 2, 24, 24, 24, device=device), torch.empty(2, 1, 5, 5, 5, device=device)
            assert depthwise_conv3d(x, weight).shape == x.shape
    assert kernel.calls == 0
