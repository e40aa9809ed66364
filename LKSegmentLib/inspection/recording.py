"""Recording what a network shows while a volume is segmented, window by window, without touching the answer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from LKSegmentLib.errors import InputError, RunError
from LKSegmentLib.inference.windows import Window, WindowLayout
from LKSegmentLib.networks.prepared.listening import Listening, listen
from LKSegmentLib.packages import Manifest
from LKSegmentLib.volumes import Grid

from .exposed import Chosen
from .map_storage import Float, Zeros, in_memory
from .stitching import Lattice, StitchedMap, WindowMap
from .table_records import TableRecord, record_for


class Taps:
    """Reads chosen quantities as soon as their layers have answered; the tensors are let go at once.

    It listens to the modules by hooks that return nothing, and to the prepared forms (`prepare_for_inference`), which
    tell the same quantities; the answer is the same to the last bit. Only for a layer that a prepared form does
    not tell is the network run a second time, in its ordinary form: the two agree to rounding. Use it in a `with`
    block.

    Attributes:
        values: by name, of the last run: (k, j, i), () where pooled over the window, (channels, slices) of slices.
        runs_again: how often the network was run a second time.
        most_bytes: the most that tensors took which were kept until all layers of a quantity had answered.

    Raises:
        InputError: a layer that the network does not have.
    """

    def __init__(self, network: nn.Module, chosen: Sequence[Chosen]) -> None:
        self._network = network
        self._modules = dict(network.named_modules())
        self._chosen = list(chosen)
        self._layers = list(dict.fromkeys(layer for entry in chosen for layer in entry.exposed.layers))
        for layer in self._layers:
            if layer not in self._modules:
                raise InputError(f"The network has no layer {layer!r}.")
        self._hooks: list[Any] = []
        self._listening: list[Listening] = []
        self._waiting: list[Chosen] = []
        self._outputs: dict[str, Tensor] = {}
        self.values: dict[str, Float] = {}
        self.runs_again = 0
        self.most_bytes = 0

    def __enter__(self) -> Taps:
        for layer in self._layers:
            self._hooks.append(self._modules[layer].register_forward_hook(self._hook(layer)))
        self._hooks.append(self._network.register_forward_hook(self._look_again))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._hooks:
            handle.remove()
        self._hooks.clear()
        self.stop()

    def start(self) -> None:
        """Record the next run of the network into `values`."""
        self.stop()
        self.values = {}
        self._waiting = list(self._chosen)
        self._listening = [listen(self._modules[layer], partial(self._heard, layer)) for layer in self._layers]

    def stop(self) -> None:
        """Record no further runs."""
        for listening in self._listening:
            listening.remove()
        self._listening = []
        self._waiting = []
        self._outputs = {}

    def _look_again(self, network: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        prepared = {module: module.__dict__["forward"] for module in network.modules() if "forward" in module.__dict__}
        self._waiting = [entry for entry in self._waiting if entry.name not in self.values]
        if not self._waiting or not prepared:
            return
        self.runs_again += 1
        for module in prepared:
            del module.__dict__["forward"]
        try:
            network.forward(*inputs)
        finally:
            for module, forward in prepared.items():
                module.__dict__["forward"] = forward

    def _hook(self, layer: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            self._heard(layer, output)

        return hook

    def _heard(self, layer: str, output: Tensor) -> None:
        if not any(layer in entry.exposed.layers for entry in self._waiting):
            return
        self._outputs[layer] = output.detach()
        self.most_bytes = max(self.most_bytes, sum(kept.nbytes for kept in self._outputs.values()))
        ready = [entry for entry in self._waiting if entry.exposed.layers[-1] == layer]
        with torch.no_grad():
            for entry in ready:
                outputs = [self._outputs[name] for name in entry.exposed.layers]
                value = entry.value(outputs).cpu().numpy().astype(np.float32, copy=True)
                # A network of slices answers for a few of them at a time.
                before = self.values.get(entry.name)
                self.values[entry.name] = value if before is None else np.concatenate((before, value), axis=-1)
        self._waiting = [entry for entry in self._waiting if entry not in ready or entry.exposed.extent == "slices"]
        needed = {name for entry in self._waiting for name in entry.exposed.layers}
        self._outputs = {name: kept for name, kept in self._outputs.items() if name in needed}


def lattice_of(chosen: Chosen, layout: WindowLayout) -> Lattice:
    """Where the voxels of the stitched map of a chosen quantity are."""
    if chosen.exposed.extent == "window":
        return Lattice.of_windows(layout)
    return Lattice.of(layout, chosen.exposed.stride, chosen.exposed.offset)


class MapRecorder:
    """A `WindowRecorder` of the segmentation that stitches the chosen quantities as the labels are stitched.

    with MapRecorder(network, chosen) as recorder:
        labels = segment_volume(volume, package, device, recorder=recorder)
    recorder.stitched["LK attention, level 2"].finished()

    Args:
        network: in evaluation mode.
        chosen: what is recorded.
        manifest: of the model; names its labels in tables.
        zeros: makes the arrays in which maps are stitched: `map_storage.in_memory` or `on_disk`.
    """

    def __init__(
        self,
        network: nn.Module,
        chosen: Sequence[Chosen],
        manifest: Manifest | None = None,
        zeros: Zeros = in_memory,
    ) -> None:
        self.chosen = list(chosen)
        self.stitched: dict[str, StitchedMap | WindowMap] = {}
        self.tables: dict[str, TableRecord] = {}
        self._manifest, self._zeros = manifest, zeros
        self.layout: WindowLayout | None = None
        self.working: Grid | None = None
        self._taps = Taps(network, chosen)

    def __enter__(self) -> MapRecorder:
        self._taps.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._taps.__exit__(kind, error, trace)

    @property
    def runs_again(self) -> int:
        """How often the network was run a second time; see `Taps`."""
        return self._taps.runs_again

    def start(self, layout: WindowLayout, grid: Grid) -> None:
        """Make room for the maps of a volume."""
        self.layout, self.working = layout, grid
        for chosen in self.chosen:
            if chosen.exposed.is_table:
                self.tables[chosen.name] = record_for(chosen, layout, grid, self._manifest)
                continue
            lattice = lattice_of(chosen, layout)
            kind = WindowMap if chosen.exposed.extent == "window" else StitchedMap
            self.stitched[chosen.name] = kind(lattice, self._zeros)

    def before_window(self, window: Window) -> None:
        """Begin to record."""
        self._taps.start()

    def after_window(self, window: Window, logits: Tensor) -> None:
        """Add what was recorded. RunError when a layer did not run."""
        self._taps.stop()
        for name, stitched in self.stitched.items():
            value = self._taps.values.get(name)
            if value is None:
                raise RunError(f"The map {name!r} was not computed in this run: its layer did not run.")
            if isinstance(stitched, WindowMap):
                stitched.add(window, float(value))
            else:
                stitched.add(window, value)
        for name, record in self.tables.items():
            if name not in self._taps.values:
                raise RunError(f"The table {name!r} was not computed in this run: its layer did not run.")
            record.add(window, self._taps.values[name], logits)
