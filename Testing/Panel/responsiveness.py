"""How long the event loop is blocked while the panel works with a real worker: a measurement, not a test.

    PYTHONPATH=. python Testing/Panel/responsiveness.py [--shape 300 512 512] [--clicks 4]

A timer beats every 5 ms; the longest time between two beats is how long a person would find Slicer frozen. Each
phase is reported with the panel's own part of it, so that a slow machine can be told from a slow panel.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from panel_support import MODULE_FILE, Panel
from PySide6 import QtCore, QtWidgets
from qt_host import QtHost

BEAT_MILLISECONDS = 5


class Heartbeat:
    """The longest pause of the event loop since the last `phase`."""

    def __init__(self) -> None:
        self._timer = QtCore.QTimer()
        self._timer.setInterval(BEAT_MILLISECONDS)
        self._timer.timeout.connect(self._beat)
        self._last = time.perf_counter()
        self.longest = 0.0
        self._timer.start()

    def _beat(self) -> None:
        now = time.perf_counter()
        self.longest = max(self.longest, now - self._last)
        self._last = now

    def phase(self) -> float:
        """Milliseconds of the longest pause since the last call."""
        self._beat()
        longest, self.longest = self.longest, 0.0
        return 1000.0 * longest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, default=(300, 512, 512), metavar=("K", "J", "I"))
    parser.add_argument("--clicks", type=int, default=4)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        host = QtHost(Path(folder) / "settings.ini")
        host.start()
        try:
            measure(host, tuple(arguments.shape), arguments.clicks)
        finally:
            host.stop()


def measure(host: QtHost, shape: tuple[int, ...], clicks: int) -> None:
    import slicer

    generator = np.random.default_rng(3)
    array = generator.integers(-50, 50, shape, dtype=np.int16)
    centre = np.array(shape) // 2
    k, j, i = np.ogrid[: shape[0], : shape[1], : shape[2]]
    array[(k - centre[0]) ** 2 + (j - centre[1]) ** 2 + (i - centre[2]) ** 2 < (min(shape) / 5) ** 2] += 120
    slicer.util.addVolumeFromArray(array, name="phantom")
    del array

    started = time.perf_counter()
    panel = Panel(host, host.open(MODULE_FILE), engine=None)  # type: ignore[arg-type]
    print(f"opening the panel                {1000 * (time.perf_counter() - started):8.0f} ms")
    panel.session.state.model = "lk_click"
    host.choose(panel.ui.deviceComboBox, "CPU")
    beat = Heartbeat()

    def wait_for_the_worker() -> None:
        # The application's own loop, so that the host's waiting is not measured.
        loop = QtCore.QEventLoop()
        until = QtCore.QTimer()
        until.timeout.connect(
            lambda: None if panel.widget.request_timer.isActive() or panel.session.is_busy else loop.quit()
        )
        until.start(10)
        loop.exec()

    host.press(panel.ui.positivePointButton)
    print(f"pressing Include (starts worker) {beat.phase():8.0f} ms longest pause")
    ras = [float(centre[2]), float(centre[1]), float(centre[0])]
    for click in range(clicks):
        started = time.perf_counter()
        panel.place(True, (ras[0] + 3.0 * click, ras[1], ras[2]))
        wait_for_the_worker()
        took = time.perf_counter() - started
        print(f"click {click + 1}: mask after {took:6.2f} s    {beat.phase():8.0f} ms longest pause   {panel.status}")
    panel.ui.whyCollapsibleButton.setCollapsed(False)
    wait_for_the_worker()
    print(f"what the model shows             {beat.phase():8.0f} ms longest pause")
    panel.ui.mapsListWidget.item(2).setCheckState(QtCore.Qt.CheckState.Checked)
    host.press(panel.ui.recordButton)
    wait_for_the_worker()
    print(f"two maps recorded, one shown     {beat.phase():8.0f} ms longest pause   {panel.status}")
    host.choose(panel.ui.secondMapComboBox, panel.host.entries(panel.ui.secondMapComboBox)[-1])
    for step in range(20):
        panel.ui.overlayOpacitySlider.setValue(0.3 + 0.02 * step)
        QtWidgets.QApplication.processEvents()
    print(f"two maps shown, opacity changed  {beat.phase():8.0f} ms longest pause")
    image, found = panel.session.state.input_volume, large_maps(panel)
    beat.phase()  # making them up is no part of it
    panel.session.inspection.take(found, image)
    panel.widget.show_all()
    wait_for_the_worker()
    print(f"a map of every voxel arrives     {beat.phase():8.0f} ms longest pause")
    host.press(panel.ui.undoPointButton)
    wait_for_the_worker()
    print(f"undo                             {beat.phase():8.0f} ms longest pause")
    started = time.perf_counter()
    host.press(panel.ui.acceptButton)
    QtWidgets.QApplication.processEvents()
    print(f"accept                           {beat.phase():8.0f} ms longest pause")


def large_maps(panel: Panel) -> Any:
    """Two maps as large as the volume, such as a whole-volume model gives."""
    from LKSegmentLib.engine.results import InspectResult, Map
    from LKSegmentLib.inspection.maps import CASE, case_percentiles
    from LKSegmentLib.scene import volumes

    volume = volumes.volume_of(panel.session.state.input_volume)
    values = volume.with_array(volume.array.astype(np.float32))
    passport = {"unit": "none", "kind": "native gate", CASE: case_percentiles(values.array)}
    return InspectResult(None, [Map(name, values, passport) for name in ("large 1", "large 2")])


if __name__ == "__main__":
    main()
