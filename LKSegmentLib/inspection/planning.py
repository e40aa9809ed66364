"""What an inspection of a whole volume will take: memory, files and time, known before anything of it is computed."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from LKSegmentLib.errors import InputError
from LKSegmentLib.inference.devices import resolve_device
from LKSegmentLib.inference.memory import MemoryPlan, as_it_runs, free_memory, in_words, smallest_window
from LKSegmentLib.inference.segmentation import planned, run_network
from LKSegmentLib.inference.windows import WindowLayout
from LKSegmentLib.packages import Manifest, Package
from LKSegmentLib.volumes import Volume

from .by_network import exposed
from .class_gradients import is_gradient
from .exposed import Chosen, choose
from .map_storage import LARGEST_SHARE, room_on_disk
from .recording import Taps, lattice_of
from .stitching import BYTES_PER_VOXEL


@dataclass(frozen=True)
class InspectionPlan:
    """What an inspection will take.

    Attributes:
        chosen: what is recorded while the volume is segmented.
        gradients: names of the gradient-based maps, which come after it.
        map_bytes: of the stitched maps.
        window_bytes: of what is kept of a window until it has been read.
        on_disk: whether the stitched maps are kept in files instead of in memory.
        run: memory of the segmentation itself.
        seconds: a rough estimate for the windows, from one run of the network on its smallest input.
    """

    chosen: list[Chosen]
    gradients: list[str]
    map_bytes: int
    window_bytes: int
    on_disk: bool
    run: MemoryPlan
    seconds: float

    @property
    def sentence(self) -> str:
        """The plan in words."""
        tables = sum(entry.exposed.is_table for entry in self.chosen)
        parts = [_counted(len(self.chosen) - tables, "map")] if tables < len(self.chosen) else []
        parts += [_counted(tables, "table")] if tables else []
        parts += [_counted(len(self.gradients), "gradient map")] if self.gradients else []
        where = ""
        if self.on_disk:
            where = f" in files in {tempfile.gettempdir()} (more than {LARGEST_SHARE:.0%} of the free memory),"
        return (
            f"{' and '.join(parts)}, {in_words(self.map_bytes)}{where} beside the segmentation's "
            f"{in_words(self.run.peak_bytes + self.window_bytes)}; {_counted(self.run.windows, 'window')}, roughly "
            f"{_duration(self.seconds)}{', and the gradients after that' if self.gradients else ''}."
        )


def plan_inspection(
    volume: Volume, package: Package, layers: Sequence[str] | None = None, device: str | torch.device = "auto"
) -> InspectionPlan:
    """What recording `layers` will take. Nothing of the volume is computed.

    Raises:
        InputError: a click model, a map or channel that does not exist, a model with nothing to show, maps that fit
            neither into the memory nor on the disk, a volume that does not suit the model.
        RunError: the network fails.
    """
    manifest = package.manifest
    if manifest.kind != "volume":
        raise InputError(f'The model "{manifest.name}" works with clicks: give points=[((r, a, s), True), ...].')
    network = package.network(resolve_device(device))
    names = [layers] if isinstance(layers, str) else layers
    gradients = [name for name in dict.fromkeys(names or ()) if is_gradient(name)]
    others = None if names is None else [name for name in names if name not in gradients]
    chosen = [] if gradients and not others else choose(exposed(network), others, manifest.name)
    _, layout, _, run = planned(volume, manifest, network)
    sizes = {
        entry.name: BYTES_PER_VOXEL * math.prod(lattice_of(entry, layout).shape)
        for entry in chosen
        if not entry.exposed.is_table
    }
    seconds, window_bytes = _one_window(network, chosen, manifest, layout)
    in_files = _goes_to_disk(sizes, run, window_bytes)
    return InspectionPlan(chosen, gradients, sum(sizes.values()), window_bytes, in_files, run, layout.count * seconds)


def _goes_to_disk(sizes: dict[str, int], run: MemoryPlan, window_bytes: int) -> bool:
    free, total = free_memory(), sum(sizes.values())
    beside = run.image + run.slab + run.network + window_bytes
    if free is None or (total <= LARGEST_SHARE * free and total + beside <= free):
        return False
    room = room_on_disk()
    if total <= room:
        return True
    largest = max(sizes, key=lambda name: sizes[name])
    raise InputError(
        f"The maps need {in_words(total)} ({largest!r} alone {in_words(sizes[largest])}), too much for the "
        f"{in_words(free)} of free memory and for the {in_words(room)} free in {tempfile.gettempdir()}: choose fewer "
        "maps or channels, or the mean over the channels, crop the volume, or set TMPDIR to a folder with room."
    )


def _one_window(
    network: torch.nn.Module, chosen: list[Chosen], manifest: Manifest, layout: WindowLayout
) -> tuple[float, int]:
    """Roughly how long one window takes, recording, and the bytes that are kept of it until they have been read.

    The network is run on its smallest input, and both are scaled by the voxels.
    """
    k, j, i = smallest_window(network, layout.size)
    parameter = next(network.parameters(), None)
    sample = torch.zeros((1, manifest.in_channels, k, j, i), device=None if parameter is None else parameter.device)
    with torch.inference_mode(), as_it_runs(network, sample.device), Taps(network, chosen) as taps:
        taps.start()
        begun = time.perf_counter()
        float(run_network(network, sample, manifest).sum())  # the number makes a GPU finish
        seconds = time.perf_counter() - begun
    scale = math.prod(layout.size) / (k * j * i)
    return seconds * scale, math.ceil(taps.most_bytes * scale)


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
