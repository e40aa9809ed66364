"""Networks of MONAI under the same roof, as they are, so that anyone can compare side by side.

Each function passes its options on to MONAI's class and adds the input sizes that the network takes. MONAI
(and einops for the transformers) is imported inside, and only needed by whoever builds one of these; the
registry says in a sentence what is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from LKSegmentLib.errors import InputError

from .constraints import check_input, one_of, switch, whole, whole_list


def swin_unetr(in_channels: int = 1, out_channels: int = 2, feature_size: int = 48) -> nn.Module:
    """SwinUNETR; `feature_size` is a multiple of 12."""
    _check_channels(in_channels, out_channels)
    width = whole("feature_size", feature_size, minimum=12, multiple=12)
    with torch.device("cpu"):  # its constructor computes with its tensors, which the meta device cannot
        network = _monai("SwinUNETR")(in_channels=in_channels, out_channels=out_channels, feature_size=width)
    network = network.to(torch.get_default_device())
    return _with_sizes(network, "SwinUNETR", in_channels, multiple=32, minimum=64)


def unetr(
    in_channels: int = 1,
    out_channels: int = 2,
    img_size: Sequence[int] = (96, 96, 96),
    feature_size: int = 16,
    hidden_size: int = 768,
    mlp_dim: int = 3072,
    num_heads: int = 12,
) -> nn.Module:
    """UNETR; takes windows of exactly `img_size` (k, j, i), multiples of 16, because of its position embedding."""
    _check_channels(in_channels, out_channels)
    size = whole_list("img_size", img_size, length=3, minimum=32, multiple=16)
    heads = whole("num_heads", num_heads)
    network = _monai("UNETR")(
        in_channels=in_channels,
        out_channels=out_channels,
        img_size=size,
        feature_size=whole("feature_size", feature_size),
        hidden_size=whole("hidden_size", hidden_size, minimum=heads, multiple=heads),
        mlp_dim=whole("mlp_dim", mlp_dim),
        num_heads=heads,
    )

    def check(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if tuple(inputs[0].shape[2:]) != size:
            raise InputError(
                f"This UNETR takes windows of exactly {'×'.join(map(str, size))}; got "
                f"{'×'.join(map(str, inputs[0].shape[2:]))}. Create it with img_size=… for another."
            )

    network.register_forward_pre_hook(check)
    setattr(network, "exact_size", True)  # noqa: B010 (planning a run asks for it)
    return _with_sizes(network, "UNETR", in_channels, multiple=16, minimum=min(size))


def seg_res_net(
    in_channels: int = 1,
    out_channels: int = 2,
    init_filters: int = 32,
    blocks_down: Sequence[int] = (1, 2, 2, 4),
    blocks_up: Sequence[int] = (1, 1, 1),
) -> nn.Module:
    """SegResNet, without its autoencoder branch."""
    _check_channels(in_channels, out_channels)
    down = whole_list("blocks_down", blocks_down)
    if len(down) < 2:
        raise InputError(f"blocks_down={tuple(down)} has too few levels. Give at least 2.")
    network = _monai("SegResNet")(
        in_channels=in_channels,
        out_channels=out_channels,
        init_filters=whole("init_filters", init_filters, minimum=8, multiple=8),
        blocks_down=down,
        blocks_up=whole_list("blocks_up", blocks_up, length=len(down) - 1),
    )
    multiple = 2 ** (len(down) - 1)
    return _with_sizes(network, "SegResNet", in_channels, multiple=multiple, minimum=multiple)


def dyn_unet(
    in_channels: int = 1,
    out_channels: int = 2,
    levels: int = 6,
    filters: Sequence[int] | None = None,
    res_block: bool = False,
) -> nn.Module:
    """DynUNet as nnU-Net would set it up for isotropic voxels: 3³ kernels, all axes halved at each level."""
    _check_channels(in_channels, out_channels)
    count = whole("levels", levels, minimum=3)
    network = _monai("DynUNet")(
        spatial_dims=3,
        in_channels=in_channels,
        out_channels=out_channels,
        kernel_size=[3] * count,
        strides=[1] + [2] * (count - 1),
        upsample_kernel_size=[2] * (count - 1),
        filters=None if filters is None else list(whole_list("filters", filters, length=count)),
        res_block=switch("res_block", res_block),
    )
    multiple = 2 ** (count - 1)
    return _with_sizes(network, "DynUNet", in_channels, multiple=multiple, minimum=2 * multiple)


def vnet(in_channels: int = 1, out_channels: int = 2) -> nn.Module:
    """V-Net; 16 must be a multiple of `in_channels`."""
    _check_channels(one_of("in_channels", in_channels, (1, 2, 4, 8, 16)), out_channels)
    network = _monai("VNet")(in_channels=in_channels, out_channels=out_channels)
    return _with_sizes(network, "V-Net", in_channels, multiple=16, minimum=16)


def attention_unet(
    in_channels: int = 1, out_channels: int = 2, channels: Sequence[int] = (32, 64, 128, 256, 512)
) -> nn.Module:
    """Attention U-Net, halved between any two levels."""
    _check_channels(in_channels, out_channels)
    widths = whole_list("channels", channels)
    if len(widths) < 2:
        raise InputError(f"channels={tuple(widths)} has too few levels. Give at least 2.")
    network = _monai("AttentionUnet")(
        spatial_dims=3,
        in_channels=in_channels,
        out_channels=out_channels,
        channels=widths,
        strides=(2,) * (len(widths) - 1),
    )
    multiple = 2 ** (len(widths) - 1)
    return _with_sizes(network, "Attention U-Net", in_channels, multiple=multiple, minimum=multiple)


def mednext(
    in_channels: int = 1, out_channels: int = 2, init_filters: int = 32, kernel_size: int = 7
) -> nn.Module:
    """MedNeXt (MONAI 1.5 and later) in MONAI's default configuration."""
    _check_channels(in_channels, out_channels)
    network = _monai("MedNeXt")(
        in_channels=in_channels,
        out_channels=out_channels,
        init_filters=whole("init_filters", init_filters),
        kernel_size=whole("kernel_size", kernel_size, odd=True),
    )
    return _with_sizes(network, "MedNeXt", in_channels, multiple=16, minimum=32)


def _check_channels(in_channels: int, out_channels: int) -> None:
    whole("in_channels", in_channels), whole("out_channels", out_channels)


def _monai(name: str) -> Any:
    """A network class of MONAI. InputError where the installed MONAI is older than the network."""
    import monai
    from monai.networks import nets

    if not hasattr(nets, name):
        raise InputError(f"MONAI {monai.__version__} has no {name}. Install a newer one: pip install --upgrade monai.")
    return getattr(nets, name)


def _with_sizes(network: Any, title: str, in_channels: int, multiple: int, minimum: int) -> nn.Module:
    """Tell the sizes that a network takes, and refuse others in a sentence before MONAI does in its own words."""

    def check(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        check_input(title, inputs[0].shape, in_channels, multiple, minimum)

    network.register_forward_pre_hook(check)
    network.size_multiple, network.minimum_size = multiple, minimum
    built: nn.Module = network
    return built
