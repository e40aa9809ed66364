"""`describe(name)`: what is known about a network, with exact counts; `table()`: a row for each."""

from __future__ import annotations

from dataclasses import asdict
from functools import cache
from typing import Any

import torch

from LKSegmentLib.networks import registry
from LKSegmentLib.networks.counting import CONVENTION, count_macs, count_parameters
from LKSegmentLib.networks.receptive_field import StageField


def describe(name: str) -> dict[str, Any]:
    """Everything known about a network.

    Returns:
        A dictionary with the fields of `facts.NetworkFacts` and: `name`; `options` as `registry.options`
        gives them; `params` and `macs`, exact, in the configuration and at the input size of `reference` and
        `reference_size`; `counting`, the convention; `size_multiple` and `minimum_size` of the input in that
        configuration; `receptive_fields`, a list of {"stage", "stride", "voxels"}, empty where the network
        does not tell.

    Raises:
        InputError: no such network.
    """
    facts = registry.facts(name)
    params, macs, multiple, minimum, fields = _measured(name)
    return {
        "name": name,
        **asdict(facts),
        "options": registry.options(name),
        "params": params,
        "macs": macs,
        "counting": CONVENTION,
        "size_multiple": multiple,
        "minimum_size": minimum,
        "receptive_fields": [asdict(field) for field in fields],
    }


def table() -> list[dict[str, Any]]:
    """One row for each network, in the order of `names()`: the rows of `lksegment networks`.

    Each has name, title, status, params, macs, in_channels, out_channels, size (k, j, i), size_multiple,
    summary.
    """
    rows = []
    for name in registry.names():
        facts = registry.facts(name)
        params, macs, multiple, _, _ = _measured(name)
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
                "size_multiple": multiple,
                "summary": facts.summary,
            }
        )
    return rows


@cache
def _measured(name: str) -> tuple[int, int, int, int, tuple[StageField, ...]]:
    facts = registry.facts(name)
    with torch.device("meta"):
        network: Any = registry.create(name, **facts.reference)
    macs = count_macs(network, facts.reference["in_channels"], facts.reference_size)
    fields = tuple(network.receptive_fields()) if hasattr(network, "receptive_fields") else ()
    return count_parameters(network), macs, network.size_multiple, network.minimum_size, fields
