"""Exact parameters and multiply-accumulates of a network, counted without memory for its tensors.

Counted are the multiply-accumulates of convolutions and matrix products, batch 1. A transposed convolution is
counted on its *input* grid, where each input voxel meets each kernel tap once. Tools that count it on the
output grid (thop and its kin, behind the published figures) report it 8 times too high for stride 2. Norms,
activations, biases and element-wise products are not counted.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(network: nn.Module) -> int:
    """All parameters, trainable or not; buffers (running statistics) are not parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def count_macs(network: nn.Module, in_channels: int, size: Sequence[int]) -> int:
    """Multiply-accumulates of one forward pass in evaluation mode.

    Args:
        network: on the meta device (built under `with torch.device("meta")`), so that nothing is computed.
        in_channels: of the image.
        size: of the image, (k, j, i).

    Returns:
        The exact number.
    """
    was_training = network.training
    network.eval()
    counter = FlopCounterMode(display=False)
    image = torch.empty((1, in_channels, *size), device="meta")
    with torch.no_grad(), counter:
        network(image)
    network.train(was_training)
    return int(counter.get_total_flops()) // 2
