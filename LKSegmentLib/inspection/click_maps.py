"""The maps of the click model after some clicks: what its gates did on this image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from LKSegmentLib.errors import InputError
from LKSegmentLib.inference.clicks import ClickModelSession, ClickState
from LKSegmentLib.prompts import Point
from LKSegmentLib.volumes import Volume

from .maps import SENTENCE, Map, reduced_grid
from .taps import recorded


@dataclass(frozen=True)
class _Exposed:
    """One thing the network shows: where it is read and what it means."""

    name: str
    layer: str
    stride: int
    decoder: bool
    reduce: Callable[[Tensor], Tensor]  # (1, c, k, j, i) → (k, j, i)
    passport: dict[str, Any]


def _attention_mean(output: Tensor) -> Tensor:
    return output[0].mean(0)


def _channel(index: int) -> Callable[[Tensor], Tensor]:
    return lambda output: output[0, index]


_GATE = {"unit": "none (a factor)", "range": [0.0, 1.0], "kind": "native gate", "sentence": SENTENCE}


def _kernel_gate(name: str, layer: str, stride: int, decoder: bool, index: int) -> _Exposed:
    kernel = ("5³ kernel", "dilated 7³ kernel (reach 23 voxels)")[index]
    return _Exposed(
        name,
        f"{layer}.attn.spatial_gating_unit.spatial_se",
        stride,
        decoder,
        _channel(index),
        _GATE
        | {
            "operator": f"w{index + 1} of per-kernel selection: multiplies the response of the {kernel} alone",
            "neutral": 0.5,
            "identifiable": "yes: each map multiplies its own kernel's response (per-kernel selection, not D-Net's sum)",
        },
    )


EXPOSED: tuple[_Exposed, ...] = (
    _Exposed(
        "LK attention (mean)",
        "attention.gate",
        4,
        True,
        _attention_mean,
        _GATE
        | {
            "operator": "A = sigmoid(PW(DW(DWD(f)))), out = A·f + f, K = 21, d = 3; mean over the channels",
            "neutral": 0.5,
            "identifiable": "each channel's gate is; their mean is a summary that no single computation uses",
        },
    ),
    _kernel_gate("near-kernel gate, decoder 1/2", "decoder_half.0", 2, True, 0),
    _kernel_gate("far-kernel gate, decoder 1/2", "decoder_half.0", 2, True, 1),
    _kernel_gate("near-kernel gate, encoder 1/2", "encoder.0.0", 2, False, 0),
    _kernel_gate("far-kernel gate, encoder 1/2", "encoder.0.0", 2, False, 1),
)

DEFAULT_LAYERS = ("LK attention (mean)",)


def click_maps(
    session: ClickModelSession, points: Sequence[Point], layers: Sequence[str] | None = None
) -> list[Map]:
    """The maps ``layers`` (names of :data:`EXPOSED`; default the LK attention) after ``points``.

    The network is run once more on exactly what it saw for the last click; the mask is not touched.

    Raises:
        InputError: no clicks, an unknown map name, or a package whose network does not show these maps.
    """
    names = {exposed.name: exposed for exposed in EXPOSED}
    wanted = DEFAULT_LAYERS if layers is None else tuple(layers)
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise InputError(f"There is no map {unknown[0]!r}; lk_click shows: {'; '.join(names)}.")
    if session.package.manifest.network != "lk_click":
        raise InputError(f"The network {session.package.manifest.network!r} has no click maps; choose lk_click.")
    if not points:
        raise InputError("Maps of a click model need at least one click.")
    state = session.state_for(points)
    chosen = [names[name] for name in wanted]
    tensor = torch.from_numpy(state.inputs)[None].to(session.device, memory_format=torch.channels_last_3d)
    with torch.inference_mode(), recorded(session.network, [exposed.layer for exposed in chosen]) as outputs:
        session.network(tensor)
    return [_as_map(exposed, outputs[exposed.layer], state, session) for exposed in chosen]


def _as_map(exposed: _Exposed, output: Tensor, state: ClickState, session: ClickModelSession) -> Map:
    values = exposed.reduce(output).float().cpu().numpy().astype(np.float32)
    offset = (exposed.stride - 1) / 2 if exposed.decoder else 0.0
    k, j, i = values.shape
    grid = reduced_grid(state.window.window_grid, exposed.stride, (k, j, i), offset)
    manifest = session.package.manifest
    passport = {
        "name": exposed.name,
        "model": manifest.name,
        "network": manifest.network,
        "layer": exposed.layer,
        **exposed.passport,
        "native spacing mm": round(state.window.step * exposed.stride, 6),
        "native shape (k, j, i)": [k, j, i],
        "first voxel centred at (window voxels)": offset,
        "stitching": "none: one window",
        "window step mm": state.window.step,
    }
    return Map(exposed.name, Volume(values, grid.ijk_to_ras), passport)
