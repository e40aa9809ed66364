"""Words that the panel shows, in the language of the application."""

from __future__ import annotations

try:
    from slicer.i18n import tr as _
except ImportError:  # slicer-core alone has no translations

    def _(text: str) -> str:
        return text


__all__ = ["_"]
