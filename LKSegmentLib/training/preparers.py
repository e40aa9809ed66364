"""Processes that draw scenes, place clicks and make channels for one trainer, which then only computes.

For a trainer on a GPU: a dozen processor cores keep one GPU busy. Windows travel in memory that all share, one slot for
each target in flight; its number is all that is sent to and fro.
"""

from __future__ import annotations

import itertools
import math
import multiprocessing
import shutil
import signal
from collections.abc import Iterator
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from LKSegmentLib.errors import RunError
from LKSegmentLib.prompts import CHANNELS

from .in_flight import InFlight, NewTargets
from .recipe import Recipe
from .supply import Windows, drawn_from

_AT_LEAST = 2  # batches that wait before one is drawn at random, so that not always the same windows meet
_SHARED_MEMORY = Path("/dev/shm")  # where Linux keeps it
_ENDED = (
    "One of the processes that prepare windows ended unexpectedly. The last checkpoint is whole; go on with --resume, "
    "or with fewer --preparers where memory is short."
)


class Preparers:
    """A supply (`supply.Supply`) of which ``recipe.preparers`` processes do the work; they end with the trainer's.

    Args:
        recipe: of the training; its pool is shared out among the processes.
        window: edge.
        first_scene: number of the first scene to draw.

    Raises:
        RunError: too little shared memory.
    """

    def __init__(self, recipe: Recipe, window: int, first_scene: int) -> None:
        self.window = window
        count = recipe.preparers
        self._each = math.ceil(recipe.pool / count)
        self._slots = _Slots.shared(count * self._each, window)
        self._waiting: list[int] = []
        self._drawn = 0
        self._ends: list[Any] = []  # of a pipe to each process
        self._processes: list[BaseProcess] = []
        context = multiprocessing.get_context("spawn")
        try:
            for rank in range(count):
                here, there = context.Pipe()
                self._ends.append(here)
                of_process = range(rank * self._each, (rank + 1) * self._each)
                numbers = first_scene + rank, count
                process = context.Process(
                    target=_prepare, args=(recipe, window, numbers, of_process, self._slots, there), daemon=True
                )
                self._processes.append(process)
                process.start()
                there.close()  # only the process itself holds its end, so that the pipe ends with it
        except BaseException:
            self.close()
            raise

    def draw(self, count: int, rng: np.random.Generator, device: torch.device) -> Windows:
        """See :class:`supply.Supply`.

        Raises:
            RunError: a process ended.
        """
        least = max(count, min(_AT_LEAST * count, len(self._processes) * self._each // 2))
        while ready := connection.wait(self._ends, 0 if len(self._waiting) >= least else None):
            for end in ready:
                slot, drawn = self._told(end)
                self._waiting.append(slot)
                self._drawn += drawn
        slots, self._waiting = drawn_from(self._waiting, count, rng)
        return Windows(
            _gathered(self._slots.channels, slots, device).float(),
            _gathered(self._slots.targets, slots, device)[:, None].float(),
            self._slots.voxels[slots].to(device),
            slots,
        )

    def answer(self, windows: Windows, masks: NDArray[np.bool_] | None) -> None:
        """See :class:`supply.Supply`.

        Raises:
            RunError: a process ended.
        """
        for number, slot in enumerate(windows.origin):
            if masks is not None:
                self._slots.masks[slot].copy_(torch.from_numpy(masks[number]))
            try:
                self._ends[slot // self._each].send((slot, masks is not None))
            except OSError as error:
                raise RunError(_ENDED) from error

    def scenes_drawn(self) -> int:
        """See :class:`supply.Supply`."""
        drawn, self._drawn = self._drawn, 0
        return drawn

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            if process.pid is not None:
                process.terminate()
                process.join()
        for end in self._ends:
            end.close()
        self._processes, self._ends = [], []

    @staticmethod
    def _told(end: Any) -> tuple[int, int]:
        try:
            told: tuple[int, int] = end.recv()
        except (EOFError, OSError) as error:
            raise RunError(_ENDED) from error
        return told


class _Slots:
    """Shared memory; a slot is written by its process until its number is sent, and by the trainer until it is back."""

    @classmethod
    def shared(cls, count: int, window: int) -> _Slots:
        """So many slots.

        Raises:
            RunError: too little shared memory.
        """
        cube = (window,) * 3
        size = count * math.prod(cube) * (2 * len(CHANNELS) + 2)
        free = shutil.disk_usage(_SHARED_MEMORY).free if _SHARED_MEMORY.is_dir() else math.inf
        refused = (
            f"The windows of {count} targets in flight need {size / 1e9:.1f} GB of shared memory, more than there is. "
            "Train with a smaller --batch or --window, or without --preparers."
        )
        if size > free:
            raise RunError(refused)
        try:
            return cls(
                torch.empty((count, len(CHANNELS), *cube), dtype=torch.float16).share_memory_(),
                torch.empty((count, *cube), dtype=torch.bool).share_memory_(),
                torch.empty(count).share_memory_(),
                torch.empty((count, *cube), dtype=torch.bool).share_memory_(),
            )
        except RuntimeError as error:
            raise RunError(refused) from error

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


def _prepare(recipe: Recipe, window: int, numbers: tuple[int, int], own: range, slots: _Slots, trainer: Any) -> None:
    """What a process does, until the trainer ends it, or ends itself: keep targets in its ``own`` slots."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is the trainer's, who ends the others
    torch.set_num_threads(1)
    new = NewTargets(recipe, window, itertools.count(*numbers))
    items: dict[int, InFlight] = {}
    told = 0
    try:
        for slot in itertools.chain(own, _answered(trainer, items, slots)):
            if slot not in items:
                items[slot] = new.next()
            slots.fill(slot, items[slot])
            trainer.send((slot, new.scenes - told))
            told = new.scenes
    except (EOFError, OSError):
        return  # the trainer is gone


def _answered(trainer: Any, items: dict[int, InFlight], slots: _Slots) -> Iterator[int]:
    """Slots that come back, their targets clicked at once more; those that are done have none any more."""
    while True:
        slot, usable = trainer.recv()
        if not (usable and items[slot].advance(slots.masks[slot].numpy().copy())):
            del items[slot]
        yield slot


def _gathered(kept: Tensor, slots: list[int], device: torch.device) -> Tensor:
    gathered = torch.empty((len(slots), *kept.shape[1:]), dtype=kept.dtype, device=device)
    for number, slot in enumerate(slots):
        gathered[number].copy_(kept[slot])
    return gathered
