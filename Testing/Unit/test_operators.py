"""The fast convolutions against the library's own, forward and backward."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as functional
from scipy import ndimage
from torch import Tensor

from LKSegmentLib.errors import InputError
from LKSegmentLib.operators import DepthwiseConv3d, PointwiseConv3d, depthwise_conv3d, depthwise_fft, packed, slabs
from LKSegmentLib.operators.depthwise_cpu import PackedDepthwise
from LKSegmentLib.operators.depthwise_gradient import weight_gradient

CASES = [
    (5, 1, (11, 12, 13)),
    (7, 3, (10, 11, 12)),
    (3, 2, (6, 7, 9)),
    (7, 1, (9, 9, 9)),
    (21, 1, (7, 8, 9)),
    (7, 3, (2, 3, 4)),
]


@pytest.mark.parametrize(("kernel", "dilation", "size"), CASES)
def test_depthwise_equals_stock_forward_and_backward(kernel: int, dilation: int, size: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(kernel * 100 + dilation)
    x = torch.randn((2, 3, *size), generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn((3, 1, kernel, kernel, kernel), generator=generator, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(3, generator=generator, dtype=torch.float64, requires_grad=True)
    ours = depthwise_conv3d(x, weight, bias, dilation)
    stock = functional.conv3d(x, weight, bias, padding=dilation * (kernel // 2), dilation=dilation, groups=3)
    torch.testing.assert_close(ours, stock, rtol=0, atol=1e-11)
    upstream = torch.randn(stock.shape, generator=generator, dtype=torch.float64)
    for mine, theirs in zip(
        torch.autograd.grad(ours, (x, weight, bias), upstream),
        torch.autograd.grad(stock, (x, weight, bias), upstream),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-9)
    with torch.no_grad():
        torch.testing.assert_close(depthwise_conv3d(x, weight, bias, dilation), stock.detach(), rtol=0, atol=1e-11)


def test_modules_share_names_and_results_with_stock_modules() -> None:
    x = torch.randn(1, 4, 6, 7, 8)
    fast = DepthwiseConv3d(4, 7, dilation=3)
    stock = torch.nn.Conv3d(4, 4, 7, padding=9, dilation=3, groups=4)
    stock.load_state_dict(fast.state_dict(), strict=True)
    torch.testing.assert_close(fast(x), stock(x), rtol=1e-5, atol=1e-5)
    fast_point = PointwiseConv3d(4, 6)
    stock_point = torch.nn.Conv3d(4, 6, 1)
    stock_point.load_state_dict(fast_point.state_dict(), strict=True)
    torch.testing.assert_close(fast_point(x), stock_point(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "weight_shape", "dilation", "words"),
    [
        ((1, 2, 4, 4, 4), (2, 1, 4, 4, 4), 1, "odd"),
        ((1, 2, 4, 4, 4), (3, 1, 3, 3, 3), 1, "depth-wise"),
        ((2, 4, 4, 4), (2, 1, 3, 3, 3), 1, "depth-wise"),
        ((1, 2, 4, 4, 4), (2, 1, 3, 3, 3), 0, "dilation"),
    ],
)
def test_what_does_not_fit_is_refused(shape, weight_shape, dilation: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        depthwise_conv3d(torch.zeros(shape), torch.zeros(weight_shape), None, dilation)


def test_methods_that_there_are_not_are_refused() -> None:
    x, weight = torch.zeros(1, 2, 4, 4, 4), torch.zeros(2, 1, 3, 3, 3)
    with pytest.raises(InputError, match="dense kernels only"):
        depthwise_conv3d(x, weight, None, 2, method="fft")
    with pytest.raises(InputError, match="one of auto"):
        depthwise_conv3d(x, weight, method="quick")  # type: ignore[arg-type]


def kernels(channels: int, edge: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(edge)
    weight = torch.randn((channels, 1, edge, edge, edge), generator=generator, dtype=dtype)
    return weight, torch.randn(channels, generator=generator, dtype=dtype)


@pytest.fixture
def everything_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small maps take the way of large ones: thin slabs, few channels at a time."""
    for name in ("SLAB_BYTES", "_ROWS_BYTES", "_SMALL_BYTES", "_ONE_SLAB_BYTES"):
        monkeypatch.setattr(f"LKSegmentLib.operators.depthwise_cpu.{name}", 1)


@pytest.mark.usefixtures("everything_large")
@pytest.mark.parametrize(("kernel", "dilation", "size"), [*CASES, (3, 1, (1, 1, 1)), (5, 2, (30, 5, 6))])
def test_slabs_and_channel_groups_change_nothing(kernel: int, dilation: int, size: tuple[int, ...]) -> None:
    x = torch.randn((2, 37, *size), dtype=torch.float64)
    weight, bias = kernels(37, kernel)
    ours = depthwise_conv3d(x, weight, bias, dilation)
    stock = depthwise_conv3d(x, weight, bias, dilation, method="library")
    torch.testing.assert_close(ours, stock, rtol=0, atol=1e-11)
    single = depthwise_conv3d(x.float(), weight.float(), bias.float(), dilation)
    assert float((single - stock).abs().max()) < 1e-5 * float(stock.abs().max())


def test_fourier_transform_keeps_its_stated_tolerance() -> None:
    x = torch.randn((1, 18, 22, 23, 24), dtype=torch.float64)
    x[:, 1:-1] = 0  # the reference is slow; the two channels left lie in different groups
    weight, bias = kernels(18, 21)
    assert depthwise_fft.worth_it(x.shape[2:], weight.shape[2:])
    exact = bias.view(1, -1, 1, 1, 1).expand_as(x).clone()
    for channel in (0, 17):
        map_, kernel = x[0, channel].numpy(), weight[channel, 0].numpy()
        exact[0, channel] += torch.from_numpy(ndimage.correlate(map_, kernel, mode="constant"))
    torch.testing.assert_close(depthwise_conv3d(x, weight, bias), exact, rtol=0, atol=1e-10)
    single = depthwise_conv3d(x.float(), weight.float(), bias.float(), method="fft")
    assert float((single - exact).abs().max()) < depthwise_fft.TOLERANCE * float(exact.abs().max())


def test_gradients_through_the_fourier_transform() -> None:
    x = torch.randn((1, 2, 6, 7, 5), dtype=torch.float64, requires_grad=True)
    weight, bias = (tensor.requires_grad_() for tensor in kernels(2, 9))
    upstream = torch.randn(1, 2, 6, 7, 5, dtype=torch.float64)
    grads = [
        torch.autograd.grad(depthwise_conv3d(x, weight, bias, method=method), (x, weight, bias), upstream)
        for method in ("fft", "library")
    ]
    for mine, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10)


def test_the_transform_is_chosen_for_large_kernels_on_large_maps_only() -> None:
    assert depthwise_fft.worth_it((48, 48, 48), (21, 21, 21))
    assert not depthwise_fft.worth_it((6, 6, 6), (21, 21, 21))
    assert not depthwise_fft.worth_it((48, 48, 48), (7, 7, 7))


def test_window_of_a_stream_gives_the_planes_within() -> None:
    weight, bias = kernels(3, 7)
    x = torch.randn((40, 7, 8, 3), dtype=torch.float64)
    convolution = PackedDepthwise(weight, bias, dilation=3)
    whole = convolution(x)
    torch.testing.assert_close(convolution.of_window(x[5 : 5 + 2 * 9 + 4]), whole[14:18], rtol=0, atol=1e-11)


@pytest.mark.parametrize("planes", [1, 2, 5, 30])
@pytest.mark.parametrize("length", [1, 3, 11])
def test_streams_of_any_slabs_give_the_whole(length: int, planes: int) -> None:
    weight, bias = kernels(3, 5)
    x = torch.randn((length, 4, 5, 3), dtype=torch.float64)
    convolution = PackedDepthwise(weight, bias)
    streamed = slabs.gathered(slabs.convolved(slabs.slabs_of(x, planes), 2, convolution.of_window), length)
    torch.testing.assert_close(streamed, convolution(x), rtol=0, atol=1e-11)


PACKED = [
    packed.PackedConvolution(torch.randn(5, 4, 3, 3, 3), torch.randn(5), stride=2, padding=(1, 1, 1)),
    packed.PackedConvolution(
        torch.randn(5, 4, 3, 3, 3), None, padding=(0, 1, 1), activation=packed.Activation("leaky_relu", 0.2)
    ),
    packed.PackedConvolution(torch.randn(4, 1, 3, 3, 3), torch.randn(4), groups=4, activation=packed.GELU),
    packed.PackedPointwise(torch.randn(5, 4), torch.randn(5), packed.GELU),
    packed.PackedDoubling(torch.randn(4, 5, 2, 2, 2), torch.randn(5)),
    packed.PackedTransposed(torch.randn(4, 5, 4, 4, 4), torch.randn(5), 2, (1, 1, 1)),
]


@pytest.mark.parametrize("operator", PACKED, ids=lambda operator: type(operator).__name__)
def test_packed_operators_equal_the_library(operator, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(6, 7, 8, 4)
    with torch.inference_mode():
        fast = operator(x)
        monkeypatch.setattr(packed, "packable", lambda x: False)
        plain = operator(x)
    torch.testing.assert_close(fast, plain, rtol=1e-5, atol=1e-5)


def test_packed_doubling_is_the_transposed_convolution() -> None:
    weight, bias, x = torch.randn(4, 5, 2, 2, 2), torch.randn(5), torch.randn(3, 2, 4, 4)
    expected = functional.conv_transpose3d(packed.as_batch(x), weight, bias, stride=2)
    doubling = packed.PackedDoubling(weight, bias)
    torch.testing.assert_close(doubling(x), packed.to_voxels(expected), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(doubling.mean(x.mean((0, 1, 2))), expected.mean((0, 2, 3, 4)), rtol=1e-5, atol=1e-5)


TRITON_CHECK = """
import torch
from LKSegmentLib.operators import depthwise_conv3d
device = "cuda" if torch.cuda.is_available() else "cpu"
for edges, dilation, shape in (
    ((5, 5, 5), 1, (2, 3, 3, 9, 34)),
    ((7, 7, 7), 3, (2, 3, 4, 5, 6)),
    ((21, 21, 21), 1, (1, 1, 2, 2, 3)),
    ((3, 5, 1), 2, (2, 3, 2, 3, 4)),
):
    x, channels = torch.randn(shape, device=device), shape[1]
    weight, bias = torch.randn(channels, 1, *edges, device=device), torch.randn(channels, device=device)
    for b in (bias, None):
        ours = depthwise_conv3d(x, weight, b, dilation, method="triton").double().cpu()
        b = None if b is None else b.double().cpu()
        exact = depthwise_conv3d(x.double().cpu(), weight.double().cpu(), b, dilation, method="library")
        assert float((ours - exact).abs().max()) < 1e-5 * float(exact.abs().max()), (edges, dilation)
print("checked")
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
def test_triton_kernel_against_double_precision() -> None:
    environment = dict(os.environ)
    if not torch.cuda.is_available():
        environment["TRITON_INTERPRET"] = "1"
    done = subprocess.run(
        [sys.executable, "-c", TRITON_CHECK], capture_output=True, text=True, env=environment, check=False
    )
    assert done.stdout.strip() == "checked", done.stderr[-2000:]


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU the kernel runs")
def test_triton_is_refused_in_a_sentence_where_it_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(InputError, match="method 'triton'"):
        depthwise_conv3d(torch.zeros(1, 2, 4, 4, 4), torch.zeros(2, 1, 3, 3, 3), method="triton")


@pytest.mark.parametrize(("kernel", "dilation"), [(3, 1), (5, 1), (7, 3)])
def test_under_autocast_depthwise_is_computed_in_single_precision(kernel: int, dilation: int) -> None:
    generator = torch.Generator().manual_seed(kernel)
    x = torch.randn((2, 16, 9, 8, 7), generator=generator, requires_grad=True)
    layer = DepthwiseConv3d(16, kernel, dilation)
    plain = layer(x)
    expected = torch.autograd.grad(plain.square().mean(), (x, layer.weight))
    with torch.autocast("cpu", torch.bfloat16):
        answer = layer(x)
        inside = layer(x.bfloat16())
    assert answer.dtype == inside.dtype == torch.bfloat16
    torch.testing.assert_close(answer, plain.bfloat16(), rtol=0, atol=0, msg="rounded once, at the end")
    found = torch.autograd.grad(answer.float().square().mean(), (x, layer.weight))
    assert all(gradient.dtype == torch.float32 for gradient in found)
    for mine, exact in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, exact, rtol=0.02, atol=0.02 * float(exact.abs().max()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("edge", "dilation"), [(3, 1), (7, 3), (9, 1)])
def test_a_kernels_gradient_in_half_precision_is_summed_in_single(
    edge: int, dilation: int, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(edge)
    x, gradient = (torch.randn((2, 3, 7, 8, 9), generator=generator).to(dtype) for _ in range(2))
    weight = torch.zeros((3, 1, edge, edge, edge), dtype=dtype)
    found = weight_gradient(x, gradient, weight, dilation)
    exact = weight_gradient(x.double(), gradient.double(), weight.double(), dilation)
    assert found.dtype == dtype
    torch.testing.assert_close(found, exact.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-4)
