"""D-Net prepared: everything at full resolution passes in slabs; only the salience map is ever whole.

That part is three quarters of the arithmetic and, taken map by map, nearly all of the memory: the Salience mixer
alone is 192 channels wide.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from LKSegmentLib.networks.blocks.salience import SalienceLayer
from LKSegmentLib.networks.dnet import DNet
from LKSegmentLib.operators.packed import Activation, PackedConvolution, PackedDoubling, PackedPointwise, as_batch
from LKSegmentLib.operators.slabs import Buffers, convolved, gathered, planes_of, slabs_of

from .blocks import PreparedFusion, PreparedLargeKernelBlock, PreparedMixer, plain_convolution
from .listening import tell
from .norms import batch_norm_line, layer_normed, with_line_after

_LEAKY = Activation("leaky_relu", 0.2)
_PLANES = 4  # of a slab at full resolution, at least: thinner ones starve the convolutions


class PreparedDNet:
    """The whole network for one sample, full-resolution logits only."""

    def __init__(self, network: DNet) -> None:
        encoder: Any = network.encoder  # torch's module lists do not tell what they hold
        decoder: Any = network.decoder
        self.down = [plain_convolution(part) for part in encoder.downsample_layers]
        self.down_norms = list(encoder.norm_layers)
        self.down_blocks = [[PreparedLargeKernelBlock(block) for block in stage] for stage in encoder.stages]
        self.buffers = Buffers()
        self.salience = PreparedSalience(encoder.saliency, self.buffers)
        self.up = [PackedDoubling(part.weight, part.bias) for part in decoder.upsample_layers]
        self.up_norms = list(decoder.norm_layers)
        self.fusions = [PreparedFusion(step) for step in decoder.steps]
        self.up_blocks = [[PreparedLargeKernelBlock(block) for block in stage] for stage in decoder.stages]
        self.stem = PackedDoubling(decoder.stem.weight, decoder.stem.bias)
        self.final_fusion = PreparedFusion(decoder.final_fusion)
        self.final = [_folded(part) for part in (decoder.final_layer.conv1, decoder.final_layer.conv2)]
        self.head = PackedPointwise(decoder.output_layer.weight, decoder.output_layer.bias)

    def __call__(self, image: Tensor) -> Tensor:
        """(planes, rows, columns, in_channels) → logits (planes, rows, columns, classes)."""
        x, skips = image, []
        for down, norm, blocks in zip(self.down, self.down_norms, self.down_blocks, strict=True):
            x = layer_normed(down(x), norm)
            for block in blocks:
                x = block(x)
            skips.append(x)
        x = skips.pop()
        for up, norm, fuse, blocks in zip(self.up, self.up_norms, self.fusions, self.up_blocks, strict=True):
            x = fuse(layer_normed(up(x), norm), skips.pop())
            for block in blocks:
                x = block(x)
        salience = self.salience(image)
        logits = gathered(self._full_resolution(x, salience), image.shape[0])
        self.buffers.give(salience)
        return logits

    def _full_resolution(self, x: Tensor, salience: Tensor) -> Iterator[Tensor]:
        half_planes = max(_PLANES, planes_of(*salience.shape[1:])) // 2
        upsampled = (self.stem(slab) for slab in slabs_of(x, half_planes))
        means = self.stem.mean(x.flatten(0, 2).mean(0)), salience.flatten(0, 2).mean(0)
        stream = self.final_fusion.of_slabs(upsampled, salience, *means)
        for convolution in self.final:
            stream = convolved(stream, 1, convolution)
        return (self.head(slab) for slab in stream)


class PreparedSalience:
    """Salience layer: the projection's norm folded into it, the mixer's into the mixer's first product.

    Args:
        layer: the module.
        buffers: where the result's memory is taken; fresh memory where there are none.
    """

    def __init__(self, layer: SalienceLayer, buffers: Buffers | None = None) -> None:
        self.layer = layer
        line = batch_norm_line(layer.norm_layer)
        projection = layer.channel_proj
        weights = with_line_after(projection.weight, projection.bias, *line)
        self.project = PackedConvolution(*weights, padding=(0, 1, 1), activation=_LEAKY)
        mixer_norm = layer.norm_layer if layer.mixer_norm is None else layer.mixer_norm
        self.mixer = PreparedMixer(layer.mlp, before=batch_norm_line(mixer_norm))
        self.buffers = buffers

    def __call__(self, image: Tensor) -> Tensor:
        """(planes, rows, columns, in_channels) → (planes, rows, columns, channels)."""
        shape = (*image.shape[:3], self.project.weight.shape[0])
        whole = image.new_empty(shape) if self.buffers is None else self.buffers.take(shape, image)
        planes = max(_PLANES, self.mixer.planes(whole.shape))
        projected = self._kept(convolved(slabs_of(image, planes), 1, self.project), whole)
        begin = 0
        for slab in self.mixer.of_slabs(projected, whole.shape):
            # The mixer is a plane ahead: what it has yet to read is not changed here.
            whole[begin : begin + slab.shape[0]] += slab
            begin += slab.shape[0]
        tell(self.layer, as_batch(whole))
        return whole

    @staticmethod
    def _kept(slabs: Iterator[Tensor], whole: Tensor) -> Iterator[Tensor]:
        begin = 0
        for slab in slabs:
            whole[begin : begin + slab.shape[0]] = slab
            begin += slab.shape[0]
            yield slab


def _folded(block: nn.Sequential) -> PackedConvolution:
    """3³ convolution, batch norm and leaky ReLU as one convolution of a stream."""
    convolution, norm = block[0], block[1]
    assert isinstance(convolution, nn.Conv3d) and isinstance(norm, nn.BatchNorm3d)
    weights = with_line_after(convolution.weight, convolution.bias, *batch_norm_line(norm))
    return PackedConvolution(*weights, padding=(0, 1, 1), activation=_LEAKY)


