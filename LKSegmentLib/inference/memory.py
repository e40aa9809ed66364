"""How much memory a run will take, known before it starts, and the plan that keeps it small.

The sums of overlapping windows are the one array that grows with classes times image. They span one window along k
(see `windows.stitched`); when even that is too much, the image's plane is cut into tiles that are finished one
after another. Windows across a tile's border are then run once for each tile; the labels are the same.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from LKSegmentLib.errors import RunError
from LKSegmentLib.inference.labels import BAND_BYTES, AxisMap, Tile, tiles_of
from LKSegmentLib.inference.preparation import Preparation
from LKSegmentLib.inference.windows import Size, WindowLayout
from LKSegmentLib.networks.preparation import prepare_for_inference
from LKSegmentLib.packages import Manifest

# Sums larger than this are kept in tiles. It is a fixed number, so that a run does not depend on what else runs.
SLAB_BYTES = 2**30
# What Python with torch and SimpleITK takes before it does anything.
PROCESS_BYTES = 350 * 2**20
MOST_PARTS = 64
# Measured on three networks, torch 2.13 on a CPU: copies that convolutions make of their input and output.
WORK_SPACE = 1.25
# Of prepared networks: D-Net, both LK U-Nets and Rep3D are then foretold at 0.93 to 1.7 times their measured peaks.
PREPARED_WORK_SPACE = 1.75
# The least edge of the window that a network is measured with.
SMALLEST_SAMPLE = 32
MEASURED: WeakKeyDictionary[torch.nn.Module, dict[tuple[int, Size], int]] = WeakKeyDictionary()


@dataclass(frozen=True)
class MemoryPlan:
    """What a run will hold, in bytes, and the tiles it works in.

    preparing    the largest moment while the image is made ready
    image        the prepared image and the labels, held throughout
    slab         the sums of overlapping windows
    network      the weights and the largest moment inside the network, for one window
    """

    tiles: list[Tile]
    preparing: int
    image: int
    slab: int
    network: int
    windows: int

    @property
    def peak_bytes(self) -> int:
        """The predicted peak of the whole process on the CPU."""
        return PROCESS_BYTES + max(self.preparing, self.image + self.slab + BAND_BYTES + self.network)

    @property
    def sentence(self) -> str:
        """The plan in words."""
        tiles = f" in {len(self.tiles)} tiles" if len(self.tiles) > 1 else ""
        return (
            f"{self.windows} windows{tiles}, about {in_words(self.peak_bytes)} of memory: image and labels "
            f"{in_words(self.image)}, overlapping windows {in_words(self.slab)}, network {in_words(self.network)}."
        )


def plan_memory(
    preparation: Preparation,
    maps: tuple[AxisMap, AxisMap, AxisMap],
    layout: WindowLayout,
    manifest: Manifest,
    network_bytes: int,
    slab_limit: int = SLAB_BYTES,
) -> MemoryPlan:
    """Return the plan of a run: as few tiles as keep the sums of overlapping windows below `slab_limit` bytes."""
    tiles = tiles_of(maps, (1, 1))
    parts = [1, 1]
    while slab_bytes(tiles, layout, manifest.out_channels) > slab_limit and max(parts) < MOST_PARTS:
        # Cut the longer side of the tiles, so that few windows lie across borders.
        longer = 0 if maps[1].length / parts[0] >= maps[2].length / parts[1] else 1
        parts[longer] += 1
        tiles = tiles_of(maps, (parts[0], parts[1]))
    voxels = math.prod(preparation.order.canonical.shape)
    working = math.prod(preparation.working.shape)
    channels = len(manifest.channels)
    scratch = 4 * voxels * (3 if preparation.resampled else 2)
    return MemoryPlan(
        tiles=tiles,
        preparing=4 * voxels * channels + scratch + 4 * working * (channels + 1),
        image=4 * voxels * channels + 4 * working * channels + 2 * voxels,
        slab=slab_bytes(tiles, layout, manifest.out_channels),
        network=network_bytes,
        windows=layout.count,
    )


def slab_bytes(tiles: list[Tile], layout: WindowLayout, channels: int) -> int:
    """Return the bytes of the sums of overlapping windows, for the largest tile."""
    return max(4 * channels * min(layout.size[0], tile.region.shape[0]) * plane(tile.region.shape) for tile in tiles)


def plane(shape: Size) -> int:
    """Return the voxels of one slice."""
    return shape[1] * shape[2]


def network_memory(network: torch.nn.Module, in_channels: int, window: Size) -> int:
    """Return the bytes a network needs for one window, in the form in which it runs here.

    That is its weights and the largest sum of tensors alive at once. What a first run leaves behind, such as weights
    in the order that a library wants, is counted as it is. A share is added for what libraries take as work space
    inside one operation. (torch's "meta" device would do it without computing, but imports for two seconds.)

    A network that runs in its own form is run on the smallest window it takes, and its tensors are scaled to the
    window: they grow with its voxels. A prepared one also holds pieces that do not grow; it is run on two windows of
    different length, which tells the two apart.
    """
    if (in_channels, window) in MEASURED.get(network, {}):
        return MEASURED[network][in_channels, window]
    state = [*network.parameters(), *network.buffers()]
    k, j, i = smallest_window(network, window)
    device = state[0].device if state else torch.device("cpu")
    weights = sum(tensor.numel() * tensor.element_size() for tensor in state)
    with torch.inference_mode(), LiveBytes(state) as first, as_it_runs(network, device):
        if not _is_prepared(network):
            small = _peak(network, state, (in_channels, k, j, i))
            total = weights + first.alive + math.ceil(WORK_SPACE * small * (math.prod(window) / (k * j * i)))
        else:
            # Pieces are cut along k, so that a window twice as long holds as large ones.
            first_shape = min((2 * k, j, i), window, key=math.prod)
            small = _peak(network, state, (in_channels, *first_shape))
            kept = first.alive + weights  # oneDNN keeps them once more, where they cannot be looked at
            more = math.prod(window) - math.prod(first_shape)
            growth = 0.0
            if more:
                large = _peak(network, state, (in_channels, 4 * k, j, i))
                growth = max(0.0, (large - small) / (2 * k * j * i))
            total = weights + kept + math.ceil(PREPARED_WORK_SPACE * (small + growth * more))
    MEASURED.setdefault(network, {})[in_channels, window] = total
    return total


def _peak(network: torch.nn.Module, state: Sequence[torch.Tensor], shape: tuple[int, int, int, int]) -> int:
    """The largest sum of tensors alive at once, the image (channels, k, j, i) among them, in a second run."""
    image = torch.zeros((1, *shape), device=state[0].device if state else None)
    network(image)
    with LiveBytes(state) as live:
        network(image)
    return live.peak + image.numel() * image.element_size()


def _is_prepared(network: torch.nn.Module) -> bool:
    return any("forward" in module.__dict__ for module in network.modules())


def as_it_runs(network: torch.nn.Module, device: torch.device) -> AbstractContextManager[object]:
    """The form in which a network segments on this device: on a CPU the prepared one, on others its own."""
    if device.type != "cpu" or network.training or _is_prepared(network):
        return nullcontext()
    return prepare_for_inference(network)


def smallest_window(network: torch.nn.Module, window: Size) -> Size:
    """The smallest window (k, j, i) up to this one that the network takes and that tells how it behaves."""
    if getattr(network, "exact_size", False):  # it takes no other
        return window
    if getattr(network, "whole_slices", False):  # it resizes slices, so only their number counts
        return 1, *window[1:]
    smallest = int(max(getattr(network, "minimum_size", 1), getattr(network, "size_multiple", 1), SMALLEST_SAMPLE))
    k, j, i = (min(length, smallest) for length in window)
    return k, j, i


class LiveBytes(TorchFunctionMode):
    """While active, follows every tensor that is made and notes the largest sum of bytes alive at once (`peak`).

    Tensors that share memory with those in `known` are not counted.
    """

    def __init__(self, known: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self.alive = 0
        self.peak = 0
        self.known = {tensor.untyped_storage().data_ptr() for tensor in known}
        self.followed: dict[int, Any] = {}

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(results):
            # oneDNN's reordered weights have no storage to ask; next to the maps they are small.
            if isinstance(tensor, torch.Tensor) and not tensor.is_mkldnn:
                self.follow(tensor.untyped_storage())
        return results

    def follow(self, storage: torch.UntypedStorage) -> None:
        """Count a storage once, until it is freed."""
        key = id(storage)
        if key in self.followed or storage.data_ptr() in self.known:
            return
        size = storage.nbytes()
        self.alive += size
        self.peak = max(self.peak, self.alive)
        self.followed[key] = weakref.ref(storage, self.forget(key, size))

    def forget(self, key: int, size: int) -> Callable[[Any], None]:
        """Return what happens when a storage is freed."""

        def freed(_: Any) -> None:
            self.alive -= size
            del self.followed[key]

        return freed


def check_fits(plan: MemoryPlan, device: torch.device) -> None:
    """RunError, before anything is computed, when the run will not fit into the memory that is free."""
    free = free_memory()
    needed = plan.peak_bytes - PROCESS_BYTES if device.type == "cpu" else plan.preparing
    if free is not None and needed > free:
        raise RunError(
            f"This run needs about {in_words(needed)} of memory and {in_words(free)} are free: "
            "close other programs, crop the volume, or choose a model with a coarser spacing."
        )
    if device.type == "cuda":
        free_there = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
        if plan.network > free_there:
            raise RunError(
                f"The network needs about {in_words(plan.network)} on {device} and {in_words(free_there)} are free: "
                "close other programs that use it, or choose the CPU."
            )


def free_memory() -> int | None:
    """Return the bytes of memory that are free, or None where psutil is not there to tell."""
    try:
        import psutil
    except ImportError:
        return None
    return int(psutil.virtual_memory().available)


def in_words(count: int) -> str:
    """Return bytes as MiB or GiB."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{max(1, round(count / 2**20))} MiB"
