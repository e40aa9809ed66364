"""Work in threads beside each other."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from LKSegmentLib.inference.side_by_side import side_by_side, workers_for


def test_results_come_in_order_and_the_pieces_run_beside_each_other() -> None:
    both_there = threading.Barrier(2, timeout=20)
    before = torch.get_num_threads()
    seen: list[int] = []

    def work(item: int) -> int:
        seen.append(torch.get_num_threads())
        both_there.wait()
        return item * item

    assert list(side_by_side(work, [1, 2, 3, 4], 2)) == [1, 4, 9, 16]
    assert seen == [1] * 4 and torch.get_num_threads() == before, "a thread each, and the caller keeps its own"
    for workers in (1, 2):
        list(side_by_side(lambda item: seen.append(torch.get_num_threads()), [1, 2], workers))
        with ThreadPoolExecutor(1) as fresh:
            assert fresh.submit(torch.get_num_threads).result() == before, "so do threads begun later"
    assert set(seen) == {1}


@pytest.mark.parametrize("workers", [1, 2])
def test_what_fails_is_raised_and_what_has_not_begun_is_not_begun(workers: int) -> None:
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        raise ValueError(f"piece {item}")

    with pytest.raises(ValueError, match="piece 0"):
        list(side_by_side(work, range(500), workers))
    assert len(begun) < 500


def test_no_more_threads_than_there_is_work() -> None:
    assert workers_for(1) == 1 and 1 <= workers_for(100) <= 4
