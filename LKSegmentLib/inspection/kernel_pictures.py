"""What the weights alone tell, without an image: large kernels as pictures, their radial profiles, norms by identifier.

A picture of a kernel is a `Map` in a space of its own: the centre tap at RAS 0, taps as far apart as the layer's voxels
are on the image. It is no place in the image; it can be laid anywhere on it to see how far the kernel reaches.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from LKSegmentLib.errors import InputError
from LKSegmentLib.volumes import Volume

from .large_kernels import LargeKernel, large_kernels
from .maps import Map
from .tables import Cell, Table
from .weight_tables import weight_tables

SENTENCE = "A kernel and no place in the image: its centre tap is drawn at RAS 0, i, j and k along R, A and S."
CUBES = (3, 5, 7, 11, 21)

_CHANNEL = re.compile(r"^(?P<name>weight, .*\S) #(?P<channel>\d+)$")
_SIZE, _SIGNED, _SINGLE, _PRIOR, _MASK, _PROFILE = (
    "mean |weight|",
    "mean weight",
    "weight",
    "prior",
    "mask",
    "radial profile",
)


def picture_names(network: nn.Module) -> list[str]:
    """The names that `network_tables_and_maps` takes, tables included; single channels as "NAME #0 to #47"."""
    kernels = large_kernels(network)
    found = ["large kernels"] if kernels else []
    found += [table.name for table in weight_tables(network)]
    for kernel in kernels:
        found += [f"{what}, {kernel.name}" for what in _kinds(kernel)]
        found += [f"{_SINGLE}, {kernel.name} #0 to #{kernel.channels - 1}"]
    return found


def network_tables_and_maps(
    network: nn.Module, spacing: Sequence[float], names: Sequence[str] | None = None
) -> tuple[list[Map], list[Table]]:
    """What the weights of a network tell.

    Args:
        network: any; one without large kernels gives two empty lists.
        spacing: of the voxels that it works on, mm along R, A, S.
        names: which pictures and tables, of `picture_names`, one channel as "weight, KERNEL #5"; None: all tables but
            the radial profiles of every block, and of the first block of each stage the sizes of the weights, the mask
            and the profile.

    Returns:
        Pictures (float32, taps (k, j, i), in kernel space) and tables.

    Raises:
        InputError: a spacing that is none, an unknown name or channel (the sentence lists those there are).
    """
    r, a, s = _checked_spacing(spacing)
    kernels = {kernel.name: kernel for kernel in large_kernels(network)}
    others = {table.name: table for table in weight_tables(network)}
    if names is None:
        names = _default_names(list(kernels.values()), list(others))
    maps: list[Map] = []
    tables: list[Table] = []
    for name in dict.fromkeys(names):
        if name == "large kernels" and kernels:
            tables.append(_overview(list(kernels.values()), (r, a, s)))
        elif name in others:
            tables.append(others[name])
        else:
            what, kernel, channel = _asked(name, kernels, network)
            if what == _PROFILE:
                tables.append(_profile(kernel, (r, a, s)))
            else:
                maps.append(_picture(name, what, kernel, channel, (r, a, s)))
    return maps, tables


def _kinds(kernel: LargeKernel) -> tuple[str, ...]:
    masked = (_MASK, _PRIOR) if kernel.mask is not None else ()
    return (_SIZE, _SIGNED, *masked, _PROFILE)


def _default_names(kernels: list[LargeKernel], others: list[str]) -> list[str]:
    names = [*(["large kernels"] if kernels else []), *others]
    prior = False
    for kernel in kernels:
        if kernel.default:
            names += [f"{_SIZE}, {kernel.name}", f"{_PROFILE}, {kernel.name}"]
            if kernel.mask is not None:
                names += [f"{_MASK}, {kernel.name}"] + ([] if prior else [f"{_PRIOR}, {kernel.name}"])
                prior = True
    return names


def _asked(name: str, kernels: dict[str, LargeKernel], network: nn.Module) -> tuple[str, LargeKernel, int | None]:
    match = _CHANNEL.match(name)
    what, _, rest = (match["name"] if match else name).partition(", ")
    kernel = kernels.get(rest)
    if kernel is not None and match is None and what in _kinds(kernel):
        return what, kernel, None
    if kernel is not None and match is not None:
        channel = int(match["channel"])
        if channel < kernel.channels:
            return what, kernel, channel
        raise InputError(f"{match['name']!r} has #0 to #{kernel.channels - 1}; there is no channel {channel}.")
    if kernel is not None and what == _SINGLE:
        raise InputError(f"{name!r} has {kernel.channels} channels: choose one, {name} #0 to #{kernel.channels - 1}.")
    there = "; ".join(picture_names(network)) or "nothing: this network has no large kernels"
    raise InputError(f"There is no picture {name!r} of the weights. There is: {there}.")


def _values(what: str, kernel: LargeKernel, channel: int | None) -> Tensor:
    if what == _PRIOR and kernel.prior is not None:
        return kernel.prior()
    if what == _MASK and kernel.mean_mask is not None:
        return kernel.mean_mask
    if what == _SIZE:
        return kernel.size
    weights = kernel.weights()
    return weights.mean(0) if channel is None else weights[channel]


def _picture(
    name: str, what: str, kernel: LargeKernel, channel: int | None, spacing: tuple[float, float, float]
) -> Map:
    values = _values(what, kernel, channel).cpu().numpy().astype(np.float32)
    steps = np.array(spacing) * kernel.stride
    matrix = np.diag((*steps, 1.0))
    matrix[:3, 3] = -(kernel.edge - 1) / 2 * steps
    return Map(name, Volume(values, matrix), _passport(name, what, kernel, channel, spacing))


_MEANS: dict[str, dict[str, Any]] = {
    _SIZE: {
        "operator": "mean over the channels of the size of the weights",
        "unit": "weight (arbitrary scale: norms follow)",
        "range": [0.0, None],
        "neutral": 0.0,
        "identifiable": "its shape is; its scale is not, since a following norm undoes it channel by channel",
    },
    _SIGNED: {
        "operator": "mean over the channels of the weights, with their signs",
        "unit": "weight (arbitrary scale: norms follow)",
        "range": [None, None],
        "neutral": 0.0,
        "identifiable": "no: no computation uses the mean over channels, and later layers may turn any channel's sign",
    },
    _SINGLE: {
        "operator": "the weights of one channel",
        "unit": "weight (arbitrary scale: norms follow)",
        "range": [None, None],
        "neutral": 0.0,
        "identifiable": "up to a factor, its sign included: later layers may scale or turn the channel",
    },
    _PRIOR: {
        "operator": "P = 1 / (1 + d^beta), d the distance from the centre tap in taps",
        "unit": "none (a factor)",
        "range": [0.0, 1.0],
        "neutral": 1.0,
        "identifiable": "it is given, not learned (but for beta where it is a parameter)",
    },
    _MASK: {
        "operator": "M, the factor of each tap; mean over the channels where each has its own",
        "unit": "none (a factor)",
        "range": [None, None],
        "neutral": 1.0,
        "identifiable": "no: only W · M acts, and a larger M with a smaller W is the same kernel",
    },
}


def _passport(
    name: str, what: str, kernel: LargeKernel, channel: int | None, spacing: tuple[float, float, float]
) -> dict[str, Any]:
    meaning = dict(_MEANS[what])
    if what in (_SIZE, _SIGNED, _SINGLE):
        meaning["operator"] = f"{meaning['operator']}; of {kernel.operator}"
    passport = {
        "name": name,
        "layer": kernel.layer,
        "kind": "kernel (weights alone, no image)",
        **meaning,
        "sentence": SENTENCE,
        "space": "kernel",
        "taps (k, j, i)": [kernel.edge] * 3,
        "channels": kernel.channels,
        "native stride (working voxels)": kernel.stride,
        "tap spacing mm": [round(length * kernel.stride, 6) for length in spacing],
        "box mm (R, A, S)": _box(kernel, spacing),
        "stitching": "none: it is not of the image",
        "in words": kernel.in_words,
    }
    if channel is not None:
        passport["channel"] = channel
    return passport


def _box(kernel: LargeKernel, spacing: tuple[float, float, float]) -> list[float]:
    return [round(length * kernel.stride * kernel.edge, 6) for length in spacing]


def energy_within(energy: Tensor, edge: int) -> float:
    """Share of the squared weights (K, K, K) in the inner cube of `edge` taps."""
    total = float(energy.sum())
    start = max(0, (energy.shape[0] - edge) // 2)
    inner = slice(start, start + min(edge, energy.shape[0]))
    return float(energy[inner, inner, inner].sum()) / total if total else 0.0


def _overview(kernels: list[LargeKernel], spacing: tuple[float, float, float]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for kernel in kernels:
        radius, _, share = shells(kernel)
        half = float(np.interp(0.5, share, radius)) if share[-1] > 0 else None
        mask = None if kernel.mask is None else kernel.mask()
        of_mask = (None,) * 3 if mask is None else (float(mask.min()), float(mask.max()), float(mask.std()))
        inner = (energy_within(kernel.energy, edge) for edge in CUBES)
        box = _box(kernel, spacing)
        rows.append(
            (kernel.name, kernel.stride, kernel.edge, *box, *inner, half, *of_mask, kernel.in_words or "nothing")
        )
    columns = (
        "kernel",
        "stride (working voxels)",
        "edge (taps)",
        "box R (mm)",
        "box A (mm)",
        "box S (mm)",
        *(f"energy within {edge}³" for edge in CUBES),
        "radius of half the energy (taps)",
        "mask least",
        "mask largest",
        "mask standard deviation",
        "to be said",
    )
    passport = {
        "name": "large kernels",
        "kind": "kernel (weights alone, no image)",
        "operator": "share of the squared weights of all channels in the inner cubes of 3 to 21 taps",
        "sentence": SENTENCE,
        "identifiable": "the shares are, but for norms that weigh one channel more than another",
        "compare": "weights that were never trained are spread evenly: an inner cube of n of K taps holds (n / K)³",
    }
    return Table("large kernels", columns, tuple(rows), None, (), passport)


def shells(kernel: LargeKernel) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """A kernel by distance from the centre tap, rounded to whole taps.

    Returns:
        radius in taps, mean |weight| over the channels and taps of the shell, share of the energy up to it.
    """
    shell = np.rint(_distances(kernel.edge)).astype(int)
    count = np.bincount(shell)
    size = np.bincount(shell, kernel.size.flatten().numpy())
    energy = np.bincount(shell, kernel.energy.flatten().numpy())
    total = energy.sum()
    share = np.cumsum(energy) / total if total else np.zeros(len(energy))
    return np.arange(len(count), dtype=float), size / count, share


def _distances(edge: int) -> NDArray[np.float64]:
    along = torch.arange(edge, dtype=torch.float64) - (edge - 1) / 2
    square = along.square()
    return (square[:, None, None] + square[:, None] + square).sqrt().flatten().numpy()


def _profile(kernel: LargeKernel, spacing: tuple[float, float, float]) -> Table:
    radius, size, share = shells(kernel)
    steps = [length * kernel.stride for length in spacing]
    if max(steps) - min(steps) < 1e-6 * max(steps):
        millimetres = {"radius (mm)": radius * steps[0]}
    else:
        millimetres = {f"radius along {axis} (mm)": radius * step for axis, step in zip("RAS", steps, strict=True)}
    curves = {"mean |weight|": size, "share of the energy within": share}
    if kernel.mean_mask is not None and kernel.prior is not None:
        shell = np.rint(_distances(kernel.edge)).astype(int)
        for name, values in (("mask", kernel.mean_mask), ("prior", kernel.prior())):
            curves[name] = np.bincount(shell, values.double().flatten().cpu().numpy()) / np.bincount(shell)
    columns = {"radius (taps)": radius, **millimetres, **curves}
    rows = tuple(tuple(round(float(value), 8) for value in row) for row in zip(*columns.values(), strict=True))
    name = f"{_PROFILE}, {kernel.name}"
    passport = _passport(name, _SIZE, kernel, None, spacing)
    passport["operator"] = f"means over shells of taps of equal distance from the centre; of {kernel.operator}"
    return Table(name, tuple(columns), rows, next(iter(millimetres)), ("mean |weight|",), passport)


def _checked_spacing(spacing: Sequence[float]) -> tuple[float, float, float]:
    lengths = [float(length) for length in spacing]
    if len(lengths) != 3 or not all(math.isfinite(length) and length > 0 for length in lengths):
        raise InputError(f"A spacing is three lengths in mm along R, A and S, all above 0; got {list(spacing)}.")
    return lengths[0], lengths[1], lengths[2]
