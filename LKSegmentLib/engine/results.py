"""What requests give back, and how it becomes a message and arrays. numpy only: both sides use it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from LKSegmentLib.engine.protocol import ProtocolError
from LKSegmentLib.engine.shared_arrays import Array
from LKSegmentLib.inspection import Map, Table
from LKSegmentLib.volumes import MaskBox, Volume

__all__ = [
    "ClickResult", "InspectResult", "Map", "MaskBox", "ReachResult", "Result", "SegmentResult", "Table", "decoded",
    "encoded",
]  # fmt: skip

Triple = tuple[float, float, float]


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


@dataclass(frozen=True)
class InspectResult:
    """What a model answered, and what it showed of itself meanwhile.

    ``answer`` is that of the same request without maps: a whole volume's labels, or the mask after the clicks; None
    where only what the weights alone tell was asked for.
    """

    answer: SegmentResult | ClickResult | None
    maps: list[Map]
    tables: list[Table] = field(default_factory=list)


@dataclass(frozen=True)
class ReachResult:
    """From where in the image the answer at one voxel comes.

    ``ras`` is that voxel's centre (mm); ``map.volume`` the size of the gradient; ``radii_mm`` {50: (i, j, k), 90: ...}
    the half widths that hold so many percent of its energy; ``sentence`` the radii in words.
    """

    ras: Triple
    map: Map
    radii_mm: dict[int, Triple]
    theoretical_mm: Triple | None
    sentence: str


Result = SegmentResult | ClickResult | InspectResult | ReachResult


def encoded(result: Result | Mapping[str, Any]) -> tuple[dict[str, Any], list[Array]]:
    """(JSON object, arrays) of a result; plain JSON objects (models, doctor, exposed) pass as they are."""
    if isinstance(result, SegmentResult):
        text = {"kind": "segment", "names": list(result.names), "entries": list(result.entries)}
        return {**text, "ijk_to_ras": _row_by_row(result.labels)}, [result.labels.array]
    if isinstance(result, ClickResult):
        maps, arrays = _encoded_maps(result.maps)
        lower = [int(v) for v in result.box.lower]
        return {"kind": "click", "lower": lower, "maps": maps}, [result.box.array.astype(np.uint8, copy=False), *arrays]
    if isinstance(result, InspectResult):
        answer, first = (None, []) if result.answer is None else encoded(result.answer)
        maps, arrays = _encoded_maps(result.maps)
        tables = [_plain(table.as_json()) for table in result.tables]
        counted = {"arrays": len(first), "maps": maps, "tables": tables}
        return {"kind": "inspect", "answer": answer, **counted}, [*first, *arrays]
    if isinstance(result, ReachResult):
        maps, arrays = _encoded_maps([result.map])
        radii = {str(share): list(widths) for share, widths in result.radii_mm.items()}
        theory = None if result.theoretical_mm is None else list(result.theoretical_mm)
        told = {"ras": list(result.ras), "radii_mm": radii, "theoretical_mm": theory}
        return {"kind": "reach", **told, "sentence": result.sentence, "maps": maps}, arrays
    return {"kind": "json", "value": dict(result)}, []


def decoded(result: Mapping[str, Any], arrays: Sequence[Array]) -> Result | dict[str, Any]:
    """The opposite of ``encoded``. Raises ProtocolError when object and arrays do not belong together."""
    kind = result.get("kind")
    try:
        if kind == "segment" and len(arrays) == 1:
            names, entries = list(result["names"]), list(result["entries"])
            return SegmentResult(Volume(arrays[0], _matrix(result["ijk_to_ras"])), names, entries)
        if kind == "click" and len(arrays) == 1 + len(result["maps"]):
            k, j, i = (int(v) for v in result["lower"])
            return ClickResult(MaskBox((k, j, i), arrays[0]), _decoded_maps(result["maps"], arrays[1:]))
        if kind == "inspect" and len(arrays) == int(result["arrays"]) + len(result["maps"]):
            first = int(result["arrays"])
            answer = None if result["answer"] is None else decoded(result["answer"], arrays[:first])
            if not isinstance(answer, SegmentResult | ClickResult | None):
                raise ValueError("its answer is neither labels nor a mask")
            tables = [Table.from_json(table) for table in result["tables"]]
            return InspectResult(answer, _decoded_maps(result["maps"], arrays[first:]), tables)
        if kind == "reach" and len(arrays) == len(result["maps"]) == 1:
            radii = {int(share): _triple(widths) for share, widths in result["radii_mm"].items()}
            theory = None if result["theoretical_mm"] is None else _triple(result["theoretical_mm"])
            (shown,) = _decoded_maps(result["maps"], arrays)
            return ReachResult(_triple(result["ras"]), shown, radii, theory, str(result["sentence"]))
        if kind == "json" and not arrays:
            return dict(result["value"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ProtocolError(f"The worker sent a result of kind {kind!r} that is incomplete: {error!r}.") from error
    raise ProtocolError(f"The worker sent a result of the unknown kind {kind!r} with {len(arrays)} arrays.")


def _encoded_maps(maps: Sequence[Map]) -> tuple[list[dict[str, Any]], list[Array]]:
    texts = [{"name": m.name, "passport": _plain(m.passport), "ijk_to_ras": _row_by_row(m.volume)} for m in maps]
    return texts, [m.volume.array for m in maps]


def _decoded_maps(texts: Sequence[Mapping[str, Any]], arrays: Sequence[Array]) -> list[Map]:
    return [
        Map(str(text["name"]), Volume(array, _matrix(text["ijk_to_ras"])), dict(text["passport"]))
        for text, array in zip(texts, arrays, strict=True)
    ]


def _plain(value: Any) -> Any:
    """The same as JSON can carry it: numbers that are none become null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _triple(numbers: Sequence[float]) -> Triple:
    a, b, c = (float(value) for value in numbers)
    return a, b, c


def _row_by_row(volume: Volume) -> list[float]:
    return [float(v) for v in np.asarray(volume.ijk_to_ras, dtype=np.float64).reshape(16)]


def _matrix(numbers: Sequence[float]) -> Array:
    return np.array(numbers, dtype=np.float64).reshape(4, 4)
