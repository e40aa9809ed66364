"""Counts are exact: a second count by hand, layer by layer, and the mistake behind published figures."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from LKSegmentLib import networks
from LKSegmentLib.networks.counting import count_macs


def count_by_layers(
    network: nn.Module, in_channels: int, size: tuple[int, int, int], transposed_on: str
) -> int:
    """Multiply-accumulates of the convolutions from the shapes that pass through each layer."""
    total = 0

    def count(layer: nn.Module, inputs: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
        nonlocal total
        assert isinstance(layer, (nn.Conv3d, nn.ConvTranspose3d))
        grid = inputs[0] if isinstance(layer, nn.ConvTranspose3d) and transposed_on == "input" else out
        total += grid[0, 0].numel() * layer.weight.numel()

    for layer in network.modules():
        if isinstance(layer, (nn.Conv3d, nn.ConvTranspose3d)):
            layer.register_forward_hook(count)
    network.eval()(torch.empty(1, in_channels, *size, device="meta"))
    return total


@pytest.mark.parametrize("name", ["dnet", "lka_unet"])
def test_two_ways_of_counting_agree(name: str) -> None:
    reference = networks.facts(name).reference
    with torch.device("meta"):
        network = networks.create(name, **reference)
    size = (64, 32, 96)
    exact = count_macs(network, reference["in_channels"], size)
    assert exact == count_by_layers(network, reference["in_channels"], size, transposed_on="input")


def test_counting_transposed_convolutions_on_the_output_grid_explains_the_published_figure() -> None:
    with torch.device("meta"):
        network = networks.create("dnet", in_channels=1, out_channels=16, deep_supervision=True)
    exact = count_macs(network, 1, (96, 96, 96)) / 1e9
    over = count_by_layers(network, 1, (96, 96, 96), transposed_on="output") / 1e9
    assert exact == pytest.approx(176.835, abs=5e-4)
    assert over == pytest.approx(197.79, abs=5e-3)


@pytest.mark.parametrize(
    ("in_channels", "out_channels", "edge", "gmacs"),
    [(4, 4, 128, 438.85), (4, 4, 96, 185.14), (1, 3, 96, 176.19), (1, 16, 128, 419.16)],
)
def test_dnet_counts_at_other_sizes(in_channels: int, out_channels: int, edge: int, gmacs: float) -> None:
    with torch.device("meta"):
        network = networks.create(
            "dnet", in_channels=in_channels, out_channels=out_channels, deep_supervision=True
        )
    assert count_macs(network, in_channels, (edge, edge, edge)) / 1e9 == pytest.approx(gmacs, abs=6e-3)
