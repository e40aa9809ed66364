"""Networks by name: `names()`, `create(...)`, `describe(...)`, `load_official(...)`.

Importing this package does not import torch; the functions that need it do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from LKSegmentLib.networks.registry import create, facts, names, options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from LKSegmentLib.networks.preparation import Preparation

__all__ = [
    "create",
    "describe",
    "export_official",
    "facts",
    "load_official",
    "names",
    "options",
    "prepare_for_inference",
    "table",
]


def describe(name: str) -> dict[str, Any]:
    """Everything `lksegment networks` says about a network; see `description.describe`."""
    from LKSegmentLib.networks import description

    return description.describe(name)


def table() -> list[dict[str, Any]]:
    """A row for each network, as `lksegment networks` lists them; see `description.table`."""
    from LKSegmentLib.networks import description

    return description.table()


def load_official(network: nn.Module, state_dict: Mapping[str, Any]) -> nn.Module:
    """Load weights in the authors' published key layout, strictly; see `official_keys.load_official`."""
    from LKSegmentLib.networks import official_keys

    return official_keys.load_official(network, state_dict)


def export_official(network: nn.Module) -> dict[str, Tensor]:
    """The network's tensors in the authors' published key layout; see `official_keys.export_official`."""
    from LKSegmentLib.networks import official_keys

    return official_keys.export_official(network)


def prepare_for_inference(network: nn.Module, **how: Any) -> Preparation:
    """Make a network fast for inference, reversibly; see `preparation.prepare_for_inference`."""
    from LKSegmentLib.networks import preparation

    return preparation.prepare_for_inference(network, **how)
