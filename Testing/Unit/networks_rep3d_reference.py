"""Rep3D a second time: plain functions in double precision, written from its description, sharing no code.

Reads a state dict in the published key layout, raw (with the kind of mask) or baked. Slow and literal on purpose.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as functional
from torch import Tensor

Weights = Mapping[str, Tensor]


def prior(edge: int, beta: float = 1.0) -> Tensor:
    """P = 1 / (1 + d^beta), tap by tap."""
    middle = edge // 2
    taps = torch.tensor(
        [
            [[(a - middle) ** 2 + (b - middle) ** 2 + (c - middle) ** 2 for c in range(edge)] for b in range(edge)]
            for a in range(edge)
        ],
        dtype=torch.float64,
    )
    return 1 / (1 + taps.sqrt() ** beta)


def generated(w: Weights, name: str, p: Tensor) -> Tensor:
    """Our generator: M of the kernel called `name`, (1 or channels, 1, K, K, K)."""

    def convolve(part: str, x: Tensor) -> Tensor:
        weight, bias = w[f"{name}.{part}.weight"].double(), w[f"{name}.{part}.bias"].double()
        return functional.conv3d(x, weight, bias, padding=3, groups=len(weight))

    def norm(part: str, x: Tensor) -> Tensor:
        weight, bias = (w[f"{name}.{part}.{kind}"].double().view(1, -1, 1, 1, 1) for kind in ("weight", "bias"))
        axes = (2, 3, 4) if x.shape[1] == 1 else (1,)  # over the taps, or over the channels of each tap
        centred = x - x.mean(axes, keepdim=True)
        return weight * centred / (centred.square().mean(axes, keepdim=True) + 1e-6).sqrt() + bias

    shared = p.expand(1, len(w[f"{name}.prior_conv.weight"]), *p.shape)
    squashed = torch.sigmoid(norm("norm_w", convolve("prior_conv", shared)))
    return (p + norm("norm_w2", convolve("prior_conv2", squashed))).transpose(0, 1)


def kernel(w: Weights, name: str, lrbm: str) -> Tensor:
    """The weights that act: raw ones under their mask, or (`"baked"`, `"none"`, `"grad"`) as they are."""
    weight = w[f"{name}.dwconv.weight"].double()
    if lrbm in ("baked", "none", "grad"):
        return weight
    p = prior(weight.shape[-1], float(w.get(f"{name}.beta", 1.0)))
    return weight * (p if lrbm == "fixed" else generated(w, name, p))


def convolve(w: Weights, name: str, x: Tensor, **how: int) -> Tensor:
    """conv3d with the weights called `name`."""
    bias = w[f"{name}.bias"].double() if f"{name}.bias" in w else None
    return functional.conv3d(x, w[f"{name}.weight"].double(), bias, **how)


def layer_norm(w: Weights, name: str, x: Tensor) -> Tensor:
    """Over the channels of each voxel, eps 1e-6."""
    centred = x - x.mean(1, keepdim=True)
    weight, bias = (w[f"{name}.{part}"].double().view(1, -1, 1, 1, 1) for part in ("weight", "bias"))
    return centred / (centred.square().mean(1, keepdim=True) + 1e-6).sqrt() * weight + bias


def instance_norm(x: Tensor) -> Tensor:
    """Each channel of each image by itself."""
    centred = x - x.mean((2, 3, 4), keepdim=True)
    return centred / (centred.square().mean((2, 3, 4), keepdim=True) + 1e-5).sqrt()


def residual(w: Weights, name: str, x: Tensor) -> Tensor:
    """The residual block of MONAI's UNETR family."""
    r = functional.leaky_relu(instance_norm(convolve(w, f"{name}.conv1.conv", x, padding=1)), 0.01)
    r = instance_norm(convolve(w, f"{name}.conv2.conv", r, padding=1))
    shortcut = f"{name}.conv3.conv"
    s = instance_norm(convolve(w, shortcut, x)) if f"{shortcut}.weight" in w else x
    return functional.leaky_relu(r + s, 0.01)


def large_kernel_block(w: Weights, name: str, x: Tensor, lrbm: str) -> Tensor:
    """GELU(BN(depth-wise convolution))."""
    weight = kernel(w, name, lrbm)
    x = functional.conv3d(x, weight, padding=weight.shape[-1] // 2, groups=len(weight))
    mean, variance, scale, shift = (
        w[f"{name}.norm.{part}"].double().view(1, -1, 1, 1, 1)
        for part in ("running_mean", "running_var", "weight", "bias")
    )
    x = (x - mean) / (variance + 1e-5).sqrt() * scale + shift
    return 0.5 * x * (1 + torch.erf(x / 2**0.5))


def rep3d(w: Weights, image: Tensor, depths: tuple[int, ...], lrbm: str = "baked") -> Tensor:
    """Logits."""
    x = image.double()
    skips = [residual(w, "encoder1.layer", x)]
    for stage, depth in enumerate(depths):
        down = f"rep3d.downsample_layers.{stage}"
        if stage == 0:
            x = layer_norm(w, f"{down}.1", convolve(w, f"{down}.0", x, stride=2, padding=3))
        else:
            x = convolve(w, f"{down}.1", layer_norm(w, f"{down}.0", x), stride=2)
        for number in range(depth):
            x = large_kernel_block(w, f"rep3d.stages.{stage}.{number}", x, lrbm)
        skips.append(residual(w, f"encoder{stage + 2}.layer", layer_norm(w, f"rep3d.norm{stage}", x)))
    x = skips.pop()
    for number in (5, 4, 3, 2):
        name = f"decoder{number}"
        up = functional.conv_transpose3d(x, w[f"{name}.transp_conv.conv.weight"].double(), stride=2)
        x = residual(w, f"{name}.conv_block", torch.cat((up, skips.pop()), 1))
    return convolve(w, "out.conv.conv", residual(w, "decoder1.layer", x))
