"""The LK-attention U-Net a second time, in double precision, written from the equations, sharing no code."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as functional
from torch import Tensor

Weights = Mapping[str, Tensor]


def normed(w: Weights, name: str, x: Tensor, groups: int) -> Tensor:
    """lReLU(GN(x)), the norm called `name`.1."""
    grouped = x.reshape(len(x), min(groups, x.shape[1]), -1)
    centred = grouped - grouped.mean(2, keepdim=True)
    x = (centred / (centred.square().mean(2, keepdim=True) + 1e-5).sqrt()).reshape(x.shape)
    weight, bias = (w[f"{name}.1.{part}"].double().view(1, -1, 1, 1, 1) for part in ("weight", "bias"))
    x = x * weight + bias
    return torch.where(x > 0, x, 0.01 * x)


def convolved(w: Weights, name: str, x: Tensor, groups: int, stride: int = 1) -> Tensor:
    """A 3³ convolution, norm and activation."""
    weight, bias = w[f"{name}.0.weight"].double(), w[f"{name}.0.bias"].double()
    return normed(w, name, functional.conv3d(x, weight, bias, stride=stride, padding=1), groups)


def attended(w: Weights, name: str, f: Tensor, kernel: int, d: int, order: str) -> Tensor:
    """A · f + f."""
    c, k, m = f.shape[1], kernel // d, 2 * d - 1
    how = {"dwd": {"padding": d * (k - 1) // 2, "dilation": d}, "dw": {"padding": (m - 1) // 2}}
    a = f
    for part in order.split("_"):
        a = functional.conv3d(
            a, w[f"{name}.{part}.weight"].double(), w[f"{name}.{part}.bias"].double(), groups=c, **how[part]
        )
    a = torch.sigmoid(functional.conv3d(a, w[f"{name}.pw.weight"].double(), w[f"{name}.pw.bias"].double()))
    return a * f + f


def lka_unet(
    w: Weights,
    image: Tensor,
    attention: Mapping[int, tuple[int, int]],
    groups: int = 8,
    order: str = "dwd_dw",
) -> list[Tensor]:
    """Logits at all levels that have a head, finest first."""
    levels = len({name.split(".")[1] for name in w if name.startswith("enc.")})
    x, skips, logits = image.double(), [], []
    for level in range(levels):
        if level:
            x = convolved(w, f"down.{level - 1}", x, groups, stride=2)
        x = convolved(w, f"enc.{level}.1", convolved(w, f"enc.{level}.0", x, groups), groups)
        skips.append(x)
    skips.pop()
    for step in range(levels - 1):
        level = levels - 2 - step
        weight, bias = w[f"up.{step}.0.weight"].double(), w[f"up.{step}.0.bias"].double()
        up = normed(w, f"up.{step}", functional.conv_transpose3d(x, weight, bias, stride=2, padding=1), groups)
        if level in attention:
            up = attended(w, f"lk.{level}", up, *attention[level], order)
        x = torch.cat((up, skips.pop()), 1)
        x = convolved(w, f"dec.{step}.1", convolved(w, f"dec.{step}.0", x, groups), groups)
        if f"heads.{level}.weight" in w:
            head = w[f"heads.{level}.weight"].double(), w[f"heads.{level}.bias"].double()
            logits.append(functional.conv3d(x, *head))
    return logits[::-1]
