"""What a network shows of itself: recorded maps and the passport that says what each one means."""

from .maps import Inspection, Map
from .tables import Table

__all__ = ["Inspection", "Map", "Table"]
