"""Windows: where they lie, what they weigh, and that streaming gives what holding everything would give."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from LKSegmentLib.inference.windows import (  # noqa: E402
    Region,
    Window,
    WindowLayout,
    cut,
    importance,
    starts_along,
    stitched,
    window_layout,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize("multiple", [1, 8, 32])
def test_windows_cover_everything_on_one_lattice_with_the_overlap_asked_for(multiple: int) -> None:
    for length, blocks, overlap in itertools.product((1, 31, 32, 33, 96, 97, 250), (1, 2, 3), (0.0, 0.25, 0.5, 0.75)):
        window = 32 * blocks
        starts = starts_along(length, window, overlap, multiple)
        assert starts[0] <= 0 and starts[-1] + window >= length
        # Padding is shared by both ends and never more than the lattice asks for.
        before, after = -starts[0], starts[-1] + window - length
        assert 0 <= after - before <= 1
        assert before + after < max(multiple, window - length + 1)
        steps = np.diff(starts)
        assert (steps % multiple == 0).all() and (steps > 0).all()
        allowed = max(multiple, math.floor(window * (1 - overlap)))
        assert (steps <= allowed).all()


def test_a_volume_that_fits_has_one_window_and_the_usual_case_needs_no_more_than_usual() -> None:
    assert starts_along(96, 96, 0.5, 32) == (0,)
    assert starts_along(40, 96, 0.5, 32) == (-28,)
    assert starts_along(192, 96, 0.5, 1) == (0, 48, 96)
    assert window_layout((10, 10, 10), (30, 33, 1), 0.5, 16).size == (32, 48, 16)
    # The lattice gives way to the overlap: no more windows than without a lattice.
    layout = window_layout((256, 300, 96), (96, 96, 96), 0.5, 32)
    assert layout.lattice == 16
    assert [len(along) for along in layout.starts] == [5, 6, 1]
    assert window_layout((256, 256, 256), (128, 64, 128), 0.5, 32).lattice == 32


def test_importance_is_symmetric_and_largest_in_the_middle() -> None:
    for length in (1, 2, 7, 96):
        weight = importance(length)
        assert np.array_equal(weight, weight[::-1])
        assert weight.argmax() in (length // 2, (length - 1) // 2) and weight.min() >= 1e-3


def plain_reference(layout: WindowLayout, answers: dict[int, torch.Tensor], channels: int) -> torch.Tensor:
    """Stitch with sums for every class at every voxel: what streaming must reproduce."""
    sums = torch.zeros((channels, *layout.shape))
    totals = torch.zeros(layout.shape)
    k, j, i = (torch.from_numpy(weight) for weight in layout.weights)
    weight = k[:, None, None] * (j[:, None] * i)
    whole = Region((0, 0, 0), layout.shape)
    for window in layout.windows():
        inside = whole.overlap(window)
        assert inside is not None
        here, there = inside.slices((0, 0, 0)), inside.slices(window.lower)
        sums[(slice(None), *here)] += answers[window.index][(slice(None), *there)] * weight[there]
        totals[here] += weight[there]
    return sums / totals


LAYOUTS = [
    ((37, 20, 25), (16, 8, 12), 0.5, 4),
    ((37, 20, 25), (16, 8, 12), 0.0, 1),
    ((5, 20, 25), (16, 16, 16), 0.5, 8),
    ((64, 9, 9), (16, 16, 16), 0.75, 1),
    ((1, 30, 30), (8, 8, 8), 0.5, 8),
]


@pytest.mark.parametrize(("shape", "size", "overlap", "multiple"), LAYOUTS)
def test_streaming_equals_holding_everything(
    shape: tuple[int, int, int], size: tuple[int, int, int], overlap: float, multiple: int
) -> None:
    torch.manual_seed(0)
    layout = window_layout(shape, size, overlap, multiple)
    answers = {window.index: torch.randn(3, *layout.size) for window in layout.windows()}
    assert sorted(answers) == list(range(layout.count))
    expected = plain_reference(layout, answers, 3)
    order: list[int] = []

    def answer(window: Window) -> torch.Tensor:
        order.append(window.index)
        return answers[window.index]

    whole = Region((0, 0, 0), shape)
    result, storages = torch.full((3, *shape), torch.nan), set()
    following = 0
    for first, slab in stitched(layout, whole, 3, answer, CPU):
        assert first == following
        following += slab.shape[1]
        result[:, first:following] = slab
        storages.add((slab.untyped_storage().data_ptr(), slab.untyped_storage().nbytes()))
    assert following == shape[0] and order == sorted(order)
    assert torch.allclose(result, expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(result.argmax(0), expected.argmax(0))
    # All slabs are views of one ring, one window deep.
    [(_, nbytes)] = storages
    assert nbytes == 4 * 3 * min(layout.size[0], shape[0]) * shape[1] * shape[2]

    # A part of the plane is bit for bit that part of the whole.
    part = Region((0, 3, 2), (shape[0], min(shape[1], 9), min(shape[2], 21)))
    for first, slab in stitched(layout, part, 3, answers_of(answers), CPU):
        here = result[:, first : first + slab.shape[1], 3 : part.upper[1], 2 : part.upper[2]]
        assert torch.equal(slab, here)


def answers_of(answers: dict[int, torch.Tensor]):  # noqa: ANN201
    return lambda window: answers[window.index]


def test_windows_are_cut_with_padding_outside_the_volume() -> None:
    array = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    tensor = cut(array, Window(0, (-1, 2, 0), (4, 4, 5)), (-7.0, -8.0))[0]
    assert tensor.shape == (2, 4, 4, 5)
    assert np.array_equal(tensor[:, 1:, :2], array[:, :, 2:])
    assert (tensor[0, 0] == -7).all() and (tensor[1, 0] == -8).all() and (tensor[1, :, 2:] == -8).all()
    inside = cut(array, Window(0, (0, 0, 0), (3, 4, 5)), (0.0, 0.0))
    assert np.array_equal(inside[0], array)
