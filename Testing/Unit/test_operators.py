"""The fast convolutions against the library's own, forward and backward."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as functional

from LKSegmentLib.errors import InputError
from LKSegmentLib.operators import DepthwiseConv3d, PointwiseConv3d, depthwise_conv3d

CASES = [(5, 1, (11, 12, 13)), (7, 3, (10, 11, 12)), (3, 2, (6, 7, 9)), (7, 1, (9, 9, 9)), (21, 1, (7, 8, 9)), (7, 3, (2, 3, 4))]


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
