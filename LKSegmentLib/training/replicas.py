"""Trainers side by side, one a processor core, that draw different scenes and step together.

Each process computes the gradient of its own windows; before every step all take the mean (gloo, over the loopback
interface). So N processes are one trainer with a batch N times as large, at nearly N times the speed: a core that
convolves small windows gains little from a second thread.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as distributed
from torch import Tensor

from LKSegmentLib.errors import InputError, RunError

_TO_START = timedelta(minutes=3)  # until a process has imported what it needs
_BETWEEN_STEPS = timedelta(hours=12)  # the leader may pause; a process that died is noticed at once
_LOOPBACK = {"linux": "lo", "darwin": "lo0"}  # elsewhere gloo finds an interface by itself
_ENDED = (
    "One of the processes that train together ended unexpectedly. The last checkpoint is whole; go on with --resume, "
    "or with fewer --replicas where memory is short."
)
Follower = Callable[["Replicas"], None]


class Replicas:
    """The processes that step together, as one of them sees them.

    Args:
        count: of processes, this one included; 1 is no other.
        rank: of this process; the leader is 0.
    """

    def __init__(self, count: int = 1, rank: int = 0) -> None:
        self.count = count
        self.rank = rank
        self._others: list[BaseProcess] = []
        self._folder: Path | None = None
        self._threads = torch.get_num_threads()

    @classmethod
    def lead(cls, count: int, follow: Follower) -> Replicas:
        """Start ``count - 1`` processes that call ``follow`` with their own view, and be number 0.

        ``follow`` must be picklable; its process is ended by :meth:`close`. Until then PyTorch has one thread here too.

        Raises:
            InputError: this PyTorch cannot let processes talk.
            RunError: a process did not start.
        """
        replicas = cls(count)
        if count == 1:
            return replicas
        if not (distributed.is_available() and distributed.is_gloo_available()):
            raise InputError("This build of PyTorch cannot train in several processes; train with one replica.")
        replicas._folder = Path(tempfile.mkdtemp(prefix="lksegment-train-"))
        meeting = str(replicas._folder / "meeting")
        context = multiprocessing.get_context("spawn")
        replicas._others = [
            context.Process(target=_follow, args=(follow, rank, count, meeting), daemon=True)
            for rank in range(1, count)
        ]
        for process in replicas._others:
            process.start()
        torch.set_num_threads(1)
        try:
            store = _store(meeting, count)
            store.wait([_ready(rank) for rank in range(1, count)], _TO_START)
            _meet(store, 0, count)
        except RuntimeError as error:
            replicas.close()
            raise RunError(_ENDED) from error
        return replicas

    def mean(self, values: Tensor) -> Tensor:
        """The mean of ``values``, any shape, over all processes; each gets the same.

        Raises:
            RunError: one of the other processes ended.
        """
        if self.count == 1:
            return values
        shared = values.cpu()
        try:
            distributed.all_reduce(shared)
        except RuntimeError as error:
            raise RunError(_ENDED) from error
        return (shared / self.count).to(values.device)

    def close(self) -> None:
        """End the other processes."""
        if not self._others:
            return
        for process in self._others:
            process.terminate()
            process.join()
        self._others = []
        if distributed.is_initialized():
            distributed.destroy_process_group()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        torch.set_num_threads(self._threads)
        self.count = 1


def _follow(follow: Follower, rank: int, count: int, meeting: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is the leader's, who saves and ends the others
    torch.set_num_threads(1)
    store = _store(meeting, count)
    store.set(_ready(rank), "yes")
    _meet(store, rank, count)
    follow(Replicas(count, rank))


def _ready(rank: int) -> str:
    return f"process {rank} is there"


def _store(meeting: str, count: int) -> Any:
    return distributed.FileStore(meeting, count)  # type: ignore[attr-defined]  # torch names it by a star import


def _meet(store: Any, rank: int, count: int) -> None:
    if sys.platform in _LOOPBACK:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", _LOOPBACK[sys.platform])
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=count, timeout=_BETWEEN_STEPS)
