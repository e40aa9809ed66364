"""What is done with a request, in whatever process: the worker, the command line or a script.

The answers depend on the image, the model, the device and the request only, never on the process or on what
was asked before. torch and everything that needs it are imported when they are first used.
"""

from __future__ import annotations

import gc
import importlib.util
import platform
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from LKSegmentLib.engine.results import ClickResult, InspectResult, Map, ReachResult, SegmentResult, Table
from LKSegmentLib.engine.shared_arrays import Array
from LKSegmentLib.engine.warm import WarmPackages
from LKSegmentLib.errors import InputError
from LKSegmentLib.prompts import Point
from LKSegmentLib.version import __version__
from LKSegmentLib.volumes import Volume

if TYPE_CHECKING:
    from LKSegmentLib.inference.clicks import ClickModelSession
    from LKSegmentLib.packages import Package

Progress = Callable[[str, float], None]
Cancelled = Callable[[], bool]
Announce = Callable[[str], None]

REACH = "reach"
CLICK = "finding the structure"


class Service:
    """Open images, loaded models and click sessions, and the requests on them. Use it from one thread."""

    def __init__(self) -> None:
        self._images: dict[int, Volume] = {}
        self._packages = WarmPackages()
        self._sessions: dict[tuple[int, str, str], ClickModelSession] = {}

    # -- images ------------------------------------------------------------------------------------------

    def open_image(self, key: int, array: Array, ijk_to_ras: Array) -> None:
        """Opens (or replaces) image ``key``: (k, j, i) or (c, k, j, i) voxels and the 4x4 IJK to RAS matrix, mm.

        Raises InputError when these make no image.
        """
        self.close_image(key)
        self._images[key] = Volume(array, ijk_to_ras)

    def close_image(self, key: int) -> None:
        """Frees an image and its click sessions; unknown keys are fine."""
        self._images.pop(key, None)
        self._sessions = {found: kept for found, kept in self._sessions.items() if found[0] != key}

    def _image(self, key: int) -> Volume:
        if key not in self._images:
            raise InputError("The image is not open; open it again.")
        return self._images[key]

    # -- requests ----------------------------------------------------------------------------------------

    def segment(self, key: int, model: str, device: str, progress: Progress, cancelled: Cancelled) -> SegmentResult:
        """Every label of a whole-volume model on image ``key``, uint16 on its grid.

        ``model`` is an installed model's name or a package's path; ``device`` is auto, cpu, cuda, cuda:1 or mps.
        Raises InputError, RunError and Cancelled.
        """
        volume = self._image(key)
        package = self._package(model, progress)
        from LKSegmentLib.inference.segmentation import segment_volume

        return _with_names(segment_volume(volume, package, device, progress, cancelled), package)

    def click(
        self,
        key: int,
        model: str,
        device: str,
        points: Sequence[Point],
        maps: bool,
        progress: Progress,
        cancelled: Cancelled,
    ) -> ClickResult:
        """The mask of a click model after ``points`` in order, and with ``maps`` what its gates did there.

        Raises InputError, RunError and Cancelled.
        """
        session = self._session(key, model, device, progress)
        shown = _click_maps(session, points, None, progress, cancelled) if maps else []
        return ClickResult(session.mask_for(points, _stage(CLICK, progress), cancelled), shown)

    def exposed(self, model: str, progress: Progress) -> dict[str, Any]:
        """What maps ``model`` can show, from its network alone: no image is needed.

        See ``inspection.listing.listed``. Raises InputError for whatever is wrong with the package.
        """
        package = self._package(model, progress)
        from LKSegmentLib.inspection.listing import listed

        return listed(package)

    def inspect(
        self,
        key: int,
        model: str,
        device: str,
        points: Sequence[Point],
        layers: Iterable[str] | None,
        progress: Progress,
        cancelled: Cancelled,
        announce: Announce | None = None,
    ) -> InspectResult:
        """The answer of ``segment`` or, for a click model, ``click``, and what the network showed meanwhile.

        ``layers``: names (or one name) of the maps and tables wanted, of those that ``exposed`` lists; None for the
        default ones of a volume model, for all maps of a click model. Where all of them are of the weights alone,
        nothing is answered.
        ``announce`` is told, before a whole volume is computed, how much memory and time it will take.
        Raises InputError (no points for a click model, points for another, an unknown map or channel, nothing to
        show, maps larger than the memory), RunError and Cancelled.
        """
        if layers is not None:
            layers = [layers] if isinstance(layers, str) else list(layers)
        volume = self._image(key)
        package = self._package(model, progress)
        _check_points(package, points, "maps")
        from LKSegmentLib.inspection.kernel_pictures import network_tables_and_maps
        from LKSegmentLib.inspection.listing import CHANGES, MEANS, of_weights

        apart = [] if layers is None else [MEANS, *of_weights(package, layers)]
        asked = None if layers is None else [name for name in layers if name not in apart]
        answer: SegmentResult | ClickResult | None = None
        maps, tables = [], []
        if package.manifest.kind == "click":
            session = self._session(key, model, device, progress)
            wanted = None if asked is None else [name for name in asked if name != CHANGES]
            if wanted is None or wanted:
                maps = _click_maps(session, points, wanted, progress, cancelled)
            answer = ClickResult(session.mask_for(points, _stage(CLICK, progress), cancelled))
            if asked is not None and CHANGES in asked:
                from LKSegmentLib.inspection.click_changes import changes

                tables.append(changes(session, points))
        elif asked is None or asked or not layers:
            from LKSegmentLib.inspection.volume_maps import examine_volume

            found = examine_volume(volume, package, asked, device, progress, cancelled, announce)
            answer, maps, tables = _with_names(found.labels, package), found.maps, found.tables
        if layers is not None and MEANS in layers:
            progress(MEANS, 0.0)
            tables.append(_means(answer, maps, volume))
        if layers is not None and of_weights(package, layers):
            spacing = package.manifest.spacing or volume.grid.spacing
            pictures, numbers = network_tables_and_maps(package.network(), spacing, of_weights(package, layers))
            about = {"model": package.manifest.name, "network": package.manifest.network}
            maps += [replace(one, passport={**about, **one.passport}) for one in pictures]
            tables += [replace(one, passport={**about, **one.passport}) for one in numbers]
        return InspectResult(answer, _measured(maps), tables)

    def reach(
        self,
        key: int,
        model: str,
        device: str,
        points: Sequence[Point],
        ras: Sequence[float] | None,
        label: int | None,
        progress: Progress,
        cancelled: Cancelled,
        around_mm: float | None = None,
    ) -> ReachResult:
        """From where in the image the answer at ``ras`` (RAS mm) comes: the effective receptive field.

        ``ras`` None: the last point, else the middle of the image. ``label``: which output's logit; None: the largest.
        ``around_mm``: None for the one voxel, else the mean over some voxels within that distance of it.
        Raises InputError (a place outside the image or the window, no such label, points as for ``inspect``),
        RunError (the memory does not suffice, or the answer does not depend on the image) and Cancelled.
        """
        volume = self._image(key)
        package = self._package(model, progress)
        _check_points(package, points, "reach")
        from LKSegmentLib.inspection.reach import click_reach, volume_reach

        progress(REACH, 0.0)
        if package.manifest.kind == "click":
            session = self._session(key, model, device, progress)
            session.mask_for(points, _stage(CLICK, progress), cancelled)
            progress(REACH, 0.5)
            found = click_reach(session, points, points[-1].ras if ras is None else ras, around_mm, label=label)
        else:
            place = volume.grid.centre_ras.tolist() if ras is None else ras
            found = volume_reach(volume, package, place, device, label, around_mm)
        progress(REACH, 1.0)
        (shown,) = _measured([Map("reach", found.volume, {**found.passport, "in words": found.sentence})])
        return ReachResult(found.ras, shown, found.radii_mm, found.theoretical_mm, found.sentence)

    def _session(self, key: int, model: str, device: str, progress: Progress) -> ClickModelSession:
        volume = self._image(key)
        package = self._package(model, progress)
        from LKSegmentLib.inference.clicks import ClickModelSession
        from LKSegmentLib.inference.devices import resolve_device

        resolved = resolve_device(device)
        found = (key, str(package.source), str(resolved))
        known = self._sessions.get(found)
        if known is not None and known.package is package:  # else it changed on disk since
            return known
        self._sessions[found] = ClickModelSession(volume, package, resolved)
        return self._sessions[found]

    def _package(self, model: str, progress: Progress) -> Package:
        """The package, loaded. Click sessions of packages that made room for it go, as they hold their networks."""
        package = self._packages.get(model, progress)
        self._sessions = {found: kept for found, kept in self._sessions.items() if kept.package in self._packages}
        return package

    def models(self) -> dict[str, Any]:
        """``models``: name, title, kind, licence, summary, folder, built_in and labels; ``broken``: folder, problem."""
        from LKSegmentLib.packages import broken_packages, catalogue

        listed = [
            {
                "name": entry.name,
                "title": entry.title,
                "kind": entry.kind,
                "licence": entry.licence,
                "summary": entry.summary,
                "folder": str(entry.folder),
                "built_in": entry.built_in,
                "labels": [label.to_json() for label in entry.labels],
            }
            for entry in catalogue()
        ]
        broken = [{"folder": str(found.folder), "problem": found.problem} for found in broken_packages()]
        return {"models": listed, "broken": broken}

    def doctor(self) -> dict[str, Any]:
        """What works in this process: versions, and each device with whether a small 3-D convolution runs on it.

        ``devices``: name, title, memory_bytes, works, and the problem where it does not.
        """
        facts: dict[str, Any] = {
            "library": __version__,
            "python": platform.python_version(),
            "interpreter": sys.executable,
            "system": platform.platform(),
            "torch": None,
            "threads": None,
            "devices": [],
        }
        if importlib.util.find_spec("torch") is None:
            return facts
        import torch

        from LKSegmentLib.inference.devices import available_devices

        facts |= {"torch": str(torch.__version__), "threads": torch.get_num_threads()}
        for device in available_devices():
            told = {"name": device.name, "title": device.title, "memory_bytes": device.memory_bytes}
            problem = _convolution_problem(device.name)
            facts["devices"].append({**told, "works": not problem, "problem": problem})
        return facts

    # -- memory ------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Imports torch ahead of the first request, where it is installed."""
        if importlib.util.find_spec("torch") is not None:
            import LKSegmentLib.inference.clicks
            import LKSegmentLib.inference.devices  # noqa: F401

    def release_memory(self) -> None:
        """Frees every network and click session; images stay open, and the next request loads what it needs."""
        self._sessions.clear()
        self._packages.clear()
        gc.collect()
        if "torch" in sys.modules:
            import torch

            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def _click_maps(
    session: ClickModelSession,
    points: Sequence[Point],
    layers: Sequence[str] | None,
    progress: Progress,
    cancelled: Cancelled,
) -> list[Map]:
    """The maps, recorded while the last click is answered, if it was not before; its mask is free afterwards."""
    from LKSegmentLib.inspection.click_maps import EXPOSED, click_maps

    names = [entry.name for entry in EXPOSED] if layers is None else list(layers)
    return click_maps(session, points, names, _stage(CLICK, progress), cancelled)


def _means(answer: SegmentResult | ClickResult | None, maps: Sequence[Map], volume: Volume) -> Table:
    from LKSegmentLib.inspection.by_segment import means_by_segment

    shown = [one for one in maps if one.passport.get("kind") != "disagreement of windows"]
    if answer is None or not shown:
        raise InputError("Means by segment are of maps: choose a map of the image beside them.")
    if isinstance(answer, SegmentResult):
        return means_by_segment(shown, answer.labels, answer.names)
    mask = volume.with_array(answer.box.full(volume.grid.shape).astype("uint8"))
    return means_by_segment(shown, mask, ["the clicked structure"])


def _stage(stage: str, progress: Progress) -> Progress:
    """Reports under one name, whatever the stages below are called."""
    return lambda _, fraction: progress(stage, fraction)


def _with_names(labels: Volume, package: Package) -> SegmentResult:
    segments = package.manifest.segments
    return SegmentResult(labels, [label.name for label in segments], [label.to_json() for label in segments])


def _measured(maps: Sequence[Map]) -> list[Map]:
    """With how their values are distributed: who shows a map need not look at all its voxels."""
    from LKSegmentLib.inspection.maps import CASE, case_percentiles

    return [replace(one, passport={**one.passport, CASE: case_percentiles(one.volume.array)}) for one in maps]


def _check_points(package: Package, points: Sequence[Point], what: str) -> None:
    """InputError for a click model without points, and for another model with some."""
    manifest = package.manifest
    if manifest.kind == "click" and not points:
        raise InputError(f"The {what} of a click model depend{'s' * (what == 'reach')} on the clicks: click first.")
    if points and manifest.kind != "click":
        raise InputError(
            f"The model {manifest.name!r} works on whole volumes and takes no clicks: leave the points out."
        )


def _convolution_problem(device: str) -> str:
    """Why a 3-D convolution cannot run on ``device``; empty when it can."""
    import torch

    try:
        image = torch.ones(1, 1, 5, 5, 5, device=device)
        answer = torch.nn.functional.conv3d(image, torch.ones(1, 1, 3, 3, 3, device=device))
        right = bool(torch.all(answer == 27.0).item())
    except RuntimeError as error:
        return (str(error).splitlines() or ["it failed without a reason"])[0]
    return "" if right else "a 3-D convolution gives wrong numbers"
