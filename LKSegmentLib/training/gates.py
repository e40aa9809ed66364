"""What keeps the gates of a large-kernel network open to learning: smaller steps for large kernels, and a penalty.

Adam moves every weight by about the learning rate, so the answer of a kernel of n weights moves by n times as much: a
7³ kernel over two maps has 686. At one rate for all, the gates of such kernels are at 0 or 1 after a few steps, where
they have no gradient any more, and everything behind them dies.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from LKSegmentLib.networks.blocks.dynamic_large_kernel import DynamicLargeKernel
from LKSegmentLib.networks.blocks.lk_attention import LKAttention

_FREE = 4.0  # a gate may open to sigmoid(4) = 0.98 and close to 0.02 at no cost
_FULL_RATE = 27  # weights that one output of a kernel sums up to which it learns at the full rate


def parameter_groups(network: nn.Module) -> list[dict[str, Any]]:
    """Groups for an optimiser, each with its "share" of the learning rate.

    Depth-wise kernels and those of spatial gates of n weights per output get 27 / n of it (at most all): nothing
    normalises what they answer.
    """
    shares: dict[float, list[nn.Parameter]] = {}
    slow = {
        module.weight: module.weight[0].numel()
        for module in network.modules()
        if isinstance(module, nn.Conv3d) and module.groups == module.in_channels and module.groups > 1
    }
    for module in network.modules():
        if isinstance(module, DynamicLargeKernel):
            weight = module.spatial_se[0].weight
            assert isinstance(weight, nn.Parameter)
            slow[weight] = weight[0].numel()
    for parameter in network.parameters():
        shares.setdefault(min(1.0, _FULL_RATE / slow.get(parameter, 1)), []).append(parameter)
    return [{"params": parameters, "share": share} for share, parameters in shares.items()]


class GateWatch:
    """Adds up how far the network's gates were pushed beyond what still learns, run by run."""

    def __init__(self, network: nn.Module) -> None:
        self._beyond: list[Tensor] = []
        for module in network.modules():
            if isinstance(module, DynamicLargeKernel):
                for gate in (module.spatial_se, module.conv_atten):
                    gate[0].register_forward_hook(self._add)
            elif isinstance(module, LKAttention):
                module.pw.register_forward_hook(self._add)

    def _add(self, module: nn.Module, inputs: Any, answer: Tensor) -> None:
        if torch.is_grad_enabled():
            self._beyond.append((answer.abs() - _FREE).clamp_min(0).square().mean())

    def beyond(self) -> Tensor:
        """The mean square by which the gates' inputs went beyond ±4 in the last run, summed over the gates; once."""
        total = torch.stack(self._beyond).sum()
        self._beyond.clear()
        return total
