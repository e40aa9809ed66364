"""Maps in slabs: a chain of convolutions without a whole map of anything in between.

A map (planes, rows, columns, channels) passes as a stream of slabs, consecutive planes in order. A convolution
needs `reach` planes more on either side; it keeps the last ones of the slab before, so nothing is computed twice.
Its slabs come out `reach` planes late, and the last one when the stream ends. What a slab touches stays in the
processor's cache, and no large piece of memory is asked for and given back, which costs more than arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

# Bytes of the widest tensor of one slab: a few megabytes stay in the cache of one or two cores.
SLAB_BYTES = 6 * 2**20


def planes_of(rows: int, columns: int, channels: int, size: int = 4, at_least: int = 2) -> int:
    """How many planes of a map with so many channels make up one slab."""
    return max(at_least, SLAB_BYTES // (rows * columns * channels * size))


def slabs_of(whole: Tensor, planes: int) -> Iterator[Tensor]:
    """The map (planes, …) as views of so many planes."""
    for first in range(0, whole.shape[0], planes):
        yield whole[first : first + planes]


def convolved(slabs: Iterable[Tensor], reach: int, convolution: Callable[[Tensor], Tensor]) -> Iterator[Tensor]:
    """Stream through a convolution that keeps the size.

    Args:
        slabs: (n, rows, columns, channels) each.
        reach: planes that the kernel reaches to either side.
        convolution: takes n + 2 · reach planes, returns n in memory of their own; pads rows and columns itself.

    Returns:
        The result as slabs; together as many planes as came in.
    """
    room: Tensor | None = None  # one window's memory, used again: fresh memory costs more than the copy
    filled = 0
    for slab in slabs:
        count = slab.shape[0]
        if room is None:
            room = slab.new_empty((2 * reach + count, *slab.shape[1:]))
            room[:reach] = 0
            filled = reach
        room = _with_room(room, filled, filled + count)
        room[filled : filled + count] = slab
        filled += count
        if filled > 2 * reach:
            yield convolution(room[:filled])
            kept = room[filled - 2 * reach : filled]
            room[: 2 * reach] = kept if filled >= 4 * reach else kept.clone()
            filled = 2 * reach
    if room is not None and reach:
        room = _with_room(room, filled, filled + reach)
        room[filled : filled + reach] = 0
        yield convolution(room[: filled + reach])


def _with_room(room: Tensor, filled: int, planes: int) -> Tensor:
    if room.shape[0] >= planes:
        return room
    larger = room.new_empty((planes, *room.shape[1:]))
    larger[:filled] = room[:filled]
    return larger


def joined(pairs: Iterable[tuple[Tensor, Tensor]]) -> Iterator[Tensor]:
    """The channels of two slabs behind each other; each result is overwritten by the next."""
    room: Tensor | None = None
    for pair in pairs:
        first, second = pair
        if room is None or room.shape[0] < first.shape[0]:
            room = first.new_empty((*first.shape[:-1], first.shape[-1] + second.shape[-1]))
        yield torch.cat(pair, dim=-1, out=room[: first.shape[0]])


def windows_of(whole: Tensor, planes: int, reach: int) -> Iterator[Tensor]:
    """What `convolved` would hand to its convolution, from a map that is whole: views, but for the two ends."""
    length = whole.shape[0]
    for first in range(0, length, planes):
        last = min(first + planes, length)
        parts = [whole[max(first - reach, 0) : min(last + reach, length)]]
        before, after = max(reach - first, 0), max(last + reach - length, 0)
        if before:
            parts.insert(0, whole.new_zeros((before, *whole.shape[1:])))
        if after:
            parts.append(whole.new_zeros((after, *whole.shape[1:])))
        yield parts[0] if len(parts) == 1 else torch.cat(parts)


class Buffers:
    """Memory of large maps, used again: fresh memory costs several times what it costs to fill it.

    Not shared between threads. Whoever gives a map back no longer reads it.
    """

    def __init__(self) -> None:
        self._free: list[Tensor] = []
        self._taken: dict[int, Tensor] = {}

    def take(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """A map of this shape with whatever it held before."""
        count = math.prod(shape)
        fitting = [
            (buffer.numel(), number)
            for number, buffer in enumerate(self._free)
            if buffer.dtype == like.dtype and count <= buffer.numel() <= 2 * count
        ]
        buffer = self._free.pop(min(fitting)[1]) if fitting else like.new_empty(count)
        self._taken[buffer.data_ptr()] = buffer
        return buffer[:count].view(*shape)

    def give(self, whole: Tensor) -> None:
        """Give a map back; one that was not taken here is left alone."""
        buffer = self._taken.pop(whole.data_ptr(), None)
        if buffer is not None:
            self._free.append(buffer)


def gathered(slabs: Iterable[Tensor], planes: int, buffers: Buffers | None = None) -> Tensor:
    """The whole map from its slabs.

    Args:
        slabs: (n, rows, columns, channels) each.
        planes: of all of them together.
        buffers: where the map's memory is taken; fresh memory where there are none.
    """
    whole: Tensor | None = None
    filled = 0
    for slab in slabs:
        if whole is None:
            shape = (planes, *slab.shape[1:])
            whole = slab.new_empty(shape) if buffers is None else buffers.take(shape, slab)
        whole[filled : filled + slab.shape[0]] = slab
        filled += slab.shape[0]
    if whole is None or filled != planes:
        raise ValueError(f"the slabs hold {filled} planes, not {planes}")
    return whole


def beside(slabs: Iterable[Tensor], whole: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Every slab with the same planes of a map at hand, as a view."""
    first = 0
    for slab in slabs:
        yield slab, whole[first : first + slab.shape[0]]
        first += slab.shape[0]


def resliced(slabs: Iterable[Tensor], planes: int) -> Iterator[Tensor]:
    """The same stream in slabs of at most so many planes."""
    for slab in slabs:
        yield from slabs_of(slab, planes)
