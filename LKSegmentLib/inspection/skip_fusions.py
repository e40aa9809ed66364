"""What DALight-3D shows: the gates and the rank maps of its skip fusions, and its uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from LKSegmentLib.networks.blocks.skip_fusion import SkipFusion
from LKSegmentLib.networks.dalight3d import DALight3D

from .exposed import Exposed, Read


def skip_fusion_maps(fusion: SkipFusion, layer: str, stride: int) -> list[Exposed]:
    """What one skip fusion shows.

    Args:
        fusion: the module.
        layer: its name in the network.
        stride: of the maps it fuses, in window voxels.
    """
    place = f"decoder 1/{stride}"
    rank = fusion.low_rank_attn.query_proj.out_channels
    at: dict[str, Any] = {
        "stride": stride,
        "offset": (stride - 1) / 2,
        "channels": rank,
        "summary": False,
    }
    share = round(float(fusion.alpha.detach().sigmoid()), 4)
    return [
        Exposed(
            f"skip-fusion channel gate, {place}",
            (f"{layer}.channel_gate.fc",),
            lambda outputs: outputs[0][0],
            {
                "kind": "native gate, pooled",
                "unit": "none (a factor)",
                "range": [0.0, 1.0],
                "neutral": 0.5,
                "operator": f"σ(FC(GELU(FC([GAP(d); GAP(e)])))): multiplies the encoder's channels; this path's share "
                f"is {1 - share:.4g}, the attention's {share:.4g}; mean over the channels unless one was chosen",
                "identifiable": "each channel's gate is, for a window; it has no place within the window",
            },
            extent="window",
            channels=fusion.low_rank_attn.value_proj.out_channels,
        ),
        Exposed(
            f"skip-fusion query map, {place}",
            (f"{layer}.low_rank_attn.query_proj",),
            _queries,
            {
                "kind": "native attention",
                "unit": "times the window's mean",
                "range": [0.0, None],
                "neutral": 1.0,
                "operator": "q[r] = softmax over all voxels of the window of (Conv1(d) / √R), times the voxels: where "
                "summary r is read out",
                "identifiable": "up to the order of the R summaries; each sums to one over its window, so values of "
                "different windows share no scale",
            },
            **at,
        ),
        Exposed(
            f"skip-fusion key map, {place}",
            (f"{layer}.low_rank_attn.key_proj",),
            _keys,
            {
                "kind": "native attention",
                "unit": "none (a share)",
                "range": [0.0, 1.0],
                "neutral": round(1 / rank, 6),
                "operator": "k[r] = softmax over the R summaries of (Conv1(e) / √R): how much of a voxel goes into "
                "summary r",
                "identifiable": "up to the order of the R summaries",
            },
            **at,
        ),
    ]


def uncertainty_maps(network: DALight3D) -> list[Exposed]:
    """The uncertainty of the network's own answer, at full resolution."""
    classes = network.out_channels

    def entropy(outputs: Sequence[Tensor]) -> Tensor:
        probabilities = outputs[0][0].float().softmax(0)
        return -(probabilities * probabilities.clamp(min=1e-7).log()).sum(0, keepdim=True)

    def evidence(outputs: Sequence[Tensor]) -> Tensor:
        return classes / outputs[0][0].float().exp().sum(0, keepdim=True)

    def entry(name: str, read: Read, operator: str, unit: str) -> Exposed:
        meaning = {
            "kind": "uncertainty of the answer",
            "unit": unit,
            "range": [0.0, None],
            "neutral": None,
            "operator": operator,
            "identifiable": "yes: a function of the answer; whether it is calibrated was not checked",
        }
        return Exposed(name, ("head",), read, meaning, default=True)

    if not network.evidential:
        return [entry("uncertainty", entropy, "entropy of the class probabilities", "nat")]
    total = "S = Σ (evidence + 1)"
    return [
        entry("epistemic uncertainty", lambda out: _evidential(out, evidence), f"classes / {total}", "none"),
        entry("aleatoric uncertainty", lambda out: _evidential(out, entropy), "entropy of (evidence + 1) / S", "nat"),
    ]


def _evidential(outputs: Sequence[Tensor], read: Read) -> Tensor:
    """The head answers with evidence; the network's logits are log(evidence + 1)."""
    return read([(outputs[0].float() + 1).log()])


def _queries(outputs: Sequence[Tensor]) -> Tensor:
    query = outputs[0].float()
    voxels = query[0, 0].numel()
    flat = (query.flatten(2) / query.shape[1] ** 0.5).softmax(dim=2) * voxels
    return flat.view_as(query)[0]


def _keys(outputs: Sequence[Tensor]) -> Tensor:
    key = outputs[0].float()
    return (key / key.shape[1] ** 0.5).softmax(dim=1)[0]
