"""The maps of the click model after some clicks: what its gates did on this image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch.nn.functional as functional
from torch import Tensor

from LKSegmentLib.errors import InputError
from LKSegmentLib.inference.clicks import ClickModelSession, ClickState, Progress
from LKSegmentLib.prompts import Point
from LKSegmentLib.volumes import Volume

from .maps import SENTENCE, Map, reduced_grid
from .taps import recorded

_SIDES: tuple[Literal["left", "right"], ...] = ("left", "right")


@dataclass(frozen=True)
class _Exposed:
    """One thing the network shows: where it is read and what it means.

    `shown` makes of the layer's output (1, c, k, j, i) and the logits of the window the map (k, j, i), and what was
    chosen on this image.
    """

    name: str
    layer: str
    stride: int
    decoder: bool
    shown: Callable[[Tensor, Tensor], tuple[Tensor, dict[str, Any]]]
    passport: dict[str, Any]

    def reduce(self, output: Tensor, logits: Tensor) -> Tensor:
        """The layer's output (1, c, k, j, i) and the logits of the window → (k, j, i)."""
        return self.shown(output, logits)[0]


def _attention_mean(output: Tensor, logits: Tensor) -> tuple[Tensor, dict[str, Any]]:
    return output[0].mean(0), {}


def _channel(index: int) -> Callable[[Tensor, Tensor], tuple[Tensor, dict[str, Any]]]:
    return lambda output, logits: (output[0, index], {})


def separation(output: Tensor, logits: Tensor) -> np.ndarray[Any, Any]:
    """How well each channel of ``output (1, c, k, j, i)`` separates the answer: the area under its ROC curve, ``(c,)``.

    The answer is where the logits ``(1, 1, K, J, I)``, averaged to the map's voxels, are positive; 0.5 everywhere when
    it is empty or fills the window.
    """
    k, j, i = output.shape[2:]
    answer = (functional.adaptive_avg_pool3d(logits.float(), (k, j, i)) > 0).flatten().cpu().numpy()
    values = output[0].flatten(1).float().cpu().numpy()
    inside, outside = values[:, answer], np.sort(values[:, ~answer], axis=1)
    if not inside.size or not outside.size:
        return np.full(len(values), 0.5)
    # How often a value inside is larger than one outside, a tie counting half: by search, as few lie inside.
    below = [np.searchsorted(there, here, side) for there, here in zip(outside, inside, strict=True) for side in _SIDES]
    return np.array(below).reshape(len(values), -1).mean(1) / outside.shape[1]


def _closest_channel(output: Tensor, logits: Tensor) -> tuple[Tensor, dict[str, Any]]:
    areas = separation(output, logits)
    best = int(areas.argmax())
    found = {"channel": best, "channels": len(areas), "area under ROC": round(float(areas[best]), 3)}
    return output[0, best], found


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
    _kernel_gate("near-kernel gate, decoder 1/4", "decoder_quarter.0", 4, True, 0),
    _kernel_gate("far-kernel gate, decoder 1/4", "decoder_quarter.0", 4, True, 1),
    _kernel_gate("near-kernel gate, encoder 1/4", "encoder.1.0", 4, False, 0),
    _kernel_gate("far-kernel gate, encoder 1/4", "encoder.1.0", 4, False, 1),
)

DEFAULT_LAYERS = ("LK attention (channel closest to the mask)",)


class _Looks:
    """A `LookRecorder`: what the layers and the network answered in the look that became the mask."""

    def __init__(self, outputs: dict[str, Tensor]) -> None:
        self._outputs = outputs
        self.answer: tuple[dict[str, Tensor], Tensor] | None = None

    def before_look(self) -> None:
        self._outputs.clear()

    def after_look(self, logits: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        return dict(self._outputs), logits

    def answered(self, kept: tuple[dict[str, Tensor], Tensor]) -> None:
        self.answer = kept


def click_maps(
    session: ClickModelSession,
    points: Sequence[Point],
    layers: Sequence[str] | None = None,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> list[Map]:
    """The maps ``layers`` (names of :data:`EXPOSED`; default the LK attention) after ``points``.

    They are recorded while the last click is answered, which changes nothing of the mask: ask for them first and for
    the mask afterwards. Where the session has answered already, the network is run once more on exactly what it saw.

    Raises:
        Cancelled: ``cancelled()`` became true.
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
    chosen = [names[name] for name in wanted]
    with recorded(session.network, [exposed.layer for exposed in chosen]) as outputs:
        looks = _Looks(outputs)
        state = session.state_for(points, progress, cancelled, looks)
        if looks.answer is None:
            session.look_again(points, looks)
    assert looks.answer is not None
    outputs, logits = looks.answer
    return [_as_map(exposed, outputs[exposed.layer], logits, state, session) for exposed in chosen]


def _as_map(
    exposed: _Exposed, output: Tensor, logits: Tensor, state: ClickState, session: ClickModelSession
) -> Map:
    shown, found = exposed.shown(output, logits)
    values = shown.float().cpu().numpy().astype(np.float32)
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
        **found,
        "native spacing mm": round(state.window.step * exposed.stride, 6),
        "native shape (k, j, i)": [k, j, i],
        "first voxel centred at (window voxels)": offset,
        "stitching": "none: one window",
        "window step mm": state.window.step,
    }
    return Map(exposed.name, Volume(values, grid.ijk_to_ras), passport)
