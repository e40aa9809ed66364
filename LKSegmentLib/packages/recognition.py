"""Which network a state dict belongs to, and its constructor values, from the names and shapes of its tensors.

What no tensor tells (the order of two commuting convolutions, the number of groups of a norm, …) is listed in
`Recognised.unseen` with the value that is taken, so that nothing is guessed silently.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from LKSegmentLib import networks
from LKSegmentLib.errors import InputError
from LKSegmentLib.networks.lka_unet import ATTENTION
from LKSegmentLib.packages.fields import plain


@dataclass(frozen=True)
class Recognised:
    """A network and the constructor values its tensors tell.

    options    read off the shapes
    unseen     options that leave no trace in the tensors, with the values taken for them
    heads      the output layers' tensors, the main one first
    """

    network: str
    in_channels: int
    out_channels: int
    options: dict[str, Any]
    unseen: dict[str, Any] = field(default_factory=dict)
    heads: tuple[str, ...] = ()


class Shapes:
    """Names and shapes of a state dict. `where` names it in messages."""

    def __init__(self, tensors: Mapping[str, Tensor], where: str) -> None:
        self.tensors = tensors
        self.where = where

    def size(self, name: str, axis: int) -> int:
        """Return the length of an axis of a tensor. InputError when there is no such tensor or axis."""
        if name not in self.tensors or self.tensors[name].ndim <= axis:
            raise InputError(
                f'{self.where} lacks the tensor "{name}" or it has too few axes: the checkpoint is incomplete '
                f"(its first tensors are {first_names(self.tensors)})."
            )
        return int(self.tensors[name].shape[axis])

    def has(self, part: str) -> bool:
        """Whether a name contains `part`."""
        return any(part in name for name in self.tensors)

    def count(self, prefix: str) -> int:
        """Return how many numbers follow `prefix` in the names: blocks of a stage, stages of a list."""
        after = (name[len(prefix) :].split(".", 1)[0] for name in self.tensors if name.startswith(prefix))
        return len({number for number in after if number.isdigit()})

    def sizes(self, template: str, axis: int, count: int) -> list[int]:
        """Return the length of an axis of `template.format(n)` for n below `count`."""
        return [self.size(template.format(number), axis) for number in range(count)]


def dnet(shapes: Shapes) -> Recognised:
    stages = shapes.count("encoder.norm_layers.")
    mixer = "separate" if shapes.has("encoder.saliency.mixer_norm.") else "shared"
    return Recognised(
        "dnet",
        shapes.size("encoder.downsample_layers.0.weight", 1),
        shapes.size("decoder.output_layer.weight", 0),
        {
            "depths": [shapes.count(f"encoder.stages.{stage}.") for stage in range(stages)],
            "feature_sizes": shapes.sizes("encoder.norm_layers.{}.weight", 0, stages),
            "salience_norm": mixer,
        },
        {"selection": "sum"},
        ("decoder.output_layer.weight",),
    )


def dlknetr(shapes: Shapes) -> Recognised:
    encoder = "decoder.DLKEncoder."
    blocks = [shapes.count(f"{encoder}stages.{stage}.") for stage in range(4)]
    return Recognised(
        "dlknetr",
        shapes.size(f"{encoder}downsample_layers.0.weight", 1),
        shapes.size("decoder.out.conv.conv.weight", 0),
        {
            "depths": [*blocks, 2],  # the fifth is published and builds nothing
            "feature_sizes": shapes.sizes(encoder + "norm_layers.{}.weight", 0, 5),
            "deep_supervision": shapes.has("decoder.out_0."),
        },
        {"selection": "sum"},
        ("decoder.out.conv.conv.weight",),
    )


def rep3d(shapes: Shapes) -> Recognised:
    block = "rep3d.stages.0.0."
    options: dict[str, Any] = {
        "depths": [shapes.count(f"rep3d.stages.{stage}.") for stage in range(4)],
        "feature_sizes": shapes.sizes("rep3d.norm{}.weight", 0, 4),
        "hidden_size": shapes.size("encoder5.layer.conv1.conv.weight", 0),
        "kernel_size": shapes.size(f"{block}dwconv.weight", 2),
        "learn_beta": f"{block}beta" in shapes.tensors,
    }
    unseen: dict[str, Any] = {}
    if shapes.has(".prior_conv."):
        options["lrbm"] = "learned" if shapes.size(f"{block}prior_conv.weight", 0) == 1 else "per_channel"
    elif shapes.has(".prior_map"):
        options["lrbm"] = "fixed"
    else:
        unseen["lrbm"] = "fixed"
    baked = shapes.tensors.get("lrbm_baked")
    if baked is not None and baked.numel() == 1:
        options["deploy"] = bool(baked)
    else:
        unseen["deploy"] = True  # the authors' own inference uses stored kernels as they are
    in_channels = shapes.size("rep3d.downsample_layers.0.0.weight", 1)
    out_channels = shapes.size("out.conv.conv.weight", 0)
    return Recognised("rep3d", in_channels, out_channels, options, unseen, ("out.conv.conv.weight",))


def dalight3d(shapes: Shapes) -> Recognised:
    icn = shapes.has("scanner_gamma")
    norm = "encoder.stages.{}.norm1." + ("default_gamma" if icn else "weight")
    widths = shapes.sizes(norm, 0, shapes.count("encoder.stages."))
    head = "head.net.3.weight" if shapes.has("head.net.") else "head.head.3.weight"
    ranked = "decoder.skip_fusions.1.low_rank_attn.query_proj.weight"
    ssfb = shapes.has("skip_fusions.1.low_rank_attn")
    options: dict[str, Any] = {
        "base_filters": widths[0] if widths else 0,
        "num_stages": len(widths),
        "max_channels": doubling_limit(widths[:-1]),
        "bottleneck_channels": widths[-1] if widths else 0,
        "separable": shapes.has(".depthwise."),
        "icn": icn,
        "evidential": head.startswith("head.net"),
    }
    unseen: dict[str, Any] = {}
    (options if len(widths) > 2 else unseen).update(ssfb=ssfb, csa=shapes.has("encoder.stages.2.attention."))
    if ssfb:
        options["ssfb_rank"] = shapes.size(ranked, 0)
    if shapes.has(".attention."):
        unseen["csa_standard"] = False
    return Recognised(
        "dalight3d",
        shapes.size("encoder.init_conv.0.weight", 1),
        shapes.size(head, 0),
        options,
        unseen,
        (head,),
    )


def doubling_limit(widths: Sequence[int]) -> int:
    """Return the limit under which doubling from the first width gives these widths; 384, published, where it may."""
    for above, below in zip(widths, widths[1:], strict=False):
        if below < 2 * above:
            return below
    return max(384, *widths) if widths else 384


def lka_unet(shapes: Shapes) -> Recognised:
    levels = shapes.count("enc.")
    attention: dict[int, tuple[int, int]] = {}
    for level in range(levels):
        if f"lk.{level}.dwd.weight" in shapes.tensors:
            dilation = (shapes.size(f"lk.{level}.dw.weight", 2) + 1) // 2
            attention[level] = (dilation * shapes.size(f"lk.{level}.dwd.weight", 2), dilation)
    options: dict[str, Any] = {"feature_sizes": shapes.sizes("enc.{}.0.0.weight", 0, levels)}
    known = [variant for variant, pairs in ATTENTION.items() if pairs == attention]
    if known:
        options["variant"] = known[0]
    else:
        options |= {"variant": "full", "attention": {str(level): list(pair) for level, pair in attention.items()}}
    heads = tuple(sorted(name for name in shapes.tensors if name.startswith("heads.") and name.endswith(".weight")))
    return Recognised(
        "lka_unet",
        shapes.size("enc.0.0.0.weight", 1),
        shapes.size("heads.0.weight", 0),
        options,
        {"norm_groups": 8, **({"order": "dwd_dw"} if attention else {})},
        heads,
    )


def msa2net(shapes: Shapes) -> Recognised:
    sacm = "bridge.0.units.0.adaptive.weights."
    return Recognised(
        "msa2net",
        1,  # or 3: a grey slice is repeated, which no tensor shows
        shapes.size("head.weight", 0),
        {
            "variant": "tiny" if shapes.count("encoder.stage3.") <= 21 else "small",
            "candidates": shapes.sizes(sacm + "{}", 2, shapes.count(sacm)),
            "dense": shapes.size(f"{sacm}0", 1) > 1,
            "auxiliary": shapes.has("auxiliary."),
        },
        {"slice_size": 224, "in_channels": 1},
        ("head.weight",),
    )


def lk_click(shapes: Shapes) -> Recognised:
    return Recognised(
        "lk_click",
        shapes.size("down.0.0.weight", 1),
        shapes.size("head.0.weight", 0) // 8,  # a logit for each of the eight voxels of one at half resolution
        {
            "feature_sizes": shapes.sizes("down.{}.0.weight", 0, 3),
            "depths": [shapes.count(f"encoder.{stage}.") for stage in range(3)],
            "half_stage": "large_kernel" if shapes.has("encoder.0.0.attn.") else "convolution",
            "exit_features": shapes.size("exit_features.weight", 0),
        },
        {"selection": "per_kernel"},
        ("head.0.weight",),
    )


# How to read each network, how one of its names starts, and what another contains.
SIGNATURES: dict[str, tuple[Callable[[Shapes], Recognised], str, str]] = {
    "dlknetr": (dlknetr, "decoder.DLKEncoder.", "spatial_gating_unit"),
    "lk_click": (lk_click, "fuse_quarter.", "spatial_gating_unit"),
    "dnet": (dnet, "encoder.saliency.", "spatial_gating_unit"),
    "rep3d": (rep3d, "rep3d.", ".dwconv."),
    "dalight3d": (dalight3d, "decoder.skip_fusions.", "encoder.init_conv."),
    "lka_unet": (lka_unet, "enc.0.0.0.weight", "heads.0."),
    "msa2net": (msa2net, "encoder.stage1_conv_embed.", "bridge.0.units."),
}

RELATIVES = {
    "dnet_down.": "D-Net in its form of March 2024 (29.96 M parameters); LKSegment has the published form of 2025 only",
    "stage1_conv_embed.": "the CSWin Transformer, an image encoder and not a segmentation network",
}


def family(tensors: Mapping[str, Tensor]) -> str | None:
    """Return the name of the network whose tensor names these are, or None."""
    for name, (_, start, part) in SIGNATURES.items():
        if any(key.startswith(start) for key in tensors) and any(part in key for key in tensors):
            return name
    return None


def without_outer_name(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take off a first part that all names share (`model.`, `net.`), where only so the network is recognised."""
    bare = dict(tensors)
    while family(bare) is None:
        outer = {name.split(".", 1)[0] for name in bare}
        if len(outer) != 1 or not all("." in name for name in bare):
            return dict(tensors)
        bare = {name.split(".", 1)[1]: tensor for name, tensor in bare.items()}
    return bare


def recognised(tensors: Mapping[str, Tensor], wanted: str | None, where: str) -> Recognised | None:
    """Return what the tensors tell; None when only the `wanted` network, one without a signature, can be tried.

    Raises InputError when the tensors belong to no known network, or to another one than `wanted`.
    """
    if wanted is not None and wanted not in networks.names():
        raise InputError(f'There is no network "{wanted}": choose one of {", ".join(networks.names())}.')
    found = family(tensors)
    if found is None:
        if wanted is not None and wanted not in SIGNATURES:
            return None
        for part, what in RELATIVES.items():
            if any(name.startswith(part) for name in tensors):
                raise InputError(f"{where} holds the weights of {what}.")
        asked = f'of "{wanted}"' if wanted else "of a network LKSegment recognises"
        raise InputError(
            f"{where} does not hold the tensors {asked}; its first tensors are {first_names(tensors)}: "
            f"recognised are {', '.join(SIGNATURES)}."
        )
    if wanted is not None and found != wanted:
        raise InputError(
            f'{where} holds weights of "{found}" and not of "{wanted}"; its first tensors are {first_names(tensors)}.'
        )
    return SIGNATURES[found][0](Shapes(tensors, where))


def settled_options(found: Recognised, given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return all constructor values: read off the tensors, given by the person, or taken where nothing tells them.

    Raises InputError for an option the network does not have, one that contradicts the tensors, and one that must be
    given because nothing tells it.
    """
    known = networks.options(found.network)
    channels = {"in_channels": found.in_channels, "out_channels": found.out_channels}
    traits = {**{name: count for name, count in channels.items() if name not in found.unseen}, **found.options}
    for name, value in given.items():
        if name not in known:
            raise InputError(f'"{found.network}" has no option "{name}": it has {", ".join(known)}.')
        seen = traits.get(name, value)
        if plain(seen, name) != plain(value, name):
            raise InputError(f"{where} says {name}={seen!r} by the shapes of its tensors, and {value!r} was given.")
    values = {**channels, **found.unseen, **found.options, **given}
    if found.network == "rep3d" and not values["deploy"] and "lrbm" in found.unseen and "lrbm" not in given:
        raise InputError(
            f"{where} holds raw Rep3D kernels without the mask they were trained under: "
            "give --option lrbm=fixed, lrbm=none or lrbm=grad."
        )
    return values


def first_names(tensors: Mapping[str, Tensor], most: int = 3) -> str:
    """Return the first names for a message."""
    names = [name[:80] for name in list(tensors)[:most]]
    return ", ".join(names) + (" …" if len(tensors) > most else "")
