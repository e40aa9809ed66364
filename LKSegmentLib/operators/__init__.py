"""Exact, fast large-kernel 3-D convolutions behind ordinary weights."""

from .depthwise import DepthwiseConv3d, depthwise_conv3d
from .pointwise import PointwiseConv3d, pointwise_conv3d

__all__ = ["DepthwiseConv3d", "PointwiseConv3d", "depthwise_conv3d", "pointwise_conv3d"]
