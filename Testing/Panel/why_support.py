"""What the tests of "See why" share: a slice view with layers of the user's own, and what a person does there."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
from panel_support import Panel
from PySide6 import QtCore


def users_view(panel: Panel) -> Any:
    """The layers of a slice view, with a foreground and a further layer of the user's own."""
    composite = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    composite.SetForegroundVolumeID(slicer.util.addVolumeFromArray(_zeros(), name="PET").GetID())
    composite.SetForegroundOpacity(0.1)
    composite.SetNthLayerVolumeID(3, slicer.util.addVolumeFromArray(_zeros(), name="dose").GetID())
    panel.session.state.input_volume = slicer.mrmlScene.GetFirstNodeByName("CT abdomen")
    return composite


def _zeros() -> Any:
    return np.zeros((24, 28, 32), np.int16)


def layers(composite: Any) -> list[Any]:
    names = []
    for place in (1, *range(3, 3 + composite.GetNumberOfAdditionalLayers())):
        volume = composite.GetNthLayerVolume(place)
        names.append((volume.GetName() if volume else "", round(composite.GetNthLayerOpacity(place), 6)))
    return names


def ticks(panel: Panel) -> dict[str, bool]:
    widget = panel.ui.mapsListWidget
    items = [widget.item(row) for row in range(widget.count())]
    return {item.text(): item.checkState() == QtCore.Qt.CheckState.Checked for item in items}


def tick(panel: Panel, row: int, on: bool = True) -> None:
    state = QtCore.Qt.CheckState.Checked if on else QtCore.Qt.CheckState.Unchecked
    panel.ui.mapsListWidget.item(row).setCheckState(state)
    panel.host.process_events()


def with_volume_model(panel: Panel) -> None:
    panel.host.choose(panel.ui.modelComboBox, "A volume model")


def recorded(panel: Panel) -> None:
    with_volume_model(panel)
    panel.ui.whyCollapsibleButton.setCollapsed(False)
    panel.settle()
    for row in (1, 2):
        tick(panel, row)
    panel.record()
