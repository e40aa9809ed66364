"""Model packages kept loaded between requests; each keeps its network on every device it was used on."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final

from LKSegmentLib.packages.manifest import MANIFEST_FILE
from LKSegmentLib.packages.store import Package, load, locate

Progress = Callable[[str, float], None]

LOADING: Final = "loading the model"
KEPT: Final = 3
"""Networks kept at once: switching between a few models is free; a fourth frees the one unused for longest."""


class WarmPackages:
    """The packages loaded by one service. A package that changed on disk is loaded again."""

    def __init__(self) -> None:
        self._packages: OrderedDict[tuple[Path, int], Package] = OrderedDict()

    def get(self, model: str, progress: Progress) -> Package:
        """The package called ``model`` or lying at that path. Raises InputError for whatever is wrong with it."""
        source = locate(model).absolute()
        key = (source, _changed(source))
        if key not in self._packages:
            progress(LOADING, 0.0)
            self._packages[key] = load(source)
            progress(LOADING, 1.0)
        self._packages.move_to_end(key)
        while len(self._packages) > KEPT:
            self._packages.popitem(last=False)
        return self._packages[key]

    def __contains__(self, package: Package) -> bool:
        return any(kept is package for kept in self._packages.values())

    def clear(self) -> None:
        """Frees every network."""
        self._packages.clear()


def _changed(source: Path) -> int:
    """When the package last changed, in ns; 0 when there is none, which ``load`` then explains."""
    described = source / MANIFEST_FILE if source.is_dir() else source
    return described.stat().st_mtime_ns if described.exists() else 0
