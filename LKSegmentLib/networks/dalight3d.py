"""DALight-3D: a light U-Net with cross-slice attention and identifier-conditioned norms (arXiv 2605.04518).

    level    resolution  encoder                              decoder
    E0/D2    1/1         24, full 3³ convolutions             24, SSFB with E0
    E1/D1    1/2         48, separable convolutions           48, SSFB with E1
    E2/D0    1/4         96, separable, cross-slice attention 96, plain fusion with E2
    E3       1/8         432, separable, cross-slice attention

Exact against the released code (2026-05-04) in its paper configuration, which is the default here.

The identifier is an integer 0 to 7 for each image that picks scale and shift of every norm. In the released
code it is Python's salted hash of the file name, modulo 8: noise that changes with every process. Here it is
an explicit input with the meaning the user gives it (site, scanner, protocol), or None for the separate
default scale and shift. The released training never passes None, so in weights trained there the defaults are
untrained (1 and 0); `average_identifiers()` sets them to the means of the eight rows.

The published comparison (0.727 against 0.710 of a residual U-Net) is not established: the authors' own result
files hold the two numbers the other way round.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from LKSegmentLib.errors import InputError
from LKSegmentLib.operators import PointwiseConv3d

from .blocks.lightweight import GROUPS, IDENTIFIERS, IdentifierNorm, LightweightBlock
from .blocks.skip_fusion import SimpleSkip, SkipFusion
from .constraints import check_input, fraction, switch, whole
from .receptive_field import Line, StageField

_HEAD_WIDTH = 64


class DALight3D(nn.Module):
    """DALight-3D.

    Args:
        in_channels: of the image.
        out_channels: classes.
        base_filters: channels of the first stage; doubled from stage to stage. All widths are multiples of 8.
        num_stages: encoder stages.
        max_channels: upper limit of the doubling.
        bottleneck_channels: channels of the last stage, or None: as the doubling gives.
        ssfb_rank: rank of the attention in the skip fusions.
        separable: separable convolutions in all blocks but the first.
        icn: identifier-conditioned norms; else group norms.
        csa: cross-slice attention from the third encoder stage on.
        csa_standard: ordinary attention instead of the published transposed use; the same tensors.
        ssfb: skip fusion by attention and gate in all decoder steps but the deepest; else plain fusion.
        evidential: a head of evidence instead of one of logits; see `predict`.
        dropout: of whole channels before the head, in training.

    Raises:
        InputError: a value that is not allowed.
    """

    size_multiple: int = 1
    minimum_size: int = 2

    def __init__(
        self,
        in_channels: int = 4,
        out_channels: int = 4,
        base_filters: int = 24,
        num_stages: int = 4,
        max_channels: int = 384,
        bottleneck_channels: int | None = 432,
        ssfb_rank: int = 8,
        separable: bool = True,
        icn: bool = True,
        csa: bool = True,
        csa_standard: bool = False,
        ssfb: bool = True,
        evidential: bool = False,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.in_channels = whole("in_channels", in_channels)
        self.out_channels = whole("out_channels", out_channels)
        base = whole("base_filters", base_filters, minimum=GROUPS, multiple=GROUPS)
        most = whole("max_channels", max_channels, minimum=GROUPS, multiple=GROUPS)
        widths = [base]
        for _ in range(whole("num_stages", num_stages, minimum=2) - 1):
            widths.append(min(2 * widths[-1], most))
        if bottleneck_channels is not None:
            widths[-1] = whole("bottleneck_channels", bottleneck_channels, minimum=GROUPS, multiple=GROUPS)
        self.feature_sizes = tuple(widths)
        # A norm whose groups are one channel needs two voxels in the deepest map it meets.
        narrow = [stage for stage, width in enumerate(widths) if width == GROUPS]
        self.minimum_size = 2 ** max(narrow) + 1 if narrow else 2
        self.evidential = switch("evidential", evidential)
        self.icn = switch("icn", icn)
        rank = whole("ssfb_rank", ssfb_rank)
        how = {"separable": switch("separable", separable), "icn": icn}
        csa_kind = switch("csa_standard", csa_standard) if switch("csa", csa) else None

        self.encoder = _Encoder(in_channels, widths, csa_kind, **how)
        self.decoder = _Decoder(widths, rank, switch("ssfb", ssfb), **how)
        self.drop = nn.Dropout3d(fraction("dropout", dropout))
        self.head: nn.Module = (
            _EvidentialHead(base, out_channels) if evidential else _Head(base, out_channels)
        )
        self.apply(_initialise)

    def forward(self, image: Tensor, identifier: Tensor | int | None = None) -> Tensor:
        """Segment.

        Args:
            image: (batch, in_channels, k, j, i); any sizes, one of them at least 2 (`minimum_size`, where a
                deep stage has 8 channels).
            identifier: whole numbers 0 to 7, one for each image (batch,), or one for all; None: the defaults.

        Returns:
            Logits (batch, out_channels, k, j, i). Of an evidential network log(evidence + 1), whose softmax
            is the expected probability.

        Raises:
            InputError: a size, a number of channels or an identifier that the network cannot take.
        """
        least = self.minimum_size
        check_input("DALight-3D", image.shape, self.in_channels, self.size_multiple, least, thinnest=1)
        chosen = _checked_identifier(identifier, image)
        features = self.encoder(image, chosen)
        out: Tensor = self.head(self.drop(self.decoder(features, chosen)))
        return (out + 1).log() if self.evidential else out

    def predict(self, image: Tensor, identifier: Tensor | int | None = None) -> dict[str, Tensor]:
        """Probabilities and uncertainty, as the released network returns them; arguments as of `forward`.

        Returns:
            `probs` (batch, out_channels, k, j, i); `uncertainty`, `epistemic`, `aleatoric` (batch, k, j, i),
            in nats where they are entropies. Softmax head: uncertainty is the entropy of probs, epistemic the
            same, aleatoric zero; also `logits`. Evidential head: epistemic = classes / total evidence,
            aleatoric is the entropy of the expected probabilities, uncertainty their sum.
        """
        logits = self(image, identifier).float()
        probs = logits.softmax(dim=1)
        entropy = -(probs * probs.clamp(min=1e-7).log()).sum(1)
        if not self.evidential:
            zeros = torch.zeros_like(entropy)
            return {
                "probs": probs,
                "logits": logits,
                "uncertainty": entropy,
                "epistemic": entropy,
                "aleatoric": zeros,
            }
        epistemic = self.out_channels / logits.exp().sum(1)
        return {
            "probs": probs,
            "uncertainty": epistemic + entropy,
            "epistemic": epistemic,
            "aleatoric": entropy,
        }

    @torch.no_grad()
    def average_identifiers(self) -> None:
        """Set the default scale and shift of every norm to the means over the identifiers (ours; see above)."""
        for module in self.modules():
            if isinstance(module, IdentifierNorm):
                module.default_gamma.copy_(module.scanner_gamma.weight.mean(0))
                module.default_beta.copy_(module.scanner_beta.weight.mean(0))

    def receptive_fields(self) -> list[StageField]:
        """Of the encoder's stages and the logits, in input voxels; attention and gates left out."""
        x = Line.of_input().convolved(3)
        fields: list[StageField] = []
        skips: list[Line] = []
        for stage in range(len(self.feature_sizes)):
            if stage:
                x = x.convolved(3, stride=2)
            x = x.convolved(3).convolved(3)
            skips.append(x)
            fields.append(x.field(f"encoder {stage}"))
        skips.pop()
        while skips:
            x = x.upsampled().joined(skips.pop()).convolved(3).convolved(3).convolved(3)
        return [*fields, x.convolved(3).field("logits")]


class _Encoder(nn.Module):
    def __init__(
        self, in_channels: int, widths: Sequence[int], csa_standard: bool | None, separable: bool, icn: bool
    ) -> None:
        super().__init__()
        self.init_conv = nn.Sequential(
            nn.Conv3d(in_channels, widths[0], 3, padding=1, bias=False),
            nn.GroupNorm(GROUPS, widths[0]),
            nn.GELU(),
        )
        before = (widths[0], *widths)
        self.stages = nn.ModuleList(
            LightweightBlock(
                before[stage], width, separable and stage > 0, icn, csa_standard if stage >= 2 else None
            )
            for stage, width in enumerate(widths)
        )
        self.downsamples = nn.ModuleList(
            nn.Conv3d(width, width, 3, stride=2, padding=1) for width in widths[:-1]
        )

    def forward(self, image: Tensor, identifier: Tensor | None) -> list[Tensor]:
        """Image → maps of the stages, finest first."""
        x = self.init_conv(image)
        features = []
        for number, stage in enumerate(self.stages):
            if number:
                x = self.downsamples[number - 1](x)
            x = stage(x, identifier)
            features.append(x)
        return features


class _Decoder(nn.Module):
    def __init__(self, widths: Sequence[int], rank: int, ssfb: bool, separable: bool, icn: bool) -> None:
        super().__init__()
        deepest_first = widths[::-1]
        outputs = deepest_first[1:]
        self.upsamples = nn.ModuleList(
            nn.ConvTranspose3d(a, b, 2, stride=2) for a, b in zip(deepest_first, outputs, strict=False)
        )
        self.skip_fusions = nn.ModuleList(
            SkipFusion(width, rank) if ssfb and step > 0 else SimpleSkip(width)
            for step, width in enumerate(outputs)
        )
        self.stages = nn.ModuleList(LightweightBlock(width, width, separable, icn, None) for width in outputs)

    def forward(self, features: list[Tensor], identifier: Tensor | None) -> Tensor:
        """Maps of the encoder, finest first → one at full resolution."""
        *skips, x = features
        for up, fuse, stage in zip(self.upsamples, self.skip_fusions, self.stages, strict=True):
            x, skip = up(x), skips.pop()
            if x.shape[2:] != skip.shape[2:]:
                x = functional.interpolate(x, skip.shape[2:], mode="trilinear", align_corners=False)
            x = stage(fuse(skip, x), identifier)
        return x


class _Head(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.head = _head_layers(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """→ logits."""
        logits: Tensor = self.head(x)
        return logits


class _EvidentialHead(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.net = _head_layers(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """→ evidence, at least 0."""
        return functional.softplus(self.net(x))


def _head_layers(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(in_channels, _HEAD_WIDTH, 3, padding=1, bias=False),
        nn.GroupNorm(GROUPS, _HEAD_WIDTH),
        nn.GELU(),
        PointwiseConv3d(_HEAD_WIDTH, out_channels),
    )


def _checked_identifier(identifier: Tensor | int | None, image: Tensor) -> Tensor | None:
    if identifier is None:
        return None
    chosen = torch.as_tensor(identifier, device=image.device)
    if chosen.is_floating_point() or chosen.dtype == torch.bool or chosen.ndim > 1:
        raise InputError("The identifier is a whole number for each image of the batch, 0 to 7, or None.")
    if chosen.numel() not in (1, len(image)):
        raise InputError(f"There are {chosen.numel()} identifiers for a batch of {len(image)} images.")
    if not chosen.is_meta and bool(((chosen < 0) | (chosen >= IDENTIFIERS)).any()):
        raise InputError(f"The identifiers {chosen.tolist()} are not all within 0 to {IDENTIFIERS - 1}.")
    return chosen.reshape(-1).long()


def _initialise(module: nn.Module) -> None:
    """As released: convolutions Kaiming normal by fan-out, linear layers truncated normal; the rest by default."""
    if isinstance(module, nn.Conv3d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
