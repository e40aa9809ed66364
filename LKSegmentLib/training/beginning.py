"""A training that begins with the weights of an earlier click model instead of random ones."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from LKSegmentLib.errors import InputError
from LKSegmentLib.networks.lk_click import NEAR, LKClick

_OF_INPUTS = {"down.0.0.weight": 1, "exit_voxels.weight": NEAR**3}  # columns for every input channel
_ADDED = re.compile(r"judgement\.|(?:encoder\.\d+|decoder_quarter)\.\d+\.")  # parts that an earlier model may lack
_HARDLY_HEARD = 0.01  # layer scale with which a block begins that the earlier model did not have


def begin_with(network: LKClick, weights: Mapping[str, Tensor]) -> None:
    """Load the weights of an earlier model.

    Input channels that it did not know begin unheard, with weights of zero; blocks that it did not have begin hardly
    heard, so that the network answers at first nearly as the earlier one did.

    Raises:
        InputError: the weights belong to a network of another design.
    """
    state = network.state_dict()
    fitting: dict[str, Tensor] = {}
    for name, value in weights.items():
        value = value.float()
        if name in _OF_INPUTS and name in state:
            missing = network.in_channels * _OF_INPUTS[name] - value.shape[1]
            if missing > 0:
                value = torch.cat((value, value.new_zeros(value.shape[0], missing, *value.shape[2:])), dim=1)
        fitting[name] = value
    for name, value in state.items():
        part = _ADDED.match(name)
        if part and not any(known.startswith(part[0]) for known in weights):
            fitting[name] = _begun(name, value)
    try:
        network.load_state_dict(fitting)
    except RuntimeError as error:
        raise InputError(
            "The training cannot begin with this model: its network has another design than the one to be trained."
        ) from error


def _begun(name: str, value: Tensor) -> Tensor:
    """A weight of an added part: large-kernel blocks have a layer scale, pairs of convolutions end with the second."""
    if name.endswith(".layer_scale"):
        return torch.full_like(value, _HARDLY_HEARD)
    return torch.zeros_like(value) if ".conv2." in name else value
