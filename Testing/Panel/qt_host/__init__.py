"""A thin Qt host for Slicer's scripted-module panels: PySide6 without a display over a real MRML scene.

It runs a module file as the application would and lets tests press its buttons. Written from the behaviour
of Slicer's classes; it holds none of Slicer's code. What it stands in for, and what it cannot show, is listed
in docs/panel.md.
"""

from __future__ import annotations

from qt_host.host import OpenModule, QtHost

__all__ = ["OpenModule", "QtHost"]
