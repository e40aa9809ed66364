"""What is gathered, window by window, of quantities that become tables: which record keeps which."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from LKSegmentLib.inference.windows import Window, WindowLayout
from LKSegmentLib.packages import Manifest
from LKSegmentLib.volumes import Grid

from .channel_ranking import ChannelRanking
from .exposed import Chosen
from .map_storage import Float
from .slice_weights import SliceRecord
from .tables import Table


class TableRecord(Protocol):
    """Gathers one quantity over the windows of a volume."""

    def add(self, window: Window, value: Float, logits: Tensor | None = None) -> None:
        """What `Chosen.value` gave for a window, and the window's logits (channels, k, j, i)."""

    def finished(self) -> Table:
        """The table. The record is spent afterwards."""


def record_for(chosen: Chosen, layout: WindowLayout, working: Grid, manifest: Manifest | None = None) -> TableRecord:
    """An empty record of a quantity whose `exposed.is_table` is true.

    Args:
        chosen: the quantity.
        layout: the windows over the volume.
        working: the grid that their voxels belong to.
        manifest: of the model; names the labels and the model in the table.
    """
    if chosen.exposed.extent == "channels":
        return ChannelRanking(chosen, layout, manifest)
    return SliceRecord(chosen, layout, working, manifest)
