"""What every test starts from: the library importable, no display needed, the real images where there are any."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent

if str(REPOSITORY) not in sys.path:
    sys.path.insert(0, str(REPOSITORY))
# Worker processes started by tests import the library too.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
# A shell starts its background jobs deaf to Ctrl+C, and so the commands that tests stop that way would be.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images; tests that ask for it are skipped where it is missing."""
    folder = Path(os.environ.get("LKSEGMENT_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real images at {folder}")
    return folder
