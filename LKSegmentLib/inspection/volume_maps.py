"""Segmenting a whole volume and seeing why: the labels, and the maps and tables that were asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from LKSegmentLib.errors import InputError
from LKSegmentLib.inference.devices import resolve_device
from LKSegmentLib.inference.segmentation import Cancel, Progress, segment_volume
from LKSegmentLib.packages import Manifest, Package
from LKSegmentLib.volumes import Volume

from .class_gradients import gradient_maps
from .exposed import Chosen
from .map_storage import in_memory, on_disk
from .maps import Inspection, Map
from .planning import InspectionPlan, plan_inspection
from .recording import MapRecorder
from .stitched_maps import maps_of
from .stitching import WindowMap
from .window_numbers import window_tables

Announce = Callable[[str], None]


def examine_volume(
    volume: Volume,
    package: Package,
    layers: Sequence[str] | None = None,
    device: str | torch.device = "auto",
    progress: Progress | None = None,
    cancelled: Cancel | None = None,
    announce: Announce | None = None,
) -> Inspection:
    """Segment a volume as `segment_volume` does, and record maps and tables meanwhile; the labels stay the same.

    Args:
        volume: the image.
        package: a package of kind "volume".
        layers: names of maps and tables ("NAME", or "NAME #5" for one channel), and of gradient-based maps (see
            `class_gradients`), for which every window is run once more, there and back; None: the network's default
            ones.
        device, progress, cancelled: as of `segment_volume`.
        announce: told, before anything is computed, how much memory and time it will take, and whether the maps are
            kept in files, because they are large for the memory; those are gone with the maps.

    Returns:
        Labels, maps and tables. Each map of several windows is followed by "NAME: window disagreement", the weighted
        standard deviation between the windows in the same unit; numbers that hold for a whole window have none, and
        are listed in tables too.

    Raises:
        InputError: a map or channel that does not exist (the sentence lists those that do), a model with nothing to
            show, maps that fit neither into the memory nor on the disk, and what `segment_volume` raises.
        RunError, Cancelled: as `segment_volume`.
    """
    plan = plan_inspection(volume, package, layers, device)
    return _examined(volume, package, plan, device, progress, cancelled, announce)


def inspect_volume(
    volume: Volume,
    package: Package,
    layers: Sequence[str] | None = None,
    device: str | torch.device = "auto",
    progress: Progress | None = None,
    cancelled: Cancel | None = None,
    announce: Announce | None = None,
) -> tuple[Volume, list[Map]]:
    """The labels and the maps of `examine_volume`; its arguments and errors, and:

    Raises:
        InputError: nothing that was asked for has a place in the image: it is in tables, which `examine_volume` gives.
    """
    plan = plan_inspection(volume, package, layers, device)
    tables = [entry.name for entry in plan.chosen if entry.exposed.is_table]
    if len(tables) == len(plan.chosen) and not plan.gradients:
        raise InputError(
            f'What the model "{package.manifest.name}" shows here has no place in the image and is no map but a table: '
            f"{'; '.join(tables)}. Ask for tables too (lk.examine, lksegment inspect)."
        )
    found = _examined(volume, package, plan, device, progress, cancelled, announce)
    return found.labels, found.maps


def _examined(
    volume: Volume,
    package: Package,
    plan: InspectionPlan,
    device: str | torch.device,
    progress: Progress | None,
    cancelled: Cancel | None,
    announce: Announce | None,
) -> Inspection:
    if announce is not None:
        announce(plan.sentence)
    network = package.network(resolve_device(device))
    zeros = on_disk if plan.on_disk else in_memory
    with MapRecorder(network, plan.chosen, package.manifest, zeros) as recorder:
        labels = segment_volume(volume, package, device, progress, cancelled, recorder)
    found = _inspection(labels, recorder, plan, package.manifest)
    if plan.gradients:
        found.maps.extend(gradient_maps(volume, package, plan.gradients, device, progress, cancelled))
    return found


def _inspection(labels: Volume, recorder: MapRecorder, plan: InspectionPlan, manifest: Manifest) -> Inspection:
    layout, working = recorder.layout, recorder.working
    assert layout is not None and working is not None
    maps: list[Map] = []
    pooled: list[tuple[Chosen, WindowMap]] = []
    for chosen in plan.chosen:
        if chosen.exposed.is_table:
            continue
        stitched = recorder.stitched.pop(chosen.name)
        if isinstance(stitched, WindowMap):
            pooled.append((chosen, stitched))
        maps += maps_of(chosen, stitched, layout, working, manifest)
    tables = [record.finished() for record in recorder.tables.values()]
    return Inspection(labels, maps, [*tables, *window_tables(pooled, layout, working, manifest)])
