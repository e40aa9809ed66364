"""Model packages kept loaded between requests, with their network on each device it was used on."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from LKSegmentLib.packages.manifest import MANIFEST_FILE
from LKSegmentLib.packages.store import Package, load, locate

if TYPE_CHECKING:
    import torch

Progress = Callable[[str, float], None]

LOADING: Final = "loading the model"
KEPT: Final = 3
"""Networks kept at once: switching between a few models is free; a fourth frees the one unused for longest."""


class WarmPackage(Package):
    """A package that builds its network once for each device and hands out the same one again."""

    def __init__(self, package: Package) -> None:
        self.manifest = package.manifest
        self.source = package.source
        self._package = package
        self._networks: dict[str, torch.nn.Module] = {}

    def network(self, device: torch.device | str = "cpu") -> torch.nn.Module:
        """The network in evaluation mode on ``device``. Raises InputError as ``Package.network`` does."""
        name = str(device)
        if name not in self._networks:
            self._networks[name] = self._package.network(device)
        return self._networks[name]


class WarmPackages:
    """The packages loaded by one service. A package that changed on disk is loaded again."""

    def __init__(self) -> None:
        self._packages: OrderedDict[tuple[Path, int], WarmPackage] = OrderedDict()

    def get(self, model: str, progress: Progress) -> WarmPackage:
        """The package called ``model`` or lying at that path. Raises InputError for whatever is wrong with it."""
        source = locate(model).absolute()
        key = (source, _changed(source))
        if key not in self._packages:
            progress(LOADING, 0.0)
            self._packages[key] = WarmPackage(load(source))
            progress(LOADING, 1.0)
        self._packages.move_to_end(key)
        while len(self._packages) > KEPT:
            self._packages.popitem(last=False)
        return self._packages[key]

    def clear(self) -> None:
        """Frees every network."""
        self._packages.clear()


def _changed(source: Path) -> int:
    """When the package last changed, in ns; 0 when there is none, which ``load`` then explains."""
    described = source / MANIFEST_FILE if source.is_dir() else source
    return described.stat().st_mtime_ns if described.exists() else 0
