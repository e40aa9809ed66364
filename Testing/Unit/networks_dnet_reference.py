"""D-Net a second time: plain functions in double precision, written from its description, sharing no code.

Reads a state dict in the published key layout. Slow and literal on purpose.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as functional
from torch import Tensor

Weights = Mapping[str, Tensor]


def convolve(w: Weights, name: str, x: Tensor, **how: int) -> Tensor:
    """conv3d with the weights called `name`; depth-wise where the weight's shape says so."""
    weight = w[f"{name}.weight"].double()
    groups = x.shape[1] // weight.shape[1]
    bias = w[f"{name}.bias"].double() if f"{name}.bias" in w else None
    return functional.conv3d(x, weight, bias, groups=groups, **how)


def double_size(w: Weights, name: str, x: Tensor) -> Tensor:
    """Transposed convolution, kernel 2, stride 2."""
    return functional.conv_transpose3d(x, w[f"{name}.weight"].double(), w[f"{name}.bias"].double(), stride=2)


def layer_norm(w: Weights, name: str, x: Tensor) -> Tensor:
    """Over the channels of each voxel."""
    mean = x.mean(1, keepdim=True)
    variance = ((x - mean) ** 2).mean(1, keepdim=True)
    weight, bias = (w[f"{name}.{part}"].double().view(1, -1, 1, 1, 1) for part in ("weight", "bias"))
    return (x - mean) / (variance + 1e-6).sqrt() * weight + bias


def batch_norm(w: Weights, name: str, x: Tensor) -> Tensor:
    """With the running statistics."""
    mean, variance, weight, bias = (
        w[f"{name}.{part}"].double().view(1, -1, 1, 1, 1)
        for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (variance + 1e-5).sqrt() * weight + bias


def gelu(x: Tensor) -> Tensor:
    """The exact one."""
    return 0.5 * x * (1 + torch.erf(x / 2**0.5))


def pool(x: Tensor) -> Tensor:
    """Mean over all voxels."""
    return x.mean((2, 3, 4), keepdim=True)


def large_kernel(w: Weights, name: str, x: Tensor, per_kernel: bool = False) -> Tensor:
    """The DLK layer."""
    h = convolve(w, f"{name}.channel_proj", x)
    near = convolve(w, f"{name}.att_conv1", h, padding=2)
    far = convolve(w, f"{name}.att_conv2", near, padding=9, dilation=3)
    u = torch.cat((near, far), 1)
    a = torch.cat((u.mean(1, keepdim=True), u.max(1, keepdim=True).values), 1)
    s = torch.sigmoid(convolve(w, f"{name}.spatial_se.0", a, padding=3))
    v = torch.cat((near * s[:, :1], far * s[:, 1:]), 1) if per_kernel else u * s[:, :1] + u * s[:, 1:]
    return torch.sigmoid(convolve(w, f"{name}.conv_atten.0", pool(v))) * v + x


def mixer(w: Weights, name: str, x: Tensor) -> Tensor:
    """The MLP with a depth-wise convolution."""
    return convolve(
        w, f"{name}.fc2", gelu(convolve(w, f"{name}.dwconv", convolve(w, f"{name}.fc1", x), padding=1))
    )


def block(w: Weights, name: str, x: Tensor, per_kernel: bool) -> Tensor:
    """The DLK block."""
    scale = w[f"{name}.layer_scale"].double().view(1, -1, 1, 1, 1)
    t = layer_norm(w, f"{name}.norm_layer", x)
    inner = gelu(convolve(w, f"{name}.attn.proj_1", t))
    inner = large_kernel(w, f"{name}.attn.spatial_gating_unit", inner, per_kernel)
    x = x + scale * (t + convolve(w, f"{name}.attn.proj_2", inner))
    return x + scale * mixer(w, f"{name}.mlp", layer_norm(w, f"{name}.norm_layer", x))


def fusion(w: Weights, name: str, x: Tensor, skip: Tensor) -> Tensor:
    """DFF, decoder first."""
    both = torch.cat((x, skip), 1)
    channel = torch.sigmoid(convolve(w, f"{name}.conv_atten.0", pool(both)))
    spatial = torch.sigmoid(convolve(w, f"{name}.conv1", x) + convolve(w, f"{name}.conv2", skip))
    return spatial * convolve(w, f"{name}.conv_redu", channel * both)


def salience(w: Weights, name: str, image: Tensor) -> Tensor:
    """The full-resolution branch with its one batch norm."""
    t = batch_norm(w, f"{name}.norm_layer", convolve(w, f"{name}.channel_proj", image, padding=1))
    t = functional.leaky_relu(t, 0.2)
    return t + mixer(w, f"{name}.mlp", batch_norm(w, f"{name}.norm_layer", t))


def dnet(w: Weights, image: Tensor, depths: tuple[int, ...], per_kernel: bool = False) -> list[Tensor]:
    """Logits, finest first."""
    image = image.double()
    x, skips = image, []
    for stage, depth in enumerate(depths):
        how = {"stride": 2, "padding": 1 if stage else 3}
        x = layer_norm(
            w, f"encoder.norm_layers.{stage}", convolve(w, f"encoder.downsample_layers.{stage}", x, **how)
        )
        for number in range(depth):
            x = block(w, f"encoder.stages.{stage}.{number}", x, per_kernel)
        skips.append(x)
    x, logits = skips.pop(), []
    for step in range(len(depths) - 1):
        x = layer_norm(w, f"decoder.norm_layers.{step}", double_size(w, f"decoder.upsample_layers.{step}", x))
        x = fusion(w, f"decoder.steps.{step}", x, skips.pop())
        for number in range(depths[step]):
            x = block(w, f"decoder.stages.{step}.{number}", x, per_kernel)
        logits.append(convolve(w, f"decoder.seg_layers.{step}", x))
    x = fusion(
        w, "decoder.final_fusion", double_size(w, "decoder.stem", x), salience(w, "encoder.saliency", image)
    )
    for number in (1, 2):
        name = f"decoder.final_layer.conv{number}"
        x = functional.leaky_relu(batch_norm(w, f"{name}.1", convolve(w, f"{name}.0", x, padding=1)), 0.2)
    return [convolve(w, "decoder.output_layer", x), *logits[::-1]]
