"""Prepared forms of the blocks of D-Net and of the LK-attention U-Net; see the blocks for what they compute."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import tee
from typing import Any

import torch
from torch import Tensor, nn

from LKSegmentLib.networks.blocks.dynamic_large_kernel import ChannelMixer, DynamicLargeKernelBlock
from LKSegmentLib.networks.blocks.feature_fusion import DynamicFeatureFusion
from LKSegmentLib.networks.blocks.lk_attention import LKAttention
from LKSegmentLib.operators.depthwise_cpu import PackedDepthwise
from LKSegmentLib.operators.packed import GELU, PackedConvolution, PackedPointwise, as_batch
from LKSegmentLib.operators.slabs import beside, convolved, gathered, planes_of, slabs_of, windows_of

from .listening import Told, tell
from .norms import standardised, with_line_after, with_line_before

# Hidden channels of a mixer that are taken together, where its hidden map is large.
_HIDDEN_BYTES = 11 * 2**20
_HIDDEN_CHANNELS = 96
_SMALL_MAP_BYTES = 2 * 2**20
_MIXER_PLANES = 4


class PreparedMixer:
    """Channel mixer on a stream: the hidden map, four times as wide as the input, exists in pieces only.

    Args:
        mixer: the module.
        before: scale and shift (channels,) of its input, folded into the first product.
        after: scale (channels,) of its output, folded into the last product.
    """

    def __init__(
        self, mixer: ChannelMixer, before: tuple[Tensor, Tensor] | None = None, after: Tensor | None = None
    ) -> None:
        first, last = mixer.fc1, mixer.fc2
        assert first.bias is not None and last.bias is not None and mixer.dwconv.bias is not None
        self.first = first.weight.detach().flatten(1), first.bias.detach()
        if before is not None:
            self.first = with_line_before(first.weight, first.bias, *before)
        self.middle = mixer.dwconv.weight.detach(), mixer.dwconv.bias.detach()
        self.last = last.weight.detach().flatten(1), last.bias.detach()
        if after is not None:
            self.last = with_line_after(self.last[0], self.last[1], after)
        self._groups: dict[int, list[tuple[PackedPointwise, PackedConvolution, PackedPointwise]]] = {}

    def planes(self, shape: torch.Size) -> int:
        """Planes of a slab of a map (planes, rows, columns, channels)."""
        return shape[0] if self._small(shape) else max(_MIXER_PLANES, planes_of(*shape[1:]))

    def of_slabs(self, slabs: Iterable[Tensor], shape: torch.Size) -> Iterator[Tensor]:
        """Slabs of a map of this shape → slabs of the result, one plane late."""
        groups = self._of_group(self._group(shape))
        streams = [
            convolved(map(first, slabs), 1, middle)
            for (first, middle, _), slabs in zip(groups, tee(slabs, len(groups)), strict=True)
        ]
        for parts in zip(*streams, strict=True):
            out: Tensor | None = None
            for (_, _, last), part in zip(groups, parts, strict=True):
                out = last(part, add=out)
            assert out is not None
            yield out

    def _small(self, shape: torch.Size) -> bool:
        return shape.numel() // shape[3] * len(self.first[1]) * 4 <= _SMALL_MAP_BYTES

    def _group(self, shape: torch.Size) -> int:
        if self._small(shape):
            return len(self.first[1])
        fitting = _HIDDEN_BYTES // ((_MIXER_PLANES + 2) * shape[1] * shape[2] * 4) // 16 * 16
        return min(max(fitting, 16), _HIDDEN_CHANNELS, len(self.first[1]))

    def _of_group(self, size: int) -> list[tuple[PackedPointwise, PackedConvolution, PackedPointwise]]:
        if size not in self._groups:
            hidden = len(self.first[1])
            self._groups[size] = [
                (
                    PackedPointwise(self.first[0][one], self.first[1][one]),
                    PackedConvolution(
                        self.middle[0][one],
                        self.middle[1][one],
                        padding=(0, 1, 1),
                        groups=min(begin + size, hidden) - begin,
                        activation=GELU,
                    ),
                    PackedPointwise(self.last[0][:, one], None if begin else self.last[1]),
                )
                for begin in range(0, hidden, size)
                for one in [slice(begin, begin + size)]
            ]
        return self._groups[size]


class PreparedLargeKernelBlock:
    """DLK block: norms and layer scales folded into the products around them, no concatenation."""

    def __init__(self, block: DynamicLargeKernelBlock) -> None:
        self.layer = layer = block.attn.spatial_gating_unit
        norm, scale = block.norm_layer, block.layer_scale.detach()
        line = norm.weight.detach(), norm.bias.detach()
        self.eps = norm.eps
        self.selection = layer.selection
        self.first = PackedPointwise(*with_line_before(block.attn.proj_1.weight, block.attn.proj_1.bias, *line), GELU)
        self.narrow = PackedPointwise(layer.channel_proj.weight)
        self.near = PackedDepthwise(layer.att_conv1.weight, layer.att_conv1.bias)
        self.far = PackedDepthwise(layer.att_conv2.weight, layer.att_conv2.bias, layer.att_conv2.dilation[0])
        select: Any = layer.spatial_se[0]
        channel_gate: Any = layer.conv_atten[0]
        self.select = PackedConvolution(select.weight, select.bias, padding=(3, 3, 3))
        self.gate = channel_gate.weight.detach().flatten(1)
        # scale · (t + P v), with t = weight · s + bias the normed input: the inner residual in two parts.
        self.residual = scale * line[0]
        self.last = PackedPointwise(
            *with_line_after(block.attn.proj_2.weight, block.attn.proj_2.bias, scale, scale * line[1])
        )
        self.mixer = PreparedMixer(block.mlp, before=line, after=scale)

    def __call__(self, x: Tensor) -> Tensor:
        """(planes, rows, columns, channels) → the same shape."""
        planes = planes_of(*x.shape[1:])
        standard = torch.empty_like(x)
        wide = torch.empty_like(x)
        narrow = x.new_empty((*x.shape[:3], self.narrow.weight.shape[0]))
        for begin in range(0, x.shape[0], planes):
            some = slice(begin, begin + planes)
            standard[some] = standardised(x[some], self.eps)
            wide[some] = self.first(standard[some])
            narrow[some] = self.narrow(wide[some])
        near = self.near(narrow)
        far = self.far(near)
        tell(self.layer.att_conv1, as_batch(near))
        tell(self.layer.att_conv2, as_batch(far))
        weigh_near, weigh_far = self._weights(near, far)
        channels = torch.cat(
            [torch.mv(o.flatten(0, 2).t(), w.flatten()) for o, w in ((near, weigh_near), (far, weigh_far))]
        )
        gate = torch.mv(self.gate, channels / weigh_near.numel()).sigmoid()
        tell(self.layer.conv_atten, gate.view(1, -1, 1, 1, 1))
        half = near.shape[-1]
        for begin in range(0, x.shape[0], planes):
            some = slice(begin, begin + planes)
            wide[some][..., :half].addcmul_(near[some] * gate[:half], weigh_near[some].unsqueeze(-1))
            wide[some][..., half:].addcmul_(far[some] * gate[half:], weigh_far[some].unsqueeze(-1))
            mixed = self.last(wide[some], add=x[some])
            standard[some] = mixed.addcmul_(standard[some], self.residual)
        x = standard
        mixer_slabs = (standardised(slab, self.eps) for slab in slabs_of(x, self.mixer.planes(x.shape)))
        out = wide
        begin = 0
        for slab, own in beside(self.mixer.of_slabs(mixer_slabs, x.shape), x):
            torch.add(slab, own, out=out[begin : begin + slab.shape[0]])
            begin += slab.shape[0]
        return out

    def _weights(self, near: Tensor, far: Tensor) -> tuple[Tensor, Tensor]:
        """What multiplies the two kernels' responses at each voxel: (planes, rows, columns) each."""
        half = near.shape[-1]
        share = near.new_full((half,), 0.5 / half)
        pooled = near.new_empty((*near.shape[:3], 2))
        mean = torch.mv(near.flatten(0, 2), share) + torch.mv(far.flatten(0, 2), share)
        pooled[..., 0] = mean.view(near.shape[:3])
        pooled[..., 1] = torch.maximum(near.amax(-1), far.amax(-1))
        maps = self.select(pooled).sigmoid_()
        tell(self.layer.spatial_se, as_batch(maps))
        if self.selection == "sum":
            both = maps.sum(-1)
            return both, both
        return maps[..., 0].contiguous(), maps[..., 1].contiguous()


class PreparedFusion:
    """DFF: the channel gate scales the weights, not the maps, and nothing is concatenated."""

    def __init__(self, fusion: DynamicFeatureFusion) -> None:
        assert fusion.conv1.bias is not None and fusion.conv2.bias is not None
        self.fusion = fusion
        channel_gate: Any = fusion.conv_atten[0]
        self.gate = channel_gate.weight.detach().flatten(1)
        self.reduce = fusion.conv_redu.weight.detach().flatten(1)
        self.of_x, self.of_skip = (part.weight.detach().flatten() for part in (fusion.conv1, fusion.conv2))
        self.offset = fusion.conv1.bias.detach() + fusion.conv2.bias.detach()

    def __call__(self, x: Tensor, skip: Tensor) -> Tensor:
        """Two maps (planes, rows, columns, channels) → one of the same shape."""
        means = [part.flatten(0, 2).mean(0) for part in (x, skip)]
        planes = planes_of(*x.shape[1:])
        return gathered(self.of_slabs(slabs_of(x, planes), skip, *means), x.shape[0])

    def of_slabs(
        self, slabs: Iterable[Tensor], skip: Tensor, mean: Tensor, mean_of_skip: Tensor
    ) -> Iterator[Tensor]:
        """Slabs of x with the means (channels,) over both whole maps → slabs of the result."""
        channels = skip.shape[-1]
        channel_gate = torch.mv(self.gate, torch.cat((mean, mean_of_skip))).sigmoid()
        tell(self.fusion.conv_atten, channel_gate.view(1, -1, 1, 1, 1))
        gated = self.reduce * channel_gate
        first, second = PackedPointwise(gated[:, :channels]), PackedPointwise(gated[:, channels:])
        terms = [(part, Told(part, skip.shape[0])) for part in (self.fusion.conv1, self.fusion.conv2)]
        spatial = Told(self.fusion.nonlin, skip.shape[0])
        for slab, other in beside(slabs, skip):
            fused = second(other, add=first(slab))
            from_x, from_skip = torch.mv(slab.flatten(0, 2), self.of_x), torch.mv(other.flatten(0, 2), self.of_skip)
            for (part, told), term in zip(terms, (from_x, from_skip), strict=True):
                if told.heard and part.bias is not None:
                    told.add((term + part.bias.detach()).view(*slab.shape[:3], 1))
            where = (from_x + from_skip).add_(self.offset).sigmoid_().view(*slab.shape[:3], 1)
            spatial.add(where)
            yield fused.mul_(where)


class PreparedAttention:
    """Large-kernel attention; on a map that is large, in slabs."""

    def __init__(self, attention: LKAttention) -> None:
        dilated, dense = (
            PackedDepthwise(part.weight, part.bias, part.dilation[0]) for part in (attention.dwd, attention.dw)
        )
        self.pair = (dilated, dense) if attention.order == "dwd_dw" else (dense, dilated)
        self.mix = PackedPointwise(attention.pw.weight, attention.pw.bias)
        self.gate = attention.gate

    def __call__(self, features: Tensor) -> Tensor:
        """(planes, rows, columns, channels) → the same shape."""
        return gathered(self.of_map(features), features.shape[0])

    def of_map(self, features: Tensor) -> Iterator[Tensor]:
        """The result as slabs."""
        first, second = self.pair
        rows, columns = features.shape[1:3]
        stream: Iterator[Tensor]
        if first.takes_whole(features):
            stream = slabs_of(second(first(features)), planes_of(*features.shape[1:]))
        else:
            planes = max(part.slab_planes(rows, columns) for part in self.pair)
            stream = map(first.of_window, windows_of(features, planes, first.reach))
            stream = convolved(stream, second.reach, second.of_window)
        told = Told(self.gate, features.shape[0])
        for slab, own in beside(stream, features):
            gate = self.mix(slab).sigmoid_()
            told.add(gate)
            yield gate.add_(1).mul_(own)


def plain_convolution(convolution: nn.Conv3d) -> PackedConvolution:
    """A convolution as it is."""
    assert not isinstance(convolution.padding, str)
    return PackedConvolution(
        convolution.weight, convolution.bias, convolution.stride[0], convolution.padding, convolution.groups
    )
