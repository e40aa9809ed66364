"""`exposed(network)`: everything each network can show, with true strides and offsets.

Where a map lies. Strided convolutions with odd, symmetric kernels centre voxel n of a map of stride s on window
voxel s · n (offset 0). A voxel of a decoder's map stands for the block of window voxels it is expanded to
(offset (s - 1) / 2); so does one behind Rep3D's 2³ strided convolutions, up to the odd first one.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from LKSegmentLib.networks.blocks.dynamic_large_kernel import DynamicLargeKernelBlock
from LKSegmentLib.networks.blocks.skip_fusion import SkipFusion
from LKSegmentLib.networks.dalight3d import DALight3D
from LKSegmentLib.networks.dlknetr import DLKNETR
from LKSegmentLib.networks.dnet import DNet
from LKSegmentLib.networks.lk_click import LKClick
from LKSegmentLib.networks.lka_unet import LKAUNet
from LKSegmentLib.networks.msa2net import MSA2Net
from LKSegmentLib.networks.rep3d import Rep3D

from .dynamic_kernels import fusion_maps, kernel_maps
from .exposed import Exposed
from .skip_fusions import skip_fusion_maps, uncertainty_maps
from .slices import slice_attention, slice_kernels


def exposed(network: nn.Module) -> list[Exposed]:
    """What this network can show; an empty list for a network that LKSegment knows nothing inside of."""
    for kind, listing in _LISTINGS:
        if isinstance(network, kind):
            return listing(network)
    return []


def block_offset(stride: int) -> float:
    """Where voxel 0 of a decoder's map is centred, in window voxels."""
    return (stride - 1) / 2


def features(name: str, layer: str, channels: int, stride: int, offset: float, default: bool = False) -> Exposed:
    """A feature map as it is: not a gate, only what a layer answered."""
    return Exposed(
        name,
        (layer,),
        lambda outputs: outputs[0][0],
        {
            "kind": "activation",
            "unit": "feature (arbitrary scale)",
            "range": [None, None],
            "neutral": 0.0,
            "operator": f"the output of {layer}; mean over the channels unless one was chosen",
            "identifiable": "no: later layers may rescale, negate or ignore any channel",
        },
        stride=stride,
        offset=offset,
        channels=channels,
        default=default,
    )


def _lk_attention(network: nn.Module) -> list[Exposed]:
    assert isinstance(network, LKAUNet)
    levels = sorted(network.attention.items())
    return [
        *(
            attention_maps(f"LK attention, level {level}", f"lk.{level}", network.feature_sizes[level], 2**level, pair)
            for level, pair in levels
        ),
        *(
            attention_by_label(
                f"LK attention by label, level {level}", f"lk.{level}", network.feature_sizes[level], pair
            )
            for level, pair in levels
        ),
    ]


def attention_maps(name: str, layer: str, channels: int, stride: int, kernel: tuple[int, int]) -> Exposed:
    """The gate of a large-kernel attention module on an upsampled map."""
    nominal, dilation = kernel
    return Exposed(
        name,
        (f"{layer}.gate",),
        lambda outputs: outputs[0][0],
        {
            "kind": "native gate",
            "unit": "none (a factor)",
            "range": [0.0, 1.0],
            "neutral": 0.5,
            "operator": f"A = sigmoid(PW(DW(DWD(f)))), out = A·f + f, K = {nominal}, d = {dilation}; the gain is "
            "1 + A; mean over the channels unless one was chosen",
            "identifiable": "each channel's gate is; their mean is a summary that no single computation uses",
        },
        stride=stride,
        offset=block_offset(stride),
        channels=channels,
        default=True,
    )


def attention_by_label(name: str, layer: str, channels: int, kernel: tuple[int, int]) -> Exposed:
    """Which channels of the gate of `attention_maps` separate which label of the answer: a table."""
    nominal, dilation = kernel
    return Exposed(
        name,
        (f"{layer}.gate",),
        lambda outputs: outputs[0][0],
        {
            "kind": "ranking of a native gate",
            "unit": "area under the ROC curve",
            "range": [0.0, 1.0],
            "neutral": 0.5,
            "operator": f"of each channel of A = sigmoid(PW(DW(DWD(f)))), K = {nominal}, d = {dilation}: the chance "
            "that its gate is larger at a voxel of the label than elsewhere; those furthest from 0.5 are listed",
            "identifiable": "each channel's gate is; which channel comes first was chosen on this image, so that it "
            "resembles the label is no finding",
        },
        "channels",
        channels=channels,
    )


def _blocks(
    network: nn.Module, prefix: str, strides: dict[str, tuple[str, int, float]], defaults: tuple[str, ...] = ()
) -> list[Exposed]:
    """The maps of all DLK blocks below `prefix`; `strides`: stage name → (place, stride, offset)."""
    found: list[Exposed] = []
    for name, module in network.named_modules():
        if not isinstance(module, DynamicLargeKernelBlock) or not name.startswith(prefix):
            continue
        stage, number = name.removeprefix(prefix).rsplit(".", 1)
        place, stride, offset = strides[stage]
        layer = f"{name}.attn.spatial_gating_unit"
        words = f"{place} block {number}"
        found += kernel_maps(module.attn.spatial_gating_unit, layer, words, stride, offset, name in defaults)
    return found


def _dnet(network: nn.Module) -> list[Exposed]:
    assert isinstance(network, DNet)
    levels = len(network.depths)
    down = {str(n): (f"encoder 1/{2 ** (n + 1)}", 2 ** (n + 1), 0.0) for n in range(levels)}
    up = {}
    fusions: list[Exposed] = []
    for step in range(levels - 1):
        stride = 2 ** (levels - 1 - step)
        up[str(step)] = (f"decoder 1/{stride}", stride, block_offset(stride))
        fusions += fusion_maps(f"decoder.steps.{step}", f"decoder 1/{stride}", stride)
    fusions += fusion_maps("decoder.final_fusion", "decoder 1/1", 1, default=True)
    finest = f"decoder.stages.{levels - 2}.{network.depths[levels - 2] - 1}"
    return [
        *_blocks(network, "encoder.stages.", down),
        *_blocks(network, "decoder.stages.", up, (finest,)),
        *fusions,
        features("salience features", "encoder.saliency", network.feature_sizes[0], 1, 0.0),
    ]


def _dlknetr(network: nn.Module) -> list[Exposed]:
    assert isinstance(network, DLKNETR)
    down = {str(n): (f"encoder 1/{2 ** (n + 1)}", 2 ** (n + 1), 0.0) for n in range(4)}
    prefix = "decoder.DLKEncoder.stages."
    found = _blocks(network, prefix, down, (f"{prefix}0.{network.depths[0] - 1}",))
    for level in range(5, 0, -1):
        stride = 2 ** (level - 1)
        width = int(next(network.decoder.get_submodule(f"decoder{level}.transp_conv").parameters()).shape[1])
        name = f"decoder features 1/{stride}"
        found.append(features(name, f"decoder.decoder{level}", width, stride, block_offset(stride)))
    return found


def _lk_click(network: nn.Module) -> list[Exposed]:
    assert isinstance(network, LKClick)
    down = {str(n): (f"encoder 1/{2 ** (n + 1)}", 2 ** (n + 1), 0.0) for n in range(3)}
    up = {"quarter": ("decoder 1/4", 4, block_offset(4)), "half": ("decoder 1/2", 2, block_offset(2))}
    channels = network.attention.pw.out_channels
    return [
        attention_maps("LK attention", "attention", channels, 4, (21, 3)),
        *_blocks(network, "encoder.", down),
        *_blocks(network, "decoder_", up, ("decoder_quarter.0",)),
    ]


def _rep3d(network: nn.Module) -> list[Exposed]:
    assert isinstance(network, Rep3D)
    found: list[Exposed] = []
    for stage, (depth, width) in enumerate(zip(network.depths, network.feature_sizes, strict=True)):
        stride = 2 ** (stage + 1)
        # The first convolution is odd (offset 0), each 2³ one after it adds half of its input's stride.
        found += [
            features(
                f"large-kernel response, encoder 1/{stride} block {number}",
                f"rep3d.stages.{stage}.{number}",
                width,
                stride,
                stride / 2 - 1,
                default=stage == 0 and number == depth - 1,
            )
            for number in range(depth)
        ]
    for level, stride in ((5, 8), (4, 4), (3, 2), (2, 1)):
        width = network.feature_sizes[max(0, level - 2)]
        found.append(features(f"decoder features 1/{stride}", f"decoder{level}", width, stride, block_offset(stride)))
    return found


def _dalight3d(network: nn.Module) -> list[Exposed]:
    assert isinstance(network, DALight3D)
    found = uncertainty_maps(network)
    found += slice_attention(network)
    stages = len(network.feature_sizes)
    for step, fusion in enumerate(network.decoder.skip_fusions):
        if isinstance(fusion, SkipFusion):
            stride = 2 ** (stages - 2 - step)
            found += skip_fusion_maps(fusion, f"decoder.skip_fusions.{step}", stride)
    return found


_LISTINGS: tuple[tuple[type[nn.Module], Callable[[nn.Module], list[Exposed]]], ...] = (
    (LKAUNet, _lk_attention),
    (DNet, _dnet),
    (DLKNETR, _dlknetr),
    (LKClick, _lk_click),
    (Rep3D, _rep3d),
    (DALight3D, _dalight3d),
    (MSA2Net, slice_kernels),
)
