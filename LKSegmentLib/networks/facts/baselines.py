"""Facts about the networks that come from MONAI."""

from __future__ import annotations

from LKSegmentLib.networks.facts.record import NetworkFacts, Published

_LICENCE = "MONAI: Apache-2.0. Built fresh here; no weights shipped."
_NOTE = "Taken from MONAI as it is; its own documentation holds."
_COUNTED = (
    "printed in D-Net's paper: multiply-accumulates at 1×1×96³ with 16 classes by a tool that counts transposed "
    "convolutions 8 times too high ({} G instead of {} G), adds norms and biases{}; it gives {} G here (measured)"
)
_ATTENTION = " and leaves out products inside attention (11.43 G)"


def _baseline(
    title: str,
    summary: str,
    citation: str,
    parameters: int,
    macs: int,
    size_multiple: int,
    minimum_size: int,
    remark: str = "",
    published: tuple[Published, ...] = (),
) -> NetworkFacts:
    """All are counted at 1×96³ with 16 classes, as the published tables of the large-kernel networks count them."""
    return NetworkFacts(
        title=title,
        summary=summary,
        status="baseline",
        status_note=_NOTE,
        citation=citation,
        licence=_LICENCE,
        reference={"in_channels": 1, "out_channels": 16},
        reference_size=(96, 96, 96),
        parameters=parameters,
        macs=macs,
        size_multiple=size_multiple,
        minimum_size=minimum_size,
        remarks=(remark,) if remark else (),
        published=published,
    )


SWIN_UNETR = _baseline(
    "SwinUNETR (MONAI)",
    "A shifted-window transformer encoder under a convolutional decoder.",
    "Hatamizadeh et al., Swin UNETR, arXiv 2201.01266.",
    62_187_394,
    318_609_667_392,
    32,
    64,
    published=(Published("FLOPs", "329.28 G", _COUNTED.format("23.95", "2.99", _ATTENTION, "329.93")),),
)
UNETR = _baseline(
    "UNETR (MONAI)",
    "A vision transformer encoder under a convolutional decoder.",
    "Hatamizadeh et al., UNETR, arXiv 2103.10504.",
    92_802_512,
    73_252_601_856,
    16,
    96,
    "Takes windows of exactly img_size.",
)
SEG_RES_NET = _baseline(
    "SegResNet (MONAI)",
    "A residual encoder and a light decoder.",
    "Myronenko, 3D MRI brain tumor segmentation using autoencoder regularization, arXiv 1810.11654.",
    18_796_464,
    244_696_743_936,
    8,
    8,
)
DYN_UNET = _baseline(
    "DynUNet (MONAI)",
    "The U-Net of nnU-Net in six levels for isotropic voxels.",
    "Isensee et al., nnU-Net, Nature Methods 18, 2021, arXiv 1904.08128.",
    31_189_872,
    201_728_434_176,
    32,
    64,
)
VNET = _baseline(
    "V-Net (MONAI)",
    "A residual U-Net with 5³ kernels.",
    "Milletari et al., V-Net, arXiv 1606.04797.",
    45_654_192,
    358_381_780_992,
    16,
    16,
    published=(Published("FLOPs", "370.52 G", _COUNTED.format("13.14", "1.64", "", "370.27")),),
)
ATTENTION_UNET = _baseline(
    "Attention U-Net (MONAI)",
    "A U-Net whose skips are gated by the decoder.",
    "Oktay et al., Attention U-Net, arXiv 1804.03999.",
    23_626_448,
    164_990_214_144,
    16,
    16,
)
MEDNEXT = _baseline(
    "MedNeXt (MONAI)",
    "A ConvNeXt-like U-Net of 7³ depth-wise kernels, in MONAI's default configuration.",
    "Roy et al., MedNeXt, arXiv 2303.09975.",
    6_587_120,
    104_966_080_512,
    16,
    32,
    "MONAI 1.5 or later.",
)
