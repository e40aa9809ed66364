"""The building blocks that the published networks share, usable on their own."""

from .dynamic_large_kernel import DynamicLargeKernel, DynamicLargeKernelBlock, DynamicLargeKernelModule
from .layer_norm import ChannelLayerNorm
from .lk_attention import LKAttention

__all__ = [
    "ChannelLayerNorm",
    "DynamicLargeKernel",
    "DynamicLargeKernelBlock",
    "DynamicLargeKernelModule",
    "LKAttention",
]
