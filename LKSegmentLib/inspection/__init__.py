"""What a network shows of itself: recorded maps and the passport that says what each one means."""

from .maps import Map

__all__ = ["Map"]
