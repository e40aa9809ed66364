"""MSA2-Net (the reconstruction) a second time: plain functions in double precision, sharing no code.

The CSWin Transformer is written as attention with a mask: every voxel attends to all voxels of its stripe. Slow and
literal on purpose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as functional
from torch import Tensor

Weights = Mapping[str, Tensor]
STRIPES = (1, 2, 7, None)
HEADS = (2, 4, 8, 16)


def of(w: Weights, name: str) -> tuple[Tensor, Tensor | None]:
    """Weight and bias called `name`."""
    bias = w.get(f"{name}.bias")
    return w[f"{name}.weight"].double(), None if bias is None else bias.double()


def batch_norm(w: Weights, name: str, x: Tensor) -> Tensor:
    """With the running statistics."""
    mean, variance, weight, bias = (
        w[f"{name}.{part}"].double()[None, :, None, None] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (variance + 1e-5).sqrt() * weight + bias


def gelu(x: Tensor) -> Tensor:
    """The exact one."""
    return 0.5 * x * (1 + torch.erf(x / 2**0.5))


def adaptive(w: Weights, name: str, x: Tensor) -> Tensor:
    """SACM as the share-weighted sum of the candidates' responses."""
    weights = [w[f"{name}.weights.{n}"].double() for n in range(len(w[f"{name}.biases"]))]
    mean = x.mean((2, 3))
    deviation = ((x - mean[..., None, None]).square().mean((2, 3)) + 1e-6).sqrt()
    hidden = torch.relu(functional.linear(torch.cat((mean, deviation), 1), *of(w, f"{name}.gate.0")))
    shares = functional.linear(hidden, *of(w, f"{name}.gate.2")).softmax(1)
    out = torch.zeros_like(x)
    for n, weight in enumerate(weights):
        groups = x.shape[1] // weight.shape[1]
        bias = w[f"{name}.biases"][n].double()
        response = functional.conv2d(x, weight, bias, padding=weight.shape[-1] // 2, groups=groups)
        out = out + shares[:, n, None, None, None] * response
    return out if f"{name}.pointwise.weight" not in w else functional.conv2d(out, *of(w, f"{name}.pointwise"))


def unit(w: Weights, name: str, x: Tensor) -> Tensor:
    """GELU(BN(SACM(x)))."""
    return gelu(batch_norm(w, f"{name}.norm", adaptive(w, f"{name}.adaptive", x)))


def same_stripe(height: int, width: int, rows: int, columns: int) -> Tensor:
    """Which of the voxels of a map, counted row by row, share a stripe of rows × columns: (voxels, voxels)."""
    j, i = torch.meshgrid(torch.arange(height) // rows, torch.arange(width) // columns, indexing="ij")
    stripe = (j * width + i).flatten()
    return stripe[:, None] == stripe[None, :]


def stripe_attention(
    w: Weights, name: str, parts: Sequence[Tensor], heads: int, size: tuple[int, int], stripe: tuple[int, int]
) -> Tensor:
    """Masked attention of (batch, voxels, channels) plus a 3² depth-wise convolution of v inside each stripe."""
    q, k, v = (part.unflatten(2, (heads, -1)).transpose(1, 2) for part in parts)
    scores = q @ k.transpose(2, 3) / q.shape[3] ** 0.5
    scores = scores.masked_fill(~same_stripe(*size, *stripe), float("-inf"))
    attended = (scores.softmax(3) @ v).transpose(1, 2).flatten(2)
    weight, bias = of(w, f"{name}.get_v")
    values = parts[2].transpose(1, 2).unflatten(2, size)
    position = torch.empty_like(values)
    for j in range(0, size[0], stripe[0]):
        for i in range(0, size[1], stripe[1]):
            here = (..., slice(j, j + stripe[0]), slice(i, i + stripe[1]))
            position[here] = functional.conv2d(values[here], weight, bias, padding=1, groups=len(weight))
    return attended + position.flatten(2).transpose(1, 2)


def layer_norm(w: Weights, name: str, x: Tensor) -> Tensor:
    """Over the last axis, eps 1e-5."""
    centred = x - x.mean(-1, keepdim=True)
    weight, bias = of(w, name)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight + bias


def transformer_block(w: Weights, name: str, x: Tensor, size: tuple[int, int], heads: int, width: int | None) -> Tensor:
    """One CSWin block on (batch, voxels, channels)."""
    q, k, v = functional.linear(layer_norm(w, f"{name}.norm1", x), *of(w, f"{name}.qkv")).chunk(3, 2)
    if width is None:
        attended = stripe_attention(w, f"{name}.attns.0", (q, k, v), heads, size, size)
    else:
        half = q.shape[2] // 2
        first, second = ([part[..., rows] for part in (q, k, v)] for rows in (slice(0, half), slice(half, None)))
        attended = torch.cat(
            (
                stripe_attention(w, f"{name}.attns.0", first, heads // 2, size, (size[0], width)),
                stripe_attention(w, f"{name}.attns.1", second, heads // 2, size, (width, size[1])),
            ),
            2,
        )
    x = x + functional.linear(attended, *of(w, f"{name}.proj"))
    hidden = gelu(functional.linear(layer_norm(w, f"{name}.norm2", x), *of(w, f"{name}.mlp.fc1")))
    return x + functional.linear(hidden, *of(w, f"{name}.mlp.fc2"))


def encoder_stage(w: Weights, number: int, x: Tensor) -> Tensor:
    """Stage 1 to 4 of the CSWin Transformer on (batch, channels, j, i)."""
    if number == 1:
        x = functional.conv2d(x, *of(w, "encoder.stage1_conv_embed.0"), stride=4, padding=2)
        norm = "encoder.stage1_conv_embed.2"
    else:
        x = functional.conv2d(x, *of(w, f"encoder.merge{number - 1}.conv"), stride=2, padding=1)
        norm = f"encoder.merge{number - 1}.norm"
    size = (int(x.shape[2]), int(x.shape[3]))
    x = layer_norm(w, norm, x.flatten(2).transpose(1, 2))
    depth = len({name.split(".")[2] for name in w if name.startswith(f"encoder.stage{number}.")})
    for n in range(depth):
        x = transformer_block(w, f"encoder.stage{number}.{n}", x, size, HEADS[number - 1], STRIPES[number - 1])
    if number == 4:
        x = layer_norm(w, "encoder.norm", x)
    return x.transpose(1, 2).unflatten(2, size)


def auxiliary(w: Weights, number: int, x: Tensor) -> Tensor:
    """The ResNet stage beside encoder stage `number`."""
    name, stride = f"auxiliary.{number - 1}", 4 if number == 1 else 2
    inner = functional.conv2d(x, *of(w, f"{name}.conv"), stride=stride, padding=3 if number == 1 else 1)
    inner = torch.relu(batch_norm(w, f"{name}.norm1", inner))
    inner = batch_norm(w, f"{name}.norm2", adaptive(w, f"{name}.adaptive", inner))
    shortcut = functional.conv2d(x, *of(w, f"{name}.shortcut"), stride=stride)
    return torch.relu(inner + batch_norm(w, f"{name}.norm3", shortcut))


def nested(w: Weights, name: str, x: Tensor) -> Tensor:
    """The decoder's group."""
    before, parts = torch.zeros_like(x), []
    for n in range(3):
        before = unit(w, f"{name}.units.{n}", x + before)
        parts.append(before)
    return x + functional.conv2d(torch.cat(parts, 1), *of(w, f"{name}.project"))


def doubled(x: Tensor, factor: int) -> Tensor:
    """Bilinear, without aligned corners."""
    return functional.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def of_slices(w: Weights, slices: Tensor) -> Tensor:
    """Logits of (batch, 1 or 3, 224, 224)."""
    fused = slices.double().expand(-1, 3, -1, -1)
    skips = []
    for number in (1, 2, 3, 4):
        stage = encoder_stage(w, number, fused)
        fused = stage + auxiliary(w, number, fused) if "auxiliary.0.conv.weight" in w else stage
        name = f"bridge.{number - 1}"
        refined = unit(w, f"{name}.units.1", unit(w, f"{name}.units.0", fused))
        skips.append(fused + functional.conv2d(refined, *of(w, f"{name}.project")))
    x = nested(w, "decoder.3", skips[3])
    for n in (2, 1, 0):
        x = nested(w, f"decoder.{n}", functional.conv2d(doubled(x, 2), *of(w, f"rise.{n}")) + skips[n])
    return doubled(functional.conv2d(x, *of(w, "head")), 4)


def msa2net(w: Weights, volume: Tensor, side: int = 224) -> Tensor:
    """Logits of a volume (batch, 1 or 3, k, j, i), slice by slice."""
    size = volume.shape[3:]
    planes = []
    for k in range(volume.shape[2]):
        plane = volume[:, :, k].double()
        if tuple(size) != (side, side):
            plane = functional.interpolate(plane, (side, side), mode="bicubic", align_corners=False)
        logits = of_slices(w, plane)
        if tuple(size) != (side, side):
            logits = functional.interpolate(logits, tuple(size), mode="bilinear", align_corners=False)
        planes.append(logits)
    return torch.stack(planes, 2)
