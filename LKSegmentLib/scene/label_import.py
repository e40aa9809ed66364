"""Labels of a whole volume on their way into segments: prepared for a moment at a time, written as one undo step."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

from LKSegmentLib.engine.results import SegmentResult
from LKSegmentLib.errors import InputError
from LKSegmentLib.scene.core import Node, SceneContext
from LKSegmentLib.scene.segmentations import PreparedLabels, preparing_labels
from LKSegmentLib.scene.segments import SegmentWriter
from LKSegmentLib.scene.state import PanelState
from LKSegmentLib.scene.targets import new_segmentation, ready_segmentation
from LKSegmentLib.scene.terminology import label_entries
from LKSegmentLib.scene.translation import _

STEP_SECONDS = 0.02
"""How long labels are prepared at a time, between which Slicer draws and listens."""


class LabelImport:
    """The labels of one volume at a time."""

    def __init__(self, context: SceneContext, state: PanelState, writer: SegmentWriter) -> None:
        self._context, self._state, self._writer = context, state, writer
        self._coming: tuple[Generator[None, None, PreparedLabels | None], str, Any] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether `step` has something to do."""
        return self._coming is not None

    def start(self, result: SegmentResult, volume: Node) -> None:
        """Begin with labels of this volume."""
        entries = label_entries(result.entries or result.names)
        self._coming = preparing_labels(result.labels.array, entries), volume.GetID(), result.labels.ijk_to_ras

    def forget(self) -> None:
        """What was on its way does not come."""
        self._coming = None

    def step(self) -> str:
        """Go on for a moment; a sentence once the segments are there, else "".

        They go beside the volume they were computed from, and where that was deleted meanwhile, nowhere.
        """
        assert self._coming is not None
        preparing, volume_id, ijk_to_ras = self._coming
        end = time.monotonic() + STEP_SECONDS
        try:
            while time.monotonic() < end:
                next(preparing)
        except StopIteration as done:
            self._coming = None
            volume = self._context.scene.GetNodeByID(volume_id)
            return self._add(done.value, volume, ijk_to_ras) if volume is not None else ""
        return ""

    def _add(self, prepared: PreparedLabels | None, volume: Node, ijk_to_ras: Any) -> str:
        problem, said = "", _("{count} segments were added to '{name}'.")
        state = self._state
        try:
            target = ready_segmentation(self._context, state.target_segmentation, volume)
            state.target_segmentation = target
            added = self._writer.add_labels(target, prepared, ijk_to_ras)
        except InputError as error:  # minutes of work are not thrown away because they have no place
            target = state.target_segmentation = new_segmentation(self._context, volume)
            added = self._writer.add_labels(target, prepared, ijk_to_ras)
            problem, said = f"{error} ", _("The {count} segments went into the new segmentation '{name}' instead.")
        return problem + said.format(count=len(added), name=target.GetName())
