"""What requests give back, and how it becomes a message and arrays. numpy only: both sides use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from LKSegmentLib.engine.protocol import ProtocolError
from LKSegmentLib.engine.shared_arrays import Array
from LKSegmentLib.inspection import Map
from LKSegmentLib.volumes import MaskBox, Volume

__all__ = ["ClickResult", "Map", "MaskBox", "SegmentResult", "decoded", "encoded"]


@dataclass(frozen=True)
class SegmentResult:
    """A segmented volume. ``labels`` is uint16 (k, j, i) on the image's grid; 0 is background.

    ``names[n]`` is the name of label ``n + 1``; ``entries`` holds name, terminology and colour of each.
    """

    labels: Volume
    names: list[str]
    entries: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class ClickResult:
    """The mask after the last click, and the maps when they were asked for."""

    box: MaskBox
    maps: list[Map] = field(default_factory=list)


def encoded(result: SegmentResult | ClickResult | Mapping[str, Any]) -> tuple[dict[str, Any], list[Array]]:
    """(JSON object, arrays) of a result; plain JSON objects (models, doctor) pass as they are."""
    if isinstance(result, SegmentResult):
        text = {"kind": "segment", "names": list(result.names), "entries": list(result.entries)}
        return {**text, "ijk_to_ras": _row_by_row(result.labels)}, [result.labels.array]
    if isinstance(result, ClickResult):
        maps = [{"name": m.name, "passport": m.passport, "ijk_to_ras": _row_by_row(m.volume)} for m in result.maps]
        lower = [int(v) for v in result.box.lower]
        arrays = [result.box.array.astype(np.uint8, copy=False), *(m.volume.array for m in result.maps)]
        return {"kind": "click", "lower": lower, "maps": maps}, arrays
    return {"kind": "json", "value": dict(result)}, []


def decoded(
    result: Mapping[str, Any], arrays: Sequence[Array]
) -> SegmentResult | ClickResult | dict[str, Any]:
    """The opposite of ``encoded``. Raises ProtocolError when object and arrays do not belong together."""
    kind = result.get("kind")
    try:
        if kind == "segment" and len(arrays) == 1:
            names, entries = list(result["names"]), list(result["entries"])
            return SegmentResult(Volume(arrays[0], _matrix(result["ijk_to_ras"])), names, entries)
        if kind == "click" and len(arrays) == 1 + len(result["maps"]):
            k, j, i = (int(v) for v in result["lower"])
            maps = [
                Map(str(m["name"]), Volume(array, _matrix(m["ijk_to_ras"])), dict(m["passport"]))
                for m, array in zip(result["maps"], arrays[1:], strict=True)
            ]
            return ClickResult(MaskBox((k, j, i), arrays[0]), maps)
        if kind == "json" and not arrays:
            return dict(result["value"])
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError(f"The worker sent a result of kind {kind!r} that is incomplete: {error!r}.") from error
    raise ProtocolError(f"The worker sent a result of the unknown kind {kind!r} with {len(arrays)} arrays.")


def _row_by_row(volume: Volume) -> list[float]:
    return [float(v) for v in np.asarray(volume.ijk_to_ras, dtype=np.float64).reshape(16)]


def _matrix(numbers: Sequence[float]) -> Array:
    return np.array(numbers, dtype=np.float64).reshape(4, 4)
