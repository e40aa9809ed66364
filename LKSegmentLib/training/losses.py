"""What a click model is taught: the structure's mask, and how good its own mask is."""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor


def click_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Soft Dice loss per sample plus cross entropy, both averaged: ``(batch, 1, k, j, i)`` → scalar."""
    probability = torch.sigmoid(logits)
    overlap = (probability * targets).sum((1, 2, 3, 4))
    size = probability.sum((1, 2, 3, 4)) + targets.sum((1, 2, 3, 4))
    dice = (2 * overlap + 1) / (size + 1)
    return (1 - dice).mean() + functional.binary_cross_entropy_with_logits(logits, targets)


def judgement_loss(judgement: Tensor, logits: Tensor, targets: Tensor, voxels: Tensor) -> Tensor:
    """Cross entropy between the Dice that the network expects and the one it reached, averaged.

    Args:
        judgement: logits of the expected Dice, ``(batch,)``.
        logits, targets: ``(batch, 1, k, j, i)``.
        voxels: of the whole structures, ``(batch,)``: what lies outside of the window counts as missed.
    """
    mask = logits > 0
    found = mask.float().sum((1, 2, 3, 4))
    reached = 2 * (mask * targets).sum((1, 2, 3, 4)) / (found + voxels).clamp_min(1)
    return functional.binary_cross_entropy_with_logits(judgement.float(), reached.clamp(0, 1))
