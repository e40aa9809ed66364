"""The names people script against: `segment`, `ClickSession`, `inspect`, `examine`, `reach`.

They call the same engine as the panel and the command, in this process: the same input gives the same voxels.
Errors are `InputError` (the input can be mended), `RunError` (it failed while running) and `Cancelled`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from LKSegmentLib.engine.failures import plain_errors
from LKSegmentLib.engine.results import Map, SegmentResult
from LKSegmentLib.engine.service import Service
from LKSegmentLib.errors import InputError
from LKSegmentLib.inspection import Inspection
from LKSegmentLib.packages import load, read_manifest
from LKSegmentLib.packages.store import locate
from LKSegmentLib.prompts import Point, strokes, without_last
from LKSegmentLib.volumes import Volume

if TYPE_CHECKING:
    from LKSegmentLib.inspection.reach import Reach

Mask = NDArray[np.bool_]
Progress = Callable[[str, float], None]
Triple = Sequence[float]

_IMAGE = 0  # a service of our own holds one image


def segment(
    volume: Volume,
    model: str | os.PathLike[str],
    device: str = "auto",
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> SegmentResult:
    """Segment a whole volume.

    Args:
        volume: the image; channels as the model's manifest lists them.
        model: name of an installed model, or path of a model package.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        progress: called with a stage and the fraction of it that is done.
        cancelled: asked between windows; true stops the run.

    Returns:
        `labels`: Volume of uint16 on the input's grid; `names[n]`: the name of label n + 1.

    Raises:
        InputError, RunError, Cancelled.
    """
    service = _service_with(volume)
    with plain_errors(device):
        return service.segment(_IMAGE, os.fspath(model), device, progress or _silent, cancelled or _never)


class ClickSession:
    """Segment one structure click by click.

        with ClickSession(volume) as session:
            mask = session.add_point((-42.0, 18.0, 96.5))
            mask = session.add_point((-30.0, 18.0, 90.0), positive=False)

    The mask depends on the volume, the model and the ordered clicks only.

    Args:
        volume: one channel, (k, j, i).
        model: name of an installed click model, or path of a model package.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
    """

    def __init__(self, volume: Volume, model: str | os.PathLike[str] = "lk_click", device: str = "auto") -> None:
        self._service: Service | None = _service_with(volume)
        self._volume = volume
        self._model = os.fspath(model)
        self._device = device
        self._points: tuple[Point, ...] = ()
        self._mask: Mask = np.zeros(volume.grid.shape, bool)

    @property
    def points(self) -> tuple[Point, ...]:
        """The clicks so far, in order."""
        return self._points

    @property
    def mask(self) -> Mask:
        """The mask (k, j, i) after the last click."""
        return self._mask.copy()

    def add_point(self, ras: Triple, positive: bool = True) -> Mask:
        """Click at `ras` (r, a, s) mm and return the mask, bool (k, j, i).

        Raises InputError for a point outside the volume, and then the click does not count.
        """
        r, a, s = _three(ras)
        return self._moved_to((*self._points, Point((r, a, s), positive)))

    def add_box(self, first: Triple, second: Triple, inside: Triple | None = None) -> Mask:
        """Draw a box with these opposite corners (r, a, s) mm around the structure; `inside`: a place in it.

        Raises InputError for a box without extent or a place outside; then the box does not count.
        """
        return self._moved_to((*self._points, *strokes.box(first, second, self._volume.grid, inside)))

    def add_scribble(self, path: Sequence[Triple], positive: bool = True) -> Mask:
        """Draw a line through these places (r, a, s) mm, all on the structure or all off it; one undo step."""
        return self._moved_to((*self._points, *strokes.scribble(path, positive)))

    def add_lasso(self, contour: Sequence[Triple]) -> Mask:
        """Draw a closed line around the structure on one slice, three places (r, a, s) mm or more; one undo step."""
        return self._moved_to((*self._points, *strokes.lasso(contour, self._volume.grid)))

    def undo(self) -> Mask:
        """Take the last click or stroke back and return the mask before it. InputError when there is none."""
        if not self._points:
            raise InputError("There is no click to take back.")
        return self._moved_to(without_last(self._points))

    def reset(self) -> Mask:
        """Take all clicks back; the next one begins a new structure. Returns the empty mask."""
        return self._moved_to(())

    def close(self) -> None:
        """Free the model and the image. Calling it twice is no mistake."""
        if self._service is not None:
            self._service.close_image(_IMAGE)
            self._service = None

    def __enter__(self) -> ClickSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _moved_to(self, points: tuple[Point, ...]) -> Mask:
        if self._service is None:
            raise InputError("This click session is closed; begin a new one.")
        if points:
            with plain_errors(self._device):
                asked = (_IMAGE, self._model, self._device, list(points), False)
                result = self._service.click(*asked, _silent, _never)
            mask = result.box.full(self._volume.grid.shape)
        else:
            mask = np.zeros(self._volume.grid.shape, bool)
        self._points, self._mask = points, mask
        return self.mask


def inspect(
    volume: Volume,
    model: str | os.PathLike[str] = "lk_click",
    layers: Iterable[str] | None = None,
    points: Iterable[tuple[Triple, bool]] | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
    announce: Callable[[str], None] | None = None,
) -> tuple[Volume, list[Map]]:
    """Run a model and record what it shows of itself; the answer is the same as without recording.

    Args:
        volume: the image; for a click model one channel, (k, j, i).
        model: name of an installed model, or path of a model package.
        layers: names of the maps wanted, or one name: "NAME", or "NAME #5" for one channel; None for a default set (of
            a click model: all).
        points: for a click model [((r, a, s), positive), ...] in order, RAS mm.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        progress, cancelled: as of `segment`; whole-volume models only.
        announce: told in one sentence, before a whole volume is computed, how much memory and time it will take.

    Returns:
        The mask (uint8) or the labels (uint16) as a Volume on the input's grid, and the maps: `.name`, `.volume`
        (raw values on the map's own grid), `.passport`. A map stitched from several windows is followed by
        "NAME: window disagreement".

    Raises:
        InputError: no points for a click model, a map or channel that the network does not have (the sentence lists
            those it has), a model with nothing to show, maps that do not fit into the memory.
    """
    found = examine(volume, model, layers, points, device, progress, cancelled, announce)
    return found.labels, found.maps


def examine(
    volume: Volume,
    model: str | os.PathLike[str] = "lk_click",
    layers: Iterable[str] | None = None,
    points: Iterable[tuple[Triple, bool]] | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
    announce: Callable[[str], None] | None = None,
) -> Inspection:
    """As `inspect`, and the tables too: numbers of the same run that have no place in the image."""
    clicks = _clicks(points)
    if _takes_clicks(model, clicks) and not clicks:
        raise InputError("The maps of a click model depend on the clicks: give points=[((r, a, s), True), ...].")
    service = _service_with(volume)
    asked = (_IMAGE, os.fspath(model), device, clicks, layers)
    with plain_errors(device):
        found = service.inspect(*asked, progress or _silent, cancelled or _never, announce)
    if isinstance(found.answer, SegmentResult):
        return Inspection(found.answer.labels, found.maps, found.tables)
    mask = np.zeros(volume.grid.shape, np.uint8)
    if found.answer is not None:
        mask = found.answer.box.full(volume.grid.shape).astype(np.uint8)
    return Inspection(volume.with_array(mask), found.maps, found.tables)


def reach(
    volume: Volume,
    model: str | os.PathLike[str] = "lk_click",
    ras: Triple | None = None,
    points: Iterable[tuple[Triple, bool]] | None = None,
    device: str = "auto",
    label: int | None = None,
    around_mm: float | None = None,
) -> Reach:
    """From where in the image the answer at one place comes: the effective receptive field, in millimetres.

    Args:
        volume: the image.
        model: name of an installed model, or path of a model package.
        ras: the place (r, a, s), mm; None: of a click model the last click, else the middle of the volume.
        points: for a click model [((r, a, s), positive), ...] in order, RAS mm.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        label: which output's logit; None: the largest at the place.
        around_mm: None: of the one voxel; else the mean over up to 8 voxels within so many mm of the place.

    Returns:
        `.volume`: size of the gradient on the window that the network saw; `.radii_mm`: {50: (i, j, k), 90: ...}, half
        widths that hold so many percent of its energy; `.theoretical_mm`: what the kernels could touch;
        `.passport`, `.sentence`.

    Raises:
        InputError: a place outside the volume or the window, no points for a click model, no such label.
        RunError: the memory does not suffice, or the answer does not depend on the image.
    """
    clicks = _clicks(points)
    takes_clicks = _takes_clicks(model, clicks)
    if takes_clicks and not clicks:
        raise InputError("The reach of a click model depends on the clicks: give points=[((r, a, s), True), ...].")
    from LKSegmentLib.inspection.reach import click_reach, volume_reach

    with plain_errors(device):
        if not takes_clicks:
            place = volume.grid.centre_ras if ras is None else ras
            return volume_reach(volume, load(model), _three(place), device, label, around_mm)
        from LKSegmentLib.inference.clicks import ClickModelSession
        from LKSegmentLib.inference.devices import resolve_device

        session = ClickModelSession(volume, load(model), resolve_device(device))
        return click_reach(session, clicks, clicks[-1].ras if ras is None else _three(ras), around_mm, label=label)


def _takes_clicks(model: str | os.PathLike[str], clicks: Sequence[Point]) -> bool:
    """Whether the model is a click model. InputError when clicks are given to one that is not."""
    manifest = read_manifest(locate(model))
    if clicks and manifest.kind != "click":
        raise InputError(
            f"The model {manifest.name!r} works on whole volumes and takes no clicks: leave the points out."
        )
    return manifest.kind == "click"


def _service_with(volume: Volume) -> Service:
    if not isinstance(volume, Volume):
        raise InputError(
            f"A Volume is needed, not a {type(volume).__name__}: make one with read_volume or Volume(array, matrix)."
        )
    service = Service()
    service.open_image(_IMAGE, volume.array, volume.ijk_to_ras)
    return service


def _clicks(points: Any) -> tuple[Point, ...]:
    try:
        pairs = [(ras, positive) for ras, positive in points or ()]
    except (TypeError, ValueError) as error:
        raise InputError(f"Points are given as [((r, a, s), positive), ...], but not {points!r:.200}.") from error
    return tuple(Point(_three(ras), positive) for ras, positive in pairs)


def _three(ras: Any) -> tuple[float, float, float]:
    return Point(ras).ras


def _silent(stage: str, fraction: float) -> None:
    pass


def _never() -> bool:
    return False
