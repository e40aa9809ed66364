"""Draw the panel after three clicks and with two maps recorded, by a real worker: docs/pictures/panel.png.

    PYTHONPATH=. python Testing/Panel/panel_picture.py [PICTURE] [--image FILE --point R A S]

Without an image it uses the synthetic abdomen of the demonstration and clicks on its liver. The look is that of
Qt's Fusion style; inside Slicer the colours and fonts are Slicer's.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from panel_support import MODULE_FILE, ROOT, Panel
from PySide6 import QtCore
from qt_host import QtHost

from LKSegmentLib.volumes import Volume, read_volume


def image_and_point(arguments: argparse.Namespace) -> tuple[str, Volume, tuple[float, float, float]]:
    """The name, the image and where to click first, as RAS mm."""
    if arguments.image:
        return arguments.image.name.split(".")[0], read_volume(arguments.image), tuple(arguments.point)
    from LKSegmentLib.training.abdomen import LABELS, make_abdomen

    abdomen = make_abdomen()
    values = {name: value for value, name in LABELS.items()}
    k, j, i = np.median(np.argwhere(abdomen.labels.array == values["liver"]), axis=0)
    r, a, s = abdomen.volume.grid.ras_of(np.array([i, j, k]))
    return "abdomen", abdomen.volume, (float(r), float(a), float(s))


def draw(picture: Path, name: str, volume: Volume, ras: tuple[float, float, float]) -> str:
    """Click, wait for the mask, save the panel as a PNG; returns what the status line says."""
    from LKSegmentLib.scene import layout, volumes

    with tempfile.TemporaryDirectory() as folder:
        host = QtHost(Path(folder) / "settings.ini")
        host.start()
        try:
            layout.arrange(host.context, volumes.add_volume_node(host.context, volume, name), ras)
            panel = Panel(host, host.open(MODULE_FILE), engine=None)  # type: ignore[arg-type]

            def wait(what: str) -> None:
                host.wait_until(
                    lambda: not panel.widget.request_timer.isActive() and not panel.session.is_busy, 120.0, what
                )

            r, a, s = ras
            for positive, point in ((True, ras), (True, (r + 6.0, a, s)), (False, (r - 60.0, a, s))):
                panel.place(positive, point)
                wait("the mask")
            panel.ui.whyCollapsibleButton.setCollapsed(False)
            host.process_events()
            wait("what the model shows")
            second = panel.session.inspection.exposures(panel.session.state.model)[2].name
            panel.ui.mapsListWidget.item(2).setCheckState(QtCore.Qt.CheckState.Checked)
            host.press(panel.ui.recordButton)
            wait("the maps")
            host.choose(panel.ui.secondMapComboBox, second)
            picture.parent.mkdir(parents=True, exist_ok=True)
            host.grab(panel.module, picture)
            status = panel.status
        finally:
            host.stop()
    if host.complaints:
        raise SystemExit("\n".join(host.complaints))
    return status


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", nargs="?", type=Path, default=ROOT / "docs" / "pictures" / "panel.png")
    parser.add_argument("--image", type=Path)
    parser.add_argument("--point", type=float, nargs=3, metavar=("R", "A", "S"))
    arguments = parser.parse_args()
    if arguments.image and not arguments.point:
        parser.error("--image needs --point R A S: where to click")
    print(draw(arguments.picture, *image_and_point(arguments)))
    print(arguments.picture)


if __name__ == "__main__":
    main()
