"""Opening the panel in a process of its own: what it imports, and that it needs nothing Slicer does not bundle."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

for needed, package in (("PySide6.QtWidgets", "PySide6_Essentials"), ("slicer", "slicer-core")):
    missing = f"all panel tests are left out: {package}, or a library it needs, is missing"
    pytest.importorskip(needed, reason=missing, exc_type=ImportError)

HERE = Path(__file__).resolve().parent
NOT_NEEDED = ("torch", "monai", "safetensors", "scipy", "skimage", "rich", "matplotlib", "psutil", "nibabel")


def _in_a_fresh_process(script: str, tmp_path: Path) -> str:
    path = [str(HERE), str(HERE.parents[1])]
    head = f"import sys\nsys.path[:0] = {path!r}\nNOT_NEEDED = {NOT_NEEDED!r}\nSETTINGS = {str(tmp_path / 's.ini')!r}\n"
    done = subprocess.run([sys.executable, "-c", head + script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


OPEN = """
from pathlib import Path
from qt_host import QtHost
from panel_support import MODULE_FILE
import numpy, slicer
host = QtHost(Path(SETTINGS))
host.start()
slicer.util.addVolumeFromArray(numpy.zeros((8, 8, 8), numpy.int16), name="CT")
module = host.open(MODULE_FILE)
host.wait(0.3)
print("status:", module.widget.ui.statusLabel.text())
print("loaded:", sorted(name for name in NOT_NEEDED if name in sys.modules))
host.stop()
print("complaints:", host.complaints)
"""

WITHOUT = """
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in NOT_NEEDED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refuse())
"""


def test_opening_imports_nothing_that_slicer_does_not_bundle(tmp_path: Path) -> None:
    printed = _in_a_fresh_process(OPEN, tmp_path)
    assert "loaded: []" in printed
    assert "complaints: []" in printed


def test_opening_works_where_those_packages_are_missing(tmp_path: Path) -> None:
    printed = _in_a_fresh_process(WITHOUT + OPEN, tmp_path)
    assert "status: Press 'Include'" in printed or "status: No model is installed" in printed
    assert "complaints: []" in printed

