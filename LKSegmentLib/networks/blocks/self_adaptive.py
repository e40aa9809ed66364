"""The self-adaptive convolution module (SACM) of MSA2-Net (Science Progress 109(2), 2026): a *reconstruction*.

Published in words: soft attention over candidate kernels, conditioned on statistics of the input map by a
two-layer network; one aggregated kernel for each input. Chosen here, because no formula could be read: which
statistics (mean and standard deviation of each channel), the candidate sizes, the width of the network, and
that the kernels are depth-wise with a shared point-wise convolution (the decoder is called lightweight).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from LKSegmentLib.errors import InputError
from LKSegmentLib.networks.constraints import switch, whole, whole_list


class SelfAdaptiveConv2d(nn.Module):
    """Convolve each image with its own mixture of kernels.

        φ = [mean(x_c); std(x_c)] over the image          2 C numbers
        α = softmax(W2 ReLU(W1 φ + b1) + b2)              N shares, h = max(C / 4, 16) numbers in between
        y = Conv1((Σ α_n W_n) * x + Σ α_n b_n)            kernels padded to the largest about their centres

    Training starts with equal shares (W2 = 0).

    Args:
        channels: C.
        candidates: odd kernel sizes.
        dense: full C → C kernels instead of depth-wise ones and the point-wise convolution.

    Example::

        features = torch.randn(2, 16, 12, 8)        # (batch, channels, j, i)
        convolution = SelfAdaptiveConv2d(16, candidates=(3, 5, 7))
        out = convolution(features)
        assert out.shape == features.shape
        shares = convolution.shares(features)       # how much of 3², 5² and 7²; equal before training
        assert shares.shape == (2, 3)

    Raises:
        InputError: no candidate, an even size, or another value that is not allowed.
    """

    def __init__(self, channels: int, candidates: Sequence[int] = (3, 5, 7), dense: bool = False) -> None:
        super().__init__()
        whole("channels", channels)
        self.candidates = whole_list("candidates", candidates)
        if not self.candidates:
            raise InputError("candidates=() is not allowed. Give at least one odd kernel size.")
        for size in self.candidates:
            whole("candidates", size, odd=True)
        self.dense = switch("dense", dense)
        fan_in = channels if dense else 1
        self.weights = nn.ParameterList(torch.empty(channels, fan_in, size, size) for size in self.candidates)
        self.biases = nn.Parameter(torch.zeros(len(self.candidates), channels))
        hidden = max(channels // 4, 16)
        self.gate = nn.Sequential(
            nn.Linear(2 * channels, hidden),
            nn.ReLU(),
            nn.Linear(hidden, len(self.candidates)),
            nn.Softmax(dim=1),
        )
        self.pointwise = nn.Identity() if dense else nn.Conv2d(channels, channels, 1)
        for weight in self.weights:
            nn.init.kaiming_uniform_(weight, a=5**0.5)
        for parameter in self.gate[2].parameters():
            nn.init.zeros_(parameter)

    def shares(self, x: Tensor) -> Tensor:
        """α of each image: (batch, channels, j, i) → (batch, candidates); rows sum to one."""
        variance, mean = torch.var_mean(x, dim=(2, 3), correction=0)
        # The small number keeps the slope of the root finite on constant maps, such as slices of air.
        shares: Tensor = self.gate(torch.cat((mean, (variance + 1e-6).sqrt()), dim=1))
        return shares

    def kernels(self, shares: Tensor) -> tuple[Tensor, Tensor]:
        """Aggregated kernels (batch, channels, fan-in, K, K) and biases (batch, channels), K the largest size."""
        largest = max(self.candidates)
        padded = [
            functional.pad(weight, [(largest - size) // 2] * 4)
            for weight, size in zip(self.weights, self.candidates, strict=True)
        ]
        return torch.einsum("bn,ncfji->bcfji", shares, torch.stack(padded)), shares @ self.biases

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, j, i) → the same shape."""
        kernels, biases = self.kernels(self.shares(x))
        batch, channels = x.shape[:2]
        # The images of the batch become groups of one convolution, each with its own kernels.
        mixed = functional.conv2d(
            x.reshape(1, batch * channels, *x.shape[2:]),
            kernels.flatten(0, 1),
            biases.flatten(),
            padding=max(self.candidates) // 2,
            groups=batch if self.dense else batch * channels,
        )
        out: Tensor = self.pointwise(mixed.view_as(x))
        return out
