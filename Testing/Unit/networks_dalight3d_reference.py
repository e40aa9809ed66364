"""DALight-3D a second time: plain functions in double precision, written from its description, sharing no code.

Reads a state dict in the published key layout; what the network is (separable or full convolutions, attention, skip
fusion, head) is read off the names of its tensors. Slow and literal on purpose.
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
    bias = w[f"{name}.bias"].double() if f"{name}.bias" in w else None
    return functional.conv3d(x, weight, bias, groups=x.shape[1] // weight.shape[1], **how)


def linear(w: Weights, name: str, x: Tensor) -> Tensor:
    """Fully connected, with bias."""
    return x @ w[f"{name}.weight"].double().T + w[f"{name}.bias"].double()


def gelu(x: Tensor) -> Tensor:
    """The exact one."""
    return 0.5 * x * (1 + torch.erf(x / 2**0.5))


def group_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Eight groups; weight and bias (batch or 1, channels)."""
    grouped = x.reshape(len(x), 8, -1)
    centred = grouped - grouped.mean(2, keepdim=True)
    normed = (centred / (centred.square().mean(2, keepdim=True) + 1e-5).sqrt()).reshape(x.shape)
    return normed * weight.double()[:, :, None, None, None] + bias.double()[:, :, None, None, None]


def plain_norm(w: Weights, name: str, x: Tensor) -> Tensor:
    """Group norm with one scale and shift."""
    return group_norm(x, w[f"{name}.weight"][None], w[f"{name}.bias"][None])


def identifier_norm(w: Weights, name: str, x: Tensor, identifier: Tensor | None) -> Tensor:
    """Group norm whose scale and shift the identifier picks."""
    if f"{name}.weight" in w:
        return plain_norm(w, name, x)
    if identifier is None:
        return group_norm(x, w[f"{name}.default_gamma"][None], w[f"{name}.default_beta"][None])
    gamma, beta = (w[f"{name}.scanner_{part}.weight"][identifier] for part in ("gamma", "beta"))
    return group_norm(x, gamma, beta)


def convolution(w: Weights, name: str, x: Tensor) -> Tensor:
    """Separable where there is a depth-wise kernel, else a full 3³ one."""
    if f"{name}.depthwise.weight" in w:
        return convolve(w, f"{name}.pointwise", convolve(w, f"{name}.depthwise", x, padding=1))
    return convolve(w, name, x, padding=1)


def cross_slice(w: Weights, name: str, x: Tensor, standard: bool) -> Tensor:
    """Attention among the slices of the first axis; published: values summed over the query index."""
    p = x.mean((3, 4))
    q, k, v = (
        functional.conv1d(p, w[f"{name}.{part}.weight"].double(), w[f"{name}.{part}.bias"].double())
        for part in ("query", "key", "value")
    )
    scores = torch.einsum("bmi,bmj->bij", q, k) / q.shape[1] ** 0.5
    weights = scores.exp() / scores.exp().sum(2, keepdim=True)
    update = torch.einsum("bcj,bij->bci" if standard else "bci,bij->bcj", v, weights)
    return x + update[..., None, None]


def block(w: Weights, name: str, x: Tensor, identifier: Tensor | None, csa_standard: bool = False) -> Tensor:
    """The lightweight block."""
    h = gelu(identifier_norm(w, f"{name}.norm1", convolution(w, f"{name}.conv1", x), identifier))
    h = identifier_norm(w, f"{name}.norm2", convolution(w, f"{name}.conv2", h), identifier)
    squeezed = gelu(linear(w, f"{name}.se.fc.0", h.mean((2, 3, 4))))
    h = h * torch.sigmoid(linear(w, f"{name}.se.fc.2", squeezed))[..., None, None, None]
    if f"{name}.attention.query.weight" in w:
        h = cross_slice(w, f"{name}.attention", h, csa_standard)
    if f"{name}.skip.0.weight" in w:
        x = plain_norm(w, f"{name}.skip.1", convolve(w, f"{name}.skip.0", x))
    return gelu(h + x)


def fused(w: Weights, name: str, x: Tensor) -> Tensor:
    """3³ convolution, group norm, GELU."""
    return gelu(plain_norm(w, f"{name}.1", convolve(w, f"{name}.0", x, padding=1)))


def skip_fusion(w: Weights, name: str, e: Tensor, d: Tensor) -> Tensor:
    """SSFB, or the plain fusion where there is no attention."""
    if f"{name}.alpha" not in w:
        return fused(w, f"{name}.conv", torch.cat((e, d), 1))
    low = f"{name}.low_rank_attn"
    q = convolve(w, f"{low}.query_proj", d).flatten(2)
    k = convolve(w, f"{low}.key_proj", e).flatten(2)
    v = convolve(w, f"{low}.value_proj", e).flatten(2)
    q = torch.softmax(q / q.shape[1] ** 0.5, 2)  # over the voxels
    k = torch.softmax(k / k.shape[1] ** 0.5, 1)  # over the rank
    context = torch.einsum("brn,bcn->brc", k, v)
    attention = torch.einsum("brn,brc->bcn", q, context).reshape(e.shape)
    attention = convolve(w, f"{low}.out_proj", attention)
    means = torch.cat((d.mean((2, 3, 4)), e.mean((2, 3, 4))), 1)
    gate = torch.sigmoid(
        linear(w, f"{name}.channel_gate.fc.2", gelu(linear(w, f"{name}.channel_gate.fc.0", means)))
    )
    share = torch.sigmoid(w[f"{name}.alpha"].double())
    mixed = share * attention + (1 - share) * e * gate[..., None, None, None]
    return fused(w, f"{name}.fusion", torch.cat((d, mixed), 1))


def dalight3d(
    w: Weights, image: Tensor, identifier: Tensor | None = None, csa_standard: bool = False
) -> dict[str, Tensor]:
    """The released dictionary: `probs` and the uncertainties; `logits`, or with an evidential head `evidence`."""
    stages = len({name.split(".")[2] for name in w if name.startswith("encoder.stages.")})
    x, skips = fused_input(w, image.double()), []
    for stage in range(stages):
        if stage:
            x = convolve(w, f"encoder.downsamples.{stage - 1}", x, stride=2, padding=1)
        x = block(w, f"encoder.stages.{stage}", x, identifier, csa_standard)
        skips.append(x)
    x = skips.pop()
    for step in range(stages - 1):
        name, skip = f"decoder.upsamples.{step}", skips.pop()
        x = functional.conv_transpose3d(x, w[f"{name}.weight"].double(), w[f"{name}.bias"].double(), stride=2)
        if x.shape[2:] != skip.shape[2:]:
            x = functional.interpolate(x, size=skip.shape[2:], mode="trilinear", align_corners=False)
        x = block(w, f"decoder.stages.{step}", skip_fusion(w, f"decoder.skip_fusions.{step}", skip, x), identifier)
    head = "head.net" if "head.net.3.weight" in w else "head.head"
    out = convolve(w, f"{head}.3", fused(w, head, x))
    if head == "head.net":
        evidence = torch.log1p(out.exp())
        total = (evidence + 1).sum(1)
        probs = (evidence + 1) / total[:, None]
        entropy = -(probs * probs.clamp(min=1e-7).log()).sum(1)
        epistemic = out.shape[1] / total
        uncertainty = {"epistemic": epistemic, "aleatoric": entropy, "uncertainty": epistemic + entropy}
        return {"evidence": evidence, "probs": probs, **uncertainty}
    probs = out.softmax(1)
    entropy = -(probs * probs.clamp(min=1e-7).log()).sum(1)
    uncertainty = {"epistemic": entropy, "aleatoric": torch.zeros_like(entropy), "uncertainty": entropy}
    return {"logits": out, "probs": probs, **uncertainty}


def fused_input(w: Weights, image: Tensor) -> Tensor:
    """The first convolution."""
    return fused(w, "encoder.init_conv", image)
