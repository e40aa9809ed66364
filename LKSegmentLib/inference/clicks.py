"""Click after click on one volume: the window around the structure, the network's answer, the mask on the volume.

The mask depends on the volume, the package and the ordered clicks alone. Every prefix of the clicks is remembered, so
undoing is free, moving an earlier click replays from there, and a restarted worker comes to the same mask.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from LKSegmentLib.errors import Cancelled, InputError, RunError
from LKSegmentLib.prompts import CHANNELS, Point, PromptChannels, without_last
from LKSegmentLib.volumes import Grid, MaskBox, Volume, canonical_axes, sanitized

from .click_window import Box, ClickWindow
from .held_clicks import hold_in_logits, hold_in_mask
from .looks import Look
from .side_by_side import side_by_side, workers_for
from .window_choice import WindowChoice

if TYPE_CHECKING:
    from LKSegmentLib.packages import Package

Mask = NDArray[np.bool_]
Progress = Callable[[str, float], None]

_SAME_SCALE = 1.15  # ratio of scales up to which an answer replaces the earlier mask in its window
_REMEMBERED = 32  # prefixes of clicks


@dataclass(frozen=True)
class ClickState:
    """What is known after some clicks, on the volume's canonical axes."""

    mask: MaskBox
    window: ClickWindow  # the last one the network saw


class LookRecorder(Protocol):
    """Something that watches the network look by look, such as the taps of `inspection`. It must not change a tensor.

    A click may take several looks; what is kept of a look is handed back if its answer becomes the mask.
    """

    def before_look(self) -> None:
        """The network is about to run on a window."""

    def after_look(self, logits: torch.Tensor) -> Any:
        """The network has answered with logits (1, 1, k, j, i); returns what is to be kept of this look."""

    def answered(self, kept: Any) -> None:
        """The look of which this was kept became the answer."""


@runtime_checkable
class JudgingNetwork(Protocol):
    """A network that tells how good its mask is, as `networks.lk_click.LKClick` does."""

    def answer(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Logits ``(batch, 1, k, j, i)``, and logits ``(batch,)`` of the expected Dice if it tells."""


class ClickModelSession:
    """Clicks on ``volume`` answered by the click model ``package`` on ``device``.

    Args:
        volume: one channel, ``(k, j, i)``.
        package: a package of kind "click".
        device: where the network runs.

    Raises:
        InputError: several channels, no usable voxel, or a package that is no click model. Single voxels that are
            no numbers are replaced, and a VolumeWarning says so.
    """

    def __init__(self, volume: Volume, package: Package, device: torch.device | str = "cpu") -> None:
        if volume.array.ndim != 3:
            raise InputError(
                f"Clicks need a volume with one channel; this one has {volume.channels}. Choose one channel."
            )
        manifest = package.manifest
        self.channel_names = tuple(manifest.prompts.get("channels", CHANNELS[: manifest.in_channels]))
        if manifest.kind != "click" or manifest.in_channels != len(self.channel_names):
            raise InputError(f"The model {manifest.name!r} does not take clicks; choose one that does: lk_click.")
        unknown = [str(name) for name in self.channel_names if name not in CHANNELS]
        if unknown:
            raise InputError(
                f"The model {manifest.name!r} wants an input that this version cannot make: {unknown[0]!r}. "
                "Update LKSegment, or choose another model."
            )
        if len(set(manifest.window)) != 1:
            raise InputError(
                f"The window of the click model {manifest.name!r} must be a cube; it is {tuple(manifest.window)}."
            )
        if volume.array.dtype.kind == "f":  # integers are always usable, and stay as small as they are
            volume = sanitized(volume)
        self.volume = volume
        self.package = package
        self.device = torch.device(device)
        self._axes = canonical_axes(volume.grid)
        self._array = self._axes.apply_array(volume.array)
        self._grid: Grid = self._axes.apply_grid(volume.grid)
        self._edge = int(manifest.window[0])
        self._choice = WindowChoice(self._grid, self._edge)
        self._network = package.network(self.device)
        self._states: OrderedDict[tuple[Point, ...], ClickState] = OrderedDict()
        self._channels: dict[ClickWindow, tuple[tuple[Point, ...], PromptChannels]] = {}  # of the last look

    def mask_for(
        self,
        points: Sequence[Point],
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> MaskBox:
        """The mask after these clicks, in order, on the volume's grid. No clicks: an empty mask.

        Raises:
            InputError: a click outside the volume, or the first click is negative.
            Cancelled: ``cancelled()`` became true; the session stays usable.
        """
        if not points:
            return MaskBox((0, 0, 0), np.zeros((0, 0, 0), np.uint8))
        state = self.state_for(points, progress, cancelled)
        return self._on_volume_axes(state.mask)

    def state_for(
        self,
        points: Sequence[Point],
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
        recorder: LookRecorder | None = None,
    ) -> ClickState:
        """As :meth:`mask_for`, with the window it was found in; for inspection. At least one click.

        ``recorder`` watches the last click, unless its answer is remembered: then nothing is run and it hears nothing.
        """
        clicks = tuple(points)
        self._check(clicks)
        # What is remembered of the middle of a stroke, where someone asked for it, is no beginning.
        ends = [n for n in range(len(clicks), 0, -1) if n == len(clicks) or not clicks[n - 1].with_next]
        known = next((n for n in ends if clicks[:n] in self._states), 0)
        state = self._states.get(clicks[:known])
        for count in range(known + 1, len(clicks) + 1):
            if count < len(clicks) and clicks[count - 1].with_next:
                continue  # in the middle of a stroke

            def told(share: float, done: int = count - known - 1) -> None:
                if progress is not None:
                    progress("clicks", (done + share) / (len(clicks) - known))

            state = self._after(clicks[:count], state, told, cancelled, recorder if count == len(clicks) else None)
            self._remember(clicks[:count], state)
        if progress is not None:
            progress("clicks", 1.0)
        assert state is not None
        self._states.move_to_end(clicks)
        return state

    def inputs_for(self, points: Sequence[Point]) -> NDArray[np.float32]:
        """What the network saw for the last of ``points``: ``(channels, k, j, i)``, made anew (it is large)."""
        clicks = tuple(points)
        window = self.state_for(clicks).window
        earlier = without_last(clicks)
        before = self.state_for(earlier) if earlier else None
        return self._inputs(window, clicks, before).copy()

    def look_again(self, points: Sequence[Point], recorder: LookRecorder) -> None:
        """Run the network once more on what it saw for the last of ``points``, for a recorder that came too late."""
        recorder.answered(self._answer(self.inputs_for(points), recorder)[2])

    @property
    def canonical_grid(self) -> Grid:
        """The grid of :class:`ClickState`: the volume's, its axes turned closest to RAS."""
        return self._grid

    @property
    def network(self) -> torch.nn.Module:
        """The package's network, in eval mode on the session's device."""
        return self._network

    def _check(self, clicks: tuple[Point, ...]) -> None:
        for number, point in enumerate(clicks, 1):
            if not self.volume.grid.contains(point.ras):
                place = ", ".join(f"{value:g}" for value in point.ras)
                raise InputError(f"Click {number} at RAS ({place}) mm lies outside the volume; place it inside.")
        if not clicks[0].positive:
            raise InputError("The first click must be positive: click inside the structure first.")

    def _remember(self, clicks: tuple[Point, ...], state: ClickState) -> None:
        self._states[clicks] = state
        while len(self._states) > _REMEMBERED:
            self._states.popitem(last=False)

    def _voxel(self, point: Point) -> NDArray[np.float64]:
        return self._grid.ijk_of(point.ras)[::-1]

    def _after(
        self,
        clicks: tuple[Point, ...],
        before: ClickState | None,
        told: Callable[[float], None],
        cancelled: Callable[[], bool] | None,
        recorder: LookRecorder | None,
    ) -> ClickState:
        """One more click, or stroke: choose the window, ask the network, put its answer on the volume's voxels."""

        def look(window: ClickWindow) -> Look:
            if cancelled is not None and cancelled():
                raise Cancelled("The click was cancelled.")
            logits, expected_dice, kept = self._answer(self._inputs(window, clicks, before), recorder)
            places = [window.position_of(voxel) for voxel in voxels]
            return Look(window, hold_in_logits(logits, places, positive), expected_dice, kept)

        def look_at(windows: Sequence[ClickWindow]) -> Iterator[Look]:
            told(0.0)
            if self.device.type == "cpu":  # a recorder listens to one pass at a time
                looks = side_by_side(look, windows, workers_for(len(windows)) if recorder is None else 1)
            else:
                looks = map(look, windows)
            for number, seen in enumerate(looks, 1):
                told(number / len(windows))
                yield seen

        voxels, positive = [self._voxel(click) for click in clicks], [click.positive for click in clicks]
        if before is None:
            looks = list(look_at(self._choice.for_first_clicks(voxels, positive)))
            best = self._choice.most_plausible(looks, self._choice.usual_extent(voxels, positive))
        else:
            new = voxels[len(without_last(clicks)) :]
            windows = self._choice.for_correction(new, before.mask, before.window)
            best = max(look_at(windows), key=lambda answer: answer.expected_dice)
        self._channels = {best.window: self._channels[best.window]}
        if recorder is not None:
            recorder.answered(best.kept)
        box = best.window.volume_box
        answer = best.window.spread(best.logits) > 0
        if before is not None and not 1 / _SAME_SCALE <= best.window.step / before.window.step <= _SAME_SCALE:
            _change_one_way(answer, before.mask.full(self._grid.shape)[box], clicks)
        return ClickState(self._pasted(answer, box, before, voxels, positive), best.window)

    def _inputs(self, window: ClickWindow, clicks: tuple[Point, ...], before: ClickState | None) -> NDArray[np.float32]:
        """The channels (channels, k, j, i); made on from those of the last clicks where the window is the same."""
        done, channels = self._channels.get(window, ((), None))
        if channels is None or clicks[: len(done)] != done:
            done, channels = (), PromptChannels(window.sample(self._array), self.channel_names)
        for click in clicks[len(done) :]:
            channels.add_click(window.position_of(self._voxel(click)), click.positive)
        self._channels[window] = clicks, channels
        previous = np.zeros((window.edge,) * 3, np.bool_)
        if before is not None and before.mask.array.size:
            whole = before.mask.full(self._grid.shape)
            previous = window.sample(whole.view(np.uint8)) > 0.5
        channels.set_previous_mask(previous, len(without_last(clicks)))
        return channels.array

    def _answer(
        self, inputs: NDArray[np.float32], recorder: LookRecorder | None = None
    ) -> tuple[NDArray[np.float32], float | None, Any]:
        """Logits (k, j, i), the Dice that the network expects of them if it tells, and what the recorder keeps."""
        tensor = torch.from_numpy(inputs)[None].to(self.device, memory_format=torch.channels_last_3d)
        if recorder is not None:
            recorder.before_look()
        with torch.inference_mode():
            if isinstance(self._network, JudgingNetwork):
                logits, judgement = self._network.answer(tensor)
            else:
                logits, judgement = self._network(tensor), None
            kept = None if recorder is None else recorder.after_look(logits)
        result: NDArray[np.float32] = logits[0, 0].float().cpu().numpy()
        expected_dice = None if judgement is None else float(torch.sigmoid(judgement[0].float()))
        if not (np.isfinite(result).all() and (expected_dice is None or np.isfinite(expected_dice))):
            raise RunError(
                f"The model {self.package.manifest.name!r} answered with values that are not numbers; its weights are "
                "damaged or do not suit this device."
            )
        return result, expected_dice, kept

    def _pasted(
        self,
        answer: Mask,
        box: Box,
        before: ClickState | None,
        voxels: Sequence[NDArray[np.float64]],
        positive: Sequence[bool],
    ) -> MaskBox:
        """The answer in its box over what was there, every click on its side; outside the earlier mask stays."""
        low, high = (np.array([getattr(part, end) for part in box]) for end in ("start", "stop"))
        shown = all((low <= np.rint(voxel)).all() and (np.rint(voxel) < high).all() for voxel in voxels)
        if shown and (before is None or not before.mask.array.size):
            hold_in_mask(answer, (box[0].start, box[1].start, box[2].start), voxels, positive)
            inside = MaskBox.of(answer)
            if not inside.array.size:
                return inside
            lower = tuple(part.start + low for part, low in zip(box, inside.lower, strict=True))
            return MaskBox((lower[0], lower[1], lower[2]), inside.array)
        whole = np.zeros(self._grid.shape, np.bool_) if before is None else before.mask.full(self._grid.shape)
        whole[box] = answer
        hold_in_mask(whole, (0, 0, 0), voxels, positive)
        return MaskBox.of(whole)

    def _on_volume_axes(self, mask: MaskBox) -> MaskBox:
        if self._axes.is_identity or not mask.array.size:
            return mask
        whole = self._axes.undo_array(mask.full(self._grid.shape).view(np.uint8))
        return MaskBox.of(whole)


def _change_one_way(answer: Mask, earlier: Mask, clicks: tuple[Point, ...]) -> None:
    """Positive clicks only add to the ``earlier`` mask, negative ones only take away; ``answer`` is changed in place.

    For answers at another scale than the earlier mask's: they must not blur what was right. A stroke of both kinds
    changes it both ways.
    """
    signs = {click.positive for click in clicks[len(without_last(clicks)) :]}
    if signs == {True}:
        answer |= earlier
    elif signs == {False}:
        answer &= earlier
