"""The large depth-wise kernels of a network as they act: weights, masks, and what must be said about them.

Two depth-wise convolutions in a row are one: the kernel that acts is the full convolution of the two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from LKSegmentLib.networks.blocks.dynamic_large_kernel import DynamicLargeKernel
from LKSegmentLib.networks.blocks.lk_attention import LKAttention
from LKSegmentLib.networks.blocks.receptive_bias import ReceptiveBiasConv3d
from LKSegmentLib.operators import DepthwiseConv3d

from .by_network import exposed

# A mask or its learned part counts as collapsed when its taps differ by less than this, of values around one.
COLLAPSED = 1e-6


@dataclass(frozen=True)
class LargeKernel:
    """One large depth-wise convolution.

    Attributes:
        name: "21³ kernel, encoder 1/2 block 0"; unique within a network.
        layer: the module that holds it.
        stride: window voxels from one tap to the next; its layer's stride.
        edge: taps along each axis.
        channels: how many kernels it has.
        operator: how the weights that act come about.
        weights: gives a copy of them: (channels, K, K, K) float32.
        prior, mask: give Rep3D's prior (K, K, K) and mask (1 or channels, K, K, K); None where there is none.
        default: whether it is shown when nothing is asked for by name.
        remark: what must be said about it beside what its numbers tell.
    """

    name: str
    layer: str
    stride: int
    edge: int
    channels: int
    operator: str
    weights: Callable[[], Tensor]
    prior: Callable[[], Tensor] | None = None
    mask: Callable[[], Tensor] | None = None
    default: bool = False
    remark: str = ""

    @cached_property
    def energy(self) -> Tensor:
        """The squared weights, summed over the channels: (K, K, K) float64."""
        return self.weights().square_().sum(0, dtype=torch.float64).cpu()

    @cached_property
    def size(self) -> Tensor:
        """The mean over the channels of |weight|: (K, K, K) float64."""
        return self.weights().abs_().mean(0, dtype=torch.float64).cpu()

    @cached_property
    def mean_mask(self) -> Tensor | None:
        """The mask, its mean over the channels where each has its own: (K, K, K); None where there is none."""
        return None if self.mask is None else self.mask().mean(0)

    @cached_property
    def in_words(self) -> str:
        """What a person should know before reading the picture: a collapsed mask or kernel, a baked one."""
        said = [self.remark] if self.remark else []
        if self.mask is not None and self.prior is not None:
            said.append(mask_in_words(self.mask(), self.prior()))
        said.append(_kernel_in_words(self.energy))
        return "; ".join(one for one in said if one)


def large_kernels(network: nn.Module) -> list[LargeKernel]:
    """All of them, in the order in which the network lists what it shows; an empty list where there are none."""
    found: list[LargeKernel] = []
    seen: set[str] = set()
    modules = dict(network.named_modules())
    for entry in exposed(network):
        layer = entry.layers[0].removesuffix(".att_conv1").removesuffix(".gate")
        module = modules[layer]
        if entry.extent != "voxels" or layer in seen:
            continue
        place = entry.name.split(", ", 1)[-1]
        if isinstance(module, DynamicLargeKernel):
            found += _dynamic(module, layer, place, entry.stride)
        elif isinstance(module, LKAttention):
            found.append(_attention(module, layer, entry.name, entry.stride))
        elif isinstance(module, ReceptiveBiasConv3d):
            found.append(_masked(module, layer, place, entry.stride))
        else:
            continue
        seen.add(layer)
    return found


def composed(first: DepthwiseConv3d, second: DepthwiseConv3d) -> Tensor:
    """The kernel of two depth-wise convolutions in a row, one of them dilated: (channels, K, K, K) float32."""
    small, wide = (first, second) if max(first.dilation) == 1 else (second, first)
    kernel = functional.conv_transpose3d(
        small.weight.detach().float().transpose(0, 1),
        wide.weight.detach().float(),
        dilation=wide.dilation,
        groups=small.weight.shape[0],
    )
    return kernel[0]


def _plain(convolution: DepthwiseConv3d) -> Callable[[], Tensor]:
    return lambda: convolution.weight.detach()[:, 0].float().clone()


def _dynamic(module: DynamicLargeKernel, layer: str, place: str, stride: int) -> list[LargeKernel]:
    near, far = module.att_conv1, module.att_conv2
    channels = near.weight.shape[0]
    default = place.endswith("block 0")
    return [
        LargeKernel(
            f"near 5³ kernel, {place}",
            f"{layer}.att_conv1",
            stride,
            near.kernel_size[0],
            channels,
            "the 5³ depth-wise kernel",
            _plain(near),
        ),
        LargeKernel(
            f"far 23³ kernel, {place}",
            f"{layer}.att_conv1, {layer}.att_conv2",
            stride,
            near.kernel_size[0] + far.dilation[0] * (far.kernel_size[0] - 1),
            channels,
            "the 5³ kernel and, on its response, the 7³ kernel of dilation 3: together one kernel of 23³",
            lambda: composed(near, far),
            default=default,
        ),
    ]


def _attention(module: LKAttention, layer: str, name: str, stride: int) -> LargeKernel:
    dilated, dense = module.dwd, module.dw
    edge = dense.kernel_size[0] + dilated.dilation[0] * (dilated.kernel_size[0] - 1)
    return LargeKernel(
        f"{edge}³ kernel, {name}",
        f"{layer}.dwd, {layer}.dw",
        stride,
        edge,
        dense.weight.shape[0],
        f"{dilated.kernel_size[0]}³ kernel of dilation {dilated.dilation[0]} and {dense.kernel_size[0]}³ kernel: "
        f"together one kernel of {edge}³; a 1³ convolution that mixes the channels and the sigmoid follow",
        lambda: composed(dense, dilated),
        default=True,
    )


def _masked(module: ReceptiveBiasConv3d, layer: str, place: str, stride: int) -> LargeKernel:
    edge, channels = module.dwconv.kernel_size[0], module.dwconv.weight.shape[0]
    masked = not module.deploy and module.lrbm not in ("none", "grad")
    remark = ""
    if module.deploy:
        remark = "baked: the mask is inside the weights and cannot be told apart from them"
    elif module.lrbm == "grad":
        remark = "no mask acts: the prior scales the gradient in training, not the weights"
    elif module.lrbm == "none":
        remark = "no mask"

    @cache  # two convolutions with 7³ kernels
    def mask() -> Tensor:
        with torch.no_grad():
            return module.mask()[:, 0].float()

    def weights() -> Tensor:
        stored = module.dwconv.weight.detach()[:, 0].float()
        return stored * mask() if masked else stored.clone()

    return LargeKernel(
        f"{edge}³ kernel, {place}",
        f"{layer}.dwconv",
        stride,
        edge,
        channels,
        "W · M, the stored weights times the mask" if masked else "W, the stored weights as they are",
        weights,
        (lambda: module.prior().detach().float()) if masked else None,
        mask if masked else None,
        place.endswith("block 0"),
        remark,
    )


def mask_in_words(mask: Tensor, prior: Tensor) -> str:
    """What is wrong with a mask (1 or channels, K, K, K), or a sentence part about its learned part."""
    spread, learned = float(mask.std()), mask - prior
    if spread < COLLAPSED:
        return f"collapsed mask: the same number, {float(mask.mean()):.4g}, at every tap, so that it favours none"
    if float(learned.abs().max()) < COLLAPSED:
        return "the mask is the prior itself: nothing was learned, or it is fixed"
    if float((learned - learned.mean(dim=(1, 2, 3), keepdim=True)).abs().max()) < COLLAPSED:
        return (
            f"the learned part of the mask has collapsed to one number, {float(learned.mean()):.4g}: "
            "the mask is the prior and it"
        )
    flipped = float((mask < 0).float().mean())
    return f"the mask turns the sign of {flipped:.1%} of the taps" if flipped else ""


def _kernel_in_words(energy: Tensor) -> str:
    middle = len(energy) // 2
    total, centre = float(energy.sum()), float(energy[middle, middle, middle])
    if total == 0:
        return "all weights are zero"
    if total - centre < COLLAPSED * total:
        return "collapsed kernel: all of its energy is at the centre tap"
    return ""
