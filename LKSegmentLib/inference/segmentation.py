"""Segmenting a whole volume: prepare, run the windows, stitch, decide, put back on the image's grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from LKSegmentLib.errors import Cancelled, InputError, RunError
from LKSegmentLib.inference.devices import resolve_device
from LKSegmentLib.inference.labels import AxisMap, axis_maps, write_labels
from LKSegmentLib.inference.memory import SLAB_BYTES, MemoryPlan, check_fits, network_memory, plan_memory
from LKSegmentLib.inference.preparation import Preparation, PreparedVolume, preparation_for, prepared_volume
from LKSegmentLib.inference.windows import Window, WindowLayout, cut, stitched, window_layout
from LKSegmentLib.networks.preparation import prepare_for_inference
from LKSegmentLib.packages import Manifest, Package
from LKSegmentLib.volumes import Grid, Volume

Progress = Callable[[str, float], None]
Cancel = Callable[[], bool]


class WindowRecorder(Protocol):
    """Something that watches the network window by window, such as the taps of `inspection`.

    It is told of every window exactly once, in order. What it stitches from `layout.weights` and
    `layout.totals` is weighted as the labels are. It must not change any tensor.
    """

    def start(self, layout: WindowLayout, grid: Grid) -> None:
        """Before the first window; `grid` is the working grid that the layout's voxels belong to."""

    def before_window(self, window: Window) -> None:
        """The network is about to run on this window."""

    def after_window(self, window: Window, logits: torch.Tensor) -> None:
        """The network has answered with logits (channels, k, j, i)."""


class WindowRunner:
    """Runs the network on windows of a prepared volume and reports to progress, cancellation and the recorder."""

    def __init__(
        self,
        network: torch.nn.Module,
        prepared: PreparedVolume,
        manifest: Manifest,
        device: torch.device,
        total: int,
        progress: Progress | None,
        cancelled: Cancel | None,
        recorder: WindowRecorder | None,
    ) -> None:
        self.network = network
        self.prepared = prepared
        self.manifest = manifest
        self.device = device
        self.total = total
        self.progress = progress
        self.cancelled = cancelled
        self.recorder = recorder
        self.done = 0
        self.recorded: set[int] = set()

    def __call__(self, window: Window) -> torch.Tensor:
        """Return the logits (channels, k, j, i) of a window. Cancelled when the person asked to stop."""
        stop_if(self.cancelled)
        tensor = cut(self.prepared.array, window, self.prepared.padding).to(self.device)
        # A window across the border of two tiles is run for each of them, but recorded once.
        recorder = None if window.index in self.recorded else self.recorder
        if recorder is not None:
            self.recorded.add(window.index)
            recorder.before_window(window)
        logits = run_network(self.network, tensor, self.manifest)
        if recorder is not None:
            recorder.after_window(window, logits)
        self.done += 1
        report(self.progress, "windows", self.done / self.total)
        return logits


def segment_volume(
    volume: Volume,
    package: Package,
    device: str | torch.device = "auto",
    progress: Progress | None = None,
    cancelled: Cancel | None = None,
    recorder: WindowRecorder | None = None,
    slab_limit: int = SLAB_BYTES,
) -> Volume:
    """Return the labels of a volume: uint16 (k, j, i) on the volume's own grid, 0 for background.

    progress     called as progress(stage, fraction) with the stages "preparing", "windows", "labels"
    cancelled    asked between windows; when it says True the run ends with Cancelled
    recorder     watches the windows; the labels are the same with and without one, to the last bit
    slab_limit   bytes for the sums of overlapping windows; a smaller one costs time, never accuracy

    Raises InputError for a package, device or volume that do not go together, RunError when the memory does not
    suffice or the network fails, Cancelled.
    """
    manifest = package.manifest
    if manifest.kind != "volume":
        raise InputError(f'The model "{manifest.name}" works with clicks, not on whole volumes: choose another model.')
    torch_device = resolve_device(device)
    report(progress, "preparing", 0.0)
    stop_if(cancelled)
    network = package.network(torch_device)
    preparation, layout, maps, plan = planned(volume, manifest, network, slab_limit)
    check_fits(plan, torch_device)
    prepared = prepared_volume(volume, manifest, lambda fraction: report(progress, "preparing", fraction))

    total = sum(sum(tile.region.overlap(window) is not None for window in layout.windows()) for tile in plan.tiles)
    runner = WindowRunner(network, prepared, manifest, torch_device, total, progress, cancelled, recorder)
    if recorder is not None:
        recorder.start(layout, preparation.working)
    labels = np.zeros(preparation.order.canonical.shape, dtype=np.uint16)
    sums_on = sums_device(plan, torch_device)
    # Also while a recorder watches, so that it changes nothing.
    on_cpu = torch_device.type == "cpu"
    with torch.inference_mode(), prepare_for_inference(network) if on_cpu else nullcontext():
        for tile in plan.tiles:
            slabs = stitched(layout, tile.region, manifest.out_channels, runner, sums_on)
            write_labels(slabs, tile, maps, manifest, labels)
    report(progress, "labels", 0.0)
    result = volume_of_labels(labels, preparation)
    report(progress, "labels", 1.0)
    return result


def planned(
    volume: Volume, manifest: Manifest, network: torch.nn.Module, slab_limit: int = SLAB_BYTES
) -> tuple[Preparation, WindowLayout, tuple[AxisMap, AxisMap, AxisMap], MemoryPlan]:
    """Return everything about a run that is known before it starts."""
    preparation = preparation_for(volume.grid, manifest.spacing)
    layout = layout_for(preparation.working, manifest, network)
    maps = axis_maps(preparation)
    with failures_of(manifest, "a window before the run"):
        needed = network_memory(network, manifest.in_channels, layout.size)
    return preparation, layout, maps, plan_memory(preparation, maps, layout, manifest, needed, slab_limit)


def layout_for(grid: Grid, manifest: Manifest, network: torch.nn.Module) -> WindowLayout:
    """Return the package's windows over a working grid, on the lattice of the network's size multiple."""
    multiple = int(getattr(network, "size_multiple", 1))
    smallest = int(getattr(network, "minimum_size", 1))
    k, j, i = (max(length, smallest) for length in manifest.window)
    if getattr(network, "whole_slices", False):  # nothing couples its slices, and a part of one is another image
        return window_layout(grid.shape, (min(k, grid.shape[0]), *grid.shape[1:]), 0.0, multiple)
    return window_layout(grid.shape, (k, j, i), manifest.overlap, multiple)


def run_network(network: torch.nn.Module, tensor: torch.Tensor, manifest: Manifest) -> torch.Tensor:
    """Return the full-resolution logits (channels, k, j, i) of one window (1, channel, k, j, i).

    A network with deep supervision answers with a list, the full resolution first. RunError when it fails.
    """
    with failures_of(manifest, str(tensor.device)):
        answer = network(tensor)
    logits: torch.Tensor = answer[0] if isinstance(answer, (list, tuple)) else answer
    expected = (1, manifest.out_channels, *tensor.shape[2:])
    if tuple(logits.shape) != expected:
        raise RunError(
            f'The network of the model "{manifest.name}" answered with the shape {tuple(logits.shape)} instead of '
            f"{expected}: the package describes another network."
        )
    return logits[0].float()


@contextmanager
def failures_of(manifest: Manifest, place: str) -> Iterator[None]:
    """Turn what torch raises while a network runs into one sentence."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise RunError(
            f'The memory of {place} does not suffice for the model "{manifest.name}": '
            "close other programs that use it, or choose another device."
        ) from error
    except RunError:
        raise
    except RuntimeError as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "allocate memory" in first_line:
            first_line = "the memory does not suffice"
        raise RunError(
            f'The network of the model "{manifest.name}" failed on {place} ({first_line}): '
            "choose another device or model, and tell its author."
        ) from error


def sums_device(plan: MemoryPlan, device: torch.device) -> torch.device:
    """Return where the sums of windows are kept: on the device when they fit beside the network, else on the CPU."""
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        return device if plan.slab + 2 * plan.network < 0.8 * free else torch.device("cpu")
    return torch.device("cpu")


def volume_of_labels(labels: NDArray[np.uint16], preparation: Preparation) -> Volume:
    """Return labels on canonical axes as a volume on the image's own grid."""
    return Volume(preparation.order.undo_array(labels), preparation.order.source.ijk_to_ras)


def report(progress: Progress | None, stage: str, fraction: float) -> None:
    """Tell the caller how far the run is."""
    if progress is not None:
        progress(stage, fraction)


def stop_if(cancelled: Cancel | None) -> None:
    """Raise Cancelled when the caller asked to stop."""
    if cancelled is not None and cancelled():
        raise Cancelled("The segmentation was cancelled.")
