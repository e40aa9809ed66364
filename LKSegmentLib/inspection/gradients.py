"""Gradients of logits with respect to a window, and the memory that they take."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from LKSegmentLib.errors import InputError, RunError
from LKSegmentLib.inference.memory import free_memory, in_words, smallest_window
from LKSegmentLib.inference.segmentation import failures_of
from LKSegmentLib.packages import Manifest

Voxel = tuple[int, int, int]

# Gradients of the maps that are kept, and work space.
_BESIDE = 2
_KEPT: WeakKeyDictionary[nn.Module, float] = WeakKeyDictionary()


class Gradients:
    """The gradients of one logit at some voxels with respect to a window, (channels, k, j, i) each, one after another.

    Attributes:
        channel: which output the logit is of.
    """

    def __init__(
        self, logits: Tensor, image: Tensor, voxels: Sequence[Voxel], channel: int, manifest: Manifest
    ) -> None:
        self._logits, self._image, self._voxels = logits, image, list(voxels)
        self.channel = channel
        self._manifest = manifest

    def __iter__(self) -> Iterator[NDArray[np.float64]]:
        for number, voxel in enumerate(self._voxels):
            last = number + 1 == len(self._voxels)  # then nothing need be kept any more
            with failures_of(self._manifest, str(self._image.device)), torch.enable_grad():
                logit = self._logits[(0, self.channel, *voxel)]
                (gradient,) = torch.autograd.grad(logit, self._image, retain_graph=not last)
            yield gradient[0].double().cpu().numpy()


def gradients_at(
    network: nn.Module, manifest: Manifest, image: Tensor, voxels: Sequence[Voxel], label: int | None
) -> Gradients:
    """Run a network on a window, ready for the ways back from some of its voxels.

    Args:
        network: in evaluation mode.
        manifest: of its package.
        image: (1, channels, k, j, i).
        voxels: (k, j, i) in the window, at least one.
        label: the output; None: the largest at the first voxel.

    Raises:
        InputError: no such label.
        RunError: the memory does not suffice, or the network fails.
    """
    if label is not None and label not in range(manifest.out_channels):
        there = f"outputs 0 to {manifest.out_channels - 1}" if manifest.out_channels > 1 else "one output, 0"
        raise InputError(f'The model "{manifest.name}" has the {there}, not {label!r}.')
    check_gradient_memory(network, manifest, image)
    with failures_of(manifest, str(image.device)), torch.enable_grad():
        image = image.clone().requires_grad_()
        answer = network(image)
        logits: Tensor = answer[0] if isinstance(answer, (list, tuple)) else answer
    channel = int(logits[(0, slice(None), *voxels[0])].argmax()) if label is None else int(label)
    return Gradients(logits, image, voxels, channel, manifest)


def check_gradient_memory(network: nn.Module, manifest: Manifest, image: Tensor) -> None:
    """RunError when what must be kept for the way back does not fit."""
    voxels = math.prod(image.shape[2:])
    if network not in _KEPT:
        _KEPT[network] = _kept_per_voxel(network, manifest, image)
    needed = math.ceil(_BESIDE * _KEPT[network] * voxels)
    free = torch.cuda.mem_get_info(image.device)[0] if image.device.type == "cuda" else free_memory()
    if free is not None and needed > free:
        raise RunError(
            f"Its gradients need about {in_words(needed)} of memory and {in_words(free)} are free: close other "
            "programs or choose another device."
        )


def _kept_per_voxel(network: nn.Module, manifest: Manifest, image: Tensor) -> float:
    """Bytes that are kept for the way back, for each voxel of the window; measured on the smallest window."""
    k, j, i = smallest_window(network, (image.shape[2], image.shape[3], image.shape[4]))
    weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    sample = torch.zeros((1, image.shape[1], k, j, i), device=image.device, requires_grad=True)
    with failures_of(manifest, "a window before the run"), torch.enable_grad():
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            answer = network(sample)
    del answer  # it holds everything that was counted
    return sum(kept.values()) / (k * j * i)
