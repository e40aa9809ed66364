"""What a model can show of itself, as plain words: for the panel and the protocol, before anything is recorded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from LKSegmentLib.packages import Package

from .by_network import exposed
from .class_gradients import gradient_names
from .click_maps import DEFAULT_LAYERS, EXPOSED
from .kernel_pictures import picture_names

CHANGES: Final = "changes by click"
"""Name of the table of a click model that `click_changes.changes` makes."""
MEANS: Final = "means by segment"
"""Name of the table that `by_segment.means_by_segment` makes of the other maps asked for."""

_TOLD = ("kind", "unit", "operator", "identifiable")
_GRADIENT = {
    "kind": "gradient",
    "unit": "see the passport",
    "operator": "gradient of the label's score; every window is run once more, there and back",
    "identifiable": "see the passport",
}
_WEIGHTS = {
    "kind": "weights alone, no image",
    "unit": "see the passport",
    "operator": "a kernel in a space of its own, or a table of the weights; nothing is computed on the image",
    "identifiable": "see the passport",
}
_SEGMENTS = {
    "kind": "mean",
    "unit": "of each map its own",
    "operator": "mean of each map recorded with it: inside each segment, in a shell of 5 mm around it, and elsewhere",
    "identifiable": "see the maps",
}
_CLICKS = {
    "kind": "difference",
    "unit": "see the table",
    "operator": "what each click changed: voxels gained and lost, change of gates and of the logit",
    "identifiable": "see the table",
}


def listed(package: Package) -> dict[str, Any]:
    """The quantities that a package's network exposes; no image is needed and nothing is computed.

    Returns:
        ``model``, ``kind`` ("click" or "volume"); ``entries``: name, words (the name and which channels there are),
        group ("recorded", "gradients", "clicks", "segments" or "weights"), extent ("voxels", "window", "slices" or
        "channels"; the last two become tables), channels, summary (whether the name alone means the mean over the
        channels), default, and kind, unit, operator and identifiable as in the passport; ``nothing``: a sentence
        where there are none, else empty.
    """
    manifest, network = package.manifest, package.network()
    if manifest.kind == "click":
        entries = [
            _entry(one.name, "recorded", one.passport, default=one.name in DEFAULT_LAYERS)
            for one in (EXPOSED if manifest.network == "lk_click" else ())
        ]
        entries += [_entry(CHANGES, "clicks", _CLICKS, words=f"{CHANGES} (a table)")] if entries else []
    else:
        entries = [
            _entry(
                one.name, "recorded", one.meaning, words=one.words, extent=one.extent, channels=one.channels,
                summary=one.summary, default=one.default,
            )
            for one in exposed(network)
        ]  # fmt: skip
        entries += [_entry(name, "gradients", _GRADIENT) for name in gradient_names(package)]
    if entries:
        entries.append(_entry(MEANS, "segments", _SEGMENTS, words=f"{MEANS} (a table)"))
    entries += [
        _entry(_plain(name), "weights", _WEIGHTS, words=name, channels=_channels(name), summary=_channels(name) == 1)
        for name in picture_names(network)
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


def of_weights(package: Package, layers: Sequence[str]) -> list[str]:
    """Those of the names that are of the weights alone, as `kernel_pictures.network_tables_and_maps` takes them."""
    known = {_plain(name) for name in picture_names(package.network())}
    return [name for name in layers if _plain(name) in known]


def _channels(name: str) -> int:
    """How many channels a name of a picture tells of: "NAME #0 to #47" has 48, "NAME" is one picture."""
    return int(name.rsplit("#", 1)[1]) + 1 if " #" in name else 1


def _plain(name: str) -> str:
    """A name without its channels."""
    return name.split(" #")[0]


def _entry(
    name: str,
    group: str,
    meaning: dict[str, Any],
    words: str = "",
    extent: str = "voxels",
    channels: int = 1,
    summary: bool = True,
    default: bool = False,
) -> dict[str, Any]:
    return {
        "name": name,
        "words": words or name,
        "group": group,
        "extent": extent,
        "channels": channels,
        "summary": summary,
        "default": default,
        **{key: str(meaning.get(key, "")) for key in _TOLD},
    }
