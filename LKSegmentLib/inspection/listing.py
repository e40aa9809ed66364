"""What a model can show of itself, as plain words: for the panel and the protocol, before anything is recorded."""

from __future__ import annotations

from typing import Any

from LKSegmentLib.packages import Package

from .by_network import exposed
from .click_maps import DEFAULT_LAYERS, EXPOSED

_TOLD = ("kind", "unit", "operator", "identifiable")


def listed(package: Package) -> dict[str, Any]:
    """The quantities that a package's network exposes; no image is needed and nothing is computed.

    Returns:
        ``model``, ``kind`` ("click" or "volume"); ``entries``: name, words (the name and which channels there are),
        extent ("voxels", "window" or "slices"), channels, summary (whether the name alone means the mean over the
        channels), default, and kind, unit, operator and identifiable as in the passport; ``nothing``: a sentence
        where there are none, else empty.
    """
    manifest = package.manifest
    if manifest.kind == "click":
        entries = _of_clicks() if manifest.network == "lk_click" else []
    else:
        entries = [
            {
                "name": entry.name,
                "words": entry.words,
                "extent": entry.extent,
                "channels": entry.channels,
                "summary": entry.summary,
                "default": entry.default,
                **{key: str(entry.meaning.get(key, "")) for key in _TOLD},
            }
            for entry in exposed(package.network())
        ]
    nothing = (
        f'The model "{manifest.name}" has nothing to show: its network has no gates or attention that LKSegment knows. '
        "Its reach can be shown."
    )
    return {
        "model": manifest.name,
        "kind": manifest.kind,
        "entries": entries,
        "nothing": "" if entries else nothing,
    }


def _of_clicks() -> list[dict[str, Any]]:
    return [
        {
            "name": entry.name,
            "words": entry.name,
            "extent": "voxels",
            "channels": 1,
            "summary": True,
            "default": entry.name in DEFAULT_LAYERS,
            **{key: str(entry.passport.get(key, "")) for key in _TOLD},
        }
        for entry in EXPOSED
    ]
