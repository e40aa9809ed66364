"""Weights in the key layout the authors published: in, strictly, and out again, bit for bit.

Our networks keep the published tensor names where there are any, so most need no translation. Where one does,
its class has `official_to_native` and `native_to_official`. Networks without published weights use their own
layout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from LKSegmentLib.errors import InputError

_CONTAINERS = ("network_weights", "state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")


def unwrap(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The bare tensors of a checkpoint, whatever it is wrapped in.

    Takes off the containers of nnU-Net v2 (`network_weights`) and of common trainers (`state_dict`, `model`),
    and the prefixes that `DataParallel` (`module.`) and `torch.compile` (`_orig_mod.`) put before every key,
    in any order.

    Raises:
        InputError: what is left is not a mapping of names to tensors.
    """
    found: Any = checkpoint
    while isinstance(found, Mapping) and (held := [name for name in _CONTAINERS if _holds(found, name)]):
        found = found[held[0]]
    if not isinstance(found, Mapping) or not found:
        raise InputError(
            "The checkpoint holds no state dict: a mapping of tensor names to tensors is needed."
        )
    tensors: dict[str, Tensor] = {}
    for key, value in found.items():
        if isinstance(value, (np.ndarray, np.generic)):
            value = torch.from_numpy(np.array(value))
        if not isinstance(value, Tensor) or not isinstance(key, str):
            raise InputError(f"The checkpoint's entry {key!r} is a {type(value).__name__}, not a tensor.")
        tensors[_bare(key)] = value
    if len(tensors) != len(found):
        raise InputError(
            "Two entries of the checkpoint have the same name once their prefixes are taken off."
        )
    return tensors


def load_official(network: nn.Module, state_dict: Mapping[str, Any]) -> nn.Module:
    """Load weights in the authors' published key layout into `network`; all of them, or none.

    Args:
        network: made by `networks.create` with the constructor values that the weights were trained with.
        state_dict: the authors' tensors, also inside the wrappers that `unwrap` knows.

    Returns:
        The same network.

    Raises:
        InputError: a tensor is missing, left over, or of another shape; the sentence names the first few.
    """
    tensors = unwrap(state_dict)
    translate = getattr(network, "official_to_native", None)
    if translate is not None:
        tensors = translate(tensors)
    wanted = network.state_dict()
    missing = [key for key in wanted if key not in tensors]
    surplus = [key for key in tensors if key not in wanted]
    reshaped = [
        f"{key} ({_shape(tensors[key])} instead of {_shape(wanted[key])})"
        for key in wanted
        if key in tensors and tensors[key].shape != wanted[key].shape
    ]
    faults = [
        f"{title}: {_first(found)}"
        for title, found in (
            ("missing", missing),
            ("not in the network", surplus),
            ("other shapes", reshaped),
        )
        if found
    ]
    if faults:
        raise InputError(
            f"These weights do not fit {type(network).__name__}: {'; '.join(faults)}. "
            "Check the network's name and its constructor options."
        )
    network.load_state_dict(tensors, strict=True)
    return network


def export_official(network: nn.Module) -> dict[str, Tensor]:
    """Copies of the network's tensors, on the CPU, in the authors' published key layout and order."""
    tensors = {key: tensor.detach().cpu().clone() for key, tensor in network.state_dict().items()}
    translate = getattr(network, "native_to_official", None)
    if translate is None:
        return tensors
    translated: dict[str, Tensor] = translate(tensors)
    return translated


def _holds(checkpoint: Mapping[str, Any], name: str) -> bool:
    return isinstance(checkpoint.get(name), Mapping)


def _bare(key: str) -> str:
    while key.startswith(_PREFIXES):
        key = key.split(".", 1)[1]
    return key


def _shape(tensor: Tensor) -> str:
    return "×".join(str(size) for size in tensor.shape) or "scalar"


def _first(names: Sequence[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
