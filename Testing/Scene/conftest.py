"""A fresh scene for each test, on slicer-core alone."""

from __future__ import annotations

import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")

from LKSegmentLib.scene.core import SceneContext, headless_scene  # noqa: E402


@pytest.fixture
def context() -> SceneContext:
    return headless_scene()
