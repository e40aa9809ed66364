"""Maps in slabs: a chain of convolutions without a whole map of anything in between.

A map (planes, rows, columns, channels) passes as a stream of slabs, consecutive planes in order. A convolution
needs `reach` planes more on either side; it keeps the last ones of the slab before, so nothing is computed twice.
Its slabs come out `reach` planes late, and the last one when the stream ends. What a slab touches stays in the
processor's cache, and no large piece of memory is asked for and given back, which costs more than arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

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
        convolution: takes n + 2 · reach planes, returns n; pads rows and columns itself.

    Returns:
        The result as slabs; together as many planes as came in.
    """
    kept: Tensor | None = None
    for slab in slabs:
        if kept is None:
            kept = slab.new_zeros((reach, *slab.shape[1:]))
        window = torch.cat((kept, slab))
        if window.shape[0] > 2 * reach:
            yield convolution(window)
            kept = window[window.shape[0] - 2 * reach :].clone()
        else:
            kept = window
    if kept is not None and reach:
        yield convolution(torch.cat((kept, kept.new_zeros((reach, *kept.shape[1:])))))


def gathered(slabs: Iterable[Tensor], planes: int) -> Tensor:
    """The whole map from its slabs.

    Args:
        slabs: (n, rows, columns, channels) each.
        planes: of all of them together.
    """
    whole: Tensor | None = None
    filled = 0
    for slab in slabs:
        if whole is None:
            whole = slab.new_empty((planes, *slab.shape[1:]))
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
