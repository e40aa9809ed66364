"""LKSegment: segmentation with large-kernel networks, and a look inside them.

The names people script against. `import LKSegmentLib` itself loads neither torch nor SimpleITK: each name below is
imported when it is first used.

    import LKSegmentLib as lk

    volume = lk.read_volume("ct.nii.gz")
    with lk.ClickSession(volume, model="lk_click") as session:
        mask = session.add_point((-42.0, 18.0, 96.5))
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from LKSegmentLib.version import __version__

if TYPE_CHECKING:
    from LKSegmentLib import networks, packages
    from LKSegmentLib.scripting import ClickSession, examine, inspect, reach, segment
    from LKSegmentLib.volumes import Volume, read_volume, write_volume

__all__ = [
    "ClickSession",
    "Volume",
    "__version__",
    "examine",
    "inspect",
    "networks",
    "packages",
    "reach",
    "read_volume",
    "segment",
    "write_volume",
]

_ROOM_OF = {
    "ClickSession": "LKSegmentLib.scripting",
    "Volume": "LKSegmentLib.volumes",
    "examine": "LKSegmentLib.scripting",
    "inspect": "LKSegmentLib.scripting",
    "reach": "LKSegmentLib.scripting",
    "read_volume": "LKSegmentLib.volumes",
    "segment": "LKSegmentLib.scripting",
    "write_volume": "LKSegmentLib.volumes",
}


def __getattr__(name: str) -> Any:
    if name in ("networks", "packages"):
        return importlib.import_module(f"LKSegmentLib.{name}")
    if name in _ROOM_OF:
        value = getattr(importlib.import_module(_ROOM_OF[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"LKSegmentLib has no name {name!r}; it has {', '.join(__all__)}.")


def __dir__() -> list[str]:
    return sorted(__all__)
