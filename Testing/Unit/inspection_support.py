"""What the inspection tests share: tiny networks with every path audible, packages, oblique volumes, an impulse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from networks_support import randomise
from test_packages_manifest import GOOD
from torch import nn

from LKSegmentLib import networks, packages
from LKSegmentLib.packages.manifest import manifest_from
from LKSegmentLib.volumes import Volume

TINY: dict[str, dict[str, Any]] = {
    "dnet": {"depths": (1, 1, 1), "feature_sizes": (4, 8, 8)},
    "dlknetr": {"depths": (1, 1, 1, 1, 1), "feature_sizes": (4, 4, 8, 8, 8)},
    "lka_unet": {"variant": "full", "feature_sizes": (4, 4, 8, 8, 8, 8), "norm_groups": 2},
    "rep3d": {"depths": (1, 1, 1, 1), "feature_sizes": (4, 4, 8, 8), "hidden_size": 8, "kernel_size": 5},
    "dalight3d": {"base_filters": 8, "bottleneck_channels": 16, "max_channels": 16, "ssfb_rank": 3},
}


def tiny(name: str, **options: Any) -> nn.Module:
    """A network of a few thousand weights, none of them without effect, in eval mode."""
    network = networks.create(name, **{"in_channels": 1, "out_channels": 2, **TINY[name], **options})
    return randomise(network).requires_grad_(False)


class FakePackage:
    """A package that exists in memory only. `window`: voxels (k, j, i) of one window."""

    def __init__(self, name: str, network: nn.Module, window: tuple[int, int, int] = (32, 32, 32), **more: Any) -> None:
        values = {
            "name": "tiny", "network": name, "options": {}, "spacing": None, "window": list(window),
            "out_channels": 2, "labels": ["background", "organ"], "channels": [{"intensity": {"rule": "none"}}],
        }  # fmt: skip
        self.manifest = manifest_from({**GOOD, **values, **more}, "The manifest")
        self._network = network

    def network(self, device: Any = "cpu") -> nn.Module:
        return self._network


def saved_tiny_package(folder: Path, name: str = "dnet") -> Path:
    """A whole-volume package of a tiny network with random weights, on disk in ``folder``."""
    return packages.save(
        folder,
        network=name,
        options=TINY[name],
        state_dict=tiny(name).state_dict(),
        labels=["organ"],
        window=(16, 16, 16),
        intensity={"rule": "zscore"},
        licence="CC0-1.0",
    )


def oblique_volume(shape: tuple[int, int, int], spacing: tuple[float, float, float] = (1.0, 1.3, 2.5)) -> Volume:
    """Noise (k, j, i) on an oblique, anisotropic grid; spacing (i, j, k) mm."""
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    rotation[:, 0] *= np.sign(np.linalg.det(rotation))
    matrix = np.eye(4)
    matrix[:3, :3] = rotation * np.array(spacing)
    matrix[:3, 3] = (-30, 12, 45)
    return Volume(np.random.default_rng(2).normal(size=shape).astype(np.float32), matrix)


def plain_volume(shape: tuple[int, int, int]) -> Volume:
    """Noise (k, j, i) at 1 mm, axes along RAS."""
    return Volume(np.random.default_rng(3).normal(size=shape).astype(np.float32), np.eye(4))


def local_only(network: nn.Module) -> nn.Module:
    """Keep the centre tap of every odd kernel: what is left moves nothing, so an impulse stays where the grid puts it.

    An even strided kernel (2³) and a transposed one get the same value everywhere: they spread over their block.
    """
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv3d) and module.weight.shape[-1] % 2:
                middle = module.weight.shape[-1] // 2
                kept = module.weight[..., middle, middle, middle].clone()
                module.weight.zero_()
                module.weight[..., middle, middle, middle] = kept
            elif isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
                module.weight.copy_(module.weight[..., :1, :1, :1].expand_as(module.weight).clone())
    return network
