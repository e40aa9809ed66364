"""Reach: from which voxels of the image the answer at one voxel comes, and how far away they are in millimetres.

The effective receptive field (Luo et al., NeurIPS 2016): the gradient of one logit with respect to the image. It is
far smaller than the theoretical field, which counts every voxel that a chain of kernels could touch. A gradient tells
how the answer would change if a voxel changed a little; it does not tell what the answer needs.

The reach of a single voxel is particular; a mean over voxels around it tells more of the network. The energies of the
voxels (the squares of their gradients) are averaged where they lie; the half widths are those of the distances from
each voxel to its own energy, so that the spread of the voxels does not widen them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from LKSegmentLib.errors import InputError, RunError
from LKSegmentLib.inference.clicks import ClickModelSession
from LKSegmentLib.inference.devices import resolve_device
from LKSegmentLib.inference.preparation import preparation_for, prepared_volume
from LKSegmentLib.inference.segmentation import layout_for
from LKSegmentLib.inference.windows import Region, Window, WindowLayout, cut
from LKSegmentLib.packages import Manifest, Package
from LKSegmentLib.prompts import Point
from LKSegmentLib.volumes import Grid, Volume

from .gradients import Voxel, gradients_at

PERCENT = (50, 90)
SENTENCE = "Shows where a small change of the image would change this logit; it does not prove what the answer needs."

Triple = tuple[float, float, float]

# As many voxels as a mean is taken over at most: each takes a way back of its own.
MOST_VOXELS = 8


@dataclass(frozen=True)
class Reach:
    """From where the answer at one voxel, or at some voxels around it, comes.

    Attributes:
        ras: the voxel's centre, RAS mm.
        volume: size of the gradient (k, j, i), float32, on the grid of the window that the network saw; of several
            voxels the root of their mean energy.
        radii_mm: {50: (i, j, k), 90: (i, j, k)}: half widths, along each axis of `volume`, of the slab around the
            voxel that holds so many percent of the gradient's energy (its square); of several voxels, each around its
            own.
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
        voxels = self.passport.get("voxels", 1)
        mean = f" (mean of {voxels} voxels within {self.passport['around mm']:g} mm)" if voxels > 1 else ""
        return f"Half widths along (i, j, k){mean}: {radii}{theory}."


def volume_reach(
    volume: Volume,
    package: Package,
    ras: Sequence[float],
    device: str | torch.device = "auto",
    label: int | None = None,
    around_mm: float | None = None,
    most_voxels: int = MOST_VOXELS,
) -> Reach:
    """The reach of a whole-volume model at a place, in the window that weighs most there.

    Args:
        volume: the image.
        package: a package of kind "volume".
        ras: the place, (r, a, s) mm.
        device: where the network runs.
        label: which output's logit; None: the largest at the place.
        around_mm: None: of the one voxel. Else the mean over voxels whose centres lie within so many mm of the place
            (and in the window), all of them or `most_voxels` drawn evenly, that at the place among them.
        most_voxels: as many at most; each takes a way back through the network.

    Raises:
        InputError: a place outside the volume, a label that does not exist, a distance that is none, a click model.
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
    inside = Region((0, 0, 0), layout.shape).overlap(window)
    assert inside is not None  # the voxel is in both
    here = grid.cropped(inside.lower, inside.upper)
    voxels = voxels_around(here, _less(voxel, inside.lower), around_mm, most_voxels)
    image = cut(prepared.array, window, prepared.padding).to(resolved)
    shift = _less(inside.lower, window.lower)
    gradients = gradients_at(network, manifest, image, [_less(one, _less((0, 0, 0), shift)) for one in voxels], label)
    part = (slice(None), *inside.slices(window.lower))
    energies = (np.square(gradient[part]).sum(0) for gradient in gradients)
    more = {"window (k, j, i)": list(window.size), "windows": layout.count, "stitching": "none: one window"}
    return _reach(network, manifest, energies, here, voxels, gradients.channel, {**more, **_mean(voxels, around_mm)})


def click_reach(
    session: ClickModelSession,
    points: Sequence[Point],
    ras: Sequence[float],
    around_mm: float | None = None,
    most_voxels: int = MOST_VOXELS,
    label: int | None = None,
) -> Reach:
    """The reach of a click model at a place, after `points`, with respect to the image (not the clicks).

    `around_mm`, `most_voxels` and `label` as of `volume_reach`; there is one label, 0.

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
    voxels = voxels_around(grid, _voxel(grid, ras), around_mm, most_voxels)
    manifest = session.package.manifest
    image = torch.from_numpy(session.inputs_for(points))[None].to(session.device)
    gradients = gradients_at(session.network, manifest, image, voxels, label)
    energies = (np.square(gradient[session.channel_names.index("image")]) for gradient in gradients)
    more: dict[str, Any] = {"window (k, j, i)": list(grid.shape), "windows": 1, "stitching": "none: one window"}
    more["held fixed"] = "the other inputs: clicks, similarity to them, previous mask"
    more |= _mean(voxels, around_mm)
    return _reach(session.network, manifest, energies, grid, voxels, gradients.channel, more)


def voxels_around(grid: Grid, voxel: Voxel, around_mm: float | None, most: int) -> list[Voxel]:
    """Voxels (k, j, i) whose centres lie within `around_mm` of a voxel's, that one first; at most so many.

    More than that are drawn evenly, always the same ones. InputError for a distance or a number that is none.
    """
    if around_mm is None:
        return [voxel]
    if not (math.isfinite(around_mm) and around_mm > 0) or most < 1:
        raise InputError(
            "The reach is averaged over at least one voxel within a distance above 0 mm, not over "
            f"{most} within {around_mm} mm."
        )
    steps = np.array(grid.spacing[::-1])
    # A box that holds the ball also where the axes are not at right angles.
    half = np.ceil(around_mm / (steps * np.abs(np.linalg.det(grid.directions)))).astype(int)
    low = np.maximum(np.array(voxel) - half, 0)
    high = np.minimum(np.array(voxel) + half + 1, grid.shape)
    places = np.stack(np.meshgrid(*map(np.arange, low, high), indexing="ij"), axis=-1).reshape(-1, 3)
    away = np.linalg.norm(grid.ras_of(places[:, ::-1]) - grid.ras_of(voxel[::-1]), axis=1)
    others = places[(away <= around_mm) & (away > 0)]
    if len(others) > most - 1:
        others = others[np.sort(np.random.default_rng(0).choice(len(others), most - 1, replace=False))]
    return [voxel, *((int(k), int(j), int(i)) for k, j, i in others)]


def nearest_window(layout: WindowLayout, voxel: tuple[int, int, int]) -> Window:
    """The window that weighs most at a voxel (k, j, i): the one whose middle is nearest."""

    def off(window: Window) -> float:
        middle = (low + (size - 1) / 2 for low, size in zip(window.lower, window.size, strict=True))
        return sum((place - centre) ** 2 for place, centre in zip(voxel, middle, strict=True))

    return min(layout.windows(), key=off)


def half_widths(energy: NDArray[np.float64], voxel: Voxel, grid: Grid) -> dict[int, Triple]:
    """Half widths (i, j, k) in mm of the slabs around a voxel (k, j, i) that hold 50 % and 90 % of `energy`.

    A voxel's energy is taken to be spread evenly over its width.
    """
    return _widths(_by_distance(energy, voxel), grid)


def _by_distance(energy: NDArray[np.float64], voxel: Voxel) -> list[NDArray[np.float64]]:
    """For each of k, j, i: the energy at 0, 1, 2, … voxels from the voxel, up to the length of the axis."""
    found = []
    for axis, length in enumerate(energy.shape):
        along = energy.sum(axis=tuple(other for other in range(3) if other != axis))
        away = np.abs(np.arange(length) - voxel[axis])
        found.append(np.bincount(away, weights=along, minlength=length).astype(np.float64))
    return found


def _widths(by_distance: Sequence[NDArray[np.float64]], grid: Grid) -> dict[int, Triple]:
    found = {}
    for share in PERCENT:
        widths = []
        for energy, spacing in zip(by_distance, grid.spacing[::-1], strict=True):
            within = np.cumsum(energy)
            edges = np.concatenate(([0.0], np.arange(len(within)) + 0.5))
            widths.append(float(np.interp(share / 100, np.concatenate(([0.0], within / within[-1])), edges)) * spacing)
        found[share] = (widths[2], widths[1], widths[0])
    return found


def theoretical_voxels(network: nn.Module) -> int | None:
    """Edge of the field that the kernels of a network can touch, in input voxels; None where it does not tell."""
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
    energies: Iterable[NDArray[np.float64]],
    grid: Grid,
    voxels: Sequence[Voxel],
    channel: int,
    more: dict[str, Any],
) -> Reach:
    mean = np.zeros(grid.shape)
    by_distance = [np.zeros(length) for length in grid.shape]
    for energy, one in zip(energies, voxels, strict=True):
        mean += energy / len(voxels)
        for total, found in zip(by_distance, _by_distance(energy, one), strict=True):
            total += found
    if not mean.any():
        raise RunError("The answer at this place does not depend on the image: every gradient is zero.")
    radii, voxel = _widths(by_distance, grid), voxels[0]
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
    volume = Volume(np.sqrt(mean).astype(np.float32), grid.ijk_to_ras)
    return Reach((r, a, s), volume, radii, theory, passport)  # type: ignore[arg-type]


def _mean(voxels: Sequence[Voxel], around_mm: float | None) -> dict[str, Any]:
    """What the passport says of a mean."""
    if around_mm is None:
        return {}
    return {
        "voxels": len(voxels),
        "around mm": float(around_mm),
        "mean": "root of the mean energy (squared gradient) of the voxels, where it lies; half widths of the distances "
        "from each voxel to its own energy",
    }


def _less(place: Sequence[int], lower: Sequence[int]) -> Voxel:
    k, j, i = (one - low for one, low in zip(place, lower, strict=True))
    return k, j, i


def _voxel(grid: Grid, ras: Sequence[float]) -> Voxel:
    """The voxel (k, j, i) that holds a place inside the grid, or the nearest one."""
    nearest = np.rint(grid.ijk_of(ras))[::-1]
    k, j, i = (int(value) for value in np.clip(nearest, 0, np.array(grid.shape) - 1))
    return k, j, i


def _by(lengths: Iterable[float]) -> str:
    return " x ".join(f"{length:.1f}" for length in lengths)


def _place(ras: Sequence[float]) -> str:
    return f"RAS ({', '.join(f'{value:g}' for value in ras)}) mm"
