"""Two optimisers as one: Muon for what multiplies channels with channels, AdamW for everything else.

Muon makes the update of a matrix orthogonal (Jordan et al. 2024; scaled as AdamW's, Liu et al., arXiv 2502.16982), so
that directions the gradient seldom shows learn too. A convolution over channels is such a matrix: out × (in · taps), of
a transposed one in × (out · taps). Depth-wise kernels, the spatial gates over two maps, biases and scales are none, and
learn with AdamW (see `gates` for their step sizes).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from LKSegmentLib.errors import InputError
from LKSegmentLib.networks.blocks.dynamic_large_kernel import DynamicLargeKernel

from .gates import parameter_groups


class Optimisers:
    """Both optimisers over the parameters of ``network``, which stays on the device it is on.

    Args:
        network: what learns.
        learning_rate: at the beginning; each group of ``param_groups`` names its "share" of it.
        weight_decay: of both.

    Raises:
        InputError: this PyTorch has no Muon.
    """

    def __init__(self, network: nn.Module, learning_rate: float, weight_decay: float) -> None:
        if not hasattr(torch.optim, "Muon"):
            raise InputError(f"Training needs PyTorch 2.9 or newer; this is {torch.__version__}. Update PyTorch.")
        self._weights = _channel_mixing(network)
        # Muon takes matrices: views of the weights, in the same memory.
        self._matrices = [nn.Parameter(weight.data.flatten(1)) for weight in self._weights]
        mixing = set(self._weights)
        groups = parameter_groups(network)
        for group in groups:
            group["params"] = [parameter for parameter in group["params"] if parameter not in mixing]
        self._adamw = torch.optim.AdamW(groups, lr=learning_rate, weight_decay=weight_decay)
        self._muon = torch.optim.Muon(
            self._matrices, lr=learning_rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
        )
        for group in self._muon.param_groups:
            group["share"] = 1.0

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Of both, each with its "lr" and its "share" of the learning rate."""
        return [*self._adamw.param_groups, *self._muon.param_groups]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self._adamw.zero_grad(set_to_none=True)
        for weight in self._weights:
            weight.grad = None

    def step(self) -> None:
        """Move every parameter by its gradient."""
        self._adamw.step()
        for matrix, weight in zip(self._matrices, self._weights, strict=True):
            matrix.grad = None if weight.grad is None else weight.grad.flatten(1)
        self._muon.step()

    def state_dict(self) -> dict[str, Any]:
        """What both need to go on."""
        return {"adamw": self._adamw.state_dict(), "muon": self._muon.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on as saved.

        Raises:
            KeyError, ValueError: the state of another network or of another optimiser.
        """
        self._adamw.load_state_dict(state["adamw"])
        self._muon.load_state_dict(state["muon"])


def _channel_mixing(network: nn.Module) -> list[nn.Parameter]:
    """Weights of the convolutions over all channels, gates over two maps left out."""
    gates = {module.spatial_se[0] for module in network.modules() if isinstance(module, DynamicLargeKernel)}
    mixing = {
        module.weight
        for module in network.modules()
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d) and module.groups == 1 and module not in gates
    }
    return [parameter for parameter in network.parameters() if parameter in mixing]
