"""Images and where they are: the representation every room shares. Importing it needs numpy only."""

from LKSegmentLib.volumes.files import read_volume, write_volume
from LKSegmentLib.volumes.mask_box import MaskBox
from LKSegmentLib.volumes.orientation import AxisOrder, canonical_axes
from LKSegmentLib.volumes.resampling import resample
from LKSegmentLib.volumes.volume import Grid, Volume, VolumeWarning, sanitized

__all__ = [
    "AxisOrder",
    "Grid",
    "Volume",
    "VolumeWarning",
    "canonical_axes",
    "read_volume",
    "MaskBox",
    "resample",
    "sanitized",
    "write_volume",
]
