"""Segmenting a whole volume and seeing why: the labels, and the maps that were asked for, each with its passport."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from LKSegmentLib.errors import InputError
from LKSegmentLib.inference.devices import resolve_device
from LKSegmentLib.inference.memory import SMALLEST_SAMPLE, MemoryPlan, free_memory, in_words
from LKSegmentLib.inference.segmentation import Cancel, Progress, planned, run_network, segment_volume
from LKSegmentLib.inference.windows import WindowLayout
from LKSegmentLib.networks.preparation import prepare_for_inference
from LKSegmentLib.packages import Manifest, Package
from LKSegmentLib.volumes import Grid, Volume

from .by_network import exposed
from .exposed import Chosen, choose
from .maps import SENTENCE, Map
from .recording import MapRecorder, Taps, lattice_of
from .stitching import BYTES_PER_VOXEL, Float, StitchedMap, WindowMap

_LISTED_WINDOWS = 64  # in a passport


@dataclass(frozen=True)
class InspectionPlan:
    """What an inspection will take, known before it starts.

    Attributes:
        chosen: the maps.
        map_bytes: memory of their stitching.
        run: memory of the segmentation itself.
        seconds: a rough estimate for the windows, from one run of the network on its smallest input.
    """

    chosen: list[Chosen]
    map_bytes: int
    run: MemoryPlan
    seconds: float

    @property
    def sentence(self) -> str:
        """The plan in words."""
        names = f"{len(self.chosen)} map{'s' if len(self.chosen) > 1 else ''}"
        return (
            f"{names}, {in_words(self.map_bytes)} beside the segmentation's {in_words(self.run.peak_bytes)}; "
            f"{self.run.windows} window{'s' if self.run.windows > 1 else ''}, roughly {_duration(self.seconds)}."
        )


def plan_inspection(
    volume: Volume, package: Package, layers: Sequence[str] | None = None, device: str | torch.device = "auto"
) -> InspectionPlan:
    """What recording `layers` will take. Nothing of the volume is computed.

    Raises:
        InputError: as of `inspect_volume`.
        RunError: the network fails.
    """
    manifest = package.manifest
    if manifest.kind != "volume":
        raise InputError(f'The model "{manifest.name}" works with clicks: give points=[((r, a, s), True), ...].')
    network = package.network(resolve_device(device))
    chosen = choose(exposed(network), layers, manifest.name)
    _, layout, _, run = planned(volume, manifest, network)
    sizes = {entry.name: BYTES_PER_VOXEL * math.prod(lattice_of(entry, layout).shape) for entry in chosen}
    _check_memory(sizes, run)
    seconds = layout.count * _window_seconds(network, chosen, manifest, layout)
    return InspectionPlan(chosen, sum(sizes.values()), run, seconds)


def inspect_volume(
    volume: Volume,
    package: Package,
    layers: Sequence[str] | None = None,
    device: str | torch.device = "auto",
    progress: Progress | None = None,
    cancelled: Cancel | None = None,
    announce: Callable[[str], None] | None = None,
) -> tuple[Volume, list[Map]]:
    """Segment a volume as `segment_volume` does, and record maps meanwhile. The labels are the same as without.

    Args:
        volume: the image.
        package: a package of kind "volume".
        layers: names of maps ("NAME", or "NAME #5" for one channel); None: the network's default ones.
        device, progress, cancelled: as of `segment_volume`.
        announce: told, before anything is computed, how much memory and time it will take.

    Returns:
        The labels (uint16, on the volume's grid), and the maps: float32 in raw units on their own grids over the
        whole volume. Each map of several windows is followed by "NAME: window disagreement", the weighted standard
        deviation between the windows in the same unit; numbers that hold for a whole window have none.

    Raises:
        InputError: a map or channel that does not exist (the sentence lists those that do), a quantity that is no
            map, a model with nothing to show, maps larger than the memory, and what `segment_volume` raises.
        RunError, Cancelled: as `segment_volume`.
    """
    plan = plan_inspection(volume, package, layers, device)
    if announce is not None:
        announce(plan.sentence)
    with MapRecorder(package.network(resolve_device(device)), plan.chosen) as recorder:
        labels = segment_volume(volume, package, device, progress, cancelled, recorder)
    assert recorder.layout is not None and recorder.working is not None
    maps: list[Map] = []
    for chosen in plan.chosen:
        maps += _maps_of(chosen, recorder.stitched.pop(chosen.name), recorder.layout, recorder.working, package)
    return labels, maps


def _maps_of(
    chosen: Chosen, stitched: StitchedMap | WindowMap, layout: WindowLayout, working: Grid, package: Package
) -> list[Map]:
    grid = stitched.lattice.grid(working)
    passport = _passport(chosen, stitched, layout, working, package.manifest)
    if isinstance(stitched, WindowMap):
        values = stitched.finished()
        listed = [{"first voxel (k, j, i)": list(lower), "value": value} for lower, value in stitched.values]
        passport["values of windows"] = listed[:_LISTED_WINDOWS]
        if len(listed) > _LISTED_WINDOWS:
            passport["values of windows left out"] = len(listed) - _LISTED_WINDOWS
        return [Map(chosen.name, Volume(values, grid.ijk_to_ras), passport)]
    values, disagreement = stitched.finished()
    if layout.count == 1:
        return [Map(chosen.name, Volume(values, grid.ijk_to_ras), passport)]
    companion = f"{chosen.name}: window disagreement"
    passport["disagreement"] = {"map": companion, **_summary(disagreement)}
    other = {
        **passport,
        "name": companion,
        "operator": "weighted standard deviation, over the windows that see a voxel, of: " + str(passport["operator"]),
        "kind": "disagreement of windows",
        "range": [0.0, None],
        "neutral": None,
        "identifiable": "yes; where it is large, the map tells of the window and not of the image",
    }
    del other["disagreement"]
    return [
        Map(chosen.name, Volume(values, grid.ijk_to_ras), passport),
        Map(companion, Volume(disagreement, grid.ijk_to_ras), other),
    ]


def _passport(
    chosen: Chosen, stitched: StitchedMap | WindowMap, layout: WindowLayout, working: Grid, manifest: Manifest
) -> dict[str, Any]:
    entry, lattice = chosen.exposed, stitched.lattice
    passport: dict[str, Any] = {
        "name": chosen.name,
        "model": manifest.name,
        "network": manifest.network,
        "layer": ", ".join(entry.layers),
        **entry.meaning,
        "sentence": SENTENCE,
        "window (k, j, i)": list(layout.size),
        "windows": layout.count,
        "working spacing mm": [round(length, 6) for length in working.spacing],
        "map spacing mm": [round(length, 6) for length in lattice.grid(working).spacing],
        "map shape (k, j, i)": list(lattice.shape),
    }
    if entry.channels > 1:
        passport["channel"] = f"mean of {entry.channels}" if chosen.channel is None else chosen.channel
    if isinstance(stitched, WindowMap):
        passport["native grid"] = "none: one number for each window"
        passport["stitching"] = "none: every voxel shows the number of the window that weighs most there"
        passport["disagreement"] = "not measured: nothing is averaged"
        return passport
    passport["native stride (working voxels)"] = entry.stride
    passport["native spacing mm"] = [round(length * entry.stride, 6) for length in working.spacing]
    passport["first voxel centred at (window voxels)"] = entry.offset
    passport["stitching"] = "none: one window"
    passport["disagreement"] = "none: one window"
    if layout.count > 1:
        repeated = "" if set(lattice.steps) == {entry.stride} else "; voxels repeated where windows do not meet on them"
        passport["stitching"] = f"mean over windows with the segmentation's Gaussian weights{repeated}"
    return passport


def _summary(values: Float) -> dict[str, float]:
    middle, high = (float(value) for value in np.percentile(values, (50, 95)))
    return {"median": middle, "95 percent below": high}


def _check_memory(sizes: dict[str, int], run: MemoryPlan) -> None:
    free = free_memory()
    if free is None or sum(sizes.values()) + run.image + run.slab + run.network <= free:
        return
    largest = max(sizes, key=lambda name: sizes[name])
    raise InputError(
        f"The maps need {in_words(sum(sizes.values()))} of memory ({largest!r} alone {in_words(sizes[largest])}) "
        f"beside the segmentation's {in_words(run.peak_bytes)}, and {in_words(free)} are free: choose fewer maps or "
        "channels, or the mean over the channels, or crop the volume."
    )


def _window_seconds(network: torch.nn.Module, chosen: list[Chosen], manifest: Manifest, layout: WindowLayout) -> float:
    """Roughly how long one window takes, recording: the network on its smallest input, scaled by the voxels."""
    smallest = int(max(getattr(network, "minimum_size", 1), getattr(network, "size_multiple", 1), SMALLEST_SAMPLE))
    k, j, i = (min(length, smallest) for length in layout.size)
    parameter = next(network.parameters(), None)
    sample = torch.zeros((1, manifest.in_channels, k, j, i), device=None if parameter is None else parameter.device)
    # As in the run: on a CPU in the prepared form, and beside it in the ordinary one.
    prepared: AbstractContextManager[object] = (
        prepare_for_inference(network) if sample.device.type == "cpu" else nullcontext()
    )
    with torch.inference_mode(), prepared, Taps(network, chosen) as taps:
        taps.start()
        begun = time.perf_counter()
        float(run_network(network, sample, manifest).sum())  # the number makes a GPU finish
    return (time.perf_counter() - begun) * math.prod(layout.size) / (k * j * i)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
