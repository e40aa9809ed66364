"""Skip fusions of DALight-3D (arXiv 2605.04518): SSFB and its plain stand-in.

Tensor names are those of the released network.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from LKSegmentLib.errors import InputError
from LKSegmentLib.networks.constraints import whole
from LKSegmentLib.operators import PointwiseConv3d

from .cross_slice import in_single

_GROUPS = 8


class SimpleSkip(nn.Module):
    """GELU(GN(Conv3(concat(encoder, decoder)))), encoder first.

    Args:
        channels: of each of the two maps; a multiple of 8.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = _fused(channels)

    def forward(self, encoder: Tensor, decoder: Tensor) -> Tensor:
        """Two maps (batch, channels, k, j, i) → one of the same shape."""
        fused: Tensor = self.conv(torch.cat((encoder, decoder), dim=1))
        return fused


class LowRankAttention(nn.Module):
    """Attention of the decoder map to the encoder map through R summaries; linear in the number of voxels.

        q = softmax over all voxels of (Conv1_{c→R}(d) / √R)       each of R maps sums to 1 over space
        k = softmax over R of (Conv1_{c→R}(e) / √R)                each voxel's R values sum to 1
        ctx[r] = Σ_n k[r, n] v[n],   v = Conv1(e);    out = Conv1(Σ_r q[r] ctx[r])

    The softmax axes are the reverse of ordinary linear attention, as released. Never computed in half
    precision: the sums of ctx grow with the number of voxels and would overflow half precision. (The bias of
    query_proj is a published tensor without effect: it adds the same to everything its softmax compares.)

    Args:
        channels: c.
        rank: R.
    """

    def __init__(self, channels: int, rank: int) -> None:
        super().__init__()
        self.query_proj = PointwiseConv3d(channels, rank)
        self.key_proj = PointwiseConv3d(channels, rank)
        self.value_proj = PointwiseConv3d(channels, channels)
        self.out_proj = PointwiseConv3d(channels, channels)

    def queries(self, decoder: Tensor) -> Tensor:
        """(batch, channels, k, j, i) → (batch, rank, voxels); multiply by the voxels for display."""
        query = self.query_proj(decoder).flatten(2)
        return (in_single(query) / query.shape[1] ** 0.5).softmax(dim=2)

    def keys(self, encoder: Tensor) -> Tensor:
        """(batch, channels, k, j, i) → (batch, rank, voxels): a soft partition of the encoder map."""
        key = self.key_proj(encoder).flatten(2)
        return (in_single(key) / key.shape[1] ** 0.5).softmax(dim=1)

    def forward(self, encoder: Tensor, decoder: Tensor) -> Tensor:
        """Two maps (batch, channels, k, j, i) → one of the same shape."""
        query, key = self.queries(decoder), self.keys(encoder)
        value = self.value_proj(encoder).flatten(2)
        with _single_precision(encoder):
            context = torch.bmm(key, in_single(value).transpose(1, 2))
            attended = torch.bmm(context.transpose(1, 2), query)
        out: Tensor = self.out_proj(attended.to(value.dtype).unflatten(2, encoder.shape[2:]))
        return out


class ChannelGate(nn.Module):
    """A gate for each encoder channel from the means of both maps: σ(FC(GELU(FC([GAP(d); GAP(e)]))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // 4, 8)
        self.fc = nn.Sequential(
            nn.Linear(2 * channels, hidden), nn.GELU(), nn.Linear(hidden, channels), nn.Sigmoid()
        )

    def forward(self, encoder: Tensor, decoder: Tensor) -> Tensor:
        """Two maps (batch, channels, k, j, i) → (batch, channels), each in (0, 1)."""
        gate: Tensor = self.fc(torch.cat((decoder.mean((2, 3, 4)), encoder.mean((2, 3, 4))), dim=1))
        return gate


class SkipFusion(nn.Module):
    """SSFB: fuse encoder map e and upsampled decoder map d by low-rank attention and a channel gate.

        mixed = a · attention(e, d) + (1 - a) · e · gate(e, d),   a = σ(alpha), alpha starts at 0.5
        out = GELU(GN(Conv3(concat(d, mixed))))

    Args:
        channels: of each of the two maps; a multiple of 8.
        rank: of the attention.

    Example::

        skip, upsampled = torch.randn(2, 1, 16, 10, 12, 8)  # each (batch, channels, k, j, i)
        fusion = SkipFusion(16, rank=8)
        fused = fusion(skip, upsampled)             # the encoder's map first
        assert fused.shape == skip.shape

    Raises:
        InputError: a value that is not allowed.
    """

    def __init__(self, channels: int, rank: int = 8) -> None:
        super().__init__()
        whole("channels", channels, minimum=_GROUPS, multiple=_GROUPS), whole("rank", rank)
        self.alpha = nn.Parameter(torch.tensor(0.5))
        self.low_rank_attn = LowRankAttention(channels, rank)
        self.channel_gate = ChannelGate(channels)
        self.fusion = _fused(channels)

    def forward(self, encoder: Tensor, decoder: Tensor) -> Tensor:
        """Two maps (batch, channels, k, j, i), the encoder's first → one of the same shape.

        Raises:
            InputError: the maps differ in shape.
        """
        if encoder.shape != decoder.shape:
            raise InputError(
                f"Skip fusion needs two maps of one shape; got {[*encoder.shape]} and {[*decoder.shape]}."
            )
        share = self.alpha.sigmoid()
        gate = self.channel_gate(encoder, decoder)[..., None, None, None]
        mixed = share * self.low_rank_attn(encoder, decoder) + encoder * ((1 - share) * gate)
        fused: Tensor = self.fusion(torch.cat((decoder, mixed), dim=1))
        return fused


def _single_precision(x: Tensor) -> AbstractContextManager[object]:
    """No autocast inside; the meta device, where shapes are counted, knows none."""
    return nullcontext() if x.is_meta else torch.autocast(device_type=x.device.type, enabled=False)


def _fused(channels: int) -> nn.Sequential:
    convolution = nn.Conv3d(2 * channels, channels, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.GroupNorm(_GROUPS, channels), nn.GELU())
