"""Prompts: what a person points at, and the input channels made of it.

``Point`` needs the standard library only, so that the panel can use it; the channels need numpy and SciPy and are
imported when first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .points import Point, without_last

if TYPE_CHECKING:
    from .channels import CHANNELS, PromptChannels

__all__ = ["CHANNELS", "Point", "PromptChannels", "without_last"]


def __getattr__(name: str) -> Any:
    if name in ("CHANNELS", "PromptChannels"):
        from . import channels

        return getattr(channels, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
