"""Independent pieces of work on the processor, a thread each: one small window does not fill two cores."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

_MOST = 4  # threads; each holds a window's features


def workers_for(pieces: int) -> int:
    """Threads worth starting: no more than there are processor cores, or than PyTorch may use."""
    return max(1, min(pieces, _MOST, os.cpu_count() or 1, torch.get_num_threads()))


def side_by_side(work: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]:
    """``work`` of every item, in their order; what it raises is raised here, and what has not begun is not begun.

    Each piece has a single thread of PyTorch, however many workers there are: the results are the same to the last bit.
    The caller's own number stays.
    """
    before = torch.get_num_threads()
    try:
        if workers <= 1:
            torch.set_num_threads(1)
            yield from map(work, items)
            return
        with ThreadPoolExecutor(workers, "look", initializer=torch.set_num_threads, initargs=(1,)) as threads:
            begun = [threads.submit(work, item) for item in items]
            try:
                for piece in begun:
                    yield piece.result()
            finally:
                for piece in begun:
                    piece.cancel()
    finally:
        # The number is the calling thread's own, and what threads begun later take over: both are put right here.
        torch.set_num_threads(before)
