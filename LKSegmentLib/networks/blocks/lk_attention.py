"""The large-kernel attention module of Li et al., "LK-attention U-Net" (Cognitive Computation 2023/24), Eq. 6-7.

A K³ kernel is decomposed into a dilated depth-wise, a dense depth-wise and a point-wise convolution:

    A   = sigmoid(PW(DW(DWD(f))))          f = lReLU(GN(upsampled map)), computed by the caller
    Out = A · f + f

Published: the equation, the decomposition with (K, d), the parameter formula C(m³ + k³ + C + 3) with m = 2d - 1 and
k = K / d. The pair reaches K + d - 1 voxels per axis (23 for K = 21, d = 3), not K.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from LKSegmentLib.errors import InputError
from LKSegmentLib.networks.constraints import one_of, whole
from LKSegmentLib.operators import DepthwiseConv3d, PointwiseConv3d

Order = Literal["dwd_dw", "dw_dwd"]


class LKAttention(nn.Module):
    """Large-kernel attention of ``channels`` channels.

    Args:
        channels: C.
        kernel: nominal kernel K in voxels; a multiple of ``dilation``. ``K / dilation`` is the dilated
            kernel's edge and ``2 · dilation - 1`` the dense kernel's.
        dilation: d.
        order: ``"dwd_dw"`` is the paper's equation (dilated first), ``"dw_dwd"`` that of VAN (Guo et al. 2022).
            Weights load either way; results differ near the border, where zero padding truncates differently.

    Example::

        features = torch.randn(1, 16, 10, 12, 8)    # (batch, channels, k, j, i)
        attention = LKAttention(16, kernel=21, dilation=3)
        out = attention(features)
        assert out.shape == attention.attention(features).shape == features.shape

    Raises:
        InputError: K is not an odd multiple of d, or the order is unknown.
    """

    def __init__(self, channels: int, kernel: int = 21, dilation: int = 3, order: Order = "dwd_dw") -> None:
        super().__init__()
        whole("channels", channels), whole("kernel", kernel), whole("dilation", dilation)
        if kernel % dilation or (kernel // dilation) % 2 == 0:
            raise InputError(
                f"LKAttention needs a kernel that is an odd multiple of the dilation (21 and 3, 6 and 2, …); "
                f"got kernel {kernel} and dilation {dilation}."
            )
        self.order: str = one_of("order", order, Order)
        self.dwd = DepthwiseConv3d(channels, kernel // dilation, dilation)
        self.dw = DepthwiseConv3d(channels, 2 * dilation - 1)
        self.pw = PointwiseConv3d(channels, channels)
        self.gate = nn.Sigmoid()  # a module, so that inspection can read the attention map from it

    def attention(self, features: Tensor) -> Tensor:
        """The attention map A in (0, 1): ``(batch, channels, k, j, i)``, one value per channel and voxel."""
        first, second = (self.dwd, self.dw) if self.order == "dwd_dw" else (self.dw, self.dwd)
        gate: Tensor = self.gate(self.pw(second(first(features))))
        return gate

    def forward(self, features: Tensor) -> Tensor:
        """``(1 + A) · f``: the gain lies between 1 and 2."""
        return self.attention(features) * features + features
