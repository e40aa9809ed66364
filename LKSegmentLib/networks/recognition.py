"""Tell from names and shapes of a checkpoint's tensors which network it is and how that was built."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from LKSegmentLib.errors import InputError

from .lka_unet import ATTENTION
from .official_keys import unwrap

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Recognised:
    """What a checkpoint is.

    Attributes:
        name: of the network, for `networks.create`.
        options: for `networks.create`, `in_channels` and `out_channels` included.
        assumed: one sentence for each option that no tensor tells.
    """

    name: str
    options: dict[str, Any]
    assumed: list[str] = field(default_factory=list)


def recognise(checkpoint: Mapping[str, Any]) -> Recognised:
    """Recognise a network by its tensors.

    Args:
        checkpoint: tensors in a published key layout (or in ours), also inside the wrappers `unwrap` knows.

    Returns:
        The network's name and constructor options.

    Raises:
        InputError: none of the networks has tensors of these names.
    """
    tensors = unwrap(checkpoint)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if any(name.startswith("dnet_down.") for name in shapes):
        raise InputError(
            "This is the 2024 form of D-Net (arXiv v1), which is not provided; only the later form (39.28 M) "
            "is."
        )
    for signature, read in _FAMILIES:
        if signature in shapes:
            try:
                return read(shapes, tensors)
            except KeyError as missing:
                raise InputError(
                    f"This looks like {read.__name__.strip('_')}, but the tensor {missing} is missing."
                ) from missing
    first = ", ".join(list(shapes)[:3])
    raise InputError(
        f"None of the networks has tensors of these names ({first}, …). Say which network it is, and its "
        f"options."
    )


def _dnet(shapes: Shapes, tensors: Mapping[str, Tensor]) -> Recognised:
    stages = _count(shapes, r"encoder\.norm_layers\.(\d+)\.weight")
    options = {
        "in_channels": shapes["encoder.downsample_layers.0.weight"][1],
        "out_channels": shapes["decoder.output_layer.weight"][0],
        "depths": [_count(shapes, rf"encoder\.stages\.{n}\.(\d+)\.layer_scale") for n in range(stages)],
        "feature_sizes": [shapes[f"encoder.norm_layers.{n}.weight"][0] for n in range(stages)],
    }
    if "encoder.saliency.mixer_norm.weight" in shapes:
        options["salience_norm"] = "separate"
    return Recognised("dnet", options, [_SELECTION])


def _dlknetr(shapes: Shapes, tensors: Mapping[str, Tensor]) -> Recognised:
    encoder = "decoder.DLKEncoder"
    depths = [_count(shapes, rf"{encoder}\.stages\.{n}\.(\d+)\.layer_scale") for n in range(4)]
    options = {
        "in_channels": shapes[f"{encoder}.downsample_layers.0.weight"][1],
        "out_channels": shapes["decoder.out.conv.conv.weight"][0],
        "depths": [*depths, 2],  # the fifth is never used
        "feature_sizes": [shapes[f"{encoder}.norm_layers.{n}.weight"][0] for n in range(5)],
        "deep_supervision": "decoder.out_0.weight" in shapes,
    }
    return Recognised("dlknetr", options, [_SELECTION])


def _rep3d(shapes: Shapes, tensors: Mapping[str, Tensor]) -> Recognised:
    block = "rep3d.stages.0.0"
    generator = shapes.get(f"{block}.prior_conv.weight")
    baked = tensors.get("lrbm_baked")
    options = {
        "in_channels": shapes["encoder1.layer.conv1.conv.weight"][1],
        "out_channels": shapes["out.conv.conv.weight"][0],
        "depths": [_count(shapes, rf"rep3d\.stages\.{n}\.(\d+)\.dwconv\.weight") for n in range(4)],
        "feature_sizes": [shapes[f"rep3d.norm{n}.weight"][0] for n in range(4)],
        "hidden_size": shapes["encoder5.layer.conv1.conv.weight"][0],
        "kernel_size": shapes[f"{block}.dwconv.weight"][-1],
        "lrbm": "fixed" if generator is None else "learned" if generator[0] == 1 else "per_channel",
        "deploy": baked is None or bool(baked),
    }
    if f"{block}.beta" in shapes:
        options["learn_beta"] = True
    assumed = []
    if baked is None:
        assumed.append("deploy=True: the kernels are used as stored, as the authors' own inference does.")
    return Recognised("rep3d", options, assumed)


def _dalight3d(shapes: Shapes, tensors: Mapping[str, Tensor]) -> Recognised:
    base, in_channels = shapes["encoder.init_conv.0.weight"][:2]
    stages = _count(shapes, r"encoder\.stages\.(\d+)\.se\.fc\.0\.weight")
    widths = [shapes[f"encoder.stages.{n}.se.fc.2.weight"][0] for n in range(stages)]
    evidential = "head.net.3.weight" in shapes
    rank = shapes.get("decoder.skip_fusions.1.low_rank_attn.query_proj.weight")
    options = {
        "in_channels": in_channels,
        "out_channels": shapes["head.net.3.weight" if evidential else "head.head.3.weight"][0],
        "base_filters": base,
        "num_stages": stages,
        "bottleneck_channels": widths[-1],
        "separable": "encoder.stages.1.conv1.depthwise.weight" in shapes,
        "icn": "encoder.stages.0.norm1.default_gamma" in shapes,
        "csa": "encoder.stages.2.attention.query.weight" in shapes,
        "ssfb": rank is not None,
        "evidential": evidential,
    }
    doubled = [base * 2**n for n in range(stages - 1)]
    if doubled != widths[:-1]:
        options["max_channels"] = max(widths[:-1])
    elif max(doubled) > 384:
        options["max_channels"] = max(doubled)
    if rank is not None:
        options["ssfb_rank"] = rank[0]
    return Recognised("dalight3d", options)


def _lka_unet(shapes: Shapes, tensors: Mapping[str, Tensor]) -> Recognised:
    levels = _count(shapes, r"enc\.(\d+)\.0\.0\.weight")
    attention = {}
    for level in range(levels - 1):
        dense = shapes.get(f"lk.{level}.dw.weight")
        if dense is not None:
            dilation = (dense[-1] + 1) // 2
            attention[level] = (shapes[f"lk.{level}.dwd.weight"][-1] * dilation, dilation)
    options: dict[str, Any] = {
        "in_channels": shapes["enc.0.0.0.weight"][1],
        "out_channels": shapes["heads.0.weight"][0],
        "feature_sizes": [shapes[f"enc.{n}.0.0.weight"][0] for n in range(levels)],
    }
    variant = next((name for name, kernels in ATTENTION.items() if kernels == attention), None)
    if variant is None:
        options["attention"] = attention
    else:
        options["variant"] = variant
    assumed = ["norm_groups=8 and order='dwd_dw': no tensor tells them."]
    return Recognised("lka_unet", options, assumed)


def _msa2net(shapes: Shapes, tensors: Mapping[str, Tensor]) -> Recognised:
    unit = "bridge.0.units.0.adaptive"
    count = _count(shapes, rf"{re.escape(unit)}\.weights\.(\d+)")
    options = {
        "in_channels": 1,
        "out_channels": shapes["head.weight"][0],
        "variant": "tiny" if _count(shapes, r"encoder\.stage3\.(\d+)\.norm1\.weight") == 21 else "small",
        "candidates": [shapes[f"{unit}.weights.{n}"][-1] for n in range(count)],
        "dense": shapes[f"{unit}.weights.0"][1] > 1,
        "auxiliary": "auxiliary.0.conv.weight" in shapes,
    }
    return Recognised("msa2net", options, ["in_channels=1 and slice_size=224: no tensor tells them."])


_SELECTION = "selection='sum' (as published): no tensor tells it."
_FAMILIES: tuple[tuple[str, Callable[[Shapes, Mapping[str, Tensor]], Recognised]], ...] = (
    ("decoder.DLKEncoder.downsample_layers.0.weight", _dlknetr),
    ("encoder.stages.0.0.attn.spatial_gating_unit.att_conv1.weight", _dnet),
    ("rep3d.stages.0.0.dwconv.weight", _rep3d),
    ("encoder.init_conv.0.weight", _dalight3d),
    ("enc.0.0.0.weight", _lka_unet),
    ("encoder.stage1_conv_embed.0.weight", _msa2net),
)


def _count(shapes: Shapes, pattern: str) -> int:
    """How many numbers the pattern's group takes among the names, from 0 without a gap."""
    found = {int(match[1]) for match in (re.fullmatch(pattern, name) for name in shapes) if match}
    return next(number for number in range(len(found) + 1) if number not in found)
