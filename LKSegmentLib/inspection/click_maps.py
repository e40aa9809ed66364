"""The maps of the click model after some clicks: what its gates did on this image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from scipy.stats import rankdata
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
    reduce: Callable[[Tensor, Tensor], Tensor]  # output (1, c, k, j, i), logits of the window → (k, j, i)
    passport: dict[str, Any]
    chosen: Callable[[Tensor, Tensor], dict[str, Any]] = lambda output, logits: {}  # what was chosen on this image


def _attention_mean(output: Tensor, logits: Tensor) -> Tensor:
    return output[0].mean(0)


def _channel(index: int) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda output, logits: output[0, index]


def separation(output: Tensor, logits: Tensor) -> np.ndarray[Any, Any]:
    """How well each channel of ``output (1, c, k, j, i)`` separates the answer: the area under its ROC curve, ``(c,)``.

    The answer is where the logits ``(1, 1, K, J, I)``, averaged to the map's voxels, are positive; 0.5 everywhere when
    it is empty or fills the window.
    """
    k, j, i = output.shape[2:]
    answer = (functional.adaptive_avg_pool3d(logits.float(), (k, j, i)) > 0).flatten().cpu().numpy()
    inside, outside = int(answer.sum()), int((~answer).sum())
    values = output[0].flatten(1).float().cpu().numpy()
    if not inside or not outside:
        return np.full(len(values), 0.5)
    ranks = rankdata(values, axis=1)
    areas: np.ndarray[Any, Any] = (ranks[:, answer].sum(1) - inside * (inside + 1) / 2) / (inside * outside)
    return areas


def _closest_channel(output: Tensor, logits: Tensor) -> Tensor:
    return output[0, int(separation(output, logits).argmax())]


def _which_channel(output: Tensor, logits: Tensor) -> dict[str, Any]:
    areas = separation(output, logits)
    return {"channel": int(areas.argmax()), "channels": len(areas), "area under ROC": round(float(areas.max()), 3)}


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
            "identifiable": "yes: each map multiplies its own kernel's response (per-kernel selection, not a sum)",
        },
    )


_ATTENTION = "A = sigmoid(PW(DW(DWD(f)))), out = A·f + f, K = 21, d = 3"

EXPOSED: tuple[_Exposed, ...] = (
    _Exposed(
        "LK attention (channel closest to the mask)",
        "attention.gate",
        4,
        True,
        _closest_channel,
        _GATE
        | {
            "operator": f"{_ATTENTION}; of all channels the one whose gate separates the mask best",
            "neutral": 0.5,
            "identifiable": "yes: a gate of its channel; it was chosen because it resembles the mask, so that it does "
            "is no finding",
        },
        _which_channel,
    ),
    _Exposed(
        "LK attention (mean)",
        "attention.gate",
        4,
        True,
        _attention_mean,
        _GATE
        | {
            "operator": f"{_ATTENTION}; mean over the channels",
            "neutral": 0.5,
            "identifiable": "each channel's gate is; their mean is a summary that no single computation uses",
        },
    ),
    _kernel_gate("near-kernel gate, decoder 1/2", "decoder_half.0", 2, True, 0),
    _kernel_gate("far-kernel gate, decoder 1/2", "decoder_half.0", 2, True, 1),
    _kernel_gate("near-kernel gate, encoder 1/2", "encoder.0.0", 2, False, 0),
    _kernel_gate("far-kernel gate, encoder 1/2", "encoder.0.0", 2, False, 1),
)

DEFAULT_LAYERS = ("LK attention (channel closest to the mask)",)


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
    tensor = torch.from_numpy(session.inputs_for(points))[None].to(session.device, memory_format=torch.channels_last_3d)
    with torch.inference_mode(), recorded(session.network, [exposed.layer for exposed in chosen]) as outputs:
        logits = session.network(tensor)
    return [_as_map(exposed, outputs[exposed.layer], logits, state, session) for exposed in chosen]


def _as_map(
    exposed: _Exposed, output: Tensor, logits: Tensor, state: ClickState, session: ClickModelSession
) -> Map:
    values = exposed.reduce(output, logits).float().cpu().numpy().astype(np.float32)
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
        **exposed.chosen(output, logits),
        "native spacing mm": round(state.window.step * exposed.stride, 6),
        "native shape (k, j, i)": [k, j, i],
        "first voxel centred at (window voxels)": offset,
        "stitching": "none: one window",
        "window step mm": state.window.step,
    }
    return Map(exposed.name, Volume(values, grid.ijk_to_ras), passport)
