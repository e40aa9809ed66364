"""The building blocks that the published networks share, usable on their own; docs/blocks.md has examples."""

from .cross_slice import CrossSliceAttention
from .dynamic_large_kernel import DynamicLargeKernel, DynamicLargeKernelBlock, DynamicLargeKernelModule
from .feature_fusion import DynamicFeatureFusion
from .layer_norm import ChannelLayerNorm
from .lk_attention import LKAttention
from .receptive_bias import ReceptiveBiasBlock, ReceptiveBiasConv3d
from .salience import SalienceLayer
from .self_adaptive import SelfAdaptiveConv2d
from .skip_fusion import SkipFusion

__all__ = [
    "ChannelLayerNorm",
    "CrossSliceAttention",
    "DynamicFeatureFusion",
    "DynamicLargeKernel",
    "DynamicLargeKernelBlock",
    "DynamicLargeKernelModule",
    "LKAttention",
    "ReceptiveBiasBlock",
    "ReceptiveBiasConv3d",
    "SalienceLayer",
    "SelfAdaptiveConv2d",
    "SkipFusion",
]
