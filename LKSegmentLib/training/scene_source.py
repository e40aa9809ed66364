"""Scenes for the trainer, one after the other by number, drawn ahead in other processes where that is wanted."""

from __future__ import annotations

import multiprocessing
from collections import OrderedDict
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial

import numpy as np
import torch

from .synthetic import SCENE, Image, Mask, draw_scene, draw_targets, views

View = tuple[Image, Mask]

_AHEAD = 2  # scenes a process


class SceneSource:
    """Views of scene number n, the same for the same seed and n whatever the number of processes.

    Args:
        seed: of all scenes.
        targets: at most so many views of one scene.
        size: voxels along an edge of a scene.
        processes: 0 draws in this process when asked; more draw ahead. A GPU needs several to be kept busy.
    """

    def __init__(self, seed: int, targets: int, size: int = SCENE, processes: int = 0) -> None:
        self._draw, self._processes = partial(_draw, seed, targets, size), processes
        self._pool: ProcessPoolExecutor | None = None
        self._drawing: OrderedDict[tuple[int, int], Future[list[View]]] = OrderedDict()

    def views(self, number: int, edge: int) -> list[View]:
        """``(image, target)``, cubes of ``edge``³ voxels, of scene ``number``."""
        if self._processes == 0:
            return self._draw(number, edge)
        if self._pool is None:
            spawn = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._processes, spawn, initializer=torch.set_num_threads, initargs=(1,))
        for ahead in range(number, number + _AHEAD * self._processes):
            if (ahead, edge) not in self._drawing:
                self._drawing[ahead, edge] = self._pool.submit(self._draw, ahead, edge)
        drawn = self._drawing.pop((number, edge)).result()
        for old in [key for key in self._drawing if key[1] != edge or key[0] < number]:
            self._drawing.pop(old).cancel()
        return drawn

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
            self._drawing.clear()


def _draw(seed: int, targets: int, size: int, number: int, edge: int) -> list[View]:
    number += seed << 40
    scene = draw_scene(number, size)
    return list(views(scene, draw_targets(scene, number, targets), number, edge))


def scene_rng(seed: int, number: int) -> np.random.Generator:
    """Chance for what the trainer decides about scene ``number``."""
    return np.random.default_rng(((seed << 40) + number, 1))
