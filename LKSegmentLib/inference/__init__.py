"""Running networks on images: prepare, window, stitch, decide; and sessions of clicks."""

from __future__ import annotations

from LKSegmentLib.inference.devices import DeviceFacts, available_devices, resolve_device
from LKSegmentLib.inference.segmentation import WindowRecorder, segment_volume
from LKSegmentLib.inference.windows import Window, WindowLayout

__all__ = [
    "DeviceFacts",
    "Window",
    "WindowLayout",
    "WindowRecorder",
    "available_devices",
    "resolve_device",
    "segment_volume",
]
