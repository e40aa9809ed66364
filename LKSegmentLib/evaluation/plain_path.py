"""Networks as their published code computes them: the path that ours is measured against.

torch's own convolutions on memory as it comes (contiguous; channels last only where the published order of
operations makes it so), the published order of operations, auxiliary heads always run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from LKSegmentLib.networks.blocks.dynamic_large_kernel import DynamicLargeKernel, DynamicLargeKernelBlock
from LKSegmentLib.networks.blocks.receptive_bias import ReceptiveBiasBlock
from LKSegmentLib.operators import DepthwiseConv3d, PointwiseConv3d


def _large_kernel(self: DynamicLargeKernel, x: Tensor) -> Tensor:
    near = self.att_conv1(self.channel_proj(x))
    far = self.att_conv2(near)
    both = torch.cat((near, far), dim=1)
    mean, largest = both.mean(1, keepdim=True), both.max(1, keepdim=True)[0]
    weights = self.spatial_se(torch.cat((mean, largest), dim=1))
    selected = both * weights[:, :1] + both * weights[:, 1:]
    gate = self.conv_atten(selected.mean((2, 3, 4), keepdim=True))
    out: Tensor = gate * selected + x
    return out


def _block(self: DynamicLargeKernelBlock, x: Tensor) -> Tensor:
    scale = self.layer_scale.view(1, -1, 1, 1, 1)
    shortcut = x.clone()
    x = shortcut + scale * self.attn(self.norm_layer(x))
    shortcut = x.clone()
    out: Tensor = shortcut + scale * self.mlp(self.norm_layer(x))
    return out


def _receptive_block(self: ReceptiveBiasBlock, x: Tensor) -> Tensor:
    kernel = self.kernel()
    middle, groups = kernel.shape[-1] // 2, kernel.shape[0]
    out: Tensor = self.act(self.norm(functional.conv3d(x, kernel, padding=middle, groups=groups)))
    return out


_FORWARDS: dict[type[nn.Module], Callable[..., Any]] = {
    DepthwiseConv3d: nn.Conv3d.forward,
    PointwiseConv3d: nn.Conv3d.forward,
    DynamicLargeKernel: _large_kernel,
    DynamicLargeKernelBlock: _block,
    ReceptiveBiasBlock: _receptive_block,
}


@contextmanager
def plain_path(network: nn.Module) -> Iterator[Callable[[Tensor], Tensor]]:
    """The network's plain forward: image (batch, channels, k, j, i) → logits at full resolution."""
    replaced = [module for module in network.modules() if type(module) in _FORWARDS]
    for module in replaced:
        setattr(module, "forward", MethodType(_FORWARDS[type(module)], module))  # noqa: B010
    # The published D-Net runs its auxiliary heads whether or not they are asked for.
    with_heads = type(network).__name__ == "DNet"

    def forward(image: Tensor) -> Tensor:
        if with_heads:
            setattr(network, "deep_supervision", True)  # noqa: B010
        try:
            logits = network(image)
        finally:
            if with_heads:
                setattr(network, "deep_supervision", False)  # noqa: B010
        first: Tensor = logits[0] if isinstance(logits, list) else logits
        return first

    try:
        yield forward
    finally:
        for module in replaced:
            module.__dict__.pop("forward", None)
