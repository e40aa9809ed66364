"""Reach: from which voxels of the image the answer at one voxel comes, and how far away they are in millimetres.

The effective receptive field (Luo et al., NeurIPS 2016): the gradient of one logit with respect to the image. It is
far smaller than the theoretical field, which counts every voxel that a chain of kernels could touch. A gradient tells
how the answer would change if a voxel changed a little; it does not tell what the answer needs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from LKSegmentLib.errors import InputError, RunError
from LKSegmentLib.inference.clicks import ClickModelSession
from LKSegmentLib.inference.devices import resolve_device
from LKSegmentLib.inference.memory import SMALLEST_SAMPLE, free_memory, in_words
from LKSegmentLib.inference.preparation import preparation_for, prepared_volume
from LKSegmentLib.inference.segmentation import failures_of, layout_for
from LKSegmentLib.inference.windows import Region, Window, WindowLayout, cut
from LKSegmentLib.networks.dnet import through_blocks
from LKSegmentLib.networks.lk_click import LKClick
from LKSegmentLib.networks.receptive_field import Line
from LKSegmentLib.packages import Manifest, Package
from LKSegmentLib.prompts import CHANNELS, Point
from LKSegmentLib.volumes import Grid, Volume

PERCENT = (50, 90)
SENTENCE = "Shows where a small change of the image would change this logit; it does not prove what the answer needs."

Triple = tuple[float, float, float]

# Gradients of the maps that are kept, and work space.
_BESIDE = 2
_KEPT: WeakKeyDictionary[nn.Module, float] = WeakKeyDictionary()


@dataclass(frozen=True)
class Reach:
    """From where the answer at one voxel comes.

    Attributes:
        ras: the voxel's centre, RAS mm.
        volume: size of the gradient (k, j, i), float32, on the grid of the window that the network saw.
        radii_mm: {50: (i, j, k), 90: (i, j, k)}: half widths, along each axis of `volume`, of the slab around the
            voxel that holds so many percent of the gradient's energy (its square).
        theoretical_mm: half widths (i, j, k) of the field that the kernels could touch, pools over the whole window
            left out; None for a network that does not tell.
        passport: what the numbers mean, JSON-ready.
    """

    ras: Triple
    volume: Volume
    radii_mm: dict[int, Triple]
    theoretical_mm: Triple | None
    passport: dict[str, Any]

    @property
    def sentence(self) -> str:
        """The radii in words."""
        radii = ", ".join(f"{share} % within ±{_by(self.radii_mm[share])} mm" for share in PERCENT)
        theory = ""
        if self.theoretical_mm is not None:
            window = np.array(self.passport["window (k, j, i)"][::-1]) * self.volume.spacing
            theory = f"; the kernels could touch ±{_by(self.theoretical_mm)} mm, of a window of {_by(window)} mm"
        return f"Half widths along (i, j, k): {radii}{theory}."


def volume_reach(
    volume: Volume,
    package: Package,
    ras: Sequence[float],
    device: str | torch.device = "auto",
    label: int | None = None,
) -> Reach:
    """The reach of a whole-volume model at a place, in the window that weighs most there.

    Args:
        volume: the image.
        package: a package of kind "volume".
        ras: the place, (r, a, s) mm.
        device: where the network runs.
        label: which output's logit; None: the largest at the place.

    Raises:
        InputError: a place outside the volume, a label that does not exist, a click model.
        RunError: the memory does not suffice, the network fails, or its answer does not depend on the image.
    """
    manifest = package.manifest
    if manifest.kind != "volume":
        raise InputError(f'The model "{manifest.name}" works with clicks: give points=[((r, a, s), True), ...].')
    check_inside(volume.grid, ras)
    resolved = resolve_device(device)
    network = package.network(resolved)
    preparation = preparation_for(volume.grid, manifest.spacing)
    layout = layout_for(preparation.working, manifest, network)
    grid = preparation.working
    voxel = _voxel(grid, ras)
    window = nearest_window(layout, voxel)
    prepared = prepared_volume(volume, manifest)
    k, j, i = (place - low for place, low in zip(voxel, window.lower, strict=True))
    image = cut(prepared.array, window, prepared.padding)
    gradient, channel = gradient_at(network, manifest, image.to(resolved), (k, j, i), label)
    inside = Region((0, 0, 0), layout.shape).overlap(window)
    assert inside is not None  # the voxel is in both
    energy = np.square(gradient).sum(0)[inside.slices(window.lower)]
    here = grid.cropped(inside.lower, inside.upper)
    k, j, i = (place - low for place, low in zip(voxel, inside.lower, strict=True))
    more = {"window (k, j, i)": list(window.size), "windows": layout.count, "stitching": "none: one window"}
    return _reach(network, manifest, energy, here, (k, j, i), channel, more)


def click_reach(session: ClickModelSession, points: Sequence[Point], ras: Sequence[float]) -> Reach:
    """The reach of a click model at a place, after `points`, with respect to the image (not the clicks).

    Raises:
        InputError: no clicks, or a place outside the volume or outside the window of the last click.
        RunError: as of `volume_reach`.
    """
    if not points:
        raise InputError("The reach of a click model needs at least one click: give points=[((r, a, s), True), ...].")
    check_inside(session.volume.grid, ras)
    state = session.state_for(points)
    grid = state.window.window_grid
    if not grid.contains(ras):
        raise InputError(
            f"The place {_place(ras)} lies outside the window that the network saw for these clicks; choose one nearer "
            "to the structure."
        )
    voxel = _voxel(grid, ras)
    manifest = session.package.manifest
    image = torch.from_numpy(session.inputs_for(points))[None].to(session.device)
    gradient, channel = gradient_at(session.network, manifest, image, voxel, None)
    energy = np.square(gradient[CHANNELS.index("image")])
    more: dict[str, Any] = {"window (k, j, i)": list(grid.shape), "windows": 1, "stitching": "none: one window"}
    more["held fixed"] = "the other inputs: clicks, similarity to them, previous mask"
    return _reach(session.network, manifest, energy, grid, voxel, channel, more)


def gradient_at(
    network: nn.Module, manifest: Manifest, image: Tensor, voxel: tuple[int, int, int], label: int | None
) -> tuple[NDArray[np.float64], int]:
    """The gradient of one logit with respect to a window, and which output it is of; one pass there and one back.

    Args:
        network: in evaluation mode.
        image: (1, channels, k, j, i).
        voxel: (k, j, i) in the window.
        label: the output; None: the largest there.
    """
    if label is not None and not 0 <= label < manifest.out_channels:
        raise InputError(f'The model "{manifest.name}" has the outputs 0 to {manifest.out_channels - 1}, not {label}.')
    check_gradient_memory(network, manifest, image)
    with failures_of(manifest, str(image.device)), torch.enable_grad():
        image = image.clone().requires_grad_()
        answer = network(image)
        logits = answer[0] if isinstance(answer, (list, tuple)) else answer
        there = logits[(0, slice(None), *voxel)]
        channel = int(there.argmax()) if label is None else label
        (gradient,) = torch.autograd.grad(there[channel], image)
    return gradient[0].double().cpu().numpy(), channel


def nearest_window(layout: WindowLayout, voxel: tuple[int, int, int]) -> Window:
    """The window that weighs most at a voxel (k, j, i): the one whose middle is nearest."""

    def off(window: Window) -> float:
        middle = (low + (size - 1) / 2 for low, size in zip(window.lower, window.size, strict=True))
        return sum((place - centre) ** 2 for place, centre in zip(voxel, middle, strict=True))

    return min(layout.windows(), key=off)


def half_widths(energy: NDArray[np.float64], voxel: tuple[int, int, int], grid: Grid) -> dict[int, Triple]:
    """Half widths (i, j, k) in mm of the slabs around a voxel (k, j, i) that hold 50 % and 90 % of `energy`.

    A voxel's energy is taken to be spread evenly over its width.
    """
    found = {}
    for share in PERCENT:
        widths = []
        for axis, spacing in zip(range(3), grid.spacing[::-1], strict=True):
            along = energy.sum(axis=tuple(other for other in range(3) if other != axis))
            away = np.abs(np.arange(len(along)) - voxel[axis])
            within = np.cumsum(np.bincount(away, weights=along))
            edges = np.concatenate(([0.0], np.arange(len(within)) + 0.5))
            widths.append(float(np.interp(share / 100, np.concatenate(([0.0], within / within[-1])), edges)) * spacing)
        found[share] = (widths[2], widths[1], widths[0])
    return found


def theoretical_voxels(network: nn.Module) -> int | None:
    """Edge of the field that the kernels of a network can touch, in input voxels; None where it does not tell."""
    if isinstance(network, LKClick):
        return _lk_click_voxels(network)
    fields = getattr(network, "receptive_fields", None)
    return int(fields()[-1].voxels) if callable(fields) else None


def check_inside(grid: Grid, ras: Sequence[float]) -> None:
    """InputError unless a place lies in the volume."""
    if not grid.contains(ras):
        low, high = grid.corners_ras.min(axis=0), grid.corners_ras.max(axis=0)
        extent = ", ".join(f"{a} {b:.0f} to {c:.0f}" for a, b, c in zip("RAS", low, high, strict=True))
        raise InputError(f"The place {_place(ras)} lies outside the volume, which reaches over {extent} mm.")


def _reach(
    network: nn.Module,
    manifest: Manifest,
    energy: NDArray[np.float64],
    grid: Grid,
    voxel: tuple[int, int, int],
    channel: int,
    more: dict[str, Any],
) -> Reach:
    if not energy.any():
        raise RunError("The answer at this place does not depend on the image: every gradient is zero.")
    radii = half_widths(energy, voxel, grid)
    edge = theoretical_voxels(network)
    theory = None if edge is None else tuple((edge - 1) / 2 * length for length in grid.spacing)
    r, a, s = (float(value) for value in grid.ras_of(voxel[::-1]))
    passport = {
        "name": "reach",
        "model": manifest.name,
        "network": manifest.network,
        "layer": "logits",
        "operator": f"size of the gradient of logit {channel} at one voxel with respect to the image",
        "kind": "gradient",
        "unit": "logit per unit of the prepared image",
        "range": [0.0, None],
        "neutral": None,
        "identifiable": "yes, for small changes of this image; another image has another reach",
        "sentence": SENTENCE,
        "voxel RAS mm": [r, a, s],
        "native spacing mm": [round(length, 6) for length in grid.spacing],
        "half widths mm (i, j, k)": {f"{share} %": list(radii[share]) for share in PERCENT},
        "theoretical half widths mm (i, j, k)": None if theory is None else list(theory),
        "theoretical field": "kernels only; pools and norms over the window reach all of it",
        **more,
    }
    volume = Volume(np.sqrt(energy).astype(np.float32), grid.ijk_to_ras)
    return Reach((r, a, s), volume, radii, theory, passport)  # type: ignore[arg-type]


def _voxel(grid: Grid, ras: Sequence[float]) -> tuple[int, int, int]:
    """The voxel (k, j, i) that holds a place inside the grid, or the nearest one."""
    nearest = np.rint(grid.ijk_of(ras))[::-1]
    k, j, i = (int(value) for value in np.clip(nearest, 0, np.array(grid.shape) - 1))
    return k, j, i


def check_gradient_memory(network: nn.Module, manifest: Manifest, image: Tensor) -> None:
    """RunError when what must be kept for the way back does not fit."""
    voxels = math.prod(image.shape[2:])
    if network not in _KEPT:
        _KEPT[network] = _kept_per_voxel(network, manifest, image)
    needed = math.ceil(_BESIDE * _KEPT[network] * voxels)
    free = torch.cuda.mem_get_info(image.device)[0] if image.device.type == "cuda" else free_memory()
    if free is not None and needed > free:
        raise RunError(
            f"Its gradients need about {in_words(needed)} of memory and {in_words(free)} are free: close other programs "
            "or choose another device."
        )


def _kept_per_voxel(network: nn.Module, manifest: Manifest, image: Tensor) -> float:
    """Bytes that are kept for the way back, for each voxel of the window; measured on the smallest window."""
    smallest = int(max(getattr(network, "minimum_size", 1), getattr(network, "size_multiple", 1), SMALLEST_SAMPLE))
    k, j, i = (min(length, smallest) for length in image.shape[2:])
    weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    sample = torch.zeros((1, image.shape[1], k, j, i), device=image.device, requires_grad=True)
    with failures_of(manifest, "a window before the run"), torch.enable_grad():
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            answer = network(sample)
    del answer  # it holds everything that was counted
    return sum(kept.values()) / (k * j * i)


def _lk_click_voxels(network: LKClick) -> int:
    full = Line.of_input().convolved(3)
    depths = [len(stage) for stage in network.encoder if isinstance(stage, nn.Sequential)]
    half = through_blocks(full.convolved(3, stride=2), depths[0])
    quarter = through_blocks(half.convolved(3, stride=2), depths[1])
    x = through_blocks(quarter.convolved(3, stride=2), depths[2])
    x = x.upsampled().convolved(7, dilation=3).convolved(5)
    x = through_blocks(x.joined(quarter), 1)
    x = through_blocks(x.upsampled().joined(half), 1)
    return x.upsampled().joined(full).convolved(3).field("logits").voxels


def _by(lengths: Iterable[float]) -> str:
    return " x ".join(f"{length:.1f}" for length in lengths)


def _place(ras: Sequence[float]) -> str:
    return f"RAS ({', '.join(f'{value:g}' for value in ras)}) mm"
