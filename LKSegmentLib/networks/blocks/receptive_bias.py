"""Learnable receptive-bias modulation (LRBM) of large depth-wise kernels: Rep3D, arXiv 2505.19603.

A mask M over the taps of a kernel, large in the middle and small at the rim, multiplies the kernel's weights,
so that central taps learn faster. Published: the prior and the idea of a generator that refines it. The
published code of the generator cannot run (its second convolution enlarges the map), and could not learn if
it ran: its normalisations act on one element, and the masked weight is stored back at every step. The
generator below is therefore *ours*; it keeps the published tensor names and shapes.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from LKSegmentLib.networks.constraints import one_of, switch, whole
from LKSegmentLib.operators import DepthwiseConv3d, depthwise_conv3d

from .layer_norm import ChannelLayerNorm

LRBM = Literal["learned", "fixed", "none", "per_channel", "grad"]


def tap_distances(
    kernel_size: int, device: torch.device | None = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Distance of each tap of a cubic kernel from its centre tap, in taps: (K, K, K)."""
    axis = torch.arange(kernel_size, dtype=dtype, device=device) - kernel_size // 2
    return (axis.view(-1, 1, 1) ** 2 + axis.view(1, -1, 1) ** 2 + axis.view(1, 1, -1) ** 2).sqrt()


def receptive_prior(distances: Tensor, beta: Tensor | float = 1.0) -> Tensor:
    """P = 1 / (1 + d^beta): 1 at the centre tap, 1/2 at its neighbours, 0.055 at the corners of a 21³ kernel.

    Args:
        distances: of the taps, (K, K, K).
        beta: the exponent; 1 in the published code.
    """
    off_centre = distances > 0
    # d^beta through the logarithm has no infinite slope at the centre, where d = 0.
    powers = torch.exp(beta * distances.clamp(min=1e-6).log())
    return 1 / (1 + torch.where(off_centre, powers, torch.zeros_like(powers)))


class TapNorm(nn.Module):
    """Normalise a one-channel map over all its taps (biased variance, eps 1e-6), then scale and shift by scalars."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """(1, 1, K, K, K) → the same shape."""
        return functional.layer_norm(x, x.shape[1:], eps=1e-6) * self.weight + self.bias


class ReceptiveBiasConv3d(nn.Module):
    """A depth-wise K³ convolution (no bias) whose kernel is W · M in training and W alone once baked.

        u1 = Conv7(P),  s = sigmoid(N1(u1)),  u2 = Conv7(s),  M = P + N2(u2)

    with one mask for all channels; N1 and N2 normalise over the K³ taps and have a scalar weight and bias
    each. N2 starts at zero, so training starts at the fixed prior exactly. (The biases of both convolutions
    are published tensors without effect: the normalisations cancel them.)

    Args:
        channels: n.
        kernel_size: K, odd.
        lrbm: `"learned"`: as above. `"fixed"`: M = P. `"none"`: M = 1. `"per_channel"` (the paper's
            "depth-wise convolutions"): generator of n channels, normalised over the channels of each tap; one
            mask a channel. `"grad"`: W acts as it is and its gradient is multiplied by P, as a gradient-scaling
            optimiser would (multiplying W by M makes the effective step M², not M).
        deploy: take the stored kernel as it is (baked, or the authors' deployed weights).
        learn_beta: make the prior's exponent a parameter (ours; the published code fixes it at 1).

    Example::

        features = torch.randn(1, 8, 10, 12, 8)     # (batch, channels, k, j, i)
        convolution = ReceptiveBiasConv3d(8, kernel_size=21)
        before = convolution(features)
        convolution.bake()                          # a plain convolution from here on
        assert torch.equal(convolution(features), before)

    Raises:
        InputError: a value that is not allowed.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int = 21,
        lrbm: LRBM = "learned",
        deploy: bool = False,
        learn_beta: bool = False,
    ) -> None:
        super().__init__()
        self.lrbm: str = one_of("lrbm", lrbm, LRBM)
        self.deploy = switch("deploy", deploy)
        edge = whole("kernel_size", kernel_size, odd=True)
        self.dwconv = DepthwiseConv3d(whole("channels", channels), edge, bias=False)
        if switch("learn_beta", learn_beta):
            self.beta: Tensor | float = nn.Parameter(torch.ones(()))
        else:
            self.beta = 1.0
        if lrbm in ("learned", "per_channel"):
            masks = 1 if lrbm == "learned" else channels
            self.prior_conv = nn.Conv3d(masks, masks, 7, padding=3, groups=masks)
            self.norm_w: nn.Module = TapNorm() if lrbm == "learned" else ChannelLayerNorm(channels)
            self.prior_conv2 = nn.Conv3d(masks, masks, 7, padding=3, groups=masks)
            self.norm_w2: nn.Module = TapNorm() if lrbm == "learned" else ChannelLayerNorm(channels)
            for parameter in self.norm_w2.parameters():
                nn.init.zeros_(parameter)

    def prior(self) -> Tensor:
        """P: (K, K, K)."""
        weight = self.dwconv.weight
        # Half precision is too coarse to compute in; double precision keeps its digits.
        dtype = torch.promote_types(weight.dtype, torch.float32)
        distances = tap_distances(self.dwconv.kernel_size[0], weight.device, dtype)
        return receptive_prior(distances, self.beta).to(weight.dtype)

    def mask(self) -> Tensor:
        """M: (1 or channels, 1, K, K, K), to be multiplied with the kernel (`"grad"`: with its gradient)."""
        prior = self.prior()[None, None]
        if self.lrbm == "none":
            return torch.ones_like(prior)
        if self.lrbm in ("fixed", "grad"):
            return prior
        shared = prior.expand(-1, self.prior_conv.in_channels, -1, -1, -1)
        squashed = torch.sigmoid(self.norm_w(self.prior_conv(shared)))
        refined = self.norm_w2(self.prior_conv2(squashed))
        return prior + refined.transpose(0, 1)

    def kernel(self) -> Tensor:
        """The weights that act: (channels, 1, K, K, K)."""
        weight = self.dwconv.weight
        if self.deploy:
            return weight
        if self.lrbm == "grad":
            scaled = weight * self.mask().detach()
            return weight.detach() + (scaled - scaled.detach())  # the value of W, the slope of W · P
        return weight * self.mask()

    @torch.no_grad()
    def bake(self) -> None:
        """Write W · M into W and deploy; the caller makes sure that it was not baked before."""
        self.dwconv.weight.copy_(self.kernel())
        self.deploy = True

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, k, j, i) → the same shape."""
        return depthwise_conv3d(x, self.kernel())


class ReceptiveBiasBlock(ReceptiveBiasConv3d):
    """The Rep3D block: GELU(BN(depth-wise convolution)); no residual, no mixing of channels.

    Takes the arguments of `ReceptiveBiasConv3d`.
    """

    def __init__(self, channels: int, *arguments: Any, **named: Any) -> None:
        super().__init__(channels, *arguments, **named)
        self.norm = nn.BatchNorm3d(channels)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, k, j, i) → the same shape."""
        out: Tensor = self.act(self.norm(super().forward(x)))
        return out
