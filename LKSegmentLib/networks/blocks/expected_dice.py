"""How good a network's own mask is, judged from its features: the Dice to be expected.

In the manner of the mask quality that Segment Anything predicts (Kirillov et al., ICCV 2023, section 3), with the mask
itself as the window through which features are seen.
"""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

_HIDDEN = 64
_NUMBERS = 4


class ExpectedDice(nn.Module):
    """Logits of the mask and features of the network → logit of the expected Dice, ``(batch,)``.

    Args:
        deep: channels of the deepest features.
        fine: channels of the decoder's finest features.
    """

    def __init__(self, deep: int, fine: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(2 * deep + 2 * fine + _NUMBERS), nn.Linear(2 * deep + 2 * fine + _NUMBERS, _HIDDEN), nn.GELU(),
            nn.Linear(_HIDDEN, 1),
        )  # fmt: skip

    def forward(self, logits: Tensor, deepest: Tensor, finest: Tensor) -> Tensor:
        """``logits (batch, 1, k, j, i)``; features of the same field of view at lower resolutions."""
        with torch.autocast(logits.device.type, enabled=False):
            deepest, finest = deepest.float(), finest.float()
            probability = torch.sigmoid(logits.detach().float())
            doubt = 4 * probability * (1 - probability)
            seen = [_mean_under(deepest, torch.ones_like(deepest[:, :1])), _mean_under(deepest, probability)]
            seen += [_mean_under(finest, probability), _mean_under(finest, doubt)]
            return self.layers(torch.cat([*seen, _numbers(probability)], dim=1))[:, 0]


def _mean_under(features: Tensor, weight: Tensor) -> Tensor:
    """Weighted means ``(batch, channels)``; the weight, of any resolution, is brought to the features'."""
    k, j, i = features.shape[2:]
    weight = functional.adaptive_avg_pool3d(weight, (k, j, i))
    return (features * weight).sum((2, 3, 4)) / (weight.sum((2, 3, 4)) + 1e-3)


def _numbers(probability: Tensor) -> Tensor:
    """Of the mask ``(batch, 1, k, j, i)``: its size, its Dice as probabilities tell, voxels on the window's faces."""
    axes = (1, 2, 3, 4)
    size = probability.sum(axes)
    mask = (probability > 0.5).float()
    own = 2 * (probability * mask).sum(axes) / (size + mask.sum(axes) + 1e-3)
    inner = probability[:, :, 1:-1, 1:-1, 1:-1].sum(axes)
    edge = probability[0].numel() ** (1 / 3)
    return torch.stack(
        (torch.log1p(size), own, torch.log1p((size - inner).clamp_min(0)), size.clamp_min(1) ** (1 / 3) / edge), dim=1
    )
