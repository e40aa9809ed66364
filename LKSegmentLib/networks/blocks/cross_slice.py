"""Cross-slice attention (CSA) of DALight-3D (arXiv 2605.04518). Tensor names are those of the released network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from LKSegmentLib.networks.constraints import switch, whole


class CrossSliceAttention(nn.Module):
    """Let the slices along the first spatial axis attend to each other; c channels, m = max(c // 4, 8).

        p = mean over the last two axes (batch, c, k);  q, key, v = 1x1 convolutions of p to m, m, c channels
        A[i, j] = softmax over j of (q_i · key_j / √m)
        out = x + o,   o_j = Σ_i v_i A[i, j]

    The released network sums over the *query* index: o = V A, although the rows of A, not its columns, sum to
    one. `standard=True` gives o = V Aᵀ, with the same tensors. (The bias of key is a published tensor without
    effect: it adds the same to all scores of a row.) There is no output projection, although the draft of the
    paper has one. Which anatomical axis the first axis is, is decided by the data; the released loader has
    the first NIfTI axis (sagittal slices) there.

    Args:
        channels: c.
        standard: ordinary attention instead of the published one.

    Example::

        features = torch.randn(1, 48, 10, 12, 8)    # (batch, channels, k, j, i); the slices lie along k
        attention = CrossSliceAttention(48)
        out = attention(features)
        assert out.shape == features.shape
        assert attention.attention(features.mean((3, 4))).shape == (1, 10, 10)

    Raises:
        InputError: a value that is not allowed.
    """

    def __init__(self, channels: int, standard: bool = False) -> None:
        super().__init__()
        inner = max(whole("channels", channels) // 4, 8)
        self.standard = switch("standard", standard)
        self.query = nn.Conv1d(channels, inner, 1)
        self.key = nn.Conv1d(channels, inner, 1)
        self.value = nn.Conv1d(channels, channels, 1)
        self.weights = nn.Identity()  # a module, so that inspection can read the attention from it

    def attention(self, slices: Tensor) -> Tensor:
        """Slice means (batch, channels, k) → A (batch, k, k); row i tells how query i spreads over the slices."""
        query, key = self.query(slices), self.key(slices)
        scores = torch.bmm(query.transpose(1, 2), key) / query.shape[1] ** 0.5
        attention: Tensor = self.weights(in_single(scores).softmax(dim=2))
        return attention

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, k, j, i) → the same shape."""
        slices = x.mean((3, 4))
        attention = self.attention(slices)
        if self.standard:
            attention = attention.transpose(1, 2)
        value = self.value(slices)
        update = torch.bmm(value, attention.to(value.dtype))
        return x + update[..., None, None]


def in_single(x: Tensor) -> Tensor:
    """In single precision, or in double where it is: softmaxes and sums over a map are too coarse in half."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
