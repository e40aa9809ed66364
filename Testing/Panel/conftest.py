"""The panel over a real scene, with an engine in memory."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

try:
    import PySide6.QtWidgets  # noqa: F401
    import slicer  # noqa: F401
except ImportError:
    # test_opening.py is collected all the same, and says in its skip what is missing.
    collect_ignore_glob = ["test_panel_*.py", "test_common_subset.py"]
else:
    from fake_engine import FakeEngine
    from panel_support import MODULE_FILE, Panel
    from qt_host import OpenModule, QtHost
    from why_support import users_view

MODELS = (("click_model", "A click model", "click"), ("volume_model", "A volume model", "volume"))


def entries() -> list[Any]:
    manifest = types.SimpleNamespace(
        faithfulness={"gate 1": {"weights": "abc", "sentence": "No better than chance.", "data": "two images"}},
        files={"weights.safetensors": types.SimpleNamespace(sha256="abc")},
    )
    about = {"summary": "Made for tests.", "licence": "CC0", "manifest": manifest}
    return [types.SimpleNamespace(name=name, title=title, kind=kind, **about) for name, title, kind in MODELS]


def library_modules() -> dict[str, types.ModuleType]:
    return {name: module for name, module in sys.modules.items() if name.split(".")[0] == "LKSegmentLib"}


@pytest.fixture(autouse=True)
def same_library_afterwards() -> Iterator[None]:
    """The panel's Reload imports the library anew. Other tests hold the first one's classes, so it is put back."""
    before = library_modules()
    yield
    if any(sys.modules.get(name) is not module for name, module in before.items()):
        for name in library_modules():
            del sys.modules[name]
        sys.modules.update(before)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[QtHost]:
    """A started host. At the end it is stopped, and nothing may have gone wrong unseen."""
    one = QtHost(tmp_path / "settings.ini")
    one.start()
    yield one
    one.stop()
    assert one.complaints == []


@pytest.fixture
def add_volume(host: QtHost) -> Callable[..., Any]:
    import slicer

    def add(name: str = "CT abdomen", shape: tuple[int, int, int] = (24, 28, 32)) -> Any:
        return slicer.util.addVolumeFromArray(np.zeros(shape, np.int16), name=name)

    return add


@pytest.fixture
def open_panel(host: QtHost, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Panel]:
    """Opens the panel when called: what the scene holds before is up to the test."""
    engines: list[FakeEngine] = []

    def prepare(module: OpenModule) -> None:
        from LKSegmentLib.scene import panel_session

        engines.append(FakeEngine())
        monkeypatch.setattr(panel_session, "catalogue", entries)
        monkeypatch.setattr(module.python.LKSegmentLogic, "make_engine", lambda logic: engines[-1])

    def open_it() -> Panel:
        module = host.open(MODULE_FILE, prepare)
        return Panel(host, module, engines[-1])

    return open_it


@pytest.fixture
def panel(add_volume: Callable[..., Any], open_panel: Callable[[], Panel]) -> Panel:
    """The panel over one volume of 24 x 28 x 32 voxels (k, j, i) of 1 mm."""
    add_volume()
    return open_panel()


@pytest.fixture
def red(panel: Panel) -> Any:
    """The layers of a slice view, with a foreground and a further layer of the user's own."""
    return users_view(panel)
