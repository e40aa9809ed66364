"""What networks show for each slice: DALight-3D's attention between slices, MSA2-Net's kernel weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from LKSegmentLib.networks.blocks.cross_slice import CrossSliceAttention
from LKSegmentLib.networks.dalight3d import DALight3D
from LKSegmentLib.networks.msa2net import MSA2Net

from .exposed import Exposed, Read

_RECEIVED = "weight received"
_ATTENTION = (_RECEIVED, "weight given", "own weight", "mean distance (slices)", "update", "update over its input")


def slice_attention(network: DALight3D) -> list[Exposed]:
    """The attention between slices as it acts: what each slice receives, and the whole matrix."""
    found: list[Exposed] = []
    for stage, block in enumerate(network.encoder.stages):
        attention = block.attention
        if not isinstance(attention, CrossSliceAttention):
            continue
        layer, stride = f"encoder.stages.{stage}.attention", 2**stage
        place = f"encoder 1/{stride}"
        acts = (
            "o = V·Aᵀ: slice n receives along row n of A, which sums to 1"
            if attention.standard
            else "o = V·A, as released: slice n receives along column n of A, which need not sum to 1 (its rows do, "
            "and are not what acts)"
        )
        meaning: dict[str, Any] = {
            "kind": "native attention, pooled",
            "unit": "none (a weight), unless a column says otherwise",
            "range": [0.0, None],
            "neutral": None,
            "operator": f"A = softmax over j of (q_i·k_j / √m) of slice means; {acts}",
            "identifiable": "yes, for the slices of a window: each weight multiplies the value of one slice; it pools "
            "over the slice, so it has no place within it",
        }
        at: dict[str, Any] = {"stride": stride, "offset": 0.0}
        described = {
            **meaning,
            "columns": {
                _RECEIVED: "sum of the weights with which a slice receives the values of all; 1 is neutral",
                "weight given": "sum of the weights with which a slice's value is given to all",
                "own weight": "how much of its own value it receives",
                "mean distance (slices)": "of the slices it receives from, weighted, in slices of the map",
                "update": "size of what is added to every voxel of the slice: root mean square over channels",
                "update over its input": "the same over the size of the slice's mean features",
            },
        }
        found.append(
            Exposed(
                f"slice attention, {place}",
                (f"{layer}.weights", f"{layer}.value", layer),
                _received(attention.standard),
                described,
                "slices",
                channels=len(_ATTENTION),
                default=True,
                columns=_ATTENTION,
                drawn=(_RECEIVED, "own weight"),
                **at,
            )
        )
        found.append(
            Exposed(
                f"slice attention matrix, {place}",
                (f"{layer}.weights",),
                _matrix(attention.standard),
                {**meaning, "rows": "the slice that receives", "columns": "the slice it receives from"},
                "slices",
                apart=True,
                **at,
            )
        )
    return found


def _acting(attention: Tensor, standard: bool) -> Tensor:
    """A (1, n, n) → the weights that act, (from, to)."""
    return attention[0].transpose(0, 1) if standard else attention[0]


def _matrix(standard: bool) -> Read:
    return lambda outputs: _acting(outputs[0], standard)


def _received(standard: bool) -> Read:
    def read(outputs: Sequence[Tensor]) -> Tensor:
        attention, value, after = outputs
        weights = _acting(attention, standard).float()
        number = torch.arange(len(weights), device=weights.device)
        away = (number[:, None] - number).abs()
        received = weights.sum(0)
        update = value[0].float() @ weights  # (channels, slices)
        before = after[0].float().mean((2, 3)) - update
        size = update.square().mean(0).sqrt()
        shares = size / before.square().mean(0).sqrt().clamp(min=torch.finfo(torch.float32).tiny)
        distance = (weights * away).sum(0) / received
        return torch.stack((received, weights.sum(1), weights.diagonal(), distance, size, shares))

    return read


def slice_kernels(network: nn.Module) -> list[Exposed]:
    """The weights of MSA2-Net's candidate kernels, module by module, and the mean kernel size of all modules."""
    assert isinstance(network, MSA2Net)
    modules = network.adaptive_convolutions()

    def entry(name: str, candidates: tuple[int, ...]) -> Exposed:
        sizes = tuple(f"share of {size}²" for size in candidates)
        meaning: dict[str, Any] = {
            "kind": "native gate, pooled",
            "unit": "none (a share)",
            "range": [0.0, 1.0],
            "neutral": round(1 / len(candidates), 4),
            "operator": f"α = softmax over the candidate kernels {', '.join(f'{size}²' for size in candidates)} of "
            f"{name}, one set for each slice",
            "identifiable": "yes, for a slice; it has no place within it. After training the kernels differ in size: a "
            "large share of a kernel of small weights acts little (see the table of candidate kernels)",
        }
        return Exposed(
            f"kernel weights, {name}",
            (f"{name}.gate",),
            lambda outputs: outputs[0].transpose(0, 1),
            meaning,
            "slices",
            channels=len(candidates),
            columns=sizes,
        )

    # In the order in which they run: the decoder's groups from the deepest up.
    running = sorted(modules, key=lambda name: (name.startswith("decoder."), _depth(name), name))
    overview = Exposed(
        "mean kernel size by module",
        tuple(f"{name}.gate" for name in running),
        lambda outputs: torch.stack(
            [
                shares @ shares.new_tensor(modules[name].candidates)
                for name, shares in zip(running, outputs, strict=True)
            ]
        ),
        {
            "kind": "derived from native gates, pooled",
            "unit": "voxels of the module's own map (k for a kernel of k²)",
            "range": [
                float(min(min(module.candidates) for module in modules.values())),
                float(max(max(module.candidates) for module in modules.values())),
            ],
            "neutral": None,
            "operator": "Σ α_n · k_n over the candidate kernels, one column a module; a flat line at the mean of the "
            "candidates is a gate that was never trained",
            "identifiable": "yes, for a slice; it has no place within it, and it weighs kernels by their share alone",
        },
        "slices",
        channels=len(running),
        default=True,
        columns=tuple(running),
    )
    return [overview, *(entry(name, module.candidates) for name, module in modules.items())]


def _depth(name: str) -> int:
    return -int(name.split(".")[1]) if name.startswith("decoder.") else 0
