"""What networks of dynamic large kernels show (D-Net, DLKNETR, lk_click): gates, kernel shares, feature fusion.

The published operator multiplies the *same* tensor by both spatial maps, so only w1 + w2 acts and neither map
belongs to a kernel. Which kernel was used is read from the channel gate (its halves belong to the two kernels) and
from the two responses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from LKSegmentLib.networks.blocks.dynamic_large_kernel import DynamicLargeKernel

from .exposed import Exposed

KERNELS = ("5³ kernel", "dilated 7³ kernel (reach 23 voxels)")
_FACTOR: dict[str, Any] = {"kind": "native gate", "unit": "none (a factor)"}
_SHARE: dict[str, Any] = {"unit": "none (a share)", "range": [0.0, 1.0], "neutral": 0.5}


def kernel_maps(
    kernel: DynamicLargeKernel, layer: str, place: str, stride: int, offset: float, default: bool = False
) -> list[Exposed]:
    """What one dynamic large kernel shows.

    Args:
        kernel: the module.
        layer: its name in the network.
        place: where it is, in words: "encoder 1/4 block 0".
        stride, offset: of its maps, in window voxels; see `Exposed`.
        default: whether its gate and its kernel preference are shown when nothing is asked for.
    """
    at: dict[str, Any] = {"stride": stride, "offset": offset}
    per_kernel = kernel.selection == "per_kernel"
    names = tuple(f"{layer}.{part}" for part in ("att_conv1", "att_conv2", "spatial_se", "conv_atten"))
    gates = _each_gate(names[2], place, at, default) if per_kernel else [_sum_gate(names[2], place, at, default)]
    weighed = "|w_ch · w · o|, each kernel with its own w" if per_kernel else "|w_ch · o| (w1 + w2 cancels)"
    preference = Exposed(
        f"far-kernel preference, {place}",
        names,
        _preference_per_kernel if per_kernel else _preference_sum,
        {
            **_SHARE,
            "kind": "derived from responses",
            "operator": f"share of the {KERNELS[1]} in the sum over channels of {weighed}",
            "identifiable": "yes: the two responses are kept apart until the channels are mixed; the share of both "
            "responses' size, not of what later layers make of it",
        },
        default=default,
        **at,
    )
    share = Exposed(
        f"far-kernel share, {place}",
        (names[3],),
        _far_half,
        {
            **_SHARE,
            "kind": "native gate, pooled",
            "operator": f"mean of the half of the channel gate w_ch that multiplies the {KERNELS[1]}, over the sum of "
            "both halves' means",
            "identifiable": "yes, for a window: the halves of w_ch belong to the two kernels; it has no place within "
            "the window, because the gate pools over all of it",
        },
        extent="window",
    )
    return [*gates, preference, share]


def _sum_gate(layer: str, place: str, at: dict[str, Any], default: bool) -> Exposed:
    return Exposed(
        f"spatial gate w1+w2, {place}",
        (layer,),
        lambda outputs: outputs[0][0].sum(0, keepdim=True),
        {
            **_FACTOR,
            "range": [0.0, 2.0],
            "neutral": 1.0,
            "operator": "w1 + w2 of D-Net's selection: multiplies the responses of both kernels alike",
            "identifiable": "the sum is; w1 and w2 are not: both multiply the same tensor, so exchanging them changes "
            "nothing and neither belongs to one kernel",
        },
        default=default,
        **at,
    )


def _each_gate(layer: str, place: str, at: dict[str, Any], default: bool) -> list[Exposed]:
    def gate(index: int) -> Exposed:
        return Exposed(
            f"{('near', 'far')[index]}-kernel gate, {place}",
            (layer,),
            lambda outputs: outputs[0][0, index : index + 1],
            {
                **_FACTOR,
                "range": [0.0, 1.0],
                "neutral": 0.5,
                "operator": f"w{index + 1} of per-kernel selection: multiplies the response of the {KERNELS[index]} "
                "alone",
                "identifiable": "yes: each map multiplies its own kernel's response (per-kernel selection, not "
                "D-Net's sum)",
            },
            default=default,
            **at,
        )

    return [gate(0), gate(1)]


def _preference_sum(outputs: Sequence[Tensor]) -> Tensor:
    near, far, _, gate = outputs
    return _share(*_sizes(near, far, gate))


def _preference_per_kernel(outputs: Sequence[Tensor]) -> Tensor:
    near, far, spatial, gate = outputs
    near_size, far_size = _sizes(near, far, gate)
    return _share(near_size * spatial[0, :1], far_size * spatial[0, 1:])


def _sizes(near: Tensor, far: Tensor, gate: Tensor) -> tuple[Tensor, Tensor]:
    """Σ over channels of |w_ch · o| of each kernel: (1, k, j, i). Gates are positive, so |w · o| = w · |o|."""
    near_gate, far_gate = gate[0].chunk(2)
    return (near_gate * near[0].abs()).sum(0, keepdim=True), (far_gate * far[0].abs()).sum(0, keepdim=True)


def _share(near: Tensor, far: Tensor) -> Tensor:
    both = near + far
    return torch.where(both > 0, far / both.clamp(min=torch.finfo(both.dtype).tiny), torch.full_like(both, 0.5))


def _far_half(outputs: Sequence[Tensor]) -> Tensor:
    near, far = outputs[0][0].flatten().chunk(2)
    return (far.mean() / (near.mean() + far.mean()))[None]


def fusion_maps(layer: str, place: str, stride: int, default: bool = False) -> list[Exposed]:
    """What the dynamic feature fusion `layer` of the decoder shows; arguments as of `kernel_maps`."""
    at: dict[str, Any] = {"stride": stride, "offset": (stride - 1) / 2}
    gate = Exposed(
        f"fusion gate, {place}",
        (f"{layer}.nonlin",),
        lambda outputs: outputs[0][0],
        {
            **_FACTOR,
            "range": [0.0, 1.0],
            "neutral": 0.5,
            "operator": "w_sp = sigmoid(Conv1(decoder) + Conv1(skip)): multiplies all channels of the fused map",
            "identifiable": "yes, as a whole; only before the sigmoid does it split into decoder and skip",
        },
        default=default,
        **at,
    )
    parts = [
        Exposed(
            f"fusion gate from {words}, {place}",
            (f"{layer}.{part}",),
            lambda outputs: outputs[0][0],
            {
                "kind": "native gate, before the sigmoid",
                "unit": "logit",
                "range": [None, None],
                "neutral": 0.0,
                "operator": f"Conv1({words}), one of the two terms whose sum's sigmoid is the fusion gate",
                "identifiable": "up to a constant: the two terms add, so what is a bias in one could be in the other",
            },
            **at,
        )
        for words, part in (("the decoder", "conv1"), ("the skip", "conv2"))
    ]
    share = Exposed(
        f"skip share, {place}",
        (f"{layer}.conv_atten",),
        _far_half,
        {
            **_SHARE,
            "kind": "native gate, pooled",
            "operator": "mean of the half of the fusion's channel gate that multiplies the skip, over the sum of both",
            "identifiable": "yes, for a window: the halves belong to decoder and skip; it has no place within it",
        },
        extent="window",
    )
    return [gate, *parts, share]
