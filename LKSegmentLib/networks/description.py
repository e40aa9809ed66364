"""`describe(name)`: what is known about a network, with exact counts; `table()`: a row for each."""

from __future__ import annotations

from dataclasses import asdict
from functools import cache
from typing import Any

from LKSegmentLib.networks import registry

COUNTING = (
    "Multiply-accumulates of convolutions and matrix products, batch 1; transposed convolutions on their input grid; "
    "norms, activations, biases and element-wise products not counted. One multiply-accumulate is two FLOP."
)
RECEPTIVE = (
    "Receptive field along one axis, in input voxels; gates, norms and attention over the whole map, which reach "
    "everywhere, are left out."
)


def describe(name: str) -> dict[str, Any]:
    """Everything known about a network.

    Returns:
        A dictionary with the fields of `facts.NetworkFacts` and: `name`; `options` as `registry.options`
        gives them; `params` and `macs`, exact, in the configuration and at the input size of `reference` and
        `reference_size`; `counting`, the convention; `receptive_fields`, a list of {"stage", "stride",
        "voxels"}, empty for networks taken from a library; `receptive_note`, how to read them.

    Raises:
        InputError: no such network, or a package it needs is not installed.
    """
    params, macs = _counts(name)
    facts = registry.facts(name)
    return {
        "name": name,
        **asdict(facts),
        "options": registry.options(name),
        "params": params,
        "macs": macs,
        "counting": COUNTING,
        "receptive_fields": _receptive_fields(name),
        "receptive_note": facts.receptive_note or RECEPTIVE,
    }


def table() -> list[dict[str, Any]]:
    """One row for each network, in the order of `names()`: the rows of `lksegment networks`. Needs no MONAI.

    Each has name, title, status, params, macs, in_channels, out_channels, size (k, j, i), size_multiple,
    summary.
    """
    rows = []
    for name in registry.names():
        facts = registry.facts(name)
        params, macs = _counts(name)
        rows.append(
            {
                "name": name,
                "title": facts.title,
                "status": facts.status,
                "params": params,
                "macs": macs,
                "in_channels": facts.reference["in_channels"],
                "out_channels": facts.reference["out_channels"],
                "size": facts.reference_size,
                "size_multiple": facts.size_multiple,
                "summary": facts.summary,
            }
        )
    return rows


def measure(name: str) -> tuple[int, int]:
    """Count parameters and multiply-accumulates of the reference configuration anew.

    Raises:
        InputError: no such network, or a package it needs is not installed.
    """
    from LKSegmentLib.networks.counting import count_macs, count_parameters

    facts = registry.facts(name)
    network = _on_meta(name)
    return count_parameters(network), count_macs(
        network, facts.reference["in_channels"], facts.reference_size
    )


@cache
def _counts(name: str) -> tuple[int, int]:
    facts = registry.facts(name)
    if facts.parameters is None or facts.macs is None:
        return measure(name)
    return facts.parameters, facts.macs


def _receptive_fields(name: str) -> list[dict[str, Any]]:
    if registry.facts(name).status == "baseline":
        return []
    network = _on_meta(name)
    tell = getattr(network, "receptive_fields", None) or network.slice_receptive_fields
    return [asdict(field) for field in tell()]


def _on_meta(name: str) -> Any:
    """The network in its reference configuration, without memory for its tensors."""
    import torch

    facts = registry.facts(name)
    with torch.device("meta"):
        return registry.create(name, **facts.reference)
