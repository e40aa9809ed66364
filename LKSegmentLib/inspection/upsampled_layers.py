"""Where the maps lie that a network hands from one resolution up to the next: stride and offset, read off a run.

Any encoder-decoder will do, of this library or another: the place of every map follows from the convolutions that made
it, and what is handed up is the input of the modules that enlarge.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Shape = tuple[int, ...]

_REDUCES = (nn.Conv3d, nn.MaxPool3d, nn.AvgPool3d)
_ENLARGES = (nn.ConvTranspose3d, nn.Upsample)


@dataclass(frozen=True)
class UpsampledLayer:
    """The input of a module that enlarges: the last one of its resolution in the order of a run.

    Attributes:
        layer: the module.
        stride: window voxels from one voxel of the map to the next.
        offset: where voxel 0 is centred, in window voxels; see `maps.reduced_grid`.
        channels: of the map.
    """

    layer: str
    stride: int
    offset: float
    channels: int


def upsampled_layers(network: nn.Module, window: Tensor) -> dict[int, UpsampledLayer]:
    """One layer for each stride, deepest first; empty for a network that enlarges nothing in three dimensions.

    Args:
        network: in evaluation mode; it is run once.
        window: (1, channels, k, j, i).
    """
    size: Shape = tuple(window.shape[2:])
    # Where the maps of a shape lie when they first appear: on the way down.
    places: dict[Shape, float] = {size: 0.0}
    found: dict[int, UpsampledLayer] = {}
    names = {module: name for name, module in network.named_modules()}

    def down(module: Any, inputs: tuple[Any, ...], output: Any) -> None:
        before, after = _shape(inputs[0] if inputs else None), _shape(output)
        if before in places and after is not None and after not in places and _stride(size, after) is not None:
            kernel, padding = _first(module.kernel_size), _first(module.padding)
            dilation = _first(getattr(module, "dilation", 1))
            step = _stride(size, before) or 1
            places[after] = places[before] + step * (dilation * (kernel - 1) / 2 - padding)

    def up(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        shape = _shape(inputs[0] if inputs else None)
        stride = None if shape is None else _stride(size, shape)
        if shape is None or stride is None or stride < 2:
            return
        # Deepest: as the way down left it, or blocks where that was no convolution (patches that are merged).
        deepest = stride >= max(found, default=0)
        offset = places.get(shape, (stride - 1) / 2) if deepest else (stride - 1) / 2
        found[stride] = UpsampledLayer(names[module], stride, offset, inputs[0].shape[1])

    handles = []
    for module in network.modules():
        if isinstance(module, _REDUCES):
            handles.append(module.register_forward_hook(down))
        elif isinstance(module, _ENLARGES):
            handles.append(module.register_forward_pre_hook(up))
    try:
        with torch.no_grad():
            network(window)
    finally:
        for handle in handles:
            handle.remove()
    return dict(sorted(found.items(), reverse=True))


def _shape(tensor: Any) -> Shape | None:
    return tuple(tensor.shape[2:]) if isinstance(tensor, Tensor) and tensor.ndim == 5 else None


def _stride(size: Shape, shape: Shape) -> int | None:
    """The stride of a map in a window; None where it is not the same whole number along all axes."""
    strides = {-(-edge // here) for edge, here in zip(size, shape, strict=True)}
    return strides.pop() if len(strides) == 1 else None


def _first(value: Any) -> float:
    return float(value[0]) if isinstance(value, tuple) else float(value)
