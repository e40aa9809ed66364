"""One window of a model on an image, kept so that the model can be asked again: about an altered image, or altered.

What is altered is the image as the model is given it. Everything that is made of it is made anew: for a click model
that is the ranks and the similarities to the clicks, while the clicks and the previous mask stay.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from LKSegmentLib.errors import InputError
from LKSegmentLib.inference.clicks import ClickModelSession
from LKSegmentLib.inference.devices import resolve_device
from LKSegmentLib.inference.preparation import preparation_for, prepared_volume
from LKSegmentLib.inference.segmentation import layout_for, run_network
from LKSegmentLib.inference.windows import cut
from LKSegmentLib.networks.preparation import prepare_for_inference
from LKSegmentLib.packages import Manifest, Package
from LKSegmentLib.prompts import Point, PromptChannels, without_last
from LKSegmentLib.volumes import Grid, Volume, canonical_axes

from .by_network import exposed
from .class_gradients import is_gradient
from .click_maps import EXPOSED
from .exposed import choose
from .maps import SENTENCE, Map, reduced_grid
from .reach import check_inside, nearest_window
from .taps import recorded

Float = NDArray[np.float32]
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Answer:
    """What a model says in the window: `probability` float32 (k, j, i) of the examined label, and where it says so."""

    probability: Float
    mask: NDArray[np.bool_]


@dataclass(frozen=True)
class Reading:
    """How a map is read: from the outputs of `layers` and the logits (1, c, k, j, i) to (k, j, i)."""

    name: str
    layers: tuple[str, ...]
    read: Callable[[dict[str, Tensor], Tensor], Tensor]
    stride: int
    offset: float
    meaning: dict[str, Any]


class ExaminedWindow(ABC):
    """A window of a model on an image.

    Attributes:
        manifest: of the model's package.
        network: in evaluation mode.
        grid: of the window's voxels.
        image: float32 (channel, k, j, i): what can be altered.
        label: name of the output that is looked at.
    """

    manifest: Manifest
    network: nn.Module
    grid: Grid
    image: Float
    label: str

    @abstractmethod
    def inputs(self, image: Float) -> Tensor:
        """What the network is given for an image (channel, k, j, i): (1, channels, k, j, i)."""

    @abstractmethod
    def answer(self, logits: Tensor) -> Answer:
        """What the logits (channels, k, j, i) say about the examined label."""

    @abstractmethod
    def reading(self, name: str) -> Reading:
        """How the map of this name is read. InputError lists the names there are."""

    @abstractmethod
    def middle(self, answer: Answer) -> NDArray[np.float64]:
        """The places (n, 3), RAS mm, near which anything is likely to matter: the clicks, or the answer's middle."""

    def asked(self, image: Float) -> Answer:
        """What the model says about an image (channel, k, j, i)."""
        with torch.inference_mode():
            return self.answer(run_network(self.network, self.inputs(image), self.manifest))

    def values(self, names: Sequence[str], network: nn.Module | None = None) -> dict[str, Float]:
        """The maps (k, j, i) of these names in this window, of the model's network or of another one of its kind."""
        asked = self.network if network is None else network
        readings = [self.reading(name) for name in names]
        layers = list(dict.fromkeys(layer for reading in readings for layer in reading.layers))
        with torch.inference_mode(), recorded(asked, layers) as outputs:
            logits = run_network(asked, self.inputs(self.image), self.manifest)[None]
            return {
                name: reading.read(outputs, logits).float().cpu().numpy().astype(np.float32)
                for name, reading in zip(names, readings, strict=True)
            }

    def maps(self, names: Sequence[str]) -> list[Map]:
        """The maps of these names in this window, on their own grids. Raises InputError as `reading`."""
        return [self._map(self.reading(name), values) for name, values in self.values(names).items()]

    def _map(self, reading: Reading, values: Float) -> Map:
        k, j, i = values.shape
        grid = reduced_grid(self.grid, reading.stride, (k, j, i), reading.offset)
        passport = {
            "name": reading.name,
            "model": self.manifest.name,
            "network": self.manifest.network,
            "layer": ", ".join(reading.layers),
            **reading.meaning,
            "sentence": SENTENCE,
            "stitching": "none: one window",
        }
        return Map(reading.name, Volume(values, grid.ijk_to_ras), passport)

    @contextmanager
    def running_often(self) -> Iterator[None]:
        """While many images are asked about: on a CPU in the prepared form, which agrees to rounding."""
        on_cpu = next(self.network.parameters()).device.type == "cpu"
        with prepare_for_inference(self.network) if on_cpu else nullcontext():
            yield


class ClickedWindow(ExaminedWindow):
    """The last window of a click model after some clicks."""

    def __init__(self, session: ClickModelSession, points: Sequence[Point]) -> None:
        if not points:
            raise InputError("The maps of a click model depend on the clicks: give at least one.")
        self._session = session
        self._points = tuple(points)
        self._window = session.state_for(self._points).window
        self._before = session.inputs_for(self._points)[session.channel_names.index("previous mask")].copy()
        self.manifest = session.package.manifest
        self.network = session.network
        self.grid = self._window.window_grid
        canonical = canonical_axes(session.volume.grid).apply_array(session.volume.array)
        self.image = self._window.sample(canonical)[np.newaxis]
        self.label = "the clicked structure"

    def inputs(self, image: Float) -> Tensor:
        channels = PromptChannels(image[0], self._session.channel_names)
        for point in self._points:
            voxel = self._session.canonical_grid.ijk_of(point.ras)[::-1]
            channels.add_click(self._window.position_of(voxel), point.positive)
        channels.set_previous_mask(self._before, len(without_last(self._points)))
        tensor = torch.from_numpy(channels.array)[None]
        return tensor.to(self._session.device, memory_format=torch.channels_last_3d)

    def answer(self, logits: Tensor) -> Answer:
        return Answer(torch.sigmoid(logits[0]).cpu().numpy(), (logits[0] > 0).cpu().numpy())

    def reading(self, name: str) -> Reading:
        found = {entry.name: entry for entry in EXPOSED}
        if self.manifest.network != "lk_click":
            raise InputError(f"The network {self.manifest.network!r} has no click maps; choose lk_click.")
        if name not in found:
            raise InputError(f"There is no map {name!r}; lk_click shows: {'; '.join(found)}.")
        entry = found[name]
        offset = (entry.stride - 1) / 2 if entry.decoder else 0.0
        return Reading(
            name,
            (entry.layer,),
            lambda outputs, logits: entry.reduce(outputs[entry.layer], logits),
            entry.stride,
            offset,
            dict(entry.passport),
        )

    def middle(self, answer: Answer) -> NDArray[np.float64]:
        return np.array([point.ras for point in self._points if point.positive])


class VolumeWindow(ExaminedWindow):
    """The window of a whole-volume model that weighs most at a place.

    Args:
        volume: the image.
        package: of kind "volume".
        ras: the place, (r, a, s) mm; None: the middle of the volume.
        label: value of the segment to look at, as in the labels; None: the largest one that the model finds there.

    Raises:
        InputError: a click model, a place outside the volume, a label that does not exist, or no segment there.
    """

    def __init__(
        self,
        volume: Volume,
        package: Package,
        ras: Sequence[float] | None = None,
        device: str | torch.device = "auto",
        label: int | None = None,
    ) -> None:
        self.manifest = package.manifest
        if self.manifest.kind != "volume":
            raise InputError(f'The model "{self.manifest.name}" works with clicks: examine a ClickedWindow.')
        place = [float(value) for value in (volume.grid.centre_ras if ras is None else ras)]
        check_inside(volume.grid, place)
        self._device = resolve_device(device)
        self.network = package.network(self._device)
        working = preparation_for(volume.grid, self.manifest.spacing).working
        layout = layout_for(working, self.manifest, self.network)
        nearest = np.clip(np.rint(working.ijk_of(place))[::-1], 0, np.array(working.shape) - 1)
        window = nearest_window(layout, (int(nearest[0]), int(nearest[1]), int(nearest[2])))
        prepared = prepared_volume(volume, self.manifest)
        self.image = cut(prepared.array, window, prepared.padding)[0].numpy()
        upper = [low + size for low, size in zip(window.lower, window.size, strict=True)]
        self.grid = working.cropped(window.lower, upper)
        segment = next((entry for entry in self.manifest.segments if entry.value == label), None)
        if label is not None and segment is None:
            known = ", ".join(f"{entry.value} {entry.name}" for entry in self.manifest.segments)
            raise InputError(f'The model "{self.manifest.name}" has no label {label}; it has: {known}.')
        self._value = self._largest() if label is None else label
        self.label = next(entry.name for entry in self.manifest.segments if entry.value == self._value)

    def inputs(self, image: Float) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(image))[None].to(self._device)

    def answer(self, logits: Tensor) -> Answer:
        if self.manifest.output == "regions":
            of_label = logits[self._value - 1]
            return Answer(torch.sigmoid(of_label).cpu().numpy(), (of_label > 0).cpu().numpy())
        probability = torch.softmax(logits, 0)[self._value].cpu().numpy()
        return Answer(probability, (logits.argmax(0) == self._value).cpu().numpy())

    def reading(self, name: str) -> Reading:
        if is_gradient(name):
            raise InputError(f"{name!r} is gradient-based; only maps recorded while the model runs can be tested.")
        chosen = choose(exposed(self.network), [name], self.manifest.name)[0]
        entry = chosen.exposed
        if entry.is_table:
            raise InputError(f"{name!r} is a table: it puts no voxel before another and cannot be tested.")
        if entry.extent != "voxels":
            raise InputError(
                f"{name!r} is one number for a whole window: it puts no voxel before another and cannot be tested."
            )
        return Reading(
            chosen.name,
            entry.layers,
            lambda outputs, logits: chosen.value([outputs[layer] for layer in entry.layers]),
            entry.stride,
            entry.offset,
            dict(entry.meaning),
        )

    def middle(self, answer: Answer) -> NDArray[np.float64]:
        voxels = np.argwhere(answer.mask)
        nearest = voxels[np.square(voxels - voxels.mean(0)).sum(1).argmin()]
        return self.grid.ras_of(nearest[::-1])[np.newaxis]

    def _largest(self) -> int:
        with torch.inference_mode():
            logits = run_network(self.network, self.inputs(self.image), self.manifest)
        if self.manifest.output == "regions":
            sizes = {entry.value: int((logits[entry.value - 1] > 0).sum()) for entry in self.manifest.segments}
        else:
            counts = torch.bincount(logits.argmax(0).flatten(), minlength=self.manifest.out_channels)
            sizes = {entry.value: int(counts[entry.value]) for entry in self.manifest.segments}
        largest = max(sizes, key=lambda value: sizes[value])
        if not sizes[largest]:
            raise InputError(
                f'The model "{self.manifest.name}" finds no segment in the window around this place: choose a place '
                "in a segment."
            )
        return largest
