"""DLKNETR a second time, in double precision, from the parts of the second D-Net and the second Rep3D."""

from __future__ import annotations

from collections.abc import Mapping

import networks_dnet_reference as dnet
import torch
import torch.nn.functional as functional
from networks_rep3d_reference import residual
from torch import Tensor


def dlknetr(
    w: Mapping[str, Tensor], image: Tensor, depths: tuple[int, ...], per_kernel: bool = False
) -> list[Tensor]:
    """Logits, finest first; one where there are no auxiliary heads."""
    x = image.double()
    skips = [residual(w, "decoder.encoder1.layer", x)]
    encoder = "decoder.DLKEncoder"
    for level in range(5):
        how = {"stride": 2, "padding": 1 if level else 3}
        x = dnet.convolve(w, f"{encoder}.downsample_layers.{level}", x, **how)
        x = dnet.layer_norm(w, f"{encoder}.norm_layers.{level}", x)
        if level < 4:
            for number in range(depths[level]):
                x = dnet.block(w, f"{encoder}.stages.{level}.{number}", x, per_kernel)
            x = dnet.layer_norm(w, f"{encoder}.norm_layers.{level}", x)
            skips.append(residual(w, f"decoder.encoder{level + 2}.layer", x))
    logits = []
    for number in (5, 4, 3, 2, 1):
        skip = skips.pop()
        weight = w[f"decoder.decoder{number}.transp_conv.conv.weight"].double()
        up = functional.conv_transpose3d(x, weight, stride=2)
        k, j, i = skip.shape[2:]
        x = residual(w, f"decoder.decoder{number}.conv_block", torch.cat((up[:, :, :k, :j, :i], skip), 1))
        head = f"decoder.out_{number - 2}" if number > 1 else "decoder.out.conv.conv"
        if f"{head}.weight" in w:
            logits.append(dnet.convolve(w, head, x))
    return logits[::-1]
