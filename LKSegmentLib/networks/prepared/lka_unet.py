"""The LK-attention U-Net prepared: every convolution reads slabs, normalises them on the way, and measures its own
result's norm while writing it. A map is written once and read once; nothing is concatenated as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor, nn

from LKSegmentLib.networks.lka_unet import LKAUNet
from LKSegmentLib.operators.packed import PackedConvolution, PackedPointwise, PackedTransposed
from LKSegmentLib.operators.slabs import Buffers, beside, convolved, gathered, joined, planes_of, resliced, slabs_of

from .blocks import PreparedAttention
from .norms import NormedMap, SpaceNorm


class PreparedLKAUNet:
    """The whole network for one sample, full-resolution logits only."""

    def __init__(self, network: LKAUNet) -> None:
        parts: Any = network  # torch's module lists do not tell what they hold
        self.encoder = [[_Step(part) for part in stage] for stage in parts.enc]
        self.down = [_Step(part) for part in parts.down]
        self.up = [_Step(part) for part in parts.up]
        self.attention = {int(level): PreparedAttention(part) for level, part in parts.lk.items()}
        self.decoder = [[_Step(part) for part in stage] for stage in parts.dec]
        self.buffers = Buffers()
        head = parts.heads["0"]
        self.head = PackedPointwise(head.weight, head.bias)

    def __call__(self, image: Tensor) -> Tensor:
        """(planes, rows, columns, in_channels) → logits (planes, rows, columns, classes)."""
        first, second = self.encoder[0]
        slabs = slabs_of(image, first.planes(image))
        skips = [second.of_map(first.of_slabs(slabs, image.shape[0], self.buffers), self.buffers).settled()]
        for down, (first, second) in zip(self.down, self.encoder[1:], strict=True):
            below = first.of_map(down.strided(skips[-1]), self.buffers)
            skips.append(second.of_map(below, self.buffers).settled())
        x = NormedMap.as_is(skips.pop())
        for level, up, (first, second) in zip(
            range(len(self.up) - 1, -1, -1), self.up, self.decoder, strict=True
        ):
            raised, skip = up.doubled(x, self.buffers), skips.pop()
            inner = first.of_slabs(self._joined(level, raised, skip, first), skip.shape[0], self.buffers)
            self.buffers.give(raised.raw)
            self.buffers.give(skip)
            x = second.of_map(inner, self.buffers)
        logits = gathered((self.head(slab) for slab in x.slabs()), x.raw.shape[0])
        self.buffers.give(x.raw)
        return logits

    def _joined(self, level: int, raised: NormedMap, skip: Tensor, reader: _Step) -> Iterator[Tensor]:
        """The upsampled map, attended where this level has attention, with the skip behind its channels."""
        stream: Iterable[Tensor]
        if level in self.attention:
            stream = resliced(self.attention[level].of_map(raised.settled()), reader.planes(skip))
        else:
            stream = raised.slabs(reader.planes(skip))
        return joined(beside(stream, skip))


class _Step:
    """A convolution, a group norm and a leaky ReLU."""

    def __init__(self, block: nn.Sequential) -> None:
        convolution: Any = block[0]
        norm, activation = block[1], block[2]
        assert isinstance(norm, nn.GroupNorm) and isinstance(activation, nn.LeakyReLU)
        self.norm = SpaceNorm(norm, activation.negative_slope)
        weight, bias = convolution.weight, convolution.bias
        self.channels = norm.num_channels
        self.convolve: PackedConvolution | PackedTransposed
        if isinstance(convolution, nn.ConvTranspose3d):
            # Kernel 4, stride 2: n + 2 planes make 2 n of the result without those that need planes beyond.
            self.convolve = PackedTransposed(weight, bias, 2, (3, 1, 1))
        elif convolution.stride[0] == 1:
            self.convolve = PackedConvolution(weight, bias, padding=(0, 1, 1))
        else:
            self.convolve = PackedConvolution(weight, bias, convolution.stride[0], (1, 1, 1))

    def planes(self, x: Tensor) -> int:
        """Of a slab of what it reads."""
        return planes_of(x.shape[1], x.shape[2], max(self.channels, x.shape[3]), at_least=4)

    def of_slabs(self, slabs: Iterable[Tensor], planes: int, buffers: Buffers) -> NormedMap:
        """A map of so many planes as slabs → the result."""
        return self.norm.of_slabs(convolved(slabs, 1, self.convolve), planes, buffers)

    def of_map(self, x: NormedMap, buffers: Buffers) -> NormedMap:
        """A map of the same size; x is used up."""
        result = self.of_slabs(x.slabs(self.planes(x.raw)), x.raw.shape[0], buffers)
        buffers.give(x.raw)
        return result

    def doubled(self, x: NormedMap, buffers: Buffers) -> NormedMap:
        """Twice the size; x is used up."""
        result = self.of_slabs(x.slabs(max(2, self.planes(x.raw) // 4)), 2 * x.raw.shape[0], buffers)
        buffers.give(x.raw)
        return result

    def strided(self, x: Tensor) -> NormedMap:
        """Half the size."""
        return self.norm.of_map(self.convolve(x))
