"""What the weights tell that is no picture: DALight-3D's norms by identifier, MSA2-Net's candidate kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from LKSegmentLib.networks.blocks.lightweight import IDENTIFIERS, IdentifierNorm
from LKSegmentLib.networks.blocks.self_adaptive import SelfAdaptiveConv2d

from .tables import Cell, Table

_KIND = "weights alone, no image"


def weight_tables(network: nn.Module) -> list[Table]:
    """The tables of a network's weights; an empty list where there are none."""
    norms = {name: module for name, module in network.named_modules() if isinstance(module, IdentifierNorm)}
    adaptive = {name: module for name, module in network.named_modules() if isinstance(module, SelfAdaptiveConv2d)}
    return [*([_identifiers(norms)] if norms else []), *([_candidates(adaptive)] if adaptive else [])]


def _identifiers(norms: dict[str, IdentifierNorm]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    differences, defaults = 0.0, 0.0
    with torch.no_grad():
        for layer, norm in norms.items():
            usual = (norm.default_gamma.float(), norm.default_beta.float())
            defaults = max(defaults, float((usual[0] - 1).abs().max()), float(usual[1].abs().max()))
            every = [(str(n), norm.scanner_gamma.weight[n], norm.scanner_beta.weight[n]) for n in range(IDENTIFIERS)]
            for identifier, scale, shift in (("none", *usual), *every):
                scale, shift = scale.float(), shift.float()
                if identifier != "none":
                    first = norm.scanner_gamma.weight[0], norm.scanner_beta.weight[0]
                    differences = max(differences, _largest(scale - first[0]), _largest(shift - first[1]))
                moments = [float(one) for one in (scale.mean(), _spread(scale), shift.mean(), _spread(shift))]
                off = [_root(scale - usual[0]), _root(shift - usual[1])]
                rows.append((layer, identifier, len(scale), *moments, *off))
    said = []
    if defaults == 0:
        said.append("without an identifier every scale is 1 and every shift 0: these were never trained")
    if differences == 0:
        said.append("all identifiers have the same scale and shift: choosing one changes nothing")
    passport: dict[str, Any] = {
        "name": "identifier norms",
        "kind": _KIND,
        "operator": "scale and shift of each norm by identifier: mean and standard deviation over its channels, and "
        "the root mean square of the difference from those without an identifier",
        "unit": "none",
        "neutral": "scale 1, shift 0",
        "identifiable": "yes, up to what the layers around undo; what an identifier stands for is the user's choice "
        "(in the released training it was a salted hash of the file name, which means nothing)",
        "in words": "; ".join(said),
    }
    columns = (
        "layer",
        "identifier",
        "channels",
        "mean scale",
        "scale: spread over channels",
        "mean shift",
        "shift: spread over channels",
        "scale off none",
        "shift off none",
    )
    return Table("identifier norms", columns, tuple(rows), None, (), passport)


def _candidates(adaptive: dict[str, SelfAdaptiveConv2d]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    trained = False
    with torch.no_grad():
        for layer, module in adaptive.items():
            trained = trained or any(bool(tensor.any()) for tensor in module.gate.get_submodule("2").parameters())
            sizes = [float(weight.float().square().sum().sqrt()) for weight in module.weights]
            for size, weight, norm in zip(module.candidates, module.weights, sizes, strict=True):
                share = norm / sum(sizes) if sum(sizes) else None
                rows.append((layer, size, norm, share, _radius(weight.float())))
    passport: dict[str, Any] = {
        "name": "candidate kernels",
        "kind": _KIND,
        "operator": "size (root of the summed squares) of each candidate kernel, its share of the sizes of all "
        "candidates of the module, and the root mean square distance of its energy from the centre tap",
        "unit": "weight (arbitrary scale); share; taps",
        "identifiable": "within a module; a large kernel weight of a candidate of small size acts little",
        "in words": "" if trained else "every gate is at its start: all candidates weigh the same in every slice",
    }
    columns = ("module", "candidate (taps)", "size", "share of the sizes", "radius of the energy (taps)")
    return Table("candidate kernels", columns, tuple(rows), None, (), passport)


def _radius(weight: Tensor) -> float | None:
    """Root mean square distance of the energy of (channels, fan-in, K, K) from the centre tap."""
    along = torch.arange(weight.shape[-1], device=weight.device) - weight.shape[-1] // 2
    energy = weight.square().sum((0, 1))
    total = float(energy.sum())
    return float((energy * (along[:, None] ** 2 + along**2)).sum() / total) ** 0.5 if total else None


def _spread(values: Tensor) -> float:
    return float(values.std(correction=0))


def _largest(values: Tensor) -> float:
    return float(values.abs().max())


def _root(values: Tensor) -> float:
    return float(values.square().mean().sqrt())
