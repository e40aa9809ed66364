"""MSA2-Net (Science Progress 109(2), 2026; arXiv 2509.01498): a *reconstruction* from its text.

No formula, table or code of this network could be read; only prose. Published: a CSWin Transformer encoder
with pretrained weights; beside it a ResNet with adaptive convolutions; a bridge of multi-scale adaptive
convolutions in every skip; a decoder of recursively nested groups of adaptive convolutions; the convolution
itself as a soft mixture of candidate kernels (the 2026 definition; the 2025 one fixed a size for each data
set). All wiring below is a choice that fits this text. Results under the authors' name should not be reported
with it.

    image ─► stage 1 ─► stage 2 ─► stage 3 ─► stage 4        F_i = CSWin_i(F_{i-1}) + R_i(F_{i-1})
              │ 64, 1/4   │ 128, 1/8  │ 256, 1/16 │ 512, 1/32
            bridge      bridge      bridge      bridge        B(F) = F + Conv1(g2(g1(F)))
              ▼           ▼           ▼           ▼
    logits ◄─ group ◄──── group ◄──── group ◄──── group       D_i = G_i(Conv1(Up2(D_{i+1})) + B_i)

It is a network of slices. A volume is cut along its first array axis (head to foot in the canonical
orientation), each slice is resized to 224², segmented, and its logits are resized back. Nothing couples the
slices, so intensities
must be scaled by one rule for the whole volume, and the window must hold whole slices: the mixtures depend on
the share of background they see.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from LKSegmentLib.errors import InputError

from .blocks.cswin import CSWinEncoder
from .blocks.self_adaptive import SelfAdaptiveConv2d
from .constraints import check_input, one_of, switch, whole, whole_list
from .official_keys import unwrap
from .receptive_field import StageField

Variant = Literal["tiny", "small"]

_DEPTHS: dict[str, tuple[int, ...]] = {"tiny": (1, 2, 21, 1), "small": (2, 4, 32, 2)}
_WIDTHS = (64, 128, 256, 512)
_NESTED = 3  # adaptive convolutions in a group of the decoder
_SIDE = 224  # stripes of 7 at 1/16, and whole halves down to 1/32
_SLICES_AT_ONCE = 8


class MSA2Net(nn.Module):
    """MSA2-Net (reconstruction).

    Args:
        in_channels: 1 (a grey slice, repeated three times) or 3.
        out_channels: classes.
        variant: of the encoder: CSWin `"tiny"` or `"small"`.
        candidates: odd kernel sizes of the adaptive convolutions.
        dense: full instead of depth-wise adaptive kernels (the literal alternative; seven times the
            parameters).
        auxiliary: the ResNet beside the encoder.
        slice_size: side that slices are resized to, a multiple of 224; 224 for published encoder weights.

    Raises:
        InputError: a value that is not allowed.
    """

    size_multiple: int = 1
    minimum_size: int = 1
    whole_slices: bool = True  # windows of inference hold whole slices, whatever the package says

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 9,
        variant: Variant = "tiny",
        candidates: Sequence[int] = (3, 5, 7),
        dense: bool = False,
        auxiliary: bool = True,
        slice_size: int = 224,
    ) -> None:
        super().__init__()
        self.in_channels = one_of("in_channels", in_channels, (1, 3))
        self.out_channels = whole("out_channels", out_channels)
        self.slice_size = whole("slice_size", slice_size, minimum=_SIDE, multiple=_SIDE)
        depths = _DEPTHS[one_of("variant", variant, get_args(Variant))]
        sizes = whole_list("candidates", candidates)
        switch("dense", dense)

        self.encoder = CSWinEncoder(3, _WIDTHS[0], depths)
        self.auxiliary: nn.ModuleList | None = None
        if switch("auxiliary", auxiliary):
            self.auxiliary = nn.ModuleList(
                AuxiliaryStage(a, b, sizes, dense) for a, b in zip((3, *_WIDTHS), _WIDTHS, strict=False)
            )
        self.bridge = nn.ModuleList(Bridge(width, sizes, dense) for width in _WIDTHS)
        self.decoder = nn.ModuleList(NestedGroup(width, sizes, dense) for width in _WIDTHS)
        self.rise = nn.ModuleList(
            nn.Conv2d(below, above, 1) for above, below in zip(_WIDTHS, _WIDTHS[1:], strict=False)
        )
        self.head = nn.Conv2d(_WIDTHS[0], out_channels, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Segment a volume slice by slice.

        Args:
            image: (batch, in_channels, k, j, i); slices lie along k.

        Returns:
            Logits (batch, out_channels, k, j, i).

        Raises:
            InputError: a number of channels that the network cannot take.
        """
        check_input("MSA2-Net", image.shape, self.in_channels, self.size_multiple, self.minimum_size)
        batch, depth, size = len(image), image.shape[2], image.shape[3:]
        slices = image.transpose(1, 2).flatten(0, 1)
        # Evaluation gives each slice the same result in any company; training needs the statistics of all.
        at_once = len(slices) if self.training else _SLICES_AT_ONCE
        logits = torch.cat([self._resized_slices(part, size) for part in slices.split(at_once)])
        return logits.unflatten(0, (batch, depth)).transpose(1, 2)

    def _resized_slices(self, slices: Tensor, size: torch.Size) -> Tensor:
        square = (self.slice_size, self.slice_size)
        if size != square:
            slices = functional.interpolate(slices, square, mode="bicubic", align_corners=False)
        logits = self.segment_slices(slices)
        if size != square:
            logits = functional.interpolate(logits, size, mode="bilinear", align_corners=False)
        return logits

    def segment_slices(self, slices: Tensor) -> Tensor:
        """Segment images.

        Args:
            slices: (batch, 1 or 3, side, side), side a multiple of 224.

        Returns:
            Logits (batch, out_channels, side, side).

        Raises:
            InputError: another size.
        """
        if slices.shape[2] != slices.shape[3] or slices.shape[2] % _SIDE:
            raise InputError(
                f"MSA2-Net takes square slices whose side is a multiple of {_SIDE}; got "
                f"{[*slices.shape[2:]]}."
            )
        fused = slices.expand(-1, 3, -1, -1)
        skips = []
        for number in range(4):
            stage = self.encoder.stage(number + 1, fused)
            fused = stage if self.auxiliary is None else stage + self.auxiliary[number](fused)
            skips.append(self.bridge[number](fused))
        x = self.decoder[3](skips[3])
        for number in (2, 1, 0):
            up = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = self.decoder[number](self.rise[number](up) + skips[number])
        return functional.interpolate(self.head(x), scale_factor=4, mode="bilinear", align_corners=False)

    def slice_receptive_fields(self) -> list[StageField]:
        """Of the encoder's stages and the logits along an axis of the slice, in voxels of the resized slice.

        Vertical stripes are as high as the map and horizontal ones as wide, so it is the whole side from the first
        block on. Across slices every stage sees one voxel.
        """
        stages = [StageField(f"stage {stage + 1}", 4 * 2**stage, self.slice_size) for stage in range(4)]
        return [*stages, StageField("logits", 1, self.slice_size)]

    def adaptive_convolutions(self) -> dict[str, SelfAdaptiveConv2d]:
        """The 24 (20 without auxiliary) adaptive convolutions by name; `.gate` of each puts out its shares."""
        return {
            name: module for name, module in self.named_modules() if isinstance(module, SelfAdaptiveConv2d)
        }

    def load_encoder(self, checkpoint: Mapping[str, Any]) -> None:
        """Load published ImageNet weights of the CSWin Transformer (MIT licence) into the encoder, strictly.

        Args:
            checkpoint: as published, with the weights under `state_dict_ema` or `state_dict`, or the bare
                weights.

        Raises:
            InputError: the weights are of another variant.
        """
        held = checkpoint.get("state_dict_ema")
        tensors = unwrap(held if isinstance(held, Mapping) else checkpoint)
        tensors = {key: tensor for key, tensor in tensors.items() if not key.startswith("head.")}
        wanted = {key: tensor.shape for key, tensor in self.encoder.state_dict().items()}
        if {key: tensor.shape for key, tensor in tensors.items()} != wanted:
            raise InputError("These weights do not fit the encoder: CSWin-T is 'tiny', CSWin-S is 'small'.")
        self.encoder.load_state_dict(tensors)


class AuxiliaryStage(nn.Module):
    """R(F) = ReLU(BN(SACM(ReLU(BN(Conv(F))))) + BN(Conv1(F))), both convolutions strided.

    The last norms start near zero, so that a pretrained encoder is hardly disturbed. (At zero exactly, which
    the text would suggest, the ReLU would pass no gradient and the branch would never train.)
    """

    def __init__(self, in_channels: int, out_channels: int, candidates: Sequence[int], dense: bool) -> None:
        super().__init__()
        kernel, stride = (7, 4) if in_channels == 3 else (3, 2)
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.adaptive = SelfAdaptiveConv2d(out_channels, candidates, dense)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
        self.norm3 = nn.BatchNorm2d(out_channels)
        for norm in (self.norm2, self.norm3):
            nn.init.constant_(norm.weight, 1e-2)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in_channels, j, i) → (batch, out_channels, j / stride, i / stride)."""
        residual = self.norm2(self.adaptive(functional.relu(self.norm1(self.conv(x)))))
        return functional.relu(residual + self.norm3(self.shortcut(x)))


class AdaptiveUnit(nn.Module):
    """GELU(BN(SACM(x)))."""

    def __init__(self, channels: int, candidates: Sequence[int], dense: bool) -> None:
        super().__init__()
        self.adaptive = SelfAdaptiveConv2d(channels, candidates, dense)
        self.norm = nn.BatchNorm2d(channels)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, j, i) → the same shape."""
        out: Tensor = self.act(self.norm(self.adaptive(x)))
        return out


class Bridge(nn.Module):
    """MSConvBridge: B(F) = F + Conv1(g2(g1(F))), g an `AdaptiveUnit`."""

    def __init__(self, channels: int, candidates: Sequence[int], dense: bool) -> None:
        super().__init__()
        self.units = nn.Sequential(*(AdaptiveUnit(channels, candidates, dense) for _ in range(2)))
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, j, i) → the same shape."""
        out: Tensor = x + self.project(self.units(x))
        return out


class NestedGroup(nn.Module):
    """MSADecoder group: u_0 = 0, u_r = g_r(x + u_{r-1}), G(x) = x + Conv1(concat(u_1, u_2, u_3))."""

    def __init__(self, channels: int, candidates: Sequence[int], dense: bool) -> None:
        super().__init__()
        self.units = nn.ModuleList(AdaptiveUnit(channels, candidates, dense) for _ in range(_NESTED))
        self.project = nn.Conv2d(_NESTED * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, j, i) → the same shape."""
        nested: list[Tensor] = []
        for unit in self.units:
            nested.append(unit(x + nested[-1] if nested else x))
        out: Tensor = x + self.project(torch.cat(nested, dim=1))
        return out
