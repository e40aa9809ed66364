"""Dynamic feature fusion (DFF) of D-Net (arXiv 2403.10674; journal version as released in 2025).

Tensor names are those of the released network.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from LKSegmentLib.errors import InputError
from LKSegmentLib.networks.constraints import whole
from LKSegmentLib.operators import PointwiseConv3d


class DynamicFeatureFusion(nn.Module):
    """Fuse two maps of d channels into one: 6 d² + 2 d + 2 parameters.

        F    = concat(x, k)                                    x: upsampled decoder map, k: encoder skip
        F_ch = Conv1_{2d→d}( sigmoid(Conv1_{2d→2d}(GAP(F))) · F )
        w_sp = sigmoid( Conv1_{d→1}(x) + Conv1_{d→1}(k) )
        out  = w_sp · F_ch

    The paper writes F with the encoder first; the released weights have the decoder first, which is followed
    here. The channel gate pools over the whole map, so the result depends on the window.

    Args:
        channels: d, of each of the two maps.

    Example::

        upsampled, skip = torch.randn(2, 1, 32, 10, 12, 8)  # each (batch, channels, k, j, i)
        fusion = DynamicFeatureFusion(32)
        fused = fusion(upsampled, skip)
        assert fused.shape == skip.shape

    Raises:
        InputError: a value that is not allowed.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        whole("channels", channels)
        self.conv_atten = nn.Sequential(PointwiseConv3d(2 * channels, 2 * channels, bias=False), nn.Sigmoid())
        self.conv_redu = PointwiseConv3d(2 * channels, channels, bias=False)
        self.conv1 = PointwiseConv3d(channels, 1)
        self.conv2 = PointwiseConv3d(channels, 1)
        self.nonlin = nn.Sigmoid()

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Two maps (batch, channels, k, j, i), the upsampled one first → one of the same shape.

        Raises:
            InputError: the maps differ in shape.
        """
        if x.shape != skip.shape:
            raise InputError(
                f"Feature fusion needs two maps of one shape; got {[*x.shape]} and {[*skip.shape]}."
            )
        both = torch.cat((x, skip), dim=1)
        channel_gate = self.conv_atten(both.mean((2, 3, 4), keepdim=True))
        fused = self.conv_redu(both * channel_gate)
        spatial_gate: Tensor = self.nonlin(self.conv1(x) + self.conv2(skip))
        return fused * spatial_gate
