"""Processes that draw scenes, place clicks and make channels for one trainer, which then only computes.

For a trainer on a GPU: a dozen processor cores keep one GPU busy. Windows travel in memory that all share, one slot for
each target in flight; its number is all that is sent to and fro.
"""

from __future__ import annotations

import itertools
import multiprocessing
import queue
import signal
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from LKSegmentLib.errors import RunError
from LKSegmentLib.prompts import CHANNELS

from .in_flight import InFlight, NewTargets
from .recipe import Recipe
from .supply import Windows

_BETWEEN_LOOKS = 5.0  # seconds after which a leader that waits looks whether the processes are alive
_AT_LEAST = 2  # batches that wait before one is drawn at random, so that not always the same windows meet


class Preparers:
    """A supply (`supply.Supply`) of which ``recipe.preparers`` processes do the work.

    Args:
        recipe: of the training; its pool is that of each process.
        window: edge.
        first_scene: number of the first scene to draw.
    """

    def __init__(self, recipe: Recipe, window: int, first_scene: int) -> None:
        self.window = window
        count, each = recipe.preparers, recipe.pool
        self._each = each
        cube = (window,) * 3
        self._slots = _Slots(
            torch.empty((count * each, len(CHANNELS), *cube), dtype=torch.float16).share_memory_(),
            torch.empty((count * each, *cube), dtype=torch.bool).share_memory_(),
            torch.empty(count * each).share_memory_(),
            torch.empty((count * each, *cube), dtype=torch.bool).share_memory_(),
        )
        context = multiprocessing.get_context("spawn")
        self._ready: Any = context.Queue()
        self._answered: list[Any] = [context.SimpleQueue() for _ in range(count)]
        self._waiting: list[int] = []
        self._drawn = 0
        self._processes: list[BaseProcess] = [
            context.Process(
                target=_prepare,
                args=(recipe, window, first_scene + rank, rank, self._slots, self._ready, self._answered[rank]),
                daemon=True,
            )
            for rank in range(count)
        ]
        for process in self._processes:
            process.start()

    def draw(self, count: int, rng: np.random.Generator, device: torch.device) -> Windows:
        """See :class:`supply.Supply`.

        Raises:
            RunError: a process ended.
        """
        least = max(count, min(_AT_LEAST * count, len(self._processes) * self._each // 2))
        while len(self._waiting) < least or not self._ready.empty():
            try:
                slot, drawn = self._ready.get(timeout=_BETWEEN_LOOKS)
            except queue.Empty:
                self._check()
                continue
            self._waiting.append(slot)
            self._drawn += drawn
        chosen = [int(index) for index in rng.choice(len(self._waiting), count, replace=False)]
        slots = [self._waiting[index] for index in chosen]
        self._waiting = [slot for index, slot in enumerate(self._waiting) if index not in set(chosen)]
        return Windows(
            _gathered(self._slots.channels, slots, device).float(),
            _gathered(self._slots.targets, slots, device)[:, None].float(),
            self._slots.voxels[slots].to(device),
            slots,
        )

    def answer(self, windows: Windows, masks: NDArray[np.bool_] | None) -> None:
        """See :class:`supply.Supply`."""
        for number, slot in enumerate(windows.origin):
            if masks is not None:
                self._slots.masks[slot].copy_(torch.from_numpy(masks[number]))
            self._answered[slot // self._each].put((slot, masks is not None))

    def scenes_drawn(self) -> int:
        """See :class:`supply.Supply`."""
        drawn, self._drawn = self._drawn, 0
        return drawn

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join()
        self._processes = []
        self._ready.close()
        self._ready.cancel_join_thread()

    def _check(self) -> None:
        if not all(process.is_alive() for process in self._processes):
            raise RunError(
                "One of the processes that prepare windows ended unexpectedly. The last checkpoint is whole; go on "
                "with --resume, or with fewer --preparers where memory is short."
            )


class _Slots:
    """Shared memory; a slot is written by its process until its number is sent, and by the trainer until it is back."""

    def __init__(self, channels: Tensor, targets: Tensor, voxels: Tensor, masks: Tensor) -> None:
        self.channels = channels  # (slots, channels, k, j, i); half precision, which all channels fit into
        self.targets = targets  # (slots, k, j, i)
        self.voxels = voxels  # (slots,)
        self.masks = masks  # (slots, k, j, i)

    def fill(self, slot: int, item: InFlight) -> None:
        """Show a target as it is now."""
        self.channels[slot].copy_(torch.from_numpy(item.channels.array))
        self.targets[slot].copy_(torch.from_numpy(item.target))
        self.voxels[slot] = item.voxels


def _prepare(
    recipe: Recipe, window: int, first_scene: int, rank: int, slots: _Slots, ready: Any, answered: Any
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is the trainer's, who ends the others
    torch.set_num_threads(1)
    new = NewTargets(recipe, window, itertools.count(first_scene, recipe.preparers))
    own: dict[int, InFlight] = {}
    told = 0

    def show(slot: int) -> None:
        nonlocal told
        slots.fill(slot, own[slot])
        ready.put((slot, new.scenes - told))
        told = new.scenes

    for slot in range(rank * recipe.pool, (rank + 1) * recipe.pool):
        own[slot] = new.next()
        show(slot)
    while True:
        slot, usable = answered.get()
        if not (usable and own[slot].advance(slots.masks[slot].numpy().copy())):
            own[slot] = new.next()
        show(slot)


def _gathered(kept: Tensor, slots: list[int], device: torch.device) -> Tensor:
    gathered = torch.empty((len(slots), *kept.shape[1:]), dtype=kept.dtype, device=device)
    for number, slot in enumerate(slots):
        gathered[number].copy_(kept[slot])
    return gathered
